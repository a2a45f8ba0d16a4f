// SPDX-License-Identifier: GPL-2.0-or-later
// The context's view of the cluster: snapshots, pools, inodes, connections, opening images.
#include "client/context.hpp"

#include <algorithm>

#include "runtime/system.hpp"

namespace vitastor::client {
namespace {

constexpr uint64_t kCloseLimitNs = 10 * runtime::kNsPerSecond;

net::PeerOptions peer_options(const cluster::ClientConfig& config, uint64_t session, Logger& logger) {
    net::PeerOptions options;
    options.session = session;
    for (auto& text : config.osd_networks) {
        auto network = net::Cidr::parse(text);
        if (network.ok()) options.networks.push_back(network.value());
        else log(logger, LogLevel::warning, "osd_network: %s", network.status().message().c_str());
    }
    options.connect_timeout_ns = config.peer_connect_timeout_s * runtime::kNsPerSecond;
    options.connect_interval_ns = config.peer_connect_interval_s * runtime::kNsPerSecond;
    options.idle_ns = config.osd_idle_timeout_s * runtime::kNsPerSecond;
    options.ping_timeout_ns = config.osd_ping_timeout_s * runtime::kNsPerSecond;
    options.connection.receive_buffer_bytes = config.tcp_header_buffer_size;
    return options;
}

std::string being_removed(const std::string& name) {
    return "it is being removed, and some of its data may be gone already: `vitastor-cli rm " + name + "` ends that";
}

}  // namespace

std::string shown(InodeNum inode) {
    return "inode " + std::to_string(inode & ((1ull << kPoolShift) - 1)) + " of pool " + std::to_string(pool_of(inode));
}

Context::Context(Shared& shared, runtime::Loop& loop)
    : shared_(shared), loop_(loop), session_((loop.random_u64() >> 11) | 1) {
    config_ = shared.hub().snapshot().config;
    hostname_ = config_->hostname.empty() ? runtime::host_name() : config_->hostname;
    peers_ = std::make_unique<net::Peers>(loop, peer_options(*config_, session_, logger()), *this, logger());
    retry_timer_.context = this;
    retry_timer_.on_fire = [](runtime::Timer* t) { static_cast<Hook<runtime::Timer>*>(t)->context->on_retry_timer(); };
    open_timer_.context = this;
    open_timer_.on_fire = [](runtime::Timer* t) { static_cast<Hook<runtime::Timer>*>(t)->context->retry_missing(); };
    limit_timer_.context = this;
    limit_timer_.on_fire = [](runtime::Timer* t) { static_cast<Hook<runtime::Timer>*>(t)->context->on_limit_timer(); };
    finisher_.context = this;
    finisher_.on_run = [](runtime::Deferred* d) { static_cast<Hook<runtime::Deferred>*>(d)->context->run_finished(); };
    rechecker_.context = this;
    rechecker_.on_run = [](runtime::Deferred* d) { static_cast<Hook<runtime::Deferred>*>(d)->context->retry_waiting(); };
    wake_.notifier.context = this;
    wake_.notifier.on_notify = [](runtime::Notifier* n) {
        auto* context = static_cast<Hook<runtime::Notifier>*>(n)->context;
        context->adopt_snapshot();
        context->retry_waiting();
        context->writeback_.on_change();
    };
    loop_.register_notifier(wake_.notifier);
    shared_.add_context(this);
    shared_.hub().subscribe(loop_, wake_.notifier);
    adopt_snapshot();
}

Context::~Context() {
    VITASTOR_ASSERT(closing_ && operations_ == 0);
}

void Context::close() {
    if (closing_) return;
    // Each gives itself up in time.
    while (last_flushes_ > 0) loop_.run_once(runtime::kNever);
    closing_ = true;
    shared_.hub().unsubscribe(wake_.notifier);
    shared_.remove_context(this);
    retry_waiting();
    on_limit_timer();
    writeback_.on_change();
    while (Op* op = opening_.pop_front()) finish_later(*op, -ECANCELED);
    while (Op* op = missing_.pop_front()) finish_later(*op, -ECANCELED);
    tell_listeners();
    struct Done : runtime::Completion {
        bool done = false;
    } closed;
    closed.on_done = [](runtime::Completion* self, int64_t) { static_cast<Done*>(self)->done = true; };
    peers_->close_all(closed);
    uint64_t limit = loop_.now_exact_ns() + kCloseLimitNs;
    while ((!closed.done || operations_ > 0 || !listeners_.empty()) && loop_.now_exact_ns() < limit) loop_.run_once(limit);
    VITASTOR_ASSERT(closed.done && operations_ == 0);
    loop_.disarm(retry_timer_);
    loop_.disarm(limit_timer_);
    loop_.disarm(open_timer_);
    if (finisher_.linked()) finisher_.unlink();
    if (rechecker_.linked()) rechecker_.unlink();
    loop_.unregister_notifier(wake_.notifier);
    for (Image* image : attached_) image->abi_context = nullptr;
    attached_.clear();
    opened_.clear();
    for (Image* image : unsynced_) image->unref();
    unsynced_.clear();
    peers_.reset();
}

// ---- snapshots

void Context::adopt_snapshot() {
    cluster::Snapshot snapshot = shared_.hub().snapshot();
    trouble_ = snapshot.trouble;
    if (snapshot.config != config_) {
        config_ = snapshot.config;
        peers_->set_options(peer_options(*config_, session_, logger()));
    }
    if (snapshot.map && snapshot.map != map_) {
        auto before = std::move(map_);
        map_ = std::move(snapshot.map);
        for (auto& [osd, state] : map_->osds) {
            if (before) {
                auto known = before->osds.find(osd);
                if (known != before->osds.end() && known->second == state) continue;
                // A new record with the same address: it has been started again, do not wait for the next attempt.
                if (known != before->osds.end()) peers_->set_address(osd, std::nullopt);
            }
            peers_->set_address(osd, net::PeerAddress{osd, state->addresses, state->port});
        }
        if (before) {
            for (auto& [osd, state] : before->osds) {
                if (map_->osds.count(osd)) continue;
                peers_->set_address(osd, std::nullopt);
                OsdLink* gone = link(osd);
                // Without a lease it answers nothing any more; frozen, it would keep operations waiting until the ping times out.
                reset_link(gone, gone->connection, "its key in etcd is gone");
                if (gone->wanted && !gone->connection) {
                    gone->wanted = false;
                    peers_->unwant(osd);
                }
            }
        }
        bool tree_changed = !before || before->node_placement != map_->node_placement || before->osds != map_->osds;
        for (auto& [id, pool] : map_->pools) {
            auto& view = pools_[id];
            if (!view) view = std::make_unique<PoolView>();
            if (view->pool != pool || (tree_changed && pool->local_reads == cluster::LocalReads::nearest))
                rebuild_pool(*view, pool);
        }
        for (auto& [id, view] : pools_)
            if (view->pool && !map_->pools.count(id)) rebuild_pool(*view, nullptr);
        writeback_.take_settings();
        readahead_.set_window(writeback_.settings().readahead_bytes);
        check_opened_images();
        recheck_limited();
    }
    while (Op* op = opening_.front()) {
        if (!map_ && trouble_.empty()) break;
        opening_.pop_front();
        finish_open(*op);
    }
    retry_missing();
    tell_listeners();
}

void Context::tell_listeners() {
    for (ChangeListener* listener : std::vector<ChangeListener*>(listeners_)) listener->on_change();
}

void Context::rebuild_pool(PoolView& view, std::shared_ptr<const cluster::Pool> pool) {
    view.pool = std::move(pool);
    view.primary.clear();
    view.nearest.clear();
    view.holders.clear();
    view.no_holders_until_ns.clear();
    if (!view.pool) return;
    const cluster::Pool& p = *view.pool;
    view.object_size = p.object_size();
    view.pg_stripe_size = p.pg_stripe_size;
    view.bitmap_bytes = p.bitmap_bytes() * p.data_chunks();
    view.immediate = p.immediate_commit == wire::ImmediateCommit::all;
    view.primary.reserve(p.pgs.size());
    for (auto& pg : p.pgs) view.primary.push_back(pg.usable() ? link(pg.primary) : nullptr);
    if (p.local_reads != cluster::LocalReads::primary && p.scheme != cluster::Scheme::replicated) return find_holders(view);
    if (p.local_reads != cluster::LocalReads::nearest) return;
    std::map<OsdNum, int> distances;
    for (auto& pg : p.pgs) {
        OsdLink* best = nullptr;
        int best_distance = 0;
        for (OsdNum osd : pg.osd_set) {
            auto state = map_->osds.find(osd);
            if (!osd || state == map_->osds.end()) continue;
            auto [known, fresh] = distances.try_emplace(osd, 0);
            if (fresh) known->second = tree_distance(state->second->host, osd);
            int distance = known->second;
            // Of equals the primary: it needs no lock of the PG.
            if (!best || distance < best_distance || (distance == best_distance && osd == pg.primary)) {
                best = link(osd);
                best_distance = distance;
            }
        }
        view.nearest.push_back(best);
    }
}

void Context::find_holders(PoolView& view) {
    const cluster::Pool& p = *view.pool;
    const uint32_t chunks = p.data_chunks();
    view.holders.assign(p.pgs.size() * chunks, nullptr);
    view.no_holders_until_ns.assign(p.pgs.size(), 0);
    for (size_t i = 0; i < p.pgs.size(); i++) {
        const cluster::Pg& pg = p.pgs[i];
        if (!pg.usable() || !allows_local_reads(pg) || pg.osd_set.size() != p.pg_size) continue;
        for (uint32_t chunk = 0; chunk < chunks; chunk++) {
            const OsdNum osd = pg.osd_set[chunk];
            if (osd && osd != pg.primary) view.holders[i * chunks + chunk] = link(osd);
        }
    }
}

/// Steps from this host up to the first node that is also above the OSD; large when there is none.
int Context::tree_distance(const std::string& osd_host, OsdNum osd) const {
    auto& tree = *map_->node_placement;
    auto parent = [&](const std::string& node) {
        auto found = tree.find(node);
        return found == tree.end() ? std::string() : found->second.second;
    };
    std::vector<std::string> above;
    std::string node = parent(std::to_string(osd));
    if (node.empty()) node = osd_host;
    while (!node.empty() && above.size() < kMaxChain) {
        above.push_back(node);
        node = parent(node);
    }
    int steps = 0;
    for (node = hostname_; !node.empty() && steps < static_cast<int>(kMaxChain); node = parent(node), steps++)
        if (std::find(above.begin(), above.end(), node) != above.end()) return steps;
    return INT32_MAX;
}

PoolView* Context::pool_view(PoolId pool) {
    auto found = pools_.find(pool);
    return found != pools_.end() && found->second->pool ? found->second.get() : nullptr;
}

// ---- connections

OsdLink* Context::link(OsdNum osd) {
    auto& slot = links_[osd];
    if (!slot) {
        slot = std::make_unique<OsdLink>();
        slot->osd = osd;
    }
    return slot.get();
}

net::Connection* Context::connect(OsdLink* link) {
    if (link->connection) return link->connection;
    if (!link->wanted && !closing_) {
        link->wanted = true;
        peers_->want(link->osd);
    }
    return nullptr;
}

void Context::reset_link(OsdLink* link, net::Connection* used, const std::string& reason) {
    if (!link->connection || link->connection != used) return;
    link->connection = nullptr;
    link->greeting = false;
    peers_->reset(link->osd, reason);
}

void Context::on_peer_up(OsdNum osd) {
    OsdLink* up = link(osd);
    up->connection = peers_->get(osd);
    const wire::ConfigReplyJson* hello = peers_->peer_config(osd);
    up->reads_chunks = hello && hello->ec_local_reads;
    up->epoch = shared_.next_connection_epoch();
    for (Image* image : unsynced_) replay_stale(*image);
    if (!rechecker_.linked()) loop_.defer(rechecker_);
    tell_listeners();
}

void Context::on_peer_down(OsdNum osd) {
    OsdLink* down = link(osd);
    down->connection = nullptr;
    down->greeting = false;
    if (!rechecker_.linked()) loop_.defer(rechecker_);
    tell_listeners();
}

void Context::on_peer_greeted(OsdNum osd) {
    link(osd)->greeting = false;
    if (!rechecker_.linked()) loop_.defer(rechecker_);
    tell_listeners();
}

// ---- inodes and images

InodeView Context::make_view(InodeNum number, bool skip_parents) {
    InodeView view;
    view.inode = number;
    view.pool = pool_view(pool_of(number));
    auto found = map_->inodes->find(number);
    if (found == map_->inodes->end()) return view;
    const cluster::Inode& inode = found->second;
    view.known = true;
    view.size = inode.size;
    view.read_only = inode.readonly;
    view.has_parent = inode.parent != 0;
    view.limits = inode.limits;
    if (skip_parents) return view;
    view.meta_revision = inode.mod_revision;
    uint64_t newest = inode.mod_revision;
    InodeNum parent = inode.parent;
    for (unsigned depth = 0; parent; depth++) {
        if (depth >= kMaxChain || parent == number) {
            view.broken_chain = -ELOOP;
            break;
        }
        if (pool_of(parent) != pool_of(number) && !view.cross_parent) view.cross_parent = parent;
        auto above = map_->inodes->find(parent);
        if (above == map_->inodes->end()) view.broken_chain = -ENOENT;
        else newest = std::max(newest, above->second.mod_revision);
        parent = view.broken_chain ? 0 : above->second.parent;
    }
    if (view.cross_parent) view.chain_revision = newest;
    return view;
}

/// The inode that an image opened by name is now. Its name moves to another inode when a snapshot or a merge puts a layer above or in place of it; but
/// where the inode itself goes on under another name, writable and not below what has its old name, the image was renamed, and its users go with it.
InodeNum Context::find_inode(Image& image, bool& named) {
    const InodeNum known = image.inode.load(std::memory_order_relaxed);
    const std::string name = image.renamed.load(std::memory_order_acquire) ? image.name() : image.options.name;
    auto found = map_->image_by_name->find(name);
    if (const auto first = map_->image_by_name->find(image.options.name); known && first != found && first != map_->image_by_name->end() &&
                                                                         is_above(first->second, known)) {
        image.renamed.store(false, std::memory_order_release);  // it was a snapshot, made by hand in another order
        found = first;
    }
    named = found != map_->image_by_name->end();
    if ((named && found->second == known) || !known) return named ? found->second : known;
    const auto record = map_->inodes->find(known);
    if (record != map_->inodes->end() && record->second.name != name && !record->second.name.empty() && !record->second.readonly &&
        !record->second.deleted && !(named && is_above(found->second, known))) {
        image.rename(record->second.name);
        image.renamed.store(true, std::memory_order_release);
        log(logger(), LogLevel::info, "image %s is now called %s", name.c_str(), record->second.name.c_str());
        named = true;
        return known;
    }
    // Whoever has a removed image open has nothing to do with what others make under its name.
    if (image.removed.load(std::memory_order_acquire)) named = false;
    return named ? found->second : known;
}

/// `inode` has `ancestor` below it.
bool Context::is_above(InodeNum inode, InodeNum ancestor) const {
    for (unsigned depth = 0; depth < kMaxChain; depth++) {
        const auto found = map_->inodes->find(inode);
        if (found == map_->inodes->end() || !found->second.parent) return false;
        inode = found->second.parent;
        if (inode == ancestor) return true;
    }
    return false;
}

void Context::resolve_image(Image& image, InodeView& view) {
    bool named = true;
    const InodeNum number = image.options.name.empty() ? image.inode.load(std::memory_order_relaxed) : find_inode(image, named);
    view = make_view(number, image.options.skip_parents);
    if (!view.known) view.size = image.options.size_bytes;
    view.limbo = !named && view.read_only && !image.options.read_only;
    const auto record = map_->inodes->find(number);
    view.removed = !image.options.name.empty() && (record == map_->inodes->end() || record->second.deleted);
    view.read_only = (view.read_only && !image.options.override_read_only) || image.options.read_only;
}

const InodeView& Context::view_of(Image& image) {
    if (image.slot >= views_.size()) views_.resize(image.slot + 1);
    View& view = views_[image.slot];
    uint64_t generation = map_ ? map_->generation : 0;
    if (view.serial != image.serial || view.generation != generation) {
        if (view.serial != image.serial) view.forced_sync = false;
        view.serial = image.serial;
        view.generation = generation;
        view.inode = InodeView();
        if (map_) resolve_image(image, view.inode);
        if (view.inode.pool && !view.inode.pool->immediate &&
            std::find(unsynced_.begin(), unsynced_.end(), &image) == unsynced_.end()) {
            image.ref();
            unsynced_.push_back(&image);
        }
    }
    return view.inode;
}

void Context::check_opened_images() {
    for (Image* image : std::vector<Image*>(opened_)) {
        InodeView view = view_of(*image);
        image->writes_back.store(writeback_.writes_back(*image), std::memory_order_relaxed);
        InodeNum inode = image->inode.exchange(view.inode, std::memory_order_relaxed);
        bool changed = inode != view.inode;
        note_fault(*image, view);
        if (!view.limbo && !view.removed) {
            changed |= image->read_only.exchange(view.read_only, std::memory_order_relaxed) != view.read_only;
            image->has_parent.store(view.has_parent, std::memory_order_relaxed);
            if (view.known) {
                const uint64_t before = image->size_bytes.exchange(view.size, std::memory_order_relaxed);
                changed |= before != view.size;
                if (view.size < before) image->cache->cut_off(view.size, map_->generation);
            }
        }
        if (!changed || view.limbo) continue;
        if (inode != view.inode)
            log(logger(), LogLevel::info, "image %s is now inode %llu of pool %u", image->name().c_str(),
                static_cast<unsigned long long>(view.inode & ((1ull << kPoolShift) - 1)), pool_of(view.inode));
        if (image->options.changed_fn)
            image->options.changed_fn(image->options.changed_arg, image->size_bytes.load(), image->read_only.load());
    }
    for (size_t i = 0; i < unsynced_.size();) {
        Image* image = unsynced_[i];
        if (image->closed.load(std::memory_order_acquire)) {
            unsynced_.erase(unsynced_.begin() + static_cast<ptrdiff_t>(i));
            image->unref();
            continue;
        }
        replay_stale(*image);
        i++;
    }
}

/// Those that are still unknown wait on, until their time is over.
void Context::retry_missing() {
    List<Op> waiting;
    while (Op* op = missing_.pop_front()) waiting.push_back(op);
    while (Op* op = waiting.pop_front()) finish_open(*op);
}

/// Its users learn once why their operations fail, and once that they do not any more.
void Context::note_fault(Image& image, const InodeView& view) {
    const auto record = map_->inodes->find(view.inode);
    image.removed.store(view.removed && record == map_->inodes->end(), std::memory_order_release);
    const int fault = view.removed ? -ENOENT : view.broken_chain;
    if (image.fault.exchange(fault, std::memory_order_relaxed) == fault) return;
    const std::string name = image.name();
    const std::string what = name.empty() ? shown(view.inode) : "image " + name;
    if (!fault) return log(logger(), LogLevel::info, "%s is whole again", what.c_str());
    std::string why = image.removed ? "it was removed: close it" : being_removed(name);
    if (!view.removed) check_chain(view.inode, &why);
    log(logger(), LogLevel::error, "%s, which is open, cannot be %s any more: %s", what.c_str(), view.removed ? "used" : "read", why.c_str());
}

/// Why nobody can tell what this image reads: 0, -ELOOP or -ENOENT, with a sentence.
int Context::check_chain(InodeNum number, std::string* why) const {
    auto layer = map_->inodes->find(number);
    for (unsigned depth = 0; layer != map_->inodes->end() && layer->second.parent; depth++) {
        const cluster::Inode& below = layer->second;
        const std::string what = "parent_id of inode " + std::to_string(below.number & ((1ull << kPoolShift) - 1)) + " in pool " +
                                 std::to_string(pool_of(below.number)) + " (" + below.name + ")";
        if (below.parent == number || depth >= kMaxChain) {
            *why = "its parents form a loop: correct " + what + " in etcd";
            return -ELOOP;
        }
        layer = map_->inodes->find(below.parent);
        if (layer != map_->inodes->end()) continue;
        *why = shown(below.parent) + ", which it stands on, does not exist or has a record that cannot be read: restore it, or correct " + what + " in etcd";
        return -ENOENT;
    }
    return 0;
}

void Context::finish_open(Op& op) {
    Image& image = *op.image;
    auto refuse = [&](int code, const std::string& text) {
        log(logger(), LogLevel::error, "%s", text.c_str());
        finish_later(op, code);
    };
    const std::string what = image.options.name.empty() ? shown(image.options.inode) : "image " + image.options.name;
    if (!map_) return refuse(-ETIMEDOUT, what + " cannot be opened: " + trouble_);
    InodeNum number = image.options.inode;
    if (!image.options.name.empty()) {
        auto found = map_->image_by_name->find(image.options.name);
        if (found == map_->image_by_name->end() && loop_.now_ns() < op.offset) {
            missing_.push_back(&op);
            if (!open_timer_.armed()) loop_.arm(open_timer_, op.offset);
            return;
        }
        if (found == map_->image_by_name->end())
            return refuse(-ENOENT, what + " does not exist: look at `vitastor-cli ls`, or check etcd_prefix (" +
                                       config_->etcd_prefix + ")");
        number = found->second;
        if (map_->inodes->at(number).deleted) return refuse(-ENOENT, what + " cannot be opened: " + being_removed(image.options.name));
    }
    std::string why;
    const int fault = image.options.skip_parents ? 0 : check_chain(number, &why);
    if (fault) return refuse(fault, what + " cannot be opened: " + why);
    image.inode.store(number, std::memory_order_relaxed);
    const InodeView& view = view_of(image);
    if (!view.pool)
        return refuse(-ENOENT, what + " cannot be opened: pool " + std::to_string(pool_of(number)) +
                                   " does not exist: look at `vitastor-cli ls-pools`");
    image.size_bytes.store(view.size, std::memory_order_relaxed);
    image.object_size.store(static_cast<uint32_t>(view.pool->object_size), std::memory_order_relaxed);
    image.granularity.store(view.pool->pool->bitmap_granularity, std::memory_order_relaxed);
    image.read_only.store(view.read_only, std::memory_order_relaxed);
    image.has_parent.store(view.has_parent, std::memory_order_relaxed);
    image.immediate.store(view.pool->immediate, std::memory_order_relaxed);
    image.writes_back.store(writeback_.writes_back(image), std::memory_order_relaxed);
    image.opener = this;
    opened_.push_back(&image);
    finish_later(op, 0);
}

}  // namespace vitastor::client

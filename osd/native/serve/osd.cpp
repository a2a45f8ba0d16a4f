// SPDX-License-Identifier: GPL-2.0-or-later
// Dispatch, answers, lease fence, pools, statistics.
#include "serve/osd.hpp"

#include <algorithm>
#include <cinttypes>

#include "serve/answer.hpp"

namespace vitastor::serve {

using runtime::kNsPerSecond;
using wire::Opcode;

namespace {

/// The order of arrival, not that of addresses: the simulator repeats every run to the letter.
template <class Clients>
std::vector<ClientState*> by_arrival(const Clients& clients) {
    std::vector<ClientState*> result;
    for (const auto& [connection, client] : clients) result.push_back(client.get());
    std::sort(result.begin(), result.end(), [](ClientState* a, ClientState* b) { return a->serial < b->serial; });
    return result;
}

erasure::StripeShape shape_of(const PoolInfo& info) {
    return {info.scheme.data_chunks(), info.scheme.replicated() ? 0 : info.scheme.parity_chunks, info.block_size,
            info.bitmap_granularity};
}

}  // namespace

Osd::Osd(runtime::Loop& loop, store::Store& store, OsdNum osd_num, Logger& logger, OsdEvents& events)
    : loop_(loop),
      store_(store),
      osd_num_(osd_num),
      logger_(logger),
      events_(events),
      bitmap_bytes_(store.bitmap_bytes()),
      block_size_(store.options().block_size),
      granularity_(store.options().bitmap_granularity),
      readonly_(store.options().readonly),
      slices_(loop, Slices::Pace::request),
      background_(loop, Slices::Pace::background) {
    tick_.osd = this;
    tick_.on_fire = on_tick;
    lease_timer_.osd = this;
    lease_timer_.on_fire = [](runtime::Timer* timer) {
        Osd* self = static_cast<Tick*>(timer)->osd;
        if (!self->fenced_ && !self->lease_holds()) self->lease_expired();
    };
    stabilize_timer_.osd = this;
    stabilize_timer_.on_fire = [](runtime::Timer* timer) { static_cast<Tick*>(timer)->osd->stabilize_now(); };
    recovery_retry_.osd = this;
    recovery_retry_.on_fire = [](runtime::Timer* timer) {
        Osd* self = static_cast<RecoveryRetry*>(timer)->osd;
        self->retry_recovery();
    };
    recovery_kick_.osd = this;
    recovery_kick_.on_run = [](runtime::Deferred* deferred) { static_cast<RecoveryKick*>(deferred)->osd->run_recovery(); };
    scrub_timer_.osd = this;
    scrub_timer_.on_fire = [](runtime::Timer* timer) { static_cast<Tick*>(timer)->osd->wake_scrub(); };
    scrub_.kick.osd = this;
    scrub_.kick.on_run = [](runtime::Deferred* deferred) { static_cast<ScrubRun::Kick*>(deferred)->osd->run_scrub(); };
    forget_kick_.osd = this;
    forget_kick_.on_run = [](runtime::Deferred* deferred) { static_cast<ForgetKick*>(deferred)->osd->consider_forget(); };
    last_autosync_ns_ = loop_.now_ns();
    loop_.arm(tick_, loop_.now_ns() + kNsPerSecond);
}

Osd::~Osd() { shut_down(); }

void Osd::attach(net::Peers& peers, net::Server& server) {
    peers_ = &peers;
    server_ = &server;
}

void Osd::shut_down() {
    if (shut_) return;
    shut_ = true;
    loop_.disarm(tick_);
    loop_.disarm(lease_timer_);
    loop_.disarm(stabilize_timer_);
    loop_.disarm(recovery_retry_);
    loop_.disarm(scrub_timer_);
}

// ------------------------------------------------------------------ operations and answers

Op* Osd::new_op(net::Request* request) {
    Op* op = ops_.get();
    op->osd = this;
    op->request = request;
    op->queue_node.op = op->reader.op = op->history_node.op = op->local.op = op;
    op->start_ns = request ? request->received_ns : loop_.now_ns();
    op->opcode = request ? request->opcode : Opcode{};
    op->sequence = next_sequence_++;
    op->pool = nullptr;
    op->pg = nullptr;
    op->recovery = false;
    op->queue = nullptr;
    op->calls = nullptr;
    op->pending = 0;
    op->local_used = false;
    op->waiter = nullptr;
    op->ec = nullptr;
    op->bitmap = nullptr;
    op->version = op->old_version = 0;
    op->result = 0;
    busy_++;
    return op;
}

void Osd::free_op(Op* op) {
    if (op->linked()) op->unlink();
    if (op->bitmap_big) op->bitmap_big.release();
    if (op->data) op->data.release();
    if (op->ec) free_ec(std::exchange(op->ec, nullptr));
    Pg* pg = op->pg;
    op->pg = nullptr;
    op->request = nullptr;
    ops_.put(op);
    busy_--;
    if (pg) release(*pg);
}

void Osd::attach_pg(Op* op, Pg* pg) {
    op->pg = pg;
    pg->running++;
}

bool Osd::fill_bitmap_space(Op* op) {
    const uint32_t bytes = op->pool ? object_bitmap_bytes(*op->pool) : bitmap_bytes_;
    if (bytes <= Op::kInlineBitmap) {
        op->bitmap = op->bitmap_small;
    } else {
        op->bitmap_big = loop_.buffers().allocate(bytes);
        op->bitmap = op->bitmap_big.data();
    }
    return true;
}

bool Osd::lease_holds() { return lease_until_ns_ != 0 && loop_.now_exact_ns() < lease_until_ns_; }

void Osd::answer(Op* op, int64_t retval) {
    wire::encode_reply(wire::HeaderBytes(op->request->reply), {op->request->id, op->request->opcode, retval});
    complete(op, retval);
}

void Osd::complete(Op* op, int64_t retval) {
    net::Request* request = op->request;
    if (retval >= 0 && !lease_holds()) {
        VITASTOR_PROBE("answer withheld after the lease");
        if (!fenced_) lease_expired();
        retval = -EPIPE;
        wire::encode_reply(wire::HeaderBytes(request->reply), {request->id, request->opcode, retval});
        request->reply_count = 0;
    }
    if (op->opcode == Opcode::sec_write || op->opcode == Opcode::sec_write_stable || op->opcode == Opcode::sec_delete ||
        op->opcode == Opcode::sec_stabilize || op->opcode == Opcode::sec_rollback ||
        (op->opcode == Opcode::sec_list && op->linked())) {
        if (op->linked()) op->unlink();
        if (!sub_write_done_.empty()) sub_write_done_.notify_all();
    }
    uint64_t now = loop_.now_ns();
    uint64_t usec = now > op->start_ns ? (now - op->start_ns) / 1000 : 0;
    bool moves_data = op->opcode == Opcode::read || op->opcode == Opcode::write || op->opcode == Opcode::sec_read ||
                      op->opcode == Opcode::sec_write || op->opcode == Opcode::sec_write_stable;
    uint64_t bytes = moves_data && retval > 0 ? static_cast<uint64_t>(retval) : 0;
    op_stats_[static_cast<size_t>(op->opcode)].add(usec, bytes);
    if (!op->recovery && (moves_data || op->opcode == Opcode::del)) {
        client_us_ += usec;
        background_.client_seen();
        const uint64_t slot = now / kBusySlotNs;
        if (slot != last_busy_slot_) busy_slots_++;
        last_busy_slot_ = slot;
    }
    if (retval >= 0 && op->pg) {
        if (op->opcode == Opcode::read) inode_stats_[op->message.inode].read.add(usec, bytes);
        if (op->opcode == Opcode::write) inode_stats_[op->message.inode].write.add(usec, bytes);
        if (op->opcode == Opcode::del) {
            inode_stats_[op->message.inode].del.add(usec, op->old_version ? op->pool->object_span() : 0);
        }
    }
    net::Connection::reply(*request);
    free_op(op);
}

void Osd::refuse(net::Request& request, int64_t retval) {
    op_stats_[static_cast<size_t>(request.opcode)].add(0, 0);
    net::Connection::reply_status(request, retval);
}

bool Osd::is_modification(Opcode opcode) const {
    switch (opcode) {
        case Opcode::sec_read:
        case Opcode::sec_lock:
        case Opcode::sec_list:
        case Opcode::sec_read_bmp:
        case Opcode::read:
        case Opcode::scrub:
        case Opcode::describe:
        case Opcode::show_config:
        case Opcode::ping:
            return false;
        default:
            return true;
    }
}

void Osd::on_request(net::Connection&, net::Request& request) {
    if (shut_ || stopping_) return refuse(request, -EPIPE);
    if (fenced_) return refuse(request, -EPIPE);
    if (readonly_ && is_modification(request.opcode)) return refuse(request, -EROFS);
    Op* op = new_op(&request);
    switch (request.opcode) {
        case Opcode::read:
            live_primary_.push_back(op);
            return handle_read(op);
        case Opcode::write:
            live_primary_.push_back(op);
            return handle_write(op);
        case Opcode::del:
            live_primary_.push_back(op);
            if (route(op, true) && enter_queue(op)) start_modification(op);
            return;
        case Opcode::scrub:
            live_primary_.push_back(op);
            if (route(op, true) && enter_queue(op)) start_modification(op);
            return;
        case Opcode::sync:
            live_primary_.push_back(op);
            return runtime::spawn(sync_op(op));
        case Opcode::describe:
            return runtime::spawn(describe(op));
        case Opcode::sec_read:
            live_secondary_.push_back(op);
            return handle_sub_io(op);
        case Opcode::sec_write:
        case Opcode::sec_write_stable:
            live_sub_writes_.push_back(op);
            return handle_sub_io(op);
        case Opcode::sec_delete:
            live_sub_writes_.push_back(op);
            return handle_sub_delete(op);
        case Opcode::sec_stabilize:
        case Opcode::sec_rollback:
            live_sub_writes_.push_back(op);
            return runtime::spawn(handle_flush(op));
        case Opcode::sec_sync:
            live_secondary_.push_back(op);
            return handle_sub_sync(op);
        case Opcode::sec_read_bmp:
            live_secondary_.push_back(op);
            return runtime::spawn(read_bitmaps(op));
        case Opcode::sec_list: {
            auto message = wire::decode<wire::ListRequest>(wire::ConstHeaderBytes(request.header));
            if (message.flags & wire::ListRequest::kPrimary) return runtime::spawn(list_primary(op));
            if (message.flags & wire::ListRequest::kForget) live_sub_writes_.push_back(op);
            return runtime::spawn(list_secondary(op));
        }
        case Opcode::sec_lock:
            return handle_lock(op);
        default:
            return answer(op, -EINVAL);
    }
}

// ------------------------------------------------------------------ lease

void Osd::set_lease(uint64_t deadline_ns) {
    lease_until_ns_ = deadline_ns;
    if (lease_holds()) {
        if (fenced_) log(logger_, LogLevel::info, "the lease holds: serving");
        fenced_ = false;
        loop_.arm(lease_timer_, deadline_ns);
    } else {
        loop_.disarm(lease_timer_);
        if (!fenced_) lease_expired();
    }
}

/// Nothing leaves any more: PGs are dropped without goodbye, all connections close. The index stays loaded.
void Osd::lease_expired() {
    if (fenced_) return;
    fenced_ = true;
    lease_until_ns_ = 0;
    loop_.disarm(lease_timer_);
    log(logger_, LogLevel::error, "the lease of OSD %" PRIu64 " in etcd has run out: nothing is served until it is registered again",
        osd_num_);
    for (auto& [id, pg] : pgs_) {
        pg->silent = true;
        pg->stop = true;
        drop_unstable(*pg);
        pg->next_start.reset();
        if (pg->active() || pg->phase == pg::Phase::repeering) close_dirty_clients(*pg);
        if (pg->phase != pg::Phase::stopping && pg->phase != pg::Phase::offline) move(*pg, pg::PhaseEvent::stop);
        fail_history_waiters(*pg);
        kick(*pg);
    }
    for (ClientState* client : by_arrival(clients_)) {
        client->connection->close(net::CloseReason::by_us, "the lease has run out");
    }
    for (OsdNum osd : std::set<OsdNum>(wanted_)) {
        if (peers_->get(osd)) peers_->reset(osd, "the lease has run out");
    }
    events_.on_lease_expired();
}

// ------------------------------------------------------------------ incoming connections

void Osd::on_accepted(net::Connection& connection) {
    auto client = std::make_unique<ClientState>();
    client->connection = &connection;
    client->serial = client->heard = next_serial_++;
    clients_[&connection] = std::move(client);
}

ClientState* Osd::client_of(net::Connection* connection) {
    auto it = clients_.find(connection);
    return it == clients_.end() ? nullptr : it->second.get();
}

void Osd::on_peer_announced(net::Connection& connection, OsdNum osd) {
    if (osd == 0) return;
    for (ClientState* client : by_arrival(clients_)) {
        if (client->connection != &connection && client->connection->peer_osd() == osd) {
            client->voided = true;
            locks_.release_connection(client->serial);
        }
    }
}

/// What its client has given up may still come on an older connection: not after this.
void Osd::on_client_announced(net::Connection& connection, uint64_t session) {
    ClientState* announced = client_of(&connection);
    if (!announced) return;
    announced->heard = next_serial_++;
    announced->session = session;
    if (!session) return;
    for (ClientState* client : by_arrival(clients_)) {
        if (client == announced || client->session != session) continue;
        VITASTOR_PROBE("older connection of a client closed");
        client->connection->close(net::CloseReason::by_us, "its client has connected anew");
    }
}

void Osd::on_closed(net::Connection& connection) {
    auto it = clients_.find(&connection);
    if (it == clients_.end()) return;
    locks_.release_connection(it->second->serial);
    clients_.erase(it);
}

/// Its lease is over: whatever it still sends must not count, and nobody shall wait for its answers. A frozen process or a silent
/// host keeps its connections open, and would otherwise hold PG locks here and operations of ours until the ping times out.
void Osd::drop_connections_of(OsdNum osd) {
    constexpr const char* kWhy = "its key in etcd is gone";
    if (peers_->get(osd)) {
        VITASTOR_PROBE("connection to an OSD without a lease dropped");
        peers_->reset(osd, kWhy);
    }
    for (ClientState* client : by_arrival(clients_)) {
        if (client->connection->peer_osd() == osd) client->connection->close(net::CloseReason::by_us, kWhy);
    }
}

/// Semantics 2.6: whoever has unsynced writes in this PG must replay them.
void Osd::close_dirty_clients(Pg& pg) {
    for (ClientState* client : by_arrival(clients_)) {
        if (client->dirty.contains(pg.id)) {
            VITASTOR_PROBE("dirty client closed");
            client->connection->close(net::CloseReason::by_us, "PG " + pg_text(pg) +
                                                           " stops with unsynced writes of this client");
        }
    }
}

// ------------------------------------------------------------------ configuration

void Osd::set_settings(const Settings& settings) {
    bool relock = settings.lock_mode != settings_.lock_mode || settings.allow_net_split != settings_.allow_net_split;
    settings_ = settings;
    if (relock) {
        for (auto& [id, pg] : pgs_) disturb(*pg);
    }
    wake_recovery();
    wake_scrub();
}

Pool* Osd::find_pool(PoolId id) {
    if (last_pool_ && last_pool_->info.id == id) return last_pool_;
    auto it = pools_.find(id);
    if (it == pools_.end()) return nullptr;
    return last_pool_ = it->second.get();
}

void Osd::set_pools(const std::vector<PoolInfo>& pools) {
    last_pool_ = nullptr;
    std::set<PoolId> present;
    for (const PoolInfo& info : pools) {
        if (info.id == 0 || info.id > 65535 || info.pg_stripe_size < wire::kHeaderSize || info.block_size == 0 ||
            info.bitmap_granularity == 0 || info.scheme.pg_size == 0 ||
            (!info.scheme.replicated() && (info.scheme.parity_chunks == 0 || info.scheme.parity_chunks >= info.scheme.pg_size ||
                                           info.scheme.pg_size > erasure::kRolesMax ||
                                           uint64_t{info.block_size} * info.scheme.data_chunks() > UINT32_MAX))) {
            log(logger_, LogLevel::error, "pool %u is ignored: its parameters make no sense", info.id);
            continue;
        }
        present.insert(info.id);
        auto& pool = pools_[info.id];
        if (pool && pool->shape != shape_of(info)) {  // another code: what is at work keeps the old one
            for (Pg* pg : pool->pgs) {
                if (pg) stop_pg(pg->id, pg->interval);
            }
            pool->pgs.clear();
            pool->info.pg_count = 0;
            retired_pools_.push_back(std::move(pool));
            list_fence_.reset_pool(info.id);
        }
        bool fresh = !pool;
        if (fresh) {
            pool = std::make_unique<Pool>();
            set_codec(*pool, info);
        }
        bool remap = fresh || pool->info.pg_count != info.pg_count || pool->info.pg_stripe_size != info.pg_stripe_size;
        bool relock = !fresh && pool->info.local_reads != info.local_reads;
        if (remap && !fresh && pool->info.pg_count) led_before_.insert({info.id, 0});
        pool->info = info;
        if (!remap) {
            if (relock) {
                for (Pg* pg : pool->pgs) {
                    if (pg) disturb(*pg);
                }
            }
            continue;
        }
        // The numbers of the PGs mean other objects now. The monitor pauses the pool first; whoever did not hears it here.
        for (Pg* pg : pool->pgs) {
            if (!pg) continue;
            log(logger_, LogLevel::error, "PG %u/%u stops: pg_count or pg_stripe_size of its pool changed while it was led here",
                pg->id.pool, pg->id.pg);
            pg->stop = true;
            if (pg->active()) close_dirty_clients(*pg);
            if (pg->phase != pg::Phase::stopping) move(*pg, pg::PhaseEvent::stop);
            kick(*pg);
        }
        pool->pgs.assign(info.pg_count, nullptr);
        if (!fresh) list_fence_.reset_pool(info.id);
        if (info.pg_count) store_.set_pool_pgs(info.id, info.pg_count, info.pg_stripe_size);
    }
    for (auto it = pools_.begin(); it != pools_.end();) {
        if (present.contains(it->first)) {
            ++it;
            continue;
        }
        for (Pg* pg : it->second->pgs) {
            if (pg) stop_pg(pg->id, pg->interval);
        }
        it->second->pgs.clear();
        it->second->info.pg_count = 0;
        retired_pools_.push_back(std::move(it->second));
        it = pools_.erase(it);
    }
}

/// Once in the life of a Pool.
void Osd::set_codec(Pool& pool, const PoolInfo& info) {
    pool.shape = shape_of(info);
    if (info.scheme.replicated()) return;
    Result<std::unique_ptr<erasure::Codec>> made = erasure::Codec::create(pool.shape.data, pool.shape.parity);
    if (made.ok()) {
        pool.codec = std::move(made.value());
    } else {
        pool.codec_error = "the code " + std::to_string(pool.shape.data) + "+" + std::to_string(pool.shape.parity) +
                           " cannot be computed on this machine (error " + std::to_string(-made.status().code()) + ")";
    }
}

// ------------------------------------------------------------------ statistics and housekeeping

void Osd::on_tick(runtime::Timer* timer) { static_cast<Tick*>(timer)->osd->tick(); }

void Osd::tick() {
    uint64_t now = loop_.now_ns();
    loop_.arm(tick_, now + kNsPerSecond);
    if (unsynced_writes_ > 0 && settings_.autosync_interval_s > 0 &&
        now >= last_autosync_ns_ + settings_.autosync_interval_s * kNsPerSecond && !autosync_queued_) {
        autosync_queued_ = true;
        runtime::spawn(autosync());
    }
    if (tune_ticks_++ >= settings_.recovery_tune.interval_s) tune_recovery(now);
    consider_forget();
    auto count_slow = [&](List<Op>& list) {
        uint64_t slow = 0;
        for (Op* op = list.front(); op; op = list.next(op)) {
            if (op->start_ns + settings_.slow_log_interval_s * kNsPerSecond > now) break;
            slow++;
        }
        return slow;
    };
    slow_primary_ = count_slow(live_primary_);
    slow_secondary_ = count_slow(live_secondary_) + count_slow(live_sub_writes_);
}

Report Osd::report() {
    Report report;
    report.ops = op_stats_;
    report.subops = subop_stats_;
    report.recovery_degraded = recovery_degraded_;
    report.recovery_misplaced = recovery_misplaced_;
    report.inodes = inode_stats_;
    report.slow_primary = slow_primary_;
    report.slow_secondary = slow_secondary_;
    uint64_t pg_bytes = 0;
    for (auto& [id, pg] : pgs_) {
        pg_bytes += sizeof(Pg) + pg->objects.memory_bytes();
        if (pg->phase == pg::Phase::offline || pg->phase == pg::Phase::starting) continue;
        report.pgs.push_back({id, pg->objects.counts(), pg->activation.current_set});
    }
    report.memory_by["operations"] = ops_.memory_bytes() + calls_.memory_bytes() + queue_pool_.memory_bytes();
    report.memory_by["pgs"] = pg_bytes + rows_.memory_bytes();
    report.memory_by["clients"] = clients_.size() * (sizeof(ClientState) + 64);
    net::ConnectionMemory connections = peers_->memory();
    connections.add(server_->memory());
    report.memory_by["connections"] = connections.objects;
    report.memory_by["receive_buffers"] = connections.receive_buffers;
    report.memory_by["requests"] = connections.requests;
    report.memory_by["replies"] = connections.replies;
    report.memory_by["inode_statistics"] = inode_stats_.size() * (sizeof(InodeStats) + 32);
    return report;
}

Settings Settings::parse(const std::map<std::string, std::string>& text) {
    Settings settings;
    auto number = [&](const char* name, uint64_t& value, uint64_t max) {
        auto it = text.find(name);
        if (it == text.end() || it->second.empty() || it->second.size() > 18) return;
        uint64_t parsed = 0;
        for (char c : it->second) {
            if (c < '0' || c > '9') return;
            parsed = parsed * 10 + static_cast<uint64_t>(c - '0');
        }
        value = std::min(parsed, max);
    };
    auto fraction = [&](const char* name, double& value) {  // digits, perhaps a point and more digits
        auto it = text.find(name);
        if (it == text.end() || it->second.empty() || it->second.size() > 18 || it->second.front() == '.') return;
        double parsed = 0, unit = 1;
        bool behind = false;
        for (char c : it->second) {
            if (c == '.' && !behind) {
                behind = true;
                continue;
            }
            if (c < '0' || c > '9') return;
            parsed = behind ? parsed + (unit /= 10) * (c - '0') : parsed * 10 + (c - '0');
        }
        value = parsed;
    };
    auto flag = [&](const char* name) -> std::optional<bool> {
        auto it = text.find(name);
        if (it == text.end()) return std::nullopt;
        const std::string& word = it->second;
        if (word == "1" || word == "true" || word == "yes") return true;
        if (word == "0" || word == "false" || word == "no") return false;
        return std::nullopt;
    };
    number("autosync_interval", settings.autosync_interval_s, 3600);
    number("autosync_writes", settings.autosync_writes, 1u << 30);
    number("slow_log_interval", settings.slow_log_interval_s, 86400);
    if (settings.slow_log_interval_s == 0) settings.slow_log_interval_s = 10;
    number("inode_vanish_time", settings.inode_vanish_time_s, 1u << 30);
    number("recovery_queue_depth", settings.recovery_queue_depth, 2048);
    if (settings.recovery_queue_depth == 0) settings.recovery_queue_depth = 1;
    number("recovery_sleep_us", settings.recovery_sleep_us, 60'000'000);
    number("recovery_pg_switch", settings.recovery_pg_switch, 1u << 30);
    if (settings.recovery_pg_switch == 0) settings.recovery_pg_switch = 128;
    number("recovery_sync_batch", settings.recovery_sync_batch, 2048);
    if (settings.recovery_sync_batch == 0) settings.recovery_sync_batch = 16;
    RecoveryTuneSettings& tune = settings.recovery_tune;
    number("recovery_tune_interval", tune.interval_s, 3600);
    fraction("recovery_tune_util_low", tune.util_low);
    fraction("recovery_tune_util_high", tune.util_high);
    fraction("recovery_tune_client_util_low", tune.client_util_low);
    fraction("recovery_tune_client_util_high", tune.client_util_high);
    number("recovery_tune_agg_interval", tune.samples, 3600);
    number("recovery_tune_sleep_min_us", tune.sleep_min_us, 60'000'000);
    number("recovery_tune_sleep_cutoff_us", tune.sleep_cutoff_us, 3'600'000'000);
    number("pg_lock_retry_interval", settings.pg_lock_retry_interval_ms, 60000);
    number("pg_lock_retry_interval_ms", settings.pg_lock_retry_interval_ms, 60000);
    if (settings.pg_lock_retry_interval_ms < 2) settings.pg_lock_retry_interval_ms = 100;
    number("scrub_queue_depth", settings.scrub_queue_depth, 64);
    if (settings.scrub_queue_depth == 0) settings.scrub_queue_depth = 1;
    number("scrub_sleep", settings.scrub_sleep_ms, 3'600'000);
    number("scrub_list_limit", settings.scrub_list_limit, 1u << 24);
    if (settings.scrub_list_limit == 0) settings.scrub_list_limit = 262144;
    number("scrub_ec_max_bruteforce", settings.scrub_ec_max_bruteforce, 1u << 30);
    settings.no_scrub = flag("no_scrub").value_or(false);
    settings.scrub_find_best = flag("scrub_find_best").value_or(true);
    number("tombstone_interval", settings.tombstone_interval_s, 86400);
    settings.tombstones = flag("tombstones").value_or(true);
    settings.no_recovery = flag("no_recovery").value_or(false);
    settings.no_rebalance = flag("no_rebalance").value_or(false);
    settings.allow_net_split = flag("allow_net_split").value_or(false);
    settings.ec_early_reply = flag("ec_early_reply").value_or(true);
    settings.ec_short_writes = flag("ec_short_writes").value_or(true);
    if (auto locks = flag("enable_pg_locks")) {
        settings.lock_mode = *locks ? pg::LockMode::required : pg::LockMode::never;
    }
    return settings;
}

}  // namespace vitastor::serve

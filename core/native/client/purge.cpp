// SPDX-License-Identifier: GPL-2.0-or-later
#include "client/purge.hpp"

#include <algorithm>
#include <map>

namespace vitastor::client {
namespace {

constexpr int kMaxSyncRounds = 5;
constexpr uint64_t kProgressEvery = 64;

/// CallAwait call; encode into call.request; connection->send(call); co_await call;
struct CallAwait : net::Call {
    std::coroutine_handle<> waiter;
    bool done = false;
    CallAwait() {
        on_reply = [](net::Call* self) {
            auto* call = static_cast<CallAwait*>(self);
            call->done = true;
            if (call->waiter) call->waiter.resume();
        };
    }
    bool await_ready() const noexcept { return done; }
    void await_suspend(std::coroutine_handle<> handle) noexcept { waiter = handle; }
    /// Result of the call: retval, or the status when the connection is gone.
    int64_t await_resume() const noexcept { return status ? status : retval; }
    wire::HeaderBytes header() { return wire::HeaderBytes(request, wire::kHeaderSize); }
    wire::ConstHeaderBytes answer() const { return wire::ConstHeaderBytes(reply, wire::kHeaderSize); }
};

/// Turn turn{loop}; co_await turn;  goes on at a later turn of the loop.
struct Turn {
    struct Hook : runtime::Deferred {
        std::coroutine_handle<> waiter;
    };
    runtime::Loop& loop;
    Hook hook{};
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) noexcept {
        hook.waiter = handle;
        hook.on_run = [](runtime::Deferred* self) { static_cast<Hook*>(self)->waiter.resume(); };
        loop.defer(hook);
    }
    void await_resume() const noexcept {}
};

}  // namespace

Purge::Purge(Context& context, const PurgeOptions& options) : context_(context), options_(options) {
    if (!options_.iodepth) options_.iodepth = 32;
    if (!options_.parallel_osds) options_.parallel_osds = 4;
    options_.iodepth = std::min(options_.iodepth, 4096u);
    options_.parallel_osds = std::min(options_.parallel_osds, 4096u);
    deadline_timer_.purge = this;
    deadline_timer_.on_fire = [](runtime::Timer* timer) { static_cast<DeadlineTimer*>(timer)->purge->on_change(); };
}

void Purge::start(Context& context, const PurgeOptions& options,
    void (*done_fn)(void* arg, int result, const char* json), void* done_arg) {
    auto* purge = new Purge(context, options);
    purge->done_fn_ = done_fn;
    purge->done_arg_ = done_arg;
    context.add_purge(purge);
    runtime::spawn(purge->run());
}

PoolView* Purge::pool() { return context_.pool_view(options_.pool); }

bool Purge::still_valid() {
    PoolView* view = pool();
    if (context_.closing() || !view || view->primary.size() != pgs_.size()) changed_count_ = true;
    return !changed_count_;
}

uint64_t Purge::deadline() const {
    return context_.loop().now_ns() + context_.config().client_wait_up_timeout_s * runtime::kNsPerSecond;
}

void Purge::progress() {
    if (options_.progress_fn) options_.progress_fn(options_.progress_arg, removed_, total_);
}

runtime::Task<> Purge::pause() {
    struct Sleep {
        runtime::Loop& loop;
        PauseTimer timer;
        uint64_t until;
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> handle) noexcept {
            timer.waiter = handle;
            timer.on_fire = [](runtime::Timer* self) { static_cast<PauseTimer*>(self)->waiter.resume(); };
            loop.arm(timer, until);
        }
        void await_resume() const noexcept {}
    };
    Sleep sleep{context_.loop(), {}, context_.loop().now_ns() + context_.config().client_retry_interval_ms * runtime::kNsPerMs};
    co_await sleep;
}

runtime::Task<bool> Purge::connected(OsdLink* link, uint64_t deadline_ns) {
    while (!context_.connect(link)) {
        if (context_.closing() || context_.loop().now_ns() >= deadline_ns) co_return false;
        if (!deadline_timer_.armed() || deadline_timer_.deadline_ns > deadline_ns)
            context_.loop().arm(deadline_timer_, deadline_ns);
        auto waiter = changed_.wait();
        co_await waiter;
    }
    co_return true;
}

/// The connected primary of the PG; nullptr when the time is over or the PGs have changed.
runtime::Task<OsdLink*> Purge::primary_of(PgNum pg, uint64_t deadline_ns) {
    while (still_valid()) {
        OsdLink* link = pool()->primary[pg - 1];
        if (link && context_.connect(link)) co_return link;
        if (context_.loop().now_ns() >= deadline_ns) break;
        if (!deadline_timer_.armed() || deadline_timer_.deadline_ns > deadline_ns)
            context_.loop().arm(deadline_timer_, deadline_ns);
        auto waiter = changed_.wait();
        co_await waiter;
    }
    co_return nullptr;
}

runtime::Task<> Purge::run() {
    int result = 0;
    if (!context_.map()) {
        auto waiter = changed_.wait();
        co_await waiter;
    }
    PoolView* view = pool();
    if (!view) {
        result = context_.closing() ? -ECANCELED : context_.map() ? -ENOENT : -ETIMEDOUT;
    } else {
        pgs_.resize(view->primary.size());
        std::map<OsdNum, std::vector<PgNum>> by_osd;
        for (PgNum pg = 1; pg <= pgs_.size(); pg++) {
            OsdLink* link = view->primary[pg - 1];
            by_osd[link ? link->osd : 0].push_back(pg);
        }
        for (auto& [osd, list] : by_osd) groups_.push_back(std::move(list));
        for (int pass = 0; pass < (options_.wait_list ? 2 : 1); pass++) {
            listing_ = pass == 0;
            deleting_ = pass == 1 || !options_.wait_list;
            next_group_ = 0;
            unsigned count = static_cast<unsigned>(std::min<size_t>(options_.parallel_osds, groups_.size()));
            workers_ = count;
            for (unsigned i = 0; i < count; i++) runtime::spawn(work());
            while (workers_ > 0) {
                auto waiter = idle_.wait();
                co_await waiter;
            }
        }
        if (context_.closing()) result = -ECANCELED;
        else if (changed_count_) result = -EAGAIN;
        else if (errors_ || !inactive_pgs_.empty() || (!inactive_osds_.empty() && !options_.down_ok)) result = -EIO;
    }
    // Out of whatever has woken us, before this object goes.
    Turn turn{context_.loop()};
    co_await turn;
    progress();
    context_.loop().disarm(deadline_timer_);
    context_.remove_purge(this);
    std::string text = json();
    context_.count_callback();
    done_fn_(done_arg_, result, text.c_str());
    delete this;
}

runtime::Task<> Purge::work() {
    while (next_group_ < groups_.size()) {
        auto& group = groups_[next_group_++];
        for (size_t i = 0; i < group.size(); i++) {
            PgNum pg = group[i];
            if (!still_valid()) break;
            if (listing_) {
                auto listing = list_pg(pg);
                co_await listing;
            }
            if (deleting_ && pgs_[pg - 1].listed) {
                auto deleting = delete_pg(pg);
                co_await deleting;
            }
        }
    }
    if (--workers_ == 0) idle_.notify_one();
}

// ---- listing

runtime::Task<int> Purge::list_on(OsdLink* link, PgNum pg, uint64_t flags, bool* as_primary) {
    CallAwait call;
    wire::RequestHeader header;
    header.opcode = wire::Opcode::sec_list;
    wire::ListRequest request;
    PoolView* view = pool();
    request.list_pg = pg;
    request.pg_count = static_cast<uint32_t>(view->primary.size());
    request.pg_stripe_size = view->pg_stripe_size;
    request.min_inode = request.max_inode = options_.inode;
    request.flags = flags;
    uint64_t object_size = view->object_size;
    wire::encode_request(call.header(), header, request);
    net::Connection* connection = link->connection;
    connection->send(call);
    int64_t count = co_await call;
    if (count == -EPIPE && call.status == 0) context_.reset_link(link, connection, "it does not list the PG now");
    if (count < 0) co_return static_cast<int>(count);
    auto reply = wire::decode<wire::ListReply>(call.answer());
    *as_primary = reply.flags & wire::ListRequest::kPrimary;
    std::span<const uint8_t> payload(call.reply_payload.data(), call.reply_payload.size());
    auto triples = wire::decode_triples(payload);
    if (!triples.ok()) co_return -EPIPE;
    for (auto& triple : triples.value()) {
        ObjectId object = triple.object;
        object.stripe &= ~kRoleMask;
        if (object.inode != options_.inode || object.stripe % object_size) continue;
        if (object.stripe < options_.min_offset) continue;
        if (options_.max_offset && object.stripe >= options_.max_offset) continue;
        pgs_[pg - 1].objects.push_back(object);
    }
    co_return 0;
}

runtime::Task<> Purge::list_pg(PgNum pg) {
    PgWork& work = pgs_[pg - 1];
    uint64_t give_up_ns = deadline();
    while (still_valid()) {
        auto finding = primary_of(pg, give_up_ns);
        OsdLink* link = co_await finding;
        if (!link) break;
        bool as_primary = false;
        work.objects.clear();
        auto listing = list_on(link, pg, wire::ListRequest::kPrimary, &as_primary);
        int result = co_await listing;
        if (result == 0 && !as_primary && still_valid()) {
            // An old server has listed its own copies alone (wire-protocol 8.9).
            const cluster::Pg& state = pool()->pool->pgs[pg - 1];
            if (state.state != wire::pg_state::active) {
                std::set<OsdNum> osds(state.osd_set.begin(), state.osd_set.end());
                osds.insert(state.all_peers.begin(), state.all_peers.end());
                for (auto& set : state.history_sets) osds.insert(set.begin(), set.end());
                osds.erase(0);
                osds.erase(link->osd);
                for (OsdNum osd : std::vector<OsdNum>(osds.begin(), osds.end())) {
                    bool reachable = false;
                    if (context_.map()->osds.count(osd)) {
                        auto connecting = connected(context_.link(osd), give_up_ns);
                        reachable = co_await connecting;
                    }
                    int other_result = -EPIPE;
                    bool ignored = false;
                    if (reachable && still_valid()) {
                        auto other = list_on(context_.link(osd), pg, 0, &ignored);
                        other_result = co_await other;
                    }
                    if (other_result) inactive_osds_.insert(osd);
                }
            }
        }
        if (result == 0) {
            std::sort(work.objects.begin(), work.objects.end());
            work.objects.erase(std::unique(work.objects.begin(), work.objects.end()), work.objects.end());
            work.listed = true;
            total_ += work.objects.size();
            progress();
            co_return;
        }
        if (context_.loop().now_ns() >= give_up_ns) break;
        auto pausing = pause();
        co_await pausing;
    }
    inactive_pgs_.insert(pg);
}

// ---- deleting

runtime::Task<int> Purge::delete_object(PgNum pg, ObjectId object) {
    uint64_t give_up_ns = deadline();
    int result = -EPIPE;
    while (still_valid()) {
        auto finding = primary_of(pg, give_up_ns);
        OsdLink* link = co_await finding;
        if (!link) break;
        CallAwait call;
        wire::RequestHeader header;
        header.opcode = wire::Opcode::del;
        wire::ClientRequest request;
        request.inode = object.inode;
        request.offset = object.stripe;
        wire::encode_request(call.header(), header, request);
        net::Connection* connection = link->connection;
        const uint64_t greetings = link->greetings;
        connection->send(call);
        int64_t answer = co_await call;
        result = static_cast<int>(answer);
        if (result == 0) {
            auto reply = wire::decode<wire::DeleteReply>(call.answer());
            if (reply.flags & wire::DeleteReply::kLeftOnDead) {
                for (uint32_t i = 0; i < std::min<uint32_t>(reply.osd_count, wire::kMaxDeadOsds); i++)
                    inactive_osds_.insert(reply.osds[i]);
            }
            if (!(reply.flags & wire::DeleteReply::kSupported) && still_valid()) {
                const cluster::Pg& state = pool()->pool->pgs[pg - 1];
                for (auto* set : {&state.osd_set, &state.all_peers})
                    for (OsdNum osd : *set)
                        if (osd && !context_.map()->osds.count(osd)) inactive_osds_.insert(osd);
            }
            co_return 0;
        }
        if (result == -EPIPE && call.status == 0) context_.reset_link(link, connection, "it does not serve the object now");
        if (result == -EAGAIN) {  // see Context::greet
            if (link->connection == connection) context_.greet(link, greetings);
            result = -EPIPE;
        }
        if (result != -EPIPE && result != -EIO && result != -ENOSPC) break;
        if (context_.loop().now_ns() >= give_up_ns) break;
        auto pausing = pause();
        co_await pausing;
    }
    co_return result;
}

runtime::Task<> Purge::delete_some(PgNum pg, size_t* next, uint64_t* failed) {
    auto& objects = pgs_[pg - 1].objects;
    while (*next < objects.size() && still_valid()) {
        ObjectId object = objects[(*next)++];
        auto deleting = delete_object(pg, object);
        int result = co_await deleting;
        if (result) {
            (*failed)++;
        } else if (++removed_ % kProgressEvery == 0) {
            progress();
        }
    }
}

runtime::Task<bool> Purge::sync_pg(PgNum pg, uint64_t epoch) {
    OsdLink* link = still_valid() ? pool()->primary[pg - 1] : nullptr;
    if (!link || !link->connection || link->epoch != epoch) co_return false;
    CallAwait call;
    wire::RequestHeader header;
    header.opcode = wire::Opcode::sync;
    wire::encode_request(call.header(), header);
    link->connection->send(call);
    int64_t result = co_await call;
    co_return result == 0;
}

namespace {
/// Runs one of several deleters and counts it off.
struct Join {
    unsigned left = 0;
    runtime::WaitList done;
};
runtime::Task<> joined(runtime::Task<> task, Join* join) {
    co_await task;
    // The waiter owns the join and ends with it: one waiter, woken last.
    if (--join->left == 0) join->done.notify_one();
}
}  // namespace

runtime::Task<> Purge::delete_pg(PgNum pg) {
    auto& objects = pgs_[pg - 1].objects;
    uint64_t failed = 0, removed_before = 0;
    for (int round = 0; round < kMaxSyncRounds && still_valid(); round++) {
        OsdLink* link = pool()->primary[pg - 1];
        uint64_t epoch = link ? link->epoch : 0;
        removed_ -= removed_before;  // a repeated round counts its deletions once
        failed = 0;
        size_t next = 0;
        Join join;
        join.left = static_cast<unsigned>(std::min<size_t>(options_.iodepth, objects.size()));
        unsigned count = join.left;
        for (unsigned i = 0; i < count; i++) runtime::spawn(joined(delete_some(pg, &next, &failed), &join));
        while (join.left > 0) {
            auto waiter = join.done.wait();
            co_await waiter;
        }
        removed_before = objects.size() - failed;
        if (!still_valid() || pool()->immediate || objects.empty()) break;
        // Without immediate commit a deletion counts after a SYNC over the connection that it went through.
        auto syncing = sync_pg(pg, epoch);
        bool durable = co_await syncing;
        if (durable) break;
        if (round == kMaxSyncRounds - 1) failed = objects.size();
    }
    errors_ += failed;
    progress();
}

std::string Purge::json() const {
    auto list = [](const auto& numbers) {
        std::string text = "[";
        for (auto number : numbers) text += (text.size() > 1 ? "," : "") + std::to_string(number);
        return text + "]";
    };
    return "{\"removed_objects\":" + std::to_string(removed_) + ",\"total_objects\":" + std::to_string(total_) +
           ",\"error_count\":" + std::to_string(errors_) + ",\"inactive_osds\":" + list(inactive_osds_) +
           ",\"inactive_pgs\":" + list(inactive_pgs_) + "}";
}

}  // namespace vitastor::client

// SPDX-License-Identifier: GPL-2.0-or-later
#include "client/pg_walk.hpp"

#include <algorithm>
#include <map>

#include "client/await.hpp"
#include "runtime/pause.hpp"

namespace vitastor::client {

PgWalk::PgWalk(Context& context, PoolId pool) : context_(context), pool_(pool) {
    wake_timer_.walk = this;
    wake_timer_.on_fire = [](runtime::Timer* timer) { static_cast<WakeTimer*>(timer)->walk->on_change(); };
    context_.add_listener(this);
}

PgWalk::~PgWalk() {
    context_.loop().disarm(wake_timer_);
    context_.remove_listener(this);
}

runtime::Task<int> PgWalk::begin() {
    if (!context_.map() && !context_.closing()) {
        auto waiter = changed_.wait();
        co_await waiter;
    }
    PoolView* view = pool();
    if (context_.closing()) co_return -ECANCELED;
    if (!view) co_return context_.map() ? -ENOENT : -ETIMEDOUT;
    pg_count_ = view->primary.size();
    co_return 0;
}

bool PgWalk::still_valid() {
    PoolView* view = pool();
    if (context_.closing() || !view || view->primary.size() != pg_count_) changed_count_ = true;
    return !changed_count_;
}

uint64_t PgWalk::deadline() const {
    return context_.loop().now_ns() + context_.config().client_wait_up_timeout_s * runtime::kNsPerSecond;
}

void PgWalk::wake_at(uint64_t deadline_ns) {
    if (!wake_timer_.armed() || wake_timer_.deadline_ns > deadline_ns) context_.loop().arm(wake_timer_, deadline_ns);
}

runtime::Task<> PgWalk::pause() {
    runtime::Pause wait(context_.loop(), context_.config().client_retry_interval_ms * runtime::kNsPerMs);
    co_await wait;
}

runtime::Task<bool> PgWalk::connected(OsdLink* link, uint64_t deadline_ns) {
    while (!context_.connect(link)) {
        if (context_.closing() || context_.loop().now_ns() >= deadline_ns) co_return false;
        wake_at(deadline_ns);
        auto waiter = changed_.wait();
        co_await waiter;
    }
    co_return true;
}

runtime::Task<OsdLink*> PgWalk::primary_of(PgNum pg, uint64_t deadline_ns) {
    while (still_valid()) {
        OsdLink* link = pool()->primary[pg - 1];
        if (link && context_.connect(link) && !link->greeting) co_return link;
        if (context_.loop().now_ns() >= deadline_ns) break;
        wake_at(deadline_ns);
        auto waiter = changed_.wait();
        co_await waiter;
    }
    co_return nullptr;
}

runtime::Task<> PgWalk::each_pg(unsigned parallel_osds, Visit visit, void* arg) {
    if (!still_valid()) co_return;
    std::map<OsdNum, std::vector<PgNum>> by_osd;
    for (PgNum pg = 1; pg <= pg_count_; pg++) {
        OsdLink* link = pool()->primary[pg - 1];
        by_osd[link ? link->osd : 0].push_back(pg);
    }
    std::vector<std::vector<PgNum>> groups;
    for (auto& [osd, list] : by_osd) groups.push_back(std::move(list));
    size_t next = 0;
    Join join;
    const unsigned count = static_cast<unsigned>(std::min<size_t>(parallel_osds, groups.size()));
    join.add(count);
    for (unsigned i = 0; i < count; i++) runtime::spawn(joined(work(visit, arg, &groups, &next), &join));
    auto all = join.all();
    co_await all;
}

runtime::Task<> PgWalk::work(Visit visit, void* arg, std::vector<std::vector<PgNum>>* groups, size_t* next) {
    while (*next < groups->size()) {
        auto& group = (*groups)[(*next)++];
        for (size_t i = 0; i < group.size() && still_valid(); i++) {
            auto visiting = visit(arg, group[i]);
            co_await visiting;
        }
    }
}

runtime::Task<int> PgWalk::list_on(OsdLink* link, PgNum pg, ListRange range, uint64_t flags, bool* as_primary,
    std::vector<ObjectId>* objects) {
    CallAwait call;
    wire::RequestHeader header;
    header.opcode = wire::Opcode::sec_list;
    wire::ListRequest request;
    PoolView* view = pool();
    request.list_pg = pg;
    request.pg_count = static_cast<uint32_t>(view->primary.size());
    request.pg_stripe_size = view->pg_stripe_size;
    request.min_inode = request.max_inode = range.inode;
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
        if (object.inode != range.inode || object.stripe % object_size) continue;
        if (object.stripe < range.min_offset) continue;
        if (range.max_offset && object.stripe >= range.max_offset) continue;
        objects->push_back(object);
    }
    co_return 0;
}

runtime::Task<bool> PgWalk::list(PgNum pg, ListRange range, std::vector<ObjectId>* objects) {
    uint64_t give_up_ns = deadline();
    while (still_valid()) {
        auto finding = primary_of(pg, give_up_ns);
        OsdLink* link = co_await finding;
        if (!link) break;
        bool as_primary = false;
        objects->clear();
        auto listing = list_on(link, pg, range, wire::ListRequest::kPrimary, &as_primary, objects);
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
                        auto other = list_on(context_.link(osd), pg, range, 0, &ignored, objects);
                        other_result = co_await other;
                    }
                    if (other_result) inactive_osds.insert(osd);
                }
            }
        }
        if (result == 0) {
            std::sort(objects->begin(), objects->end());
            objects->erase(std::unique(objects->begin(), objects->end()), objects->end());
            co_return true;
        }
        if (context_.loop().now_ns() >= give_up_ns) break;
        auto pausing = pause();
        co_await pausing;
    }
    objects->clear();
    inactive_pgs.insert(pg);
    co_return false;
}

}  // namespace vitastor::client

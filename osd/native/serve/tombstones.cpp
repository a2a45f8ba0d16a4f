// SPDX-License-Identifier: GPL-2.0-or-later
// Tombstones: what deletes leave behind, and when that is forgotten. Source: safety 6; docs/adr/0046.
//
// Invariant: whatever is created after a tombstone was forgotten anywhere gets a higher version than that tombstone. The leading OSD
// creates above its own tombstones, forgets them last, and not before an epoch above them stands in etcd.
#include <algorithm>
#include <cinttypes>

#include "serve/answer.hpp"

namespace vitastor::serve {

using runtime::kNsPerSecond;
using wire::Opcode;

namespace {
constexpr uint64_t kForgetCount = 16384;  ///< deletes in a clean PG after which it does not wait for the interval
}  // namespace

/// All who may hold copies, and are there, keep tombstones: only then they are laid and believed.
bool Osd::all_keep_tombstones(const std::vector<OsdNum>& others) {
    if (!settings_.tombstones) return false;
    return std::all_of(others.begin(), others.end(), [&](OsdNum osd) {
        const wire::ConfigReplyJson* config = peers_->peer_config(osd);
        return config && config->tombstones;
    });
}

/// Version that a new object must exceed, 0: none. For an object that is absent.
Version Osd::buried_version(const Pg& pg, const ObjectId& object) {
    const uint64_t role = pg.pool->codec && pg.self_in_set ? pg.own_role : 0;
    return store_.tombstone({object.inode, object.stripe | role});
}

// ------------------------------------------------------------------ forgetting, as secondary

/// Durable when it ends. 0 or an error.
runtime::Task<int64_t> Osd::forget_here(PgId id, Version version) {
    CompletionAwait forgotten;
    store_.forget_tombstones(id.pool, id.pg, version, forgotten);
    int64_t result = co_await forgotten;
    if (result > 0) {
        StoreAwait sync;
        sync.op = store::StoreOp::sync;
        store_.submit(sync);
        result = co_await sync;
    }
    co_return std::min<int64_t>(result, 0);
}

/// SEC_LIST with kForget, checked like a listing by the caller. In live_sub_writes_: listings wait for it.
runtime::Task<> Osd::forget_secondary(Op* op, PgId id, Version version) {
    ClientState* client = client_of(op->request->connection);
    if (!client || client->voided || op->request->peer_osd == 0 || !list_fence_.allows(id, client->serial)) {
        answer(op, -EPIPE, wire::ListReply{});
        co_return;
    }
    runtime::Task<int64_t> work = forget_here(id, version);
    int64_t result = co_await work;
    answer(op, result, wire::ListReply{});
}

// ------------------------------------------------------------------ forgetting, as primary

void Osd::kick_forget() {
    if (!shut_ && !forget_kick_.linked()) loop_.defer(forget_kick_);
}

void Osd::consider_forget() {
    uint64_t now = loop_.now_ns();
    for (auto& [id, pg] : pgs_) consider_forget(*pg, now);
}

/// Exactly {active}: nobody is away and all copies are equal. An epoch above the tombstones goes to etcd first.
void Osd::consider_forget(Pg& pg, uint64_t now) {
    if (pg.buried == 0 || pg.forgetting || pg.forget_epoch || pg.silent || pg.stop || pg.disturbed || !pg.tombstones) return;
    if (pg.state() != wire::pg_state::active || !pg.activation.dead.empty()) return;
    if (now < pg.forget_after_ns && pg.buried < kForgetCount) return;
    if (pg.wanted_epoch > pg.confirmed_epoch) return;  // control is busy with another one
    pg.forget_epoch = pg.wanted_epoch = std::max(pg.epoch, pg.confirmed_epoch) + 1;
    std::vector<OsdNum> current = pg.activation.current_set;
    std::sort(current.begin(), current.end());
    events_.on_history_wanted(pg, pg.forget_epoch, false, current, {});
}

/// The epoch stands in etcd: from here on versions exceed all tombstones that go.
void Osd::begin_forget(Pg& pg) {
    uint64_t epoch = std::exchange(pg.forget_epoch, 0);
    if (pg.state() != wire::pg_state::active || pg.stop || pg.disturbed) return;
    pg.epoch = std::max(pg.epoch, epoch);
    pg.forgetting = true;
    pg.running++;
    runtime::spawn(forget(pg, (epoch << 16) - 1));
}

runtime::Task<> Osd::forget(Pg& pg, Version bound) {
    const uint64_t count = pg.buried;
    while (!pg.removing.empty() && *pg.removing.begin() <= bound) {
        runtime::WaitList::Waiter waiter = pg.removed.wait();
        co_await waiter;
    }
    const PoolInfo info = pg.pool->info;
    bool done = pg.active();
    for (OsdNum osd : pg.activation.universe) {
        if (osd == osd_num_ || !done) continue;
        net::Connection* connection = peers_->get(osd);
        done = connection != nullptr;
        if (!done) break;
        CallAwait call;
        wire::ListRequest message = list_of_pg(info, pg.id);
        message.flags = wire::ListRequest::kForget;
        message.forget_version = bound;
        wire::encode_request(wire::HeaderBytes(call.request), {0, Opcode::sec_list}, message);
        connection->send(call);
        int64_t result = co_await call;
        subop_stats_[static_cast<size_t>(Opcode::sec_list)].add(0, 0);
        if (result < 0 && call.status == 0) {
            log(logger_, LogLevel::warning, "PG %s: OSD %" PRIu64 " could not forget tombstones (error %d): later again",
                pg_text(pg).c_str(), osd, static_cast<int>(-result));
        }
        done = result >= 0 && pg.active();
    }
    if (done) {  // last: what is created meanwhile lies above them
        runtime::Task<int64_t> own = forget_here(pg.id, bound);
        int64_t result = co_await own;
        done = result >= 0;
    }
    if (done) {
        VITASTOR_PROBE("tombstones forgotten");
        pg.buried -= std::min(pg.buried, count);
    }
    pg.forgetting = false;
    pg.forget_after_ns = loop_.now_ns() + settings_.tombstone_interval_s * kNsPerSecond;
    release(pg);
}

}  // namespace vitastor::serve

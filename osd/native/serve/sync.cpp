// SPDX-License-Identifier: GPL-2.0-or-later
// SYNC of pools that are not `all`, one at a time, and the autosync. Source: semantics 2.3, 2.5, 9.3.
#include <algorithm>
#include <cinttypes>

#include "serve/answer.hpp"

namespace vitastor::serve {

using wire::Opcode;

runtime::Task<> Osd::sync_op(Op* op) {
    uint64_t up_to = next_sequence_++;
    runtime::Task<int64_t> run = sync_all(false);
    int64_t result = co_await run;
    if (result == 0 && op->request->connection) {
        if (ClientState* client = client_of(op->request->connection)) {
            std::erase_if(client->dirty, [&](const auto& item) { return item.second <= up_to; });
        }
    }
    answer(op, result);
}

runtime::Task<> Osd::autosync() {
    busy_++;
    runtime::Task<int64_t> run = sync_all(true);
    int64_t result = co_await run;
    if (result < 0) {
        log(logger_, LogLevel::warning, "autosync failed with error %d: it is repeated", static_cast<int>(-result));
    }
    last_autosync_ns_ = loop_.now_ns();
    autosync_queued_ = false;
    if (recovered_unsynced_ > 0) wake_recovery();
    busy_--;
}

/// A PG that serves still counts copies of this OSD.
bool Osd::counts_on(OsdNum osd) const {
    return std::any_of(pgs_.begin(), pgs_.end(), [osd](const auto& item) {
        const auto& current = item.second->activation.current_set;
        return item.second->active() && std::find(current.begin(), current.end(), osd) != current.end();
    });
}

/// What was done on one OSD before is durable there. 0 or an error; -EPIPE: it cannot be reached.
runtime::Task<int64_t> Osd::sync_on(OsdNum osd) {
    int64_t result = -EPIPE;
    if (osd == osd_num_) {
        StoreAwait own;
        own.op = store::StoreOp::sync;
        store_.submit(own);
        result = co_await own;
    } else if (net::Connection* connection = peers_->get(osd)) {
        CallAwait call;
        wire::SubSyncRequest message{wire::sub_flags::recovery};
        wire::encode_request(wire::HeaderBytes(call.request), {0, Opcode::sec_sync}, message);
        connection->send(call);
        result = co_await call;
        subop_stats_[static_cast<size_t>(Opcode::sec_sync)].add(0, 0);
        if (result < 0 && call.status == 0 && peers_->get(osd)) {
            peers_->reset(osd, "SEC_SYNC failed with error " + std::to_string(result));
        }
    }
    co_return result;
}

/// Everything written before is durable afterwards. On an error all that was not done counts as unsynced again.
runtime::Task<int64_t> Osd::sync_all(bool background) {
    while (sync_running_) {
        runtime::WaitList::Waiter turn = sync_turn_.wait();
        co_await turn;
    }
    if (unsynced_osds_.empty() && unsynced_pgs_.empty()) co_return 0;
    sync_running_ = true;
    std::set<OsdNum> osds;
    std::set<PgId> pgs;
    osds.swap(unsynced_osds_);
    pgs.swap(unsynced_pgs_);
    uint64_t writes = std::exchange(unsynced_writes_, 0);
    const uint64_t up_to = next_sequence_++;
    begin_sync_unstable();
    Op* op = new_op(nullptr);
    op->on_parts = Parts::done;
    op->pending = 1;
    int64_t result = 0;
    for (OsdNum osd : osds) {
        if (osd == osd_num_) continue;
        net::Connection* connection = peers_->get(osd);
        if (!connection) {
            // When its PGs have re-peered, the clients that wrote to them repeat their writes. Until then it has them alone.
            if (!counts_on(osd)) continue;
            VITASTOR_PROBE("sync between the loss of an OSD and its PGs' new peering");
            result = -EPIPE;
            unsynced_osds_.insert(osd);
            continue;
        }
        SubCall* call = new_call(op, osd, Opcode::sec_sync);
        wire::SubSyncRequest message{background ? wire::sub_flags::recovery : 0};
        wire::encode_request(wire::HeaderBytes(call->request), {0, Opcode::sec_sync}, message);
        send_call(call, connection);
    }
    op->local_used = osds.contains(osd_num_);
    if (op->local_used) {
        op->pending++;
        op->local.store::Operation::op = store::StoreOp::sync;
        op->local.on_done = on_local_part;
        store_.submit(op->local);
    }
    part_done(op);
    Parts parts{op};
    co_await parts;
    if (op->local_used && op->local.result < 0) {
        result = op->local.result;
        unsynced_osds_.insert(osd_num_);
    }
    for (SubCall* call = op->calls; call; call = call->next) {
        if (call->result >= 0) continue;
        unsynced_osds_.insert(call->osd);  // a SYNC that waits for this one may come before the PGs know
        if (call->lost) {
            result = -EPIPE;
            continue;
        }
        if (result == 0) result = call->result;
        if (!keeps_connection(call->result) && peers_->get(call->osd)) {
            peers_->reset(call->osd, "SEC_SYNC failed with error " + std::to_string(call->result));
        }
    }
    free_calls(op);
    {
        runtime::Task<> stable = end_sync_unstable(result == 0);
        co_await stable;
    }
    if (result < 0) {
        unsynced_pgs_.insert(pgs.begin(), pgs.end());
        unsynced_writes_ += writes;
    } else {
        synced_up_to_ = up_to;
        // The new copies are durable: the superfluous ones may go. The PG counts them until their deletion is durable too: a clean one
        // forgets who has had copies, and what was deleted.
        for (const PgId& id : pgs) {
            auto it = pgs_.find(id);
            if (it == pgs_.end() || !it->second->active() || it->second->extras.empty()) continue;
            Pg& pg = *it->second;
            // In order; those of writes that ended meanwhile wait for the next SYNC.
            const auto later = std::find_if(pg.extras.begin(), pg.extras.end(), [&](const Pg::Extra& extra) { return extra.sequence > up_to; });
            std::vector<Pg::Extra> extras(pg.extras.begin(), later);
            pg.extras.erase(pg.extras.begin(), later);
            attach_pg(op, &pg);
            op->pending = 1;
            std::set<OsdNum> deleted_on;
            for (const Pg::Extra& extra : extras) {
                if (extra.osd == 0) continue;
                if (extra.osd == osd_num_) {
                    StoreAwait own;
                    own.op = store::StoreOp::del;
                    own.object = extra.what.object;
                    own.version = extra.what.version;
                    store_.submit(own);
                    int64_t deleted = co_await own;
                    if (deleted < 0) log(logger_, LogLevel::error, "own superfluous copy could not be deleted");
                } else {
                    SubCall* call = new_call(op, extra.osd, Opcode::sec_delete);
                    wire::SubDeleteRequest message{extra.what.object, extra.what.version, wire::sub_flags::recovery};
                    wire::encode_request(wire::HeaderBytes(call->request), {0, Opcode::sec_delete}, message);
                    send_call(call, peers_->get(extra.osd));
                }
                deleted_on.insert(extra.osd);
            }
            if (--op->pending > 0) {
                Parts deletes{op};
                co_await deletes;
            }
            free_calls(op);
            for (OsdNum osd : deleted_on) {
                runtime::Task<int64_t> syncing = sync_on(osd);
                const int64_t synced = co_await syncing;
                if (synced < 0 && pg.active()) disturb(pg);  // peering sees what is left
            }
            if (pg.active()) {
                for (const Pg::Extra& extra : extras) {
                    const ObjectId object{extra.what.object.inode, extra.what.object.stripe & ~kRoleMask};
                    pg::UncleanObject* unclean = pg.objects.find(object);
                    if (unclean && unclean->target == extra.what.version &&
                        unclean->set->state == wire::object_state::misplaced) {
                        pg.objects.set_clean(object);
                    }
                }
                update_state(pg);
            }
            if (pg.active() && !pg.extras.empty()) {
                unsynced_pgs_.insert(id);
                unsynced_writes_++;
            }
            op->pg = nullptr;
            release(pg);
        }
    }
    free_op(op);
    sync_running_ = false;
    sync_turn_.notify_all();
    co_return result;
}

}  // namespace vitastor::serve

// SPDX-License-Identifier: GPL-2.0-or-later
// DELETE of one object. Runs in the object's queue like a write. Source: semantics 10; safety 6; docs/adr/0046.
#include <algorithm>
#include <cstring>

#include "serve/answer.hpp"
#include "serve/planted.hpp"

namespace vitastor::serve {

using runtime::kNsPerSecond;
using wire::Opcode;

namespace {
/// Copy or chunk to delete.
struct Target {
    uint32_t role;
    OsdNum osd;
    auto operator<=>(const Target&) const = default;
};
}  // namespace

/// All copies or chunks at once, each with a tombstone in the same step if `bury`: whoever is left afterwards knows.
/// 0, or the error for the client. remembered: set to false if a tombstone had no room.
runtime::Task<int64_t> Osd::delete_everywhere(Op* op, bool bury, bool* remembered) {
    Pg& pg = *op->pg;
    const bool replicated = op->pool->info.scheme.replicated();
    std::set<Target> where;
    for (const pg::Location& location : locations_of(pg, op->object)) where.insert({location.role, location.osd});
    for (uint32_t i = 0; i < pg.activation.current_set.size(); i++) {
        if (pg.activation.current_set[i]) where.insert({replicated ? 0 : i, pg.activation.current_set[i]});
    }
    if (bury && !pg.self_in_set) where.insert({0, osd_num_});
    auto removing = pg.removing.insert(op->version);
    if (!replicated) {
        changes_of(op->object)++;
        rows_.forget(op->object);
    }
    int64_t result = 0;
    bool lost = false;
    op->pending = 1;
    op->on_parts = Parts::done;
    op->local_used = false;
    std::vector<ObjectVersion> here;
    for (const Target& target : where) {
        const ObjectId object{op->object.inode, op->object.stripe | target.role};
        if (target.osd == osd_num_) {
            here.push_back({object, op->version});
            continue;
        }
        SubCall* call = new_call(op, target.osd, Opcode::sec_delete);
        wire::SubDeleteRequest message{object, op->version, bury ? wire::sub_flags::tombstone : 0};
        wire::encode_request(wire::HeaderBytes(call->request), {0, Opcode::sec_delete}, message);
        send_call(call, peers_->get(target.osd));
    }
    std::unique_ptr<StoreAwait[]> own(new StoreAwait[here.size()]);
    for (bool again : {false, true}) {
        std::vector<size_t> begun;  // an operation may have its result before it ends: results do not tell which these are
        for (size_t i = 0; i < here.size(); i++) {
            if (again && own[i].result != -ENOSPC) continue;
            if (again) {
                VITASTOR_PROBE("no room for a tombstone");
                *remembered = false;
            }
            own[i].op = store::StoreOp::del;
            own[i].tombstone = bury && !again;
            own[i].object = here[i].object;
            own[i].version = here[i].version;
            begun.push_back(i);
        }
        for (size_t i : begun) store_.submit(own[i]);
        for (size_t i : begun) {
            StoreAwait& part = own[i];
            int64_t deleted = co_await part;
            if (deleted < 0 && (again || deleted != -ENOSPC || !bury)) result = deleted;
        }
        if (!bury) break;
    }
    part_done(op);
    Parts parts{op};
    co_await parts;
    for (SubCall* call = op->calls; call; call = call->next) {
        if (call->result >= 0) {
            *remembered &= wire::decode<wire::SubDeleteReply>(wire::ConstHeaderBytes(call->reply)).version != 0;
            continue;
        }
        if (result == 0 || result == -EPIPE) result = call->result;
        lost |= call->lost;
        if (!call->lost && !keeps_connection(call->result) && peers_->get(call->osd)) {
            peers_->reset(call->osd, "SEC_DELETE failed with error " + std::to_string(call->result));
        }
    }
    free_calls(op);
    if (!lost && result == 0 && op->pool->info.immediate_commit == wire::ImmediateCommit::none) {
        // The PG may be clean now, and nobody asks those who leave it again.
        std::set<OsdNum> leavers;
        for (const Target& target : where) leavers.insert(target.osd);
        for (OsdNum osd : pg.activation.current_set) leavers.erase(osd);
        for (OsdNum osd : leavers) {
            runtime::Task<int64_t> syncing = sync_on(osd);
            const int64_t synced = co_await syncing;
            lost |= synced < 0;
        }
    }
    if (!replicated) changes_of(op->object)++;
    pg.removing.erase(removing);
    pg.removed.notify_all();
    co_return lost ? -EPIPE : result;
}

runtime::Task<> Osd::remove_object(Op* op) {
    Pg& pg = *op->pg;
    if (!pg.active()) {
        leave_queue(op);
        answer(op, -EPIPE);
        co_return;
    }
    if (!op->bitmap) fill_bitmap_space(op);
    int64_t result = 0;
    if (pg::UncleanObject* unclean = pg.objects.find(op->object)) {
        op->old_version = unclean->target;
    } else if (pg.self_in_set) {
        const uint64_t role = op->pool->codec ? pg.own_role : 0;
        op->old_version = store_.peek({op->object.inode, op->object.stripe | role}, kNewestVersion, op->bitmap);
    } else {
        LayerRead read{op->pool, &pg, op->object, 0, 0, nullptr, op->bitmap, 0};
        runtime::Task<int64_t> attempt = read_object(read);
        result = co_await attempt;
        op->old_version = read.version;
        if (result >= 0 && !pg.active()) result = -EPIPE;
    }
    wire::DeleteReply reply;
    if (result >= 0 && op->message.version && op->old_version != op->message.version - 1) {
        reply.set_cas_version(op->old_version);
        leave_queue(op);
        answer(op, -EINTR, reply);
        co_return;
    }
    const bool bury = pg.tombstones;
    bool remembered = bury;  // by all who are there
    const Version buried = buried_version(pg, op->object);
    // A missing object may lie on an OSD that is away, and the delete that removed it here may have failed half-way.
    const bool reminds = bury && pg.state() != wire::pg_state::active && buried >> 16 < pg.epoch;
    if (result >= 0 && (op->old_version != 0 || reminds)) {
        op->version = bury ? pg::next_version(std::max(op->old_version, buried), pg.epoch) : op->old_version + 1;
        if (bury && need_history(op)) {
            wait_history(op);  // starts again from the beginning
            co_return;
        }
        if (op->pool->codec) {
            runtime::Task<int64_t> settling = settle_for_delete(op);
            result = co_await settling;
        }
        if (result >= 0) {
            if (!pg.activation.dead.empty()) VITASTOR_PROBE("delete while an OSD is away");
            runtime::Task<int64_t> deleting = delete_everywhere(op, bury && !(planted_ & planted::kNoTombstone), &remembered);
            result = co_await deleting;
        }
        if (result < 0) {
            if (pg.active()) disturb(pg);  // peering finds what is left of the object
        } else if (pg.active()) {
            if (!remembered && buried_version(pg, op->object) < op->version) {
                // No room here, others may remember: whatever is created next must lie above what they know.
                pg.epoch = std::max({pg.epoch, pg.confirmed_epoch, pg.wanted_epoch}) + 1;
            }
            if (bury && pg.buried++ == 0 && pg.state() == wire::pg_state::active) {
                pg.forget_after_ns = loop_.now_ns() + settings_.tombstone_interval_s * kNsPerSecond;
            }
            if (pg.objects.find(op->object)) {
                pg.objects.erase_unclean(op->object);
                update_state(pg);
            } else if (op->old_version) {
                pg.objects.remove_clean();
            }
            note_unsynced(op, true);
            pg.deleted_at = next_sequence_++;
        }
    }
    if (result >= 0) {
        result = 0;
        reply.flags = wire::DeleteReply::kSupported;
        if (!pg.activation.dead.empty() && !remembered) {
            reply.flags |= wire::DeleteReply::kLeftOnDead;
            for (OsdNum osd : pg.activation.dead) {
                if (reply.osd_count < wire::kMaxDeadOsds) reply.osds[reply.osd_count++] = static_cast<uint32_t>(osd);
            }
        }
    }
    leave_queue(op);
    while (pg.gate && pg.active()) {
        runtime::WaitList::Waiter gate = pg.gate_waiters.wait();
        co_await gate;
    }
    answer(op, result, reply);
}

}  // namespace vitastor::serve

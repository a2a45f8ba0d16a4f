// SPDX-License-Identifier: GPL-2.0-or-later
// DELETE of one object. Runs in the object's queue like a write. Source: semantics 10.
#include <algorithm>
#include <cstring>

#include "serve/answer.hpp"

namespace vitastor::serve {

using wire::Opcode;

/// Everywhere at once. 0, or the error for the client.
runtime::Task<int64_t> Osd::delete_copies(Op* op) {
    Pg& pg = *op->pg;
    int64_t result = 0;
    bool lost = false;
    std::set<OsdNum> where;
    for (const pg::Location& location : locations_of(pg, op->object)) where.insert(location.osd);
    for (OsdNum osd : pg.activation.current_set) {
        if (osd) where.insert(osd);
    }
    op->pending = 1;
    op->on_parts = Parts::done;
    op->local_used = where.contains(osd_num_);
    for (OsdNum osd : where) {
        if (osd == osd_num_) continue;
        SubCall* call = new_call(op, osd, Opcode::sec_delete);
        wire::SubDeleteRequest message{op->object, op->version, 0};
        wire::encode_request(wire::HeaderBytes(call->request), {0, Opcode::sec_delete}, message);
        send_call(call, peers_->get(osd));
    }
    if (op->local_used) {
        op->pending++;
        op->local.store::Operation::op = store::StoreOp::del;
        op->local.object = op->object;
        op->local.version = op->version;
        op->local.offset = op->local.len = 0;
        op->local.iov = nullptr;
        op->local.iov_count = 0;
        op->local.bitmap = nullptr;
        op->local.on_done = on_local_part;
        store_.submit(op->local);
    }
    part_done(op);
    Parts parts{op};
    co_await parts;
    if (op->local_used && op->local.result < 0) result = op->local.result;
    for (SubCall* call = op->calls; call; call = call->next) {
        if (call->result >= 0) continue;
        if (result == 0 || result == -EPIPE) result = call->result;
        lost |= call->lost;
        if (!call->lost && !keeps_connection(call->result) && peers_->get(call->osd)) {
            peers_->reset(call->osd, "SEC_DELETE failed with error " + std::to_string(call->result));
        }
    }
    free_calls(op);
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
    if (result >= 0 && op->old_version != 0) {
        op->version = op->old_version + 1;
        runtime::Task<int64_t> deleting = op->pool->codec ? delete_chunks(op) : delete_copies(op);
        result = co_await deleting;
        if (result < 0) {
            if (pg.active()) disturb(pg);  // peering finds what is left of the object
        } else if (pg.active()) {
            if (pg.objects.find(op->object)) {
                pg.objects.erase_unclean(op->object);
                update_state(pg);
            } else {
                pg.objects.remove_clean();
            }
            note_unsynced(op, true);
        }
    }
    if (result >= 0) {
        result = 0;
        reply.flags = wire::DeleteReply::kSupported;
        if (!pg.activation.dead.empty()) {
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

// SPDX-License-Identifier: GPL-2.0-or-later
// DELETE and SCRUB of one object. Both run in the object's queue like a write. Source: semantics 10, 12.2-12.5.
#include <algorithm>
#include <cstring>

#include "serve/answer.hpp"

namespace vitastor::serve {

using wire::Opcode;

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
        op->old_version = store_.peek(op->object, kNewestVersion, op->bitmap);
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
        bool lost = false;
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
        if (result < 0 || lost) {
            if (lost) result = -EPIPE;
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

/// Compares the data of all copies that count; the majority wins, a tie stays inconsistent until a person decides.
runtime::Task<> Osd::scrub_object(Op* op) {
    Pg& pg = *op->pg;
    int64_t result = pg.active() ? 0 : -EPIPE;
    struct Copy {
        OsdNum osd;
        Buffer data;
        uint32_t equal = 0;
    };
    std::vector<Copy> copies;
    std::vector<uint8_t> bitmap(bitmap_bytes_);
    if (result == 0) {
        pg::UncleanObject* unclean = pg.objects.find(op->object);
        Version target = unclean ? unclean->target : 0;
        if (!unclean && pg.self_in_set) target = store_.peek(op->object, kNewestVersion, bitmap.data());
        if (!unclean && pg.self_in_set && target == 0) result = -ENOENT;
        std::vector<pg::Location> where = locations_of(pg, op->object);
        for (const pg::Location& place : where) {
            if (result < 0) break;
            if (place.flags & wire::DescribeItem::kOutdated) continue;
            Copy copy{place.osd, loop_.buffers().allocate(block_size_), 0};
            LayerRead read{op->pool, &pg, op->object, 0, block_size_, copy.data.data(), bitmap.data(), 0};
            runtime::Task<int64_t> attempt = read_copy(read, place.osd, target ? target : kNewestVersion);
            int64_t got = co_await attempt;
            if (!pg.active() || got == -EPIPE) {
                result = -EPIPE;
            } else if (got == -ENOENT) {
                mark_copy(pg, op->object, place.osd, wire::DescribeItem::kOutdated, target);
            } else if (got < 0) {
                mark_copy(pg, op->object, place.osd, wire::DescribeItem::kCorrupted, target);
            } else {
                if (target == 0) target = read.version;
                copies.push_back(std::move(copy));
            }
        }
        uint32_t best = 0, best_count = 0;
        for (Copy& copy : copies) {
            for (Copy& other : copies) {
                copy.equal += std::memcmp(copy.data.data(), other.data.data(), block_size_) == 0;
            }
            if (copy.equal > best) {
                best = copy.equal;
                best_count = 1;
            } else if (copy.equal == best) {
                best_count++;
            }
        }
        if (result == 0 && best < copies.size()) {
            if (best_count == best) {
                for (Copy& copy : copies) {
                    if (copy.equal != best) mark_copy(pg, op->object, copy.osd, wire::DescribeItem::kCorrupted, target);
                }
            } else {
                std::vector<pg::Location> all = locations_of(pg, op->object);
                for (pg::Location& place : all) place.flags |= wire::DescribeItem::kInconsistent;
                unclean = pg.objects.find(op->object);
                uint32_t state = (unclean ? unclean->set->state : 0) | wire::object_state::inconsistent;
                pg.objects.set_unclean(op->object, state, all, target);
                update_state(pg);
            }
        } else if (result == 0) {
            unclean = pg.objects.find(op->object);
            if (unclean && unclean->set->state == wire::object_state::inconsistent) {
                pg.objects.set_clean(op->object);
                update_state(pg);
            }
        }
    }
    leave_queue(op);
    answer(op, result);
}

}  // namespace vitastor::serve

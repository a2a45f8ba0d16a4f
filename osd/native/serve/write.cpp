// SPDX-License-Identifier: GPL-2.0-or-later
// WRITE to replicated pools: version from memory, then the own store and all other copies at once from the request's buffer.
// Objects that are not clean are rewritten as a whole to the current set, which recovers them.
// Source: semantics 3.1, 3.2.5, 9.2; wire-protocol 8.3, 9.8; safety 5, 10.
#include <algorithm>
#include <cinttypes>
#include <cstring>

#include "serve/answer.hpp"

namespace vitastor::serve {

using wire::Opcode;

void Osd::handle_write(Op* op) {
    if (!route(op, true)) return;
    fill_bitmap_space(op);
    if (enter_queue(op)) start_write(op);
}

namespace {
void set_bits(uint8_t* bitmap, uint32_t first, uint32_t count) {
    for (uint32_t i = first; i < first + count; i++) bitmap[i / 8] = static_cast<uint8_t>(bitmap[i / 8] | 1u << (i % 8));
}
}  // namespace

/// The epoch of op->version must be in etcd before it is used. Source: semantics 7.4.
bool Osd::need_history(Op* op) { return need_epoch(*op->pg, op->version >> 16); }

bool Osd::need_epoch(Pg& pg, uint64_t epoch) {
    constexpr size_t kMoreSetsMax = 64;
    pg.epoch = std::max(pg.epoch, epoch);
    if (epoch <= pg.confirmed_epoch) return false;
    if (pg.wanted_epoch < epoch) {
        pg.wanted_epoch = epoch;
        bool add_set = pg.state() != wire::pg_state::active;
        std::vector<OsdNum> current;
        for (OsdNum osd : pg.activation.current_set) {
            if (osd) current.push_back(osd);
        }
        std::sort(current.begin(), current.end());
        // What is read or written now may lie on these OSDs alone: the PG must not become active without them.
        std::vector<std::vector<OsdNum>> more = pg.objects.sole_holders(kMoreSetsMax);
        if (add_set) pg.membership.history_sets.push_back(current);
        pg.membership.history_sets.insert(pg.membership.history_sets.end(), more.begin(), more.end());
        events_.on_history_wanted(pg, epoch, add_set, current, more);
    }
    return true;
}

void Osd::wait_history(Op* op) { op->pg->history.list.push_back(&op->history_node); }

void Osd::confirm_history(const PgId& id, uint64_t interval, uint64_t epoch) {
    auto it = pgs_.find(id);
    if (it == pgs_.end() || it->second->interval != interval) return;
    Pg& pg = *it->second;
    if (epoch <= pg.confirmed_epoch) return;
    pg.confirmed_epoch = epoch;
    if (pg.forget_epoch && epoch >= pg.forget_epoch) begin_forget(pg);
    if (!pg.active()) kick(pg);  // peering may wait for it
    List<Op::HistoryNode> ready;
    while (Op::HistoryNode* node = pg.history.list.pop_front()) ready.push_back(node);
    while (Op::HistoryNode* node = ready.pop_front()) start_modification(node->op);
}

/// Operations that wait for etcd have done nothing yet: the client repeats them.
void Osd::fail_history_waiters(Pg& pg) {
    List<Op::HistoryNode> waiting;
    while (Op::HistoryNode* node = pg.history.list.pop_front()) waiting.push_back(node);
    while (Op::HistoryNode* node = waiting.pop_front()) {
        Op* op = node->op;
        if (op->recovery) {
            skip_recovery(op);
            continue;
        }
        leave_queue(op);
        answer(op, -EPIPE);
    }
}

void Osd::start_write(Op* op) {
    Pg& pg = *op->pg;
    if (!pg.active()) {
        if (op->recovery) return skip_recovery(op);
        leave_queue(op);
        return answer(op, -EPIPE);
    }
    if (op->pool->codec) return runtime::spawn(write_ec(op));
    if (op->recovery || !pg.self_in_set || pg.objects.find(op->object)) return runtime::spawn(write_unclean(op));
    op->old_version = store_.peek(op->object, kNewestVersion, op->bitmap);
    if (op->old_version == 0) std::memset(op->bitmap, 0, bitmap_bytes_);
    if (op->message.version && op->old_version != op->message.version - 1) {
        leave_queue(op);
        return answer(op, -EINTR, wire::WriteReply{op->old_version});
    }
    op->version = pg::next_version(op->old_version ? op->old_version : buried_version(pg, op->object), pg.epoch);
    if (need_history(op)) return wait_history(op);
    set_bits(op->bitmap, op->offset / granularity_, op->len / granularity_);
    op->on_parts = on_write_parts;
    write_parts(op, op->request->data(), op->offset, op->len, 0);
}

SubCall* Osd::new_call(Op* op, OsdNum osd, Opcode opcode) {
    SubCall* call = calls_.get();
    call->op = op;
    call->osd = osd;
    call->opcode = opcode;
    call->payload_count = 0;
    call->bitmap_out = nullptr;
    call->bitmap_capacity = 0;
    call->data_out = nullptr;
    call->data_count = 0;
    call->result = 0;
    call->lost = false;
    call->status = 0;
    call->retval = 0;
    call->on_reply = on_call_part;
    call->next = op->calls;
    op->calls = call;
    return call;
}

void Osd::send_call(SubCall* call, net::Connection* connection) {
    call->start_ns = loop_.now_ns();
    if (!connection) {
        call->result = -EPIPE;
        call->lost = true;
        return;
    }
    call->op->pending++;
    connection->send(*call);
}

/// Everything at once: the copies are equal, and the slowest one decides.
void Osd::write_parts(Op* op, const uint8_t* data, uint32_t offset, uint32_t len, uint32_t flags) {
    Pg& pg = *op->pg;
    VITASTOR_ASSERT(op->calls == nullptr);
    op->pending = 1;
    wire::SubRequest message;
    message.object = op->object;
    message.version = op->version;
    message.offset = offset;
    message.len = len;
    message.attr_len = bitmap_bytes_;
    message.flags = flags;
    op->iov = {const_cast<uint8_t*>(data), len};
    for (size_t i = 0; i < pg.others.size(); i++) {
        SubCall* call = new_call(op, pg.others[i], Opcode::sec_write_stable);
        wire::encode_request(wire::HeaderBytes(call->request), {0, Opcode::sec_write_stable}, message);
        call->payload[call->payload_count++] = {op->bitmap, bitmap_bytes_};
        if (len) call->payload[call->payload_count++] = op->iov;
        send_call(call, pg.connections[i]);
    }
    op->local_used = pg.self_in_set;
    if (op->local_used) {
        op->pending++;
        op->local.store::Operation::op = store::StoreOp::write_stable;
        op->local.object = op->object;
        op->local.version = op->version;
        op->local.offset = offset;
        op->local.len = len;
        op->local.iov = len ? &op->iov : nullptr;
        op->local.iov_count = len ? 1 : 0;
        op->local.bitmap = op->bitmap;
        op->local.on_done = on_local_part;
        store_.submit(op->local);
    }
    part_done(op);
}

void Osd::on_local_part(store::Operation* operation) {
    Op* op = static_cast<Op::Local*>(operation)->op;
    op->osd->part_done(op);
}

void Osd::on_call_part(net::Call* base) {
    SubCall* call = static_cast<SubCall*>(base);
    Osd* self = call->op->osd;
    call->lost = call->status != 0;
    call->result = call->status ? call->status : call->retval;
    if (call->result >= 0 && call->opcode == Opcode::sec_write_stable) {
        auto reply = wire::decode<wire::SubReply>(wire::ConstHeaderBytes(call->reply));
        if (reply.version != call->op->version) call->result = -ERANGE;
    }
    Counters& stats = self->subop_stats_[static_cast<size_t>(call->opcode)];
    stats.add((self->loop_.now_ns() - call->start_ns) / 1000, 0);
    self->part_done(call->op);
}

void Osd::part_done(Op* op) {
    if (--op->pending == 0) op->on_parts(op);
}

void Osd::on_write_parts(Op* op) { op->osd->write_done(op); }

void Osd::free_calls(Op* op) {
    for (SubCall* call = op->calls; call;) {
        SubCall* next = call->next;
        if (call->reply_payload) call->reply_payload.release();
        calls_.put(call);
        call = next;
    }
    op->calls = nullptr;
}

int64_t Osd::judge_write(Op* op) {
    Pg& pg = *op->pg;
    int64_t error = 0;
    bool lost = false, any_good = false;
    std::vector<OsdNum> failed;
    auto note = [&](OsdNum osd, int64_t result) {
        if (result >= 0) {
            any_good = true;
            return;
        }
        failed.push_back(osd);
        if (error == 0 || result == -ENOSPC) error = result;
    };
    if (op->local_used) note(osd_num_, op->local.result);
    for (SubCall* call = op->calls; call; call = call->next) {
        note(call->osd, call->result);
        if (call->result >= 0) continue;
        if (call->lost) {
            lost = true;
        } else if (!keeps_connection(call->result)) {
            lost = true;
            if (peers_->get(call->osd)) {
                peers_->reset(call->osd, std::string(wire::opcode_name(call->opcode)) + " failed with error " +
                                             std::to_string(call->result));
            }
        }
    }
    free_calls(op);
    if (failed.empty() || !pg.active()) return failed.empty() ? 0 : (lost ? -EPIPE : error);
    if (lost) {
        // Peering finds out what is where. The connection's end may not have reached us yet.
        disturb(pg);
        return -EPIPE;
    }
    log(logger_, LogLevel::warning, "write of object %" PRIx64 ":%" PRIx64 " failed on OSD %" PRIu64 " with error %d",
        op->object.inode, op->object.stripe, failed.front(), static_cast<int>(-error));
    if (any_good) {
        VITASTOR_PROBE("write failed on some copies only");
        std::vector<pg::Location> where;
        for (OsdNum osd : pg.activation.current_set) {
            if (osd == 0) continue;
            bool bad = std::find(failed.begin(), failed.end(), osd) != failed.end();
            where.push_back({0, bad ? wire::DescribeItem::kOutdated : 0, osd});
        }
        if (pg::UncleanObject* unclean = pg.objects.find(op->object)) {
            for (const pg::Location& old : unclean->set->where) {
                bool current = std::any_of(where.begin(), where.end(), [&](const auto& l) { return l.osd == old.osd; });
                if (!current) where.push_back({0, old.flags | wire::DescribeItem::kOutdated, old.osd});
            }
        } else if (op->old_version == 0) {
            pg.objects.add_clean();
        }
        pg.objects.set_unclean(op->object, wire::object_state::degraded, where, op->version);
        put_off_recovery(op->object);  // not again at once: the reason may still hold
        std::vector<OsdNum> holders;
        for (const pg::Location& place : where) {
            if (place.good()) holders.push_back(place.osd);
        }
        std::sort(holders.begin(), holders.end());
        const auto& known = pg.membership.history_sets;
        if (std::find(known.begin(), known.end(), holders) == known.end()) {
            pg.epoch = std::max({pg.epoch, pg.confirmed_epoch, pg.wanted_epoch}) + 1;  // the next read or write puts the holders into the history
        }
        update_state(pg);
        wake_recovery();
    }
    return error;
}

/// Modes small and none: what a SYNC must cover, and whom the dirty PG rule concerns. Source: semantics 2.
void Osd::note_unsynced(Op* op, bool whole_block) {
    wire::ImmediateCommit mode = op->pool->info.immediate_commit;
    if (mode == wire::ImmediateCommit::all || (mode == wire::ImmediateCommit::small && !whole_block)) return;
    for (OsdNum osd : op->pg->activation.current_set) {
        if (osd) unsynced_osds_.insert(osd);
    }
    unsynced_pgs_.insert(op->pg->id);
    unsynced_writes_++;
    if (op->request && op->request->connection) {
        if (ClientState* client = client_of(op->request->connection)) client->dirty[op->pg->id] = next_sequence_++;
    }
    if (settings_.autosync_writes && unsynced_writes_ >= settings_.autosync_writes && !autosync_queued_) {
        autosync_queued_ = true;
        runtime::spawn(autosync());
    }
}

/// The object was clean when its write began. A reader of another part has met a bad copy meanwhile: it is as bad in the new version.
void Osd::keep_marks(const Op* op) {
    pg::UncleanObject* unclean = op->pg->objects.find(op->object);
    if (!unclean) return;
    VITASTOR_PROBE("a copy was found bad beside a write");
    unclean->target = op->version;
}

void Osd::write_done(Op* op) {
    Pg& pg = *op->pg;
    int64_t result = judge_write(op);
    if (result == 0) {
        if (op->old_version == 0) pg.objects.add_clean();
        keep_marks(op);
        note_unsynced(op, op->len == block_size_);
        result = op->len;
    }
    leave_queue(op);
    if (pg.gate) return runtime::spawn(finish_gated(op, result));
    answer(op, result, wire::WriteReply{result < 0 ? 0 : op->version});
}

/// Safety 5: lock holders must know that the PG is not exactly active before anything is acknowledged.
runtime::Task<> Osd::finish_gated(Op* op, int64_t result) {
    while (op->pg->gate && op->pg->active()) {
        runtime::WaitList::Waiter gate = op->pg->gate_waiters.wait();
        co_await gate;
    }
    if (!op->pg->active()) result = -EPIPE;
    answer(op, result, wire::WriteReply{result < 0 ? 0 : op->version});
}

/// A write to an object that is not clean, or whose newest copy is not here; also recovery (no request, len 0).
runtime::Task<> Osd::write_unclean(Op* op) {
    Pg& pg = *op->pg;
    const bool was_unclean = pg.objects.find(op->object) != nullptr;
    const bool full = op->offset == 0 && op->len == block_size_;
    const uint32_t old_state = was_unclean ? pg.objects.find(op->object)->set->state : 0;
    // Copies that differ stay as they are around the new bytes: one of them, taken for all, could be the wrong one.
    const bool undecided = old_state == wire::object_state::inconsistent && !full;
    const bool rewrite = was_unclean && !undecided;
    int64_t result = 0;
    if (op->recovery && !was_unclean) {  // somebody else has repaired it
        skip_recovery(op);
        co_return;
    }
    LayerRead read{op->pool, &pg, op->object, 0, 0, nullptr, op->bitmap, op->recovery ? wire::sub_flags::recovery : 0};
    if (full && was_unclean) {
        read.version = pg.objects.find(op->object)->target;
        std::memset(op->bitmap, 0, bitmap_bytes_);
    } else {
        if (rewrite) {
            if (!op->data) op->data = loop_.buffers().allocate(block_size_);
            read.data = op->data.data();
            read.len = block_size_;
        }
        runtime::Task<int64_t> attempt = read_object(read);
        result = co_await attempt;
    }
    op->old_version = read.version;
    if (result >= 0 && op->message.version && op->request && read.version != op->message.version - 1) {
        leave_queue(op);
        answer(op, -EINTR, wire::WriteReply{read.version});
        co_return;
    }
    if (result >= 0 && !pg.active()) result = -EPIPE;
    if (result >= 0) {
        op->version = pg::next_version(op->old_version ? op->old_version : buried_version(pg, op->object), pg.epoch);
        if (need_history(op)) {
            wait_history(op);  // starts again from the beginning
            co_return;
        }
        set_bits(op->bitmap, op->offset / granularity_, op->len / granularity_);
        const uint8_t* data = op->request ? op->request->data() : nullptr;
        uint32_t offset = op->offset, len = op->len;
        if (rewrite && !full) {
            if (op->len) std::memcpy(op->data.data() + op->offset, op->request->data(), op->len);
            data = op->data.data();
            offset = 0;
            len = block_size_;
        }
        std::vector<pg::Location> old_places;
        // Modes none and small: a SYNC that ended meanwhile may have made the object clean.
        const pg::UncleanObject* unclean = pg.objects.find(op->object);
        if (was_unclean && unclean) old_places = unclean->set->where;
        op->on_parts = Parts::done;
        write_parts(op, data, offset, len, op->recovery ? wire::sub_flags::recovery : 0);
        Parts parts{op};
        co_await parts;
        result = judge_write(op);
        if (result == 0 && pg.active()) {
            if (!was_unclean && op->old_version == 0) pg.objects.add_clean();
            std::vector<pg::Location> superfluous;
            for (const pg::Location& place : old_places) {
                const auto& current = pg.activation.current_set;
                if (std::find(current.begin(), current.end(), place.osd) == current.end()) superfluous.push_back(place);
            }
            if (op->pool->info.immediate_commit != wire::ImmediateCommit::all && (rewrite || !superfluous.empty())) {
                // Whole copies were written: until a SYNC has made them durable the object counts as misplaced, and superfluous copies stay. A clean
                // PG forgets who has had what, and one of its OSDs alone would serve what it had before it lost power.
                if (superfluous.empty()) pg.extras.push_back({0, {op->object, op->version}, next_sequence_++});
                std::vector<pg::Location> where = superfluous;
                for (pg::Location& place : where) {
                    place.flags |= wire::DescribeItem::kOutdated;
                    pg.extras.push_back({place.osd, {op->object, op->version}, next_sequence_++});
                }
                for (OsdNum osd : pg.activation.current_set) {
                    if (osd) where.push_back({0, 0, osd});
                }
                pg.objects.set_unclean(op->object, wire::object_state::misplaced, where, op->version);
                pg.objects.set_awaits_sync(op->object);
                unsynced_pgs_.insert(pg.id);
            } else {
                VITASTOR_ASSERT(op->calls == nullptr);
                op->pending = 1;
                for (const pg::Location& place : superfluous) {
                    SubCall* call = new_call(op, place.osd, Opcode::sec_delete);
                    wire::SubDeleteRequest message{op->object, op->version, wire::sub_flags::recovery};
                    wire::encode_request(wire::HeaderBytes(call->request), {0, Opcode::sec_delete}, message);
                    send_call(call, peers_->get(place.osd));
                }
                if (!superfluous.empty()) {
                    StoreAwait own;
                    for (const pg::Location& place : superfluous) {
                        if (place.osd != osd_num_) continue;
                        own.op = store::StoreOp::del;
                        own.object = op->object;
                        own.version = op->version;
                        store_.submit(own);
                        int64_t own_result = co_await own;
                        if (own_result < 0) log(logger_, LogLevel::error, "own superfluous copy could not be deleted");
                    }
                }
                if (--op->pending > 0) {
                    Parts deletes{op};
                    co_await deletes;
                }
                for (SubCall* call = op->calls; call; call = call->next) {
                    if (call->result >= 0 || call->lost || keeps_connection(call->result)) continue;
                    if (peers_->get(call->osd)) peers_->reset(call->osd, "SEC_DELETE failed");
                }
                free_calls(op);
                if (pg.active() && undecided) pg.objects.set_unclean(op->object, old_state, old_places, op->version);
                if (pg.active() && rewrite) pg.objects.set_clean(op->object);
                if (pg.active() && !was_unclean) keep_marks(op);
            }
            note_unsynced(op, len == block_size_);  // last: a SYNC that begins here covers all of it
            if (pg.active()) update_state(pg);
        }
        if (result == 0) result = op->len;
    }
    bool recovery = op->recovery;
    if (recovery) {
        recovery_ended(op, result >= 0, (old_state & wire::object_state::degraded) != 0);
        co_return;
    }
    leave_queue(op);
    if (pg.gate) {
        runtime::spawn(finish_gated(op, result));
        co_return;
    }
    answer(op, result, wire::WriteReply{result < 0 ? 0 : op->version});
}

}  // namespace vitastor::serve

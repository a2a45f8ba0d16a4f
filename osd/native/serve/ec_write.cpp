// SPDX-License-Identifier: GPL-2.0-or-later
// WRITE to erasure-coded objects, and their recovery (a write of length 0): read what parity needs, compute, store a new version
// on every role of the current set, then stabilise it. No write hole: peering rolls a version that k roles have forward, any other
// one back. Source: semantics 3.2, 8, 9; safety 5, 10; docs/adr/0045.
#include <algorithm>
#include <cinttypes>
#include <cstring>

#include "serve/answer.hpp"

namespace vitastor::serve {

using erasure::View;
using erasure::WriteRequest;
using store::StoreOp;
using wire::Opcode;

namespace {
constexpr size_t kComputeSlice = 256 << 10;  ///< bytes between two yields
}

/// Fills EcWork::known_bitmaps if the row of the clean object is known in this version, and all holders may be told so.
bool Osd::find_row(const Op* op, Version version) {
    const Pg& pg = *op->pg;
    EcWork& work = *op->ec;
    if (!settings_.ec_short_writes || !pg.peers_take_base || work.long_way || op->recovery) return false;
    const RowCache::Row* row = rows_.find(op->object, version, pg.activated);
    if (!row) return false;
    std::memcpy(work.known_bitmaps, row->bitmaps, size_t{work.shape.data} * work.shape.bitmap_bytes());
    return work.known = true;
}

/// Plans the write and reads what it needs. 0: op->old_version is set, the plan holds; or the error for the client.
runtime::Task<int64_t> Osd::read_old_chunks(Op* op) {
    Pg& pg = *op->pg;
    EcWork& work = *op->ec;
    uint8_t* payload = op->request && op->len ? op->request->data() : nullptr;
    bool mixed_before = false;
    if (!work.long_way) work.bad.clear();
    for (;;) {
        if (!pg.active()) co_return -EPIPE;
        pg::UncleanObject* unclean = pg.objects.find(op->object);
        Version expected = unclean ? unclean->target : 0;
        locate_chunks(pg, op->object, work);
        WriteRequest request{.offset = op->offset, .len = op->len, .readable = work.readable, .writable = work.writable,
                             .rebuild = work.rebuild, .own = work.own};
        work.known = false;
        if (!unclean && work.bad.empty() && pg.own_role != erasure::kRolesMax) {
            // A clean object has every version on every role.
            const ObjectId own{op->object.inode, op->object.stripe | pg.own_role};
            const Version newest = store_.peek(own, kNewestVersion, op->bitmap);
            request.absent = newest == 0;
            if (newest && find_row(op, newest)) {
                expected = newest;
                request.bitmaps_known = true;
                request.takes_difference = work.shape.parity_roles();
            }
        }
        const int planned = plan_write(work.shape, request, work.plan);
        if (planned < 0) co_return planned;
        if (work.plan.reads.empty()) {
            prepare_buffers(work);
            op->old_version = expected;
            co_return 0;
        }
        read_chunks(work, op->object, expected ? expected : kNewestVersion, payload,
                    op->recovery ? wire::sub_flags::recovery : 0);
        ChunkCalls calls{work};
        co_await calls;
        const ReadVerdict verdict = judge_reads(work, expected, &op->old_version);
        switch (verdict) {
            case ReadVerdict::good:
                co_return 0;
            case ReadVerdict::absent:
                op->old_version = 0;
                co_return 0;
            case ReadVerdict::again:
                VITASTOR_PROBE("chunk unreadable for a write");
                break;
            case ReadVerdict::mixed:
                if (mixed_before) {
                    if (pg.active()) disturb(pg);
                    co_return -EPIPE;
                }
                mixed_before = true;
                break;
            case ReadVerdict::lost:
                co_return -EPIPE;
        }
    }
}

/// A new object takes the places of the tombstones, and does not count before k roles have it: in mode none the delete is durable on all
/// roles first. Or one that loses power has the old chunk again, too few others do, and nobody knows of the delete. 0 or the error of SYNC.
runtime::Task<int64_t> Osd::settle_tombstone(const Pg& pg) {
    if (pg.pool->info.immediate_commit != wire::ImmediateCommit::none || pg.deleted_at <= synced_up_to_) co_return 0;
    VITASTOR_PROBE("a delete is flushed before its object is created again");
    runtime::Task<int64_t> syncing = sync_all(true);
    const int64_t synced = co_await syncing;
    co_return synced;
}

/// Phase 1: every role of the current set gets the new version, with its bitmap.
void Osd::write_chunks(Op* op) {
    Pg& pg = *op->pg;
    EcWork& work = *op->ec;
    const uint8_t* payload = op->request && op->len ? op->request->data() : nullptr;
    const auto& current = pg.activation.current_set;
    work.used = 0;
    work.iov.clear();
    for (const erasure::ChunkRange& store : work.plan.stores) {
        ChunkCall& chunk = new_chunk(work, store.role, current[store.role], Opcode::sec_write);
        chunk.len = store.len;
        chunk.first_iov = work.iov.size();
        if (store.len) append_pieces(work.plan, store.role, store.offset, store.len, View::after, payload, work.scratch.data(), work.iov);
        chunk.iov_count = work.iov.size() - chunk.first_iov;
        VITASTOR_ASSERT(chunk.iov_count < net::Call::kMaxPayloadIov);
    }
    work.pending++;
    for (size_t i = 0; i < work.used; i++) {
        ChunkCall& chunk = *work.calls[i];
        const ObjectId part{op->object.inode, op->object.stripe | chunk.role};
        const iovec* iov = chunk.iov_count ? &work.iov[chunk.first_iov] : nullptr;
        if (chunk.osd == osd_num_) {
            chunk.local.offset = work.plan.stores[i].offset;
            chunk.local.len = chunk.len;
            chunk.local.iov = iov;
            chunk.local.iov_count = static_cast<int>(chunk.iov_count);
            chunk.local.bitmap = work.bitmap(chunk.role);
            chunk.local.settles = work.settles ? op->old_version : 0;
            submit_chunk(chunk, StoreOp::write, part, op->version);
            continue;
        }
        wire::SubRequest message;
        message.object = part;
        message.version = op->version;
        message.offset = work.plan.stores[i].offset;
        message.len = chunk.len;
        message.attr_len = bitmap_bytes_;
        message.flags = op->recovery ? wire::sub_flags::recovery : 0;
        if (work.known) {
            message.flags |= wire::sub_flags::based;
            if (work.settles) message.flags |= wire::sub_flags::settles;
            message.base = op->old_version;
        }
        if (work.plan.differences.has(chunk.role)) message.flags |= wire::sub_flags::difference;
        wire::encode_request(wire::HeaderBytes(chunk.remote.request), {0, Opcode::sec_write}, message);
        chunk.remote.payload[chunk.remote.payload_count++] = {work.bitmap(chunk.role), bitmap_bytes_};
        for (size_t piece = 0; piece < chunk.iov_count; piece++) chunk.remote.payload[chunk.remote.payload_count++] = iov[piece];
        send_chunk(chunk);
    }
    chunk_done(work);
}

/// 0, or the error for the client: what was stored on some roles only is rolled back, or the PG re-peers. -EAGAIN: rolled back, and
/// to be done once more without what was thought to be known; EcWork::bad are the chunks that refused.
runtime::Task<int64_t> Osd::judge_stores(Op* op) {
    Pg& pg = *op->pg;
    EcWork& work = *op->ec;
    int64_t error = 0;
    bool lost = false, again = work.known;
    std::vector<EcWork::Bad> refused;
    for (auto& item : work.round()) {
        ChunkCall& chunk = *item;
        const bool own = chunk.osd == osd_num_;
        if (chunk.result >= 0 && chunk.version != op->version) chunk.result = -ERANGE;
        if (chunk.result >= 0) continue;
        again &= !own && (chunk.result == -ERANGE || chunk.result == -EDOM);
        if (again) {
            const uint32_t flag = chunk.result == -EDOM ? wire::DescribeItem::kCorrupted : wire::DescribeItem::kOutdated;
            refused.push_back({chunk.role, flag, chunk.osd});
        }
        if (error == 0 || chunk.result == -ENOSPC) error = chunk.result;
        // Something is there that was not listed: peering must look again.
        if (chunk.lost || chunk.result == -EEXIST || (!own && !keeps_connection(chunk.result))) lost = true;
        if (!own && !chunk.lost && !keeps_connection(chunk.result) && peers_->get(chunk.osd)) {
            peers_->reset(chunk.osd, "SEC_WRITE failed with error " + std::to_string(chunk.result));
        }
    }
    if (error == 0) co_return 0;
    if (lost || !pg.active()) {
        if (pg.active()) disturb(pg);
        co_return -EPIPE;
    }
    VITASTOR_PROBE("write failed on some chunks only");
    if (find_unstable(op->object)) {
        runtime::Task<int64_t> settling = settle_object(op);
        const int64_t settled = co_await settling;
        if (settled < 0) co_return -EPIPE;
    }
    log(logger_, LogLevel::warning, "write of object %" PRIx64 ":%" PRIx64 " failed with error %d: rolling it back", op->object.inode,
        op->object.stripe, static_cast<int>(-error));
    work.targets.clear();
    for (auto& item : work.round()) {
        if (item->result >= 0) work.targets.push_back({item->role, 0, item->osd});
    }
    // A new object has taken the place of its tombstone: that comes back. Here as well: the next attempt must lie above it.
    const bool bury = work.buried && pg.tombstones;
    const bool own = std::any_of(work.targets.begin(), work.targets.end(), [this](const auto& place) { return place.osd == osd_num_; });
    if (bury && !own) work.targets.push_back({pg.self_in_set ? pg.own_role : 0, 0, osd_num_});
    change_chunks(work, Opcode::sec_rollback, op->object, bury ? op->version : op->old_version,
                  bury ? wire::sub_flags::tombstone : 0);
    ChunkCalls calls{work};
    co_await calls;
    if (judge_changes(work) < 0 && pg.active()) disturb(pg);
    if (pg.pool->info.immediate_commit == wire::ImmediateCommit::none) {
        // The next write has the same version: what was rolled back must not come back beside it when an OSD loses power.
        for (size_t i = 0; i < work.targets.size() && pg.active(); i++) {
            runtime::Task<int64_t> syncing = sync_on(work.targets[i].osd);
            const int64_t synced = co_await syncing;
            if (synced < 0 && pg.active()) disturb(pg);
        }
    }
    if (!pg.active()) co_return -EPIPE;
    if (!again) co_return error;
    VITASTOR_PROBE("a chunk was not what its primary knew");
    work.bad = std::move(refused);
    co_return -EAGAIN;
}

/// All roles of the current set have the new version: what the PG knows of the object. Returns the chunks that lie elsewhere; if the new
/// ones are not durable, they go after a SYNC, and the object that was not clean waits for it: a clean PG forgets who has had what, and k
/// of its OSDs would go by what they had before they lost power.
std::vector<pg::Location> Osd::note_stored(Op* op, bool was_unclean, bool durable) {
    Pg& pg = *op->pg;
    if (!was_unclean) {
        if (op->old_version == 0) pg.objects.add_clean();
        return {};
    }
    const auto& current = pg.activation.current_set;
    const pg::UncleanObject* unclean = pg.objects.find(op->object);
    if (!unclean) return {};  // a SYNC that ended meanwhile has deleted what was superfluous
    const pg::LocationSet& before = *unclean->set;
    if (before.state == wire::object_state::inconsistent && op->len < op->pool->object_span()) {
        // Chunks that do not fit together do so no better around the new bytes.
        const std::vector<pg::Location> same = before.where;
        pg.objects.set_unclean(op->object, wire::object_state::inconsistent, same, op->version);
        return {};
    }
    std::vector<pg::Location> superfluous;
    for (const pg::Location& place : before.where) {
        if (place.role >= current.size() || current[place.role] != place.osd) {
            superfluous.push_back({place.role, place.flags | wire::DescribeItem::kOutdated, place.osd});
        }
    }
    if (durable && superfluous.empty()) {
        pg.objects.set_clean(op->object);
    } else {
        std::vector<pg::Location> where = superfluous;
        for (uint32_t role = 0; role < current.size(); role++) {
            if (current[role]) where.push_back({role, 0, current[role]});
        }
        pg.objects.set_unclean(op->object, wire::object_state::misplaced, where, op->version);
    }
    if (!durable) {
        if (superfluous.empty()) pg.extras.push_back({0, {op->object, op->version}, next_sequence_++});
        for (const pg::Location& place : superfluous) {
            pg.extras.push_back({place.osd, {{op->object.inode, op->object.stripe | place.role}, op->version}, next_sequence_++});
        }
        pg.objects.set_awaits_sync(op->object);
    }
    update_state(pg);
    return superfluous;
}

runtime::Task<> Osd::write_ec(Op* op) {
    Pg& pg = *op->pg;
    const pg::UncleanObject* before = pg.objects.find(op->object);
    const uint32_t old_state = before ? before->set->state : 0;
    if (op->recovery && !before) {  // somebody else has repaired it
        skip_recovery(op);
        co_return;
    }
    if (!op->ec) op->ec = new_ec(*op->pool);
    EcWork& work = *op->ec;
    runtime::Task<int64_t> reading = read_old_chunks(op);
    int64_t result = co_await reading;
    if (result >= 0 && op->message.version && op->request && op->old_version != op->message.version - 1) {
        leave_queue(op);
        answer(op, -EINTR, wire::WriteReply{op->old_version});
        co_return;
    }
    if (result >= 0 && !pg.active()) result = -EPIPE;
    if (result < 0) {
        finish_ec_write(op, result, old_state);
        co_return;
    }
    const Version buried = op->old_version ? 0 : buried_version(pg, op->object);
    work.buried = buried != 0;
    op->version = pg::next_version(std::max(op->old_version, buried), pg.epoch);
    if (need_history(op)) {
        wait_history(op);  // starts again from the beginning
        co_return;
    }
    if (buried) {
        runtime::Task<int64_t> settling = settle_tombstone(pg);
        result = co_await settling;
        if (result < 0) {
            finish_ec_write(op, result, old_state);
            co_return;
        }
    }
    const uint8_t* payload = op->request && op->len ? op->request->data() : nullptr;
    const size_t data_bitmaps = size_t{work.shape.data} * work.shape.bitmap_bytes();
    if (work.known) std::memcpy(work.bitmaps.data(), work.known_bitmaps, data_bitmaps);
    work.stripe.start(*work.codec, work.plan, payload, work.scratch.data());
    while (!work.stripe.step(kComputeSlice)) {
        Slices::Turn turn(slices_);
        co_await turn;
    }
    work.stripe.finish_bitmaps(work.bitmaps.data());
    if (!pg.active()) {
        finish_ec_write(op, -EPIPE, old_state);
        co_return;
    }
    const bool was_unclean = pg.objects.find(op->object) != nullptr;
    // ---- phase 1. Readers take the old version until all roles have the new one, or it is rolled back.
    op->queue->overridden = true;
    op->queue->read_version = op->old_version;
    changes_of(op->object)++;
    rows_.forget(op->object);
    work.settles = work.known && pg.peers_settle && waits_for_stable(op->object, op->old_version);
    write_chunks(op);
    {
        ChunkCalls calls{work};
        co_await calls;
    }
    runtime::Task<int64_t> judging = judge_stores(op);
    result = co_await judging;
    changes_of(op->object)++;
    if (result == 0 && !pg.active()) result = -EPIPE;  // peering finds the new version on all roles
    if (result == -EAGAIN) {
        op->queue->overridden = false;
        work.long_way = true;
        runtime::spawn(write_ec(op));
        co_return;
    }
    if (result < 0) {
        finish_ec_write(op, result, old_state);
        co_return;
    }
    op->queue->overridden = false;
    if (work.settles) settled_by_write(op);
    rows_.set(op->object, op->version, pg.activated, work.bitmaps.data(), data_bitmaps);
    // ---- phase 2: now, later (safety 7), or after a SYNC
    const bool whole = std::any_of(work.plan.stores.begin(), work.plan.stores.end(), [&](const auto& s) { return s.len == block_size_; });
    const wire::ImmediateCommit mode = op->pool->info.immediate_commit;
    const UnstableObject* known = find_unstable(op->object);
    const bool durable = mode == wire::ImmediateCommit::all ||
                         (mode == wire::ImmediateCommit::small && !whole && !(known && known->unsynced));
    const std::vector<pg::Location> superfluous = note_stored(op, was_unclean, durable);
    if (!durable) {
        add_unsynced(op);
        note_unsynced(op, true);  // last: a SYNC that begins here covers all of it
        finish_ec_write(op, op->len, old_state);
        co_return;
    }
    if (superfluous.empty() && !op->recovery && may_reply_early(op) && add_unstable(op)) {
        finish_ec_write(op, op->len, old_state);
        co_return;
    }
    runtime::Task<int64_t> stabilizing = stabilize_stored(op, !superfluous.empty() || op->recovery);
    result = co_await stabilizing;
    if (result < 0) {
        finish_ec_write(op, -EPIPE, old_state);
        co_return;
    }
    // ---- chunks that lie elsewhere
    if (!superfluous.empty() && pg.active()) {
        work.targets = superfluous;
        change_chunks(work, Opcode::sec_delete, op->object, op->version, wire::sub_flags::recovery);
        ChunkCalls calls{work};
        co_await calls;
        const int64_t deleted = judge_changes(work);
        if (deleted < 0) log(logger_, LogLevel::warning, "a superfluous chunk could not be deleted (error %d)", static_cast<int>(-deleted));
        if (pg.active()) {
            pg.objects.set_clean(op->object);
            update_state(pg);
        }
    }
    finish_ec_write(op, op->len, old_state);
}

/// The stored version becomes stable before the reply. keeps_queue: the operation has more to do with the object.
runtime::Task<int64_t> Osd::stabilize_stored(Op* op, bool keeps_queue) {
    Pg& pg = *op->pg;
    EcWork& work = *op->ec;
    if (UnstableObject* entry = find_unstable(op->object)) {  // with the others, in order
        want_stable(*entry, op->version, 0);
        runtime::Task<int64_t> settling = settle_object(op);
        const int64_t settled = co_await settling;
        co_return settled;
    }
    work.targets.clear();
    for (auto& item : work.round()) work.targets.push_back({item->role, 0, item->osd});
    change_chunks(work, Opcode::sec_stabilize, op->object, op->version, op->recovery ? wire::sub_flags::recovery : 0);
    if (!keeps_queue) leave_queue(op);  // the next write's chunks leave after this
    ChunkCalls calls{work};
    co_await calls;
    const int64_t result = judge_changes(work);
    if (result < 0 && pg.active()) disturb(pg);
    co_return result;
}

/// The end of every write: its turn in the queue, then the answer, or the accounts of recovery.
void Osd::finish_ec_write(Op* op, int64_t result, uint32_t old_state) {
    Pg& pg = *op->pg;
    if (op->recovery) return recovery_ended(op, result >= 0, (old_state & wire::object_state::degraded) != 0);
    leave_queue(op);
    if (pg.gate) return runtime::spawn(finish_gated(op, result));
    answer(op, result, wire::WriteReply{result < 0 ? 0 : op->version});
}

}  // namespace vitastor::serve

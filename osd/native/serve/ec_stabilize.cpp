// SPDX-License-Identifier: GPL-2.0-or-later
// Versions of erasure-coded objects that all roles have and that are not stable yet. Writes that may be answered before their
// version is stable leave it here; so do writes that wait for a SYNC. The next write of the object makes it stable along with
// itself (sub_flags::settles); what is not written again, one coroutine an OSD stabilises in batches, one SEC_STABILIZE per OSD for
// many objects of many PGs. What is lost with a PG that re-peers is found again by its peering.
// Bounds: kUnstableMax objects, kVersionsMax versions of one, kDelayNs of waiting. Source: semantics 2.3, 3.2.4; safety 7.
#include <algorithm>

#include "serve/answer.hpp"

namespace vitastor::serve {

using wire::Opcode;

namespace {
constexpr size_t kUnstableMax = 2048;    ///< objects; beyond it a write waits until its version is stable
constexpr uint32_t kVersionsMax = 8;     ///< versions of one object that are not stable
constexpr size_t kManyObjects = 1024;    ///< from so many on the oldest go without delay
constexpr uint64_t kManyBytes = 16 << 20;  ///< and from so much data in one chunk of each: older versions keep their room
constexpr size_t kBatchMax = 256;        ///< objects sent together
/// An object that is written again within this time needs no message of its own: its next write takes it along.
constexpr uint64_t kDelayNs = 100 * runtime::kNsPerMs;
constexpr uint64_t kLocalDelayNs = 10 * runtime::kNsPerMs;  ///< pools with local reads: holders refuse what is not stable
constexpr uint64_t kSlackNs = 25 * runtime::kNsPerMs;  ///< whatever is due so soon goes along
}  // namespace

/// All roles answer before a version is stable: peering of any member would roll it forward. Source: safety 7.
bool Osd::may_reply_early(const Op* op) const {
    return settings_.ec_early_reply && op->pg->peers_stabilize_late && op->version >> 16 <= op->pg->confirmed_epoch;
}

UnstableObject* Osd::find_unstable(const ObjectId& object) {
    UnstableObject* entry = unstable_[ObjectIdHash{}(object) % unstable_.size()];
    while (entry && entry->object != object) entry = entry->next_in_bucket;
    return entry;
}

UnstableObject& Osd::get_unstable(Pg& pg, const ObjectId& object) {
    if (UnstableObject* entry = find_unstable(object)) return *entry;
    UnstableObject* entry = unstable_pool_.get();
    entry->object = object;
    entry->pg = &pg;
    entry->unsynced = entry->syncing = entry->wanted = entry->sending = 0;
    entry->due_ns = entry->bytes = entry->unsynced_bytes = 0;
    entry->versions = 0;
    entry->dropped = entry->awaited = false;
    UnstableObject** bucket = &unstable_[ObjectIdHash{}(object) % unstable_.size()];
    entry->next_in_bucket = *bucket;
    *bucket = entry;
    unstable_list_.push_back(entry);
    unstable_count_++;
    pg.unstable++;
    return *entry;
}

void Osd::free_unstable(UnstableObject* entry) {
    UnstableObject** link = &unstable_[ObjectIdHash{}(entry->object) % unstable_.size()];
    while (*link != entry) link = &(*link)->next_in_bucket;
    *link = entry->next_in_bucket;
    entry->unlink();
    unstable_count_--;
    unwant_stable(*entry);
    if (entry->awaited) awaited_count_--;
    entry->pg->unstable--;
    unstable_pool_.put(entry);
}

namespace {
uint64_t chunk_bytes(const Op& op) {
    uint64_t most = 0;
    for (const erasure::ChunkRange& store : op.ec->plan.stores) most = std::max<uint64_t>(most, store.len);
    return most;
}
}  // namespace

/// All roles have the version, not durably: a SYNC comes first.
void Osd::add_unsynced(Op* op) {
    UnstableObject& entry = get_unstable(*op->pg, op->object);
    entry.unsynced = op->version;
    entry.unsynced_bytes += chunk_bytes(*op);
    if (unstable_count_ > kUnstableMax && !autosync_queued_) {
        autosync_queued_ = true;
        runtime::spawn(autosync());
    }
}

/// All roles have the version durably. false: the write has to wait until it is stable.
bool Osd::add_unstable(Op* op) {
    const bool known = find_unstable(op->object) != nullptr;
    if (!known && unstable_count_ >= kUnstableMax) return false;
    UnstableObject& entry = get_unstable(*op->pg, op->object);
    want_stable(entry, op->version, chunk_bytes(*op));
    return ++entry.versions <= kVersionsMax;
}

void Osd::want_stable(UnstableObject& entry, Version version, uint64_t bytes) {
    if (entry.wanted == 0) {
        wanted_count_++;
        entry.due_ns = loop_.now_ns() + (entry.pg->pool->info.local_reads ? kLocalDelayNs : kDelayNs);
        entry.unlink();
        unstable_list_.push_back(&entry);
    }
    entry.wanted = std::max(entry.wanted, version);
    entry.bytes += bytes;
    wanted_bytes_ += bytes;
    if (stabilizing_) return;
    const bool now = are_many_unstable();
    const uint64_t due_ns = now ? loop_.now_ns() : entry.due_ns;
    if (stabilize_timer_.armed() && stabilize_due_ns_ <= due_ns) return;
    arm_stabilizer(due_ns);
}

void Osd::arm_stabilizer(uint64_t due_ns) {
    loop_.disarm(stabilize_timer_);
    stabilize_due_ns_ = due_ns;
    loop_.arm(stabilize_timer_, due_ns);
}

void Osd::unwant_stable(UnstableObject& entry) {
    if (entry.wanted == 0) return;
    entry.wanted = 0;
    wanted_bytes_ -= std::exchange(entry.bytes, 0);
    wanted_count_--;
}

/// The version is the newest that is to be stabilised of the object, and not on its way: a write of the object may do it.
bool Osd::waits_for_stable(const ObjectId& object, Version version) {
    const UnstableObject* entry = find_unstable(object);
    return entry && entry->wanted == version && entry->sending == 0 && !entry->awaited;
}

/// op->old_version has become stable on all roles, along with the write.
void Osd::settled_by_write(const Op* op) {
    UnstableObject* entry = find_unstable(op->object);
    if (!entry || entry->wanted != op->old_version || entry->awaited) return;
    unwant_stable(*entry);
    entry->versions = 0;
}

bool Osd::are_many_unstable() const { return wanted_count_ >= kManyObjects || wanted_bytes_ >= kManyBytes; }

/// Takes the timer's turn, or begins at once.
void Osd::stabilize_now() {
    if (stabilizing_ || wanted_count_ == 0) return;
    stabilizing_ = true;
    loop_.disarm(stabilize_timer_);
    runtime::spawn(run_stabilizer());
}

/// Takes the oldest objects, those that are due if nothing presses, and adds their chunks to the batch of each OSD. When the next
/// one is due.
uint64_t Osd::collect_batch() {
    for (StabilizeBatch& batch : batches_) batch.triples.clear();
    sending_.clear();
    const bool all = stabilize_waits_ > 0 || are_many_unstable();
    const uint64_t now = loop_.now_ns();
    uint64_t next_ns = now + kDelayNs;
    for (UnstableObject* entry = unstable_list_.front(); entry; entry = unstable_list_.next(entry)) {
        if (entry->wanted == 0 || entry->sending) continue;
        if (sending_.size() == kBatchMax) return now;
        if (!all && entry->due_ns > now + kSlackNs) {
            next_ns = std::min(next_ns, entry->due_ns);
            continue;
        }
        entry->sending = entry->wanted;
        unwant_stable(*entry);
        entry->versions = 0;
        entry->pg->running++;
        sending_.push_back(entry);
        const auto& current = entry->pg->activation.current_set;
        for (uint32_t role = 0; role < current.size(); role++) {
            if (current[role] == 0) continue;
            auto batch = std::find_if(batches_.begin(), batches_.end(), [&](const auto& b) { return b.osd == current[role]; });
            if (batch == batches_.end()) {
                batches_.push_back({current[role], {}, {}});
                batch = batches_.end() - 1;
            }
            batch->triples.push_back({{entry->object.inode, entry->object.stripe | role}, entry->sending});
        }
    }
    return next_ns;
}

void Osd::send_batch(EcWork& work) {
    work.used = 0;
    work.pending++;
    for (StabilizeBatch& batch : batches_) {
        if (batch.triples.empty()) continue;
        if (batch.osd == osd_num_) {
            for (const ObjectVersion& what : batch.triples) {
                ChunkCall& chunk = new_chunk(work, static_cast<uint32_t>(what.object.stripe & kRoleMask), osd_num_, Opcode::sec_stabilize);
                chunk.local.offset = chunk.local.len = 0;
                chunk.local.iov = nullptr;
                chunk.local.iov_count = 0;
                chunk.local.bitmap = nullptr;
                submit_chunk(chunk, store::StoreOp::stabilize, what.object, what.version);
            }
            continue;
        }
        batch.bytes.resize(batch.triples.size() * wire::kTripleSize);
        wire::encode_triples(batch.bytes, batch.triples);
        ChunkCall& chunk = new_chunk(work, 0, batch.osd, Opcode::sec_stabilize);
        wire::encode_request(wire::HeaderBytes(chunk.remote.request), {0, Opcode::sec_stabilize}, wire::TripleRequest{batch.bytes.size(), 0});
        chunk.remote.payload[chunk.remote.payload_count++] = {batch.bytes.data(), batch.bytes.size()};
        send_chunk(chunk);
    }
    chunk_done(work);
}

runtime::Task<> Osd::run_stabilizer() {
    busy_++;
    EcWork* work = ec_works_.get();
    work->osd = this;
    work->pending = 0;
    work->waiter = nullptr;
    uint64_t next_ns = 0;
    while (wanted_count_ > 0) {
        next_ns = collect_batch();
        if (sending_.empty()) break;
        send_batch(*work);
        ChunkCalls calls{*work};
        co_await calls;
        judge_changes(*work);
        for (auto& chunk : work->round()) {
            if (chunk->result >= 0) continue;
            VITASTOR_PROBE("late stabilisation failed");
            for (UnstableObject* entry : sending_) {  // their PGs re-peer: peering does what is left
                const auto& current = entry->pg->activation.current_set;
                if (entry->dropped || std::find(current.begin(), current.end(), chunk->osd) == current.end()) continue;
                if (entry->pg->active()) disturb(*entry->pg);
                drop_unstable(*entry->pg);
            }
        }
        for (UnstableObject* entry : sending_) {
            Pg* pg = entry->pg;
            entry->sending = 0;
            if (entry->awaited && entry->wanted == 0) {
                entry->awaited = false;
                awaited_count_--;
            }
            if (entry->dropped || (entry->wanted == 0 && entry->unsynced == 0)) free_unstable(entry);
            release(*pg);
        }
        sending_.clear();
        stable_waiters_.notify_all();
    }
    free_ec(work);
    stabilizing_ = false;
    if (wanted_count_ > 0 && !shut_) arm_stabilizer(next_ns);
    busy_--;
}

/// The PG re-peers or goes: what was not sent is forgotten.
void Osd::drop_unstable(Pg& pg) {
    if (pg.unstable == 0) return;
    for (UnstableObject *entry = unstable_list_.front(), *next = nullptr; entry; entry = next) {
        next = unstable_list_.next(entry);
        if (entry->pg != &pg) continue;
        if (entry->sending == 0) {
            free_unstable(entry);
            continue;
        }
        entry->dropped = true;
        unwant_stable(*entry);
        if (std::exchange(entry->awaited, false)) awaited_count_--;
        entry->unsynced = entry->syncing = 0;
    }
    stable_waiters_.notify_all();
}

/// What is wanted goes at once; back when a batch has ended, or at once when none could begin.
runtime::Task<> Osd::await_stabilizer() {
    stabilize_waits_++;
    stabilize_now();
    if (stabilizing_) {
        runtime::WaitList::Waiter waiter = stable_waiters_.wait();
        co_await waiter;
    }
    stabilize_waits_--;
}

/// The object has no version that waits to be stabilised; called in its queue. -EPIPE: the PG re-peers.
runtime::Task<int64_t> Osd::settle_object(Op* op) {
    const ObjectId object = op->object;
    for (;;) {
        UnstableObject* entry = find_unstable(object);
        if (!entry || (entry->wanted == 0 && entry->sending == 0)) co_return op->pg->active() ? 0 : -EPIPE;
        if (!op->pg->active()) co_return -EPIPE;
        runtime::Task<> batch = await_stabilizer();
        co_await batch;
    }
}

/// Before DELETE: what is durable becomes stable; what waits for a SYNC is forgotten, no SYNC may bring it up again.
runtime::Task<int64_t> Osd::settle_for_delete(Op* op) {
    if (UnstableObject* entry = find_unstable(op->object)) {
        entry->unsynced = entry->syncing = 0;
        if (entry->wanted == 0 && entry->sending == 0) free_unstable(entry);
    }
    runtime::Task<int64_t> settling = settle_object(op);
    const int64_t settled = co_await settling;
    co_return settled;
}

/// The PG serves no more: what waits for a SYNC is forgotten, its clients repeat it. A SYNC does not ask members that such a PG has lost.
void Osd::forget_unsynced(Pg& pg) {
    if (pg.unstable == 0) return;
    for (UnstableObject *entry = unstable_list_.front(), *next = nullptr; entry; entry = next) {
        next = unstable_list_.next(entry);
        if (entry->pg != &pg) continue;
        entry->unsynced = entry->syncing = 0;
        if (entry->wanted == 0 && entry->sending == 0) free_unstable(entry);
    }
}

/// The PG stops: what is durable becomes stable.
runtime::Task<> Osd::settle_pg(Pg& pg) {
    while (pg.unstable > 0) {
        if (pg.silent) drop_unstable(pg);
        runtime::Task<> batch = await_stabilizer();
        co_await batch;
    }
}

// ------------------------------------------------------------------ SYNC

/// A SYNC begins: what it will cover.
void Osd::begin_sync_unstable() {
    for (UnstableObject* entry = unstable_list_.front(); entry; entry = unstable_list_.next(entry)) entry->syncing = entry->unsynced;
}

/// The SYNC has ended. Success: what it covered is durable on all roles. Waits until that is stable where the reply has to.
runtime::Task<> Osd::end_sync_unstable(bool success) {
    for (UnstableObject *entry = unstable_list_.front(), *next = nullptr; entry; entry = next) {
        next = unstable_list_.next(entry);
        const Version covered = std::exchange(entry->syncing, 0);
        if (!success || covered == 0) continue;
        if (entry->unsynced == covered) entry->unsynced = 0;
        want_stable(*entry, covered, std::exchange(entry->unsynced_bytes, 0));
        const bool wait = !settings_.ec_early_reply || !entry->pg->peers_stabilize_late || !entry->pg->extras.empty();
        if (wait && !entry->awaited) {
            entry->awaited = true;
            awaited_count_++;
        }
    }
    while (awaited_count_ > 0) {
        runtime::Task<> batch = await_stabilizer();
        co_await batch;
    }
}

}  // namespace vitastor::serve

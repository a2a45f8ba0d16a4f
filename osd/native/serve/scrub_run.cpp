// SPDX-License-Identifier: GPL-2.0-or-later
// Scrub of whole PGs: control says which ones are due, one after the other goes through its objects. Objects come from the own
// listing, scrub_list_limit at a time; scrub_queue_depth of them are read at once, with scrub_sleep between. A PG that re-peers goes
// on where it was when control asks again. Source: semantics 12.1.
#include <algorithm>

#include "serve/answer.hpp"

namespace vitastor::serve {

using runtime::kNsPerMs;

namespace {
constexpr int kScrubStartsPerTurn = 16;
constexpr size_t kScrubListSlice = 8192;
}  // namespace

void Osd::scrub_pg(const PgId& id, uint64_t interval) {
    auto it = pgs_.find(id);
    if (it == pgs_.end() || it->second->interval != interval || !it->second->active()) return;
    it->second->scrub_wanted = true;
    wake_scrub();
}

void Osd::wake_scrub() {
    if (shut_ || stopping_ || scrub_.kick.linked()) return;
    loop_.defer(scrub_.kick);
}

/// What was not finished comes again.
void Osd::keep_scrub_cursor(Pg& pg) {
    if (!scrub_.chosen || scrub_.pg != pg.id || scrub_.batch.empty()) return;
    const size_t finished = scrub_.next - std::min<size_t>(scrub_.next, scrub_.running);
    if (finished < scrub_.batch.size()) pg.scrub_cursor = scrub_.batch[finished];
}

/// The PG that is being scrubbed, if it still may be.
Pg* Osd::scrubbed_pg() {
    if (!scrub_.chosen) return nullptr;
    auto it = pgs_.find(scrub_.pg);
    Pg* pg = it == pgs_.end() ? nullptr : it->second.get();
    if (pg && pg->active() && pg->scrub_wanted && !settings_.no_scrub) return pg;
    if (pg) {
        keep_scrub_cursor(*pg);
        pg->flags &= ~wire::pg_state::scrubbing;
        update_state(*pg);
    }
    scrub_.forget();
    return nullptr;
}

Pg* Osd::choose_scrub() {
    if (settings_.no_scrub) return nullptr;
    auto it = pgs_.upper_bound(scrub_.pg);
    for (size_t seen = 0; seen < pgs_.size(); seen++, ++it) {
        if (it == pgs_.end()) it = pgs_.begin();
        Pg& pg = *it->second;
        if (!pg.active() || !pg.scrub_wanted) continue;
        scrub_.pg = it->first;
        scrub_.chosen = true;
        scrub_.at_end = false;
        pg.flags |= wire::pg_state::scrubbing;
        update_state(pg);
        // A lock holder that could not be told of it has disturbed the PG, which is forgotten then.
        if (scrub_.chosen) return &pg;
    }
    return nullptr;
}

runtime::Task<> Osd::list_for_scrub(Pg& pg) {
    ListAwait list;
    const PoolId pool = pg.id.pool;
    const ObjectId from = std::max(pg.scrub_cursor, ObjectId{full_inode(pool, 0), 0});
    const uint32_t limit = static_cast<uint32_t>(settings_.scrub_list_limit);
    list.range = {pool, pg.id.pg, from.inode, full_inode(pool, (1ull << kPoolShift) - 1), from.stripe, UINT64_MAX, limit};
    const uint64_t serial = scrub_.serial;
    runtime::Task<int64_t> walking = list_store(list);
    int64_t result = co_await walking;
    std::vector<ObjectId> batch;
    batch.reserve(list.listing.stable.size());
    for (size_t i = 0; i < list.listing.stable.size(); i++) {
        const ObjectId& chunk = list.listing.stable[i].object;
        const ObjectId object{chunk.inode, chunk.stripe & ~kRoleMask};
        if (batch.empty() || batch.back() != object) batch.push_back(object);
        if (i % kScrubListSlice == kScrubListSlice - 1) {
            Slices::Turn slice(background_);
            co_await slice;
        }
    }
    if (scrub_.serial == serial) scrub_.listing = false;
    if (scrub_.serial == serial && scrub_.chosen) {
        if (result < 0) {
            pg.scrub_wanted = false;  // the PGs of the pool change: control asks again
        } else {
            scrub_.at_end = list.listing.stable.size() < limit;
            if (!scrub_.at_end) {
                pg.scrub_cursor = list.listing.stable.back().object;
                pg.scrub_cursor.stripe++;
            }
            scrub_.next = 0;
            scrub_.batch = std::move(batch);
        }
    }
    release(pg);
    wake_scrub();
}

void Osd::run_scrub() {
    if (shut_ || stopping_ || fenced_) return;
    Pg* pg = scrubbed_pg();
    if (!pg) pg = choose_scrub();
    int started = 0;
    while (pg && !scrub_.listing && started < kScrubStartsPerTurn) {
        if (scrub_.next >= scrub_.batch.size()) {
            if (scrub_.running > 0) return;  // the last ones of this batch
            if (scrub_.at_end) {
                pg->scrub_wanted = false;
                pg->scrub_cursor = {};
                pg->flags &= ~wire::pg_state::scrubbing;
                scrub_.forget();
                update_state(*pg);
                events_.on_pg_scrubbed(*pg);
                pg = choose_scrub();
                continue;
            }
            scrub_.listing = true;
            pg->running++;
            return runtime::spawn(list_for_scrub(*pg));
        }
        if (scrub_.running >= settings_.scrub_queue_depth) return;
        const uint64_t now = loop_.now_ns();
        if (settings_.scrub_sleep_ms && now < scrub_.next_start_ns) {
            if (!scrub_timer_.armed()) loop_.arm(scrub_timer_, scrub_.next_start_ns);
            return;
        }
        scrub_.next_start_ns = now + settings_.scrub_sleep_ms * kNsPerMs;
        Op* op = new_op(nullptr);
        op->opcode = wire::Opcode::scrub;
        op->pool = pg->pool;
        op->object = scrub_.batch[scrub_.next++];
        op->offset = op->len = 0;
        op->message = {};
        attach_pg(op, pg);
        scrub_.running++;
        started++;
        if (enter_queue(op)) start_modification(op);
        pg = scrubbed_pg();
    }
    if (started == kScrubStartsPerTurn) wake_scrub();
}

/// An object was looked at (or could not be: the PG has stopped, and starts again at the cursor).
void Osd::scrub_ended(Op* op, int64_t) {
    scrub_.running--;
    if (settings_.scrub_sleep_ms) scrub_.next_start_ns = loop_.now_ns() + settings_.scrub_sleep_ms * kNsPerMs;
    free_op(op);
    wake_scrub();
}

}  // namespace vitastor::serve

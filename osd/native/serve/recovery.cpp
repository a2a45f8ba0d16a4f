// SPDX-License-Identifier: GPL-2.0-or-later
// Background recovery: zero-length writes to ourselves, degraded objects first. Source: semantics 9.
#include <algorithm>

#include "serve/answer.hpp"

namespace vitastor::serve {

using runtime::kNsPerSecond;

namespace {
constexpr size_t kScan = 1000;          ///< unclean objects looked at per turn
constexpr int kStartsPerTurn = 64;
constexpr uint64_t kRetryNs = 5 * kNsPerSecond;
}  // namespace

void Osd::wake_recovery() {
    if (shut_ || stopping_ || recovery_kick_.linked()) return;
    loop_.defer(recovery_kick_);
}

/// It failed: another chance, but not at the pace of the others.
void Osd::put_off_recovery(const ObjectId& object) {
    if (recovery_failed_.empty()) recovery_forget_ns_ = loop_.now_ns() + kRetryNs;
    recovery_failed_.insert(object);
}

void Osd::retry_recovery() {
    if (loop_.now_ns() >= recovery_forget_ns_) recovery_failed_.clear();
    wake_recovery();
}

bool Osd::pick_recovery(Pg& pg, bool degraded, size_t* budget, ObjectId* found) {
    if (!pg.active() || pg.objects.counts().unclean == 0) return false;
    if (!degraded && ((pg.flags & wire::pg_state::degraded) || pg.pool->info.backfillfull)) return false;
    if (degraded && pg.objects.counts().degraded == 0) return false;
    const auto& unclean = pg.objects.unclean();
    auto it = unclean.lower_bound(pg.recovery_cursor);
    for (size_t seen = 0; seen < unclean.size() && *budget > 0; seen++, ++it, --*budget) {
        if (it == unclean.end()) it = unclean.begin();
        uint32_t state = it->second.set->state;
        bool wanted = degraded ? (state & wire::object_state::degraded) != 0 : (state & wire::object_state::misplaced) != 0;
        if (!wanted || it->second.awaits_sync || recovery_failed_.contains(it->first) || find_queue(it->first)) continue;
        pg.recovery_cursor = it->first;
        *found = it->first;
        return true;
    }
    if (*budget == 0) pg.recovery_cursor = it == unclean.end() ? ObjectId{} : it->first;
    return false;
}

/// The PG whose turn it is; after recovery_pg_switch objects the next one.
bool Osd::pick_recovery(Pg** found_pg, ObjectId* found, bool* is_degraded) {
    size_t budget = kScan;
    for (bool degraded : {true, false}) {
        if (degraded ? settings_.no_recovery : settings_.no_rebalance) continue;
        bool switched = recovery_of_pg_ >= settings_.recovery_pg_switch;
        auto it = switched ? pgs_.upper_bound(recovery_pg_) : pgs_.lower_bound(recovery_pg_);
        for (size_t seen = 0; seen < pgs_.size(); seen++, ++it) {
            if (it == pgs_.end()) it = pgs_.begin();
            if (pick_recovery(*it->second, degraded, &budget, found)) {
                if (switched || it->first != recovery_pg_) recovery_of_pg_ = 0;
                recovery_pg_ = it->first;
                recovery_of_pg_++;
                *found_pg = it->second.get();
                *is_degraded = degraded;
                return true;
            }
            if (budget == 0) {
                recovery_scanned_ += kScan;
                return false;
            }
        }
    }
    return false;
}

/// The last look ended at its limit, and there are objects that none of them has seen since something was found.
bool Osd::more_to_scan() {
    uint64_t unclean = 0;
    for (auto& [id, pg] : pgs_) unclean += pg->objects.counts().unclean;
    if (recovery_scanned_ > 0 && recovery_scanned_ <= 2 * unclean) return true;
    recovery_scanned_ = 0;
    return false;
}

/// Degraded objects go as fast as the load of clients allows. Misplaced ones are in no hurry: they hold back whenever clients do
/// anything at all, if only one request after the other (its load is small, but it waits behind every object that is moved).
void Osd::tune_recovery(uint64_t now_ns) {
    const uint64_t elapsed_us = (now_ns - tuned_ns_) / 1000;
    const uint64_t load_us = client_us_ - tuned_client_us_, busy_us = busy_slots_ * (kBusySlotNs / 1000);
    tuned_client_us_ = client_us_;
    busy_slots_ = 0;
    tuned_ns_ = now_ns;
    tune_ticks_ = 0;
    pace_degraded_.client_us += load_us;
    pace_misplaced_.client_us += std::max(load_us, busy_us);
    for (RecoveryPace* pace : {&pace_degraded_, &pace_misplaced_}) {
        const Counters& done = pace == &pace_degraded_ ? recovery_degraded_ : recovery_misplaced_;
        pace->tuner.sample(settings_.recovery_tune, {pace->client_us, done.usec, done.count}, elapsed_us,
                           settings_.recovery_queue_depth);
    }
    wake_recovery();
}

/// It is not needed any more, or not possible now.
void Osd::skip_recovery(Op* op) {
    leave_queue(op);
    recovering_--;
    free_op(op);
    wake_recovery();
}

void Osd::recovery_ended(Op* op, bool success, bool was_degraded) {
    const uint64_t now = loop_.now_ns();
    Counters& stats = was_degraded ? recovery_degraded_ : recovery_misplaced_;
    if (success) stats.add((now - op->start_ns) / 1000, op->pool->object_span());
    if (!success) put_off_recovery(op->object);
    const bool needs_sync = success && op->pool->info.immediate_commit != wire::ImmediateCommit::all;
    leave_queue(op);
    recovering_--;
    RecoveryPace& pace = was_degraded ? pace_degraded_ : pace_misplaced_;
    if (settings_.recovery_sleep_us) pace.next_ns = std::max(pace.next_ns, now + settings_.recovery_sleep_us * 1000);
    free_op(op);
    if (needs_sync && ++recovered_unsynced_ >= settings_.recovery_sync_batch && !autosync_queued_) {
        recovered_unsynced_ = 0;
        autosync_queued_ = true;
        runtime::spawn(autosync());
    }
    wake_recovery();
}

void Osd::run_recovery() {
    if (shut_ || stopping_ || fenced_) return;
    uint64_t now = loop_.now_ns();
    Pg* pg = nullptr;
    ObjectId object;
    bool degraded = false;
    int started = 0;
    while (recovering_ < settings_.recovery_queue_depth && started < kStartsPerTurn) {
        if (!pick_recovery(&pg, &object, &degraded)) {
            if (more_to_scan()) wake_recovery();
            break;
        }
        recovery_scanned_ = 0;
        RecoveryPace& pace = degraded ? pace_degraded_ : pace_misplaced_;
        const uint64_t pace_ns = pace.tuner.pace_us() * 1000;
        if ((pace_ns || settings_.recovery_sleep_us) && now < pace.next_ns) {
            recovery_of_pg_--;
            if (!recovery_retry_.armed() || recovery_retry_.deadline_ns > pace.next_ns) loop_.arm(recovery_retry_, pace.next_ns);
            break;
        }
        if (pace_ns) pace.next_ns = std::max(pace.next_ns, now) + pace_ns;
        Op* op = new_op(nullptr);
        op->opcode = wire::Opcode::write;
        op->recovery = true;
        op->pool = pg->pool;
        op->object = object;
        op->offset = op->len = 0;
        op->message = {};
        attach_pg(op, pg);
        fill_bitmap_space(op);
        recovering_++;
        started++;
        if (enter_queue(op)) start_write(op);
    }
    if (started == kStartsPerTurn) wake_recovery();
    if (recovering_ == 0 && recovered_unsynced_ > 0 && !pg && !autosync_queued_) {  // nothing is left but what waits for a SYNC
        recovered_unsynced_ = 0;
        autosync_queued_ = true;
        runtime::spawn(autosync());
    }
    if (recovery_failed_.empty()) return;
    const uint64_t due_ns = std::max(recovery_forget_ns_, now);
    if (!recovery_retry_.armed() || recovery_retry_.deadline_ns > due_ns) loop_.arm(recovery_retry_, due_ns);
}

}  // namespace vitastor::serve

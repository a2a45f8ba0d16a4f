// SPDX-License-Identifier: GPL-2.0-or-later
// Background recovery: zero-length writes to ourselves, degraded objects first. Source: semantics 9.
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

/// Objects that failed get another chance, but not at the pace of recovery_sleep_us.
void Osd::retry_recovery() {
    uint64_t now = loop_.now_ns();
    if (now >= recovery_forget_ns_) {
        recovery_failed_.clear();
        recovery_forget_ns_ = now + kRetryNs;
    }
    wake_recovery();
}

bool Osd::pick_recovery(Pg** found_pg, ObjectId* found) {
    size_t budget = kScan;
    for (bool degraded : {true, false}) {
        if (degraded ? settings_.no_recovery : settings_.no_rebalance) continue;
        for (auto& [id, owned] : pgs_) {
            Pg& pg = *owned;
            if (!pg.active() || pg.objects.counts().unclean == 0) continue;
            if (!degraded && ((pg.flags & wire::pg_state::degraded) || pg.pool->info.backfillfull)) continue;
            if (degraded && pg.objects.counts().degraded == 0) continue;
            const auto& unclean = pg.objects.unclean();
            auto it = unclean.lower_bound(pg.recovery_cursor);
            for (size_t seen = 0; seen < unclean.size() && budget > 0; seen++, ++it, budget--) {
                if (it == unclean.end()) it = unclean.begin();
                uint32_t state = it->second.set->state;
                bool wanted = degraded ? (state & wire::object_state::degraded) != 0 : (state & wire::object_state::misplaced) != 0;
                if (!wanted || recovery_failed_.contains(it->first) || find_queue(it->first)) continue;
                pg.recovery_cursor = it->first;
                *found_pg = &pg;
                *found = it->first;
                return true;
            }
            if (budget == 0) {
                pg.recovery_cursor = it == unclean.end() ? ObjectId{} : it->first;
                return false;
            }
        }
    }
    return false;
}

void Osd::run_recovery() {
    if (shut_ || stopping_ || fenced_) return;
    uint64_t now = loop_.now_ns();
    uint64_t next_ns = last_recovery_ns_ + settings_.recovery_sleep_us * 1000;
    if (settings_.recovery_sleep_us && last_recovery_ns_ && now < next_ns) {
        if (!recovery_retry_.armed() || recovery_retry_.deadline_ns > next_ns) loop_.arm(recovery_retry_, next_ns);
        return;
    }
    Pg* pg = nullptr;
    ObjectId object;
    int started = 0;
    while (recovering_ < settings_.recovery_queue_depth && started < kStartsPerTurn && pick_recovery(&pg, &object)) {
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
    if (!recovery_failed_.empty() && !recovery_retry_.armed()) loop_.arm(recovery_retry_, now + kRetryNs);
}

}  // namespace vitastor::serve

// SPDX-License-Identifier: GPL-2.0-or-later
// Armed timers by deadline, equal deadlines in the order of arming (so that simulation repeats).
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/loop.hpp"

namespace vitastor::runtime {

/// Binary heap over intrusive timers: arm and disarm O(log n), earliest O(1). Loop thread only.
class TimerHeap {
public:
    bool empty() const { return heap_.empty(); }
    uint64_t earliest_ns() const { return heap_.empty() ? kNever : heap_[0].deadline_ns; }

    void arm(Timer& timer, uint64_t deadline_ns) {
        if (timer.armed()) disarm(timer);
        timer.deadline_ns = deadline_ns;
        heap_.push_back({deadline_ns, next_sequence_++, &timer});
        sift_up(heap_.size() - 1);
    }
    void disarm(Timer& timer) {
        if (!timer.armed()) return;
        size_t index = timer.heap_index;
        VITASTOR_ASSERT(index < heap_.size());
        VITASTOR_ASSERT(heap_[index].timer == &timer);
        timer.heap_index = UINT64_MAX;
        Entry last = heap_.back();
        heap_.pop_back();
        if (last.timer == &timer) return;
        place(index, last);
        sift_up(index);
        sift_down(last.timer->heap_index);
    }
    /// The earliest timer with deadline ≤ now_ns that was armed before `sequence_limit` (see sequence()), disarmed; or null.
    Timer* pop_due(uint64_t now_ns, uint64_t sequence_limit = UINT64_MAX) {
        if (heap_.empty() || heap_[0].deadline_ns > now_ns) return nullptr;
        if (heap_[0].sequence >= sequence_limit) return nullptr;
        Timer* timer = heap_[0].timer;
        disarm(*timer);
        return timer;
    }
    /// Grows with every arming: timers armed later have a larger one.
    uint64_t sequence() const { return next_sequence_; }

private:
    struct Entry {
        uint64_t deadline_ns;
        uint64_t sequence;
        Timer* timer;
        bool before(const Entry& other) const {
            return deadline_ns != other.deadline_ns ? deadline_ns < other.deadline_ns
                                                    : sequence < other.sequence;
        }
    };
    void place(size_t index, const Entry& entry) {
        heap_[index] = entry;
        entry.timer->heap_index = index;
    }
    void sift_up(size_t index) {
        Entry entry = heap_[index];
        while (index > 0) {
            size_t parent = (index - 1) / 2;
            if (!entry.before(heap_[parent])) break;
            place(index, heap_[parent]);
            index = parent;
        }
        place(index, entry);
    }
    void sift_down(size_t index) {
        Entry entry = heap_[index];
        for (;;) {
            size_t child = index * 2 + 1;
            if (child >= heap_.size()) break;
            if (child + 1 < heap_.size() && heap_[child + 1].before(heap_[child])) child++;
            if (!heap_[child].before(entry)) break;
            place(index, heap_[child]);
            index = child;
        }
        place(index, entry);
    }
    std::vector<Entry> heap_;
    uint64_t next_sequence_ = 0;
};

}  // namespace vitastor::runtime

// SPDX-License-Identifier: GPL-2.0-or-later
// Merges sorted runs of one vector, an entry at a time, so that a long merge can be done in slices.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace vitastor::serve {

/// Before(a, b): entry a comes before entry b. `entries` outlives the merge and does not change.
template <typename Entry, typename Before>
class RunMerge {
public:
    RunMerge(const std::vector<Entry>& entries, Before before) : entries_(entries), before_(std::move(before)) {}

    /// The entries [from, to) are in order. All runs are added before the first next().
    void add(size_t from, size_t to) {
        if (from == to) return;
        heap_.push_back({from, to});
        std::push_heap(heap_.begin(), heap_.end(), later());
    }
    bool empty() const { return heap_.empty(); }
    /// The next entry of all runs; not when empty().
    const Entry& next() {
        std::pop_heap(heap_.begin(), heap_.end(), later());
        Run& run = heap_.back();
        const Entry& entry = entries_[run.at++];
        if (run.at == run.to) {
            heap_.pop_back();
        } else {
            std::push_heap(heap_.begin(), heap_.end(), later());
        }
        return entry;
    }

private:
    struct Run {
        size_t at, to;
    };
    auto later() const {
        return [this](const Run& a, const Run& b) { return before_(entries_[b.at], entries_[a.at]); };
    }

    const std::vector<Entry>& entries_;
    Before before_;
    std::vector<Run> heap_;
};

}  // namespace vitastor::serve

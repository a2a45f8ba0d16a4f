// SPDX-License-Identifier: GPL-2.0-or-later
// Smoothing for slow data devices behind fast metadata: small writes that are acknowledged before the data device has really done
// them (they wait in its cache, or in spare granules to be written again) are held back a little, the more the fuller that backlog
// is, so that it does not fill up and stop everything at once.
//
// With the backlog full, acknowledgements come at the pace of the targets; at half of it, at twice that pace; at none, at once.
// One write takes 1 / target_iops of device time (nothing if it continues the one before it), and its bytes at target_mbs.
#pragma once

#include <cstdint>

#include "store/store.hpp"

namespace vitastor::store {

class Throttle {
public:
    explicit Throttle(const ThrottleOptions& options) { configure(options); }
    void configure(const ThrottleOptions& options);
    bool enabled() const { return options_.enabled; }

    /// Device time of one small write, in nanoseconds. Remembers where it ends.
    uint64_t cost_ns(const ObjectId& object, uint32_t offset, uint32_t length);

    /// A write is on the data device but may still be in its cache. flush: number of the flush that will cover it.
    void add_backlog(uint64_t cost_ns, uint64_t flush);
    /// 0 … 1: how much of the backlog that is tolerated is there. flushed: flushes that have ended.
    double fill(uint64_t flushed) const;

    /// How long the answer must wait, in nanoseconds. now_ns: monotonic. Never more than kMaxDelayNs.
    uint64_t delay_ns(uint64_t now_ns, uint64_t cost_ns, double fill);

    static constexpr uint64_t kMaxDelayNs = 30'000'000'000;
    static constexpr uint64_t kBacklogNs = 10'000'000'000;  ///< device time of a full backlog

private:
    ThrottleOptions options_;
    ObjectId last_object_;
    uint32_t last_end_ = 0;
    uint64_t free_at_ns_ = 0;  ///< when the device would have done all that was let through
    struct Backlog {
        uint64_t flush = 0;
        uint64_t cost_ns = 0;
    } backlog_[2];  ///< covered by the coming flush, and by the one after it
};

}  // namespace vitastor::store

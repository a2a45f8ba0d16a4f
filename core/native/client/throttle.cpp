// SPDX-License-Identifier: GPL-2.0-or-later
#include "client/throttle.hpp"

#include <algorithm>

#include "runtime/loop.hpp"

namespace vitastor::client {
namespace {

/// Time that `amount` takes at `rate` a second; bounded, so that no sum overflows.
uint64_t cost_ns(uint64_t amount, uint64_t rate) {
    constexpr unsigned __int128 kMaxNs = 3600ull * 24 * 365 * runtime::kNsPerSecond;
    const unsigned __int128 cost = static_cast<unsigned __int128>(amount) * runtime::kNsPerSecond / rate;
    return static_cast<uint64_t>(std::min(cost, kMaxNs));
}

}  // namespace

uint64_t Throttle::admit(const cluster::IoLimits& limits, uint64_t now_ns, uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    const uint64_t burst_ns = limits.burst_ms * runtime::kNsPerMs;
    const uint64_t oldest_ns = now_ns > burst_ns ? now_ns - burst_ns : 0;
    if (limits_ != limits) {  // what was owed under other limits is forgotten
        limits_ = limits;
        operations_due_ns_ = bytes_due_ns_ = 0;
    }
    uint64_t begin_ns = now_ns;
    if (limits.iops) {
        operations_due_ns_ = std::max(operations_due_ns_, oldest_ns);
        begin_ns = std::max(begin_ns, operations_due_ns_);
        operations_due_ns_ += cost_ns(1, limits.iops);
    }
    if (limits.bytes_per_second) {
        bytes_due_ns_ = std::max(bytes_due_ns_, oldest_ns);
        begin_ns = std::max(begin_ns, bytes_due_ns_);
        bytes_due_ns_ += cost_ns(bytes, limits.bytes_per_second);
    }
    return begin_ns;
}

}  // namespace vitastor::client

// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/throttle.hpp"

#include <algorithm>

namespace vitastor::store {

void Throttle::configure(const ThrottleOptions& options) {
    options_ = options;
    options_.target_iops = std::max(options_.target_iops, 1u);
    options_.target_mbs = std::max(options_.target_mbs, 1u);
    options_.target_parallelism = std::clamp(options_.target_parallelism, 1u, 1024u);
    free_at_ns_ = 0;
}

uint64_t Throttle::cost_ns(const ObjectId& object, uint32_t offset, uint32_t length) {
    const bool continues = object == last_object_ && offset == last_end_;
    last_object_ = object;
    last_end_ = offset + length;
    const uint64_t moving = uint64_t{length} * 1'000'000'000 / (uint64_t{options_.target_mbs} << 20);
    return continues ? moving : std::max<uint64_t>(moving, 1'000'000'000 / options_.target_iops);
}

void Throttle::add_backlog(uint64_t cost_ns, uint64_t flush) {
    if (backlog_[1].flush != flush) {
        backlog_[0] = backlog_[1];
        backlog_[1] = {flush, 0};
    }
    backlog_[1].cost_ns += cost_ns;
}

double Throttle::fill(uint64_t flushed) const {
    uint64_t waiting = 0;
    for (const Backlog& backlog : backlog_)
        if (backlog.flush > flushed) waiting += backlog.cost_ns;
    return std::min(1.0, static_cast<double>(waiting) / static_cast<double>(kBacklogNs));
}

uint64_t Throttle::delay_ns(uint64_t now_ns, uint64_t cost_ns, double fill) {
    if (fill <= 0) {
        free_at_ns_ = now_ns;
        return 0;
    }
    const auto cost = static_cast<uint64_t>(static_cast<double>(cost_ns) * std::clamp(fill, 0.0, 1.0));
    // As many as the device works on at once may go together; on the average they keep the pace.
    const uint64_t ahead = cost * (options_.target_parallelism - 1);
    const uint64_t free_at = std::max(free_at_ns_, now_ns);
    const uint64_t go_at = free_at > now_ns + ahead ? free_at - ahead : now_ns;
    free_at_ns_ = std::min(free_at + cost, now_ns + kMaxDelayNs);
    const uint64_t delay = std::min(go_at - now_ns, kMaxDelayNs);
    return delay < uint64_t{options_.threshold_us} * 1000 ? 0 : delay;
}

}  // namespace vitastor::store

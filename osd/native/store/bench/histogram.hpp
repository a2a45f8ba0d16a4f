// SPDX-License-Identifier: GPL-2.0-or-later
// Latencies of a benchmark: counts in buckets of about 3 % width, so that a percentile costs no list of all values.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace vitastor::store {

class Histogram {
public:
    void clear() { *this = Histogram(); }

    void add(uint64_t value_ns) {
        counts_[bucket(value_ns)]++;
        count_++;
        sum_ += value_ns;
    }

    double mean() const { return count_ ? static_cast<double>(sum_) / static_cast<double>(count_) : 0; }

    /// The lower border of the bucket that holds the value at this share (0 … 1), ns. 0 if there is none.
    uint64_t percentile(double share) const {
        const auto wanted = static_cast<uint64_t>(share * static_cast<double>(count_));
        uint64_t seen = 0;
        for (uint32_t i = 0; i < counts_.size(); i++) {
            seen += counts_[i];
            if (seen > wanted) return border(i);
        }
        return 0;
    }

private:
    static constexpr uint32_t kSteps = 32;  // per power of two

    static uint32_t bucket(uint64_t value) {
        if (value < kSteps) return static_cast<uint32_t>(value);
        const auto power = static_cast<uint32_t>(std::bit_width(value)) - 6;  // value >> power is 32 … 63
        return kSteps * power + static_cast<uint32_t>(value >> power);
    }
    static uint64_t border(uint32_t index) {
        if (index < 2 * kSteps) return index;
        const uint32_t power = index / kSteps - 1;
        return uint64_t{index - kSteps * power} << power;
    }

    std::array<uint64_t, kSteps * 61> counts_{};
    uint64_t count_ = 0;
    uint64_t sum_ = 0;
};

}  // namespace vitastor::store

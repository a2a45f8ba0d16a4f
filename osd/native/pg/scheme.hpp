// SPDX-License-Identifier: GPL-2.0-or-later
// Redundancy of a pool, and version numbers. Source: semantics 1, 14.5.
#pragma once

#include <cstdint>

#include "base/ids.hpp"

namespace vitastor::pg {

enum class SchemeKind : uint8_t { replicated = 0, xored = 1, ec = 2 };

struct Scheme {
    SchemeKind kind = SchemeKind::replicated;
    uint32_t pg_size = 1;
    uint32_t pg_minsize = 1;
    uint32_t parity_chunks = 0;
    bool replicated() const { return kind == SchemeKind::replicated; }
    /// k: data chunks of an object; 1 for replicated.
    uint32_t data_chunks() const { return replicated() ? 1 : pg_size - parity_chunks; }
};

/// Counter half of a version that asks for a fresh epoch long before it overflows. Source: semantics 1.2.
inline constexpr uint64_t kCounterHigh = 0x8000;

/// Next version of an object at `current` (0 = absent) in a PG of `epoch`. Always above current; its epoch may exceed `epoch`
/// by the rule of the counter: that epoch must be in etcd before the version is used.
constexpr Version next_version(Version current, uint64_t epoch) {
    if (current >> 16 < epoch) return epoch << 16 | 1;
    if (current & kCounterHigh) return ((current >> 16) + 1) << 16 | 1;
    return current + 1;
}

/// Epoch of a PG after peering: listed_max = highest epoch among all listed versions, history = the one in etcd.
/// Source: semantics 1.3 and 17.2.
constexpr uint64_t epoch_after_peering(uint64_t listed_max, uint64_t history, bool exactly_active) {
    uint64_t base = listed_max > history ? listed_max : history;
    return exactly_active ? base : base + 1;
}

}  // namespace vitastor::pg

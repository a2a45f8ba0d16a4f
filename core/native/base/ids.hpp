// SPDX-License-Identifier: GPL-2.0-or-later
// Identifiers shared by all layers. Source: wire-protocol 3.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace vitastor {

using OsdNum = uint64_t;    ///< from 1; 0 = none
using PoolId = uint32_t;    ///< 1 … 65535
using PgNum = uint32_t;     ///< 1 … pg_count
using InodeNum = uint64_t;  ///< full: pool id in the top 16 bits
using Version = uint64_t;   ///< (epoch << 16) | counter; 0 = does not exist

inline constexpr Version kNewestVersion = UINT64_MAX;
inline constexpr unsigned kPoolShift = 48;
inline constexpr uint64_t kRoleMask = 4095;

constexpr InodeNum full_inode(PoolId pool, uint64_t inode) {
    return (static_cast<uint64_t>(pool) << kPoolShift) | (inode & ((1ull << kPoolShift) - 1));
}
constexpr PoolId pool_of(InodeNum inode) { return static_cast<PoolId>(inode >> kPoolShift); }

/// 16 bytes; stripe is the image offset of the object plus the role in the low 12 bits.
struct ObjectId {
    InodeNum inode = 0;
    uint64_t stripe = 0;
    auto operator<=>(const ObjectId&) const = default;
};

/// One entry of stabilise, rollback, list and bitmap messages (24 bytes on the wire).
struct ObjectVersion {
    ObjectId object;
    Version version = 0;
    auto operator<=>(const ObjectVersion&) const = default;
};

struct PgId {
    PoolId pool = 0;
    PgNum pg = 0;
    auto operator<=>(const PgId&) const = default;
};

struct ObjectIdHash {
    size_t operator()(const ObjectId& id) const {
        uint64_t x = (id.inode * 0x9e3779b97f4a7c15ull) ^ (id.stripe * 0xc2b2ae3d27d4eb4full);
        x ^= x >> 29;
        x *= 0xbf58476d1ce4e5b9ull;
        return static_cast<size_t>(x ^ (x >> 32));
    }
};

}  // namespace vitastor

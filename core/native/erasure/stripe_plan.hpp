// SPDX-License-Identifier: GPL-2.0-or-later
// What to read, to compute and to store for one operation on one erasure-coded object: pure functions, no I/O. The caller sends
// the reads, lets StripeWork compute (stripe_work.hpp), and sends the stores. Source: semantics 3.2, 3.3, 9, 14.
//
//   plan_read()   only the chunks touched; where they are lost, k chunks of just the range that has to be rebuilt
//   plan_write()  for each part of the range the cheapest of four ways to the new parity (rest of the row, differences, differences
//                 that the holders of the parity add, whole row), by the fewest chunks read; with it whatever has to be written
//                 whole because its holder lacks it
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "erasure/role_set.hpp"

namespace vitastor::erasure {

/// How objects of a pool are cut. data, parity ≥ 1; chunk_bytes a multiple of 8·granularity.
struct StripeShape {
    uint32_t data = 0;
    uint32_t parity = 0;
    uint32_t chunk_bytes = 0;  ///< block_size
    uint32_t granularity = 0;  ///< bitmap_granularity
    uint32_t roles() const { return data + parity; }
    uint64_t span_bytes() const { return uint64_t{data} * chunk_bytes; }
    uint32_t bitmap_bytes() const { return chunk_bytes / granularity / 8; }
    RoleSet data_roles() const { return RoleSet::range(0, data); }
    RoleSet parity_roles() const { return RoleSet::range(data, data + parity); }
    bool operator==(const StripeShape&) const = default;
};

/// Bytes of one chunk. len 0: nothing but version and bitmap.
struct ChunkRange {
    uint32_t role = 0;
    uint32_t offset = 0;  ///< bytes, in the chunk
    uint32_t len = 0;
    bool operator==(const ChunkRange&) const = default;
};

/// What lies in a piece of memory.
enum class Holds : uint8_t {
    reply,    ///< the client's bytes of a read, once read or rebuilt
    payload,  ///< the client's bytes of a write
    scratch,  ///< old content, read or rebuilt; of parity chunks the new one after StepKind::encode or differ
};

/// Where bytes of a chunk lie: at `at` in the client's buffer (reply, payload) or in the scratch memory.
struct Place {
    uint32_t role = 0;
    uint32_t offset = 0;
    uint32_t len = 0;
    Holds holds = Holds::scratch;
    uint64_t at = 0;
};

enum class StepKind : uint8_t {
    rebuild,  ///< old content of `outputs` from that of `inputs` (exactly k)
    encode,   ///< new parity `outputs` from the new content of all data chunks
    differ,   ///< parity `outputs` changed by what changes in the data chunks `inputs`; of Plan::differences: just what changes
};
/// One computation over [offset, offset+len) of the chunks.
struct Step {
    StepKind kind = StepKind::rebuild;
    uint32_t offset = 0;
    uint32_t len = 0;
    RoleSet inputs, outputs;
};

/// Reused from operation to operation: the vectors keep their memory.
struct Plan {
    StripeShape shape;
    uint64_t offset = 0;  ///< of the request, in the object
    uint32_t len = 0;
    bool is_write = false;
    /// Sub-reads, by role; their bytes go where `places` says reply or scratch. Each brings version and bitmap of its chunk. At most
    /// two a role. A chunk that its OSD does not have (-ENOENT) counts as zeroes.
    std::vector<ChunkRange> reads;
    std::vector<Place> places;  ///< by role
    std::vector<Step> steps;    ///< in this order, after all reads
    uint64_t scratch_bytes = 0; ///< size of the scratch memory; places in it begin at multiples of 4096
    /// Data chunks whose bitmap is needed and not readable, and the k roles that they are rebuilt from.
    RoleSet bitmaps_lost, bitmap_sources;
    RoleSet bitmaps_known;  ///< data chunks whose old bitmap the caller has
    /// Writes: one a role of `writable`, by role.
    std::vector<ChunkRange> stores;
    RoleSet differences;  ///< of these: what is sent is the difference to the old content

    uint32_t chunks_read() const;  ///< sub-reads that carry data
};

struct ReadRequest {
    uint64_t offset = 0;  ///< in the object; offset and len are multiples of the granularity
    uint32_t len = 0;     ///< 0: bitmaps of all data chunks
    RoleSet readable;     ///< good chunks of the version to read
    uint32_t own = kRolesMax;  ///< role that lies on this OSD, preferred where there is a choice
};
/// 0. -EINVAL: range outside of the object or not aligned. -EIO: fewer than k good chunks for something that is missing.
int plan_read(const StripeShape& shape, const ReadRequest& request, Plan& plan);

struct WriteRequest {
    uint64_t offset = 0;
    uint32_t len = 0;    ///< 0: nothing but a new version (recovery, with `rebuild`)
    RoleSet readable;    ///< good chunks of the old version, wherever they lie
    RoleSet writable;    ///< non-zero roles of the current set: each gets a store
    RoleSet rebuild;     ///< of these: the holder lacks a good chunk, which is therefore written whole; what is writable and not
                         ///< readable counts as such
    uint32_t own = kRolesMax;
    bool absent = false;  ///< the object is known not to exist: its old content is zeroes, nothing is read
    bool bitmaps_known = false;  ///< the caller has the old bitmaps of all data chunks and their version: none is read
    RoleSet takes_difference{};  ///< parity chunks whose holders can add a difference to what they have
};
/// 0. -EINVAL as above. -EIO: something that has to be known is lost (the object is incomplete).
int plan_write(const StripeShape& shape, const WriteRequest& request, Plan& plan);

/// Part of chunk `role` that the range [offset, offset+len) of the object covers; len 0 if none.
ChunkRange touched_range(const StripeShape& shape, uint64_t offset, uint32_t len, uint32_t role);

}  // namespace vitastor::erasure

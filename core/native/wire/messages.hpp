// SPDX-License-Identifier: GPL-2.0-or-later
// Every message of the OSD protocol as a plain struct; bytes are produced and believed only by wire/codec.hpp.
// Source: wire-protocol.md 2, 5-9. Field tables live in codec.cpp, one row a field.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/ids.hpp"

namespace vitastor::wire {

inline constexpr size_t kHeaderSize = 128;
inline constexpr uint64_t kRequestMagic = 0x2bd7b10325434553ull;
inline constexpr uint64_t kReplyMagic = 0xbaa699b87b434553ull;
inline constexpr uint32_t kMaxTransfer = 64u << 20;      ///< len of READ, WRITE, SEC_READ, SEC_WRITE
inline constexpr uint32_t kMaxConfigJson = 1u << 20;     ///< what we accept; 3.0.8 has no limit
inline constexpr uint32_t kMaxTripleBytes = 64u << 20;   ///< stabilise, rollback, read_bmp request payloads
inline constexpr uint64_t kMaxListBytes = 1ull << 30;    ///< SEC_LIST, READ_BMP, DESCRIBE reply payloads we accept
inline constexpr uint32_t kMaxBitmapBytes = 1u << 20;    ///< attr_len, bitmap_len we accept
inline constexpr size_t kTripleSize = 24;
inline constexpr size_t kDescribeItemSize = 32;

enum class Opcode : uint64_t {
    sec_read = 1,
    sec_write = 2,
    sec_write_stable = 3,
    sec_sync = 4,
    sec_stabilize = 5,
    sec_rollback = 6,
    sec_delete = 7,
    sec_list = 9,
    show_config = 10,
    read = 11,
    write = 12,
    sync = 13,
    del = 14,
    ping = 15,
    sec_read_bmp = 16,
    scrub = 17,
    describe = 18,
    sec_lock = 19,
};
inline constexpr uint64_t kMaxOpcode = 19;

/// Name used in op_stats of osd/stats ("primary_read" …); "unknown" for others. Source: wire-protocol 5.
const char* opcode_stat_name(Opcode opcode);
/// Spec name for messages ("SEC_READ" …).
const char* opcode_name(Opcode opcode);

struct RequestHeader {
    uint64_t id = 0;
    Opcode opcode{};
};
struct ReplyHeader {
    uint64_t id = 0;
    Opcode opcode{};
    int64_t retval = 0;  ///< ≥ 0 success, < 0 negative errno
};

namespace sub_flags {
inline constexpr uint32_t recovery = 1;
inline constexpr uint32_t ignore_lock = 2;
/// Ours, only to peers that advertise features.tombstones. SEC_DELETE: leave a tombstone of this version. SEC_ROLLBACK: do that with
/// each triple. Source: docs/adr/0046.
inline constexpr uint32_t tombstone = 4;
/// Ours, only to peers that advertise features.write_base. SEC_WRITE: refused with -ERANGE unless the newest version here is `base`.
inline constexpr uint32_t based = 8;
/// Together with `based`: the data is the difference to what that version holds in the range. -EDOM: that cannot be read.
/// Source: docs/adr/0045.
inline constexpr uint32_t difference = 16;
/// Together with `based`, only to peers that advertise features.write_settles: every role has that version durably, it becomes stable
/// along with the write. Nothing happens to it if the write is refused. Source: docs/adr/0045.
inline constexpr uint32_t settles = 32;
}  // namespace sub_flags

/// READ, WRITE, DELETE, SCRUB. offset and len in bytes of the image.
struct ClientRequest {
    InodeNum inode = 0;
    uint64_t offset = 0;
    uint32_t len = 0;
    uint32_t flags = 0;
    uint64_t meta_revision = 0;  ///< READ: etcd revision of the inode's key, 0 = this inode alone
    Version version = 0;         ///< WRITE, DELETE: compare-and-set: current version must be version - 1; 0 = none
};
struct ReadReply {
    uint32_t bitmap_len = 0;
    Version version = 0;
};
struct WriteReply {
    Version version = 0;  ///< now stored, or current on -EINTR
};
inline constexpr size_t kMaxDeadOsds = 22;
struct DeleteReply {
    static constexpr uint32_t kSupported = 1, kLeftOnDead = 2;
    uint32_t flags = 0;
    uint32_t osd_count = 0;
    uint32_t osds[kMaxDeadOsds] = {};
    /// Overlays osds[0..1]: the current version on -EINTR.
    Version cas_version() const { return static_cast<uint64_t>(osds[1]) << 32 | osds[0]; }
    void set_cas_version(Version v) {
        osds[0] = static_cast<uint32_t>(v);
        osds[1] = static_cast<uint32_t>(v >> 32);
    }
};

/// SEC_READ, SEC_WRITE, SEC_WRITE_STABLE. offset and len in bytes of the chunk.
struct SubRequest {
    ObjectId object;
    Version version = 0;
    uint32_t offset = 0;
    uint32_t len = 0;
    uint32_t attr_len = 0;
    uint32_t flags = 0;
    Version base = 0;  ///< means something with sub_flags::based only
};
struct SubReply {
    Version version = 0;
    uint32_t attr_len = 0;
};
struct SubSyncRequest {
    uint32_t flags = 0;
};
/// SEC_STABILIZE, SEC_ROLLBACK, SEC_READ_BMP: len bytes of 24-byte triples follow.
struct TripleRequest {
    uint64_t len = 0;
    uint32_t flags = 0;
};
struct SubDeleteRequest {
    ObjectId object;
    Version version = 0;
    uint32_t flags = 0;
};
struct SubDeleteReply {
    Version version = 0;  ///< that of the request; 0: deleted, but there was no room for the tombstone
};
/// SEC_LIST. max_stripe: 0 on the wire means no bound and 2^64-1 means 0; this struct holds the meaning (UINT64_MAX = no bound).
struct ListRequest {
    static constexpr uint64_t kPrimary = 1;
    /// Ours, only to peers that advertise features.tombstones (docs/adr/0046): the tombstones follow the other triples.
    static constexpr uint64_t kTombstones = 1ull << 32;
    /// Ours as well: no listing; the PG's tombstones up to forget_version are forgotten, and that is durable when it is answered.
    static constexpr uint64_t kForget = 1ull << 33;
    PgNum list_pg = 0;
    uint32_t pg_count = 0;
    uint64_t pg_stripe_size = 0;
    InodeNum min_inode = 0;
    InodeNum max_inode = 0;
    uint64_t min_stripe = 0;
    uint64_t max_stripe = UINT64_MAX;
    uint32_t stable_limit = 0;
    uint64_t flags = 0;
    Version forget_version = 0;  ///< means something with kForget only
};
struct ListReply {
    uint64_t stable_count = 0;
    uint64_t flags = 0;
    uint64_t tombstone_count = 0;  ///< the last triples; means something in the answer to kTombstones only
};
struct ConfigRequest {
    uint64_t json_len = 0;
};
struct DescribeRequest {
    uint64_t state_mask = 0;
    InodeNum min_inode = 0;
    uint64_t min_offset = 0;
    InodeNum max_inode = 0;
    uint64_t max_offset = 0;
    uint64_t limit = 0;
    uint32_t pool = 0;
    uint32_t pg = 0;
};
struct DescribeReply {
    uint64_t result_bytes = 0;
};
struct DescribeItem {
    static constexpr uint32_t kOutdated = 1, kCorrupted = 2, kInconsistent = 4;
    ObjectId object;  ///< without role bits
    uint32_t role = 0;
    uint32_t flags = 0;
    OsdNum osd = 0;
};
struct LockRequest {
    static constexpr uint64_t kLock = 1, kUnlock = 2;
    uint64_t flags = 0;
    uint64_t pool = 0;
    uint64_t pg = 0;
    uint64_t state = 0;  ///< PgState bits
    /// Ours, of erasure-coded pools (docs/adr/0049): chunk n of the PG lies on the receiver: bit n. 0: as 3.0.8, nothing is said.
    uint64_t roles = 0;
};
struct LockReply {
    OsdNum holder = 0;
};

/// PG state bits of SEC_LOCK; words in etcd. Source: wire-protocol 9.9, etcd-schema 4.10.
namespace pg_state {
inline constexpr uint32_t starting = 0x1, peering = 0x2, incomplete = 0x4, active = 0x8, repeering = 0x10,
                          stopping = 0x20, offline = 0x40, degraded = 0x80, has_incomplete = 0x100,
                          has_degraded = 0x200, has_misplaced = 0x400, has_unclean = 0x800, has_invalid = 0x1000,
                          has_corrupted = 0x2000, has_inconsistent = 0x4000, left_on_dead = 0x8000,
                          scrubbing = 0x10000;
}
/// Object state bits of DESCRIBE.
namespace object_state {
inline constexpr uint32_t degraded = 0x2, incomplete = 0x4, misplaced = 0x8, corrupted = 0x10, inconsistent = 0x20;
}

}  // namespace vitastor::wire

// SPDX-License-Identifier: GPL-2.0-or-later
// The blockstore of one OSD: versions of objects (replicated copies or EC chunks) on one or two devices.
//
// Promise: an acknowledged write is there after any crash, an unacknowledged one is there whole or not at all, under the
// durability of the mode (semantics.md 2). Interface after semantics.md 15; messages it serves: wire-protocol 9.
// Everything on the loop's thread; completions never run from inside the call. Operations of one object take effect in the
// order in which they were submitted; different objects are independent.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/list.hpp"
#include "base/log.hpp"
#include "base/result.hpp"
#include "runtime/loop.hpp"
#include "wire/codec.hpp"

namespace vitastor::store {

/// Smoothing of small writes when data is on a slow device and metadata on a fast one; see throttle.hpp. May change while open.
struct ThrottleOptions {
    bool enabled = false;           ///< throttle_small_writes
    uint32_t target_iops = 100;     ///< what the data device absorbs: random writes a second
    uint32_t target_mbs = 100;      ///< and MiB a second
    uint32_t target_parallelism = 1;
    uint32_t threshold_us = 50;     ///< smaller delays are not worth a timer
    bool operator==(const ThrottleOptions&) const = default;
};

/// automatic: on block devices, not on files (a hole in a file costs the next write of the place an allocation).
enum class DiscardFreed : uint8_t { off, on, automatic };

struct StoreOptions {
    OsdNum osd_num = 0;
    std::string data_device;  ///< file or block device
    std::string meta_device;  ///< empty: on data_device
    uint64_t data_offset = 0, data_size = 0;  ///< bytes; size 0 = to the end
    uint64_t meta_offset = 0, meta_size = 0;
    uint32_t block_size = 131072;
    uint32_t bitmap_granularity = 4096;
    wire::ImmediateCommit immediate_commit = wire::ImmediateCommit::none;
    bool disable_data_fsync = false;
    bool disable_meta_fsync = false;
    bool disable_device_lock = false;
    bool readonly = false;
    bool checksums = true;  ///< CRC32C of every granule
    /// false: checksums are read from the metadata log when they are needed, except as many as fit into the cache (with what
    /// operations at work need, and what has not been written to the log whole).
    bool checksums_in_memory = true;
    uint64_t checksum_cache_bytes = 64 << 20;
    runtime::FileIo data_io = runtime::FileIo::direct;
    runtime::FileIo meta_io = runtime::FileIo::direct;
    uint32_t max_write_iodepth = 128;
    uint64_t max_tombstones = 1 << 20;  ///< 56 bytes of memory and 40 of the log each
    uint32_t atomic_write_size = 4096;  ///< bytes that the data device writes whole or not at all; below the granularity, overwrites are redirected
    /// How long open() waits for the lock: the kernel may need a moment to let go of a killed process's files (safety.md 3).
    uint32_t lock_wait_ms = 2000;
    DiscardFreed discard_freed = DiscardFreed::automatic;
    bool discard_on_start = false;         ///< everything that is free after opening
    uint64_t min_discard_size = 1 << 20;   ///< bytes: smallest piece worth a discard
    uint32_t discard_granularity = 0;      ///< bytes: pieces are multiples of it; 0: of the block size
    /// Opens although parts of the metadata are damaged; without the objects that they named, which are listed in the log.
    bool skip_damaged_metadata = false;
    ThrottleOptions throttle;
    bool create = true;  ///< format an area that holds no store yet (all zeroes at its head); anything else there is refused
};

enum class StoreOp : uint8_t {
    read,          ///< data and bitmap of the newest version ≤ `version`
    read_bitmap,   ///< bitmap and version alone; never touches the disk, completes with 0 even if the object is missing (version 0)
    write,         ///< new unstable version (EC)
    write_stable,  ///< new version, stable at once (replicated)
    del,           ///< object with all versions; missing: 0
    stabilize,     ///< all versions up to and including `version`
    rollback,      ///< all unstable versions newer than `version`
    sync,          ///< everything completed before is durable
};

/// Owned by the caller, pinned until on_done. Fields in, results out.
struct Operation : ListNode {
    StoreOp op{};
    ObjectId object;              ///< stripe with role bits
    Version version = 0;          ///< in: as in wire-protocol 9.2; out: version read or written, current one on -EEXIST
    uint32_t offset = 0;          ///< bytes in the chunk, multiple of bitmap_granularity
    uint32_t len = 0;             ///< bytes, multiple of bitmap_granularity; 0 allowed
    /// read: receives len bytes (holes are zeroes). write: len bytes. Aligned 4096: used in place; else copied once. Borrowed until on_done.
    const iovec* iov = nullptr;
    int iov_count = 0;
    /// write: nullptr = inherit, else exactly bitmap_bytes() bytes that replace the external bitmap. read: receives bitmap_bytes() bytes if set.
    uint8_t* bitmap = nullptr;
    /// write (unstable): if this is the newest version, it becomes stable in one step with the write, as by `stabilize` before it.
    Version settles = 0;
    /// 0 or len on success. -ENOENT (no version ≤), -EEXIST (write not newer than what is stored), -ENOSPC (nothing changed), -EDOM (checksum),
    /// -EIO, -EINVAL, -EROFS, -EBUSY (rollback: a newer stable version exists).
    int64_t result = 0;
    /// del: leave a durable tombstone {object, version} (safety.md 6). version out: the one that is there now, at least the newest
    /// version or tombstone found. Nothing to say (no object, version 0): 0 without one. -ENOSPC, nothing changed: max_tombstones.
    bool tombstone = false;
    void (*on_done)(Operation* self) = nullptr;
    // ---- private to the store while in flight
    uint64_t store_data[12] = {};
};

struct ListRange {
    PoolId pool = 0;
    PgNum pg = 0;
    InodeNum min_inode = 0, max_inode = 0;   ///< inclusive, paired with stripes (wire-protocol 9.7)
    uint64_t min_stripe = 0, max_stripe = UINT64_MAX;
    uint32_t stable_limit = 0;  ///< 0 = unlimited; else the stable part is sorted and cut
};

struct Listing {
    std::vector<ObjectVersion> stable;    ///< newest stable version of each object
    std::vector<ObjectVersion> unstable;  ///< every unstable version newer than that
    std::vector<ObjectVersion> tombstones;  ///< in the range, whatever stable_limit says; objects that are in neither other list
};

/// One listing at work; runs in slices of well under 1 ms. Owned by the caller until on_done.
struct ListOperation {
    ListRange range;
    int64_t result = 0;  ///< 0; -EAGAIN: pg_count or stripe of the pool have changed meanwhile
    Listing listing;
    void (*on_done)(ListOperation* self) = nullptr;
    /// Runs `next`, the next slice, when it is time for it; on a later turn. nullptr: each turn has one slice of every listing.
    void (*give_way)(ListOperation* self, runtime::Deferred& next) = nullptr;
    void* store_data = nullptr;
};

struct StoreStats {
    uint64_t total_blocks = 0;
    uint64_t free_blocks = 0;
    uint64_t object_count = 0;
    uint64_t tombstone_count = 0;
    uint64_t memory_bytes = 0;       ///< index, bitmaps, checksums
    uint64_t device_bytes_written = 0;
    uint64_t client_bytes_written = 0;
    uint64_t flushes = 0;            ///< of both devices
    uint64_t data_flushes = 0, meta_flushes = 0;          ///< one device: all are data_flushes
    uint64_t data_sync_writes = 0, meta_sync_writes = 0;  ///< writes that were durable on completion (O_SYNC)
    uint64_t discards = 0, discarded_bytes = 0;
    uint64_t throttled_writes = 0, throttled_us = 0;      ///< held back, and for how long in all
    uint64_t checksum_errors = 0;
    uint64_t spare_blocks = 0;    ///< used blocks that belong to no object: they hold overwritten granules for a while
    uint64_t spare_granules = 0;  ///< in use in them
    uint64_t moved_bytes = 0;     ///< copied from spare blocks back to their places
    uint64_t checksum_reads = 0;          ///< of the metadata device, for checksums that are not in memory
    uint64_t checksum_bytes_written = 0;  ///< entries written so that checksums can leave memory
    uint64_t uuid = 0;          ///< of this store, random at formatting and after a resize
    uint64_t log_sequence = 0;  ///< newest write of the log that is durable: after any restart it is at least this
};

struct InodeSpace {
    InodeNum inode = 0;
    uint64_t bytes = 0;  ///< allocated blocks x block_size
};

class Store {
public:
    /// After close() has completed. The store of a simulated process that was killed cannot be closed: release() and forget it.
    virtual ~Store() = default;
    /// Opens, checks identity and geometry, replays. done->result 0 or negative errno; `error` says thing, reason, next step.
    virtual void open(runtime::Completion& done) = 0;
    virtual const std::string& error() const = 0;
    /// Submits an operation; after open only. Bad ranges come back as -EINVAL, never an assertion.
    virtual void submit(Operation& operation) = 0;
    virtual void list(ListOperation& operation) = 0;
    /// Tells how objects of a pool map to PGs, so that listings need not scan everything. Rebuilds the index in slices.
    virtual void set_pool_pgs(PoolId pool, uint32_t pg_count, uint64_t pg_stripe_size) = 0;
    /// Forgets the tombstones of a PG up to and including `version`, in slices; durable with the next sync or durable operation after
    /// the answer. Those of objects that are being changed stay. Answers how many went, -EINVAL (no such PG), -EIO, -EROFS.
    virtual void forget_tombstones(PoolId pool, PgNum pg, Version version, runtime::Completion& done) = 0;
    /// Version of an object's tombstone; 0: it has none. Synchronous, memory only.
    virtual Version tombstone(const ObjectId& object) const = 0;
    /// Copies the external bitmap (bitmap_bytes(); nullptr: does not) of the newest version ≤ `version`; returns that version, 0 if none. Synchronous, memory only.
    virtual Version peek(const ObjectId& object, Version version, uint8_t* bitmap) = 0;
    struct Newest {
        Version version = 0;  ///< 0: there is none
        bool is_stable = false;
    };
    /// The newest version of an object. Synchronous, memory only.
    virtual Newest newest(const ObjectId& object) const = 0;
    /// Takes effect for what is submitted from here on.
    virtual void set_throttle(const ThrottleOptions& throttle) { static_cast<void>(throttle); }
    virtual void set_write_depth(uint32_t max_write_iodepth) { static_cast<void>(max_write_iodepth); }
    virtual StoreStats stats() const = 0;
    /// Cheap.
    virtual uint64_t object_count() const { return stats().object_count; }
    virtual std::vector<InodeSpace> space_by_inode() const = 0;
    /// Ends background work; submitted operations complete first.
    virtual void close(runtime::Completion& done) = 0;
    virtual const StoreOptions& options() const = 0;
    uint32_t bitmap_bytes() const { return options().block_size / options().bitmap_granularity / 8; }
};

std::unique_ptr<Store> create_store(runtime::Loop& loop, const StoreOptions& options, Logger& logger);

}  // namespace vitastor::store

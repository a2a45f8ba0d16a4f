// SPDX-License-Identifier: GPL-2.0-or-later
// Sizes and places: how an area is divided into superblock, checkpoints, log and blocks; superblock to bytes and back.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "runtime/loop.hpp"
#include "store/store.hpp"
#include "store/store_format.hpp"

namespace vitastor::store {

/// Everything derived from block size, granularity and checksums.
struct Geometry {
    uint32_t block_size = 0;
    uint32_t granularity = 0;
    uint32_t granules = 0;      ///< per block
    uint32_t bitmap_bytes = 0;  ///< granules / 8
    bool checksums = true;
    uint32_t version_bytes = 0;  ///< bytes of one version in a full entry, at most
    uint32_t entry_bytes = 0;    ///< the largest entry with one version

    uint64_t meta_area = 0;     ///< bytes on the metadata device: superblock and checkpoints
    uint64_t log_offset = 0;    ///< bytes on the metadata device
    uint64_t log_pages = 0;
    uint64_t data_offset = 0;  ///< bytes on the data device
    uint64_t block_count = 0;
    uint64_t incompatible = 0;  ///< bits of the superblock

    /// Most spare blocks of a store of this size: a quarter of its blocks and 2^17 granules, at least 4.
    uint64_t spare_blocks_max() const;
    /// What their redirects may take in the log, in bytes: one each, at worst.
    uint64_t redirect_bytes_max() const { return spare_blocks_max() * granules * sizeof(Redirect); }
    /// Pages that operations in flight may take while the cleaner waits for room.
    uint64_t reserve_pages() const;
    /// Sum of version_bytes (with entry header) that may be live; beyond it, -ENOSPC. Half of the log without the reserve.
    uint64_t live_limit_bytes() const;
    /// True if the cleaner can go on with so much live, of which group_bytes belong to slots that are written again together.
    bool log_takes(uint64_t live_bytes, uint64_t group_bytes) const;
    /// Pages of log that a store of so many blocks gets.
    uint64_t log_pages_needed(uint64_t blocks) const;
    static uint64_t pages_for(uint64_t bytes) { return (bytes + kPagePayload - 1) / kPagePayload; }
};

/// The log begins that far into its area: behind the superblock, two checkpoints and a spare page.
inline constexpr uint64_t kLogStart = 4 * uint64_t{kPageSize};

inline constexpr uint64_t kMinBlocks = 8;

/// Most modifications in flight at a time; max_write_iodepth above it is cut.
inline constexpr uint32_t kMaxWriteDepth = 256;

/// Checks block_size and granularity of the options. Error names the value and what is allowed.
Result<Geometry> check_geometry(const StoreOptions& options);

/// Divides fresh areas. meta_bytes 0: metadata and data share the data area. Error: too small, says how small is enough.
Status lay_out(Geometry& geometry, const StoreOptions& options, uint64_t data_bytes, uint64_t meta_bytes);

/// Fills a page (4096 bytes) with the superblock.
void encode_superblock(uint8_t* page, const Geometry& geometry, const StoreOptions& options, uint64_t uuid,
                       uint64_t previous_uuid = 0);

struct SuperblockInfo {
    uint64_t uuid = 0;
    uint64_t previous_uuid = 0;  ///< the copy on the data device may have this one; 0: none
    bool readonly_only = false;  ///< unknown ro_compatible bits
};
/// Checks a superblock against the options and fills the places in geometry. area: "metadata" or "data", for messages.
Result<SuperblockInfo> decode_superblock(const uint8_t* page, Geometry& geometry, const StoreOptions& options,
                                         const std::string& path, uint64_t area_bytes, bool is_data_area);

/// Of a store on two devices: does the copy on the data device belong to the superblock on the metadata device? Both decoded.
/// Error: -EINVAL, the data of another store; -EIO, of the same one with other sizes.
struct SuperblockPair {
    const Geometry& meta_geometry;
    const SuperblockInfo& meta;
    const Geometry& data_geometry;
    const SuperblockInfo& data;
};
/// is_old: the copy is the one from before a resize that was interrupted at its very end.
Status compare_superblocks(const SuperblockPair& pair, const StoreOptions& options, bool* is_old);

}  // namespace vitastor::store

// SPDX-License-Identifier: GPL-2.0-or-later
// Bytes on disk of the blockstore. Byte tables: docs/formats/store.md (change both in one commit).
// All numbers little-endian; every structure is checksummed with CRC-32C.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vitastor::store {

inline constexpr uint32_t kPageSize = 4096;  ///< unit of the superblock, checkpoints and log pages
inline constexpr uint32_t kFormatVersion = 1;
inline constexpr char kSuperMagic[8] = {'V', 'I', 'T', 'A', 'S', 'T', 'O', 'R'};
inline constexpr char kCheckpointMagic[8] = {'V', 'S', 'C', 'H', 'E', 'C', 'K', '1'};
inline constexpr uint32_t kPageMagic = 0x31474c56;  // "VLG1"

/// Compatibility bits: a reader refuses unknown bits of `incompatible`, opens read-only with unknown bits of
/// `ro_compatible`, and ignores unknown bits of `compatible`.
inline constexpr uint64_t kSpareGranules = 1;  ///< incompatible: redirects to spare blocks, announced writes of several granules
inline constexpr uint64_t kTombstones = 2;     ///< incompatible: tombstone entries
inline constexpr uint64_t kDecided = 64;       ///< incompatible: announced writes with a deciding granule
inline constexpr uint64_t kLogElsewhere = 16;  ///< incompatible: the log does not begin behind the checkpoints (after a resize)
inline constexpr uint64_t kKnownIncompatible = kSpareGranules | kTombstones | kLogElsewhere | kDecided;
inline constexpr uint64_t kKnownRoCompatible = 0;

/// Page 0 of the metadata area, and of the data area when that is on a device of its own.
struct Superblock {
    char magic[8];
    uint32_t crc;  ///< of the whole page with this field 0
    uint32_t version;
    uint64_t compatible, ro_compatible, incompatible;
    uint64_t osd_num;
    uint64_t uuid;  ///< random at formatting; in every log page
    uint32_t block_size, bitmap_granularity;
    uint32_t checksums;  ///< 1: CRC32C of every granule is kept
    uint32_t separate_data;  ///< 1: the data area is on another device
    uint64_t log_offset;  ///< bytes from the start of the metadata area
    uint64_t log_pages;
    uint64_t data_offset;  ///< bytes from the start of the data area (the metadata area if not separate)
    uint64_t block_count;
    uint64_t previous_uuid;  ///< not 0: the copy on the data device may still have this uuid (a resize was interrupted)
    uint8_t reserved[kPageSize - 112];
};
static_assert(sizeof(Superblock) == kPageSize);
static_assert(offsetof(Superblock, osd_num) == 40 && offsetof(Superblock, block_count) == 96);

/// Where the log starts. Two copies (pages 1 and 2 of the metadata area), written in turn; the newest valid one counts.
struct Checkpoint {
    char magic[8];
    uint32_t crc;  ///< of the whole page with this field 0
    uint32_t reserved0;
    uint64_t uuid;
    uint64_t sequence;
    uint64_t tail_slot;  ///< absolute; physical page = tail_slot mod log_pages
    uint64_t tail_page;  ///< number of the first log page that is needed
    uint64_t tail_previous;  ///< write_sequence of the page before it
    uint64_t durable;        ///< write_sequence that was durable when this was written: the log reaches that far
    uint8_t reserved[kPageSize - 64];
};
static_assert(sizeof(Checkpoint) == kPageSize);

struct PageHeader {
    uint32_t magic;
    uint32_t crc;  ///< of the page from byte 8 on
    uint64_t uuid;
    uint64_t page;  ///< logical number; a partly filled page may be there twice, with growing contents
    uint64_t write_sequence;  ///< never used twice
    uint64_t previous;  ///< write_sequence of the final copy of the page before
    uint64_t durable;  ///< write_sequence that was durable when this page was written: all up to it must be there
    uint64_t complete_page;  ///< in-place writes announced in pages before this one have reached the disk
    uint16_t used;  ///< payload bytes
    uint16_t first_entry;  ///< payload offset of the first entry that starts here; 0xffff: none
    uint32_t objects;  ///< with tombstones, about, when this was written; 0: not told. Only to make room for as many at once
};
static_assert(sizeof(PageHeader) == 64);
inline constexpr uint32_t kPagePayload = kPageSize - sizeof(PageHeader);
inline constexpr uint16_t kNoEntry = 0xffff;

enum class EntryType : uint8_t {
    full = 1,       ///< everything about one object: count versions, oldest first
    write = 2,      ///< a new version
    del = 3,        ///< the object with all versions, or its tombstone
    stabilize = 4,  ///< versions up to and including `version`
    rollback = 5,   ///< unstable versions newer than `version`
    tombstone = 6,  ///< no version is left; the object was deleted at `version`
    moved = 7,      ///< redirected granules have been copied to the home block
};

inline constexpr uint8_t kEntryStable = 1;
inline constexpr uint8_t kEntryCreate = 2;   ///< write: the object did not exist
inline constexpr uint8_t kEntryBlock = 4;    ///< write: a u32 block number follows, the version lives there
inline constexpr uint8_t kEntryIntent = 8;   ///< write: the data is written in place after this entry
inline constexpr uint8_t kEntryBitmap = 16;  ///< write: the external bitmap follows
inline constexpr uint8_t kEntrySpare = 32;   ///< write: a SparePlace follows, the granules live there (but for the deciding one)

/// Starts every entry. Entries are a byte stream that runs through the payloads of the pages.
/// write: [u32 block] [SparePlace] [external bitmap] count x u32 CRC32C (intents always, others only with checksums).
/// full: count x { VersionHeader, external bitmap, internal bitmap, Redirects, u32 CRC32C of each allocated granule (with checksums) }.
/// moved: count x Redirect: these granules are at home again, in every version that had them there.
struct EntryHeader {
    uint32_t size;  ///< bytes with this header
    EntryType type;
    uint8_t flags;
    uint16_t count;  ///< write: granules; full: versions; moved: redirects
    uint64_t inode, stripe, version;
    uint32_t first;    ///< write: first granule
    uint32_t decider;  ///< announced write: 1 + number within the range of the one granule that is written after the entry; 0: all
};
static_assert(sizeof(EntryHeader) == 40);

struct VersionHeader {
    uint64_t version;
    uint32_t block;
    uint16_t flags;      ///< kEntryStable
    uint16_t redirects;  ///< that follow, in the order of `first`
};
static_assert(sizeof(VersionHeader) == 16);

/// Where a run of granules lives in a spare block.
struct SparePlace {
    uint32_t block;
    uint16_t place;  ///< granule in the spare block
    uint16_t reserved;
};
static_assert(sizeof(SparePlace) == 8);

/// A run of granules of one version that does not live in its home block.
struct Redirect {
    uint32_t block;  ///< a spare block
    uint16_t first;  ///< granule of the object
    uint16_t count;
    uint16_t place;  ///< granule of the spare block
    uint16_t reserved;
    uint32_t end() const { return uint32_t{first} + count; }
};
static_assert(sizeof(Redirect) == 12);

inline constexpr uint32_t kNoBlock = UINT32_MAX;
inline constexpr uint32_t kMaxGranules = 32768;

}  // namespace vitastor::store

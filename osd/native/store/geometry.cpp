// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/geometry.hpp"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "base/crc32c.hpp"

namespace vitastor::store {

namespace {

constexpr uint64_t kMaxSpareBlocks = 4096;
constexpr uint64_t kStepPages = 34;  // two steps of the cleaner (LogGroups::kStepBytes): must fit beside what is live
constexpr uint64_t kMaxSpareGranules = 1 << 17;

template <class... Args>
std::string text(const char* format, Args... args) {
    char buffer[512];
    snprintf(buffer, sizeof(buffer), format, args...);
    return buffer;
}

using Number = unsigned long long;

uint64_t align_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

/// Pages of log for that many blocks: two and a half times what they need when full, and room for what is in flight.
uint64_t log_pages_for(const Geometry& geometry, uint64_t blocks) {
    Geometry sized = geometry;
    sized.block_count = blocks;
    const uint64_t live = Geometry::pages_for(blocks * (sizeof(EntryHeader) + geometry.version_bytes) + sized.redirect_bytes_max());
    return live * 5 / 2 + 4 * geometry.reserve_pages() / 3;
}

uint32_t page_crc(const uint8_t* page, size_t crc_offset) {
    const uint8_t zero[4] = {};
    uint32_t crc = crc32c(page, crc_offset);
    crc = crc32c(zero, 4, crc);
    return crc32c(page + crc_offset + 4, kPageSize - crc_offset - 4, crc);
}

}  // namespace

uint64_t Geometry::reserve_pages() const {
    return 64 + 2 * uint64_t{kMaxWriteDepth} * pages_for(entry_bytes + 8);
}

uint64_t Geometry::spare_blocks_max() const {
    const uint64_t most = std::min({kMaxSpareBlocks, kMaxSpareGranules / granules, block_count / 4});
    return std::max<uint64_t>(most, 4);
}

uint64_t Geometry::live_limit_bytes() const {
    const uint64_t pages = log_pages - reserve_pages(), most = pages * 8 / 9;
    return std::min(pages / 2, std::max(pages * 4 / 9, most - std::min(most, kStepPages))) * kPagePayload;
}

bool Geometry::log_takes(uint64_t live_bytes, uint64_t group_bytes) const {
    return live_bytes <= live_limit_bytes() && live_bytes + group_bytes <= (log_pages - reserve_pages()) * 8 / 9 * kPagePayload;
}

uint64_t Geometry::log_pages_needed(uint64_t blocks) const { return log_pages_for(*this, blocks); }

Result<Geometry> check_geometry(const StoreOptions& options) {
    const uint32_t block = options.block_size;
    const uint32_t granularity = options.bitmap_granularity;
    if (!std::has_single_bit(block) || block < 4096 || block > (128u << 20))
        return Status(-EINVAL, text("block_size is %u; it must be a power of two from 4096 to 134217728", block));
    if (!std::has_single_bit(granularity) || granularity < 512 || granularity > block / 8 ||
        block / granularity > kMaxGranules)
        return Status(-EINVAL, text("bitmap_granularity is %u; with block_size %u it must be a power of two from %u to %u",
                                    granularity, block, std::max(512u, block / kMaxGranules), block / 8));
    Geometry geometry;
    geometry.block_size = block;
    geometry.granularity = granularity;
    geometry.granules = block / granularity;
    geometry.bitmap_bytes = geometry.granules / 8;
    geometry.checksums = options.checksums;
    geometry.version_bytes = static_cast<uint32_t>(sizeof(VersionHeader)) + 2 * geometry.bitmap_bytes +
                             (options.checksums ? 4 * geometry.granules : 0);
    geometry.entry_bytes = static_cast<uint32_t>(sizeof(EntryHeader)) + geometry.version_bytes;
    return geometry;
}

Status lay_out(Geometry& geometry, const StoreOptions& options, uint64_t data_bytes, uint64_t meta_bytes) {
    const uint64_t unit = std::min<uint64_t>(geometry.block_size, 1 << 20);
    const uint64_t smallest_log = log_pages_for(geometry, kMinBlocks) * kPageSize;
    geometry.meta_area = options.meta_device.empty() ? options.data_offset : options.meta_offset;
    geometry.log_offset = geometry.meta_area + kLogStart;
    if (options.meta_device.empty()) {
        const uint64_t smallest =
            align_up(kLogStart + smallest_log, unit) + kMinBlocks * geometry.block_size;
        if (data_bytes < smallest)
            return Status(-ENOSPC, text("%s: the area of %llu bytes is too small for a store with block_size %u; it needs "
                                        "at least %llu bytes",
                                        options.data_device.c_str(), Number(data_bytes), geometry.block_size,
                                        Number(smallest)));
        uint64_t blocks = (data_bytes - kLogStart) / geometry.block_size;
        for (;;) {  // a few rounds: each takes off what the log of the previous count needs
            const uint64_t start = align_up(kLogStart + log_pages_for(geometry, blocks) * kPageSize, unit);
            const uint64_t fit = start < data_bytes ? (data_bytes - start) / geometry.block_size : 0;
            if (fit >= blocks) break;
            blocks = std::max(fit, kMinBlocks);
            if (blocks == kMinBlocks) break;
        }
        geometry.block_count = std::min<uint64_t>(blocks, kNoBlock - 1);
        geometry.log_pages = log_pages_for(geometry, geometry.block_count);
        geometry.data_offset =
            options.data_offset + align_up(kLogStart + geometry.log_pages * kPageSize, unit);
        return {};
    }
    const uint64_t data_start = unit;  // page 0 is a copy of the superblock
    if (data_bytes < data_start + kMinBlocks * geometry.block_size)
        return Status(-ENOSPC, text("%s: the data area of %llu bytes is too small for a store with block_size %u; it needs "
                                    "at least %llu bytes",
                                    options.data_device.c_str(), Number(data_bytes), geometry.block_size,
                                    Number(data_start + kMinBlocks * geometry.block_size)));
    geometry.block_count =
        std::min<uint64_t>((data_bytes - data_start) / geometry.block_size, kNoBlock - 1);
    geometry.data_offset = options.data_offset + data_start;
    const uint64_t needed = kLogStart + log_pages_for(geometry, geometry.block_count) * kPageSize;
    if (meta_bytes < needed)
        return Status(-ENOSPC, text("%s: the metadata area of %llu bytes is too small for %llu blocks of %u bytes on %s; it "
                                    "needs at least %llu bytes",
                                    options.meta_device.c_str(), Number(meta_bytes), Number(geometry.block_count),
                                    geometry.block_size, options.data_device.c_str(), Number(needed)));
    geometry.log_pages = (meta_bytes - kLogStart) / kPageSize;
    return {};
}

void encode_superblock(uint8_t* page, const Geometry& geometry, const StoreOptions& options, uint64_t uuid,
                       uint64_t previous_uuid) {
    Superblock super;
    memset(&super, 0, sizeof(super));
    memcpy(super.magic, kSuperMagic, sizeof(super.magic));
    super.version = kFormatVersion;
    super.incompatible = geometry.incompatible;
    super.osd_num = options.osd_num;
    super.uuid = uuid;
    super.block_size = geometry.block_size;
    super.bitmap_granularity = geometry.granularity;
    super.checksums = geometry.checksums ? 1 : 0;
    super.separate_data = options.meta_device.empty() ? 0 : 1;
    super.log_offset = geometry.log_offset - geometry.meta_area;
    super.log_pages = geometry.log_pages;
    super.data_offset = geometry.data_offset - options.data_offset;
    super.block_count = geometry.block_count;
    super.previous_uuid = previous_uuid;
    memcpy(page, &super, sizeof(super));
    super.crc = page_crc(page, offsetof(Superblock, crc));
    memcpy(page, &super, sizeof(super));
}

Result<SuperblockInfo> decode_superblock(const uint8_t* page, Geometry& geometry, const StoreOptions& options,
                                         const std::string& path, uint64_t area_bytes, bool is_data_area) {
    Superblock super;
    memcpy(&super, page, sizeof(super));
    const char* name = path.c_str();
    if (memcmp(super.magic, kSuperMagic, sizeof(super.magic)) != 0)
        return Status(-EINVAL, text("%s: the area begins with something that is not a Vitastor store; nothing was changed. "
                                    "If it may be overwritten, clear its first %u bytes and start again",
                                    name, 4 * kPageSize));
    if (page_crc(page, offsetof(Superblock, crc)) != super.crc)
        return Status(-EIO, text("%s: the superblock is damaged (checksum does not match); nothing was changed. "
                                 "If other copies of the data exist, replace this OSD", name));
    if (super.version != kFormatVersion)
        return Status(-EINVAL, text("%s: the store has format version %u, this program knows version %u; start it with the "
                                    "release that made it", name, super.version, kFormatVersion));
    if (super.incompatible & ~kKnownIncompatible)
        return Status(-EINVAL, text("%s: the store uses features that this program does not know (bits 0x%llx); start it "
                                    "with a newer release", name, Number(super.incompatible & ~kKnownIncompatible)));
    if (super.osd_num != options.osd_num)
        return Status(-EINVAL, text("%s: the store belongs to OSD %llu, not to OSD %llu; check osd_num and the device name",
                                    name, Number(super.osd_num), Number(options.osd_num)));
    if (super.block_size != geometry.block_size)
        return Status(-EINVAL, text("%s: the store was made with block_size %u, configured is %u", name, super.block_size,
                                    geometry.block_size));
    if (super.bitmap_granularity != geometry.granularity)
        return Status(-EINVAL, text("%s: the store was made with bitmap_granularity %u, configured is %u", name,
                                    super.bitmap_granularity, geometry.granularity));
    if ((super.checksums != 0) != geometry.checksums)
        return Status(-EINVAL, text("%s: the store was made %s data checksums, configured is %s", name,
                                    super.checksums ? "with" : "without", geometry.checksums ? "with" : "without"));
    if ((super.separate_data != 0) == options.meta_device.empty())
        return Status(-EINVAL, text("%s: the store was made %s a metadata device of its own, configured is %s", name,
                                    super.separate_data ? "with" : "without",
                                    options.meta_device.empty() ? "none" : options.meta_device.c_str()));
    const bool shared = options.meta_device.empty();
    const uint64_t log_end = super.log_offset + super.log_pages * kPageSize;
    const uint64_t data_bytes = super.block_count * geometry.block_size;
    const bool log_elsewhere = super.incompatible & kLogElsewhere;
    const uint64_t data_end = super.data_offset + data_bytes;
    if (super.log_offset < kLogStart || super.log_offset % kPageSize || super.log_offset > (1ull << 60) ||
        (!log_elsewhere && super.log_offset != kLogStart) || super.data_offset % kPageSize || super.data_offset > (1ull << 60) ||
        super.log_pages > (1ull << 40) || super.block_count == 0 || super.block_count >= kNoBlock ||
        (shared && (super.data_offset < kLogStart || (super.data_offset < log_end && super.log_offset < data_end))))
        return Status(-EIO, text("%s: the superblock holds impossible places; replace this OSD", name));
    const uint64_t needed = shared ? std::max(data_end, log_end) : is_data_area ? data_end : log_end;
    if (needed > area_bytes)
        return Status(-ENOSPC, text("%s: the area is %llu bytes long, the store on it %llu bytes; it was cut off", name,
                                    Number(area_bytes), Number(needed)));
    geometry.meta_area = shared ? options.data_offset : options.meta_offset;
    geometry.log_offset = geometry.meta_area + super.log_offset;
    geometry.log_pages = super.log_pages;
    geometry.data_offset = options.data_offset + super.data_offset;
    geometry.block_count = super.block_count;
    geometry.incompatible = super.incompatible;
    if (geometry.log_pages < geometry.reserve_pages() + 16)
        return Status(-EIO, text("%s: the superblock holds an impossible size of the log (%llu pages); replace this OSD",
                                 name, Number(geometry.log_pages)));
    SuperblockInfo info;
    info.uuid = super.uuid;
    info.previous_uuid = super.previous_uuid;
    info.readonly_only = (super.ro_compatible & ~kKnownRoCompatible) != 0;
    return info;
}

Status compare_superblocks(const SuperblockPair& pair, const StoreOptions& options, bool* is_old) {
    const Geometry &meta = pair.meta_geometry, &data = pair.data_geometry;
    const bool differs = data.data_offset != meta.data_offset || data.block_count != meta.block_count || data.log_pages != meta.log_pages;
    const bool may_be_old = pair.meta.previous_uuid && pair.data.uuid == pair.meta.previous_uuid;
    *is_old = may_be_old && (differs || pair.data.uuid != pair.meta.uuid);
    if (pair.data.uuid != pair.meta.uuid && !may_be_old)
        return Status(-EINVAL, options.data_device + ": holds the data of another store than the metadata on " + options.meta_device +
                                   "; check the device names");
    if (differs && !may_be_old)
        return Status(-EIO, options.data_device + ": its superblock and the one on " + options.meta_device +
                                " describe different sizes; replace this OSD");
    return Status();
}

}  // namespace vitastor::store

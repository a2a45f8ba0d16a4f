// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/entry.hpp"

#include <bit>
#include <cstring>

namespace vitastor::store {

namespace {

/// In the order of granules, without overlap, inside both blocks, of granules that are in use (bits; null: any).
bool check_redirects(const Geometry& geometry, const uint8_t* in, uint32_t count, uint32_t home, const uint8_t* bits) {
    uint32_t end = 0;
    for (uint32_t i = 0; i < count; i++) {
        Redirect run;
        memcpy(&run, in + i * sizeof(run), sizeof(run));
        if (run.count == 0 || run.first < end || run.end() > geometry.granules || run.block >= geometry.block_count ||
            run.block == home || uint32_t{run.place} + run.count > geometry.granules)
            return false;
        end = run.end();
        for (uint32_t granule = run.first; bits && granule < end; granule++)
            if (!(bits[granule / 8] & (1u << (granule % 8)))) return false;
    }
    return true;
}

}  // namespace

bool decode_entry(const Geometry& geometry, std::span<const uint8_t> bytes, EntryView& entry) {
    if (bytes.size() < sizeof(EntryHeader)) return false;
    memcpy(&entry.header, bytes.data(), sizeof(EntryHeader));
    const EntryHeader& header = entry.header;
    if (header.size != bytes.size()) return false;
    entry.block = kNoBlock;
    entry.bitmap = entry.crcs = entry.versions = entry.redirects = nullptr;
    entry.spare = {};
    const uint8_t* in = bytes.data() + sizeof(EntryHeader);
    size_t left = bytes.size() - sizeof(EntryHeader);
    switch (header.type) {
        case EntryType::write: {
            if (header.version == 0 || header.count > geometry.granules ||
                header.first > geometry.granules - header.count)
                return false;
            if (header.decider && (!entry.has(kEntryIntent) || header.count < 2 || header.decider > header.count)) return false;
            if (entry.has(kEntryBlock)) {
                if (left < 4) return false;
                memcpy(&entry.block, in, 4);
                if (entry.block >= geometry.block_count) return false;
                in += 4;
                left -= 4;
            }
            if (entry.has(kEntrySpare)) {
                if (left < sizeof(SparePlace) || header.count == 0) return false;
                if (header.flags & (kEntryBlock | kEntryCreate)) return false;
                if (entry.has(kEntryIntent) && header.decider != 1 && header.decider != header.count) return false;
                memcpy(&entry.spare, in, sizeof(SparePlace));
                const Redirect run = entry.spare_run();
                if (run.block >= geometry.block_count || uint32_t{run.place} + run.count > geometry.granules) return false;
                in += sizeof(SparePlace);
                left -= sizeof(SparePlace);
            }
            if (entry.has(kEntryBitmap)) {
                if (left < geometry.bitmap_bytes) return false;
                entry.bitmap = in;
                in += geometry.bitmap_bytes;
                left -= geometry.bitmap_bytes;
            }
            if (entry.has(kEntryCreate) && header.count && !entry.has(kEntryBlock)) return false;
            if (entry.has(kEntryIntent) && (header.count == 0 || !entry.has(kEntryStable) || entry.has(kEntryBlock))) return false;
            if (geometry.checksums || entry.has(kEntryIntent)) {
                entry.crcs = in;
                return left == 4 * size_t{header.count};
            }
            return left == 0;
        }
        case EntryType::full: {
            if (header.count == 0) return false;
            entry.versions = in;
            Version previous = 0;
            for (uint16_t i = 0; i < header.count; i++) {
                if (left < sizeof(VersionHeader) + 2 * size_t{geometry.bitmap_bytes}) return false;
                VersionHeader version;
                memcpy(&version, in, sizeof(version));
                if (version.version <= previous) return false;
                if (version.block != kNoBlock && version.block >= geometry.block_count) return false;
                if (i > 0 && (version.flags & kEntryStable)) return false;
                previous = version.version;
                in += sizeof(version) + geometry.bitmap_bytes;
                size_t crc_bytes = 0;
                bool any = false;
                for (uint32_t k = 0; k < geometry.bitmap_bytes; k++) {
                    any = any || in[k];
                    crc_bytes += geometry.checksums ? 4 * static_cast<size_t>(std::popcount(in[k])) : 0;
                }
                if ((any || version.redirects) && version.block == kNoBlock) return false;
                const uint8_t* bits = in;
                in += geometry.bitmap_bytes;
                left -= sizeof(version) + 2 * size_t{geometry.bitmap_bytes};
                const size_t redirect_bytes = size_t{version.redirects} * sizeof(Redirect);
                if (left < redirect_bytes || !check_redirects(geometry, in, version.redirects, version.block, bits)) return false;
                in += redirect_bytes;
                left -= redirect_bytes;
                if (left < crc_bytes) return false;
                in += crc_bytes;
                left -= crc_bytes;
            }
            return left == 0 && previous == header.version;
        }
        case EntryType::tombstone:
            return left == 0 && header.version != 0;
        case EntryType::del:
        case EntryType::stabilize:
        case EntryType::rollback:
            return left == 0;
        case EntryType::moved:
            entry.redirects = in;
            return header.count > 0 && left == size_t{header.count} * sizeof(Redirect) &&
                   check_redirects(geometry, in, header.count, kNoBlock, nullptr);
    }
    return false;
}

void map_blocks(const Geometry& geometry, std::span<uint8_t> full, const std::function<uint32_t(uint32_t)>& map) {
    EntryHeader header;
    memcpy(&header, full.data(), sizeof(header));
    if (header.type != EntryType::full) return;  // a tombstone
    uint8_t* in = full.data() + sizeof(header);
    for (uint16_t i = 0; i < header.count; i++) {
        VersionHeader version;
        memcpy(&version, in, sizeof(version));
        if (version.block != kNoBlock) version.block = map(version.block);
        memcpy(in, &version, sizeof(version));
        in += sizeof(version) + geometry.bitmap_bytes;
        size_t crc_bytes = 0;
        for (uint32_t k = 0; k < geometry.bitmap_bytes; k++)
            crc_bytes += geometry.checksums ? 4 * static_cast<size_t>(std::popcount(in[k])) : 0;
        in += geometry.bitmap_bytes;
        for (uint16_t k = 0; k < version.redirects; k++, in += sizeof(Redirect)) {
            Redirect run;
            memcpy(&run, in, sizeof(run));
            run.block = map(run.block);
            memcpy(in, &run, sizeof(run));
        }
        in += crc_bytes;
    }
}

}  // namespace vitastor::store

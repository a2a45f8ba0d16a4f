// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/entry.hpp"

#include <bit>
#include <cstring>

namespace vitastor::store {

bool decode_entry(const Geometry& geometry, std::span<const uint8_t> bytes, EntryView& entry) {
    if (bytes.size() < sizeof(EntryHeader)) return false;
    memcpy(&entry.header, bytes.data(), sizeof(EntryHeader));
    const EntryHeader& header = entry.header;
    if (header.size != bytes.size()) return false;
    entry.block = kNoBlock;
    entry.bitmap = entry.crcs = entry.versions = nullptr;
    const uint8_t* in = bytes.data() + sizeof(EntryHeader);
    size_t left = bytes.size() - sizeof(EntryHeader);
    switch (header.type) {
        case EntryType::write: {
            if (header.version == 0 || header.count > geometry.granules ||
                header.first > geometry.granules - header.count)
                return false;
            if (entry.has(kEntryBlock)) {
                if (left < 4) return false;
                memcpy(&entry.block, in, 4);
                if (entry.block >= geometry.block_count) return false;
                in += 4;
                left -= 4;
            }
            if (entry.has(kEntryBitmap)) {
                if (left < geometry.bitmap_bytes) return false;
                entry.bitmap = in;
                in += geometry.bitmap_bytes;
                left -= geometry.bitmap_bytes;
            }
            if (entry.has(kEntryCreate) && header.count && !entry.has(kEntryBlock)) return false;
            if (entry.has(kEntryIntent) && (header.count != 1 || !entry.has(kEntryStable))) return false;
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
                if (any && version.block == kNoBlock) return false;
                in += geometry.bitmap_bytes;
                left -= sizeof(version) + 2 * size_t{geometry.bitmap_bytes};
                if (left < crc_bytes) return false;
                in += crc_bytes;
                left -= crc_bytes;
            }
            return left == 0 && previous == header.version;
        }
        case EntryType::del:
        case EntryType::stabilize:
        case EntryType::rollback:
            return left == 0;
    }
    return false;
}

}  // namespace vitastor::store

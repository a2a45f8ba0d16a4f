// SPDX-License-Identifier: GPL-2.0-or-later
// Entries of the log as bytes: checked on the way in. Byte tables: docs/formats/store.md 5.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "base/ids.hpp"
#include "store/geometry.hpp"
#include "store/store_format.hpp"

namespace vitastor::store {

/// One entry of the log, checked. Points into the bytes it was read from.
struct EntryView {
    EntryHeader header;
    uint32_t block = kNoBlock;
    const uint8_t* bitmap = nullptr;  ///< bitmap_bytes or null
    const uint8_t* crcs = nullptr;    ///< count x u32, unaligned, or null
    SparePlace spare{};                  ///< write with kEntrySpare
    const uint8_t* versions = nullptr;   ///< full
    const uint8_t* redirects = nullptr;  ///< moved: count x Redirect, unaligned
    ObjectId object() const { return {header.inode, header.stripe}; }
    bool has(uint8_t flag) const { return header.flags & flag; }
    /// Of a write with a deciding granule: its number in the block.
    uint32_t deciding_granule() const { return header.first + header.decider - 1; }
    /// Write with kEntrySpare: the granules that live there. A deciding granule is the first or the last of the range.
    Redirect spare_run() const {
        return {spare.block, static_cast<uint16_t>(header.first + (header.decider == 1 ? 1 : 0)),
                static_cast<uint16_t>(header.count - (header.decider ? 1 : 0)), spare.place, 0};
    }
};

/// false: the bytes are not an entry that this geometry can hold. bytes: exactly header.size long.
bool decode_entry(const Geometry& geometry, std::span<const uint8_t> bytes, EntryView& entry);

/// Replaces every block number in what Index::encode_full() makes by what `map` makes of it. For resize.
void map_blocks(const Geometry& geometry, std::span<uint8_t> full, const std::function<uint32_t(uint32_t)>& map);

}  // namespace vitastor::store

// SPDX-License-Identifier: GPL-2.0-or-later
// Lists of checksums that are on disk alone (docs/adr/0032-checksums-out-of-memory.md).
#include "base/assert.hpp"
#include "store/index.hpp"

namespace vitastor::store {

bool Index::is_whole_list(uint32_t slot, const EntryView& entry) const {
    if (at(slot).state != SlotState::head || at(slot).older != kNoSlot || !geometry_.checksums) return false;
    if (entry.header.type == EntryType::full) return entry.header.count == 1 && granule_count(slot) > 0;
    return entry.header.type == EntryType::write && entry.header.count > 0 && entry.header.count == granule_count(slot);
}

void Index::swap_out(uint32_t slot, uint32_t page) {
    VITASTOR_ASSERT(may_swap_ && has_single_list(slot) && page < kSwappedList);
    release_crcs(slot, granule_count(slot));
    at(slot).crcs = kSwappedList | page;
}

/// What stands for a lost checksum is that of no data in the house: differs from granule to granule, so that no constant fits.
static uint32_t lost_sum(uint32_t granule) { return 0xbad5a5a5u ^ (granule * 2654435761u); }

void Index::swap_in(uint32_t slot, const uint32_t* sums) {
    VITASTOR_ASSERT(is_swapped(slot));
    at(slot).crcs = 0;
    allocate_crcs(slot);
    const uint32_t count = granule_count(slot);
    for (uint32_t i = 0; i < count; i++) crc_array(slot)[i] = sums ? sums[i] : lost_sum(i);
}

void Index::make_partial(uint32_t slot) {
    VITASTOR_ASSERT(is_loading_);  // afterwards lists are fetched before they change
    partial_[slot] = {swapped_page(slot), at(slot).version, std::vector<uint8_t>(geometry_.bitmap_bytes)};
    swap_in(slot, nullptr);
}

uint32_t Index::complete_list(uint32_t slot, const uint8_t* bits, const uint32_t* sums) {
    const auto found = partial_.find(slot);
    VITASTOR_ASSERT(found != partial_.end());
    uint32_t lost = 0, rank = 0;
    for (uint32_t granule = 0; granule < geometry_.granules; granule++) {
        const bool is_there = bits && (bits[granule / 8] & (1u << (granule % 8)));
        if (is_allocated(slot, granule) && !found->second.knows(granule)) {
            if (is_there) set_crc(slot, granule, sums[rank]);
            else lost++;
        }
        rank += is_there;
    }
    partial_.erase(found);
    return lost;
}

}  // namespace vitastor::store

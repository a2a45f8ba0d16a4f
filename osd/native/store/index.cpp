// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/index.hpp"

#include <bit>

#include "base/assert.hpp"

namespace vitastor::store {

Index::Index(const Geometry& geometry)
    : geometry_(geometry),
      block_shift_(std::countr_zero(geometry.block_size)),
      record_bytes_((sizeof(Slot) + 2 * size_t{geometry.bitmap_bytes} + 3) / 4 * 4),
      slots_(record_bytes_, &room_),
      crcs_(geometry.granules, &room_),
      inodes_(&room_),
      buckets_(&room_) {}

// ---------------------------------------------------------------- slots

uint32_t Index::allocate_slot() {
    uint32_t slot = first_free_;
    if (slot != kNoSlot) {
        first_free_ = at(slot).hash_next;
    } else {
        if (slot_count_ == kNoSlot) return kNoSlot;
        if (slot_count_ == slots_.capacity()) slots_.grow();
        slot = slot_count_++;
    }
    memset(raw(slot), 0, sizeof(Slot) + 2 * size_t{geometry_.bitmap_bytes});
    Slot& record = at(slot);
    record.block = kNoBlock;
    record.hash_next = record.pg_previous = record.pg_next = record.older = kNoSlot;
    return slot;
}

void Index::free_slot(uint32_t slot) {
    release_crcs(slot, granule_count(slot));
    if (!partial_.empty()) partial_.erase(slot);
    Slot& record = at(slot);
    inodes_.drop_user(record.inode);
    if (record.is_redirected) set_redirects(slot, {});
    record.state = SlotState::free;
    record.hash_next = first_free_;
    first_free_ = slot;
}

uint32_t Index::reserve(const ObjectId& object) {
    const uint32_t inode = inodes_.add_user(object.inode);
    if (inode == InodeTable::kNone) return kNoSlot;
    const uint32_t slot = allocate_slot();
    if (slot == kNoSlot) {
        inodes_.drop_user(inode);
        return slot;
    }
    Slot& record = at(slot);
    record.inode = inode;
    record.stripe = object.stripe;
    record.state = SlotState::reserved;
    return slot;
}

void Index::unreserve(uint32_t slot) {
    VITASTOR_ASSERT(at(slot).state == SlotState::reserved);
    free_slot(slot);
}

// ---------------------------------------------------------------- checksums

uint32_t Index::count_bits(const uint8_t* bits, uint32_t end) {
    uint32_t count = 0, byte = 0;
    for (; (byte + 8) * 8 <= end; byte += 8) {
        uint64_t word;
        memcpy(&word, bits + byte, 8);
        count += static_cast<uint32_t>(std::popcount(word));
    }
    for (; byte * 8 < end; byte++) {
        const uint32_t mask = end - byte * 8 >= 8 ? 0xff : (1u << (end - byte * 8)) - 1;
        count += static_cast<uint32_t>(std::popcount(bits[byte] & mask));
    }
    return count;
}

void Index::allocate_crcs(uint32_t slot) {
    const uint32_t count = granule_count(slot);
    if (geometry_.checksums && count) at(slot).crcs = crcs_.allocate(CrcArrays::class_of(count), slot);
}

void Index::release_crcs(uint32_t slot, uint32_t count) {
    if (!geometry_.checksums || !count) return;
    if (is_swapped(slot)) {
        at(slot).crcs = 0;
        return;
    }
    const uint32_t place = at(slot).crcs;
    const uint32_t moved = crcs_.release(CrcArrays::class_of(count), place);
    if (moved != CrcArrays::kNoOwner) at(moved).crcs = place;
}

/// Marks granules as allocated. crcs: of each of them, in any alignment; not used without checksums.
void Index::put_granules(uint32_t slot, uint32_t first, uint32_t count, const uint8_t* crcs) {
    if (count == 0) return;
    const uint32_t before = granule_count(slot);
    const uint32_t below = granules_before(slot, first);
    const uint32_t above = before - granules_before(slot, first + count);
    const bool has_list = before && !is_swapped(slot);
    VITASTOR_ASSERT(has_list || below + above == 0);  // what is on disk alone is replaced as a whole, or was fetched before
    const uint32_t after = below + count + above;
    if (after != before) {
        uint8_t* bits = allocated_bits(slot);
        for (uint32_t granule = first; granule < first + count; granule++)
            bits[granule / 8] = static_cast<uint8_t>(bits[granule / 8] | (1u << (granule % 8)));
    }
    if (!geometry_.checksums) return;
    const uint32_t kind = CrcArrays::class_of(after);
    uint32_t* array;
    if (has_list && CrcArrays::class_of(before) == kind) {
        array = crcs_.at(kind, at(slot).crcs);
        if (after != before) memmove(array + below + count, array + before - above, 4 * size_t{above});
    } else {
        const uint32_t place = crcs_.allocate(kind, slot);
        array = crcs_.at(kind, place);
        if (has_list) {
            const uint32_t* old = crcs_.at(CrcArrays::class_of(before), at(slot).crcs);
            memcpy(array, old, 4 * size_t{below});
            memcpy(array + below + count, old + before - above, 4 * size_t{above});
            release_crcs(slot, before);  // an array of another class moves: this one stays
        }
        at(slot).crcs = place;
    }
    memcpy(array + below, crcs, 4 * size_t{count});
    if (partial_.empty()) return;
    const auto partial = partial_.find(slot);
    if (partial == partial_.end()) return;
    for (uint32_t granule = first; granule < first + count; granule++)
        partial->second.known[granule / 8] = static_cast<uint8_t>(partial->second.known[granule / 8] | (1u << (granule % 8)));
    if (below + above == 0) partial_.erase(partial);
}

/// Sets the whole bitmap. crcs: of each granule in it.
void Index::replace_granules(uint32_t slot, const uint8_t* bits, const uint8_t* crcs) {
    uint32_t before = granule_count(slot);
    if (is_swapped(slot)) before = at(slot).crcs = 0;
    if (!partial_.empty()) partial_.erase(slot);
    memcpy(allocated_bits(slot), bits, geometry_.bitmap_bytes);
    if (!geometry_.checksums) return;
    const uint32_t after = granule_count(slot);
    if (!before || !after || CrcArrays::class_of(before) != CrcArrays::class_of(after)) {
        release_crcs(slot, before);
        allocate_crcs(slot);
    }
    if (after) memcpy(crc_array(slot), crcs, 4 * size_t{after});
}

// ---------------------------------------------------------------- hash

uint32_t Index::find(const ObjectId& object) const {
    const uint32_t slot = find_any(object);
    return slot != kNoSlot && at(slot).state == SlotState::head ? slot : kNoSlot;
}

uint32_t Index::find_any(const ObjectId& object) const {
    if (recent_ != kNoSlot && is_linked(recent_)) {
        const Slot& record = at(recent_);
        if (record.stripe == object.stripe && inodes_.inode(record.inode) == object.inode) return recent_;
    }
    const uint32_t inode = inodes_.find(object.inode);
    if (inode == InodeTable::kNone) return kNoSlot;
    const uint64_t place = hash(inode, object.stripe);
    if (buckets_.lacks(place)) return kNoSlot;
    uint32_t slot = buckets_.first(place);
    while (slot != kNoSlot) {
        const Slot& record = at(slot);
        if (record.stripe == object.stripe && record.inode == inode) return recent_ = slot;
        slot = record.hash_next;
    }
    return kNoSlot;
}

void Index::prefetch_rest(uint32_t first, const ObjectId& object) const {
    constexpr uint32_t kMostLines = 4;
    if (first == kNoSlot) return;
    const Slot& record = at(first);
    if (record.stripe != object.stripe) {  // or the inode is another's: rare
        if (record.hash_next != kNoSlot) prefetch_record(record.hash_next, record_bytes_);
        return;
    }
    if (record.state != SlotState::head || !geometry_.checksums || is_swapped(first)) return;  // it may have been freed meanwhile
    const uint32_t count = granule_count(first);
    if (!count) return;
    const auto* list = reinterpret_cast<const uint8_t*>(const_cast<Index*>(this)->crc_array(first) - 1);  // with its owner
    for (uint32_t i = 0; i < kMostLines && i * 64 < 4 * (count + 1); i++) fetch_ahead(list + i * 64);
}

uint32_t Index::find_version(uint32_t head, Version version) const {
    for (uint32_t slot = head; slot != kNoSlot; slot = at(slot).older)
        if (at(slot).version <= version) return slot;
    return kNoSlot;
}

void Index::link(uint32_t slot) {
    Slot& record = at(slot);
    record.state = SlotState::head;
    const uint64_t place = hash_of(slot);
    buckets_.note(place);
    uint32_t& first = buckets_.first(place);
    record.hash_next = first;
    first = slot;
    linked_count_++;
    if (!is_loading_) pg_link(slot);
    buckets_.grow(
        linked_count_, [this](uint32_t item) { return hash_of(item); },
        [this](uint32_t item) -> uint32_t& { return at(item).hash_next; }, [this](uint32_t item) { fetch_ahead(raw(item)); });
}

bool Index::expect(uint64_t objects) {
    constexpr uint64_t kAtOnce = 32768;  // buckets; some 20 microseconds
    VITASTOR_ASSERT(linked_count_ == 0);
    if (buckets_.count() == 1) buckets_.expect(objects);
    for (uint64_t i = 0; i < kAtOnce && buckets_.count() < objects; i++) buckets_.add_empty();
    return buckets_.count() >= objects;
}

void Index::unlink(uint32_t slot) {
    uint32_t* place = &buckets_.first(hash_of(slot));
    while (*place != slot) {
        VITASTOR_ASSERT(*place != kNoSlot);
        place = &at(*place).hash_next;
    }
    *place = at(slot).hash_next;
    linked_count_--;
    if (!is_loading_) pg_unlink(slot);
}

// ---------------------------------------------------------------- numbers

uint64_t Index::memory_bytes() const {
    return sizeof(room_) + slots_.memory_bytes() + crcs_.memory_bytes() + inodes_.memory_bytes() + buckets_.memory_bytes() +
           redirects_.memory_bytes();
}

}  // namespace vitastor::store

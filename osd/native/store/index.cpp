// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/index.hpp"

#include "base/assert.hpp"

namespace vitastor::store {

Index::Index(const Geometry& geometry) : geometry_(geometry) {
    crc_offset_ = sizeof(Slot) + 2 * size_t{geometry.bitmap_bytes};
    crc_offset_ = (crc_offset_ + 3) / 4 * 4;
    slot_bytes_ = crc_offset_ + (geometry.checksums ? 4 * size_t{geometry.granules} : 0);
    slot_bytes_ = (slot_bytes_ + 7) / 8 * 8;
    while (slot_bytes_ << (slab_shift_ + 1) <= kSlabBytes) slab_shift_++;
    slab_mask_ = (size_t{1} << slab_shift_) - 1;
    bucket_segments_.push_back(std::make_unique<uint32_t[]>(kBucketsPerSegment));
    memset(bucket_segments_[0].get(), 0xff, kBucketsPerSegment * 4);
    bucket_count_ = 1024;
    bucket_mask_ = 1023;
}

// ---------------------------------------------------------------- slots

uint32_t Index::allocate_slot() {
    uint32_t slot = first_free_;
    if (slot != kNoSlot) {
        first_free_ = at(slot).hash_next;
    } else {
        if (slot_count_ == kNoSlot) return kNoSlot;
        if ((slot_count_ & slab_mask_) == 0)
            slabs_.emplace_back(static_cast<uint8_t*>(::operator new[](slot_bytes_ << slab_shift_)));
        slot = slot_count_++;
    }
    memset(raw(slot), 0, slot_bytes_);
    Slot& record = at(slot);
    record.block = kNoBlock;
    record.hash_next = record.pg_previous = record.pg_next = record.older = kNoSlot;
    return slot;
}

void Index::free_slot(uint32_t slot) {
    Slot& record = at(slot);
    record.state = SlotState::free;
    record.hash_next = first_free_;
    first_free_ = slot;
}

uint32_t Index::reserve(const ObjectId& object) {
    const uint32_t slot = allocate_slot();
    if (slot == kNoSlot) return slot;
    Slot& record = at(slot);
    record.inode = object.inode;
    record.stripe = object.stripe;
    record.state = SlotState::reserved;
    return slot;
}

void Index::unreserve(uint32_t slot) {
    VITASTOR_ASSERT(at(slot).state == SlotState::reserved);
    free_slot(slot);
}

// ---------------------------------------------------------------- hash: linear hashing, one bucket split per insertion

uint32_t& Index::bucket(uint64_t hash) {
    uint64_t index = hash & (bucket_mask_ * 2 + 1);
    if (index >= bucket_count_) index &= bucket_mask_;
    return bucket_at(index);
}

void Index::grow_table() {
    if (object_count_ <= bucket_count_) return;
    const uint64_t fresh = bucket_count_;
    if (fresh % kBucketsPerSegment == 0) {
        bucket_segments_.push_back(std::make_unique<uint32_t[]>(kBucketsPerSegment));
        memset(bucket_segments_.back().get(), 0xff, kBucketsPerSegment * 4);
    }
    const uint64_t wide = bucket_mask_ * 2 + 1;
    uint32_t* from = &bucket_at(fresh & bucket_mask_);
    uint32_t* to = &bucket_at(fresh);
    bucket_count_++;
    while (*from != kNoSlot) {
        Slot& record = at(*from);
        if ((ObjectIdHash()(record.object()) & wide) == fresh) {
            const uint32_t moved = *from;
            *from = record.hash_next;
            record.hash_next = *to;
            *to = moved;
        } else {
            from = &record.hash_next;
        }
    }
    if (bucket_count_ == wide + 1) bucket_mask_ = wide;
}

uint32_t Index::find(const ObjectId& object) const {
    uint32_t slot = bucket(ObjectIdHash()(object));
    while (slot != kNoSlot) {
        const Slot& record = at(slot);
        if (record.stripe == object.stripe && record.inode == object.inode) return slot;
        slot = record.hash_next;
    }
    return kNoSlot;
}

uint32_t Index::find_version(uint32_t head, Version version) const {
    for (uint32_t slot = head; slot != kNoSlot; slot = at(slot).older)
        if (at(slot).version <= version) return slot;
    return kNoSlot;
}

void Index::link(uint32_t slot) {
    Slot& record = at(slot);
    record.state = SlotState::head;
    uint32_t& first = bucket(ObjectIdHash()(record.object()));
    record.hash_next = first;
    first = slot;
    object_count_++;
    pg_link(slot);
    grow_table();
}

void Index::unlink(uint32_t slot) {
    uint32_t* place = &bucket(ObjectIdHash()(at(slot).object()));
    while (*place != slot) {
        VITASTOR_ASSERT(*place != kNoSlot);
        place = &at(*place).hash_next;
    }
    *place = at(slot).hash_next;
    object_count_--;
    pg_unlink(slot);
}

// ---------------------------------------------------------------- numbers

uint64_t Index::memory_bytes() const {
    return slabs_.size() * (slot_bytes_ << slab_shift_) + bucket_segments_.size() * kBucketsPerSegment * 4;
}

}  // namespace vitastor::store

// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/index.hpp"

#include <bit>

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

// ---------------------------------------------------------------- PGs

Index::Pool& Index::pool(PoolId id) {
    if (last_pool_ && last_pool_->id == id) return *last_pool_;
    Pool& pool = pools_[id];
    pool.id = id;
    last_pool_ = &pool;
    return pool;
}

void Index::pg_link(uint32_t slot) {
    Slot& record = at(slot);
    Pool& pool = this->pool(pool_of(record.inode));
    uint32_t& head = pool.heads[pool.pg_index(record.stripe)];
    record.pg_previous = kNoSlot;
    record.pg_next = head;
    if (head != kNoSlot) at(head).pg_previous = slot;
    head = slot;
}

void Index::pg_unlink(uint32_t slot) {
    Slot& record = at(slot);
    for (Walker* walker = walkers_; walker; walker = walker->next)
        if (walker->position == slot) walker->position = record.pg_next;
    if (record.pg_next != kNoSlot) at(record.pg_next).pg_previous = record.pg_previous;
    if (record.pg_previous != kNoSlot) {
        at(record.pg_previous).pg_next = record.pg_next;
        return;
    }
    Pool& pool = this->pool(pool_of(record.inode));
    uint32_t* head = &pool.heads[pool.pg_index(record.stripe)];
    if (*head != slot) {
        VITASTOR_ASSERT(pool.rebuilding());
        head = &pool.old_heads[static_cast<uint32_t>(record.stripe / pool.old_stripe_size % pool.old_pg_count)];
    }
    VITASTOR_ASSERT(*head == slot);
    *head = record.pg_next;
}

void Index::set_pool_pgs(PoolId id, uint32_t pg_count, uint64_t stripe_size) {
    Pool& pool = this->pool(id);
    VITASTOR_ASSERT(!pool.rebuilding());
    VITASTOR_ASSERT(pg_count > 0 && stripe_size > 0);
    pool.configured = true;
    if (pool.pg_count == pg_count && pool.stripe_size == stripe_size) return;
    pool.generation++;
    pool.old_pg_count = pool.pg_count;
    pool.old_stripe_size = pool.stripe_size;
    pool.old_heads.swap(pool.heads);
    pool.old_position = 0;
    pool.pg_count = pg_count;
    pool.stripe_size = stripe_size;
    pool.heads.assign(pg_count, kNoSlot);
}

bool Index::rebuild_step(Pool& pool, uint32_t limit) {
    while (pool.old_position < pool.old_heads.size()) {
        const uint32_t slot = pool.old_heads[pool.old_position];
        if (slot == kNoSlot) {
            pool.old_position++;
            if (limit-- <= 1) return false;
            continue;
        }
        if (limit-- <= 1) return false;
        const uint32_t next = at(slot).pg_next;
        pool.old_heads[pool.old_position] = next;
        if (next != kNoSlot) at(next).pg_previous = kNoSlot;
        pg_link(slot);
    }
    pool.old_heads.clear();
    pool.old_heads.shrink_to_fit();
    return true;
}

void Index::add_walker(Walker& walker) {
    walker.next = walkers_;
    walkers_ = &walker;
}

void Index::remove_walker(Walker& walker) {
    for (Walker** place = &walkers_; *place; place = &(*place)->next) {
        if (*place != &walker) continue;
        *place = walker.next;
        return;
    }
}

// ---------------------------------------------------------------- versions

void Index::count_block(InodeNum inode, int64_t change) {
    auto place = blocks_by_inode_.try_emplace(inode, 0).first;
    place->second += static_cast<uint64_t>(change);
    if (place->second == 0) blocks_by_inode_.erase(place);
}

bool Index::block_shared(uint32_t head, uint32_t except, uint32_t block) const {
    for (uint32_t slot = head; slot != kNoSlot; slot = at(slot).older)
        if (slot != except && at(slot).block == block) return true;
    return false;
}

/// Lets go of the block of one version (which stays in its slot).
void Index::drop_version(uint32_t head, uint32_t slot, BlockSink& sink) {
    const uint32_t block = at(slot).block;
    if (block == kNoBlock || block_shared(head, slot, block)) {
        at(slot).block = kNoBlock;
        return;
    }
    at(slot).block = kNoBlock;
    count_block(at(slot).inode, -1);
    sink.release_block(block);
}

void Index::remove_object(uint32_t head, BlockSink& sink) {
    unlink(head);
    uint32_t slot = head;
    while (slot != kNoSlot) {
        drop_version(head, slot, sink);
        slot = at(slot).older;
    }
    for (slot = head; slot != kNoSlot;) {
        const uint32_t older = at(slot).older;
        free_slot(slot);
        version_count_--;
        slot = older;
    }
}

void Index::copy_version(uint32_t to, uint32_t from) {
    Slot& target = at(to);
    const Slot& source = at(from);
    target.inode = source.inode;
    target.stripe = source.stripe;
    target.version = source.version;
    target.block = source.block;
    target.older = source.older;
    target.is_stable = source.is_stable;
    memcpy(raw(to) + sizeof(Slot), raw(from) + sizeof(Slot), slot_bytes_ - sizeof(Slot));
}

bool Index::apply(const EntryView& entry, uint32_t reserved, BlockSink& sink) {
    const EntryHeader& header = entry.header;
    if (header.type == EntryType::write) return apply_write(entry, reserved, sink);
    if (header.type == EntryType::full) {
        apply_full(entry, sink);
        return true;
    }
    const uint32_t head = find(entry.object());
    if (head == kNoSlot) return false;
    if (header.type == EntryType::del) {
        remove_object(head, sink);
    } else if (header.type == EntryType::stabilize) {
        const uint32_t slot = find_version(head, header.version);
        if (slot == kNoSlot) return true;
        at(slot).is_stable = 1;
        for (uint32_t older = at(slot).older; older != kNoSlot;) {
            const uint32_t next = at(older).older;
            drop_version(head, older, sink);
            at(slot).older = next;
            free_slot(older);
            version_count_--;
            older = next;
        }
    } else {
        while (!at(head).is_stable && at(head).version > header.version) {
            const uint32_t older = at(head).older;
            if (older == kNoSlot) {
                remove_object(head, sink);
                return true;
            }
            drop_version(head, head, sink);
            copy_version(head, older);
            free_slot(older);
            version_count_--;
        }
    }
    return true;
}

bool Index::apply_write(const EntryView& entry, uint32_t reserved, BlockSink& sink) {
    const EntryHeader& header = entry.header;
    uint32_t head = find(entry.object());
    if (head == kNoSlot) {
        if (!entry.has(kEntryCreate)) return false;
        head = reserved;
        if (head == kNoSlot) {
            head = reserve(entry.object());
            VITASTOR_ASSERT(head != kNoSlot);
        }
        link(head);
        version_count_++;
    } else if (header.count && !entry.has(kEntryBlock) && at(head).block == kNoBlock) {
        return false;
    } else if (!entry.has(kEntryStable)) {
        const uint32_t older = allocate_slot();
        VITASTOR_ASSERT(older != kNoSlot);
        copy_version(older, head);
        at(older).state = SlotState::older;
        at(head).older = older;
        version_count_++;
    }
    Slot& record = at(head);
    record.version = header.version;
    record.is_stable = entry.has(kEntryStable) ? 1 : 0;
    if (entry.has(kEntryBlock)) {
        drop_version(head, head, sink);
        at(head).block = entry.block;
        count_block(header.inode, 1);
    }
    if (entry.bitmap) memcpy(bitmap(head), entry.bitmap, geometry_.bitmap_bytes);
    uint8_t* bits = allocated(head);
    for (uint32_t i = 0; i < header.count; i++) {
        const uint32_t granule = header.first + i;
        bits[granule / 8] = static_cast<uint8_t>(bits[granule / 8] | (1u << (granule % 8)));
    }
    if (geometry_.checksums && header.count)
        memcpy(raw(head) + crc_offset_ + 4 * size_t{header.first}, entry.crcs, 4 * size_t{header.count});
    return true;
}

void Index::apply_full(const EntryView& entry, BlockSink& sink) {
    // The head slot is kept if the object is there: slots are handed out in the order of first appearance.
    uint32_t head = find(entry.object());
    if (head == kNoSlot) {
        head = reserve(entry.object());
        VITASTOR_ASSERT(head != kNoSlot);
        link(head);
        version_count_++;
    } else {
        drop_version(head, head, sink);
        for (uint32_t older = at(head).older; older != kNoSlot;) {
            const uint32_t next = at(older).older;
            drop_version(head, older, sink);
            at(head).older = next;
            free_slot(older);
            version_count_--;
            older = next;
        }
    }
    const uint8_t* in = entry.versions;
    for (uint16_t i = 0; i < entry.header.count; i++) {
        if (i > 0) {
            const uint32_t older = allocate_slot();
            VITASTOR_ASSERT(older != kNoSlot);
            copy_version(older, head);
            at(older).state = SlotState::older;
            at(head).older = older;
            version_count_++;
        }
        VersionHeader version;
        memcpy(&version, in, sizeof(version));
        in += sizeof(version);
        Slot& record = at(head);
        record.version = version.version;
        record.is_stable = version.flags & kEntryStable ? 1 : 0;
        record.block = version.block;
        if (version.block != kNoBlock && !block_shared(record.older, kNoSlot, version.block))
            count_block(record.inode, 1);
        memcpy(bitmap(head), in, geometry_.bitmap_bytes);
        in += geometry_.bitmap_bytes;
        memcpy(allocated(head), in, geometry_.bitmap_bytes);
        in += geometry_.bitmap_bytes;
        if (!geometry_.checksums) continue;
        for (uint32_t granule = 0; granule < geometry_.granules; granule++) {
            if (!is_allocated(head, granule)) continue;
            uint32_t crc;
            memcpy(&crc, in, 4);
            set_crc(head, granule, crc);
            in += 4;
        }
    }
}

void Index::encode_full(uint32_t head, std::vector<uint8_t>& out) const {
    std::vector<uint32_t> chain;
    for (uint32_t slot = head; slot != kNoSlot && chain.size() < UINT16_MAX; slot = at(slot).older)
        chain.push_back(slot);
    const auto count = static_cast<uint16_t>(chain.size());
    const size_t start = out.size();
    out.resize(start + sizeof(EntryHeader) + count * size_t{geometry_.version_bytes});
    uint8_t* place = out.data() + start + sizeof(EntryHeader);
    for (uint16_t i = count; i-- > 0;) {
        const uint32_t slot = chain[i];
        const Slot& record = at(slot);
        const VersionHeader version{record.version, record.block, record.is_stable ? kEntryStable : 0u};
        memcpy(place, &version, sizeof(version));
        place += sizeof(version);
        memcpy(place, bitmap(slot), geometry_.bitmap_bytes);
        place += geometry_.bitmap_bytes;
        memcpy(place, allocated(slot), geometry_.bitmap_bytes);
        place += geometry_.bitmap_bytes;
        if (!geometry_.checksums) continue;
        for (uint32_t granule = 0; granule < geometry_.granules; granule++) {
            if (!is_allocated(slot, granule)) continue;
            const uint32_t value = crc(slot, granule);
            memcpy(place, &value, 4);
            place += 4;
        }
    }
    EntryHeader header{};
    header.size = static_cast<uint32_t>(place - (out.data() + start));
    header.type = EntryType::full;
    header.count = count;
    header.inode = at(head).inode;
    header.stripe = at(head).stripe;
    header.version = at(head).version;
    memcpy(out.data() + start, &header, sizeof(header));
    out.resize(start + header.size);
}

bool Index::has_stable_after(uint32_t head, Version version) const {
    for (uint32_t slot = head; slot != kNoSlot; slot = at(slot).older)
        if (at(slot).is_stable) return at(slot).version > version;
    return false;
}

void Index::revert(uint32_t head, Version version, const uint8_t* old_bitmap) {
    at(head).version = version;
    memcpy(bitmap(head), old_bitmap, geometry_.bitmap_bytes);
}

uint64_t Index::memory_bytes() const {
    return slabs_.size() * (slot_bytes_ << slab_shift_) + bucket_segments_.size() * kBucketsPerSegment * 4;
}

// ---------------------------------------------------------------- entries

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

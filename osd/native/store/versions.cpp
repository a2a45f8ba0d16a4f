// SPDX-License-Identifier: GPL-2.0-or-later
// Entries applied to the index, live and in replay, and objects turned back into entries.
#include "store/index.hpp"

#include "base/assert.hpp"

namespace vitastor::store {

bool Index::block_shared(uint32_t head, uint32_t except, uint32_t block) const {
    for (uint32_t slot = head; slot != kNoSlot; slot = at(slot).older)
        if (slot != except && at(slot).block == block) return true;
    return false;
}

/// Lets go of the block of one version (which stays in its slot).
void Index::drop_version(uint32_t head, uint32_t slot, BlockSink& sink) {
    cut_redirects(head, slot, 0, geometry_.granules, sink);
    const uint32_t block = at(slot).block;
    if (block == kNoBlock || block_shared(head, slot, block)) {
        at(slot).block = kNoBlock;
        return;
    }
    at(slot).block = kNoBlock;
    inodes_.count_blocks(at(slot).inode, -1);
    sink.release_block(block);
}

void Index::remove_object(uint32_t head, BlockSink& sink) {
    unlink(head);
    if (at(head).state == SlotState::tombstone) {
        tombstone_count_--;
        free_slot(head);
        return;
    }
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

/// Lets go of all versions behind `slot`.
void Index::drop_older(uint32_t head, uint32_t slot, BlockSink& sink) {
    for (uint32_t older = at(slot).older; older != kNoSlot;) {
        const uint32_t next = at(older).older;
        drop_version(head, older, sink);
        at(slot).older = next;
        free_slot(older);
        version_count_--;
        older = next;
    }
}

/// Copies the newest version into a slot of its own behind the head, which may then change.
uint32_t Index::push_older(uint32_t head) {
    const uint32_t older = allocate_slot();
    VITASTOR_ASSERT(older != kNoSlot);
    if (const auto partial = partial_.find(head); partial != partial_.end()) partial_[older] = PartialList(partial->second);
    Slot& target = at(older);
    const Slot& source = at(head);
    target.state = SlotState::older;
    target.inode = source.inode;
    inodes_.add_user_of(source.inode);
    target.stripe = source.stripe;
    target.version = source.version;
    target.block = source.block;
    target.older = source.older;
    target.is_stable = source.is_stable;
    memcpy(bitmap(older), bitmap(head), 2 * size_t{geometry_.bitmap_bytes});
    allocate_crcs(older);
    if (const uint32_t count = granule_count(head); geometry_.checksums && count)
        memcpy(crc_array(older), crc_array(head), 4 * size_t{count});
    copy_redirects(older, head);
    at(head).older = older;
    version_count_++;
    return older;
}

/// The newest version goes, the one behind it takes its slot.
void Index::pop_newest(uint32_t head, BlockSink& sink) {
    const uint32_t older = at(head).older;
    drop_version(head, head, sink);
    release_crcs(head, granule_count(head));
    Slot& target = at(head);
    const Slot& source = at(older);
    target.version = source.version;
    target.block = source.block;
    target.older = source.older;
    target.is_stable = source.is_stable;
    target.crcs = source.crcs;
    if (!partial_.empty()) {
        partial_.erase(head);
        if (auto partial = partial_.extract(older)) {
            partial.key() = head;
            partial_.insert(std::move(partial));
        }
    }
    copy_redirects(head, older);
    memcpy(bitmap(head), bitmap(older), 2 * size_t{geometry_.bitmap_bytes});
    if (const uint32_t count = granule_count(head); geometry_.checksums && count)
        crcs_.set_owner(CrcArrays::class_of(count), target.crcs, head);
    memset(allocated_bits(older), 0, geometry_.bitmap_bytes);  // its array has moved
    free_slot(older);
    version_count_--;
}

bool Index::apply(const EntryView& entry, uint32_t reserved, BlockSink& sink) {
    const EntryHeader& header = entry.header;
    applied_ = kNoSlot;
    if (header.type == EntryType::write) return apply_write(entry, reserved, sink);
    if (header.type == EntryType::full) {
        apply_full(entry, sink);
        return true;
    }
    if (header.type == EntryType::moved) return apply_moved(entry, sink);
    if (header.type == EntryType::tombstone) {
        apply_tombstone(entry, reserved, sink);
        return true;
    }
    const uint32_t head = header.type == EntryType::del ? find_any(entry.object()) : find(entry.object());
    if (head == kNoSlot) return false;
    if (header.type == EntryType::del) {
        remove_object(head, sink);
    } else if (header.type == EntryType::stabilize) {
        const uint32_t slot = find_version(head, header.version);
        if (slot == kNoSlot) return true;
        at(slot).is_stable = 1;
        drop_older(head, slot, sink);
    } else {
        while (!at(head).is_stable && at(head).version > header.version) {
            if (at(head).older == kNoSlot) {
                remove_object(head, sink);
                return true;
            }
            pop_newest(head, sink);
        }
    }
    return true;
}

bool Index::apply_write(const EntryView& entry, uint32_t reserved, BlockSink& sink) {
    const EntryHeader& header = entry.header;
    uint32_t head = find_any(entry.object());
    if (head != kNoSlot && at(head).state == SlotState::tombstone) {
        if (!entry.has(kEntryCreate)) return false;
        raise_tombstone(head);
    } else if (head == kNoSlot) {
        if (!entry.has(kEntryCreate)) return false;
        head = reserved;
        if (head == kNoSlot) {
            head = reserve(entry.object());
            VITASTOR_ASSERT(head != kNoSlot);
        }
        link(head);
        version_count_++;
    } else {
        if (header.count && !entry.has(kEntryBlock) && at(head).block == kNoBlock) return false;
        const bool replaces_list = entry.has(kEntryStable) && covers_all(head, header.first, header.count);
        if (is_swapped(head) && !replaces_list) make_partial(head);
        // Equal: the cleaner has repeated a creation.
        if (!entry.has(kEntryStable) && at(head).version != header.version) push_older(head);
    }
    applied_ = head;
    Slot& record = at(head);
    record.version = header.version;
    record.is_stable = entry.has(kEntryStable) ? 1 : 0;
    if (entry.has(kEntryBlock)) {
        drop_version(head, head, sink);
        at(head).block = entry.block;
        inodes_.count_blocks(record.inode, 1);
    }
    if (entry.bitmap) memcpy(bitmap(head), entry.bitmap, geometry_.bitmap_bytes);
    put_granules(head, header.first, header.count, entry.crcs);
    if (entry.has(kEntrySpare) && !entry.has(kEntryBlock) && !header.decider && replace_redirect(head, head, entry.spare_run(), sink)) return true;
    if (!entry.has(kEntryBlock)) cut_redirects(head, head, header.first, uint32_t{header.first} + header.count, sink);
    if (entry.has(kEntrySpare)) {
        add_redirect(head, head, entry.spare_run(), sink);
    }
    return true;
}

/// The object is created again, in the slot of its tombstone.
void Index::raise_tombstone(uint32_t slot) {
    at(slot).state = SlotState::head;
    tombstone_count_--;
    version_count_++;
}

/// An older tombstone gets the newer version. An object keeps its slot.
void Index::apply_tombstone(const EntryView& entry, uint32_t reserved, BlockSink& sink) {
    uint32_t slot = find_any(entry.object());
    applied_ = slot;
    if (slot != kNoSlot && at(slot).state == SlotState::tombstone) {
        if (at(slot).version < entry.header.version) at(slot).version = entry.header.version;
        return;
    }
    if (slot == kNoSlot) {
        slot = reserved != kNoSlot ? reserved : reserve(entry.object());
        VITASTOR_ASSERT(slot != kNoSlot);
        link(slot);
        applied_ = slot;
    } else {
        drop_version(slot, slot, sink);
        drop_older(slot, slot, sink);
        release_crcs(slot, granule_count(slot));
        if (!partial_.empty()) partial_.erase(slot);
        memset(bitmap(slot), 0, 2 * size_t{geometry_.bitmap_bytes});
        version_count_--;
    }
    Slot& record = at(slot);
    record.state = SlotState::tombstone;
    record.is_stable = record.is_pending = 0;
    record.version = entry.header.version;
    tombstone_count_++;
}

void Index::apply_full(const EntryView& entry, BlockSink& sink) {
    // The head slot is kept if the object is there: slots are handed out in the order of first appearance.
    uint32_t head = find_any(entry.object());
    if (head != kNoSlot && at(head).state == SlotState::tombstone) {
        raise_tombstone(head);
    } else if (head == kNoSlot) {
        head = reserve(entry.object());
        VITASTOR_ASSERT(head != kNoSlot);
        link(head);
        version_count_++;
    } else {
        drop_version(head, head, sink);
        drop_older(head, head, sink);
    }
    applied_ = head;
    const uint8_t* in = entry.versions;
    for (uint16_t i = 0; i < entry.header.count; i++) {
        if (i > 0) push_older(head);
        VersionHeader version;
        memcpy(&version, in, sizeof(version));
        in += sizeof(version);
        Slot& record = at(head);
        record.version = version.version;
        record.is_stable = version.flags & kEntryStable ? 1 : 0;
        record.block = version.block;
        if (version.block != kNoBlock && !block_shared(record.older, kNoSlot, version.block))
            inodes_.count_blocks(record.inode, 1);
        memcpy(bitmap(head), in, geometry_.bitmap_bytes);
        in += geometry_.bitmap_bytes;
        const uint8_t* bits = in;
        in += geometry_.bitmap_bytes;
        load_redirects(head, in, version.redirects, sink);
        in += version.redirects * sizeof(Redirect);
        replace_granules(head, bits, in);
        if (geometry_.checksums) in += 4 * size_t{granule_count(head)};
    }
}

void Index::encode_full(uint32_t head, std::vector<uint8_t>& out) const {
    if (at(head).state == SlotState::tombstone) {
        EntryHeader header{};
        header.size = sizeof(header);
        header.type = EntryType::tombstone;
        header.inode = object(head).inode;
        header.stripe = at(head).stripe;
        header.version = at(head).version;
        const auto* bytes = reinterpret_cast<const uint8_t*>(&header);
        out.insert(out.end(), bytes, bytes + sizeof(header));
        return;
    }
    std::vector<uint32_t> chain;
    for (uint32_t slot = head; slot != kNoSlot && chain.size() < UINT16_MAX; slot = at(slot).older)
        chain.push_back(slot);
    const auto count = static_cast<uint16_t>(chain.size());
    const size_t start = out.size();
    size_t runs = 0;
    for (uint32_t slot : chain) runs += redirects(slot).size();
    out.resize(start + sizeof(EntryHeader) + count * size_t{geometry_.version_bytes} + runs * sizeof(Redirect));
    uint8_t* place = out.data() + start + sizeof(EntryHeader);
    for (uint16_t i = count; i-- > 0;) {
        const uint32_t slot = chain[i];
        const Slot& record = at(slot);
        const std::span<const Redirect> redirected = redirects(slot);
        const VersionHeader version{record.version, record.block, static_cast<uint16_t>(record.is_stable ? kEntryStable : 0),
                                    static_cast<uint16_t>(redirected.size())};
        memcpy(place, &version, sizeof(version));
        place += sizeof(version);
        memcpy(place, bitmap(slot), geometry_.bitmap_bytes);
        place += geometry_.bitmap_bytes;
        memcpy(place, allocated(slot), geometry_.bitmap_bytes);
        place += geometry_.bitmap_bytes;
        if (!redirected.empty()) memcpy(place, redirected.data(), redirected.size_bytes());
        place += redirected.size_bytes();
        if (const uint32_t granules = granule_count(slot); geometry_.checksums && granules) {
            memcpy(place, const_cast<Index*>(this)->crc_array(slot), 4 * size_t{granules});
            place += 4 * size_t{granules};
        }
    }
    EntryHeader header{};
    header.size = static_cast<uint32_t>(place - (out.data() + start));
    header.type = EntryType::full;
    header.count = count;
    header.inode = object(head).inode;
    header.stripe = at(head).stripe;
    header.version = at(head).version;
    memcpy(out.data() + start, &header, sizeof(header));
    out.resize(start + header.size);
}

uint64_t Index::full_bytes(uint32_t head) const {
    uint64_t bytes = sizeof(EntryHeader);
    if (at(head).state == SlotState::tombstone) return bytes;
    for (uint32_t slot = head; slot != kNoSlot; slot = at(slot).older)
        bytes += sizeof(VersionHeader) + 2 * size_t{geometry_.bitmap_bytes} + redirects(slot).size_bytes() +
                 (geometry_.checksums ? 4 * size_t{granule_count(slot)} : 0);
    return bytes;
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

}  // namespace vitastor::store

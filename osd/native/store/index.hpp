// SPDX-License-Identifier: GPL-2.0-or-later
// What the store knows of every object, in memory: versions, places, bitmaps, checksums.
//
// Records of one fixed size in slabs, addressed by 32-bit slot numbers; a hash table that grows one bucket at a time; one
// list of objects per PG. No step costs more than a few microseconds at any size. An object's newest version stays in the
// same slot for the object's whole life (the log cleaner walks slots); older versions hang from it, newest first: unstable
// ones, and last at most one stable one. Log entries are applied here, live and in replay, by the same code.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "base/ids.hpp"
#include "store/entry.hpp"
#include "store/geometry.hpp"
#include "store/store.hpp"
#include "store/store_format.hpp"

namespace vitastor::store {

inline constexpr uint32_t kNoSlot = UINT32_MAX;

enum class SlotState : uint8_t {
    free,
    reserved,  ///< belongs to an object whose first entry is on its way to the log; only the cleaner sees it
    head,      ///< newest version of an object
    older,     ///< an older version, hangs from a head
};

struct Slot {
    InodeNum inode;
    uint64_t stripe;
    Version version;
    uint32_t block;
    uint32_t hash_next;  ///< in free slots: the next free one
    uint32_t pg_previous, pg_next;
    uint32_t older;
    SlotState state;
    uint8_t is_stable;
    uint16_t unused;
    ObjectId object() const { return {inode, stripe}; }
};
static_assert(sizeof(Slot) == 48);

/// Told of every block that no version uses any more.
class BlockSink {
public:
    virtual void release_block(uint32_t block) = 0;

protected:
    ~BlockSink() = default;
};

class Index {
public:
    explicit Index(const Geometry& geometry);

    uint32_t find(const ObjectId& object) const;
    /// The newest version of the object ≤ version, as a slot; kNoSlot if none.
    uint32_t find_version(uint32_t head, Version version) const;
    Slot& at(uint32_t slot) { return *reinterpret_cast<Slot*>(raw(slot)); }
    const Slot& at(uint32_t slot) const { return *reinterpret_cast<const Slot*>(raw(slot)); }
    uint8_t* bitmap(uint32_t slot) { return raw(slot) + sizeof(Slot); }  ///< external
    const uint8_t* bitmap(uint32_t slot) const { return raw(slot) + sizeof(Slot); }
    uint8_t* allocated(uint32_t slot) { return raw(slot) + sizeof(Slot) + geometry_.bitmap_bytes; }
    const uint8_t* allocated(uint32_t slot) const { return raw(slot) + sizeof(Slot) + geometry_.bitmap_bytes; }
    uint32_t crc(uint32_t slot, uint32_t granule) const {
        uint32_t value;
        memcpy(&value, raw(slot) + crc_offset_ + 4 * size_t{granule}, 4);
        return value;
    }
    void set_crc(uint32_t slot, uint32_t granule, uint32_t value) {
        memcpy(raw(slot) + crc_offset_ + 4 * size_t{granule}, &value, 4);
    }
    bool is_allocated(uint32_t slot, uint32_t granule) const {
        return allocated(slot)[granule / 8] & (1u << (granule % 8));
    }

    /// A slot for an object that is about to be created (state reserved), or kNoSlot after 2^32 - 1 of them.
    uint32_t reserve(const ObjectId& object);
    void unreserve(uint32_t slot);

    /// Changes the state as the entry says. reserved: the slot from reserve() for an entry that creates, or kNoSlot.
    /// Returns false if the entry changes an object that is not there (in replay: its full entry is still to come).
    bool apply(const EntryView& entry, uint32_t reserved, BlockSink& sink);
    /// Appends the full entry of an object to out.
    void encode_full(uint32_t head, std::vector<uint8_t>& out) const;

    /// True if rolling back to version would meet a stable version newer than it.
    bool has_stable_after(uint32_t head, Version version) const;
    /// Puts version and bitmap of a head back (an announced write that did not happen).
    void revert(uint32_t head, Version version, const uint8_t* bitmap);

    // ---- PGs
    struct Pool {
        PoolId id = 0;
        bool configured = false;
        uint32_t pg_count = 1;
        uint64_t stripe_size = 1ull << 62;
        std::vector<uint32_t> heads{kNoSlot};
        // while it is being rebuilt:
        uint32_t old_pg_count = 0;
        uint64_t old_stripe_size = 0;
        std::vector<uint32_t> old_heads;
        uint32_t old_position = 0;
        uint64_t generation = 0;  ///< changes with every set_pool_pgs
        bool rebuilding() const { return !old_heads.empty(); }
        uint32_t pg_index(uint64_t stripe) const { return static_cast<uint32_t>(stripe / stripe_size % pg_count); }
    };
    Pool& pool(PoolId id);
    /// Starts to rebuild; nothing if both are as before. A rebuild at work must be finished first.
    void set_pool_pgs(PoolId id, uint32_t pg_count, uint64_t stripe_size);
    /// Moves up to `limit` objects; true when nothing is left to move.
    bool rebuild_step(Pool& pool, uint32_t limit);
    /// Walkers of PG lists are told before a slot leaves its list.
    struct Walker {
        uint32_t position = kNoSlot;
        Walker* next = nullptr;
    };
    void add_walker(Walker& walker);
    void remove_walker(Walker& walker);

    // ---- numbers
    uint32_t slot_count() const { return slot_count_; }  ///< slots ever used; all slot numbers are below it
    uint64_t object_count() const { return object_count_; }
    uint64_t version_count() const { return version_count_; }
    uint64_t memory_bytes() const;
    const std::map<InodeNum, uint64_t>& blocks_by_inode() const { return blocks_by_inode_; }
    const Geometry& geometry() const { return geometry_; }

private:
    static constexpr size_t kSlabBytes = 1 << 20;  ///< about; at least one slot
    static constexpr uint32_t kBucketsPerSegment = 16384;

    uint8_t* raw(uint32_t slot) {
        return slabs_[slot >> slab_shift_].get() + (slot & slab_mask_) * slot_bytes_;
    }
    const uint8_t* raw(uint32_t slot) const {
        return slabs_[slot >> slab_shift_].get() + (slot & slab_mask_) * slot_bytes_;
    }
    uint32_t allocate_slot();
    void free_slot(uint32_t slot);
    uint32_t& bucket(uint64_t hash);
    const uint32_t& bucket(uint64_t hash) const { return const_cast<Index*>(this)->bucket(hash); }
    uint32_t& bucket_at(uint64_t index) {
        return bucket_segments_[index / kBucketsPerSegment][index % kBucketsPerSegment];
    }
    void grow_table();
    void link(uint32_t slot);
    void unlink(uint32_t slot);
    void pg_link(uint32_t slot);
    void pg_unlink(uint32_t slot);
    bool block_shared(uint32_t head, uint32_t except, uint32_t block) const;
    void drop_version(uint32_t head, uint32_t slot, BlockSink& sink);
    void remove_object(uint32_t head, BlockSink& sink);
    void count_block(InodeNum inode, int64_t change);
    bool apply_write(const EntryView& entry, uint32_t reserved, BlockSink& sink);
    void apply_full(const EntryView& entry, BlockSink& sink);
    void copy_version(uint32_t to, uint32_t from);

    Geometry geometry_;
    size_t slot_bytes_;
    size_t crc_offset_;
    uint32_t slab_shift_ = 0;
    size_t slab_mask_ = 0;
    std::vector<std::unique_ptr<uint8_t[]>> slabs_;
    std::vector<std::unique_ptr<uint32_t[]>> bucket_segments_;
    uint64_t bucket_count_ = 0;
    uint64_t bucket_mask_ = 0;  ///< of the last completed doubling
    uint32_t slot_count_ = 0;
    uint32_t first_free_ = kNoSlot;
    uint64_t object_count_ = 0;
    uint64_t version_count_ = 0;
    std::map<PoolId, Pool> pools_;
    Pool* last_pool_ = nullptr;
    std::map<InodeNum, uint64_t> blocks_by_inode_;
    Walker* walkers_ = nullptr;
};

}  // namespace vitastor::store

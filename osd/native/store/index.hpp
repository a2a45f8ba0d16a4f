// SPDX-License-Identifier: GPL-2.0-or-later
// What the store knows of every object, in memory: versions, places, bitmaps, checksums.
//
// Records of one fixed size that never move, addressed by 32-bit slot numbers; checksums in arrays of their own, as long as
// granules are in use; a hash table that grows one bucket at a time; one list of objects per PG. No step costs more than a
// few microseconds at any size, and nothing is ever doubled. An object's newest version stays in the
// same slot for the object's whole life (the log cleaner walks slots); older versions hang from it, newest first: unstable
// ones, and last at most one stable one. Log entries are applied here, live and in replay, by the same code.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <unordered_map>
#include <vector>

#include "base/ids.hpp"
#include "store/crc_arrays.hpp"
#include "store/entry.hpp"
#include "store/geometry.hpp"
#include "store/hash_buckets.hpp"
#include "store/inode_table.hpp"
#include "store/redirects.hpp"
#include "store/segments.hpp"
#include "store/store.hpp"
#include "store/store_format.hpp"

namespace vitastor::store {

inline constexpr uint32_t kNoSlot = UINT32_MAX;

enum class SlotState : uint32_t {
    free,
    reserved,  ///< belongs to an object whose first entry is on its way to the log; only the cleaner sees it
    head,      ///< newest version of an object
    older,     ///< an older version, hangs from a head
    tombstone, ///< no version is left, only that the object was deleted at `version`
};

/// A 64-bit number that needs no alignment above 4: slots have no gaps.
struct PackedU64 {
    uint32_t low, high;
    PackedU64& operator=(uint64_t value) {
        low = static_cast<uint32_t>(value);
        high = static_cast<uint32_t>(value >> 32);
        return *this;
    }
    operator uint64_t() const { return uint64_t{high} << 32 | low; }
};

/// Behind it: external bitmap, bitmap of allocated granules. With 32 granules and checksums an object takes 52 bytes for the slot,
/// 4 in the hash table, 4 for the owner of its checksums, and less than 1 for what is counted by groups and blocks.
struct Slot {
    PackedU64 stripe;
    uint32_t hash_next;  ///< in free slots: the next free one
    SlotState state : 3;
    uint32_t is_stable : 1;
    uint32_t is_pending : 1;  ///< replay: a write was announced whose data may not be there
    uint32_t is_redirected : 1;  ///< granules of this version live in spare blocks
    uint32_t inode : 26;  ///< number in the inode table
    PackedU64 version;
    uint32_t block;
    uint32_t pg_previous, pg_next;
    uint32_t older;
    uint32_t crcs;  ///< place in the pool of its length, or kSwappedList and a page of the log; nothing if no granule is allocated
};
static_assert(sizeof(Slot) == 44 && alignof(Slot) == 4);
static_assert(InodeTable::kMaxInodes == 1u << 26);
inline constexpr uint32_t kSwappedList = 1u << 31;

/// Told of every block, and every granule of a spare block, that no version uses any more.
class BlockSink {
public:
    virtual void release_block(uint32_t block) = 0;
    /// The granules of a run belong to the object at this slot; may be said again for another version of it.
    virtual void use_spare(const Redirect& run, uint32_t head) = 0;
    virtual void release_spare(uint32_t block, uint32_t place, uint32_t count) = 0;

protected:
    ~BlockSink() = default;
};

class Index {
public:
    explicit Index(const Geometry& geometry);

    /// The head of an object, kNoSlot if it has no version.
    uint32_t find(const ObjectId& object) const;
    /// Its head or its tombstone.
    uint32_t find_any(const ObjectId& object) const;
    /// Fetch what find() and apply() will need into the cache. First the bucket; some time later the record that it names, whole or
    /// what find() looks at; then what is left: the object's checksums, or the next record of the chain if it is another object's.
    void prefetch_bucket(const ObjectId& object) const { buckets_.prefetch(hash(inodes_.find(object.inode), object.stripe)); }
    uint32_t prefetch_first(const ObjectId& object, bool whole) const {
        const uint64_t place = hash(inodes_.find(object.inode), object.stripe);
        const uint32_t slot = buckets_.lacks(place) ? kNoSlot : buckets_.first(place);
        if (slot != kNoSlot) prefetch_record(slot, whole ? record_bytes_ : offsetof(Slot, version));
        return slot;
    }
    void prefetch_rest(uint32_t first, const ObjectId& object) const;
    /// Linked in the hash and in the list of its PG; full entries can be made of it.
    bool is_linked(uint32_t slot) const {
        return at(slot).state == SlotState::head || at(slot).state == SlotState::tombstone;
    }
    /// The newest version of the object ≤ version, as a slot; kNoSlot if none.
    uint32_t find_version(uint32_t head, Version version) const;
    Slot& at(uint32_t slot) { return *reinterpret_cast<Slot*>(raw(slot)); }
    const Slot& at(uint32_t slot) const { return *reinterpret_cast<const Slot*>(raw(slot)); }
    ObjectId object(uint32_t slot) const { return {inodes_.inode(at(slot).inode), at(slot).stripe}; }
    uint8_t* bitmap(uint32_t slot) { return raw(slot) + sizeof(Slot); }  ///< external
    const uint8_t* bitmap(uint32_t slot) const { return raw(slot) + sizeof(Slot); }
    const uint8_t* allocated(uint32_t slot) const { return bitmap(slot) + geometry_.bitmap_bytes; }
    /// Checksum of a granule that is allocated; with checksums only.
    uint32_t crc(uint32_t slot, uint32_t granule) const {
        return const_cast<Index*>(this)->crc_array(slot)[granules_before(slot, granule)];
    }
    void set_crc(uint32_t slot, uint32_t granule, uint32_t value) {
        crc_array(slot)[granules_before(slot, granule)] = value;
    }
    /// Number of allocated granules of a version.
    uint32_t granule_count(uint32_t slot) const { return granules_before(slot, geometry_.granules); }
    /// Number of those before `granule`.
    uint32_t granules_before(uint32_t slot, uint32_t granule) const {
        const uint8_t* bits = allocated(slot);
        if (geometry_.granules == 32) {
            uint32_t word;
            memcpy(&word, bits, 4);
            return static_cast<uint32_t>(std::popcount(word & ((uint64_t{1} << granule) - 1)));
        }
        return count_bits(bits, granule);
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
    /// Appends the full entry of an object, or the entry of a tombstone, to out.
    void encode_full(uint32_t head, std::vector<uint8_t>& out) const;
    /// The length of that entry.
    uint64_t full_bytes(uint32_t head) const;

    // ---- redirects (index_redirects.cpp)
    /// Runs of granules of a version that live in spare blocks, by first granule. Valid until the next change.
    std::span<const Redirect> redirects(uint32_t slot) const;
    /// The granule is in use and lives in the home block.
    bool is_at_home(uint32_t slot, uint32_t granule) const;
    /// Some version whose home is `block` reads a granule of the range there.
    bool is_home_used(uint32_t head, uint32_t block, uint32_t first, uint32_t count) const;
    /// Log position from which on the redirects of all versions are durable.
    uint64_t redirect_position(uint32_t head) const;
    void set_redirect_position(uint32_t head, uint64_t position) { redirects_.set_position(head, position); }
    /// Runs of all versions together.
    uint64_t redirect_count() const { return redirects_.run_count(); }

    /// True if rolling back to version would meet a stable version newer than it.
    bool has_stable_after(uint32_t head, Version version) const;
    /// Puts version and bitmap of a head back (an announced write that did not happen).
    void revert(uint32_t head, Version version, const uint8_t* bitmap);

    // ---- loading: no lists of PGs yet, in their place each slot has room for a note
    void begin_loading() { is_loading_ = true; }
    /// Makes room in the hash table for that many objects, a part of it in each call; true when it is done. While it is empty.
    bool expect(uint64_t objects);
    void set_note(uint32_t slot, uint32_t note) { at(slot).pg_next = note; }
    uint32_t note(uint32_t slot) const { return at(slot).pg_next; }
    /// Call for all slots, in parts, before anything is listed; then link() does it.
    void end_loading(uint32_t from, uint32_t to);

    // ---- lists of checksums that are not in memory (index_lists.cpp, docs/adr/0032-checksums-out-of-memory.md)
    /// Before anything is loaded. Without it no list is ever swapped out.
    void allow_swapping() { may_swap_ = geometry_.checksums && geometry_.log_pages < kSwappedList; }
    bool may_swap() const { return may_swap_; }
    /// The list of a head is on disk alone: in an entry that begins in page swapped_page() of the log (counted on the device).
    bool is_swapped(uint32_t slot) const { return may_swap_ && (at(slot).crcs & kSwappedList); }
    uint32_t swapped_page(uint32_t slot) const { return at(slot).crcs & ~kSwappedList; }
    /// A head with one version, whose list is in memory and could be swapped out.
    bool has_single_list(uint32_t slot) const {
        return at(slot).state == SlotState::head && at(slot).older == kNoSlot && !is_swapped(slot) && granule_count(slot) > 0;
    }
    /// The head has one version, and the entry that has just been applied to it holds its whole list.
    bool is_whole_list(uint32_t slot, const EntryView& entry) const;
    void swap_out(uint32_t slot, uint32_t page);
    /// sums: of each allocated granule; null: they are lost, and no data will match what stands for them.
    void swap_in(uint32_t slot, const uint32_t* sums);
    uint64_t list_bytes() const { return crcs_.memory_bytes(); }
    /// A list of which replay knows only what was written since an entry that holds it whole.
    struct PartialList {
        uint32_t page = 0;
        Version version = 0;  ///< of that entry
        std::vector<uint8_t> known;  ///< bits of granules
        bool knows(uint32_t granule) const { return known[granule / 8] & (1u << (granule % 8)); }
    };
    const std::unordered_map<uint32_t, PartialList>& partial_lists() const { return partial_; }
    /// Fills in what is not known. bits, sums: of the entry; null: it cannot be read. The number of sums that are lost.
    uint32_t complete_list(uint32_t slot, const uint8_t* bits, const uint32_t* sums);
    /// The head or tombstone that the last apply() has left, kNoSlot if it is gone.
    uint32_t applied_slot() const { return applied_; }

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
    uint64_t object_count() const { return linked_count_ - tombstone_count_; }
    uint64_t tombstone_count() const { return tombstone_count_; }
    uint64_t linked_count() const { return linked_count_; }  ///< both together
    uint64_t version_count() const { return version_count_; }
    /// What is allocated, with malloc's own bytes. Of an empty index: at most kFixedBytes.
    uint64_t memory_bytes() const;
    static constexpr uint64_t kFixedBytes = FixedRoom::kBytes + 2048;
    const InodeTable& inodes() const { return inodes_; }
    const Geometry& geometry() const { return geometry_; }

private:
    void prefetch_record(uint32_t slot, size_t bytes) const {
        fetch_ahead(raw(slot));
        fetch_ahead(raw(slot) + bytes - 1);  // most often the same line
    }
    uint8_t* raw(uint32_t slot) { return slots_.at(slot); }
    const uint8_t* raw(uint32_t slot) const { return slots_.at(slot); }
    uint8_t* allocated_bits(uint32_t slot) { return bitmap(slot) + geometry_.bitmap_bytes; }
    static uint32_t count_bits(const uint8_t* bits, uint32_t end);
    bool covers_all(uint32_t slot, uint32_t first, uint32_t count) const {
        return granules_before(slot, first) == 0 && granules_before(slot, first + count) == granule_count(slot);
    }
    void make_partial(uint32_t slot);
    uint32_t* crc_array(uint32_t slot) { return crcs_.at(CrcArrays::class_of(granule_count(slot)), at(slot).crcs); }
    /// For a slot without an array whose bitmap says how many there will be.
    void allocate_crcs(uint32_t slot);
    void release_crcs(uint32_t slot, uint32_t count);
    void put_granules(uint32_t slot, uint32_t first, uint32_t count, const uint8_t* crcs);
    void replace_granules(uint32_t slot, const uint8_t* bits, const uint8_t* crcs);
    uint32_t allocate_slot();
    void free_slot(uint32_t slot);
    /// Of an object by the number of its inode. Sixteen neighbours in an image share a line of buckets: images are mostly
    /// written, and always listed in the log, in long runs. Which of them gets which bucket of the line differs from line to
    /// line, so that objects which are all alike in these bits (chunks of wide stripes) still use all buckets.
    uint64_t hash(uint32_t inode, uint64_t stripe) const {
        const uint64_t neighbours = uint64_t{15} << block_shift_;
        uint64_t x = (inode * 0x9e3779b97f4a7c15ull) ^ ((stripe & ~neighbours) * 0xc2b2ae3d27d4eb4full);
        x ^= x >> 29;
        x *= 0xbf58476d1ce4e5b9ull;
        return x ^ (x >> 32) ^ (stripe >> block_shift_ & 15);
    }
    uint64_t hash_of(uint32_t slot) const { return hash(at(slot).inode, at(slot).stripe); }
    void link(uint32_t slot);
    void unlink(uint32_t slot);
    void pg_link(uint32_t slot);
    void pg_unlink(uint32_t slot);
    bool block_shared(uint32_t head, uint32_t except, uint32_t block) const;
    void drop_version(uint32_t head, uint32_t slot, BlockSink& sink);
    void remove_object(uint32_t head, BlockSink& sink);
    bool apply_write(const EntryView& entry, uint32_t reserved, BlockSink& sink);
    void apply_full(const EntryView& entry, BlockSink& sink);
    void apply_tombstone(const EntryView& entry, uint32_t reserved, BlockSink& sink);
    void raise_tombstone(uint32_t slot);
    void drop_older(uint32_t head, uint32_t slot, BlockSink& sink);
    uint32_t push_older(uint32_t head);
    void pop_newest(uint32_t head, BlockSink& sink);
    bool apply_moved(const EntryView& entry, BlockSink& sink);
    void set_redirects(uint32_t slot, std::span<const Redirect> runs);
    void copy_redirects(uint32_t to, uint32_t from);
    bool replace_redirect(uint32_t head, uint32_t slot, const Redirect& run, BlockSink& sink);
    void cut_redirects(uint32_t head, uint32_t slot, uint32_t first, uint32_t end, BlockSink& sink);
    void add_redirect(uint32_t head, uint32_t slot, const Redirect& run, BlockSink& sink);
    void load_redirects(uint32_t head, const uint8_t* in, uint32_t count, BlockSink& sink);
    void release_redirects(uint32_t head, uint32_t except, std::span<const Redirect> cut, BlockSink& sink);

    Geometry geometry_;
    int block_shift_;
    size_t record_bytes_;  ///< of a slot with its bitmaps
    FixedRoom room_;
    Segments slots_;
    CrcArrays crcs_;
    InodeTable inodes_;
    HashBuckets buckets_;
    uint32_t slot_count_ = 0;
    uint32_t applied_ = kNoSlot;
    bool is_loading_ = false;
    bool may_swap_ = false;
    std::unordered_map<uint32_t, PartialList> partial_;  ///< while loading
    uint32_t first_free_ = kNoSlot;
    uint64_t linked_count_ = 0;
    uint64_t tombstone_count_ = 0;
    uint64_t version_count_ = 0;
    std::map<PoolId, Pool> pools_;
    Pool* last_pool_ = nullptr;
    Walker* walkers_ = nullptr;
    Redirects redirects_;
    mutable uint32_t recent_ = kNoSlot;  ///< found last; most often asked for again. Believed only after a look at it
    std::vector<Redirect> kept_, cut_;  ///< of the call at work: no allocation for each
    struct OtherRuns {  ///< of another version of the object
        std::span<const Redirect> runs;
        size_t next;  ///< the first that does not end before what is looked for
    };
    std::vector<OtherRuns> others_;
};

}  // namespace vitastor::store

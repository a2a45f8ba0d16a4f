// SPDX-License-Identifier: GPL-2.0-or-later
// The hash table of the index: heads of chains, one more bucket for each item (linear hashing), so that it grows without a pause and
// without a second table. Links are 32-bit numbers in the items.
//
// A start that knows how many items there will be makes all buckets first, in large pages. As long as no bucket is split it also
// keeps a byte for each bucket that says what is surely not in it: most entries of a log create objects, and to know that an
// object is not there would else take the records of others, far away in memory.
#pragma once

#include <cstdint>

#include "base/assert.hpp"
#include "store/large_pages.hpp"
#include "store/segments.hpp"

namespace vitastor::store {

class HashBuckets {
public:
    static constexpr uint32_t kNone = UINT32_MAX;
    explicit HashBuckets(FixedRoom* room) : segments_(sizeof(uint32_t), room) { add(); }

    uint32_t& first(uint64_t hash) { return at(index_of(hash)); }
    uint32_t first(uint64_t hash) const { return const_cast<HashBuckets*>(this)->first(hash); }
    uint64_t count() const { return count_; }

    // ---- loading
    /// Before the first item: gets ready for so many buckets, which add_empty() then makes.
    void expect(uint64_t buckets) {
        VITASTOR_ASSERT(count_ == 1);
        const uint64_t bytes = buckets * sizeof(uint32_t) / LargePages::kPage * LargePages::kPage;
        if (bytes && table_.map(bytes)) {
            in_table_ = bytes / sizeof(uint32_t);
            segments_.clear();
            count_ = 0;
            add();
        }
        if (buckets && seen_.map(buckets)) seen_count_ = buckets;
    }
    /// One more bucket, while all are empty.
    void add_empty() {
        add();
        if (count_ == mask_ * 2 + 2) mask_ = mask_ * 2 + 1;
    }
    /// No item with this hash is there, for sure.
    bool lacks(uint64_t hash) const {
        if (!seen_count_) return false;
        const uint64_t index = index_of(hash);
        return index < seen_count_ && !(seen_.data()[index] & bit_of(hash));
    }
    /// An item with this hash is put into its bucket.
    void note(uint64_t hash) {
        if (!seen_count_) return;
        const uint64_t index = index_of(hash);
        if (index < seen_count_) seen_.data()[index] = static_cast<uint8_t>(seen_.data()[index] | bit_of(hash));
    }
    /// Back to what a table in use needs.
    void end_loading() {
        seen_count_ = 0;
        seen_.unmap();
    }
    void prefetch(uint64_t hash) const {
        const uint64_t index = index_of(hash);
        fetch_ahead(&const_cast<HashBuckets*>(this)->at(index));
        if (index < seen_count_) fetch_ahead(seen_.data() + index);
    }

    /// Splits one bucket if there are more items than buckets. hash_of(item): u64; next_of(item): u32&; fetch(item): asks for the
    /// item's line. Which buckets come next is known, so what their splits will touch is fetched some splits ahead: the
    /// hash table of millions of items would else wait for memory three times for each new one.
    template <class HashOf, class NextOf, class Fetch>
    void grow(uint64_t items, HashOf hash_of, NextOf next_of, Fetch fetch) {
        if (items <= count_) return;
        if (seen_count_) end_loading();
        const uint64_t fresh = count_;
        const uint64_t wide = mask_ * 2 + 1;
        const uint64_t source = fresh & mask_;
        if (source + kAhead <= mask_) {
            if (const uint32_t item = at(source + kAhead); item != kNone) fetch(item);
            if (const uint32_t item = at(source + kAhead / 2); item != kNone)
                if (const uint32_t next = next_of(item); next != kNone) fetch(next);
        }
        add();
        uint32_t* from = &at(source);
        uint32_t* to = &at(fresh);
        while (*from != kNone) {
            const uint32_t item = *from;
            uint32_t& next = next_of(item);
            if ((hash_of(item) & wide) == fresh) {
                *from = next;
                next = *to;
                *to = item;
            } else {
                from = &next;
            }
        }
        if (count_ == wide + 1) mask_ = wide;
    }
    /// While loading a byte for each bucket more.
    uint64_t memory_bytes() const { return segments_.memory_bytes() + in_table_ * sizeof(uint32_t) + seen_count_; }

private:
    static constexpr uint64_t kAhead = 16;  ///< splits
    uint64_t index_of(uint64_t hash) const {
        const uint64_t index = hash & (mask_ * 2 + 1);
        return index < count_ ? index : index & mask_;
    }
    /// Other bits of the hash than those that choose the bucket.
    static uint8_t bit_of(uint64_t hash) { return static_cast<uint8_t>(1u << (hash >> 61)); }
    uint32_t& at(uint64_t index) {
        if (index < in_table_) return reinterpret_cast<uint32_t*>(table_.data())[index];
        return *reinterpret_cast<uint32_t*>(segments_.at(index - in_table_));
    }
    void add() {
        if (count_ >= in_table_ && count_ - in_table_ == segments_.capacity()) segments_.grow();
        at(count_++) = kNone;
    }

    LargePages table_;        ///< the first in_table_ buckets
    uint64_t in_table_ = 0;
    Segments segments_;       ///< the others
    LargePages seen_;         ///< bits of bit_of() for each bucket, while loading
    uint64_t seen_count_ = 0; ///< buckets; 0: not known
    uint64_t count_ = 0;
    uint64_t mask_ = 0;  ///< of the last completed doubling
};

}  // namespace vitastor::store

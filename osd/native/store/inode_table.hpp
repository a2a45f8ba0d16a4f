// SPDX-License-Identifier: GPL-2.0-or-later
// Inodes by small numbers, so that each object needs a few bits for its own, and blocks counted by inode.
#pragma once

#include <cstdint>

#include "base/ids.hpp"
#include "store/hash_buckets.hpp"
#include "store/segments.hpp"

namespace vitastor::store {

class InodeTable {
public:
    static constexpr uint32_t kNone = UINT32_MAX;
    static constexpr uint32_t kMaxInodes = 1u << 26;  ///< what the number in a slot can hold

    explicit InodeTable(FixedRoom* room) : records_(room), buckets_(room) {}

    InodeNum inode(uint32_t number) const { return records_[number].inode; }
    /// The number of an inode that has users; else kNone.
    uint32_t find(InodeNum inode) const;
    /// Finds or makes the number and counts a user. kNone: there are kMaxInodes already.
    uint32_t add_user(InodeNum inode);
    void add_user_of(uint32_t number) { records_[number].users++; }
    /// The last user frees the number.
    void drop_user(uint32_t number);
    void count_blocks(uint32_t number, int32_t change) { records_[number].blocks += static_cast<uint32_t>(change); }
    /// visit(InodeNum, uint64_t blocks) for each inode that has blocks, in no order.
    template <class Visit>
    void for_each(Visit visit) const {
        for (uint64_t i = 0; i < records_.size(); i++)
            if (records_[i].users && records_[i].blocks) visit(records_[i].inode, uint64_t{records_[i].blocks});
    }
    uint64_t memory_bytes() const { return records_.memory_bytes() + buckets_.memory_bytes(); }

private:
    struct Record {
        InodeNum inode;
        uint32_t users;  ///< slots; 0: the number is free
        uint32_t blocks;
        uint32_t next;   ///< in the bucket, or the next free number
    };
    static uint64_t hash(InodeNum inode) {
        const uint64_t x = inode * 0x9e3779b97f4a7c15ull;
        return x ^ (x >> 32);
    }

    SegmentedVector<Record> records_;
    HashBuckets buckets_;
    uint32_t first_free_ = kNone;
    uint64_t used_ = 0;
    /// Found last; most often asked again.
    struct Recent {
        InodeNum inode = 0;
        uint32_t number = kNone;
    };
    static constexpr uint32_t kRecent = 64;
    static uint32_t recent_place(InodeNum inode) { return static_cast<uint32_t>(hash(inode) % kRecent); }
    mutable Recent recent_[kRecent];
};

}  // namespace vitastor::store

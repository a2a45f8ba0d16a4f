// SPDX-License-Identifier: GPL-2.0-or-later
// Pages of the log between the disk and the index.
//
// Without it most of the time of a start would go into waiting for memory: for a bucket of the hash table, then for the record that it
// names, then for the next one of the chain or for the object's checksums. So each page waits while three others are read, and
// what its entries need is asked for in three steps, one with each of those pages. Nothing here changes the index.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.hpp"
#include "store/index.hpp"
#include "store/store_format.hpp"

namespace vitastor::store {

class LoadQueue {
public:
    explicit LoadQueue(const Index& index) : index_(index) {}

    struct Page {
        std::vector<uint8_t> bytes = std::vector<uint8_t>(kPageSize);
        uint64_t slot = 0;  ///< first place of the page
        uint64_t copy = 0;  ///< place of these bytes
    };
    /// A page whose contents are final. bytes: kPageSize long; exchanged for a buffer that is free.
    void push(std::vector<uint8_t>& bytes, uint64_t slot, uint64_t copy);
    /// The page that has waited longest, if enough came after it (or any, if all are wanted), else null. Good until the next push().
    const Page* pop(bool all);

private:
    static constexpr uint64_t kPagesAhead = 3;
    static constexpr uint32_t kAtOnce = 64;  ///< entries of a page that are prepared
    struct Entry {
        ObjectId object;
        uint32_t first;  ///< slot at the head of the object's chain
        bool is_new;     ///< the entry creates the object: nothing of it is there
    };
    struct Waiting : Page {
        uint32_t count = 0;
        Entry entries[kAtOnce];
    };
    Waiting& at(uint64_t number) { return pages_[number % (kPagesAhead + 1)]; }
    static void find_entries(Waiting& page);

    const Index& index_;
    Waiting pages_[kPagesAhead + 1];
    uint64_t pushed_ = 0, popped_ = 0;
};

}  // namespace vitastor::store

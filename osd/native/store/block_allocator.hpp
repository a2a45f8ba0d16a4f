// SPDX-License-Identifier: GPL-2.0-or-later
// Which blocks of the data area are free: a bitmap with summaries above it, so that finding one costs a few words at any size.
#pragma once

#include <cstdint>
#include <vector>

#include "store/store_format.hpp"

namespace vitastor::store {

class BlockAllocator {
public:
    /// All blocks are free. Memory: a little over one bit per block.
    void reset(uint64_t block_count);
    /// The lowest free block; kNoBlock if there is none. Low ones first keep sparse files small and, in the page cache or in RAM, memory warm:
    /// going round in a circle, a 4 MB overwrite in RAM spent half of its processor time on pages that were never touched before.
    uint32_t allocate();
    /// false: it was taken already (two owners: damaged metadata).
    bool take(uint32_t block);
    void free(uint32_t block);
    /// All of these are free. first + count: at most block_count.
    bool is_free(uint64_t first, uint64_t count) const;
    uint64_t free_count() const { return free_count_; }
    uint64_t memory_bytes() const;

private:
    void mark(uint32_t block, bool is_free);
    uint64_t lowest_free() const;

    std::vector<std::vector<uint64_t>> levels_;  ///< [0]: a bit per block, 1 = free; [n + 1]: a bit per word of [n]
    uint64_t block_count_ = 0;
    uint64_t free_count_ = 0;
};

}  // namespace vitastor::store

// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/block_allocator.hpp"

#include <algorithm>
#include <bit>

#include "base/assert.hpp"

namespace vitastor::store {

void BlockAllocator::reset(uint64_t block_count) {
    levels_.clear();
    block_count_ = free_count_ = block_count;
    for (uint64_t bits = block_count;;) {
        const uint64_t words = (bits + 63) / 64;
        std::vector<uint64_t> level(words, UINT64_MAX);
        if (bits % 64) level.back() = (1ull << (bits % 64)) - 1;
        levels_.push_back(std::move(level));
        if (words <= 1) break;
        bits = words;
    }
}

void BlockAllocator::mark(uint32_t block, bool is_free) {
    uint64_t position = block;
    for (auto& level : levels_) {
        uint64_t& word = level[position / 64];
        const uint64_t bit = 1ull << (position % 64);
        const bool was_empty = word == 0;
        word = is_free ? word | bit : word & ~bit;
        if (is_free ? !was_empty : word != 0) break;  // the summary above already says so
        position /= 64;
    }
}

uint64_t BlockAllocator::lowest_free() const {
    uint64_t position = 0;
    for (size_t height = levels_.size(); height-- > 0;) {
        position = position * 64 + static_cast<uint64_t>(std::countr_zero(levels_[height][position]));
    }
    return position;
}

uint32_t BlockAllocator::allocate() {
    if (free_count_ == 0) return kNoBlock;
    const uint64_t found = lowest_free();
    VITASTOR_ASSERT(found < block_count_);
    const auto block = static_cast<uint32_t>(found);
    mark(block, false);
    free_count_--;
    return block;
}

bool BlockAllocator::take(uint32_t block) {
    if (block >= block_count_) return false;
    if (!(levels_[0][block / 64] & (1ull << (block % 64)))) return false;
    mark(block, false);
    free_count_--;
    return true;
}

bool BlockAllocator::is_free(uint64_t first, uint64_t count) const {
    while (count > 0) {
        const uint64_t bit = first % 64, here = std::min<uint64_t>(64 - bit, count);
        const uint64_t mask = (here == 64 ? UINT64_MAX : (1ull << here) - 1) << bit;
        if ((levels_[0][first / 64] & mask) != mask) return false;
        first += here;
        count -= here;
    }
    return true;
}

void BlockAllocator::free(uint32_t block) {
    VITASTOR_ASSERT(block < block_count_);
    VITASTOR_ASSERT(!(levels_[0][block / 64] & (1ull << (block % 64))));
    mark(block, true);
    free_count_++;
}

uint64_t BlockAllocator::memory_bytes() const {
    uint64_t bytes = 0;
    for (const auto& level : levels_) bytes += level.size() * 8;
    return bytes;
}

}  // namespace vitastor::store

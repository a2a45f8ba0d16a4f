// SPDX-License-Identifier: GPL-2.0-or-later
// Arrays that grow without moving anything and without much waste.
//
// Records live in blocks whose size grows with the square root of their number: of n records' places at most about sqrt(n)
// are unused, no block is large, and a place is found with a few shifts. Growth copies pointers only (8 bytes per block, an eighth to spare).
// Source: Brodnik, Carlsson, Demaine, Munro, Sedgewick: Resizable arrays in optimal time and space, 1999.
#pragma once

#include <malloc.h>
#include <sys/mman.h>

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/assert.hpp"
#include "store/fixed_room.hpp"

namespace vitastor::store {

/// Brings a line into the cache. GCC takes functions that do nothing else for pure ones and leaves their calls out: hence the asm.
inline void fetch_ahead(const void* place) {
    __builtin_prefetch(place);
    asm volatile("");
}

/// Records of one size, not initialised.
class Segments {
public:
    /// room: for the first blocks, as long as there is some; outlives this. Null: none.
    explicit Segments(size_t record_bytes, FixedRoom* room = nullptr)
        : record_bytes_(record_bytes), halvings_(record_bytes >= 1024 ? 3 : record_bytes >= 32 ? 1 : 0), room_(room) {}
    /// Takes the records of one with records of the same size, which is empty then.
    Segments& operator=(Segments&& other) noexcept {
        VITASTOR_ASSERT(record_bytes_ == other.record_bytes_ && !room_ && !other.room_);
        blocks_.swap(other.blocks_);
        std::swap(capacity_, other.capacity_);
        std::swap(bytes_, other.bytes_);
        other.clear();
        return *this;
    }
    Segments(const Segments&) = delete;
    Segments& operator=(const Segments&) = delete;
    ~Segments() { clear(); }

    uint8_t* at(uint64_t index) {
        const uint64_t position = index + kFirst;
        const int height = height_of(position);
        const uint64_t whole = (position >> height) + (uint64_t{1} << height) - kSkip;  // the block in the paper
        const int low = height - halvings_;
        const uint64_t block = (whole << halvings_) | (position >> low & ((1u << halvings_) - 1));
        return blocks_[block] + (position & ((uint64_t{1} << low) - 1)) * record_bytes_;
    }
    const uint8_t* at(uint64_t index) const { return const_cast<Segments*>(this)->at(index); }

    uint64_t capacity() const { return capacity_; }
    /// Adds one block. Returns its first record; *records receives how many it holds.
    uint8_t* grow(uint64_t* records = nullptr) {
        const uint64_t count = block_records(capacity_);
        if (blocks_.size() == blocks_.capacity()) blocks_.reserve(blocks_.size() + blocks_.size() / 8 + 2);
        blocks_.push_back(allocate_block(count * record_bytes_));
        bytes_ += block_bytes(blocks_.back(), count * record_bytes_);
        capacity_ += count;
        if (records) *records = count;
        return blocks_.back();
    }
    /// Gives blocks back that are not needed for `count` records; keeps one to spare unless nothing is needed.
    void shrink(uint64_t count) {
        if (count == 0) {
            clear();
            return;
        }
        for (;;) {
            const uint64_t last = block_records(capacity_ - 1);
            if (capacity_ - last <= count || capacity_ - last - block_records(capacity_ - last - 1) < count) break;
            drop_last();
        }
        if (blocks_.capacity() > blocks_.size() + blocks_.size() / 4 + 8) fit();
    }
    void clear() {
        while (!blocks_.empty()) drop_last();
        fit();
    }
    /// Without the room.
    uint64_t memory_bytes() const { return bytes_ + blocks_.capacity() * sizeof(blocks_[0]); }

private:
    static constexpr uint64_t kFirst = 64;     ///< the smallest blocks hold 8 >> halvings_ records
    static constexpr uint64_t kSkip = 2 + 14;  ///< 14: blocks that positions below kFirst would have
    static int height_of(uint64_t position) { return (64 - std::countl_zero(position)) / 2; }
    uint64_t block_records(uint64_t index) const { return uint64_t{1} << (height_of(index + kFirst) - halvings_); }

    /// Blocks of many pages come from the kernel, all pages at once: that costs half of what a fault for each page does, and
    /// malloc's own 16 bytes would take a page more. Where rounding up to pages costs more than 1/64 they come from malloc.
    static bool is_mapped(size_t bytes) { return bytes >= kMapFrom && (-bytes & (kPage - 1)) <= bytes / 64; }
    static size_t rounded(size_t bytes) { return (bytes + kPage - 1) & ~(kPage - 1); }
    uint8_t* allocate_block(size_t bytes) {
        if (uint8_t* place = room_ ? room_->take(bytes) : nullptr) return place;
        void* block = malloc_or_map(bytes);
        VITASTOR_ASSERT(block);
        return static_cast<uint8_t*>(block);
    }
    static void* malloc_or_map(size_t bytes) {
        if (!is_mapped(bytes)) {
            void* block = malloc(bytes);
            if (block && bytes >= kMapFrom) {
                const uintptr_t from = rounded(reinterpret_cast<uintptr_t>(block));
                const uintptr_t to = (reinterpret_cast<uintptr_t>(block) + bytes) & ~(kPage - 1);
                madvise(reinterpret_cast<void*>(from), to - from, kPopulateWrite);  // Linux 5.14; before, pages come by themselves
            }
            return block;
        }
        void* block = mmap(nullptr, rounded(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        return block == MAP_FAILED ? nullptr : block;
    }
    bool is_in_room(const uint8_t* block) const { return room_ && room_->contains(block); }
    uint64_t block_bytes(uint8_t* block, size_t bytes) const {
        if (is_in_room(block)) return 0;
        return is_mapped(bytes) ? rounded(bytes) : malloc_usable_size(block) + sizeof(size_t);
    }
    void drop_last() {
        const uint64_t count = block_records(capacity_ - 1);
        uint8_t* block = blocks_.back();
        blocks_.pop_back();
        capacity_ -= count;
        bytes_ -= block_bytes(block, count * record_bytes_);
        if (is_in_room(block)) room_->give_back(block, count * record_bytes_);
        else if (is_mapped(count * record_bytes_)) munmap(block, rounded(count * record_bytes_));
        else free(block);
    }

    /// What shrink_to_fit() does only where exceptions are on.
    void fit() {
        std::vector<uint8_t*> fitting;
        fitting.reserve(blocks_.size());
        fitting.insert(fitting.end(), blocks_.begin(), blocks_.end());
        blocks_.swap(fitting);
    }

    static constexpr size_t kPage = 4096;
    static constexpr int kPopulateWrite = 23;  ///< MADV_POPULATE_WRITE, which older headers lack
    static constexpr size_t kMapFrom = 12 * kPage;
    size_t record_bytes_;
    int halvings_;  ///< each block of the paper is 2^halvings_, for large records
    FixedRoom* room_;
    std::vector<uint8_t*> blocks_;
    uint64_t capacity_ = 0;
    uint64_t bytes_ = 0;
};

/// The same for values of a plain type, with a size.
template <class T>
class SegmentedVector {
    static_assert(std::is_trivially_copyable_v<T>);

public:
    explicit SegmentedVector(FixedRoom* room = nullptr) : segments_(sizeof(T), room) {}
    /// Makes room for the first values now.
    void reserve_first() {
        if (segments_.capacity() == 0) segments_.grow();
    }
    T& operator[](uint64_t index) { return *reinterpret_cast<T*>(segments_.at(index)); }
    const T& operator[](uint64_t index) const { return *reinterpret_cast<const T*>(segments_.at(index)); }
    T& back() { return (*this)[size_ - 1]; }
    uint64_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    void push_back(const T& value) {
        if (size_ == segments_.capacity()) segments_.grow();
        (*this)[size_++] = value;
    }
    void clear() {
        segments_.clear();
        size_ = 0;
    }
    uint64_t memory_bytes() const { return segments_.memory_bytes(); }

private:
    Segments segments_;
    uint64_t size_ = 0;
};

}  // namespace vitastor::store

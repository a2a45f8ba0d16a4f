// SPDX-License-Identifier: GPL-2.0-or-later
// Checksums of the granules that objects use: arrays of exactly as many numbers as needed, kept dense.
//
// One pool for each length up to 32, above that eight for each doubling (at most 1/8 is unused). A pool has no holes: where
// an array is freed, the last one moves in, and its owner (4 bytes in front of each array) is told. So memory follows what
// is in use at every moment, also while all objects grow from one length to the next.
#pragma once

#include <cstdint>
#include <vector>

#include "store/segments.hpp"

namespace vitastor::store {

class CrcArrays {
public:
    static constexpr uint32_t kNoOwner = UINT32_MAX;

    /// For arrays of up to `longest` numbers. room: for the first arrays; outlives this.
    CrcArrays(uint32_t longest, FixedRoom* room) : room_(room), pools_(class_of(longest) + 1) {}
    CrcArrays(const CrcArrays&) = delete;
    CrcArrays& operator=(const CrcArrays&) = delete;
    ~CrcArrays();

    /// The class of arrays for `count` numbers, 1 … 32768.
    static uint32_t class_of(uint32_t count) {
        if (count <= kExact) return count - 1;
        const int log = 31 - std::countl_zero(count - 1);  // 2^log < count ≤ 2^(log + 1)
        const uint32_t step = 1u << (log - 3);
        return kExact + static_cast<uint32_t>(log - 5) * 8 + (count - (1u << log) + step - 1) / step - 1;
    }
    static uint32_t length_of(uint32_t kind) {
        if (kind < kExact) return kind + 1;
        const uint32_t log = 5 + (kind - kExact) / 8;
        return (1u << log) + ((kind - kExact) % 8 + 1) * (1u << (log - 3));
    }

    uint32_t* at(uint32_t kind, uint32_t position) {
        return reinterpret_cast<uint32_t*>(pools_[kind]->segments.at(position)) + 1;
    }
    const uint32_t* at(uint32_t kind, uint32_t position) const { return const_cast<CrcArrays*>(this)->at(kind, position); }
    /// A place for an array, its contents undefined; at most 2^32 - 1 of a class.
    uint32_t allocate(uint32_t kind, uint32_t owner);
    /// Frees a place. If another array has moved there, returns its owner, which must remember the place; else kNoOwner.
    uint32_t release(uint32_t kind, uint32_t position);
    void set_owner(uint32_t kind, uint32_t position, uint32_t owner) { at(kind, position)[-1] = owner; }
    uint64_t memory_bytes() const;

private:
    static constexpr uint32_t kExact = 32;
    struct Pool {
        Pool(uint32_t length, FixedRoom* room) : segments((1 + size_t{length}) * 4, room) {}
        Segments segments;
        uint32_t count = 0;
    };
    Pool& pool(uint32_t kind);

    FixedRoom* room_;
    std::vector<Pool*> pools_;  ///< by class; null: never needed
};

}  // namespace vitastor::store

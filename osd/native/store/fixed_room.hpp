// SPDX-License-Identifier: GPL-2.0-or-later
// Memory that an index has from the start, for the first blocks of everything in it.
//
// Records never move, so each kind of them begins with a block that has room for several: beside a few objects that is more than
// the objects themselves. These blocks come from one fixed room. An empty index therefore costs kBytes, and from the
// first object on an index costs at most so many bytes more for each of them (test/index_test.cpp).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/assert.hpp"

namespace vitastor::store {

class FixedRoom {
public:
    static constexpr size_t kBytes = 12 << 10;

    FixedRoom() = default;
    FixedRoom(const FixedRoom&) = delete;
    FixedRoom& operator=(const FixedRoom&) = delete;

    /// 16-aligned, not initialised; null: no such run is free.
    uint8_t* take(size_t bytes) {
        const size_t units = units_of(bytes);
        if (units > free_units_) return nullptr;
        for (size_t unit = 0, run = 0; unit < kUnits; unit++) {
            run = is_used(unit) ? 0 : run + 1;
            if (run < units) continue;
            mark(unit + 1 - units, units);
            free_units_ -= units;
            return room_ + (unit + 1 - units) * kUnit;
        }
        return nullptr;
    }
    /// bytes: as in take().
    void give_back(uint8_t* place, size_t bytes) {
        VITASTOR_ASSERT(contains(place));
        mark(static_cast<size_t>(place - room_) / kUnit, units_of(bytes));
        free_units_ += units_of(bytes);
    }
    bool contains(const uint8_t* place) const { return place >= room_ && place < room_ + kBytes; }
    size_t free_bytes() const { return free_units_ * kUnit; }

private:
    static constexpr size_t kUnit = 16;
    static constexpr size_t kUnits = kBytes / kUnit;
    static size_t units_of(size_t bytes) { return (bytes + kUnit - 1) / kUnit; }
    bool is_used(size_t unit) const { return used_[unit / 64] >> (unit % 64) & 1; }
    /// Free units become used ones, or the other way round.
    void mark(size_t first, size_t count) {
        for (size_t unit = first; unit < first + count; unit++) used_[unit / 64] ^= uint64_t{1} << (unit % 64);
    }

    alignas(16) uint8_t room_[kBytes];
    uint64_t used_[kUnits / 64] = {};
    size_t free_units_ = kUnits;
};

}  // namespace vitastor::store

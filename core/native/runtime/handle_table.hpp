// SPDX-License-Identifier: GPL-2.0-or-later
// Small integer handles with a generation, so that a handle used after its close is caught instead of hitting a stranger.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "base/assert.hpp"

namespace vitastor::runtime {

/// Slot needs `bool open` and `uint32_t generation`, both kept here. Slots never move. A closed slot may live on (its last
/// operations are still ending) until recycle().
template <class Slot>
class HandleTable {
public:
    int32_t open() {
        uint32_t index;
        if (!free_.empty()) {
            index = free_.back();
            free_.pop_back();
        } else {
            index = static_cast<uint32_t>(slots_.size());
            VITASTOR_ASSERT(index < kIndexLimit);
            slots_.emplace_back();
        }
        Slot& slot = slots_[index];
        slot.open = true;
        return static_cast<int32_t>((slot.generation << kIndexBits) | index);
    }
    /// Using a handle that is not open is our bug.
    Slot& get(int32_t handle) {
        VITASTOR_ASSERT(is_open(handle));
        return slots_[index_of(handle)];
    }
    bool is_open(int32_t handle) const {
        uint32_t index = index_of(handle);
        if (handle < 0 || index >= slots_.size()) return false;
        const Slot& slot = slots_[index];
        return slot.open && slot.generation == static_cast<uint32_t>(handle) >> kIndexBits;
    }
    /// The handle is void from here on; its slot stays with its index.
    uint32_t close(int32_t handle) {
        Slot& slot = get(handle);
        slot.open = false;
        slot.generation = (slot.generation + 1) & (kGenerationLimit - 1);
        return index_of(handle);
    }
    Slot& at(uint32_t index) { return slots_[index]; }
    void recycle(uint32_t index) { free_.push_back(index); }
    size_t size() const { return slots_.size(); }
    static uint32_t index_of(int32_t handle) {
        return static_cast<uint32_t>(handle) & (kIndexLimit - 1);
    }

private:
    static constexpr unsigned kIndexBits = 18;
    static constexpr uint32_t kIndexLimit = 1u << kIndexBits;
    static constexpr uint32_t kGenerationLimit = 1u << (31 - kIndexBits);
    std::deque<Slot> slots_;
    std::vector<uint32_t> free_;
};

}  // namespace vitastor::runtime

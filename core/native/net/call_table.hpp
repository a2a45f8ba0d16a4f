// SPDX-License-Identifier: GPL-2.0-or-later
// Calls in flight of one connection by id. Ids are consecutive, so slot = id mod size spreads them perfectly while none is
// slow; a slow one shares its slot with a few others instead of making the table as wide as the distance between ids.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "net/connection.hpp"

namespace vitastor::net {

class CallTable {
public:
    size_t size() const { return count_; }
    size_t memory_bytes() const { return capacity_ * sizeof(Call*); }
    void insert(Call* call) {
        if (count_ == capacity_) grow();
        Call*& slot = slots_[call->id & (capacity_ - 1)];
        call->hash_next = slot;
        slot = call;
        count_++;
    }
    Call* find(uint64_t id) const {
        if (!count_) return nullptr;
        Call* call = slots_[id & (capacity_ - 1)];
        while (call && call->id != id) call = call->hash_next;
        return call;
    }
    /// call: is in the table.
    void remove(Call* call) {
        Call** link = &slots_[call->id & (capacity_ - 1)];
        while (*link != call) link = &(*link)->hash_next;
        *link = call->hash_next;
        call->hash_next = nullptr;
        count_--;
    }
    /// Empties the table into a list ordered by id. For the end of a connection.
    std::vector<Call*> take_all() {
        std::vector<Call*> calls;
        calls.reserve(count_);
        for (size_t i = 0; i < capacity_; i++) {
            for (Call* call = slots_[i]; call; call = call->hash_next) calls.push_back(call);
            slots_[i] = nullptr;
        }
        count_ = 0;
        std::sort(calls.begin(), calls.end(), [](Call* a, Call* b) { return a->id < b->id; });
        return calls;
    }

private:
    void grow() {
        const size_t bigger = capacity_ ? capacity_ * 2 : 64;
        auto slots = std::make_unique<Call*[]>(bigger);
        for (size_t i = 0; i < capacity_; i++) {
            for (Call *call = slots_[i], *next; call; call = next) {
                next = call->hash_next;
                Call*& slot = slots[call->id & (bigger - 1)];
                call->hash_next = slot;
                slot = call;
            }
        }
        slots_ = std::move(slots);
        capacity_ = bigger;
    }
    std::unique_ptr<Call*[]> slots_;
    size_t capacity_ = 0;  ///< power of two
    size_t count_ = 0;
};

}  // namespace vitastor::net

// SPDX-License-Identifier: GPL-2.0-or-later
// Which granules of which version live in spare blocks: a side table by slot. Versions without redirects cost nothing here; one run
// costs 32 bytes and its share of the free places of the table, further runs 12 bytes each.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "store/store_format.hpp"

namespace vitastor::store {

class Redirects {
public:
    Redirects() = default;
    Redirects(const Redirects&) = delete;
    ~Redirects();

    /// Runs of a slot, by first granule, none overlapping. Valid until the next change of any slot.
    std::span<const Redirect> of(uint32_t slot) const;
    /// Replaces all runs of a slot; none: the slot leaves the table. runs must not point into the table.
    void set(uint32_t slot, std::span<const Redirect> runs);
    /// The runs and the position of another slot.
    void copy(uint32_t to, uint32_t from);
    /// The run of a slot that covers the same granules takes another place; `run` becomes what it was. false: there is none.
    bool replace(uint32_t slot, Redirect& run);
    /// Log position from which on the redirects of the slot are durable. 0 for slots that have none.
    uint64_t position(uint32_t slot) const;
    void set_position(uint32_t slot, uint64_t position);

    uint64_t run_count() const { return run_count_; }
    uint64_t memory_bytes() const;

private:
    struct Row {
        uint32_t slot;  ///< UINT32_MAX: empty
        uint32_t size;
        uint64_t position;
        union {
            Redirect one;
            Redirect* many;  ///< size > 1; room for bit_ceil(size)
        };
    };
    static_assert(sizeof(Row) == 32);
    size_t home(uint32_t slot) const { return (slot * 0x9e3779b97f4a7c15ull >> 32) & (rows_.size() - 1); }
    Row* find(uint32_t slot) const;
    Row& insert(uint32_t slot);
    void resize(Row& row, size_t size);
    void erase(Row& row);
    void grow();

    mutable std::vector<Row> rows_;  ///< a power of two of them, at most 3/4 in use; linear probing
    size_t used_ = 0;
    uint64_t run_count_ = 0;
    uint64_t heap_runs_ = 0;  ///< room for runs outside the rows
};

}  // namespace vitastor::store

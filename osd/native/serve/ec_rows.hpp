// SPDX-License-Identifier: GPL-2.0-or-later
// What a primary knows of erasure-coded objects that it has written: the version that every role of the current set got, and the
// bitmaps of the data chunks in it. Saves small writes the round trip that would fetch them. An entry counts only for the activation
// of the PG in which it was made and for that very version, which the own chunk tells; every write and delete of the object removes or
// replaces it. So nothing has to be told when a PG re-peers. Bounded: kRows entries, a newer object takes the place of an older one.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>

#include "base/ids.hpp"

namespace vitastor::serve {

class RowCache {
public:
    static constexpr size_t kBitmapsMax = 64;  ///< bytes; objects with more are not remembered
    static constexpr size_t kRows = 65536;     ///< at most 6.5 MB, taken page by page
    struct Row {
        ObjectId object;
        Version version = 0;
        uint64_t activation = 0;  ///< Pg::activated; 0: free
        uint8_t bitmaps[kBitmapsMax];
    };

    /// Until the next set().
    const Row* find(const ObjectId& object, Version version, uint64_t activation) const {
        const size_t place = place_of(object);
        if (!pages_[place / kPageRows]) return nullptr;
        const Row& row = (*pages_[place / kPageRows])[place % kPageRows];
        return row.activation == activation && row.version == version && row.object == object ? &row : nullptr;
    }
    void set(const ObjectId& object, Version version, uint64_t activation, const uint8_t* bitmaps, size_t bytes) {
        if (bytes > kBitmapsMax) return;
        const size_t place = place_of(object);
        if (!pages_[place / kPageRows]) pages_[place / kPageRows] = std::make_unique<Page>();
        Row& row = (*pages_[place / kPageRows])[place % kPageRows];
        row.object = object;
        row.version = version;
        row.activation = activation;
        std::memcpy(row.bitmaps, bitmaps, bytes);
    }
    void forget(const ObjectId& object) {
        const size_t place = place_of(object);
        if (!pages_[place / kPageRows]) return;
        Row& row = (*pages_[place / kPageRows])[place % kPageRows];
        if (row.object == object) row.activation = 0;
    }
    size_t memory_bytes() const {
        size_t bytes = 0;
        for (const auto& page : pages_) bytes += page ? sizeof(Page) : 0;
        return bytes;
    }

private:
    static constexpr size_t kPageRows = 256;
    using Page = std::array<Row, kPageRows>;
    static size_t place_of(const ObjectId& object) { return ObjectIdHash{}(object) % kRows; }
    std::array<std::unique_ptr<Page>, kRows / kPageRows> pages_;
};

}  // namespace vitastor::serve

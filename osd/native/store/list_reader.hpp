// SPDX-License-Identifier: GPL-2.0-or-later
// Reads an object's list of checksums from the log, where an entry holds it whole.
#pragma once

#include <vector>

#include "runtime/task.hpp"
#include "store/device.hpp"
#include "store/entry.hpp"
#include "store/geometry.hpp"

namespace vitastor::store {

struct SumList {
    std::vector<uint8_t> bits;   ///< granules that have one
    std::vector<uint32_t> sums;  ///< of each of them
};

class ListReader {
public:
    /// Reads that many pages at a time and keeps them: 1 for one list, more for lists that are neighbours.
    ListReader(Device& meta, const Geometry& geometry, uint64_t uuid, uint32_t pages_at_once);

    /// page: where the entry begins, counted on the device; version: the object's when it was written. 0; -ENODATA: there is no
    /// such entry (rot); or what the device says. One call at a time.
    runtime::Task<int> read(uint32_t page, ObjectId object, Version version, SumList& list);
    /// What was kept may be outdated.
    void forget() { chunk_pages_ = 0; }
    uint64_t reads = 0;  ///< of the device

private:
    runtime::Task<const uint8_t*> page_at(uint64_t page);
    bool take(std::span<const uint8_t> bytes, const ObjectId& object, Version version, SumList& list) const;

    Device& meta_;
    const Geometry& geometry_;
    uint64_t uuid_;
    uint32_t pages_at_once_;
    int status_ = 0;
    Buffer chunk_;
    uint64_t chunk_start_ = 0, chunk_pages_ = 0;
};

/// Magic, uuid, checksum and lengths of a log page.
bool is_log_page(const uint8_t* page, uint64_t uuid);

}  // namespace vitastor::store

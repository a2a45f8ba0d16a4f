// SPDX-License-Identifier: GPL-2.0-or-later
// A store whose objects are told by granules, for tests of spare blocks; and probes that a test must reach.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "base/assert.hpp"
#include "rig.hpp"

namespace vitastor::test {

using Tags = std::vector<uint32_t>;

inline unsigned long hits(const char* name) {
    struct Search {
        const char* name;
        unsigned long count = 0;
    } search{name};
    visit_probes(
        [](void* arg, const char* found, unsigned long count) {
            auto& wanted = *static_cast<Search*>(arg);
            if (!strcmp(found, wanted.name)) wanted.count = count;
        },
        &search);
    return search.count;
}

/// CHECKs that the branch runs while this lives.
struct Reaches {
    const char* name;
    unsigned long before;
    explicit Reaches(const char* probe) : name(probe), before(hits(probe)) {}
    ~Reaches() { CHECK_MESSAGE(hits(name) > before, name); }
};

struct SpareRig : Rig {
    explicit SpareRig(uint64_t seed = 1) : Rig(seed) {}
    void start_store(uint64_t disk_size = 6 << 20) {
        make_disks(disk_size);
        loop.disks["data"].atomic_unit = std::max(4096u, options.atomic_write_size);
        REQUIRE_MESSAGE(open() == 0, store->error());
        store->set_pool_pgs(1, 4, 1 << 20);
    }
    ObjectId id(uint64_t number) const { return object_id(1, number, options.block_size); }
    int64_t put(uint64_t number, Version version, uint32_t first, uint32_t count, uint32_t tag, bool stable = true) {
        auto op = write(id(number), version, first, count, tag, stable);
        run(*op);
        return op->result == op->len ? 0 : op->result;
    }
    int64_t apply(StoreOp kind, uint64_t number, Version version) {
        auto op = simple(kind, id(number), version);
        run(*op);
        return op->result;
    }
    Tags tags(uint64_t number, Version version = kNewestVersion) {
        auto op = read(id(number), version, 0, granules());
        run(*op);
        Tags found;
        for (uint32_t i = 0; op->result >= 0 && i < granules(); i++)
            found.push_back(read_granule(op->data + i * options.bitmap_granularity, options.bitmap_granularity));
        return found;
    }
    StoreStats stats() const { return store->stats(); }
    /// Until the mover has nothing left to do.
    void idle() { loop.drain(); }
    void check_space(uint64_t objects) const {
        CHECK(stats().free_blocks + stats().spare_blocks + objects == stats().total_blocks);
    }
};

}  // namespace vitastor::test

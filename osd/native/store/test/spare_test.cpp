// SPDX-License-Identifier: GPL-2.0-or-later
// Where overwrites go: home, spare granules, announced, rewritten; the mover; the full store; what the disk may not say.
#include <doctest/doctest.h>

#include <cstring>
#include <map>

#include "base/assert.hpp"
#include "base/crc32c.hpp"
#include "rig.hpp"
#include "store/entry.hpp"
#include "store/redirects.hpp"
#include "store/spare_blocks.hpp"

using namespace vitastor;
using namespace vitastor::test;

namespace {

using Tags = std::vector<uint32_t>;

unsigned long hits(const char* name) {
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

}  // namespace

TEST_CASE("spare: an overwrite goes to spare granules, the next one home, across restarts") {
    SpareRig rig;
    rig.options.atomic_write_size = 512;  // no granule can decide over others
    rig.start_store();
    CHECK(rig.put(1, 1, 0, 8, 100) == 0);
    Tags expected{100, 101, 102, 103, 104, 105, 106, 107};
    for (Version version = 2; version < 10; version++) {
        const uint64_t before = rig.stats().device_bytes_written;
        CHECK(rig.put(1, version, 2, 2, 1000 * static_cast<uint32_t>(version)) == 0);
        expected[2] = 1000 * static_cast<uint32_t>(version);
        expected[3] = expected[2] + 1;
        CHECK(rig.stats().device_bytes_written - before == 8192 + 4096);  // the data and a page of the log
        CHECK(rig.stats().spare_granules == (version % 2 ? 0 : 2));
        CHECK(rig.stats().spare_blocks == (version % 2 ? 0 : 1));
        CHECK(rig.tags(1) == expected);
        REQUIRE(rig.reopen() == 0);
        CHECK(rig.tags(1) == expected);
        CHECK(rig.stats().spare_granules == (version % 2 ? 0 : 2));
        rig.check_space(1);
    }
    CHECK(rig.logger.errors == 0);
}

TEST_CASE("spare: parts of a run are overwritten, read in as few transfers as possible") {
    SpareRig rig;
    rig.options.checksums = false;
    rig.options.atomic_write_size = 512;
    rig.start_store();
    CHECK(rig.put(1, 1, 0, 8, 100) == 0);
    CHECK(rig.put(1, 2, 2, 3, 200) == 0);  // spare
    CHECK(rig.stats().spare_granules == 3);
    const uint64_t before = rig.loop.io_count;
    CHECK(rig.tags(1) == Tags{100, 101, 200, 201, 202, 105, 106, 107});
    CHECK(rig.loop.io_count - before <= 4);  // two reads; short transfers are continued
    CHECK(rig.put(1, 3, 3, 1, 300) == 0);    // home: cuts the run in two
    CHECK(rig.stats().spare_granules == 2);
    CHECK(rig.tags(1) == Tags{100, 101, 200, 300, 202, 105, 106, 107});
    CHECK(rig.put(1, 4, 1, 2, 400) == 0);    // granule 1 is in use at home: spare
    CHECK(rig.stats().spare_granules == 3);
    CHECK(rig.tags(1) == Tags{100, 400, 401, 300, 202, 105, 106, 107});
    REQUIRE(rig.reopen() == 0);
    CHECK(rig.tags(1) == Tags{100, 400, 401, 300, 202, 105, 106, 107});
    CHECK(rig.put(1, 5, 0, 8, 500) == 0);
    CHECK(rig.stats().spare_granules == 0);
    rig.check_space(1);
    CHECK(rig.put(1, 6, 2, 2, 600) == 0);
    CHECK(rig.apply(StoreOp::del, 1, 7) == 0);
    CHECK(rig.stats().spare_blocks == 0);
    rig.check_space(0);
}

TEST_CASE("spare: one granule decides: it is written over its old data, the others to where nobody reads") {
    for (uint32_t decider : {2u, 4u}) {
        SpareRig rig;
        rig.start_store();
        CHECK(rig.put(1, 1, 0, 8, 100) == 0);
        if (decider == 2) CHECK(rig.put(1, 2, 3, 2, 150) == 0);  // granule 4 has decided, 3 is redirected: 2 and 4 are at home
        if (decider == 2) CHECK(rig.put(1, 3, 4, 2, 160) == 0);  // 5 has decided, 4 is redirected
        const uint64_t spare = rig.stats().spare_granules;
        CHECK(spare == (decider == 2 ? 2 : 0));
        uint64_t before = rig.stats().device_bytes_written;
        if (decider == 4) {
            const Reaches reaches("a granule decides over others in a spare block");
            CHECK(rig.put(1, 4, 2, 3, 200) == 0);
            CHECK(rig.stats().spare_granules == 2);
        } else {
            const Reaches reaches("a granule decides over others at home");
            CHECK(rig.put(1, 4, 2, 3, 200) == 0);
            CHECK(rig.stats().spare_granules == 0);
        }
        CHECK(rig.stats().device_bytes_written - before == 3 * 4096 + 4096);
        Tags expected{100, 101, 200, 201, 202, decider == 2 ? 161u : 105u, 106, 107};
        CHECK(rig.tags(1) == expected);
        REQUIRE(rig.reopen() == 0);
        CHECK(rig.tags(1) == expected);
        before = rig.stats().device_bytes_written;
        if (decider == 4) {
            const Reaches reaches("a granule decides over others at home");
            CHECK(rig.put(1, 5, 2, 3, 300) == 0);
            CHECK(rig.stats().spare_granules == 0);
            CHECK(rig.tags(1) == Tags{100, 101, 300, 301, 302, 105, 106, 107});
        }
        rig.idle();
        rig.check_space(1);
        CHECK(rig.logger.errors == 0);
    }
}

TEST_CASE("spare: a write with a deciding granule is there whole or not at all, whenever the power fails") {
    const Reaches reaches("write with a deciding granule taken back in replay");
    unsigned kept = 0, lost = 0;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        SpareRig rig(seed);
        rig.options.checksums = seed % 2;
        rig.options.immediate_commit = wire::ImmediateCommit::all;
        rig.options.disable_data_fsync = rig.options.disable_meta_fsync = seed % 3 == 0;
        rig.start_store();
        CHECK(rig.put(1, 1, 0, 8, 100) == 0);
        CHECK(rig.put(2, 1, 0, 8, 100) == 0);
        if (seed % 4 >= 2) CHECK(rig.put(1, 2, 3, 3, 200) == 0);
        const Tags old = rig.tags(1);
        auto op = rig.write(rig.id(1), 3, 3, 3, 300);
        rig.start(*op);
        const uint64_t stop = rig.loop.io_count + seed % 9;
        while (!op->done && rig.loop.io_count < stop) rig.loop.run_once(0);
        const bool acknowledged = op->done;
        rig.loop.crash();
        rig.close();
        rig.logger.errors = 0;  // of what was on its way
        REQUIRE(rig.reopen() == 0);
        rig.store->set_pool_pgs(1, 4, 1 << 20);
        Tags fresh = old;
        for (uint32_t i = 0; i < 3; i++) fresh[3 + i] = 300 + i;
        const Tags found = rig.tags(1);
        CHECK((found == fresh || (!acknowledged && found == old)));
        kept += found == fresh;
        lost += found == old;
        for (Version version = 10; version < 14; version++) {  // and the object lives on
            CHECK(rig.put(1, version, version % 3, 4, static_cast<uint32_t>(1000 * version)) == 0);
            CHECK(rig.put(2, version, version % 4, 3, static_cast<uint32_t>(1000 * version)) == 0);
        }
        REQUIRE(rig.reopen() == 0);
        CHECK(rig.tags(1)[1] == 13000);
        CHECK(rig.tags(2) == Tags{12000, 13000, 13001, 13002, 11001, 11002, 106, 107});
        CHECK(rig.logger.errors == 0);
    }
    CHECK(kept > 20);
    CHECK(lost > 20);
}

TEST_CASE("spare: unstable writes, stabilised and rolled back over redirects") {
    for (bool keep : {true, false}) {
        SpareRig rig;
        rig.start_store();
        CHECK(rig.put(1, 1, 0, 8, 100) == 0);
        CHECK(rig.put(1, 2, 3, 1, 200, false) == 0);
        CHECK(rig.put(1, 3, 3, 2, 300, false) == 0);
        CHECK(rig.stats().spare_granules == 3);
        for (int round = 0; round < 2; round++) {
            CHECK(rig.tags(1, 1) == Tags{100, 101, 102, 103, 104, 105, 106, 107});
            CHECK(rig.tags(1, 2) == Tags{100, 101, 102, 200, 104, 105, 106, 107});
            CHECK(rig.tags(1, 3) == Tags{100, 101, 102, 300, 301, 105, 106, 107});
            rig.check_space(1);
            REQUIRE(rig.reopen() == 0);
        }
        {
            const Reaches reaches("mover leaves a granule whose home is in use");
            rig.idle();
        }
        CHECK(rig.stats().spare_granules == 3);
        CHECK(rig.apply(keep ? StoreOp::stabilize : StoreOp::rollback, 1, keep ? 3 : 1) == 0);
        CHECK(rig.stats().spare_granules == (keep ? 2 : 0));
        const Tags expected = keep ? Tags{100, 101, 102, 300, 301, 105, 106, 107} : Tags{100, 101, 102, 103, 104, 105, 106, 107};
        REQUIRE(rig.reopen() == 0);
        CHECK(rig.tags(1) == expected);
        rig.idle();
        CHECK(rig.stats().spare_blocks == 0);
        CHECK(rig.tags(1) == expected);
        // Over granules that were redirected once: home, revocable.
        CHECK(rig.put(1, 10, 3, 2, 400, false) == 0);
        CHECK(rig.put(1, 11, 3, 2, 500, false) == 0);
        CHECK(rig.apply(StoreOp::rollback, 1, 10) == 0);
        CHECK(rig.tags(1)[3] == 400);
        CHECK(rig.apply(StoreOp::rollback, 1, 9) == 0);
        CHECK(rig.tags(1) == expected);
        CHECK(rig.stats().spare_granules == 0);
        REQUIRE(rig.reopen() == 0);
        CHECK(rig.tags(1) == expected);
        rig.check_space(1);
    }
}

TEST_CASE("spare: most of a block is overwritten: the rest is copied along") {
    SpareRig rig;
    rig.start_store();
    CHECK(rig.put(1, 1, 0, 8, 100) == 0);
    CHECK(rig.put(1, 2, 6, 2, 200) == 0);
    CHECK(rig.put(1, 3, 0, 7, 300) == 0);  // granule 7 comes from the spare block
    CHECK(rig.stats().spare_granules == 0);
    CHECK(rig.tags(1) == Tags{300, 301, 302, 303, 304, 305, 306, 201});
    REQUIRE(rig.reopen() == 0);
    CHECK(rig.tags(1) == Tags{300, 301, 302, 303, 304, 305, 306, 201});
    rig.check_space(1);
}

TEST_CASE("spare: with a small atomic_write_size nothing is announced") {
    SpareRig rig;
    rig.options.atomic_write_size = 512;
    rig.start_store();
    CHECK(rig.put(1, 1, 0, 8, 100) == 0);
    CHECK(rig.put(1, 2, 3, 1, 200) == 0);
    CHECK(rig.stats().spare_granules == 1);
    CHECK(rig.put(1, 3, 3, 1, 300) == 0);
    CHECK(rig.stats().spare_granules == 0);
    CHECK(rig.tags(1)[3] == 300);
}

TEST_CASE("spare: aligned writes up to atomic_write_size are announced as one") {
    SpareRig rig;
    rig.options.atomic_write_size = 16384;
    rig.start_store();
    CHECK(rig.put(1, 1, 0, 8, 100) == 0);
    const uint64_t before = rig.stats().device_bytes_written;
    {
        const Reaches reaches("announced write of several granules");
        CHECK(rig.put(1, 2, 4, 4, 200) == 0);
    }
    CHECK(rig.stats().device_bytes_written - before == 16384 + 4096);
    CHECK(rig.stats().spare_blocks == 0);
    CHECK(rig.put(1, 3, 2, 4, 300) == 0);  // not aligned to its length: the last granule decides
    CHECK(rig.stats().spare_granules == 3);
    CHECK(rig.put(1, 4, 0, 4, 400) == 0);  // not all at home
    CHECK(rig.put(1, 5, 6, 2, 500) == 0);
    CHECK(rig.tags(1) == Tags{400, 401, 402, 403, 302, 303, 500, 501});
    REQUIRE(rig.reopen() == 0);
    CHECK(rig.tags(1) == Tags{400, 401, 402, 403, 302, 303, 500, 501});
}

TEST_CASE("spare: a device that tears what it promised to write whole is named, and nothing wrong is read") {
    const Reaches reaches("announced write of several granules is torn");
    for (uint64_t seed = 1; seed < 40; seed++) {
        SpareRig rig(seed);
        rig.options.atomic_write_size = 16384;
        rig.start_store();
        rig.loop.disks["data"].atomic_unit = 4096;
        CHECK(rig.put(1, 1, 0, 8, 100) == 0);
        auto op = rig.write(rig.id(1), 2, 0, 4, 200);
        rig.start(*op);
        const uint64_t log_ios = rig.loop.io_count + 2 + seed % 3;
        while (!op->done && rig.loop.io_count < log_ios) rig.loop.run_once(0);
        rig.loop.crash();
        const unsigned long before = hits("announced write of several granules is torn");
        REQUIRE(rig.reopen() == 0);
        const bool is_torn = hits("announced write of several granules is torn") > before;
        if (is_torn) CHECK(rig.logger.all.find("does not write atomic_write_size whole") != std::string::npos);
        rig.store->set_pool_pgs(1, 4, 1 << 20);
        auto read = rig.read(rig.id(1), kNewestVersion, 0, 8);
        rig.run(*read);
        if (!is_torn) {
            const uint32_t first = read->version == 2 ? 200 : 100;
            CHECK(read->result == read->len);
            for (uint32_t i = 0; i < 4; i++) CHECK(read_granule(read->data + i * 4096, 4096) == first + i);
        } else {
            CHECK(read->result == -EDOM);
            CHECK(read->version == 1);
            CHECK(rig.put(1, 3, 0, 8, 300) == 0);
            CHECK(rig.tags(1)[0] == 300);
        }
    }
}

TEST_CASE("spare: mode none: a home that is needed after a power failure is not written") {
    for (uint64_t seed = 1; seed < 30; seed++) {
        SpareRig rig(seed);
        rig.options.immediate_commit = wire::ImmediateCommit::none;
        rig.start_store();
        CHECK(rig.put(1, 1, 0, 8, 100) == 0);
        auto sync = rig.simple(StoreOp::sync, {}, 0);
        rig.run(*sync);
        CHECK(rig.put(1, 2, 2, 2, 200) == 0);
        {
            const Reaches reaches("home is free but not durably");
            CHECK(rig.put(1, 3, 2, 2, 300) == 0);
        }
        CHECK(rig.stats().spare_granules == 2);
        rig.loop.crash();
        REQUIRE(rig.reopen() == 0);
        const Tags found = rig.tags(1);
        REQUIRE(found.size() == 8);
        CHECK(found[0] == 100);
        CHECK((found[2] == 100 + 2 || found[2] == 200 || found[2] == 300));
        CHECK(found[3] == (found[2] == 102 ? 103 : found[2] + 1));
    }
}

TEST_CASE("spare: the mover keeps up with random overwrites and gives everything back when the store is idle") {
    for (bool unstable : {false, true}) {
        SpareRig rig(3);
        rig.options.immediate_commit = unstable ? wire::ImmediateCommit::small : wire::ImmediateCommit::all;
        rig.start_store();
        constexpr uint64_t kObjects = 40;
        std::map<uint64_t, Tags> expected;
        Version version = 1;
        for (uint64_t i = 0; i < kObjects; i++) {
            REQUIRE(rig.put(i, version, 0, 8, 100) == 0);
            expected[i] = {100, 101, 102, 103, 104, 105, 106, 107};
        }
        Random random(7);
        uint64_t most = 0;
        for (uint32_t step = 0; step < 3000; step++) {
            const uint64_t object = random.below(kObjects);
            const auto count = static_cast<uint32_t>(1 + random.below(3)), first = static_cast<uint32_t>(random.below(9 - count));
            const uint32_t tag = 1000 + step * 8;
            REQUIRE(rig.put(object, ++version, first, count, tag, !unstable) == 0);
            if (unstable) REQUIRE(rig.apply(StoreOp::stabilize, object, version) == 0);
            for (uint32_t i = 0; i < count; i++) expected[object][first + i] = tag + i;
            most = std::max(most, rig.stats().spare_blocks);
            if (step % 500 == 250) REQUIRE(rig.reopen() == 0);
            if (step % 100 == 0) CHECK(rig.tags(object) == expected[object]);
        }
        CHECK(rig.stats().moved_bytes > 0);
        CHECK(most <= rig.stats().total_blocks / 4);
        rig.idle();
        CHECK(rig.stats().spare_blocks == 0);
        rig.check_space(kObjects);
        for (uint64_t i = 0; i < kObjects; i++) CHECK(rig.tags(i) == expected[i]);
        REQUIRE(rig.reopen() == 0);
        for (uint64_t i = 0; i < kObjects; i++) CHECK(rig.tags(i) == expected[i]);
        CHECK(rig.logger.errors == 0);
    }
}

TEST_CASE("spare: new objects take the blocks back that were spare while they were free") {
    SpareRig rig(5);
    rig.start_store();
    const uint64_t total = rig.stats().total_blocks;
    uint64_t count = total / 2;
    for (uint64_t i = 0; i < count; i++) REQUIRE(rig.put(i, 1, 0, 8, 100) == 0);
    std::vector<std::unique_ptr<TestOp>> ops;
    for (uint64_t i = 0; i < count; i++) ops.push_back(rig.write(rig.id(i), 2, 1, 3, 200));
    for (auto& op : ops) rig.start(*op);
    for (auto& op : ops)
        while (!op->done) rig.loop.run_once(0);
    CHECK(rig.stats().spare_blocks > 4);
    const Reaches reaches("write waits for a spare block to become free");
    while (rig.put(count, 1, 0, 8, 300) == 0) count++;
    CHECK(count + rig.stats().spare_blocks + rig.stats().free_blocks == total);
    CHECK(rig.stats().spare_blocks <= 8);  // three quarters of what is left
    for (uint64_t i = 0; i < count; i++) CHECK(rig.tags(i)[1] == (i < total / 2 ? 200 : 301));
}

TEST_CASE("spare: a full store takes overwrites of every size") {
    for (uint64_t seed = 1; seed <= 6; seed++) {
        SpareRig rig(seed);
        rig.options.immediate_commit = seed % 3 == 0 ? wire::ImmediateCommit::none : wire::ImmediateCommit::all;
        rig.options.block_size = seed % 2 ? 131072 : 32768;
        rig.start_store(seed % 2 ? 8 << 20 : 5 << 20);
        const uint32_t granules = rig.granules();
        uint64_t count = 0;
        std::map<uint64_t, Tags> expected;
        Version version = 1;
        while (rig.put(count, version, 0, granules, 100) == 0) {
            for (uint32_t i = 0; i < granules; i++) expected[count].push_back(100 + i);
            count++;
        }
        CHECK(rig.stats().free_blocks <= 2);
        Random random(seed);
        uint64_t unstable_done = 0;
        for (uint32_t round = 0; round < 40; round++) {
            struct Flight {
                std::unique_ptr<TestOp> op;
                uint64_t object;
                uint32_t first, tag;
            };
            std::vector<Flight> flights;
            version++;
            for (uint64_t object = 0; object < count; object++) {
                if (!random.chance(50)) continue;
                const auto first = static_cast<uint32_t>(random.below(granules));
                const auto length = static_cast<uint32_t>(1 + random.below(granules - first));
                const uint32_t tag = 1000 + round * 1000 + static_cast<uint32_t>(object) * 40;
                const bool stable = !random.chance(20);
                flights.push_back({rig.write(rig.id(object), version, first, length, tag, stable), object, first, tag});
            }
            for (auto& flight : flights) rig.start(*flight.op);
            for (auto& flight : flights) {
                while (!flight.op->done) rig.loop.run_once(0);
                TestOp& op = *flight.op;
                if (op.op == StoreOp::write) {
                    CHECK((op.result == op.len || op.result == -ENOSPC));
                    if (op.result < 0) continue;
                    unstable_done++;
                    CHECK(rig.apply(StoreOp::stabilize, flight.object, version) == 0);
                }
                CHECK(op.result == op.len);
                for (uint32_t i = 0; i < op.len / 4096; i++) expected[flight.object][flight.first + i] = flight.tag + i;
            }
            if (round % 10 == 9) {
                auto sync = rig.simple(StoreOp::sync, {}, 0);
                rig.run(*sync);
                REQUIRE(rig.reopen() == 0);
            }
        }
        for (uint64_t i = 0; i < count; i++) CHECK(rig.tags(i) == expected[i]);
        rig.idle();
        CHECK(rig.stats().spare_blocks == 0);
        rig.check_space(count);
        for (uint64_t i = 0; i < count; i++) CHECK(rig.tags(i) == expected[i]);
        CHECK(rig.logger.errors == 0);
    }
    CHECK(hits("no spare room: the block is rewritten") > 0);
}

TEST_CASE("spare: writers that wait for spare room let the mover have their objects") {
    for (uint64_t seed = 1; seed <= 20; seed++) {
        SpareRig rig(seed);
        rig.options.atomic_write_size = 512;  // no granule decides
        rig.start_store();
        uint64_t objects = 0;
        while (rig.put(objects, 1, 0, 8, static_cast<uint32_t>(100 * objects + 1)) == 0) objects++;
        CHECK(rig.apply(StoreOp::del, --objects, 2) == 0);  // some blocks for spare ones
        CHECK(rig.apply(StoreOp::del, --objects, 2) == 0);
        // Spare room is filled by a few objects, six granules each, until the next would have to wait.
        uint64_t users = 0;
        for (; users < 4; users++)
            for (uint32_t first : {0u, 2u, 4u}) CHECK(rig.put(users, 2 + first, first, 2, static_cast<uint32_t>(10000 + 100 * users + first)) == 0);
        const unsigned long rewritten = hits("no spare room: the block is rewritten");
        const unsigned long waited = hits("write waits for spare granules"), taken = hits("mover takes an object whose writer waits for it");
        // All of them write at once where only spare room helps.
        std::vector<std::unique_ptr<TestOp>> ops;
        for (uint64_t user = 0; user < users; user++) {
            ops.push_back(rig.write(rig.id(user), 20, 6, 2, static_cast<uint32_t>(20000 + 100 * user)));
            rig.start(*ops.back());
        }
        for (const auto& op : ops) {
            while (!op->done) rig.loop.run_once(0);
            CHECK(op->result == op->len);
        }
        CHECK(hits("write waits for spare granules") > waited);
        CHECK(hits("mover takes an object whose writer waits for it") > taken);
        CHECK(hits("no spare room: the block is rewritten") == rewritten);
        for (int round = 0; round < 2; round++) {
            for (uint32_t user = 0; user < users; user++) {
                const uint32_t tag = 10000 + 100 * user, last = 20000 + 100 * user;
                CHECK(rig.tags(user) == Tags{tag, tag + 1, tag + 2, tag + 3, tag + 4, tag + 5, last, last + 1});
            }
            REQUIRE(rig.reopen() == 0);
        }
        CHECK(rig.logger.errors == 0);
    }
}

TEST_CASE("spare: the mover leaves damaged granules where they are; the next write repairs them") {
    SpareRig rig;
    rig.start_store();
    CHECK(rig.put(1, 1, 0, 8, 100) == 0);
    CHECK(rig.put(1, 2, 2, 3, 200) == 0);
    FakeDisk& disk = rig.loop.disks["data"];
    for (uint64_t at = disk.small_sectors_below; at < disk.current.size(); at += 4096)
        if (read_granule(disk.current.data() + at, 4096) == 201) disk.current[at + 77] ^= 1;
    rig.idle();
    CHECK(rig.stats().spare_granules == 1);
    CHECK(rig.stats().checksum_errors > 0);
    CHECK(rig.tags(1).empty());
    auto read = rig.read(rig.id(1), kNewestVersion, 3, 1);
    rig.run(*read);
    CHECK(read->result == -EDOM);
    CHECK(rig.put(1, 3, 3, 1, 300) == 0);
    CHECK(rig.tags(1) == Tags{100, 101, 200, 300, 202, 105, 106, 107});
    CHECK(rig.stats().spare_blocks == 0);
}

TEST_CASE("spare: a store of an older release is opened, and marked before the first redirect") {
    SpareRig rig;
    rig.start_store();
    CHECK(rig.put(1, 1, 0, 8, 100) == 0);
    rig.close();
    for (FakeDisk* disk : {&rig.loop.disks["data"]}) {
        Superblock super;
        memcpy(&super, disk->current.data(), sizeof(super));
        CHECK((super.incompatible & kSpareGranules) != 0);
        super.incompatible &= ~kSpareGranules;
        super.crc = 0;
        super.crc = crc32c(&super, sizeof(super));
        memcpy(disk->current.data(), &super, sizeof(super));
        memcpy(disk->durable.data(), &super, sizeof(super));
    }
    REQUIRE(rig.open() == 0);
    const auto bit = [&] {
        Superblock super;
        memcpy(&super, rig.loop.disks["data"].durable.data(), sizeof(super));
        return super.incompatible & kSpareGranules;
    };
    CHECK(rig.put(1, 2, 3, 1, 200) == 0);
    CHECK(bit() == 0);
    const Reaches reaches("a store of an older release gets a new feature");
    CHECK(rig.put(1, 3, 3, 2, 300) == 0);
    CHECK(bit() == kSpareGranules);
    REQUIRE(rig.reopen() == 0);
    CHECK(rig.tags(1) == Tags{100, 101, 102, 300, 301, 105, 106, 107});
}

TEST_CASE("spare: two owners of a granule, and a spare block that is a home, are damage") {
    for (int kind = 0; kind < 2; kind++) {
        SpareRig rig;
        rig.options.disable_data_fsync = rig.options.disable_meta_fsync = true;
        rig.options.atomic_write_size = 512;
        rig.start_store();
        CHECK(rig.put(1, 1, 0, 8, 100) == 0);
        CHECK(rig.put(2, 1, 0, 8, 100) == 0);
        CHECK(rig.put(1, 2, 2, 2, 200) == 0);
        CHECK(rig.put(2, 2, 2, 2, 300) == 0);
        rig.close();
        // The newest copy of the page with both entries, and the place in the last of them.
        FakeDisk& disk = rig.loop.disks["data"];
        uint8_t* found = nullptr;
        PageHeader newest{};
        for (uint64_t at = 16384; at < disk.small_sectors_below; at += kPageSize) {
            PageHeader header;
            memcpy(&header, disk.current.data() + at, sizeof(header));
            if (header.magic != kPageMagic || header.write_sequence < newest.write_sequence) continue;
            newest = header;
            found = disk.current.data() + at;
        }
        REQUIRE(found);
        uint8_t* last = nullptr;
        for (uint32_t at = 0; at < newest.used;) {
            EntryHeader entry;
            memcpy(&entry, found + sizeof(newest) + at, sizeof(entry));
            if (entry.flags & kEntrySpare) last = found + sizeof(newest) + at + sizeof(entry);
            at += entry.size;
        }
        REQUIRE(last);
        SparePlace place;
        memcpy(&place, last, sizeof(place));
        if (kind == 0) place.place -= 2;
        else place.block = 0;  // the home of the first object
        memcpy(last, &place, sizeof(place));
        newest.crc = crc32c(found + 8, kPageSize - 8);
        memcpy(found, &newest, sizeof(newest));
        CHECK(rig.open() == -EIO);
        CHECK(rig.store->error().find("belongs to") != std::string::npos);
        CHECK(rig.store->error().find("If other copies") != std::string::npos);
    }
}

TEST_CASE("spare: entries from the disk are checked") {
    Geometry geometry;
    geometry.block_size = 32768;
    geometry.granularity = 4096;
    geometry.granules = 8;
    geometry.bitmap_bytes = 1;
    geometry.checksums = false;
    geometry.block_count = 10;
    EntryView view;
    const auto moved = [&](std::vector<Redirect> runs, size_t cut = 0) {
        EntryHeader header{};
        header.type = EntryType::moved;
        header.count = static_cast<uint16_t>(runs.size());
        std::vector<uint8_t> bytes(sizeof(header) + runs.size() * sizeof(Redirect) - cut);
        header.size = static_cast<uint32_t>(bytes.size());
        memcpy(bytes.data(), &header, sizeof(header));
        if (!runs.empty()) memcpy(bytes.data() + sizeof(header), runs.data(), bytes.size() - sizeof(header));
        return decode_entry(geometry, bytes, view);
    };
    CHECK(moved({{1, 0, 2, 3, 0}, {2, 2, 6, 2, 0}}));
    CHECK_FALSE(moved({}));
    CHECK_FALSE(moved({{1, 0, 2, 3, 0}}, 1));
    CHECK_FALSE(moved({{1, 0, 0, 3, 0}}));                    // empty
    CHECK_FALSE(moved({{1, 0, 2, 7, 0}}));                    // beyond the spare block
    CHECK_FALSE(moved({{1, 7, 2, 0, 0}}));                    // beyond the object
    CHECK_FALSE(moved({{10, 0, 2, 3, 0}}));                   // no such block
    CHECK_FALSE(moved({{1, 2, 2, 3, 0}, {1, 3, 1, 0, 0}}));   // overlapping
    CHECK_FALSE(moved({{1, 2, 2, 3, 0}, {1, 0, 1, 0, 0}}));   // not in order
    CHECK_FALSE(moved({{1, 0, 65535, 65535, 0}}));
    const auto write = [&](uint8_t flags, uint16_t count, SparePlace place) {
        EntryHeader header{};
        header.type = EntryType::write;
        header.flags = flags;
        header.count = count;
        header.version = 1;
        std::vector<uint8_t> bytes(sizeof(header) + sizeof(place));
        header.size = static_cast<uint32_t>(bytes.size());
        memcpy(bytes.data(), &header, sizeof(header));
        memcpy(bytes.data() + sizeof(header), &place, sizeof(place));
        return decode_entry(geometry, bytes, view);
    };
    CHECK(write(kEntrySpare, 3, {9, 5, 0}));
    CHECK_FALSE(write(kEntrySpare, 3, {9, 6, 0}));
    CHECK_FALSE(write(kEntrySpare, 3, {10, 5, 0}));
    CHECK_FALSE(write(kEntrySpare, 0, {9, 5, 0}));
    CHECK_FALSE(write(kEntrySpare | kEntryCreate, 3, {9, 5, 0}));
    CHECK_FALSE(write(kEntrySpare | kEntryIntent | kEntryStable, 3, {9, 5, 0}));
    const auto decided = [&](uint8_t flags, uint16_t count, uint32_t decider, uint16_t place = 5) {
        EntryHeader header{};
        header.type = EntryType::write;
        header.flags = flags | kEntryStable;
        header.count = count;
        header.first = 2;
        header.version = 1;
        header.decider = decider;
        std::vector<uint8_t> bytes(sizeof(header) + (flags & kEntrySpare ? sizeof(SparePlace) : 0) + 4 * count);
        header.size = static_cast<uint32_t>(bytes.size());
        memcpy(bytes.data(), &header, sizeof(header));
        const SparePlace spare{9, place, 0};
        if (flags & kEntrySpare) memcpy(bytes.data() + sizeof(header), &spare, sizeof(spare));
        return decode_entry(geometry, bytes, view);
    };
    CHECK(decided(kEntryIntent | kEntrySpare, 4, 1));
    CHECK(view.deciding_granule() == 2);
    CHECK(view.spare_run().first == 3);
    CHECK(decided(kEntryIntent | kEntrySpare, 4, 4));
    CHECK(view.deciding_granule() == 5);
    CHECK(view.spare_run().first == 2);
    CHECK(view.spare_run().count == 3);
    CHECK(decided(kEntryIntent, 4, 2));
    CHECK(view.deciding_granule() == 3);
    CHECK_FALSE(decided(kEntryIntent | kEntrySpare, 4, 2));     // neither the first nor the last
    CHECK_FALSE(decided(kEntryIntent | kEntrySpare, 4, 4, 6));  // beyond the spare block
    CHECK_FALSE(decided(kEntryIntent, 4, 5));                   // outside of the range
    CHECK_FALSE(decided(kEntryIntent, 1, 1));                   // alone
    CHECK_FALSE(decided(0, 4, 1));                              // not announced
    const auto full = [&](std::vector<Redirect> runs, uint8_t allocated, uint32_t block = 4) {
        EntryHeader header{};
        header.type = EntryType::full;
        header.count = 1;
        header.version = 1;
        const VersionHeader version{1, block, kEntryStable, static_cast<uint16_t>(runs.size())};
        std::vector<uint8_t> bytes(sizeof(header) + sizeof(version) + 2 + runs.size() * sizeof(Redirect));
        header.size = static_cast<uint32_t>(bytes.size());
        memcpy(bytes.data(), &header, sizeof(header));
        memcpy(bytes.data() + sizeof(header), &version, sizeof(version));
        bytes[sizeof(header) + sizeof(version) + 1] = allocated;
        if (!runs.empty()) memcpy(bytes.data() + sizeof(header) + sizeof(version) + 2, runs.data(), runs.size() * sizeof(Redirect));
        return decode_entry(geometry, bytes, view);
    };
    CHECK(full({{1, 0, 2, 3, 0}}, 0x0f));
    CHECK_FALSE(full({{1, 0, 2, 3, 0}}, 0x01));       // of a granule that is not in use
    CHECK_FALSE(full({{4, 0, 2, 3, 0}}, 0x0f));       // in the home block
    CHECK_FALSE(full({{1, 0, 2, 3, 0}}, 0, kNoBlock));
}

TEST_CASE("spare: the table of redirects against a map") {
    Redirects table;
    std::map<uint32_t, std::vector<Redirect>> model;
    Random random(11);
    for (uint32_t step = 0; step < 60000; step++) {
        const auto slot = static_cast<uint32_t>(random.below(random.chance(50) ? 300 : 3000)) * 64;
        std::vector<Redirect> runs(random.chance(40) ? 0 : 1 + random.below(5));
        for (Redirect& run : runs) run = {static_cast<uint32_t>(random.below(100)), static_cast<uint16_t>(random.below(8)), 1, 2, 0};
        table.set(slot, runs);
        table.set_position(slot, step);
        if (runs.empty()) model.erase(slot);
        else model[slot] = runs;
        const auto other = static_cast<uint32_t>(random.below(3000)) * 64;
        const std::span<const Redirect> found = table.of(other);
        const auto place = model.find(other);
        REQUIRE(found.size() == (place == model.end() ? 0 : place->second.size()));
        if (!found.empty()) REQUIRE(memcmp(found.data(), place->second.data(), found.size_bytes()) == 0);
    }
    uint64_t count = 0;
    for (const auto& [slot, runs] : model) {
        count += runs.size();
        table.set(slot, {});
    }
    CHECK(count > 0);
    CHECK(table.run_count() == 0);
}

TEST_CASE("spare: no tail is wasted while several blocks are open, and empty blocks are given back once") {
    SpareBlocks spare;
    spare.reset(8);
    CHECK_FALSE(spare.take(1));
    spare.open(3);
    const auto five = spare.take(5);
    REQUIRE(five);
    CHECK_FALSE(spare.take(5));
    spare.open(4);
    const auto again = spare.take(5);
    REQUIRE(again);
    CHECK(again->block == 4);
    const auto three = spare.take(3);
    REQUIRE(three);
    CHECK(three->place == 5);
    spare.use(five->block, five->place, 5, 77);
    spare.use(five->block, five->place, 5, 77);  // another version of the same object
    spare.settle(*five, 5);
    CHECK(spare.live_granules() == 5);
    CHECK(spare.owners(five->block) == std::vector<uint32_t>{77});
    spare.release(five->block, five->place, 5, 1000);
    spare.settle(*again, 5);
    if (three->block == five->block) CHECK_FALSE(spare.count() == 0);
    spare.settle(*three, 3);
    std::map<uint32_t, uint64_t> empty;
    while (const auto block = spare.take_empty()) empty[block->block] = block->position;
    CHECK(empty == std::map<uint32_t, uint64_t>{{3, 1000}, {4, 0}});
    CHECK(spare.count() == 0);
}

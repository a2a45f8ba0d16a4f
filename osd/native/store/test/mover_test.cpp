// SPDX-License-Identifier: GPL-2.0-or-later
// Granules come home again: the mover, stores that are full, writers that wait.
#include "spare_rig.hpp"

using namespace vitastor;
using namespace vitastor::test;

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

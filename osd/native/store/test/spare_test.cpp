// SPDX-License-Identifier: GPL-2.0-or-later
// Where overwrites go: home, spare granules, announced, one granule deciding over others, rewritten.
#include "spare_rig.hpp"

using namespace vitastor;
using namespace vitastor::test;

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

TEST_CASE("spare: with no room for redirects a home that is free, but not durably, is made so first") {
    constexpr uint64_t kOthers = 50;
    for (uint64_t seed = 1; seed < 20; seed++) {
        SpareRig rig(seed);
        rig.options.immediate_commit = wire::ImmediateCommit::none;
        rig.options.atomic_write_size = 512;
        rig.start_store();
        for (uint64_t i = 1; i <= 1 + kOthers; i++) CHECK(rig.put(i, 1, 0, 8, 100) == 0);
        for (uint64_t i = 2; i <= 1 + kOthers; i++) {
            CHECK(rig.put(i, 2, 1, 1, 200) == 0);
            CHECK(rig.put(i, 3, 5, 1, 200) == 0);
        }
        auto sync = rig.simple(StoreOp::sync, {}, 0);
        rig.run(*sync);
        CHECK(rig.put(1, 2, 2, 2, 200) == 0);
        CHECK(rig.stats().spare_granules == 2 + 2 * kOthers);
        // Each write in flight might need redirects of its own.
        std::vector<std::unique_ptr<TestOp>> others;
        for (uint64_t i = 2; i <= 1 + kOthers; i++) {
            others.push_back(rig.write(rig.id(i), 4, 3, 1, 300));
            rig.start(*others.back());
        }
        {
            const Reaches reaches("no spare room: home is made free durably");
            CHECK(rig.put(1, 3, 2, 2, 300) == 0);
        }
        CHECK(rig.tags(1)[2] == 300);
        rig.loop.crash();
        REQUIRE(rig.reopen() == 0);
        const Tags found = rig.tags(1);
        // Version 2 was durable before its successor went home: the old bytes there are gone.
        CHECK((found == Tags{100, 101, 200, 201, 104, 105, 106, 107} || found == Tags{100, 101, 300, 301, 104, 105, 106, 107}));
    }
}

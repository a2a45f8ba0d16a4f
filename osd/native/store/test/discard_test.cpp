// SPDX-License-Identifier: GPL-2.0-or-later
// Discard: only what is free for good, never what somebody uses, and nobody notices.
#include <doctest/doctest.h>

#include <map>

#include "sim_rig.hpp"
#include "store/discarder.hpp"

using namespace vitastor;
using namespace vitastor::test;
using runtime::kNsPerMs;
using runtime::kNsPerSecond;

namespace {

struct DiscardRig : SimRig {
    explicit DiscardRig(uint64_t seed = 1, uint64_t bytes = 16 << 20) : SimRig(seed) {
        add_disk("data", bytes);
        options.discard_freed = DiscardFreed::on;
        options.min_discard_size = 32768;
    }
    void fill(uint64_t count) {
        for (uint64_t i = 0; i < count; i++) REQUIRE(write(i, 1, 0, 8, static_cast<uint8_t>(i + 1)) == 32768);
    }
};

}  // namespace

TEST_CASE("automatic: block devices that can discard, nothing else; off is off") {
    struct Case {
        DiscardFreed wish;
        bool block_device, able;
        bool expected;
    };
    for (const Case& the : {Case{DiscardFreed::automatic, true, true, true}, Case{DiscardFreed::automatic, false, true, false},
                            Case{DiscardFreed::automatic, true, false, false}, Case{DiscardFreed::on, false, true, true},
                            Case{DiscardFreed::off, true, true, false}, Case{DiscardFreed::on, true, false, false}}) {
        DiscardRig rig;
        rig.change_disk("data", [&](auto& disk) { disk.is_block_device = the.block_device, disk.can_discard = the.able; });
        rig.options.discard_freed = the.wish;
        REQUIRE(rig.open() == 0);
        rig.fill(20);
        for (uint64_t i = 0; i < 20; i++) CHECK(rig.remove(i, 2) == 0);
        const StoreStats before = rig.store->stats();
        CHECK(before.discards == 0);
        CHECK(before.free_blocks == before.total_blocks);
        rig.run_for(2 * kNsPerSecond);
        const StoreStats after = rig.store->stats();
        CHECK((after.discarded_bytes > 0) == the.expected);
        CHECK(after.free_blocks == after.total_blocks);
        if (the.expected) {
            CHECK(after.discarded_bytes == 20 * 32768);
            CHECK(after.discards == 1);  // neighbours go together
        }
        CHECK(rig.logger.count(LogLevel::warning, "cannot discard") == (the.wish == DiscardFreed::on && !the.able));
    }
}

TEST_CASE("a piece goes when all its blocks are free, and not while one of them is in use") {
    DiscardRig rig;
    rig.options.min_discard_size = 8 * 32768;
    REQUIRE(rig.open() == 0);
    rig.fill(16);
    for (uint64_t i = 0; i < 7; i++) CHECK(rig.remove(i, 2) == 0);
    rig.run_for(3 * kNsPerSecond);
    CHECK(rig.store->stats().discarded_bytes == 0);
    CHECK(rig.remove(7, 2) == 0);
    rig.run_for(3 * kNsPerSecond);
    CHECK(rig.store->stats().discarded_bytes == 8 * 32768);
    for (uint64_t i = 8; i < 16; i++) CHECK(rig.read(i, 3) == static_cast<int>(i + 1));
}

TEST_CASE("without immediate commit nothing is discarded before the deletion is durable") {
    DiscardRig rig;
    rig.options.immediate_commit = wire::ImmediateCommit::none;
    REQUIRE(rig.open() == 0);
    rig.fill(20);
    CHECK(rig.sync() == 0);
    for (uint64_t i = 0; i < 20; i++) CHECK(rig.remove(i, 2) == 0);
    rig.run_for(5 * kNsPerSecond);
    CHECK(rig.store->stats().discards == 0);
    CHECK(rig.sync() == 0);
    rig.run_for(5 * kNsPerSecond);
    CHECK(rig.store->stats().discarded_bytes == 20 * 32768);
}

TEST_CASE("discard_on_start: all that is free, in bounded pieces, and a second start changes nothing") {
    DiscardRig rig(1, 256 << 20);
    rig.options.discard_freed = DiscardFreed::off;
    REQUIRE(rig.open() == 0);
    rig.fill(50);
    rig.options.discard_on_start = true;
    for (int round = 0; round < 2; round++) {
        REQUIRE(rig.reopen() == 0);
        rig.run_for(10 * kNsPerSecond);
        const StoreStats stats = rig.store->stats();
        CHECK(stats.discarded_bytes == stats.free_blocks * 32768);
        CHECK(stats.discards >= stats.discarded_bytes / (64 << 20));
        for (uint64_t i = 0; i < 50; i++) CHECK(rig.read(i, 5) == static_cast<int>(i + 1));
    }
}

TEST_CASE("closing waits for a discard that is under way without turning in a circle") {
    DiscardRig rig;
    REQUIRE(rig.open() == 0);
    rig.fill(8);
    for (uint64_t i = 0; i < 8; i++) REQUIRE(rig.remove(i, 2) == 0);
    rig.change_disk("data", [](auto& disk) { disk.slow_chance = 1, disk.slow_ns = 10 * kNsPerSecond; });
    const uint64_t freed = rig.store->stats().free_blocks;
    rig.run_for(2 * kNsPerSecond);  // the discard has begun and takes its time
    CHECK(rig.store->stats().discards == 0);
    CHECK(rig.store->stats().free_blocks == freed);
    struct Closed : runtime::Completion {
        bool done = false;
    } closed;
    closed.on_done = [](runtime::Completion* self, int64_t) { static_cast<Closed*>(self)->done = true; };
    rig.change_disk("data", [](auto& disk) { disk.slow_chance = 0; });
    const uint64_t begun_ns = rig.world.now_ns();
    rig.store->close(closed);
    uint64_t steps = 0;
    rig.run_until([&] { return steps++, closed.done; });
    CHECK(rig.world.now_ns() - begun_ns > 5 * kNsPerSecond);
    CHECK(steps < 100);
    rig.store.reset();
}

TEST_CASE("a device that refuses is asked once") {
    DiscardRig rig;
    REQUIRE(rig.open() == 0);
    rig.fill(4);
    for (int round = 0; round < 2; round++) {
        CHECK(rig.remove(static_cast<uint64_t>(round), 2) == 0);
        rig.world.fail_operation("data", rig.world.disk_operations("data") + 1, -EOPNOTSUPP);
        rig.run_for(3 * kNsPerSecond);
    }
    CHECK(rig.store->stats().discards == 0);
    CHECK(rig.logger.count(LogLevel::info, "refuses to discard") == 1);
}

TEST_CASE("a full store: blocks under discard are waited for, never reported as missing") {
    DiscardRig rig(7);
    rig.change_disk("data", [](auto& disk) { disk.latency_ns = 300 * kNsPerMs, disk.jitter_ns = 0; });
    REQUIRE(rig.open() == 0);
    const uint64_t total = rig.store->stats().total_blocks;
    uint64_t count = 0;
    while (rig.write(count, 1, 0, 8, 1) == 32768) count++;
    CHECK(count + 4 > total);
    for (uint64_t i = 0; i < count; i++) CHECK(rig.remove(i, 2) == 0);
    // The discard of everything begins now and takes a while; all the blocks are wanted meanwhile.
    rig.run_for(kNsPerSecond);
    std::vector<std::unique_ptr<SimOperation>> ops;
    for (uint64_t i = 0; i < count; i++) {
        ops.push_back(rig.operation(StoreOp::write_stable, 1000 + i, 1, 0, 8, static_cast<uint8_t>(i)));
        rig.start(*ops.back());
    }
    for (auto& op : ops) {
        rig.run_until([&] { return op->done; });
        CHECK(op->result == 32768);
    }
    for (uint64_t i = 0; i < count; i++) CHECK(rig.read(1000 + i, 2) == static_cast<int>(i % 256));
}

TEST_CASE("random writes, deletions and power failures with discards between: nothing that is there is touched") {
    uint64_t discarded = 0;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        CAPTURE(seed);
        DiscardRig rig(seed);
        rig.change_disk("data", [](auto& disk) { disk.jitter_ns = 30 * kNsPerMs; });
        rig.options.min_discard_size = seed % 2 ? 32768 : 4 * 32768;
        REQUIRE(rig.open() == 0);
        std::map<uint64_t, uint8_t> there;
        uint64_t version = 1;
        for (int step = 0; step < 400; step++) {
            const uint64_t number = rig.world.random_u64() % 100;
            version++;
            switch (rig.world.random_u64() % 10) {
                case 0:
                    rig.run_for(rig.world.random_u64() % (2 * kNsPerSecond));
                    break;
                case 1: case 2: case 3: case 4:
                    CHECK(rig.remove(number, version) == 0);
                    there.erase(number);
                    break;
                case 5:
                    if (step % 5) break;
                    discarded += rig.store->stats().discarded_bytes;
                    rig.crash();
                    REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
                    break;
                default: {
                    const auto tag = static_cast<uint8_t>(1 + rig.world.random_u64() % 255);
                    const int64_t result = rig.write(number, version, 0, 8, tag);
                    REQUIRE(result == 32768);
                    there[number] = tag;
                }
            }
        }
        discarded += rig.store->stats().discarded_bytes;
        for (uint64_t number = 0; number < 100; number++)
            CHECK(rig.read(number, 7) == (there.count(number) ? there[number] : -ENOENT));
        CHECK(rig.store->stats().free_blocks == rig.store->stats().total_blocks - there.size());
    }
    CHECK(discarded > 4 << 20);
}

// SPDX-License-Identifier: GPL-2.0-or-later
// Holding small writes back: the pace, the bound of every wait, and where it does not apply.
#include <doctest/doctest.h>

#include <algorithm>

#include "sim_rig.hpp"
#include "store/throttle.hpp"

using namespace vitastor;
using namespace vitastor::test;
using runtime::kNsPerMs;
using runtime::kNsPerSecond;

namespace {

struct ThrottleRig : SimRig {
    ThrottleRig() {
        add_disk("data", 256 << 20);
        add_disk("meta", 256 << 20);
        options.meta_device = "meta";
        options.immediate_commit = wire::ImmediateCommit::none;
        options.throttle.enabled = true;
        options.throttle.target_iops = 200;
    }
};

/// Keeps `depth` 4 KB writes going, to granules in random order that were never written: data waits in the cache of the device.
struct Load {
    SimRig& rig;
    std::vector<std::unique_ptr<SimOperation>> ops;
    static constexpr uint64_t kObjects = 7000, kWrites = 8 * kObjects;
    uint64_t written = 0;
    uint64_t acknowledged = 0;
    uint64_t longest_ns = 0;
    Load(SimRig& of, uint64_t depth) : rig(of), ops(depth) {}
    void run(uint64_t duration_ns) {
        const uint64_t end = rig.world.now_ns() + duration_ns;
        while (rig.world.now_ns() < end && written + ops.size() < kWrites) {
            for (auto& op : ops) {
                if (op && !op->done) continue;
                if (op) {
                    if (op->result != 4096) CHECK(op->result == 4096);
                    longest_ns = std::max(longest_ns, op->done_ns - op->started_ns);
                    acknowledged++;
                }
                op = rig.operation(StoreOp::write_stable, written * 1009 % kObjects, written + 1,
                                   static_cast<uint32_t>(written / kObjects), 1, 1);
                written++;
                rig.start(*op);
            }
            if (!rig.world.step_until(end)) break;
        }
    }
    void stop() {
        for (auto& op : ops) rig.run_until([&] { return op->done; });
    }
};

}  // namespace

TEST_CASE("the pace: target_iops with a full backlog, proportionally more below, at once without one") {
    ThrottleOptions options;
    options.enabled = true;
    options.target_iops = 100;
    for (uint32_t parallelism : {1u, 4u}) {
        options.target_parallelism = parallelism;
        for (double fill : {1.0, 0.5, 0.1}) {
            for (uint64_t depth : {1u, 3u, 32u, 256u}) {
                Throttle throttle(options);
                std::vector<uint64_t> free_at(depth, 1000);
                uint64_t answers = 0;
                const uint64_t end = 60 * kNsPerSecond;
                for (;;) {
                    uint64_t& mine = *std::min_element(free_at.begin(), free_at.end());
                    if (mine >= end) break;
                    const uint64_t cost = throttle.cost_ns({1, answers * 7919}, 0, 4096);
                    if (cost != 10 * kNsPerMs) CHECK(cost == 10 * kNsPerMs);
                    mine += throttle.delay_ns(mine, cost, fill) + 1000;
                    answers++;
                }
                CHECK(static_cast<double>(answers) < 60 * 100 / fill + static_cast<double>(depth + parallelism) + 1);
                CHECK(static_cast<double>(answers) > 0.9 * 60 * 100 / fill);
            }
        }
    }
    Throttle throttle(options);
    for (int i = 0; i < 1000; i++) CHECK(throttle.delay_ns(5, 10 * kNsPerMs, 0) == 0);
}

TEST_CASE("a write that continues the one before costs its bytes alone; small delays are left out; the clock may leap") {
    ThrottleOptions options;
    options.enabled = true;
    Throttle throttle(options);
    CHECK(throttle.cost_ns({1, 0}, 0, 4096) == 10 * kNsPerMs);
    CHECK(throttle.cost_ns({1, 0}, 4096, 4096) == 4096 * kNsPerSecond / (100 << 20));
    CHECK(throttle.cost_ns({1, 0}, 4096, 4096) == 10 * kNsPerMs);
    uint64_t now = 1000;
    CHECK(throttle.delay_ns(now, 40'000, 1) == 0);
    CHECK(throttle.delay_ns(now, 40'000, 1) == 0);   // 40 us: below the threshold, but remembered
    CHECK(throttle.delay_ns(now, 40'000, 1) == 80'000);
    for (int i = 0; i < 100000; i++) throttle.delay_ns(now, 10 * kNsPerMs, 1);
    CHECK(throttle.delay_ns(now, 10 * kNsPerMs, 1) == Throttle::kMaxDelayNs);
    now += 86400 * kNsPerSecond;  // a suspend
    CHECK(throttle.delay_ns(now, 10 * kNsPerMs, 1) == 0);
    CHECK(throttle.delay_ns(now, 10 * kNsPerMs, 1) == 10 * kNsPerMs);
    options.target_iops = options.target_mbs = options.target_parallelism = 0;
    throttle.configure(options);  // senseless numbers are no division by zero
    CHECK(throttle.delay_ns(now, throttle.cost_ns({2, 0}, 0, 4096), 1) == 0);
}

TEST_CASE("depth 1 to 256, clock jumps included: no write waits longer than its computed delay and 100 ms") {
    for (uint64_t depth : {1u, 2u, 8u, 32u, 128u, 256u}) {
        CAPTURE(depth);
        ThrottleRig rig;
        rig.options.throttle.target_iops = 20;
        REQUIRE(rig.open() == 0);
        Load load(rig, depth);
        load.run(12 * kNsPerSecond);  // fills the backlog: smoothly, faster than the target
        CHECK(load.acknowledged > 12 * 20 + 60);
        load.acknowledged = load.longest_ns = 0;
        const uint64_t seconds = 60;
        for (int part = 0; part < 4; part++) {
            rig.world.jump_wall_clock(rig.node, part % 2 ? -7'200'000'000 : 86'400'000'000);
            load.run(seconds * kNsPerSecond / 4);
        }
        CHECK(load.acknowledged <= seconds * 20 * 11 / 10);  // on the average what the device absorbs
        CHECK(load.acknowledged >= seconds * 20 * 9 / 10);   // and no less
        // In a closed loop the computed delay of a write is at most that of all the others before it.
        CHECK(load.longest_ns <= depth * kNsPerSecond / 20 + 100 * kNsPerMs);
        CHECK(rig.store->stats().throttled_writes > 0);
        CHECK(rig.store->stats().throttled_us > 0);
        load.stop();
    }
}

TEST_CASE("a flush empties the backlog; whole blocks, one device, protected caches, and `off` are not held back") {
    {
        ThrottleRig rig;
        REQUIRE(rig.open() == 0);
        Load load(rig, 32);
        load.run(15 * kNsPerSecond);
        load.stop();
        CHECK(rig.sync() == 0);
        const StoreStats before = rig.store->stats();
        CHECK(rig.write(7500, 1, 0, 1, 3) == 4096);
        CHECK(rig.store->stats().throttled_us - before.throttled_us <= 5000);
    }
    for (int which = 0; which < 5; which++) {
        CAPTURE(which);
        ThrottleRig rig;
        if (which == 0) rig.options.throttle.enabled = false;
        if (which == 1) rig.options.meta_device.clear();
        if (which == 2) rig.options.disable_data_fsync = true;
        if (which == 3) rig.options.immediate_commit = wire::ImmediateCommit::all;
        REQUIRE(rig.open() == 0);
        if (which == 4) {
            for (uint64_t i = 0; i < 3000; i++) CHECK(rig.write(i % 1000, i + 1, 0, 8, 1) == 32768);
        } else {
            Load load(rig, 32);
            load.run(4 * kNsPerSecond);
            load.stop();
            CHECK(load.acknowledged > 20000);
        }
        CHECK(rig.store->stats().throttled_writes == 0);
    }
}

TEST_CASE("switched on and off while running") {
    ThrottleRig rig;
    rig.options.throttle.enabled = false;
    REQUIRE(rig.open() == 0);
    Load load(rig, 16);
    load.run(10 * kNsPerMs);
    CHECK(load.acknowledged > 500);
    CHECK(rig.store->stats().throttled_writes == 0);
    ThrottleOptions on = rig.options.throttle;
    on.enabled = true;
    rig.store->set_throttle(on);
    load.run(14 * kNsPerSecond);
    CHECK(rig.store->stats().throttled_writes > 1000);
    rig.store->set_throttle({});
    load.acknowledged = 0;
    load.run(kNsPerSecond * 4);
    CHECK(load.acknowledged > 8000);
    load.stop();
}

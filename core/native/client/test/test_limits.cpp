// SPDX-License-Identifier: GPL-2.0-or-later
// Limits of an image: the arithmetic on a clock of our own, and operations that wait, go on, and are not forgotten.
#include <doctest/doctest.h>

#include "fake_cluster.hpp"

using namespace fake;
using client::OpKind;
using runtime::kNsPerMs;
using runtime::kNsPerSecond;

TEST_CASE("operations and bytes a second, with what was saved up") {
    client::Throttle throttle;
    const uint64_t begin = 1000 * kNsPerSecond;
    const cluster::IoLimits limits{100, 0, 200};
    // 200 ms of 100 a second: the first 20 and one more at once, then one every 10 ms.
    for (int i = 0; i < 21; i++) CHECK(throttle.admit(limits, begin, 4096) == begin);
    for (uint64_t i = 1; i <= 30; i++) CHECK(throttle.admit(limits, begin, 4096) == begin + i * 10 * kNsPerMs);
    // A second later nothing is owed, and no more than the burst is saved up.
    const uint64_t later = begin + 10 * kNsPerSecond;
    for (int i = 0; i < 21; i++) CHECK(throttle.admit(limits, later, 4096) == later);
    CHECK(throttle.admit(limits, later, 4096) == later + 10 * kNsPerMs);
    // Bytes beside operations: whichever is later. Other limits begin anew.
    const cluster::IoLimits both{1000, 1 << 20, 0};
    CHECK(throttle.admit(both, later, 1 << 20) == later);
    CHECK(throttle.admit(both, later, 0) == later + kNsPerSecond);
    CHECK(throttle.admit(both, later + 2 * kNsPerSecond, 4096) == later + 2 * kNsPerSecond);
    // The longest request at the smallest rate.
    const cluster::IoLimits tiny{0, 1, 0};
    for (int i = 0; i < 100; i++) CHECK(throttle.admit(tiny, later, INT64_MAX) >= later);
}

TEST_CASE("an image with limits: operations wait their turn, flushes do not, new limits release them") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    REQUIRE(image);
    auto data = pattern(4096, 1);
    world.put("/config/inode/1/1", R"({"name":"img","size":1073741824,"meta":{"owner":"x","limits":{"iops":100,"burst_ms":0}}})");
    REQUIRE(world.until([&] { return world.contexts[0]->inode_view(*image).limits.iops == 100; }));
    // Two handles, in two contexts, share them.
    client::Image* second = world.open("img", 1);
    REQUIRE(second);
    const uint64_t before = world.loop->now_exact_ns();
    std::vector<Done> done(21);
    for (size_t i = 0; i < done.size(); i++) world.start(OpKind::write, i % 2 ? second : image, i * 4096, 4096, {{data.data(), 4096}}, done[i], i % 2);
    REQUIRE(world.until([&] { return std::all_of(done.begin(), done.end(), [](const Done& d) { return d.done; }); }));
    CHECK(world.loop->now_exact_ns() - before >= 200 * kNsPerMs);
    for (const Done& d : done) CHECK(d.result == 4096);
    // 200 at one a second would take longer than a test waits.
    world.put("/config/inode/1/1", R"({"name":"img","size":1073741824,"meta":{"limits":{"iops":1,"burst_ms":0}}})");
    REQUIRE(world.until([&] { return world.contexts[0]->inode_view(*image).limits.iops == 1; }));
    std::vector<Done> slow(200);
    for (size_t i = 0; i < slow.size(); i++) world.start(OpKind::read, i % 2 ? second : image, i * 4096, 4096, {{data.data(), 4096}}, slow[i], i % 2);
    REQUIRE(world.until([&] { return slow[0].done; }));
    CHECK(world.flush(image) == 0);
    CHECK_FALSE(slow[100].done);
    world.put("/config/inode/1/1", R"({"name":"img","size":1073741824})");
    REQUIRE(world.until([&] { return std::all_of(slow.begin(), slow.end(), [](const Done& d) { return d.done; }); }));
    for (const Done& d : slow) CHECK(d.result == 4096);
    // Closing ends what waits.
    world.put("/config/inode/1/1", R"({"name":"img","size":1073741824,"meta":{"limits":{"iops":1,"burst_ms":0}}})");
    REQUIRE(world.until([&] { return world.contexts[0]->inode_view(*image).limits.iops == 1; }));
    for (Done& d : slow) {
        d = Done();
        world.start(OpKind::read, image, 0, 4096, {{data.data(), 4096}}, d);
    }
    for (auto& context : world.contexts) context->close();
    for (const Done& d : slow) CHECK(d.runs == 1);
    CHECK(slow.back().result == -ECANCELED);
}

TEST_CASE("wrong limits are named and limit nothing") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    world.put("/config/inode/1/1", R"({"name":"img","size":1073741824,"meta":{"limits":{"iops":-5,"bytes_per_second":"lots"}}})");
    REQUIRE(world.until([&] { return world.logger.text.find("meta.limits.bytes_per_second") != std::string::npos; }));
    CHECK(world.logger.text.find("meta.limits.iops") != std::string::npos);
    CHECK_FALSE(world.contexts[0]->inode_view(*image).limits.any());
    world.put("/config/inode/1/1", R"({"name":"img","size":1073741824,"meta":"text"})");
    auto data = pattern(4096, 1);
    CHECK(world.write(image, 0, data) == 4096);
}

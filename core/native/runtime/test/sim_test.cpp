// SPDX-License-Identifier: GPL-2.0-or-later
// What the simulated world promises beyond the common contract: repetition, and what its disks do. Network and clocks: sim_net_test.cpp.
#include <algorithm>
#include <set>

#include "runtime/sim_world.hpp"
#include "sim_tools.hpp"

namespace vitastor::runtime::test {

namespace {

class SimFixture final : public Fixture {
public:
    SimFixture() : world_(42), a_(world_.add_node()), b_(world_.add_node()) {
        loops_[0] = world_.make_loop(a_);
        loops_[1] = world_.make_loop(b_);
    }
    Loop& a() override { return *loops_[0]; }
    Loop& b() override { return *loops_[1]; }
    void turn() override {
        uint64_t limit = world_.now_ns() + 200'000;
        while (world_.step_until(limit)) {
        }
    }
    std::string host() override { return loops_[1]->local_addresses()[0]; }
    std::string make_file(uint64_t size) override {
        std::string path = "/sim/file" + std::to_string(files_++);
        SimDiskOptions options;
        options.size_bytes = size;
        world_.add_disk(path, options);
        return path;
    }
    bool simulated() const override { return true; }

private:
    SimWorld world_;
    NodeId a_, b_;
    int files_ = 0;
    std::unique_ptr<Loop> loops_[2];
};

}  // namespace

std::unique_ptr<Fixture> make_simulated_fixture() { return std::make_unique<SimFixture>(); }

}  // namespace vitastor::runtime::test

using namespace vitastor;
using namespace vitastor::runtime;
using namespace vitastor::runtime::test;

namespace {

/// A busy moment: chatter that breaks, disk writes, timers, a power loss and a restart.
struct Scenario {
    uint64_t hash = 0, events = 0;
    std::vector<std::string> lines;
};

Scenario play(uint64_t seed, bool with_trace) {
    Scenario result;
    SimNetworkOptions network;
    network.short_chance = 0.3;
    network.kill_chance = 0.3;
    network.kill_after_max_bytes = 5000;
    SimWorld world(seed, network);
    if (with_trace) world.set_trace([&](const std::string& line) { result.lines.push_back(line); });
    SimDiskOptions disk;
    disk.atomic_bytes = 512;
    disk.short_chance = 0.1;
    disk.write_error_chance = 0.05;
    disk.bit_rot_chance = 0.05;
    world.add_disk(kDisk, disk);
    NodeId a = world.add_node(), b = world.add_node();
    auto la = world.make_loop(a), lb = world.make_loop(b);
    auto listener = la->listen({"0.0.0.0", 5000}, nullptr);
    Address door{la->local_addresses()[0], 5000};
    Op accepting, connecting, sending, receiving, writing;
    std::vector<uint8_t> data(3000, 7), in(1000);
    iovec out_iov{data.data(), data.size()}, in_iov{in.data(), in.size()};
    Socket server = -1, client = -1;
    accepting.then = [&](Op& op) {
        if (op.result < 0) return;
        server = static_cast<Socket>(op.result);
        la->receive(server, &in_iov, 1, receiving);
    };
    receiving.then = [&](Op& op) {
        if (op.result > 0) return la->receive(server, &in_iov, 1, receiving);
        la->close_socket(server);
        la->accept(listener.value(), accepting);
    };
    connecting.then = [&](Op& op) {
        if (op.result < 0) return;
        client = static_cast<Socket>(op.result);
        lb->send(client, &out_iov, 1, sending);
    };
    sending.then = [&](Op& op) {
        if (op.result > 0) return lb->send(client, &out_iov, 1, sending);
        if (op.result == -ECANCELED) return;
        lb->close_socket(client);
        lb->connect(door, connecting);
    };
    auto file = la->open_file(kDisk, {});
    Buffer block = la->buffers().allocate(16384);
    memset(block.data(), 1, 16384);
    iovec disk_iov{block.data(), 16384};
    writing.then = [&](Op&) {
        memset(block.data(), static_cast<int>(la->random_u64() & 255), 16384);
        la->write(file.value(), &disk_iov, 1, la->random_u64() % 100 * 4096, writing);
    };
    la->accept(listener.value(), accepting);
    lb->connect(door, connecting);
    la->write(file.value(), &disk_iov, 1, 0, writing);
    pass(world, 5 * kNsPerMs);
    world.crash(a, true);
    world.note("power back");
    world.restart(a);
    block.release();
    la.reset();
    pass(world, 5 * kNsPerMs);
    lb.reset();
    result.hash = world.trace_hash();
    result.events = world.events();
    return result;
}

}  // namespace

TEST_CASE("same seed, same trace; another seed, another trace") {
    std::set<uint64_t> hashes;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        Scenario one = play(seed, true), two = play(seed, false), three = play(seed, true);
        CHECK(one.hash == two.hash);
        CHECK(one.events == two.events);
        CHECK(one.lines == three.lines);
        CHECK(one.events > 500);
        hashes.insert(one.hash);
    }
    CHECK(hashes.size() == 10);
}

TEST_CASE("durability: synced survives every power loss, unsynced sometimes, torn and old versions occur") {
    int newest = 0, durable = 0, middle = 0, torn = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        SimWorld world(seed);
        SimDiskOptions options;
        options.atomic_bytes = 512;
        world.add_disk(kDisk, options);
        Client client(world, world.add_node());
        File file = client.loop->open_file(kDisk, {}).value();
        REQUIRE(client.io(true, file, 0, 1) == 4096);
        REQUIRE(client.io(true, file, 8192, 9) == 4096);
        REQUIRE(client.sync(file) == 0);
        CHECK(world.unflushed_sectors(kDisk) == 0);
        REQUIRE(client.io(true, file, 0, 2) == 4096);
        REQUIRE(client.io(true, file, 0, 3) == 4096);
        CHECK(world.unflushed_sectors(kDisk) == 1);
        world.crash(client.node, true);
        CHECK_FALSE(world.running(client.node));
        world.restart(client.node);
        auto sector = world.peek(kDisk, 0, 4096);
        CHECK(world.peek(kDisk, 8192, 4096) == std::vector<uint8_t>(4096, 9));
        std::set<uint8_t> values(sector.begin(), sector.end());
        for (size_t unit = 0; unit < 4096; unit += 512) {
            CHECK(std::set<uint8_t>(sector.begin() + unit, sector.begin() + unit + 512).size() == 1);
        }
        for (uint8_t value : values) CHECK((value >= 1 && value <= 3));
        if (values.size() > 1) {
            torn++;
        } else if (*values.begin() == 1) {
            durable++;
        } else if (*values.begin() == 2) {
            middle++;
        } else {
            newest++;
        }
    }
    CHECK(newest > 20);
    CHECK(durable > 20);
    CHECK(middle > 5);
    CHECK(torn > 5);
}

TEST_CASE("a sync covers what was completed before it began, not what completed meanwhile") {
    bool lost = false;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        SimWorld world(seed);
        world.add_disk(kDisk, {});
        Client client(world, world.add_node());
        File file = client.loop->open_file(kDisk, {}).value();
        Op sync;
        REQUIRE(client.io(true, file, 0, 1) == 4096);
        client.loop->sync(file, sync);
        REQUIRE(client.io(true, file, 4096, 2) == 4096);  // shorter than the sync
        CHECK_FALSE(sync.done());
        REQUIRE(run(world, [&] { return sync.done(); }));
        CHECK(world.unflushed_sectors(kDisk) == 1);
        world.crash(client.node, true);
        CHECK(world.peek(kDisk, 0, 1)[0] == 1);
        lost = lost || world.peek(kDisk, 4096, 1)[0] == 0;
    }
    CHECK(lost);
}

TEST_CASE("a disk without a volatile cache, and direct_sync, keep every completed write; a killed process loses nothing") {
    for (uint64_t seed = 1; seed <= 50; seed++) {
        for (int variant = 0; variant < 3; variant++) {
            SimWorld world(seed);
            SimDiskOptions options;
            options.volatile_cache = variant != 0;
            world.add_disk(kDisk, options);
            Client client(world, world.add_node());
            FileOptions open;
            if (variant == 1) open.io = FileIo::direct_sync;
            File file = client.loop->open_file(kDisk, open).value();
            REQUIRE(client.io(true, file, 4096, 5) == 4096);
            world.crash(client.node, variant != 2);
            CHECK(world.peek(kDisk, 4096, 4096) == std::vector<uint8_t>(4096, 5));
        }
    }
}

TEST_CASE("writes in flight: a killed process's land late under its lock, a power loss takes or tears them") {
    int landed = 0, partial = 0;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        for (bool power : {false, true}) {
            SimWorld world(seed);
            SimDiskOptions options;
            options.volatile_cache = false;
            world.add_disk(kDisk, options);
            NodeId node = world.add_node();
            auto loop = world.make_loop(node);
            File file = loop->open_file(kDisk, {}).value();
            Buffer buffer = loop->buffers().allocate(65536);
            memset(buffer.data(), 6, 65536);
            iovec iov{buffer.data(), 65536};
            Op op;
            loop->write(file, &iov, 1, 0, op);
            world.crash(node, power);
            world.restart(node);
            buffer.release();
            loop.reset();
            auto next = world.make_loop(node);
            if (power) {
                CHECK(next->open_file(kDisk, {}).ok());
                auto content = world.peek(kDisk, 0, 65536);
                auto sixes = std::count(content.begin(), content.end(), 6);
                CHECK(sixes % 4096 == 0);
                partial += sixes != 0 && sixes != 65536;
            } else {
                CHECK(next->open_file(kDisk, {}).status().code() == -EBUSY);
                pass(world, kNsPerSecond);
                CHECK(next->open_file(kDisk, {}).ok());
                landed += world.peek(kDisk, 0, 65536) == std::vector<uint8_t>(65536, 6);
            }
            CHECK(op.calls == 0);
        }
    }
    CHECK(landed == 100);
    CHECK(partial > 10);
}

TEST_CASE("faults of disks: planned errors, rot, misdirected and lost writes, short and slow operations") {
    SimWorld world(7);
    world.add_disk(kDisk, {});
    Client client(world, world.add_node());
    File file = client.loop->open_file(kDisk, {}).value();
    world.fail_operation(kDisk, 2, -EIO);
    CHECK(client.io(true, file, 0, 1) == 4096);
    CHECK(client.io(true, file, 0, 2) == -EIO);
    CHECK(client.io(false, file, 0, 0) == 4096);
    CHECK(client.last == 1);
    CHECK(world.disk_operations(kDisk) == 3);
    CHECK(client.io(true, file, 64 << 20, 1) == -ENOSPC);

    auto options = world.disk(kDisk);
    options.bit_rot_chance = 1;
    world.set_disk(kDisk, options);
    CHECK(client.io(true, file, 0, 0) == 4096);
    auto rotten = world.peek(kDisk, 0, 4096);
    CHECK(std::count(rotten.begin(), rotten.end(), 0) == 4095);

    options.bit_rot_chance = 0;
    options.lost_write_chance = 1;
    world.set_disk(kDisk, options);
    CHECK(client.io(true, file, 8192, 0x55) == 4096);
    CHECK(world.peek(kDisk, 8192, 1)[0] == 0);

    options.lost_write_chance = 0;
    options.misdirect_chance = 1;
    world.set_disk(kDisk, options);
    CHECK(client.io(true, file, 8192, 0x55) == 4096);
    CHECK(world.peek(kDisk, 8192, 1)[0] == 0);  // one of 16384 places, by this seed another
    auto everything = world.peek(kDisk, 0, 64 << 20);
    CHECK(std::count(everything.begin(), everything.end(), 0x55) == 4096);

    options.misdirect_chance = 0;
    options.short_chance = 1;
    world.set_disk(kDisk, options);
    int64_t shorter = client.io(true, file, 0, 3, 65536);
    CHECK(shorter > 0);
    CHECK(shorter < 65536);
    CHECK(shorter % 512 == 0);

    options.short_chance = 0;
    options.slow_chance = 1;
    world.set_disk(kDisk, options);
    uint64_t start = world.now_ns();
    CHECK(client.io(false, file, 0, 0) == 4096);
    CHECK(world.now_ns() - start >= options.slow_ns);

    uint8_t before = world.peek(kDisk, 20000, 1)[0];
    world.flip_bit(kDisk, 8 * 20000 + 3);
    CHECK(world.peek(kDisk, 20000, 1)[0] == (before ^ 8));
}

// SPDX-License-Identifier: GPL-2.0-or-later
// What the simulated world promises beyond the common contract: partitions, connections that end, restarts, clocks.
#include "sim_tools.hpp"

using namespace vitastor;
using namespace vitastor::runtime;
using namespace vitastor::runtime::test;

TEST_CASE("partitions hold bytes back one way or both, healing lets all of them through in order") {
    Link link(3);
    link.join();
    link.world.partition_one_way(link.a, link.b);
    Op sent, received, back_sent, back_received;
    std::vector<uint8_t> in(100), out(100, 'x');
    iovec in_iov{in.data(), in.size()}, out_iov{out.data(), out.size()};
    link.receive(*link.lb, link.server, received);
    link.send(*link.la, link.client, 1000, sent);
    link.lb->send(link.server, &out_iov, 1, back_sent);
    link.la->receive(link.client, &in_iov, 1, back_received);
    pass(link.world, 10 * kNsPerSecond);
    CHECK(sent.result == 1000);
    CHECK(received.calls == 0);
    CHECK(back_received.result == 100);  // the other direction works
    link.world.heal(link.a, link.b);
    REQUIRE(run(link.world, [&] { return received.done(); }));
    CHECK(received.result == 1000);

    // A sender whose bytes go nowhere stops when its buffer is full.
    link.world.partition(link.a, link.b);
    Op many;
    uint64_t moved = 0;
    many.then = [&](Op& op) {
        moved += static_cast<uint64_t>(op.result);
        link.send(*link.la, link.client, 100'000, many);
    };
    link.send(*link.la, link.client, 100'000, many);
    pass(link.world, 10 * kNsPerSecond);
    CHECK(moved == link.world.network().buffer_bytes);
    link.world.heal_all();
    many.then = nullptr;
    uint64_t got = 0;
    Op more;
    more.then = [&](Op& op) {
        got += static_cast<uint64_t>(op.result);
        if (got < moved) link.receive(*link.lb, link.server, more);
    };
    link.receive(*link.lb, link.server, more);
    REQUIRE(run(link.world, [&] { return got >= moved; }));
}

TEST_CASE("connecting into a partition hangs until it heals, or times out") {
    Link link(4);
    link.world.partition(link.a, link.b);
    Op connecting;
    link.la->connect(link.address, connecting);
    pass(link.world, 20 * kNsPerSecond);
    CHECK(connecting.calls == 0);
    link.world.heal_all();
    REQUIRE(run(link.world, [&] { return connecting.done(); }));
    CHECK(connecting.result >= 0);
    link.world.partition(link.a, link.b);
    Op late;
    link.la->connect(link.address, late);
    REQUIRE(run(link.world, [&] { return late.done(); }, 200 * kNsPerSecond));
    CHECK(late.result == -ETIMEDOUT);
    Op refused, nowhere;
    link.world.heal_all();
    link.world.refuse_connections(link.b, true);
    link.la->connect(link.address, refused);
    link.la->connect({"10.99.99.99", 1}, nowhere);
    REQUIRE(run(link.world, [&] { return refused.done() && nowhere.done(); }));
    CHECK(refused.result == -ECONNREFUSED);
    CHECK(nowhere.result == -EHOSTUNREACH);
}

TEST_CASE("a killed process ends its connections, a power loss is silent until somebody speaks after the restart") {
    Link killed(5);
    killed.join();
    Op end;
    killed.receive(*killed.la, killed.client, end);
    killed.world.crash(killed.b, false);
    REQUIRE(run(killed.world, [&] { return end.done(); }));
    CHECK(end.result == 0);
    CHECK(killed.world.open_connections() == 1);
    Op refused;
    killed.la->connect(killed.address, refused);
    REQUIRE(run(killed.world, [&] { return refused.done(); }));
    CHECK(refused.result == -ECONNREFUSED);

    Link lost(6);
    lost.join();
    Op silent, sent;
    lost.receive(*lost.la, lost.client, silent);
    lost.world.crash(lost.b, true);
    pass(lost.world, 10 * kNsPerSecond);
    CHECK(silent.calls == 0);
    lost.send(*lost.la, lost.client, 10, sent);
    pass(lost.world, 10 * kNsPerSecond);
    CHECK(sent.result == 10);
    CHECK(silent.calls == 0);
    lost.world.restart(lost.b);
    REQUIRE(run(lost.world, [&] { return silent.done(); }));
    CHECK(silent.result == -ECONNRESET);
    lost.la->close_socket(lost.client);
    pass(lost.world, kNsPerSecond);
    CHECK(lost.world.open_connections() == 0);
}

TEST_CASE("connections are cut in the middle of a message, and by order") {
    int cut = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        SimNetworkOptions options;
        options.kill_chance = 1;
        options.kill_after_max_bytes = 5000;
        Link link(seed, options);
        link.join();
        Op sent, received;
        uint64_t got = 0;
        received.then = [&](Op& op) {
            if (op.result > 0) {
                got += static_cast<uint64_t>(op.result);
                link.receive(*link.lb, link.server, received);
            }
        };
        link.receive(*link.lb, link.server, received);
        link.send(*link.la, link.client, 6000, sent);
        pass(link.world, kNsPerSecond);
        if (received.result == -ECONNRESET) {
            cut++;
            CHECK(got <= 5000);
        } else {
            CHECK(got == 6000);
        }
    }
    CHECK(cut > 3);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        SimNetworkOptions options;
        options.kill_chance = 1;
        options.kill_after_max_bytes = 5000;
        Link link(seed, options);
        link.join();
        link.world.spare_connections();
        Op sent, received;
        uint64_t got = 0;
        received.then = [&](Op& op) {
            if (op.result <= 0) return;
            got += static_cast<uint64_t>(op.result);
            link.receive(*link.lb, link.server, received);
        };
        link.receive(*link.lb, link.server, received);
        link.send(*link.la, link.client, 6000, sent);
        pass(link.world, kNsPerSecond);
        CHECK(got == 6000);
    }
    Link link(99);
    link.join();
    Op one, two;
    link.receive(*link.la, link.client, one);
    std::vector<uint8_t> in(10);
    iovec iov{in.data(), in.size()};
    link.lb->receive(link.server, &iov, 1, two);
    link.world.kill_connections(link.a, link.b);
    REQUIRE(run(link.world, [&] { return one.done() && two.done(); }));
    CHECK(one.result == -ECONNRESET);
    CHECK(two.result == -ECONNRESET);
}

TEST_CASE("a dead loop ignores everything, its timers are disarmed, and the node works again after a restart") {
    SimWorld world(8);
    world.add_disk(kDisk, {});
    NodeId node = world.add_node();
    auto loop = world.make_loop(node);
    int fired = 0;
    TestTimer timer;
    timer.action = [&] { fired++; };
    TestDeferred deferred;
    deferred.action = [&] { fired++; };
    TestNotifier note;
    loop->register_notifier(note);
    loop->notify(note);
    loop->arm(timer, loop->now_ns() + 1000);
    loop->defer(deferred);
    File file = loop->open_file(kDisk, {}).value();
    auto socket = loop->listen({"0.0.0.0", 9}, nullptr);
    world.crash(node, false);
    CHECK_FALSE(timer.armed());
    loop->arm(timer, loop->now_ns() + 1000);
    loop->defer(deferred);
    loop->notify(note);
    Op op;
    loop->connect({"127.0.0.1", 9}, op);
    loop->close_socket(socket.value());
    loop->close_file(file);
    loop->unregister_notifier(note);
    CHECK(loop->open_file(kDisk, {}).status().code() == -ESHUTDOWN);
    pass(world, kNsPerSecond);
    CHECK(fired == 0);
    CHECK(note.calls == 0);
    CHECK(op.calls == 0);
    loop.reset();
    world.restart(node);
    auto again = world.make_loop(node);
    CHECK(again->listen({"0.0.0.0", 9}, nullptr).ok());
    CHECK(again->open_file(kDisk, {}).ok());
}

TEST_CASE("clocks drift, timers follow their node's clock, the wall clock jumps alone") {
    SimWorld world(9);
    SimNodeOptions fast, slow;
    fast.drift_ppm = 1000;
    slow.drift_ppm = -1000;
    slow.clock_offset_ns = 5 * kNsPerSecond;
    NodeId a = world.add_node(fast), b = world.add_node(slow);
    auto la = world.make_loop(a), lb = world.make_loop(b);
    uint64_t start = world.now_ns(), a_start = la->now_ns(), b_start = lb->now_ns();
    uint64_t fired_a = 0, fired_b = 0;
    TestTimer ta, tb;
    ta.action = [&] {
        fired_a = world.now_ns();
        CHECK(la->now_ns() >= a_start + 100 * kNsPerSecond);
    };
    tb.action = [&] {
        fired_b = world.now_ns();
        CHECK(lb->now_ns() >= b_start + 100 * kNsPerSecond);
    };
    la->arm(ta, a_start + 100 * kNsPerSecond);
    lb->arm(tb, b_start + 100 * kNsPerSecond);
    pass(world, 200 * kNsPerSecond);
    auto seconds = [&](uint64_t at) { return static_cast<double>(at - start) / 1e9; };
    CHECK(seconds(fired_a) == doctest::Approx(99.9).epsilon(0.0001));
    CHECK(seconds(fired_b) == doctest::Approx(100.1).epsilon(0.0001));
    uint64_t wall = la->wall_us(), steady = la->now_ns();
    world.jump_wall_clock(a, -3'600'000'000);
    CHECK(la->wall_us() == wall - 3'600'000'000);
    CHECK(la->now_ns() == steady);
}

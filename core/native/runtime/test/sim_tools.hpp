// SPDX-License-Identifier: GPL-2.0-or-later
// What tests of the simulated world share: running it until something is so, a node with a disk, two nodes with a connection.
#pragma once

#include "loop_fixture.hpp"
#include "runtime/sim_world.hpp"

namespace vitastor::runtime::test {

inline constexpr char kDisk[] = "/sim/disk";

/// Runs until the condition holds or `limit` of virtual time has passed.
inline bool run(SimWorld& world, const std::function<bool()>& condition, uint64_t limit_ns = 60 * kNsPerSecond) {
    uint64_t end = world.now_ns() + limit_ns;
    while (!condition()) {
        if (!world.step_until(end)) return condition();
    }
    return true;
}

inline void pass(SimWorld& world, uint64_t ns) {
    uint64_t end = world.now_ns() + ns;
    while (world.step_until(end)) {
    }
}

struct Client {
    Client(SimWorld& w, NodeId n) : world(w), node(n), loop(w.make_loop(n)) {}
    int64_t io(bool write, File file, uint64_t offset, uint8_t fill, size_t length = 4096) {
        Buffer buffer = loop->buffers().allocate(length);
        memset(buffer.data(), fill, length);
        iovec iov{buffer.data(), length};
        Op op;
        if (write) {
            loop->write(file, &iov, 1, offset, op);
        } else {
            loop->read(file, &iov, 1, offset, op);
        }
        REQUIRE(run(world, [&] { return op.done(); }));
        last = buffer.data()[0];
        return op.result;
    }
    int64_t sync(File file) {
        Op op;
        loop->sync(file, op);
        REQUIRE(run(world, [&] { return op.done(); }));
        return op.result;
    }
    SimWorld& world;
    NodeId node;
    std::unique_ptr<Loop> loop;
    uint8_t last = 0;
};

/// Two nodes with a connection between them.
struct Link {
    explicit Link(uint64_t seed, const SimNetworkOptions& options = {})
        : world(seed, options), a(world.add_node()), b(world.add_node()), la(world.make_loop(a)), lb(world.make_loop(b)) {
        auto listening = lb->listen({"0.0.0.0", 7000}, nullptr);
        REQUIRE(listening.ok());
        listener = listening.value();
        address = {lb->local_addresses()[0], 7000};
    }
    void join() {
        Op accepted, connected;
        lb->accept(listener, accepted);
        la->connect(address, connected);
        REQUIRE(run(world, [&] { return accepted.done() && connected.done(); }));
        client = static_cast<Socket>(connected.result);
        server = static_cast<Socket>(accepted.result);
    }
    void send(Loop& loop, Socket socket, size_t size, Op& op) {
        out.assign(size, 'd');
        out_iov = {out.data(), out.size()};
        loop.send(socket, &out_iov, 1, op);
    }
    void receive(Loop& loop, Socket socket, Op& op) {
        in.resize(1 << 20);
        in_iov = {in.data(), in.size()};
        loop.receive(socket, &in_iov, 1, op);
    }
    SimWorld world;
    NodeId a, b;
    std::unique_ptr<Loop> la, lb;
    Socket listener = -1, client = -1, server = -1;
    Address address;
    std::vector<uint8_t> in, out;
    iovec in_iov{}, out_iov{};
};

}  // namespace vitastor::runtime::test

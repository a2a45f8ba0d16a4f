// SPDX-License-Identifier: GPL-2.0-or-later
// Two loops of one kind and what the contract needs around them: the same cases run over io_uring, epoll and simulation.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/loop.hpp"

namespace vitastor::runtime::test {

struct TestLog : Logger {
    std::vector<std::string> lines;
    void write(LogLevel, const std::string& text) override { lines.push_back(text); }
};

/// Counts its calls, so that "exactly once" can be checked.
struct Op : Completion {
    int calls = 0;
    int64_t result = INT64_MIN;
    std::function<void(Op&)> then;
    Op() {
        on_done = [](Completion* self, int64_t value) {
            auto* op = static_cast<Op*>(self);
            op->calls++;
            op->result = value;
            if (op->then) op->then(*op);
        };
    }
    bool done() const { return calls > 0; }
};

struct TestTimer : Timer {
    std::function<void()> action;
    TestTimer() {
        on_fire = [](Timer* self) { static_cast<TestTimer*>(self)->action(); };
    }
};

struct TestDeferred : Deferred {
    std::function<void()> action;
    TestDeferred() {
        on_run = [](Deferred* self) { static_cast<TestDeferred*>(self)->action(); };
    }
};

struct TestNotifier : Notifier {
    int calls = 0;
    TestNotifier() {
        on_notify = [](Notifier* self) { static_cast<TestNotifier*>(self)->calls++; };
    }
};

class Fixture {
public:
    virtual ~Fixture() = default;
    virtual Loop& a() = 0;
    virtual Loop& b() = 0;
    /// Lets both loops make some progress.
    virtual void turn() = 0;
    /// An address b can listen on and a can reach.
    virtual std::string host() = 0;
    /// A file of `size` zero bytes that both loops can open under this path.
    virtual std::string make_file(uint64_t size) = 0;
    virtual bool simulated() const { return false; }

    /// Turns until the condition holds. False when it does not within a generous time.
    bool until(const std::function<bool()>& condition) {
        uint64_t limit = a().now_exact_ns() + 20 * kNsPerSecond;
        while (!condition()) {
            if (a().now_exact_ns() > limit) return false;
            turn();
        }
        return true;
    }
    void settle() {
        for (int i = 0; i < 20; i++) turn();
    }
    struct Pair {
        Socket client = -1, server = -1, listener = -1;
        uint16_t port = 0;
    };
    /// client belongs to a(), server and listener to b().
    Pair connected_pair() {
        Pair pair;
        auto listening = b().listen({host(), 0}, &pair.port);
        REQUIRE(listening.ok());
        pair.listener = listening.value();
        Op accepted, connected;
        b().accept(pair.listener, accepted);
        a().connect({host(), pair.port}, connected);
        CHECK(connected.calls == 0);
        REQUIRE(until([&] { return accepted.done() && connected.done(); }));
        REQUIRE(connected.result >= 0);
        REQUIRE(accepted.result >= 0);
        pair.client = static_cast<Socket>(connected.result);
        pair.server = static_cast<Socket>(accepted.result);
        return pair;
    }
    void close(const Pair& pair) {
        a().close_socket(pair.client);
        b().close_socket(pair.server);
        b().close_socket(pair.listener);
    }
};

enum class FixtureKind { io_uring, epoll, simulated };
std::unique_ptr<Fixture> make_fixture(FixtureKind kind, uint32_t queue_depth = 256);

}  // namespace vitastor::runtime::test

/// Runs the body once per implementation, each as a doctest subcase.
#define FOR_EACH_LOOP(fixture)                                                                        \
    std::unique_ptr<Fixture> fixture##_owner;                                                         \
    SUBCASE("io_uring") { fixture##_owner = make_fixture(FixtureKind::io_uring); }                    \
    SUBCASE("epoll") { fixture##_owner = make_fixture(FixtureKind::epoll); }                          \
    SUBCASE("simulated") { fixture##_owner = make_fixture(FixtureKind::simulated); }                  \
    if (!fixture##_owner) return;                                                                     \
    Fixture& fixture = *fixture##_owner

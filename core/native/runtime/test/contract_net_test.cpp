// SPDX-License-Identifier: GPL-2.0-or-later
// The network half of the seam's contract, for every implementation.
#include "loop_fixture.hpp"

using namespace vitastor;
using namespace vitastor::runtime;
using namespace vitastor::runtime::test;

namespace {

/// Sends or receives exactly all bytes of a vector, in three pieces at a time, however short the transfers are.
struct Mover {
    Loop& loop;
    Socket socket;
    std::vector<uint8_t>& data;
    bool sending;
    size_t at = 0;
    iovec iov[3];
    Op op;

    Mover(Loop& l, Socket s, std::vector<uint8_t>& d, bool send) : loop(l), socket(s), data(d), sending(send) {
        op.then = [this](Op& self) {
            REQUIRE(self.result > 0);
            at += static_cast<size_t>(self.result);
            if (at < data.size()) go();
        };
        go();
    }
    void go() {
        size_t left = data.size() - at;
        size_t first = std::min<size_t>(left, 100'000), second = std::min<size_t>(left - first, 1);
        iov[0] = {data.data() + at, first};
        iov[1] = {data.data() + at + first, second};
        iov[2] = {data.data() + at + first + second, left - first - second};
        int count = iov[1].iov_len == 0 ? 1 : iov[2].iov_len == 0 ? 2 : 3;
        if (sending) {
            loop.send(socket, iov, count, op);
        } else {
            loop.receive(socket, iov, count, op);
        }
    }
    bool done() const { return at == data.size(); }
};

std::vector<uint8_t> pattern(size_t size, uint32_t seed) {
    std::vector<uint8_t> bytes(size);
    for (auto& byte : bytes) byte = static_cast<uint8_t>((seed = seed * 1664525 + 1013904223) >> 24);
    return bytes;
}

}  // namespace

TEST_CASE("large transfers in both directions at once arrive whole and in order") {
    FOR_EACH_LOOP(fixture);
    auto pair = fixture.connected_pair();
    auto up = pattern(5'000'001, 1), down = pattern(3'000'003, 2);
    std::vector<uint8_t> got_up(up.size()), got_down(down.size());
    Mover m1(fixture.a(), pair.client, up, true), m2(fixture.b(), pair.server, got_up, false);
    Mover m3(fixture.b(), pair.server, down, true), m4(fixture.a(), pair.client, got_down, false);
    REQUIRE(fixture.until([&] { return m1.done() && m2.done() && m3.done() && m4.done(); }));
    CHECK(got_up == up);
    CHECK(got_down == down);
    CHECK(fixture.a().peer_name(pair.client).find(std::to_string(pair.port)) != std::string::npos);
    fixture.close(pair);
}

TEST_CASE("a refused connection and a bad address are results, not calls from inside") {
    FOR_EACH_LOOP(fixture);
    uint16_t port = 0;
    auto listener = fixture.b().listen({fixture.host(), 0}, &port);
    REQUIRE(listener.ok());
    fixture.b().close_socket(listener.value());
    fixture.settle();
    Op refused, bad, name;
    fixture.a().connect({fixture.host(), port}, refused);
    fixture.a().connect({"not an address", 1}, bad);
    fixture.a().connect({"localhost", 1}, name);
    CHECK(bad.calls == 0);
    REQUIRE(fixture.until([&] { return refused.done() && bad.done() && name.done(); }));
    CHECK(refused.result == -ECONNREFUSED);
    CHECK(bad.result == -EINVAL);
    CHECK(name.result == -EINVAL);
    fixture.settle();
    CHECK(refused.calls == 1);
    CHECK(bad.calls == 1);
    auto again = fixture.b().listen({"not an address", 0}, &port);
    CHECK(again.status().code() == -EINVAL);
}

TEST_CASE("a port in use is refused") {
    FOR_EACH_LOOP(fixture);
    uint16_t port = 0, other = 0;
    auto listener = fixture.b().listen({fixture.host(), 0}, &port);
    REQUIRE(listener.ok());
    CHECK(port != 0);
    auto second = fixture.b().listen({fixture.host(), port}, &other);
    CHECK(second.status().code() == -EADDRINUSE);
    CHECK(second.status().message().find(std::to_string(port)) != std::string::npos);
    fixture.b().close_socket(listener.value());
}

TEST_CASE("close ends what is in flight with -ECANCELED, exactly once, and the peer sees the end") {
    FOR_EACH_LOOP(fixture);
    auto pair = fixture.connected_pair();
    std::vector<uint8_t> in(100), big(8 << 20), peer_in(4 << 20);
    iovec in_iov{in.data(), in.size()}, out_iov{big.data(), big.size()}, peer_iov{peer_in.data(), peer_in.size()};
    Op receiving, accepting, peer_receiving;
    fixture.b().receive(pair.server, &in_iov, 1, receiving);
    fixture.b().accept(pair.listener, accepting);
    fixture.a().receive(pair.client, &peer_iov, 1, peer_receiving);
    // Nobody reads at the other end: in the end one send stays in flight.
    Op sending;
    auto fill = [&] { fixture.b().send(pair.server, &out_iov, 1, sending); };
    sending.then = [&](Op& self) {
        if (self.result > 0) fill();
    };
    fill();
    fixture.settle();
    CHECK(receiving.calls == 0);
    CHECK(accepting.calls == 0);
    int sends = sending.calls;
    fixture.b().close_socket(pair.server);
    fixture.b().close_socket(pair.listener);
    CHECK(receiving.calls == 0);
    CHECK(sending.calls == sends);
    REQUIRE(fixture.until([&] { return receiving.done() && accepting.done() && sending.calls > sends; }));
    CHECK(receiving.result == -ECANCELED);
    CHECK(accepting.result == -ECANCELED);
    CHECK(sending.result == -ECANCELED);
    REQUIRE(fixture.until([&] { return peer_receiving.done(); }));
    // What was sent before may still arrive, then comes the end or a reset.
    int rounds = 0;
    while (peer_receiving.result > 0 && rounds++ < 1000000) {
        peer_receiving.calls = 0;
        fixture.a().receive(pair.client, &peer_iov, 1, peer_receiving);
        REQUIRE(fixture.until([&] { return peer_receiving.done(); }));
    }
    bool ended = peer_receiving.result == 0 || peer_receiving.result == -ECONNRESET;
    CHECK(ended);
    fixture.a().close_socket(pair.client);
    fixture.settle();
    CHECK(receiving.calls == 1);
    CHECK(accepting.calls == 1);
    CHECK(sending.calls == sends + 1);
}

TEST_CASE("closing a socket whose data has arrived but was not delivered still says -ECANCELED") {
    FOR_EACH_LOOP(fixture);
    auto pair = fixture.connected_pair();
    uint8_t byte = 7, got = 0;
    iovec out{&byte, 1}, in{&got, 1};
    Op sent, received;
    fixture.a().send(pair.client, &out, 1, sent);
    REQUIRE(fixture.until([&] { return sent.done(); }));
    fixture.settle();
    fixture.b().receive(pair.server, &in, 1, received);
    fixture.close(pair);
    REQUIRE(fixture.until([&] { return received.done(); }));
    CHECK(received.result == -ECANCELED);
    fixture.settle();
    CHECK(received.calls == 1);
}

TEST_CASE("cancel ends one operation and leaves the socket usable") {
    FOR_EACH_LOOP(fixture);
    auto pair = fixture.connected_pair();
    uint8_t byte = 9, got = 0;
    iovec out{&byte, 1}, in{&got, 1};
    Op received, accepting;
    fixture.b().receive(pair.server, &in, 1, received);
    fixture.b().accept(pair.listener, accepting);
    fixture.settle();
    fixture.b().cancel(received);
    fixture.b().cancel(accepting);
    fixture.b().cancel(received);  // twice is harmless
    CHECK(received.calls == 0);
    REQUIRE(fixture.until([&] { return received.done() && accepting.done(); }));
    CHECK(received.result == -ECANCELED);
    CHECK(accepting.result == -ECANCELED);
    fixture.b().cancel(received);  // so is one that has ended
    fixture.settle();
    CHECK(received.calls == 1);
    Op again, sent;
    fixture.b().receive(pair.server, &in, 1, again);
    fixture.a().send(pair.client, &out, 1, sent);
    REQUIRE(fixture.until([&] { return again.done() && sent.done(); }));
    CHECK(again.result == 1);
    CHECK(got == 9);
    fixture.close(pair);
}

TEST_CASE("a cancelled connect ends exactly once, with a handle or without") {
    FOR_EACH_LOOP(fixture);
    uint16_t port = 0;
    auto listener = fixture.b().listen({fixture.host(), 0}, &port);
    REQUIRE(listener.ok());
    Op connecting;
    fixture.a().connect({fixture.host(), port}, connecting);
    fixture.a().cancel(connecting);
    REQUIRE(fixture.until([&] { return connecting.done(); }));
    fixture.settle();
    CHECK(connecting.calls == 1);
    if (connecting.result >= 0) {
        fixture.a().close_socket(static_cast<Socket>(connecting.result));
    } else {
        CHECK(connecting.result == -ECANCELED);
    }
    fixture.b().close_socket(listener.value());
}

TEST_CASE("the end of a stream is 0, again and again, and sending into a closed one is an error") {
    FOR_EACH_LOOP(fixture);
    auto pair = fixture.connected_pair();
    fixture.a().close_socket(pair.client);
    uint8_t got = 0;
    iovec in{&got, 1};
    for (int i = 0; i < 2; i++) {
        Op received;
        fixture.b().receive(pair.server, &in, 1, received);
        REQUIRE(fixture.until([&] { return received.done(); }));
        CHECK(received.result == 0);
    }
    std::vector<uint8_t> data(4096);
    iovec out{data.data(), data.size()};
    int64_t last = 0;
    for (int i = 0; i < 100 && last >= 0; i++) {
        Op sent;
        fixture.b().send(pair.server, &out, 1, sent);
        REQUIRE(fixture.until([&] { return sent.done(); }));
        last = sent.result;
        fixture.settle();
    }
    bool refused = last == -EPIPE || last == -ECONNRESET;
    CHECK(refused);
    fixture.b().close_socket(pair.server);
    fixture.b().close_socket(pair.listener);
}

TEST_CASE("gathering results delays nothing for good, neither data nor timers nor notifications") {
    FOR_EACH_LOOP(fixture);
    auto pair = fixture.connected_pair();
    Loop& loop = fixture.b();
    loop.set_gather_ns(50'000);
    uint8_t byte = 1, got = 0;
    iovec out{&byte, 1}, in{&got, 1};
    for (int i = 0; i < 20; i++) {
        Op sent, received;
        loop.receive(pair.server, &in, 1, received);
        fixture.a().send(pair.client, &out, 1, sent);
        REQUIRE(fixture.until([&] { return sent.done() && received.done(); }));
        CHECK(received.result == 1);
    }
    TestNotifier note;
    loop.register_notifier(note);
    loop.notify(note);
    bool fired = false;
    TestTimer timer;
    timer.action = [&] { fired = true; };
    loop.arm(timer, loop.now_ns() + 10'000);
    REQUIRE(fixture.until([&] { return fired && note.calls == 1; }));
    loop.unregister_notifier(note);
    fixture.close(pair);
}

TEST_CASE("many connections, opened and closed, in few handles") {
    FOR_EACH_LOOP(fixture);
    uint16_t port = 0;
    auto listener = fixture.b().listen({fixture.host(), 0}, &port);
    REQUIRE(listener.ok());
    for (int round = 0; round < 200; round++) {
        Op accepted, connected;
        fixture.b().accept(listener.value(), accepted);
        fixture.a().connect({fixture.host(), port}, connected);
        REQUIRE(fixture.until([&] { return accepted.done() && connected.done(); }));
        uint8_t got = 0;
        iovec in{&got, 1};
        Op received;
        fixture.b().receive(static_cast<Socket>(accepted.result), &in, 1, received);
        fixture.a().close_socket(static_cast<Socket>(connected.result));
        REQUIRE(fixture.until([&] { return received.done(); }));
        CHECK(received.result == 0);
        fixture.b().close_socket(static_cast<Socket>(accepted.result));
    }
    fixture.b().close_socket(listener.value());
}

TEST_CASE("a loop may go while operations are in flight: nothing runs, nothing leaks") {
    FOR_EACH_LOOP(fixture);
    auto pair = fixture.connected_pair();
    std::vector<uint8_t> in(100), big(8 << 20);
    iovec in_iov{in.data(), in.size()}, out_iov{big.data(), big.size()};
    Op receiving, accepting, sending, connecting;
    fixture.b().receive(pair.server, &in_iov, 1, receiving);
    fixture.b().accept(pair.listener, accepting);
    fixture.b().send(pair.server, &out_iov, 1, sending);
    fixture.b().connect({fixture.host(), 1}, connecting);
    fixture_owner.reset();
    CHECK(receiving.calls == 0);
    CHECK(accepting.calls == 0);
}

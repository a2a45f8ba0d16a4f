// SPDX-License-Identifier: GPL-2.0-or-later
// The opening side: addresses, handshake and its refusals, reconnecting.
#include "net/address.hpp"
#include "net_fixture.hpp"

using namespace vitastor;
using namespace vitastor::net;
using namespace vitastor::net::test;
using vitastor::wire::kHeaderSize;

namespace {

PeerAddress at(OsdNum osd, uint16_t port, std::vector<std::string> hosts = {"127.0.0.1"}) {
    return {osd, std::move(hosts), port};
}

/// Takes the SHOW_CONFIG of a fresh connection and answers it.
std::string answer_hello(RawPeer& raw, const std::string& json, int64_t retval = 0) {
    const std::string header = raw.take(kHeaderSize);
    if (request_of(header).opcode != Opcode::show_config)
        return {};
    const auto size = wire::decode<wire::ConfigRequest>(
                          std::span<const uint8_t, 128>(reinterpret_cast<const uint8_t*>(header.data()), 128))
                          .json_len;
    const std::string request = raw.take(size);
    if (retval < 0)
        raw.send(reply_bytes(1, Opcode::show_config, retval));
    else
        raw.send(reply_bytes(1, Opcode::show_config, static_cast<int64_t>(json.size() + 1), json + '\0'));
    return request;
}

/// A port where nobody listens.
uint16_t dead_port(Fixture& f) { return RawServer(f).port(); }

}  // namespace

NET_TEST("a client connects, reads, and is told of the end") {
    auto osd = std::make_unique<TestOsd>(f, 5);
    TestPeers p(f, client_options());
    p.peers.want(5);
    CHECK(p.peers.get(5) == nullptr);
    f.settle(3);
    p.peers.set_address(5, at(5, osd->port()));
    REQUIRE(f.run_until([&] { return p.peers.get(5) != nullptr; }));
    CHECK(p.listener.events == std::vector<std::string>{"up 5"});
    REQUIRE(p.peers.peer_config(5));
    CHECK(p.peers.peer_config(5)->block_size == 131072u);
    CHECK(p.peers.last_error(5).empty());
    ReadCall call(4096, 128 << 10);
    p.peers.get(5)->send(call);
    REQUIRE(f.run_until([&] { return call.replies == 1; }));
    CHECK(call.data_is_right(4096));
    CHECK(osd->announced.empty());
    ReadCall lost(0, 4096);
    osd->hold = true;
    p.peers.get(5)->send(lost);
    REQUIRE(f.run_until([&] { return osd->held.size() == 1; }));
    size_t events_at_reply = 99;
    lost.then = [&](ReadCall&) { events_at_reply = p.listener.events.size(); };
    osd->stop();
    REQUIRE(f.run_until([&] { return p.listener.events.size() == 2; }));
    CHECK(p.listener.events[1] == "down 5");
    CHECK(lost.status == -EPIPE);
    CHECK(events_at_reply == 1);
    CHECK(p.peers.get(5) == nullptr);
    REQUIRE(f.run_until([&] { return p.peers.last_error(5).find("Connection refused") != std::string::npos; }));
    // It comes back on the same port.
    const uint16_t port = osd->port();
    osd = std::make_unique<TestOsd>(f, 5, std::vector<runtime::Address>{{"127.0.0.1", port}});
    REQUIRE(f.run_until([&] { return p.peers.get(5) != nullptr; }));
    CHECK(p.listener.events.back() == "up 5");
}

NET_TEST("the hello is what 3.0.8 sends") {
    RawServer server(f);
    TestPeers client(f, client_options()), osd(f, osd_options(2));
    client.peers.want(1);
    client.peers.set_address(1, at(1, server.port()));
    auto raw = server.next();
    CHECK(answer_hello(*raw, wire::encode_config_reply(test_config(1))) == "{\"features\": {\"check_sequencing\": true}}");
    REQUIRE(f.run_until([&] { return client.peers.get(1) != nullptr; }));
    osd.peers.want(1);
    osd.peers.set_address(1, at(1, server.port()));
    auto raw2 = server.next();
    CHECK(answer_hello(*raw2, wire::encode_config_reply(test_config(1))) ==
          "{\"features\": {\"check_sequencing\": true}, \"osd_num\": 2}");
    REQUIRE(f.run_until([&] { return osd.peers.get(1) != nullptr; }));
    // PING goes both ways between OSDs; anything else from the acceptor ends it. A client takes no request at all.
    raw2->send(request_bytes(1, Opcode::ping));
    CHECK(reply_of(raw2->take(kHeaderSize)).opcode == Opcode::ping);
    raw2->send(request_bytes(2, Opcode::sync));
    CHECK(raw2->take(1).empty());
    REQUIRE(f.run_until([&] { return osd.listener.events.size() == 2; }));
    raw->send(request_bytes(1, Opcode::ping));
    CHECK(raw->take(1).empty());
    REQUIRE(f.run_until([&] { return client.listener.events.size() == 2; }));
}

NET_TEST("peers that do not suit are refused, both values named") {
    struct Case {
        void (*change)(wire::ConfigReplyJson& config);
        bool client_refuses;
        std::vector<std::string> words;
    };
    const Case cases[] = {
        {[](wire::ConfigReplyJson& c) { c.osd_num = 7; }, true, {"OSD 1", "OSD 7"}},
        {[](wire::ConfigReplyJson& c) { c.protocol_version = 2; }, true, {"protocol_version is 2", "ours is 1"}},
        {[](wire::ConfigReplyJson& c) { c.protocol_version.reset(); }, true, {"protocol_version is absent", "ours is 1"}},
        {[](wire::ConfigReplyJson& c) { c.block_size = 65536; }, false, {"block_size is 65536", "ours is 131072"}},
        {[](wire::ConfigReplyJson& c) { c.bitmap_granularity = 512; }, false, {"bitmap_granularity is 512", "ours is 4096"}},
        {[](wire::ConfigReplyJson& c) { c.immediate_commit = wire::ImmediateCommit::small; },
         false,
         {"immediate_commit is small", "ours is all"}},
        {[](wire::ConfigReplyJson& c) { c.immediate_commit = wire::ImmediateCommit::none; },
         false,
         {"immediate_commit is none", "ours is all"}},
    };
    for (const auto& c : cases) {
        for (bool as_osd : {false, true}) {
            RawServer server(f);
            TestPeers p(f, as_osd ? osd_options(2) : client_options());
            p.peers.want(1);
            p.peers.set_address(1, at(1, server.port()));
            auto raw = server.next();
            auto config = test_config(1);
            c.change(config);
            answer_hello(*raw, wire::encode_config_reply(config));
            if (!as_osd && !c.client_refuses) {
                REQUIRE(f.run_until([&] { return p.peers.get(1) != nullptr; }));
                continue;
            }
            CHECK(raw->take(1).empty());
            CHECK(raw->closed_by_peer());
            for (const auto& word : c.words)
                CHECK_MESSAGE(p.peers.last_error(1).find(word) != std::string::npos, p.peers.last_error(1));
            CHECK(f.logger.has(p.peers.last_error(1)));
            CHECK(p.listener.events.empty());
            // It is tried again, and a better answer is taken.
            auto again = server.next();
            answer_hello(*again, wire::encode_config_reply(test_config(1)));
            REQUIRE(f.run_until([&] { return p.peers.get(1) != nullptr; }));
            CHECK(p.peers.last_error(1).empty());
        }
    }
}

NET_TEST("weaker own promises accept stronger peers, old peers are accepted with a warning") {
    for (int round = 0; round < 3; round++) {
        RawServer server(f);
        auto options = osd_options(2);
        options.immediate_commit = round == 0 ? wire::ImmediateCommit::none : wire::ImmediateCommit::small;
        TestPeers p(f, options);
        p.peers.want(1);
        p.peers.set_address(1, at(1, server.port()));
        auto raw = server.next();
        answer_hello(*raw, round == 2 ? "{\"osd_num\": 1, \"protocol_version\": 1}" : wire::encode_config_reply(test_config(1)));
        REQUIRE(f.run_until([&] { return p.peers.get(1) != nullptr; }));
        if (round == 2)
            CHECK(f.logger.has("older than 0.6.3"));
    }
}

NET_TEST("handshakes that fail: error, no JSON, garbage, close") {
    for (int round = 0; round < 4; round++) {
        CAPTURE(round);
        RawServer server(f);
        TestPeers p(f, client_options());
        p.peers.want(1);
        p.peers.set_address(1, at(1, server.port()));
        auto raw = server.next();
        if (round == 0)
            answer_hello(*raw, "", -22);
        else if (round == 1)
            answer_hello(*raw, "[1, 2]");
        else if (round == 2)
            raw->send(std::string(200, 'x'));
        else
            raw->close();
        REQUIRE(f.run_until([&] { return !p.peers.last_error(1).empty(); }));
        CHECK(p.peers.get(1) == nullptr);
        auto again = server.next();  // and it tries again
        CHECK(p.listener.events.empty());
    }
}

NET_TEST("a good reply followed by garbage, before the request has left") {
    for (int round = 0; round < 10; round++) {
        RawServer server(f);
        TestPeers p(f, client_options());
        p.peers.want(1);
        p.peers.set_address(1, at(1, server.port()));
        auto raw = server.next();
        const std::string json = wire::encode_config_reply(test_config(1)) + '\0';
        raw->send(reply_bytes(1, Opcode::show_config, static_cast<int64_t>(json.size()), json) + std::string(128, 'x'));
        REQUIRE(f.run_until([&] { return raw->closed_by_peer(); }));
        // Up and down again, or never up: both are right; the listener checks that up means usable.
        f.settle(3);
        CHECK(p.listener.events.size() % 2 == 0);
    }
}

NET_TEST("addresses are tried one after another in order") {
    TestOsd osd(f, 1);
    TestPeers p(f, client_options());
    p.peers.want(1);
    // 127.0.0.2 and .3 are loopback addresses where nobody listens on that port.
    p.peers.set_address(1, at(1, osd.port(), {"127.0.0.3", "127.0.0.2", "127.0.0.1"}));
    REQUIRE(f.run_until([&] { return p.peers.get(1) != nullptr; }));
    CHECK(f.logger.has("127.0.0.3"));
    CHECK(f.logger.has("127.0.0.2"));
    CHECK(p.peers.get(1)->peer_name().find("127.0.0.1") != std::string::npos);
}

NET_TEST("a silent acceptor is given up after the timeout") {
    RawServer server(f);
    auto options = client_options();
    options.connect_timeout_ns = 30 * runtime::kNsPerMs;
    TestPeers p(f, options);
    p.peers.want(1);
    p.peers.set_address(1, at(1, server.port()));
    auto raw = server.next();
    raw->take(kHeaderSize);
    REQUIRE(f.run_until([&] { return raw->closed_by_peer(); }));
    CHECK(p.peers.last_error(1).find("SHOW_CONFIG") != std::string::npos);
}

NET_TEST("reset drops the connection, answers its calls and connects anew at once") {
    TestOsd osd(f, 1);
    auto options = client_options();
    options.connect_interval_ns = 3600 * runtime::kNsPerSecond;
    TestPeers p(f, options);
    p.peers.want(1);
    p.peers.set_address(1, at(1, osd.port()));
    REQUIRE(f.run_until([&] { return p.peers.get(1) != nullptr; }));
    osd.hold = true;
    ReadCall call(0, 4096);
    p.peers.get(1)->send(call);
    REQUIRE(f.run_until([&] { return osd.held.size() == 1; }));
    p.peers.reset(1, "because");
    CHECK(p.peers.get(1) == nullptr);
    CHECK(call.replies == 0);
    REQUIRE(f.run_until([&] { return p.peers.get(1) != nullptr; }));
    CHECK(call.status == -EPIPE);
    CHECK(p.listener.events == std::vector<std::string>{"up 1", "down 1", "up 1"});
}

NET_TEST("a changed address ends the waiting; a vanished one stops the trying") {
    auto options = client_options();
    options.connect_interval_ns = 3600 * runtime::kNsPerSecond;
    TestPeers p(f, options);
    p.peers.want(1);
    p.peers.set_address(1, at(1, dead_port(f)));
    REQUIRE(f.run_until([&] { return !p.peers.last_error(1).empty(); }));
    f.settle(3);
    TestOsd osd(f, 1);
    p.peers.set_address(1, at(1, osd.port()));
    REQUIRE(f.run_until([&] { return p.peers.get(1) != nullptr; }));
    p.peers.set_address(1, std::nullopt);
    f.settle(3);
    CHECK(p.peers.get(1) != nullptr);  // it lives until it dies by itself
    p.peers.reset(1, "test");
    REQUIRE(f.run_until([&] { return p.listener.events.size() == 2; }));
    f.settle();
    CHECK(osd.accepted == 1);
    p.peers.set_address(1, at(1, osd.port()));
    REQUIRE(f.run_until([&] { return p.peers.get(1) != nullptr; }));
    p.peers.unwant(1);
    REQUIRE(f.run_until([&] { return p.listener.events.size() == 4; }));
    f.settle();
    CHECK(osd.accepted == 2);
}

NET_TEST("close_all drains from every state") {
    RawServer silent(f);
    TestOsd osd(f, 1);
    TestPeers p(f, client_options());
    p.peers.set_address(1, at(1, osd.port()));
    p.peers.set_address(2, at(2, silent.port()));
    p.peers.set_address(3, at(3, dead_port(f)));
    p.peers.set_address(70000, at(70000, osd.port()));
    for (OsdNum n : {1ul, 2ul, 3ul, 4ul, 70000ul})
        p.peers.want(n);
    REQUIRE(f.run_until([&] { return p.peers.get(1) != nullptr && silent.accepted() == 1 && !p.peers.last_error(3).empty(); }));
    p.peers.set_address(5, at(5, silent.port()));
    p.peers.want(5);
    p.stop();
    CHECK(p.listener.events == std::vector<std::string>{"up 1", "down 1"});
    p.peers.set_address(3, at(3, osd.port()));  // too late
    f.settle();
    CHECK(p.peers.get(3) == nullptr);
}

NET_TEST("IPv6") {
    uint16_t port = 0;
    auto probe = f.loop->listen({f.ipv6(), 0}, &port);
    if (!probe.ok()) {
        MESSAGE("left out: no IPv6 on this machine");
        return;
    }
    f.loop->close_socket(probe.value());
    TestOsd osd(f, 1, {{f.ipv6(), 0}});
    TestPeers p(f, client_options());
    p.peers.want(1);
    p.peers.set_address(1, at(1, osd.port(), {f.ipv6()}));
    REQUIRE(f.run_until([&] { return p.peers.get(1) != nullptr; }));
}

TEST_CASE("networks and the choice of addresses") {
    auto net = [](const char* text) {
        auto parsed = Cidr::parse(text);
        REQUIRE_MESSAGE(parsed.ok(), text);
        return parsed.value();
    };
    CHECK(net("10.0.0.0/8").contains("10.255.1.2"));
    CHECK(!net("10.0.0.0/8").contains("11.0.0.1"));
    CHECK(net("192.0.2.7").contains("192.0.2.7"));
    CHECK(!net("192.0.2.7").contains("192.0.2.6"));
    CHECK(net("192.168.4.0/22").contains("192.168.7.255"));
    CHECK(!net("192.168.4.0/22").contains("192.168.8.0"));
    CHECK(net("0.0.0.0/0").contains("1.2.3.4"));
    CHECK(!net("0.0.0.0/0").contains("::1"));
    CHECK(net("fd00::/8").contains("fdab::1"));
    CHECK(!net("fd00::/8").contains("fe80::1"));
    CHECK(!net("fd00::/8").contains("not an address"));
    for (const char* bad : {"", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/8x", "host", "10.0.0.0/-1"}) {
        CAPTURE(bad);
        CHECK(Cidr::parse(bad).status().code() == -EINVAL);
    }
    using Names = std::vector<std::string>;
    const std::vector<Cidr> ten = {net("10.0.0.0/8")};
    CHECK(choose_addresses({"1.1.1.1", "10.0.0.1", "10.0.0.2"}, ten) == Names{"10.0.0.1", "10.0.0.2"});
    CHECK(choose_addresses({"1.1.1.1", "2.2.2.2"}, ten) == Names{"1.1.1.1", "2.2.2.2"});
    CHECK(choose_addresses({"1.1.1.1"}, ten) == Names{"1.1.1.1"});
    CHECK(choose_addresses({"1.1.1.1", "10.0.0.1"}, {}) == Names{"1.1.1.1", "10.0.0.1"});
    CHECK(address_text("::1", 5) == "[::1]:5");
}

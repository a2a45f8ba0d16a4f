// SPDX-License-Identifier: GPL-2.0-or-later
// The accepting side: what strangers may send, SHOW_CONFIG, addresses, limits.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net_fixture.hpp"

using namespace vitastor;
using namespace vitastor::net;
using namespace vitastor::net::test;
using vitastor::wire::kHeaderSize;

namespace {

const char* const kClientHello = "{\"features\": {\"check_sequencing\": true}}";

/// The OSD lives and serves: a fresh connection gets its READ answered.
void check_alive(Fixture& f, TestOsd& osd) {
    RawPeer peer(f);
    peer.connect("127.0.0.1", osd.port());
    peer.send(request_bytes(1, Opcode::read, wire::ClientRequest{1, 4096, 4096, 0, 0, 0}));
    CHECK(reply_of(peer.take(kHeaderSize)).retval == 4096);
    CHECK(peer.take(4 + 4096).size() == 4100);
}

}  // namespace

NET_TEST("SHOW_CONFIG is answered with JSON and a NUL; operations work without it") {
    TestOsd osd(f, 3);
    RawPeer peer(f);
    peer.connect("127.0.0.1", osd.port());
    peer.send(request_bytes(9, Opcode::sync));
    CHECK(reply_of(peer.take(kHeaderSize)).id == 9);
    for (const char* json : {kClientHello, "", "not json", "{\"osd_num\": \"7\"}"}) {
        CAPTURE(json);
        RawPeer fresh(f);
        fresh.connect("127.0.0.1", osd.port());
        fresh.send(show_config_bytes(1, json));
        const auto reply = reply_of(fresh.take(kHeaderSize));
        CHECK(reply.opcode == Opcode::show_config);
        REQUIRE(reply.retval > 0);
        const std::string text = fresh.take(static_cast<size_t>(reply.retval));
        CHECK(text.back() == '\0');
        CHECK(text.substr(0, text.size() - 1) == wire::encode_config_reply(test_config(3)));
    }
    CHECK(osd.announced.empty());
}

NET_TEST("an announced OSD number is told, and that connection is kept alive by PING") {
    ServerOptions options;
    options.idle_ns = 10 * runtime::kNsPerMs;
    options.ping_timeout_ns = 10 * runtime::kNsPerSecond;
    TestOsd osd(f, 3, {{"127.0.0.1", 0}}, options);
    RawPeer peer(f), client(f);
    peer.connect("127.0.0.1", osd.port());
    client.connect("127.0.0.1", osd.port());
    client.send(show_config_bytes(1, kClientHello));
    CHECK(reply_of(client.take(kHeaderSize)).retval > 0);
    peer.send(show_config_bytes(1, "{\"features\": {\"check_sequencing\": true}, \"osd_num\": 2}"));
    const auto reply = reply_of(peer.take(kHeaderSize));
    peer.take(static_cast<size_t>(reply.retval));
    REQUIRE(osd.announced.size() == 1);
    CHECK(osd.announced[0] == 2);
    for (uint64_t id = 1; id <= 3; id++) {
        const auto ping = request_of(peer.take(kHeaderSize));
        CHECK(ping.opcode == Opcode::ping);
        CHECK(ping.id == id);
        peer.send(reply_bytes(id, Opcode::ping, 0));
    }
    // The client, silent for as long, has got nothing but its reply.
    CHECK(client.received.size() == wire::encode_config_reply(test_config(3)).size() + 1);
    CHECK(!client.closed_by_peer());
}

NET_TEST("ids must be consecutive once check_sequencing was asked for") {
    TestOsd osd(f, 1);
    RawPeer peer(f);
    peer.connect("127.0.0.1", osd.port());
    peer.send(show_config_bytes(1, kClientHello) + request_bytes(2, Opcode::sync));
    const auto reply = reply_of(peer.take(kHeaderSize));
    peer.take(static_cast<size_t>(reply.retval));
    CHECK(reply_of(peer.take(kHeaderSize)).id == 2);
    peer.send(request_bytes(4, Opcode::sync));
    CHECK(peer.take(1).empty());
    CHECK(peer.closed_by_peer());
    CHECK(f.logger.has("consecutive"));
    check_alive(f, osd);
}

NET_TEST("garbage, oversized and truncated messages close that connection only") {
    TestOsd osd(f, 1);
    RawPeer innocent(f);
    innocent.connect("127.0.0.1", osd.port());
    const std::string bad[] = {
        std::string(128, '\0'),
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + std::string(200, ' '),
        request_bytes(1, Opcode::write, wire::ClientRequest{1, 0, UINT32_MAX, 0, 0, 0}),
        request_bytes(1, Opcode::sec_write, wire::SubRequest{{}, 1, 0, 4096, UINT32_MAX, 0}),
        request_bytes(1, Opcode::sec_stabilize, wire::TripleRequest{UINT64_MAX, 0}),
        request_bytes(1, Opcode::show_config, wire::ConfigRequest{UINT64_MAX}),
        reply_bytes(1, Opcode::ping, 0),  // nobody asked
    };
    int closed = 0;
    for (const auto& bytes : bad) {
        RawPeer peer(f);
        peer.connect("127.0.0.1", osd.port());
        peer.send(bytes);
        CHECK(peer.take(1).empty());
        CHECK(peer.closed_by_peer());
        REQUIRE(f.run_until([&] { return osd.closed == closed + 1; }));
        closed++;
    }
    // Cut anywhere: nothing happens but that the connection goes.
    const std::string whole = request_bytes(1, Opcode::write, wire::ClientRequest{1, 0, 8192, 0, 0, 0}, std::string(8192, 'w'));
    for (size_t size : {1, 127, 128, 129, 5000, 128 + 8191}) {
        RawPeer peer(f);
        peer.connect("127.0.0.1", osd.port());
        peer.send(whole.substr(0, size));
        peer.close();
        REQUIRE(f.run_until([&] { return osd.closed == closed + 1; }));
        closed++;
    }
    CHECK(osd.requests == 0);
    innocent.send(request_bytes(1, Opcode::sync));
    CHECK(reply_of(innocent.take(kHeaderSize)).id == 1);
    check_alive(f, osd);
}

NET_TEST("random bytes behind a good start") {
    TestOsd osd(f, 1);
    uint64_t state = 88172645463325252ull;
    for (int round = 0; round < 40; round++) {
        std::string bytes = show_config_bytes(1, kClientHello);
        const size_t start = round % 2 ? bytes.size() : 24;
        bytes.resize(start + 4000);
        for (size_t i = start; i < bytes.size(); i++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes[i] = static_cast<char>(state);
        }
        RawPeer peer(f);
        peer.connect("127.0.0.1", osd.port());
        peer.send(bytes);
        peer.close();
    }
    REQUIRE(f.run_until([&] { return osd.closed == 40; }));
    check_alive(f, osd);
}

NET_TEST("half-close counts as close") {
    if (f.simulated())
        return;  // needs a socket of the system
    TestOsd osd(f, 1);
    osd.hold = true;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(osd.port());
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    REQUIRE(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    const std::string bytes = request_bytes(1, Opcode::sync);
    CHECK(write(fd, bytes.data(), bytes.size()) == 128);
    REQUIRE(f.run_until([&] { return osd.held.size() == 1; }));
    shutdown(fd, SHUT_WR);
    REQUIRE(f.run_until([&] { return osd.closed == 1; }));
    char byte;
    CHECK(read(fd, &byte, 1) == 0);
    close(fd);
}

NET_TEST("several addresses share one port, IPv6 among them") {
    uint16_t port = 0;
    auto probe = f.loop->listen({f.ipv6(), 0}, &port);
    if (!probe.ok()) {
        MESSAGE("left out: no IPv6 on this machine (" << probe.status().message() << ")");
        return;
    }
    f.loop->close_socket(probe.value());
    TestOsd osd(f, 1, {{"127.0.0.1", 0}, {f.ipv6(), 0}});
    CHECK(osd.server.addresses().size() == 2);
    for (const char* host : {"127.0.0.1", f.ipv6()}) {
        RawPeer peer(f);
        peer.connect(host, osd.port());
        peer.send(request_bytes(1, Opcode::ping));
        CHECK(reply_of(peer.take(kHeaderSize)).retval == 0);
    }
}

NET_TEST("a port in use is named") {
    TestOsd osd(f, 1);
    ServerOptions options;
    options.listen = {{"127.0.0.1", osd.port()}};
    Server second(*f.loop, options, osd, f.logger);
    const Status status = second.start();
    CHECK(status.code() == -EADDRINUSE);
    CHECK(status.message().find("127.0.0.1:" + std::to_string(osd.port())) != std::string::npos);
    options.listen = {};
    Server none(*f.loop, options, osd, f.logger);
    CHECK(none.start().code() == -EINVAL);
}

NET_TEST("connections beyond the limit are refused, and there is room again afterwards") {
    ServerOptions options;
    options.max_connections = 2;
    TestOsd osd(f, 1, {{"127.0.0.1", 0}}, options);
    RawPeer first(f), third(f);
    {
        RawPeer second(f);
        first.connect("127.0.0.1", osd.port());
        second.connect("127.0.0.1", osd.port());
        third.connect("127.0.0.1", osd.port());
        CHECK(third.take(1).empty());
        CHECK(third.closed_by_peer());
        CHECK(f.logger.has("max_connections"));
    }
    REQUIRE(f.run_until([&] { return osd.closed == 1; }));
    check_alive(f, osd);
}

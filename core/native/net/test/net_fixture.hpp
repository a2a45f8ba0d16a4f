// SPDX-License-Identifier: GPL-2.0-or-later
// What the tests of net stand on: a loop, raw byte peers that misbehave on purpose, a server that answers or holds requests.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/peers.hpp"
#include "net/server.hpp"
#include "runtime/sim_world.hpp"

namespace vitastor::net::test {

using wire::Opcode;

struct CollectingLogger : Logger {
    std::vector<std::string> lines;
    void write(LogLevel, const std::string& text) override { lines.push_back(text); }
    bool has(const std::string& part) const {
        for (const auto& line : lines)
            if (line.find(part) != std::string::npos)
                return true;
        return false;
    }
};

class Fixture {
public:
    explicit Fixture(runtime::LoopKind kind);
    /// A simulated host with the addresses 127.0.0.1 to .3 and fd00::1, on a network that cuts sends and receives short.
    explicit Fixture(uint64_t seed);
    /// Another host in the same simulated world.
    Fixture(Fixture& neighbour, const std::string& address);
    ~Fixture();
    /// Turns the loop until `done`; false after 20 seconds of the loop's clock.
    bool run_until(const std::function<bool()>& done);
    /// Lets everything that is under way settle: `turns` turns without sleeping longer than a millisecond each.
    void settle(int turns = 20);
    bool simulated() const { return world != nullptr; }
    /// An IPv6 address of this machine. (The simulated loopback addresses are one.)
    const char* ipv6() const { return simulated() ? "fd00::1" : "::1"; }

    CollectingLogger logger;
    std::shared_ptr<runtime::SimWorld> world;
    runtime::NodeId node = 0;
    std::unique_ptr<runtime::Loop> loop;

private:
    void turn(uint64_t until_ns);
};

/// Runs the body once on every kind of loop.
void on_every_loop(void (*body)(Fixture& fixture));
#define NET_TEST_BODY(function, name)                       \
    static void function(Fixture& f);                       \
    TEST_CASE(name) { on_every_loop(function); }            \
    static void function([[maybe_unused]] Fixture& f)
#define NET_TEST(name) NET_TEST_BODY(DOCTEST_ANONYMOUS(net_test_), name)

/// A TCP peer without manners: sends the bytes it is told to, keeps what it gets.
class RawPeer {
public:
    explicit RawPeer(Fixture& fixture) : f_(fixture) { init(); }
    ~RawPeer() { close(); }
    RawPeer(const RawPeer&) = delete;
    RawPeer& operator=(const RawPeer&) = delete;

    void connect(const std::string& host, uint16_t port);
    /// Adopts an accepted socket.
    void attach(runtime::Socket socket);
    void send(const std::string& bytes);
    /// One piece a turn.
    void send_in_pieces(const std::string& bytes, size_t piece);
    void close();
    bool closed_by_peer() const { return eof_; }
    /// Waits for `size` bytes and takes them; empty if the connection ended before.
    std::string take(size_t size);
    std::string received;

private:
    struct Op : runtime::Completion {
        RawPeer* self = nullptr;
        int64_t result = 0;
        bool busy = false;
    };
    void init();
    void receive();
    Fixture& f_;
    runtime::Socket socket_ = -1;
    bool eof_ = false;
    char buffer_[65536];
    iovec receive_iov_{};
    Op receive_op_, send_op_;
};

/// Accepts raw connections on a port of its own.
class RawServer {
public:
    explicit RawServer(Fixture& fixture, const std::string& host = "127.0.0.1");
    ~RawServer();
    uint16_t port() const { return port_; }
    size_t accepted() const { return accepted_; }
    /// Waits for the next connection.
    std::unique_ptr<RawPeer> next();

private:
    struct Op : runtime::Completion {
        RawServer* self = nullptr;
        bool busy = false;
    };
    void accept();
    Fixture& f_;
    runtime::Socket listener_ = -1;
    uint16_t port_ = 0;
    size_t accepted_ = 0;
    std::deque<runtime::Socket> waiting_;
    Op op_;
};

/// An OSD that knows READ (bytes are offset mod 251, bitmap 0x5a…) and WRITE; holds requests when told to.
class TestOsd : public ServerHandler {
public:
    TestOsd(Fixture& fixture, OsdNum osd, std::vector<runtime::Address> listen = {{"127.0.0.1", 0}},
            ServerOptions options = {});
    ~TestOsd() override;
    void stop();
    uint16_t port() const { return server.port(); }

    void on_accepted(Connection&) override { accepted++; }
    void on_request(Connection&, Request& request) override;
    void on_peer_announced(Connection&, OsdNum osd) override { announced.push_back(osd); }
    void on_closed(Connection&) override { closed++; }
    static void answer(Request& request);

    bool hold = false;
    std::deque<Request*> held;
    int accepted = 0, closed = 0, requests = 0;
    std::vector<OsdNum> announced;
    std::string last_data;
    std::string last_bitmap;
    Server server;

private:
    Fixture& f_;
    bool stopped_ = false;
};

wire::ConfigReplyJson test_config(OsdNum osd);
uint8_t pattern(uint64_t offset);

/// Bytes of a request or reply.
std::string request_bytes(uint64_t id, Opcode opcode);
template <class Message>
std::string request_bytes(uint64_t id, Opcode opcode, const Message& message, const std::string& payload = {}) {
    uint8_t header[wire::kHeaderSize];
    wire::encode_request(header, {id, opcode}, message);
    return std::string(reinterpret_cast<char*>(header), sizeof(header)) + payload;
}
std::string show_config_bytes(uint64_t id, const std::string& json);
std::string reply_bytes(uint64_t id, Opcode opcode, int64_t retval, const std::string& payload = {});
template <class Message>
std::string reply_bytes(uint64_t id, Opcode opcode, int64_t retval, const Message& message, const std::string& payload) {
    uint8_t header[wire::kHeaderSize];
    wire::encode_reply(header, {id, opcode, retval}, message);
    return std::string(reinterpret_cast<char*>(header), sizeof(header)) + payload;
}
wire::ReplyHeader reply_of(const std::string& bytes);
wire::RequestHeader request_of(const std::string& bytes);

/// A READ with its own buffers that counts its answers.
struct ReadCall : Call {
    std::vector<uint8_t> data;
    uint8_t bitmap[8] = {};
    iovec pieces[4];
    int replies = 0;
    std::function<void(ReadCall&)> then;
    ReadCall(uint64_t offset, uint32_t len);
    bool data_is_right(uint64_t offset) const;
};

struct Listener : PeersListener {
    Peers* peers = nullptr;
    std::vector<std::string> events;
    void on_peer_up(OsdNum osd) override {
        CHECK(peers->get(osd) != nullptr);
        events.push_back("up " + std::to_string(osd));
    }
    void on_peer_down(OsdNum osd) override {
        CHECK(peers->get(osd) == nullptr);
        events.push_back("down " + std::to_string(osd));
    }
};

/// Peers that close themselves at the end of the test.
struct TestPeers {
    Fixture& f;
    Listener listener;
    Peers peers;
    TestPeers(Fixture& fixture, const PeerOptions& options)
        : f(fixture), peers(*fixture.loop, options, listener, fixture.logger) {
        listener.peers = &peers;
    }
    ~TestPeers();
    void stop();
    bool stopped = false;
};
PeerOptions client_options();
PeerOptions osd_options(OsdNum own);

}  // namespace vitastor::net::test

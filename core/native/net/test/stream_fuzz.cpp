// SPDX-License-Identifier: GPL-2.0-or-later
// Fuzz target of the connection: an OSD's server, or a client that waits for SHOW_CONFIG and a READ, gets any bytes in any
// pieces from the other end, on the simulated network. First byte: odd = attack the client; second: size of the pieces.
#include <cstring>

#include "net/peers.hpp"
#include "net/server.hpp"
#include "runtime/sim_world.hpp"

using namespace vitastor;
using namespace vitastor::net;

namespace {

constexpr int kMaxSteps = 20000;

struct Silent : Logger {
    void write(LogLevel, const std::string&) override {}
};

struct Done : runtime::Completion {
    bool done = false;
    int64_t result = 0;
    Done() {
        on_done = [](runtime::Completion* self, int64_t result) {
            auto* op = static_cast<Done*>(self);
            op->done = true;
            op->result = result;
        };
    }
};

struct Victim : ServerHandler, PeersListener {
    Peers* peers = nullptr;
    struct Read : Call {
        uint8_t data[4096];
        uint8_t bitmap[4];
        iovec iov;
        bool busy = false;
    } read;
    void on_accepted(Connection&) override {}
    void on_request(Connection&, Request& request) override {
        VITASTOR_ASSERT(request.sizes.total() <= uint64_t{wire::kMaxTransfer} + wire::kMaxBitmapBytes);
        Connection::reply_status(request, -EROFS);
    }
    void on_peer_announced(Connection&, OsdNum) override {}
    void on_closed(Connection&) override {}
    void on_peer_up(OsdNum osd) override {
        wire::encode_request(read.request, {0, wire::Opcode::read}, wire::ClientRequest{1, 0, 4096, 0, 0, 0});
        read.bitmap_out = read.bitmap;
        read.bitmap_capacity = sizeof(read.bitmap);
        read.iov = {read.data, sizeof(read.data)};
        read.data_out = &read.iov;
        read.data_count = 1;
        read.on_reply = [](Call* call) { static_cast<Read*>(call)->busy = false; };
        if (read.busy)
            return;
        read.busy = true;
        peers->get(osd)->send(read);
    }
    void on_peer_down(OsdNum) override { VITASTOR_ASSERT(!read.busy); }
};

/// Sends `bytes` in pieces of `piece` and swallows what comes back.
struct Attacker {
    runtime::Loop& loop;
    runtime::Socket socket;
    const uint8_t* bytes;
    size_t left;
    size_t piece;
    iovec out{}, in{};
    uint8_t sink[4096];
    struct Op : runtime::Completion {
        Attacker* self = nullptr;
    } send_op, receive_op;
    int busy = 0;

    Attacker(runtime::Loop& loop, runtime::Socket socket, const uint8_t* bytes, size_t size, size_t piece)
        : loop(loop), socket(socket), bytes(bytes), left(size), piece(piece) {
        send_op.self = receive_op.self = this;
        send_op.on_done = [](runtime::Completion* op, int64_t result) { static_cast<Op*>(op)->self->sent(result); };
        receive_op.on_done = [](runtime::Completion* op, int64_t result) {
            Attacker& self = *static_cast<Op*>(op)->self;
            self.busy--;
            if (result > 0)
                self.receive();
        };
        receive();
        send();
    }
    void receive() {
        in = {sink, sizeof(sink)};
        busy++;
        loop.receive(socket, &in, 1, receive_op);
    }
    void send() {
        if (!left)
            return;
        out = {const_cast<uint8_t*>(bytes), std::min(left, piece)};
        busy++;
        loop.send(socket, &out, 1, send_op);
    }
    void sent(int64_t result) {
        busy--;
        if (result <= 0)
            return;
        bytes += result;
        left -= static_cast<size_t>(result);
        send();
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 2 || size > 200000)
        return 0;
    const bool attack_client = data[0] & 1;
    const size_t piece = data[1] ? data[1] * size_t{16} : size;
    data += 2;
    size -= 2;
    runtime::SimWorld world(1);
    const auto ours = world.add_node({"victim", {"10.0.0.1"}, 0, 0}), theirs = world.add_node({"attacker", {"10.0.0.2"}, 0, 0});
    auto loop = world.make_loop(ours), evil = world.make_loop(theirs);
    auto run = [&](auto&& until) {
        const uint64_t limit = world.now_ns() + runtime::kNsPerSecond;
        for (int steps = 0; steps < kMaxSteps && !until() && world.step_until(limit); steps++) {
        }
    };
    Silent logger;
    Victim victim;
    ServerOptions server_options;
    server_options.listen = {{"10.0.0.1", 7000}};
    server_options.config.osd_num = 1;
    Server server(*loop, server_options, victim, logger);
    VITASTOR_ASSERT(server.start().ok());
    PeerOptions peer_options;
    peer_options.connect_interval_ns = 3600 * runtime::kNsPerSecond;
    Peers peers(*loop, peer_options, victim, logger);
    victim.peers = &peers;
    Done connected;
    runtime::Socket listener = -1;
    if (attack_client) {
        listener = evil->listen({"10.0.0.2", 7001}, nullptr).value();
        evil->accept(listener, connected);
        peers.set_address(1, PeerAddress{1, {"10.0.0.2"}, 7001});
        peers.want(1);
    } else {
        evil->connect({"10.0.0.1", 7000}, connected);
    }
    run([&] { return connected.done; });
    VITASTOR_ASSERT(connected.result >= 0);
    {
        Attacker attacker(*evil, static_cast<runtime::Socket>(connected.result), data, size, piece);
        run([&] { return attacker.busy == 0; });
        evil->close_socket(static_cast<runtime::Socket>(connected.result));
        run([&] { return attacker.busy == 0; });
        VITASTOR_ASSERT(attacker.busy == 0);
    }
    if (listener >= 0)
        evil->close_socket(listener);
    // The victim lives and can be stopped.
    Done server_down, peers_down;
    server.close_all(server_down);
    peers.close_all(peers_down);
    run([&] { return server_down.done && peers_down.done; });
    VITASTOR_ASSERT(server_down.done && peers_down.done);
    return 0;
}

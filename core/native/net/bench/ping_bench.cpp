// SPDX-License-Identifier: GPL-2.0-or-later
// Request/reply rate of net alone: a server thread answers READs of 4 KB from memory, a client thread keeps a number of them in
// flight over loopback TCP. Prints rate, latency, CPU per message of each side and kernel entries per message.
//
// Run: ping_bench [SECONDS] [DEPTH ...]     (default: 2 seconds, depths 1 and 128)
// Benchmarks may read clocks of threads themselves.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "net/peers.hpp"
#include "net/server.hpp"

using namespace vitastor;
using namespace vitastor::net;

namespace {

constexpr uint32_t kBlock = 4096;
uint8_t block[kBlock];

struct StderrLogger : Logger {
    void write(LogLevel, const std::string& text) override { fprintf(stderr, "%s\n", text.c_str()); }
};

double thread_cpu_s() {
    rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

struct Responder : ServerHandler {
    void on_accepted(Connection&) override {}
    void on_request(Connection&, Request& request) override {
        const auto message = wire::decode<wire::ClientRequest>(std::span<const uint8_t, 128>(request.header));
        std::memset(request.reply_small, 0xff, 4);
        request.reply_iov[0] = {request.reply_small, 4};
        request.reply_iov[1] = {block, kBlock};
        request.reply_count = 2;
        wire::encode_reply(request.reply, {request.id, request.opcode, message.len}, wire::ReadReply{4, 1});
        Connection::reply(request);
    }
    void on_peer_announced(Connection&, OsdNum) override {}
    void on_closed(Connection&) override {}
};

struct ServerThread {
    std::atomic<uint16_t> port{0};
    std::atomic<bool> stop{false};
    std::atomic<int> phase{0};  ///< counts samples wanted
    std::atomic<int> sampled{0};
    double cpu_s = 0;
    runtime::LoopCounters counters;
    uint32_t spin_us = 0;

    static void run(void* arg) {
        auto& self = *static_cast<ServerThread*>(arg);
        StderrLogger logger;
        runtime::LoopOptions loop_options;
        loop_options.spin_us = self.spin_us;
        auto loop = std::move(runtime::create_loop(loop_options, logger).value());
        Responder responder;
        ServerOptions options;
        options.listen = {{"127.0.0.1", 0}};
        options.config.osd_num = 1;
        options.config.protocol_version = 1;
        Server server(*loop, options, responder, logger);
        const Status status = server.start();
        if (!status.ok()) {
            fprintf(stderr, "%s\n", status.message().c_str());
            exit(1);
        }
        self.port = server.port();
        while (!self.stop) {
            loop->run_once(loop->now_ns() + 10 * runtime::kNsPerMs);
            if (self.sampled != self.phase) {
                self.cpu_s = thread_cpu_s();
                self.counters = loop->counters();
                self.sampled = self.phase.load();
            }
        }
        struct Done : runtime::Completion {
            bool done = false;
        } done;
        done.on_done = [](runtime::Completion* c, int64_t) { static_cast<Done*>(c)->done = true; };
        server.close_all(done);
        while (!done.done)
            loop->run_once(runtime::kNever);
    }
};

struct Client;
struct Read : Call {
    Client* client = nullptr;
    uint8_t data[kBlock];
    uint8_t bitmap[8];
    iovec iov;
    uint64_t started_ns = 0;
};

struct Client : PeersListener {
    runtime::Loop& loop;
    Connection* connection = nullptr;
    uint64_t done = 0;
    uint64_t in_flight = 0;
    bool running = true;
    bool expect_down = false;
    std::vector<uint32_t> latency_ns;
    explicit Client(runtime::Loop& loop) : loop(loop) {}
    void on_peer_up(OsdNum) override {}
    void on_peer_down(OsdNum) override {
        if (expect_down)
            return;
        fprintf(stderr, "connection lost\n");
        exit(1);
    }
    void start(Read& read) {
        wire::encode_request(read.request, {0, wire::Opcode::read}, wire::ClientRequest{1, 0, kBlock, 0, 0, 0});
        read.bitmap_out = read.bitmap;
        read.bitmap_capacity = sizeof(read.bitmap);
        read.iov = {read.data, kBlock};
        read.data_out = &read.iov;
        read.data_count = 1;
        read.on_reply = [](Call* call) {
            auto* read = static_cast<Read*>(call);
            Client& self = *read->client;
            self.done++;
            self.in_flight--;
            if (self.latency_ns.size() < self.latency_ns.capacity())
                self.latency_ns.push_back(static_cast<uint32_t>(self.loop.now_ns() - read->started_ns));
            if (self.running)
                self.start(*read);
        };
        read.client = this;
        read.started_ns = loop.now_ns();
        in_flight++;
        connection->send(read);
    }
};

}  // namespace

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? atof(argv[1]) : 2;
    std::vector<size_t> depths;
    for (int i = 2; i < argc; i++)
        depths.push_back(static_cast<size_t>(atol(argv[i])));
    if (depths.empty())
        depths = {1, 128};
    StderrLogger logger;
    ServerThread server;
    runtime::LoopOptions loop_options;
    if (const char* spin = getenv("SPIN_US"))
        loop_options.spin_us = server.spin_us = static_cast<uint32_t>(atoi(spin));
    auto thread = runtime::start_thread("server", ServerThread::run, &server);
    auto loop = std::move(runtime::create_loop(loop_options, logger).value());
    Client client(*loop);
    Peers peers(*loop, PeerOptions{}, client, logger);
    while (!server.port)
        loop->run_once(loop->now_ns() + runtime::kNsPerMs);
    peers.set_address(1, PeerAddress{1, {"127.0.0.1"}, server.port});
    peers.want(1);
    while (!(client.connection = peers.get(1)))
        loop->run_once(loop->now_ns() + runtime::kNsPerMs);
    auto sample_server = [&] {
        const int want = ++server.phase;
        while (server.sampled != want)
            loop->run_once(loop->now_ns() + runtime::kNsPerMs);
    };
    for (size_t depth : depths) {
        std::vector<Read> reads(depth);
        client.running = true;
        client.latency_ns.clear();
        client.latency_ns.reserve(20'000'000);
        for (auto& read : reads)
            client.start(read);
        const uint64_t warm = loop->now_exact_ns() + 200 * runtime::kNsPerMs;
        while (loop->now_ns() < warm)
            loop->run_once(warm);
        sample_server();
        const double server_cpu = server.cpu_s, client_cpu = thread_cpu_s();
        const auto server_before = server.counters, client_before = loop->counters();
        const uint64_t done_before = client.done, start_ns = loop->now_exact_ns();
        client.latency_ns.clear();
        const uint64_t end = start_ns + static_cast<uint64_t>(seconds * 1e9);
        while (loop->now_ns() < end)
            loop->run_once(end);
        const double elapsed = static_cast<double>(loop->now_exact_ns() - start_ns) / 1e9;
        const auto count = static_cast<double>(client.done - done_before);
        const double client_used = thread_cpu_s() - client_cpu;
        const auto client_after = loop->counters();
        client.running = false;
        sample_server();
        const double server_used = server.cpu_s - server_cpu;
        while (client.in_flight)
            loop->run_once(runtime::kNever);
        auto& latency = client.latency_ns;
        std::sort(latency.begin(), latency.end());
        uint64_t sum = 0;
        for (uint32_t ns : latency)
            sum += ns;
        printf("%s depth %zu: %.0f k/s, latency avg %.1f us p99 %.1f us; CPU per message: client %.2f us, server %.2f us; "
               "kernel entries per message: client %.2f, server %.2f\n",
               loop->name(), depth, count / elapsed / 1e3,
               static_cast<double>(sum) / static_cast<double>(std::max<size_t>(1, latency.size())) / 1e3,
               latency.empty() ? 0.0 : latency[latency.size() * 99 / 100] / 1e3, client_used / count * 1e6,
               server_used / count * 1e6,
               static_cast<double>(client_after.kernel_entries - client_before.kernel_entries) / count,
               static_cast<double>(server.counters.kernel_entries - server_before.kernel_entries) / count);
    }
    client.running = false;
    client.expect_down = true;
    struct Done : runtime::Completion {
        bool done = false;
    } done;
    done.on_done = [](runtime::Completion* c, int64_t) { static_cast<Done*>(c)->done = true; };
    peers.close_all(done);
    while (!done.done)
        loop->run_once(runtime::kNever);
    server.stop = true;
    thread.reset();
    return 0;
}

// SPDX-License-Identifier: GPL-2.0-or-later
// Figures of the real loops: round trips over loopback, bulk transfer, disk operations.
//   loop_bench [--kind io_uring|epoll] [--spin-us N] [--gather-us N] [--file PATH] [--seconds S]
// The file (default: a 256 MiB file in /dev/shm, removed afterwards) is overwritten.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "runtime/loop.hpp"

using namespace vitastor;
using namespace vitastor::runtime;

namespace {

struct Settings {
    LoopOptions loop;
    std::string file;
    double seconds = 1;
    uint64_t gather_ns = 0;  ///< of the client, where depth > 1
};

struct StderrLog : Logger {
    void write(LogLevel, const std::string& text) override { fprintf(stderr, "%s\n", text.c_str()); }
};

StderrLog logger;

double cpu_seconds() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::unique_ptr<Loop> make_loop(const Settings& settings) {
    auto loop = create_loop(settings.loop, logger);
    if (!loop.ok()) {
        fprintf(stderr, "%s\n", loop.status().message().c_str());
        exit(1);
    }
    return std::move(loop.value());
}

/// Receives everything and sends back every `unit` bytes one message of `reply` bytes.
struct Peer {
    Loop* loop = nullptr;
    Socket socket = -1;
    size_t unit = 128, reply = 128;
    size_t got = 0, owed = 0;
    bool sending = false, done = false, client = false;
    uint64_t rounds = 0, bytes = 0;
    std::vector<uint8_t> in, out;
    iovec in_iov{}, out_iov{};
    struct Op : Completion {
        Peer* peer;
    } receive_op, send_op;

    void start() {
        in.resize(unit > 65536 ? 1 << 20 : 65536);
        out.resize(std::max<size_t>(reply, 65536));  // whatever is owed goes out at once
        receive_op.peer = send_op.peer = this;
        receive_op.on_done = [](Completion* c, int64_t n) { static_cast<Op*>(c)->peer->received(n); };
        send_op.on_done = [](Completion* c, int64_t n) { static_cast<Op*>(c)->peer->sent(n); };
        receive_more();
    }
    void receive_more() {
        in_iov = {in.data(), in.size()};
        loop->receive(socket, &in_iov, 1, receive_op);
    }
    void received(int64_t n) {
        if (n <= 0) {
            done = true;
            return;
        }
        bytes += static_cast<uint64_t>(n);
        got += static_cast<size_t>(n);
        while (got >= unit) {
            got -= unit;
            rounds++;
            owed += reply;
        }
        push();
        receive_more();
    }
    void push() {
        if (sending || owed == 0) return;
        sending = true;
        out_iov = {out.data(), std::min(owed, out.size())};
        loop->send(socket, &out_iov, 1, send_op);
    }
    void sent(int64_t n) {
        sending = false;
        if (n <= 0) {
            done = true;
            return;
        }
        owed -= static_cast<size_t>(n);
        push();
    }
};

struct Server {
    const Settings* settings;
    size_t unit, reply;
    uint16_t port = 0;
    LoopCounters counters;
    int ready[2];
};

void serve(void* arg) {
    auto* server = static_cast<Server*>(arg);
    auto loop = make_loop(*server->settings);
    auto listener = loop->listen({"127.0.0.1", 0}, &server->port);
    if (!listener.ok()) exit(1);
    if (write(server->ready[1], "x", 1) != 1) exit(1);
    Peer peer;
    peer.loop = loop.get();
    peer.unit = server->unit;
    peer.reply = server->reply;
    struct Accept : Completion {
        int64_t result = -1;
        bool done = false;
    } accept;
    accept.on_done = [](Completion* c, int64_t n) {
        static_cast<Accept*>(c)->result = n;
        static_cast<Accept*>(c)->done = true;
    };
    loop->accept(listener.value(), accept);
    while (!accept.done) loop->run_once(kNever);
    peer.socket = static_cast<Socket>(accept.result);
    peer.start();
    while (!peer.done) loop->run_once(kNever);
    server->counters = loop->counters();
    loop->close_socket(peer.socket);
    loop->close_socket(listener.value());
    for (int i = 0; i < 3; i++) loop->run_once(0);
}

void network(const Settings& settings, const char* title, size_t request, size_t reply, unsigned depth) {
    Server server{&settings, request, reply, 0, {}, {}};
    if (pipe(server.ready) != 0) exit(1);
    auto thread = start_thread("server", serve, &server);
    char byte;
    if (read(server.ready[0], &byte, 1) != 1) exit(1);
    auto loop = make_loop(settings);
    struct Connect : Completion {
        int64_t result = -1;
        bool done = false;
    } connect;
    connect.on_done = [](Completion* c, int64_t n) {
        static_cast<Connect*>(c)->result = n;
        static_cast<Connect*>(c)->done = true;
    };
    if (depth > 1) loop->set_gather_ns(settings.gather_ns);
    loop->connect({"127.0.0.1", server.port}, connect);
    while (!connect.done) loop->run_once(kNever);
    Peer peer;
    peer.loop = loop.get();
    peer.socket = static_cast<Socket>(connect.result);
    peer.unit = reply;
    peer.reply = request;
    peer.start();
    peer.owed = request * depth;
    peer.push();
    double cpu = cpu_seconds();
    LoopCounters before = loop->counters();
    uint64_t start = loop->now_exact_ns(), end = start + static_cast<uint64_t>(settings.seconds * 1e9);
    while (loop->now_ns() < end) loop->run_once(end);
    double took = static_cast<double>(loop->now_exact_ns() - start) / 1e9;
    cpu = cpu_seconds() - cpu;
    LoopCounters after = loop->counters();
    double rounds = static_cast<double>(peer.rounds);
    printf("%-8s %-28s depth %3u: %9.0f /s %8.2f us, %8.1f MB/s in, %5.2f us cpu each, %.2f entries %.2f sleeps each\n",
           loop->name(), title, depth, rounds / took, took / rounds * 1e6 * depth,
           static_cast<double>(peer.bytes) / took / 1e6, cpu / rounds * 1e6,
           static_cast<double>(after.kernel_entries - before.kernel_entries) / rounds,
           static_cast<double>(after.wakeups - before.wakeups) / rounds);
    fflush(stdout);
    loop->close_socket(peer.socket);
    while (!peer.done) loop->run_once(kNever);
    thread.reset();
    close(server.ready[0]);
    close(server.ready[1]);
}

struct Disk;
struct DiskOp : Completion {
    Disk* disk = nullptr;
    iovec iov{};
    Buffer buffer;
};
struct Disk {
    Loop* loop;
    File file;
    bool write;
    uint64_t blocks, seed = 88172645463325252ull, count = 0;
    unsigned in_flight = 0;
    bool stop = false;
    void issue(DiskOp& op) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        uint64_t offset = seed % blocks * 4096;
        op.iov = {op.buffer.data(), 4096};
        if (write) {
            loop->write(file, &op.iov, 1, offset, op);
        } else {
            loop->read(file, &op.iov, 1, offset, op);
        }
    }
};

void disk(const Settings& settings, bool write, unsigned depth) {
    auto loop = make_loop(settings);
    auto file = loop->open_file(settings.file, {});
    if (!file.ok()) {
        fprintf(stderr, "%s\n", file.status().message().c_str());
        exit(1);
    }
    Disk d{loop.get(), file.value(), write, loop->file_info(file.value()).size_bytes / 4096};
    std::vector<DiskOp> ops(depth);
    for (DiskOp& op : ops) {
        op.disk = &d;
        op.buffer = loop->buffers().allocate(4096);
        memset(op.buffer.data(), 0x5a, 4096);
        op.on_done = [](Completion* c, int64_t n) {
            auto* done = static_cast<DiskOp*>(c);
            if (n != 4096) {
                fprintf(stderr, "disk: %lld\n", static_cast<long long>(n));
                exit(1);
            }
            done->disk->count++;
            if (done->disk->stop) {
                done->disk->in_flight--;
            } else {
                done->disk->issue(*done);
            }
        };
        d.in_flight++;
        d.issue(op);
    }
    double cpu = cpu_seconds();
    uint64_t start = loop->now_exact_ns(), end = start + static_cast<uint64_t>(settings.seconds * 1e9);
    while (loop->now_ns() < end) loop->run_once(end);
    double took = static_cast<double>(loop->now_exact_ns() - start) / 1e9;
    cpu = cpu_seconds() - cpu;
    auto count = static_cast<double>(d.count);
    printf("%-8s 4 KB %-5s direct=%d           depth %3u: %9.0f /s %8.2f us, %5.2f us cpu each, %.2f entries each\n", loop->name(),
           write ? "write" : "read", loop->file_info(file.value()).is_direct, depth, count / took,
           took / count * 1e6 * depth, cpu / count * 1e6, static_cast<double>(loop->counters().kernel_entries) / count);
    fflush(stdout);
    d.stop = true;
    while (d.in_flight > 0) loop->run_once(kNever);
    loop->close_file(file.value());
}

}  // namespace

int main(int argc, char** argv) {
    Settings settings;
    settings.loop.kind = LoopKind::io_uring;
    bool own_file = true;
    for (int i = 1; i + 1 < argc; i += 2) {
        std::string key = argv[i], value = argv[i + 1];
        if (key == "--kind") settings.loop.kind = value == "epoll" ? LoopKind::epoll : LoopKind::io_uring;
        if (key == "--spin-us") settings.loop.spin_us = static_cast<uint32_t>(atoi(value.c_str()));
        if (key == "--gather-us") settings.gather_ns = static_cast<uint64_t>(atoi(value.c_str())) * 1000;
        if (key == "--seconds") settings.seconds = atof(value.c_str());
        if (key == "--file") {
            settings.file = value;
            own_file = false;
        }
    }
    network(settings, "128 B ping-pong", 128, 128, 1);
    network(settings, "128 B ping-pong", 128, 128, 128);
    network(settings, "128 B request, 4 KB reply", 128, 4224, 1);
    network(settings, "128 B request, 4 KB reply", 128, 4224, 128);
    network(settings, "128 B request, 1 MB reply", 128, 1 << 20, 16);
    if (own_file) {
        settings.file = "/dev/shm/loop_bench." + std::to_string(getpid());
        int fd = open(settings.file.c_str(), O_CREAT | O_RDWR | O_TRUNC, 0600);
        std::vector<char> block(1 << 20, 1);
        for (int i = 0; i < 256; i++) {
            if (write(fd, block.data(), block.size()) != static_cast<ssize_t>(block.size())) return 1;
        }
        close(fd);
    }
    for (bool write : {false, true}) {
        for (unsigned depth : {1u, 128u}) disk(settings, write, depth);
    }
    if (own_file) unlink(settings.file.c_str());
    return 0;
}

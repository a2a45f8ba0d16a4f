// SPDX-License-Identifier: GPL-2.0-or-later
// Two engines on threads of their own with real stores on files, one client over TCP: 4 KB random I/O on two copies.
// engine_bench DIRECTORY [read|write] [DEPTH] [SECONDS] [IMAGE_MB]: prints iops, mean latency, CPU seconds by thread kind.
#include <sys/resource.h>
#include <time.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "engine/engine.hpp"
#include "net/peers.hpp"

using namespace vitastor;

namespace {

constexpr uint32_t kPgs = 32;

struct ErrorLog : Logger {
    void write(LogLevel level, const std::string& text) override {
        if (level <= LogLevel::warning) fprintf(stderr, "%s\n", text.c_str());
    }
};

struct Host : engine::EventSink {
    OsdNum osd = 0;
    std::string path;
    std::unique_ptr<runtime::Loop> loop;
    std::unique_ptr<engine::Engine> engine;
    std::unique_ptr<runtime::Thread> thread;
    std::atomic<uint16_t> port{0};
    std::atomic<uint32_t> active{0};
    ErrorLog logger;
    void on_event(engine::Event event) override {
        if (auto* ready = std::get_if<engine::Ready>(&event)) port = ready->port;
        if (auto* fatal = std::get_if<engine::Fatal>(&event)) {
            fprintf(stderr, "osd %lu: %s: %s\n", osd, fatal->name.c_str(), fatal->text.c_str());
            exit(1);
        }
        if (auto* line = std::get_if<engine::LogLine>(&event)) logger.write(line->level, line->text);
        if (auto* pg = std::get_if<engine::PgStateChanged>(&event)) {
            if (pg->state == wire::pg_state::active) active++;
        }
        if (auto* history = std::get_if<engine::HistoryWanted>(&event)) {
            engine->post(engine::ConfirmHistory{history->pg, history->interval, history->epoch});
        }
    }
    static void body(void* arg) {
        Host* self = static_cast<Host*>(arg);
        while (!self->engine->finished()) self->loop->run_once(runtime::kNever);
        self->engine.reset();
        self->loop.reset();
    }
};

struct Slot : net::Call {
    struct Bench* bench = nullptr;
    uint64_t start = 0;
    uint8_t bitmap[64];
    iovec data{};
    Buffer buffer;
};

struct Bench : net::PeersListener {
    std::unique_ptr<runtime::Loop> loop;
    std::unique_ptr<net::Peers> peers;
    bool write = false;
    uint64_t blocks = 0, seed = 1, done = 0, latency_ns = 0, errors = 0;
    bool stop = false;
    uint32_t flying = 0;
    void on_peer_up(OsdNum) override {}
    void on_peer_down(OsdNum) override {}
    void next(Slot* slot) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        uint64_t offset = (seed >> 20) % blocks * 4096;
        wire::ClientRequest message;
        message.inode = full_inode(1, 1);
        message.offset = offset;
        message.len = 4096;
        wire::Opcode opcode = write ? wire::Opcode::write : wire::Opcode::read;
        wire::encode_request(wire::HeaderBytes(slot->request), {0, opcode}, message);
        slot->payload_count = 0;
        if (write) {
            slot->payload[slot->payload_count++] = slot->data;
            slot->data_out = nullptr;
            slot->data_count = 0;
            slot->bitmap_out = nullptr;
        } else {
            slot->data_out = &slot->data;
            slot->data_count = 1;
            slot->bitmap_out = slot->bitmap;
            slot->bitmap_capacity = sizeof(slot->bitmap);
        }
        slot->start = loop->now_ns();
        flying++;
        peers->get(offset / 131072 % kPgs % 2 + 1)->send(*slot);
    }
    static void on_reply(net::Call* call) {
        Slot* slot = static_cast<Slot*>(call);
        Bench* self = slot->bench;
        self->flying--;
        if (slot->status || slot->retval != 4096) self->errors++;
        self->done++;
        self->latency_ns += self->loop->now_ns() - slot->start;
        if (!self->stop) self->next(slot);
    }
};

double cpu_seconds(int who) {
    rusage usage;
    getrusage(who, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: engine_bench DIRECTORY [read|write] [DEPTH] [SECONDS] [IMAGE_MB]\n");
        return 1;
    }
    bool write = argc > 2 && !strcmp(argv[2], "write");
    uint32_t depth = argc > 3 ? static_cast<uint32_t>(atoi(argv[3])) : 128;
    uint64_t seconds = argc > 4 ? static_cast<uint64_t>(atoi(argv[4])) : 5;
    uint64_t image_mb = argc > 5 ? static_cast<uint64_t>(atoi(argv[5])) : 64;
    Host hosts[2];
    ErrorLog logger;
    for (int i = 0; i < 2; i++) {
        Host& host = hosts[i];
        host.osd = static_cast<OsdNum>(i + 1);
        host.path = std::string(argv[1]) + "/osd" + std::to_string(i + 1) + ".img";
        if (FILE* f = fopen(host.path.c_str(), "w")) {
            if (ftruncate(fileno(f), static_cast<off_t>(image_mb * 2 + 256) << 20)) return 1;
            fclose(f);
        }
        host.loop = std::move(runtime::create_loop({}, host.logger).value());
        host.engine = engine::create_engine(*host.loop, host);
        engine::Configure configure;
        configure.store.osd_num = host.osd;
        configure.store.data_device = host.path;
        configure.store.immediate_commit = wire::ImmediateCommit::all;
        configure.store.disable_data_fsync = configure.store.disable_meta_fsync = true;
        configure.listen.push_back({"127.0.0.1", 0});
        host.engine->post(configure);
        host.engine->post(engine::LeaseUntil{runtime::kNever - 1});
        host.thread = runtime::start_thread("engine", Host::body, &host);
    }
    Bench bench;
    bench.write = write;
    bench.blocks = image_mb * 256;
    bench.loop = std::move(runtime::create_loop({}, logger).value());
    auto wait = [&](auto condition) {
        while (!condition()) bench.loop->run_once(bench.loop->now_exact_ns() + 1'000'000);
    };
    wait([&] { return hosts[0].port && hosts[1].port; });
    engine::PoolConfig pool;
    pool.pool = 1;
    pool.pg_size = 2;
    pool.pg_minsize = 1;
    pool.pg_count = kPgs;
    pool.pg_stripe_size = pool.block_size = 131072;
    pool.bitmap_granularity = 4096;
    engine::PeerList list;
    for (Host& host : hosts) list.up.push_back({host.osd, {"127.0.0.1"}, host.port});
    for (Host& host : hosts) {
        host.engine->post(engine::Pools{{pool}});
        host.engine->post(list);
    }
    for (uint32_t pg = 1; pg <= kPgs; pg++) {
        engine::StartPg start;
        start.pg = {1, pg};
        start.osd_set = {1, 2};
        start.interval = 1;
        hosts[(pg - 1) % 2].engine->post(start);
    }
    wait([&] { return hosts[0].active + hosts[1].active >= kPgs; });
    net::PeerOptions options;
    bench.peers = std::make_unique<net::Peers>(*bench.loop, options, bench, logger);
    for (Host& host : hosts) {
        bench.peers->set_address(host.osd, net::PeerAddress{host.osd, {"127.0.0.1"}, host.port});
        bench.peers->want(host.osd);
    }
    wait([&] { return bench.peers->get(1) && bench.peers->get(2); });
    std::unique_ptr<Slot[]> slots(new Slot[depth]);
    auto run = [&](uint64_t ns) {
        bench.stop = false;
        bench.done = bench.latency_ns = 0;
        for (uint32_t i = 0; i < depth; i++) bench.next(&slots[i]);
        uint64_t end = bench.loop->now_exact_ns() + ns;
        while (bench.loop->now_exact_ns() < end) bench.loop->run_once(end);
        bench.stop = true;
        uint64_t done = bench.done;
        wait([&] { return bench.flying == 0; });
        return done;
    };
    for (uint32_t i = 0; i < depth; i++) {
        slots[i].bench = &bench;
        slots[i].on_reply = Bench::on_reply;
        slots[i].buffer = bench.loop->buffers().allocate(4096);
        memset(slots[i].buffer.data(), static_cast<int>(i), 4096);
        slots[i].data = {slots[i].buffer.data(), 4096};
    }
    if (!write) {  // something to read
        bench.write = true;
        run(2'000'000'000);
        bench.write = false;
    }
    double all_before = cpu_seconds(RUSAGE_SELF), client_before = cpu_seconds(RUSAGE_THREAD);
    uint64_t done = run(seconds * 1'000'000'000);
    double all = cpu_seconds(RUSAGE_SELF) - all_before, client = cpu_seconds(RUSAGE_THREAD) - client_before;
    printf("%s depth %u: %.0f iops, %.1f us, client %.2f s, engines %.2f s, %.0f iops per core-second, %lu errors\n",
           write ? "write" : "read", depth, static_cast<double>(done) / static_cast<double>(seconds),
           static_cast<double>(bench.latency_ns) / static_cast<double>(done) / 1000.0, client, all - client,
           static_cast<double>(done) / all, bench.errors);
    fflush(stdout);
    _exit(bench.errors ? 1 : 0);
}

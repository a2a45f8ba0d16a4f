// SPDX-License-Identifier: GPL-2.0-or-later
// Engines on threads of their own, commands from this one: what the sanitizer for threads looks at.
#include <doctest/doctest.h>

#include <mutex>

#include "harness.hpp"

using namespace vitastor;
using namespace vitastor::test;

namespace {
struct Hosted : engine::EventSink {
    MemoryDisk disk;
    TestLogger logger;
    std::unique_ptr<runtime::Loop> loop;
    std::unique_ptr<engine::Engine> engine;
    std::mutex mutex;
    uint16_t port = 0;
    uint32_t state = 0;
    bool stopped = false;
    std::unique_ptr<runtime::Thread> thread;

    void on_event(engine::Event event) override {
        std::lock_guard<std::mutex> guard(mutex);
        if (auto* ready = std::get_if<engine::Ready>(&event)) port = ready->port;
        if (auto* pg = std::get_if<engine::PgStateChanged>(&event)) state = pg->state;
        if (std::holds_alternative<engine::Stopped>(event)) stopped = true;
    }
    template <class T>
    T get(T Hosted::*field) {
        std::lock_guard<std::mutex> guard(mutex);
        return this->*field;
    }
    explicit Hosted(OsdNum osd) {
        loop = std::move(runtime::create_loop({}, logger).value());
        engine::StoreFactory factory = [](void* arg, runtime::Loop& loop, const store::StoreOptions& options,
                                          Logger&) -> std::unique_ptr<store::Store> {
            return std::make_unique<MemoryStore>(loop, options, *static_cast<MemoryDisk*>(arg));
        };
        engine = engine::create_engine(*loop, *this, factory, &disk);
        engine::Configure configure;
        configure.store.osd_num = osd;
        configure.store.immediate_commit = wire::ImmediateCommit::all;
        configure.listen.push_back({"127.0.0.1", 0});
        engine->post(configure);
        engine->post(engine::LeaseUntil{loop->now_exact_ns() + 3600 * runtime::kNsPerSecond});
        thread = runtime::start_thread("engine", [](void* arg) {
            Hosted* self = static_cast<Hosted*>(arg);
            while (!self->engine->finished()) self->loop->run_once(runtime::kNever);
            for (int i = 0; i < 3; i++) self->loop->run_once(0);
            self->engine.reset();
            self->loop.reset();
        }, this);
    }
};
}  // namespace

TEST_CASE("engines on threads") {
    ClusterOptions options;
    options.osds = 0;
    Cluster c(options);
    Hosted one(1), two(2);
    c.until("ports", [&] { return one.get(&Hosted::port) && two.get(&Hosted::port); });
    engine::PeerList list;
    list.up = {{1, {"127.0.0.1"}, one.get(&Hosted::port)}, {2, {"127.0.0.1"}, two.get(&Hosted::port)}};
    for (Hosted* host : {&one, &two}) {
        host->engine->post(engine::Pools{{c.pool_config()}});
        host->engine->post(list);
    }
    engine::StartPg start;
    start.pg = {1, 1};
    start.osd_set = {1, 2};
    one.engine->post(start);
    c.until("active", [&] { return one.get(&Hosted::state) == wire::pg_state::active; });
    {
        Client client(c, 0);
        client.known[1] = one.get(&Hosted::port);
        for (int i = 0; i < 100; i++) {
            CHECK(client.write(1, kInode, static_cast<uint64_t>(i % 7) * 4096, block(static_cast<uint8_t>(i))).result == 4096);
            CHECK(client.read(1, kInode, static_cast<uint64_t>(i % 7) * 4096, 4096).data == block(static_cast<uint8_t>(i)));
            if (i % 10 == 0) one.engine->post(engine::ReportStatistics{});
        }
    }
    one.engine->post(engine::Stop{});
    two.engine->post(engine::Stop{});
    c.until("stopped", [&] { return one.get(&Hosted::stopped) && two.get(&Hosted::stopped); });
    one.thread.reset();
    two.thread.reset();
    CHECK(two.disk.objects.size() == 1);
}

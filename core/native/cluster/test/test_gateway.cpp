// SPDX-License-Identifier: GPL-2.0-or-later
// The gateway against scripted servers: wrong, dead, hanging, slow and talkative addresses, gaps, compaction.
#include <doctest/doctest.h>

#include <memory>

#include "cluster/etcd_gateway.hpp"
#include "fake_etcd.hpp"

using namespace vitastor;
using namespace vitastor::cluster;

namespace {

struct QuietLogger : Logger {
    std::string text;
    void write(LogLevel, const std::string& line) override { text += line + "\n"; }
};

struct Recorder : EtcdListener {
    std::vector<EtcdKeyValue> loaded, events;
    int loads = 0;
    unsigned trouble = 0;
    std::string trouble_text;
    uint64_t revision = 0;
    void on_load(std::vector<EtcdKeyValue> pairs, uint64_t r) override {
        loads++;
        loaded = std::move(pairs);
        revision = r;
    }
    void on_events(std::vector<EtcdKeyValue> list, uint64_t r) override {
        for (auto& e : list) events.push_back(e);
        revision = r;
    }
    void on_trouble(unsigned attempts, const std::string& text) override {
        trouble = attempts;
        trouble_text = text;
    }
};

/// Everything on the test's own thread.
struct Bench {
    QuietLogger logger;
    std::unique_ptr<runtime::Loop> loop;
    std::unique_ptr<HttpClient> http;
    std::unique_ptr<EtcdGateway> gateway;
    Recorder seen;

    explicit Bench(std::vector<std::string> addresses, uint64_t quick_ms = 100) {
        runtime::LoopOptions options;
        options.kind = runtime::LoopKind::epoll;
        loop = std::move(runtime::create_loop(options, logger).value());
        http = std::make_unique<HttpClient>(*loop);
        EtcdGatewayOptions gateway_options;
        gateway_options.addresses = std::move(addresses);
        gateway_options.ranges = {"/v/config/global", "/v/config/inode/"};
        gateway_options.watches = {"/v/config/", "/v/osd/state/", "/v/pg/"};
        gateway_options.quick_timeout_ms = quick_ms;
        gateway_options.slow_timeout_ms = 2000;
        gateway_options.probe_interval_ms = 100;
        gateway_options.min_reload_interval_ms = 1;
        gateway = std::make_unique<EtcdGateway>(*loop, *http, std::move(gateway_options), logger);
        gateway->start(seen);
    }
    ~Bench() { gateway->stop(); }
    /// Runs until the condition holds; false after 20 s.
    template <class Condition>
    bool until(Condition condition) {
        uint64_t end = loop->now_exact_ns() + 20 * runtime::kNsPerSecond;
        while (!condition()) {
            if (loop->now_exact_ns() > end) {
                MESSAGE(logger.text);
                return false;
            }
            http->run_once(loop->now_exact_ns() + 5 * runtime::kNsPerMs);
        }
        return true;
    }
};

}  // namespace

TEST_CASE("addresses: every form, and what is refused") {
    CHECK(etcd_base_url("127.0.0.1:2379").value() == "http://127.0.0.1:2379/v3");
    CHECK(etcd_base_url("http://host:2379").value() == "http://host:2379/v3");
    CHECK(etcd_base_url("http://host:2379/").value() == "http://host:2379/v3");
    CHECK(etcd_base_url("[::1]:2379/v3beta").value() == "http://[::1]:2379/v3beta");
    CHECK(etcd_base_url("https://host:2379").value() == "https://host:2379/v3");
    for (const char* bad : {"", "host", "host:", "host:0", "host:65536", "host:x", ":2379", "::1:2379", "[::1:2379",
             "ftp://h:1", "h o:1", "[::1]", "user@host:1"}) {
        CAPTURE(bad);
        CHECK_FALSE(etcd_base_url(bad).ok());
    }
}

TEST_CASE("loads, watches, delivers events once, resumes after the last one") {
    FakeEtcd etcd;
    etcd.keys["/v/config/global"] = "{}";
    Bench bench({etcd.address});
    REQUIRE(bench.until([&] { return etcd.watches == 1 && bench.seen.loads == 1; }));
    CHECK(bench.seen.loaded.size() == 1);
    CHECK(etcd.last_watch.find("\"start_revision\":11") != std::string::npos);
    etcd.event(1, "/v/config/pools", "{}", 12);
    etcd.event(1, "/v/config/pools", "{}", 12);  // repeated: dropped
    etcd.event(3, "/v/pg/state/1/1", "{}", 11);
    REQUIRE(bench.until([&] { return bench.seen.events.size() >= 2; }));
    etcd.revision = 12;
    etcd.end_watches();
    REQUIRE(bench.until([&] { return etcd.watches == 2; }));
    CHECK(bench.seen.events.size() == 2);
    CHECK(bench.seen.loads == 1);
    CHECK(etcd.last_watch.find("\"start_revision\":13") != std::string::npos);
}

TEST_CASE("dead, refusing and garbage addresses: the next one is used") {
    FakeEtcd good, garbage, closing;
    garbage.mode = FakeEtcd::Mode::garbage;
    closing.mode = FakeEtcd::Mode::close;
    Bench bench({"127.0.0.1:1", garbage.address, closing.address, "not an address", good.address});
    REQUIRE(bench.until([&] { return good.watches >= 1; }));
    CHECK(bench.seen.loads == 1);
    CHECK(bench.seen.trouble == 0);
    CHECK(bench.logger.text.find("not an address") != std::string::npos);
}

TEST_CASE("hanging addresses are joined by the next after the quick timeout") {
    FakeEtcd hang1, hang2, good;
    hang1.mode = hang2.mode = FakeEtcd::Mode::hang;
    Bench bench({hang1.address, hang2.address, good.address});
    REQUIRE(bench.until([&] { return good.watches >= 1; }));
    CHECK(bench.seen.loads == 1);
}

TEST_CASE("a reply that is slower than the quick timeout is not thrown away") {
    FakeEtcd slow;
    slow.delay_ms = 300;
    Bench bench({slow.address}, 50);
    REQUIRE(bench.until([&] { return bench.seen.loads == 1 && slow.watches >= 1; }));
    CHECK(slow.loads == 1);
    CHECK(bench.seen.trouble == 0);
}

TEST_CASE("all addresses dead: trouble names each, and it goes on") {
    FakeEtcd late;
    late.mode = FakeEtcd::Mode::close;
    Bench bench({"127.0.0.1:1", late.address});
    REQUIRE(bench.until([&] { return bench.seen.trouble >= 2; }));
    CHECK(bench.seen.trouble_text.find("127.0.0.1:1") != std::string::npos);
    CHECK(bench.seen.trouble_text.find(late.address) != std::string::npos);
    late.mode = FakeEtcd::Mode::answer;
    REQUIRE(bench.until([&] { return bench.seen.loads == 1; }));
}

TEST_CASE("compaction and cancel lead to a full reload") {
    FakeEtcd etcd;
    Bench bench({etcd.address});
    REQUIRE(bench.until([&] { return etcd.watches == 1; }));
    etcd.revision = 100;
    etcd.send_line(R"({"result":{"header":{"revision":"100"},"watch_id":"1","canceled":true,"compact_revision":"90"}})");
    REQUIRE(bench.until([&] { return bench.seen.loads == 2 && etcd.watches == 2; }));
    CHECK(bench.seen.revision == 100);
    etcd.send_line(R"({"result":{"header":{"revision":"100"},"watch_id":"2","canceled":true}})");
    REQUIRE(bench.until([&] { return bench.seen.loads == 3 && etcd.watches == 3; }));
}

TEST_CASE("an etcd that has forgotten is loaded anew") {
    FakeEtcd etcd;
    Bench bench({etcd.address});
    REQUIRE(bench.until([&] { return etcd.watches == 1; }));
    etcd.revision = 2;
    REQUIRE(bench.until([&] { return bench.seen.loads == 2; }));
    CHECK(bench.seen.revision == 2);
}

TEST_CASE("a silent member is noticed by the probe and left for another") {
    FakeEtcd first, second;
    second.mode = FakeEtcd::Mode::close;
    Bench bench({first.address, second.address});
    REQUIRE(bench.until([&] { return first.watches >= 1 && first.probes >= 1; }));
    second.mode = FakeEtcd::Mode::answer;
    first.hang_probes = true;
    REQUIRE(bench.until([&] { return second.watches >= 1; }));
    second.event(2, "/v/osd/state/1", "{}", 11);
    REQUIRE(bench.until([&] { return bench.seen.events.size() == 1; }));
    CHECK(bench.seen.loads == 1);
}

TEST_CASE("garbage and errors in the watch stream: the stream is opened anew") {
    FakeEtcd etcd;
    Bench bench({etcd.address});
    REQUIRE(bench.until([&] { return etcd.watches == 1; }));
    etcd.send_line("what?");
    REQUIRE(bench.until([&] { return etcd.watches == 2; }));
    etcd.send_line(R"({"error":{"grpc_code":14,"http_code":503,"message":"no leader"}})");
    REQUIRE(bench.until([&] { return etcd.watches == 3; }));
    etcd.event(1, "/v/config/global", "{}", 11);
    REQUIRE(bench.until([&] { return bench.seen.events.size() == 1; }));
    CHECK(bench.seen.loads == 1);
}

// Who closes a cluster sets a flag and notifies: that came between the look at the flag and sleep, and closing took five seconds.
TEST_CASE("a notification that is delivered just before sleep ends the turn") {
    runtime::LoopOptions options;
    options.kind = runtime::LoopKind::epoll;
    QuietLogger logger;
    auto loop = std::move(runtime::create_loop(options, logger).value());
    HttpClient http(*loop);
    struct Note : runtime::Notifier {
        HttpClient* http = nullptr;
    } note;
    note.http = &http;
    note.on_notify = [](runtime::Notifier* self) { static_cast<Note*>(self)->http->stay_awake(); };
    loop->register_notifier(note);
    loop->notify(note);
    const uint64_t before = loop->now_exact_ns();
    http.run_once(runtime::kNever);
    CHECK(loop->now_exact_ns() - before < 4 * runtime::kNsPerSecond);
    loop->unregister_notifier(note);
}

TEST_CASE("IPv6") {
    FakeEtcd etcd(true);
    if (!etcd.usable) {
        MESSAGE("left out: no IPv6 loopback here");
        return;
    }
    Bench bench({etcd.address});
    REQUIRE(bench.until([&] { return etcd.watches == 1; }));
}

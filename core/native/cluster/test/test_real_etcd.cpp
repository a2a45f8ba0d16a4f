// SPDX-License-Identifier: GPL-2.0-or-later
// The whole watcher (thread, curl, hub) against a private etcd of its own. Left out where etcd is not installed.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "cluster/base64.hpp"
#include "cluster/etcd_thread.hpp"
#include "cluster/http_client.hpp"
#include "fake_etcd.hpp"

extern char** environ;
using namespace vitastor;
using namespace vitastor::cluster;

namespace {

struct MemoryLogger : Logger {
    std::mutex mutex;
    std::string text;
    void write(LogLevel, const std::string& line) override {
        std::lock_guard lock(mutex);
        text += line + "\n";
    }
    bool has(const std::string& part) {
        std::lock_guard lock(mutex);
        return text.find(part) != std::string::npos;
    }
};

unsigned free_port() {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    bind(fd, reinterpret_cast<sockaddr*>(&address), length);
    getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
    close(fd);
    return ntohs(address.sin_port);
}

class RealEtcd {
public:
    RealEtcd() : client_port_(free_port()), peer_port_(free_port()) {
        char path[] = "/tmp/vitastor-test-etcd-XXXXXX";
        directory_ = mkdtemp(path);
        address = "127.0.0.1:" + std::to_string(client_port_);
        start();
    }
    ~RealEtcd() {
        stop();
        std::filesystem::remove_all(directory_);
    }
    bool installed() const { return pid_ > 0; }
    void start() {
        std::string client = "http://" + address, peer = "http://127.0.0.1:" + std::to_string(peer_port_);
        std::vector<std::string> words = {"etcd", "--data-dir", directory_, "--listen-client-urls", client,
            "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", "default=" + peer};
        std::vector<char*> argv;
        for (auto& word : words) argv.push_back(word.data());
        argv.push_back(nullptr);
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        for (int fd : {1, 2}) posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_WRONLY, 0);
        if (posix_spawnp(&pid_, "etcd", &actions, nullptr, argv.data(), environ) != 0) pid_ = -1;
        posix_spawn_file_actions_destroy(&actions);
    }
    void stop() {
        if (pid_ <= 0) return;
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
        pid_ = -1;
    }
    /// One POST; waits until etcd answers.
    std::string post(const std::string& path, const std::string& body) {
        MemoryLogger logger;
        runtime::LoopOptions options;
        options.kind = runtime::LoopKind::epoll;
        auto loop = std::move(runtime::create_loop(options, logger).value());
        HttpClient http(*loop);
        struct Post : HttpExchange {
            int status = -1;
        } post;
        for (int i = 0; i < 1000; i++) {
            post.url = "http://" + address + path;
            post.body = body;
            post.timeout_ms = 5000;
            post.status = -1;
            post.on_done = [](HttpExchange* self, int status, const std::string&) {
                static_cast<Post*>(self)->status = status;
            };
            http.start(post);
            while (post.status < 0) http.run_once(loop->now_exact_ns() + runtime::kNsPerSecond);
            if (post.status == 200) return post.response;
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
        return {};
    }
    void put(const std::string& key, const std::string& value) {
        post("/v3/kv/put", "{\"key\":\"" + base64_encode(key) + "\",\"value\":\"" + base64_encode(value) + "\"}");
    }
    void remove(const std::string& key) {
        post("/v3/kv/deleterange", "{\"key\":\"" + base64_encode(key) + "\"}");
    }
    std::string address;

private:
    unsigned client_port_, peer_port_;
    std::string directory_;
    pid_t pid_ = -1;
};

/// Waits on the hub's notifications with a loop of its own.
struct Follower {
    MapHub& hub;
    std::unique_ptr<runtime::Loop> loop;
    runtime::Notifier notifier;
    Follower(MapHub& hub_in, Logger& logger) : hub(hub_in) {
        runtime::LoopOptions options;
        options.kind = runtime::LoopKind::epoll;
        loop = std::move(runtime::create_loop(options, logger).value());
        notifier.on_notify = [](runtime::Notifier*) {};
        loop->register_notifier(notifier);
        hub.subscribe(*loop, notifier);
    }
    ~Follower() {
        hub.unsubscribe(notifier);
        loop->unregister_notifier(notifier);
    }
    template <class Condition>
    bool until(Condition condition) {
        uint64_t end = loop->now_exact_ns() + 30 * runtime::kNsPerSecond;
        while (true) {
            auto snapshot = hub.snapshot();
            if (snapshot.map && condition(*snapshot.map)) return true;
            if (loop->now_exact_ns() > end) return false;
            loop->run_once(end);
        }
    }
};

ConfigLayers layers_for(const std::string& addresses) {
    ConfigLayers layers;
    layers.options = {{"etcd_address", addresses}, {"etcd_quick_timeout", "200"}, {"etcd_ws_keepalive_interval", "1"}};
    return layers;
}

}  // namespace

TEST_CASE("no address, and addresses that cannot be used, are refused at once") {
    MemoryLogger logger;
    CHECK(EtcdThread::start(ConfigLayers(), false, logger).status().code() == -ENOENT);
    auto bad = EtcdThread::start(layers_for("nonsense"), false, logger);
    CHECK(bad.status().code() == -EINVAL);
    CHECK(bad.status().message().find("nonsense") != std::string::npos);
}

TEST_CASE("fail fast gives the first contact up") {
    MemoryLogger logger;
    auto layers = layers_for("127.0.0.1:1");
    layers.options["max_etcd_attempts"] = "2";
    auto thread = std::move(EtcdThread::start(layers, true, logger).value());
    Follower follower(thread->hub(), logger);
    uint64_t end = follower.loop->now_exact_ns() + 20 * runtime::kNsPerSecond;
    while (thread->hub().snapshot().trouble.empty() && follower.loop->now_exact_ns() < end) follower.loop->run_once(end);
    CHECK(thread->hub().snapshot().trouble.find("127.0.0.1:1") != std::string::npos);
}

TEST_CASE("a real etcd: load, events, restart, compaction, keys that vanish meanwhile") {
    RealEtcd etcd;
    if (!etcd.installed()) {
        MESSAGE("left out: etcd is not installed");
        return;
    }
    etcd.put("/vitastor/config/inode/1/5", R"({"name":"five","size":1048576})");
    etcd.put("/vitastor/config/inode/1/6", R"({"name":"six","size":"2097152"})");
    MemoryLogger logger;
    FakeEtcd hanging;
    hanging.mode = FakeEtcd::Mode::hang;
    auto thread = std::move(
        EtcdThread::start(layers_for("127.0.0.1:1," + hanging.address + "," + etcd.address), false, logger).value());
    Follower follower(thread->hub(), logger);
    REQUIRE(follower.until([](auto& map) { return map.image_by_name->count("five") && map.image_by_name->count("six"); }));

    etcd.put("/vitastor/config/pools", R"({"1":{"name":"p","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":1}})");
    etcd.put("/vitastor/pg/config", R"({"items":{"1":{"1":{"osd_set":["1","2"],"primary":"1"}}}})");
    etcd.put("/vitastor/pg/state/1/1", R"({"primary":1,"state":["active"],"peers":[1,2]})");
    etcd.put("/vitastor/osd/state/1", R"({"state":"up","addresses":["127.0.0.1"],"port":5000,"host":"h"})");
    REQUIRE(follower.until([](auto& map) {
        auto pool = map.pools.find(1);
        return pool != map.pools.end() && pool->second->pgs.size() == 1 && pool->second->pgs[0].usable() &&
               map.osds.count(1);
    }));
    etcd.put("/vitastor/osd/state/1", "{nonsense");
    etcd.remove("/vitastor/pg/state/1/1");
    REQUIRE(follower.until([](auto& map) { return !map.pools.at(1)->pgs[0].usable(); }));
    CHECK(logger.has("/vitastor/osd/state/1"));

}

TEST_CASE("a real etcd that is stopped, compacted and started again") {
    RealEtcd etcd;
    if (!etcd.installed()) return;
    etcd.put("/vitastor/config/inode/1/5", R"({"name":"five","size":1048576})");
    etcd.put("/vitastor/config/inode/1/6", R"({"name":"six","size":1048576})");
    MemoryLogger logger;
    auto thread = std::move(EtcdThread::start(layers_for(etcd.address), false, logger).value());
    {
        Follower follower(thread->hub(), logger);
        REQUIRE(follower.until([](auto& map) { return map.image_by_name->count("six"); }));
        etcd.put("/vitastor/config/inode/1/7", R"({"name":"seven","size":1048576})");
        REQUIRE(follower.until([](auto& map) { return map.image_by_name->count("seven"); }));
        // Stopped, so that the watcher cannot follow; then history is changed and compacted behind its back.
        etcd.stop();
        etcd.start();
        etcd.remove("/vitastor/config/inode/1/6");
        etcd.put("/vitastor/config/inode/1/8", R"({"name":"eight","size":1048576})");
        std::string answer = etcd.post("/v3/kv/range", "{\"key\":\"YQ==\"}");
        size_t at = answer.find("\"revision\":\"") + 12;
        etcd.post("/v3/kv/compaction", "{\"revision\":\"" + answer.substr(at, answer.find('"', at) - at) + "\"}");
        REQUIRE(follower.until([](auto& map) { return map.image_by_name->count("eight"); }));
        CHECK(follower.until([](auto& map) { return !map.image_by_name->count("six"); }));
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "cluster/config.hpp"

using namespace vitastor;
using namespace vitastor::cluster;

namespace {

struct TextLogger : Logger {
    std::string text;
    void write(LogLevel, const std::string& line) override { text += line + "\n"; }
};

struct TempFile {
    std::string path;
    explicit TempFile(const std::string& text) {
        char name[] = "/tmp/vitastor-test-config-XXXXXX";
        int fd = mkstemp(name);
        path = name;
        REQUIRE(write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
        close(fd);
    }
    ~TempFile() { unlink(path.c_str()); }
};

}  // namespace

TEST_CASE("files that cannot be used are named") {
    auto missing = load_config("/nonexistent/vitastor.conf", {});
    CHECK(missing.status().code() == -ENOENT);
    CHECK(missing.status().message().find("/nonexistent/vitastor.conf") != std::string::npos);
    for (const char* bad : {"", "[]", "{", "7"}) {
        TempFile file(bad);
        auto loaded = load_config(file.path, {});
        CHECK(loaded.status().code() == -EINVAL);
        CHECK(loaded.status().message().find(file.path) != std::string::npos);
    }
}

TEST_CASE("options win over etcd, etcd over the file; list B never comes from etcd") {
    TempFile file(R"({"etcd_address":["a:1","b:2"],"client_retry_interval":60,"max_etcd_attempts":"7","use_rdma":false,
        "tcp_header_buffer_size":131072,"unknown":{"x":1}})");
    auto loaded = load_config("", {{"config_path", file.path}, {"max_etcd_attempts", "9"}});
    REQUIRE(loaded.ok());
    auto& layers = loaded.value();
    layers.etcd = {{"client_retry_interval", "80"}, {"max_etcd_attempts", "3"}, {"tcp_header_buffer_size", "4096"}};
    TextLogger logger;
    auto config = resolve_config(layers, logger);
    CHECK(config.etcd_addresses == std::vector<std::string>{"a:1", "b:2"});
    CHECK(config.client_retry_interval_ms == 80);
    CHECK(config.max_etcd_attempts == 9);
    CHECK(config.tcp_header_buffer_size == 131072);
    CHECK(layers.origin("client_retry_interval") == "etcd");
    CHECK(layers.origin("max_etcd_attempts") == "option");
    CHECK(layers.origin("tcp_header_buffer_size") == file.path);
    CHECK(layers.origin("hostname") == "default");
    CHECK(is_local_only("min_zerocopy_send_size"));
    CHECK_FALSE(is_local_only("block_size"));
    CHECK(logger.text == "");
}

TEST_CASE("garbage and zero mean the default, minima hold, zero speaks where it has a meaning") {
    ConfigLayers layers;
    layers.options = {{"client_retry_interval", "5"}, {"peer_connect_timeout", "0"}, {"osd_idle_timeout", "soon"},
        {"client_eio_retry_interval", "0"}, {"client_retry_enospc", "no"}, {"client_max_dirty_bytes", "64M"},
        {"client_dirty_limit", "1M"}, {"etcd_prefix", "cluster//one/"}, {"up_wait_retry_interval", "700"}};
    TextLogger logger;
    auto config = resolve_config(layers, logger);
    CHECK(config.client_retry_interval_ms == 10);
    CHECK(config.peer_connect_timeout_s == 5);
    CHECK(config.osd_idle_timeout_s == 5);
    CHECK(config.client_eio_retry_interval_ms == 0);
    CHECK_FALSE(config.client_retry_enospc);
    CHECK(config.client_max_dirty_bytes == 64u << 20);
    CHECK(config.etcd_prefix == "/cluster/one");
    CHECK(config.client_wait_up_timeout_s == 16);
    CHECK(logger.text.find("osd_idle_timeout") != std::string::npos);
    CHECK(normalize_prefix("") == "/");
    CHECK(normalize_prefix("/vitastor") == "/vitastor");
}

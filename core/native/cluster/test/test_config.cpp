// SPDX-License-Identifier: GPL-2.0-or-later
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "base/test/text_logger.hpp"
#include "cluster/config.hpp"
#include "cluster/etcd_gateway.hpp"
#include "cluster/json.hpp"

using namespace vitastor;
using namespace vitastor::cluster;

namespace {

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
    for (const char* name : {"etcd_ca", "etcd_cert", "etcd_key"}) CHECK(is_local_only(name));
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

// The same table as in TypeScript: each JSON value through our text form and the parser of its kind.
TEST_CASE("value forms of the shared table") {
    std::ifstream file(std::string(VITASTOR_SOURCE_DIR) + "/test/fixtures/config-values.json");
    REQUIRE(file);
    std::string json((std::istreambuf_iterator<char>(file)), {});
    simdjson::dom::parser parser;
    JsonElement root;
    REQUIRE(parser.parse(json).get(root) == simdjson::SUCCESS);
    int rows = 0;
    auto each = [&](const char* kind, auto check) {
        JsonArray list;
        REQUIRE(root[kind].get(list) == simdjson::SUCCESS);
        for (JsonElement row : list) {
            JsonElement value, is;
            REQUIRE(row["value"].get(value) == simdjson::SUCCESS);
            bool has_is = row["is"].get(is) == simdjson::SUCCESS;
            std::string shown = std::string(kind) + " " + std::string(simdjson::minify(row));
            CAPTURE(shown);
            check(value, has_is ? std::optional(is) : std::nullopt, row);
            rows++;
        }
    };
    auto same = [](auto parsed, std::optional<JsonElement> is) {
        std::string expected = is ? json_text(*is) : "";
        if (!parsed) return expected.empty();
        if constexpr (std::is_same_v<decltype(parsed), std::optional<bool>>) return expected == (*parsed ? "true" : "false");
        else if constexpr (std::is_same_v<decltype(parsed), std::optional<double>>) return std::stod(expected) == *parsed;
        else return expected == std::to_string(*parsed);
    };
    each("boolean", [&](auto value, auto is, auto) { CHECK(same(parse_bool(json_text(value)), is)); });
    each("size_bytes", [&](auto value, auto is, auto) { CHECK(same(parse_size(json_text(value)), is)); });
    each("duration_seconds", [&](auto value, auto is, auto) { CHECK(same(parse_time_s(json_text(value)), is)); });
    each("integer", [&](auto value, auto is, auto) { CHECK(same(parse_int(json_text(value)), is)); });
    each("number", [&](auto value, auto is, auto) { CHECK(same(parse_number(json_text(value)), is)); });
    each("list", [&](auto value, auto is, auto) {
        auto text = json_list_text(value);
        if (is->is_null()) {
            CHECK_FALSE(text.has_value());
            return;
        }
        REQUIRE(text);
        auto items = parse_list(*text);
        JsonArray expected;
        REQUIRE(is->get(expected) == simdjson::SUCCESS);
        size_t i = 0;
        for (JsonElement item : expected) {
            REQUIRE(i < items.size());
            CHECK(items[i++] == json_text(item));
        }
        CHECK(items.size() == i);
    });
    each("etcd_address", [&](auto value, auto is, JsonElement row) {
        auto base = etcd_base_url(json_text(value));
        if (is) {
            CHECK_FALSE(base.ok());
            return;
        }
        std::string host = json_text(row["host"].value_unsafe()), path = json_text(row["path"].value_unsafe());
        if (host.find(':') != std::string::npos) host = "[" + host + "]";
        CHECK(base.value() == "http://" + host + ":" + json_text(row["port"].value_unsafe()) + (path.empty() ? "/v3" : path));
    });
    each("limits", [&](auto value, auto is, JsonElement row) {
        std::string name = json_text(row["parameter"].value_unsafe());
        ConfigLayers layers;
        layers.options[name] = json_text(value);
        TextLogger logger;
        ClientConfig config = resolve_config(layers, logger);
        std::map<std::string, uint64_t> ours = {{"peer_connect_interval", config.peer_connect_interval_s},
            {"client_retry_interval", config.client_retry_interval_ms},
            {"client_eio_retry_interval", config.client_eio_retry_interval_ms},
            {"client_max_dirty_bytes", config.client_max_dirty_bytes}};
        if (ours.count(name)) CHECK(std::to_string(ours[name]) == json_text(*is));
    });
    CHECK(rows > 80);
}

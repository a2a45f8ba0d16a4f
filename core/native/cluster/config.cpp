// SPDX-License-Identifier: GPL-2.0-or-later
#include "cluster/config.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "cluster/json.hpp"
#include "runtime/system.hpp"

namespace vitastor::cluster {
namespace {

constexpr std::string_view kLocalOnly[] = {
    "config_path",   "rdma_device",  "rdma_gid_index", "rdma_max_msg", "rdma_max_recv",
    "rdma_max_send", "rdma_max_sge", "rdma_mtu",       "rdma_port_num", "tcp_header_buffer_size",
    "use_rdma",      "use_sync_send_recv", "min_zerocopy_send_size",
    "etcd_ca",       "etcd_cert",    "etcd_key",
};

constexpr std::string_view kLists[] = {"etcd_address", "osd_network", "osd_cluster_network", "bind_address"};

bool is_list(std::string_view name) { return std::find(std::begin(kLists), std::end(kLists), name) != std::end(kLists); }

std::string_view trim(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
    return text;
}

std::optional<uint64_t> scaled(std::string_view digits, uint64_t factor) {
    auto number = parse_u64(digits);
    uint64_t value = 0;
    if (!number || __builtin_mul_overflow(*number, factor, &value)) return std::nullopt;
    return value;
}

/// Looks settings up one by one and reports what cannot be understood.
class Resolver {
public:
    Resolver(const ConfigLayers& layers, Logger& logger) : layers_(layers), logger_(logger) {}

    /// 0 and garbage count as the default (configuration.md 1.1).
    template <class Number>
    void number(const char* name, Number& out, uint64_t min_value = 1, uint64_t max_value = UINT64_MAX) {
        const std::string* text = layers_.find(name);
        if (!text || text->empty()) return;
        auto value = parse_size(*text);
        if (!value) {
            auto negative = parse_int(*text);
            if (!negative) return garbage(name, *text, std::to_string(out));
            value = min_value;
        }
        if (*value == 0) return;
        out = static_cast<Number>(std::clamp(*value, min_value, max_value));
    }
    /// 0 has a meaning of its own.
    void number_or_zero(const char* name, uint64_t& out, uint64_t min_value) {
        const std::string* text = layers_.find(name);
        if (!text || text->empty()) return;
        auto value = parse_u64(*text);
        if (!value) return garbage(name, *text, std::to_string(out));
        out = *value == 0 ? 0 : std::max(*value, min_value);
    }
    void boolean(const char* name, bool& out) {
        const std::string* text = layers_.find(name);
        if (!text || text->empty()) return;
        auto value = parse_bool(*text);
        if (!value) return garbage(name, *text, out ? "true" : "false");
        out = *value;
    }
    const std::string* text(const char* name) { return layers_.find(name); }

private:
    void garbage(const char* name, const std::string& text, const std::string& used) {
        log(logger_, LogLevel::warning, "setting %s: \"%s\" (from %s) is not understood, %s is used", name,
            text.c_str(), layers_.origin(name).c_str(), used.c_str());
    }
    const ConfigLayers& layers_;
    Logger& logger_;
};

}  // namespace

std::optional<bool> parse_bool(std::string_view given) {
    std::string text;
    for (char c : given) text += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (text == "1" || text == "true" || text == "yes") return true;
    if (text == "0" || text == "false" || text == "no") return false;
    return std::nullopt;
}

std::optional<uint64_t> parse_size(std::string_view text) {
    if (text.empty()) return std::nullopt;
    switch (text.back()) {
    case 'k': case 'K': return scaled(text.substr(0, text.size() - 1), 1ull << 10);
    case 'm': case 'M': return scaled(text.substr(0, text.size() - 1), 1ull << 20);
    case 'g': case 'G': return scaled(text.substr(0, text.size() - 1), 1ull << 30);
    case 't': case 'T': return scaled(text.substr(0, text.size() - 1), 1ull << 40);
    default: return parse_u64(text);
    }
}

std::optional<uint64_t> parse_time_s(std::string_view text) {
    if (text.empty()) return std::nullopt;
    switch (text.back()) {
    case 's': return scaled(text.substr(0, text.size() - 1), 1);
    case 'm': return scaled(text.substr(0, text.size() - 1), 60);
    case 'h': return scaled(text.substr(0, text.size() - 1), 3600);
    case 'd': return scaled(text.substr(0, text.size() - 1), 86400);
    case 'M': return scaled(text.substr(0, text.size() - 1), 30 * 86400);
    case 'y': return scaled(text.substr(0, text.size() - 1), 365 * 86400);
    default: return parse_u64(text);
    }
}

std::optional<int64_t> parse_int(std::string_view text) {
    int64_t value = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

std::optional<double> parse_number(std::string_view text) {
    double value = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
    return value;
}

std::vector<std::string> parse_list(std::string_view text) {
    std::vector<std::string> items;
    while (!text.empty()) {
        size_t comma = text.find(',');
        std::string_view item = trim(text.substr(0, comma));
        if (!item.empty()) items.emplace_back(item);
        if (comma == std::string_view::npos) break;
        text.remove_prefix(comma + 1);
    }
    return items;
}

Result<ConfigMap> decode_config_object(std::string_view json) {
    simdjson::dom::parser parser;
    JsonElement root;
    if (auto error = parser.parse(json.data(), json.size()).get(root))
        return Status(-EINVAL, simdjson::error_message(error));
    JsonObject object;
    if (root.get(object) != simdjson::SUCCESS) return Status(-EINVAL, "not a JSON object");
    ConfigMap values;
    for (auto field : object) {
        if (field.value.is_null()) continue;
        std::string name(field.key);
        auto text = is_list(name) ? json_list_text(field.value) : json_text(field.value);
        if (text) values[name] = std::move(*text);
    }
    return values;
}

bool is_local_only(std::string_view name) {
    return std::find(std::begin(kLocalOnly), std::end(kLocalOnly), name) != std::end(kLocalOnly);
}

const std::string* ConfigLayers::find(const std::string& name) const {
    auto found = options.find(name);
    if (found != options.end()) return &found->second;
    if (!is_local_only(name)) {
        found = etcd.find(name);
        if (found != etcd.end()) return &found->second;
    }
    found = file.find(name);
    return found != file.end() ? &found->second : nullptr;
}

std::string ConfigLayers::origin(const std::string& name) const {
    if (options.count(name)) return "option";
    if (!is_local_only(name) && etcd.count(name)) return "etcd";
    if (file.count(name)) return file_path.empty() ? "file" : file_path;
    return "default";
}

Result<ConfigLayers> load_config(const std::string& path, ConfigMap options) {
    ConfigLayers layers;
    layers.options = std::move(options);
    std::string wanted = path;
    auto given = layers.options.find("config_path");
    if (given != layers.options.end() && !given->second.empty()) wanted = given->second;
    bool asked = !wanted.empty();
    if (!asked) wanted = kDefaultConfigPath;
    auto text = runtime::read_small_file(wanted, 16 << 20);
    if (!text.ok()) {
        if (text.status().code() == -ENOENT && !asked) return layers;
        return text.status();
    }
    auto values = decode_config_object(text.value());
    if (!values.ok())
        return Status(-EINVAL, "configuration file " + wanted + " is not a JSON object (" +
                                   values.status().message() + "): correct it, or name another one with config_path");
    layers.file = std::move(values.value());
    layers.file_path = wanted;
    return layers;
}

ClientConfig resolve_config(const ConfigLayers& layers, Logger& logger) {
    ClientConfig config;
    Resolver from(layers, logger);
    if (auto* text = from.text("etcd_address")) config.etcd_addresses = parse_list(*text);
    if (auto* text = from.text("etcd_prefix"); text && !text->empty()) config.etcd_prefix = normalize_prefix(*text);
    if (auto* text = from.text("etcd_ca")) config.etcd_ca = *text;
    if (auto* text = from.text("etcd_cert")) config.etcd_cert = *text;
    if (auto* text = from.text("etcd_key")) config.etcd_key = *text;
    if (auto* text = from.text("osd_network")) config.osd_networks = parse_list(*text);
    if (auto* text = from.text("hostname")) config.hostname = *text;
    from.number("log_level", config.log_level, 0, 10);
    from.number("peer_connect_interval", config.peer_connect_interval_s);
    from.number("peer_connect_timeout", config.peer_connect_timeout_s);
    from.number("osd_idle_timeout", config.osd_idle_timeout_s);
    from.number("osd_ping_timeout", config.osd_ping_timeout_s);
    from.number("tcp_header_buffer_size", config.tcp_header_buffer_size, 4096, 1u << 30);
    from.number("max_etcd_attempts", config.max_etcd_attempts, 1, 1000);
    from.number("etcd_quick_timeout", config.etcd_quick_timeout_ms, 10, 3600'000);
    from.number("etcd_slow_timeout", config.etcd_slow_timeout_ms, 10, 3600'000);
    from.number("etcd_ws_keepalive_interval", config.etcd_ws_keepalive_interval_s, 1, 3600);
    from.number("etcd_min_reload_interval", config.etcd_min_reload_interval_ms, 1, 3600'000);
    from.number("etcd_report_interval", config.etcd_report_interval_s, 1, 3600);
    from.number("up_wait_retry_interval", config.client_retry_interval_ms, 10);
    from.number("client_retry_interval", config.client_retry_interval_ms, 10);
    from.number_or_zero("client_eio_retry_interval", config.client_eio_retry_interval_ms, 10);
    from.boolean("client_retry_enospc", config.client_retry_enospc);
    config.client_wait_up_timeout_s =
        1 + config.etcd_report_interval_s +
        (config.max_etcd_attempts * 2 * config.etcd_quick_timeout_ms + 999) / 1000;
    from.number("client_wait_up_timeout", config.client_wait_up_timeout_s);
    from.number("client_dirty_limit", config.client_max_dirty_bytes, 4096);
    from.number("client_max_dirty_bytes", config.client_max_dirty_bytes, 4096);
    from.number("client_max_dirty_ops", config.client_max_dirty_ops);
    from.boolean("client_infinite_start", config.client_infinite_start);
    return config;
}

std::string normalize_prefix(std::string_view prefix) {
    std::string out = "/";
    for (char c : prefix)
        if (c != '/' || out.back() != '/') out += c;
    if (out.size() > 1 && out.back() == '/') out.pop_back();
    return out;
}

}  // namespace vitastor::cluster

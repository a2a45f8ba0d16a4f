// SPDX-License-Identifier: GPL-2.0-or-later
// Settings of a client: file, etcd and options in layers, values as text, resolved with defaults and origins.
// Source: configuration.md 1-4 and 8. The same table of value forms is tested in TypeScript (test/fixtures/config-values.json).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.hpp"
#include "base/result.hpp"

namespace vitastor::cluster {

/// Value forms of configuration.md 1.1. nullopt: not of that form.
std::optional<bool> parse_bool(std::string_view text);
/// Integer with optional k/m/g/t of any case (powers of 1024), no fraction.
std::optional<uint64_t> parse_size(std::string_view text);
/// Integer with optional s/m/h/d/M/y; seconds.
std::optional<uint64_t> parse_time_s(std::string_view text);
std::optional<int64_t> parse_int(std::string_view text);
std::optional<double> parse_number(std::string_view text);
/// Comma list; blanks around entries and empty entries are dropped.
std::vector<std::string> parse_list(std::string_view text);

using ConfigMap = std::map<std::string, std::string>;

/// A JSON object of settings as text values. Error -EINVAL with a message: not a JSON object.
Result<ConfigMap> decode_config_object(std::string_view json);

/// List B of configuration.md 1: never taken from etcd.
bool is_local_only(std::string_view name);

struct ConfigLayers {
    ConfigMap file;
    ConfigMap etcd;
    ConfigMap options;
    std::string file_path;  ///< empty: no file was read

    /// options > etcd (not list B) > file; nullptr: set nowhere.
    const std::string* find(const std::string& name) const;
    /// "option", "etcd", the file's path, or "default".
    std::string origin(const std::string& name) const;
};

inline constexpr const char* kDefaultConfigPath = "/etc/vitastor/vitastor.conf";

/// Reads the file (its path: option config_path, else `path`, else the default one, which may be absent).
/// Errors: -ENOENT (a file that was asked for is missing), -EINVAL (not JSON); the message names the file and the next step.
Result<ConfigLayers> load_config(const std::string& path, ConfigMap options);

/// What a client needs, in the units of use.
struct ClientConfig {
    std::vector<std::string> etcd_addresses;
    std::string etcd_prefix = "/vitastor";
    /// For https addresses: PEM files of the authority that etcd's certificate must come from (empty: the system's), and of
    /// our own certificate and its key (both or none). Never taken from etcd.
    std::string etcd_ca, etcd_cert, etcd_key;
    int log_level = 0;
    std::vector<std::string> osd_networks;
    std::string hostname;  ///< empty: the system's

    uint64_t peer_connect_interval_s = 5;
    uint64_t peer_connect_timeout_s = 5;
    uint64_t osd_idle_timeout_s = 5;
    uint64_t osd_ping_timeout_s = 5;
    uint32_t tcp_header_buffer_size = 65536;

    unsigned max_etcd_attempts = 5;
    uint64_t etcd_quick_timeout_ms = 1000;
    uint64_t etcd_slow_timeout_ms = 5000;
    uint64_t etcd_ws_keepalive_interval_s = 5;
    uint64_t etcd_min_reload_interval_ms = 50;
    uint64_t etcd_report_interval_s = 5;

    uint64_t client_retry_interval_ms = 50;
    uint64_t client_eio_retry_interval_ms = 1000;  ///< 0: EIO is reported
    bool client_retry_enospc = true;
    uint64_t client_wait_up_timeout_s = 16;
    uint64_t client_max_dirty_bytes = 32 << 20;
    uint32_t client_max_dirty_ops = 1024;
    bool client_infinite_start = true;
};

/// Garbage counts as the default and is reported once per name through logger.
ClientConfig resolve_config(const ConfigLayers& layers, Logger& logger);

/// Normalises a prefix: a leading slash, no doubled or trailing ones.
std::string normalize_prefix(std::string_view prefix);

}  // namespace vitastor::cluster

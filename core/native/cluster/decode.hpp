// SPDX-License-Identifier: GPL-2.0-or-later
// Values of single etcd keys, decoded and validated. Wrong types are skipped with a message that names key and field.
// Source: etcd-schema.md 4.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.hpp"
#include "cluster/cluster_map.hpp"

namespace vitastor::cluster {

/// An entry of config/pools; what it leaves open comes from the global configuration.
struct PoolSpec {
    std::string name;
    Scheme scheme = Scheme::replicated;
    uint32_t pg_size = 0, parity_chunks = 0, pg_minsize = 0;
    std::optional<uint32_t> block_size, bitmap_granularity;
    uint64_t pg_stripe_size = 0;
    std::optional<wire::ImmediateCommit> immediate_commit;
    LocalReads local_reads = LocalReads::primary;
    std::string used_for_app;
    bool operator==(const PoolSpec&) const = default;
};

struct PgSpec {
    std::vector<OsdNum> osd_set;
    OsdNum primary = 0;
    bool paused = false;
    bool operator==(const PgSpec&) const = default;
};
/// PG n at index n - 1. A pool whose numbers have gaps is left out (message).
using PgConfig = std::map<PoolId, std::vector<PgSpec>>;

struct PgState {
    OsdNum primary = 0;
    uint32_t state = 0;
    std::vector<OsdNum> peers;
    bool operator==(const PgState&) const = default;
};
struct PgHistory {
    std::vector<OsdNum> all_peers;
    std::vector<std::vector<OsdNum>> osd_sets;
    bool operator==(const PgHistory&) const = default;
};

// nullopt: the value as a whole cannot be used (message); the caller keeps what it had.
std::optional<std::map<PoolId, PoolSpec>> decode_pools(const std::string& key, std::string_view json, Logger& logger);
std::optional<PgConfig> decode_pg_config(const std::string& key, std::string_view json, Logger& logger);
std::optional<PgState> decode_pg_state(const std::string& key, std::string_view json, Logger& logger);
std::optional<PgHistory> decode_pg_history(const std::string& key, std::string_view json, Logger& logger);
std::optional<Inode> decode_inode(const std::string& key, std::string_view json, InodeNum number, Logger& logger);
/// osd = 0 in the result: the key is valid and says that the OSD is not up.
std::optional<OsdState> decode_osd_state(const std::string& key, std::string_view json, OsdNum osd, Logger& logger);
std::optional<std::map<std::string, std::pair<std::string, std::string>>> decode_placement(
    const std::string& key, std::string_view json, Logger& logger);

/// Bit of a state word; 0 = unknown word.
uint32_t pg_state_bit(std::string_view word);
std::optional<wire::ImmediateCommit> parse_immediate_commit(std::string_view text);
bool valid_block_size(uint64_t block_size, uint64_t granularity);

}  // namespace vitastor::cluster

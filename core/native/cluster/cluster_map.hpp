// SPDX-License-Identifier: GPL-2.0-or-later
// What a client knows of the cluster: an immutable snapshot, replaced as a whole when etcd changes something.
// Shared between threads by shared_ptr<const ClusterMap>; nobody changes one after it was published.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/ids.hpp"
#include "wire/codec.hpp"

namespace vitastor::cluster {

enum class Scheme : uint8_t { replicated, xor_parity, ec };
enum class LocalReads : uint8_t { primary, nearest, random };

struct Pg {
    std::vector<OsdNum> osd_set;  ///< pg_size entries, 0 = empty slot
    OsdNum target_primary = 0;
    bool paused = true;           ///< also: osd_set length differs from pg_size
    OsdNum primary = 0;           ///< from pg/state; 0 = nobody leads it
    uint32_t state = 0;           ///< wire::pg_state bits; 0 = no state key
    std::vector<OsdNum> peers;
    std::vector<OsdNum> all_peers;              ///< from pg/history
    std::vector<std::vector<OsdNum>> history_sets;
    bool usable() const { return !paused && primary && (state & wire::pg_state::active); }
};

struct Pool {
    PoolId id = 0;
    std::string name;
    Scheme scheme = Scheme::replicated;
    uint32_t pg_size = 0;
    uint32_t parity_chunks = 0;
    uint32_t pg_minsize = 0;
    uint32_t block_size = 131072;
    uint32_t bitmap_granularity = 4096;
    uint64_t pg_stripe_size = 131072;  ///< effective
    wire::ImmediateCommit immediate_commit = wire::ImmediateCommit::all;
    LocalReads local_reads = LocalReads::primary;
    std::string used_for_app;
    std::vector<Pg> pgs;  ///< PG n at index n - 1; empty: the pool has no PGs
    uint32_t data_chunks() const { return scheme == Scheme::replicated ? 1 : pg_size - parity_chunks; }
    uint64_t object_size() const { return static_cast<uint64_t>(block_size) * data_chunks(); }
    uint32_t bitmap_bytes() const { return block_size / bitmap_granularity / 8; }
    /// 1 … pgs.size(); pgs must not be empty. Source: wire-protocol 3.3.
    PgNum pg_of(uint64_t stripe) const { return static_cast<PgNum>(stripe / pg_stripe_size % pgs.size()) + 1; }
};

/// What a client allows itself on an image. 0: no limit.
struct IoLimits {
    uint64_t iops = 0;
    uint64_t bytes_per_second = 0;
    uint32_t burst_ms = 0;  ///< what was not used in so long may be used at once
    bool any() const { return iops || bytes_per_second; }
    bool operator==(const IoLimits&) const = default;
};

struct Inode {
    InodeNum number = 0;
    std::string name;
    uint64_t size = 0;
    InodeNum parent = 0;  ///< full number, 0 = none
    bool readonly = false;
    bool deleted = false;
    IoLimits limits;
    uint64_t mod_revision = 0;
};

struct OsdState {
    OsdNum osd = 0;
    std::vector<std::string> addresses;
    uint16_t port = 0;
    std::string host;
};

struct ClusterMap {
    uint64_t generation = 0;  ///< grows with every published map
    uint64_t revision = 0;    ///< etcd revision up to which this is complete
    std::map<PoolId, std::shared_ptr<const Pool>> pools;
    std::shared_ptr<const std::unordered_map<InodeNum, Inode>> inodes;
    std::shared_ptr<const std::unordered_map<std::string, InodeNum>> image_by_name;
    std::map<OsdNum, std::shared_ptr<const OsdState>> osds;  ///< only those that are up
    std::shared_ptr<const std::map<std::string, std::string>> global_config;  ///< values as text
    /// Placement tree distances for local_reads=nearest: node -> (level, parent).
    std::shared_ptr<const std::map<std::string, std::pair<std::string, std::string>>> node_placement;
};

}  // namespace vitastor::cluster

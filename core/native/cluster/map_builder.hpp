// SPDX-License-Identifier: GPL-2.0-or-later
// Turns etcd's keys into ClusterMap snapshots. Keeps decoded pieces; a snapshot shares every piece that has not changed.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/log.hpp"
#include "cluster/cluster_map.hpp"
#include "cluster/config.hpp"
#include "cluster/decode.hpp"
#include "cluster/etcd_api.hpp"

namespace vitastor::cluster {

/// One thread at a time. Invalid values are reported through logger (key and field) and skipped; the rest works.
class MapBuilder {
public:
    /// layers: file and options for values that a pool and config/global leave open; its etcd layer is filled by this object.
    MapBuilder(std::string prefix, ConfigLayers layers, Logger& logger);

    /// Everything as of revision; what is not among pairs does not exist any more.
    void load(std::span<const EtcdKeyValue> pairs, uint64_t revision);
    /// Changes in order, repeats allowed.
    void apply(std::span<const EtcdKeyValue> events, uint64_t revision);
    bool changed() const { return changed_; }
    /// The snapshot of now; its generation is one more than that of the one before. Cheap for pieces that have not changed.
    std::shared_ptr<const ClusterMap> publish();
    const ConfigLayers& layers() const { return layers_; }

private:
    void apply_one(const EtcdKeyValue& pair);
    void set_global(const EtcdKeyValue& pair);
    void set_pools(const EtcdKeyValue& pair);
    void set_pg_config(const EtcdKeyValue& pair, bool old_name);
    void set_pg_state(PgId pg, const EtcdKeyValue& pair);
    void set_pg_history(PgId pg, const EtcdKeyValue& pair);
    void set_inode(InodeNum inode, const EtcdKeyValue& pair);
    void set_osd(OsdNum osd, const EtcdKeyValue& pair);
    void set_placement(const EtcdKeyValue& pair);
    void all_pools_dirty();
    std::shared_ptr<const Pool> build_pool(PoolId id, const PoolSpec& spec) const;
    void fill_pg(const Pool& pool, PgNum number, const PgSpec& spec, Pg& pg) const;
    bool patch_pool(PoolId id, const std::set<PgNum>& pgs);

    std::string prefix_;
    ConfigLayers layers_;
    Logger& logger_;
    uint64_t generation_ = 0;
    uint64_t revision_ = 0;
    bool changed_ = false;

    std::map<PoolId, PoolSpec> pool_specs_;
    std::optional<PgConfig> pg_config_, old_pg_config_;
    std::map<PgId, PgState> pg_states_;
    std::map<PgId, PgHistory> pg_histories_;
    std::unordered_map<InodeNum, Inode> inodes_;

    std::set<PoolId> dirty_pools_;                  ///< to be built anew
    std::map<PoolId, std::set<PgNum>> dirty_pgs_;   ///< only state or history has changed
    bool inodes_dirty_ = true, global_dirty_ = true;

    // Pieces of the last snapshot.
    std::map<PoolId, std::shared_ptr<const Pool>> pools_;
    std::map<OsdNum, std::shared_ptr<const OsdState>> osds_;
    std::shared_ptr<const std::unordered_map<InodeNum, Inode>> shared_inodes_;
    std::shared_ptr<const std::unordered_map<std::string, InodeNum>> shared_names_;
    std::shared_ptr<const std::map<std::string, std::string>> shared_global_;
    std::shared_ptr<const std::map<std::string, std::pair<std::string, std::string>>> placement_;
};

/// Keys and prefixes (ending in a slash) that a client loads, and the prefixes that it watches. prefix: normalised.
std::vector<std::string> load_ranges(const std::string& prefix);
std::vector<std::string> watch_prefixes(const std::string& prefix);

}  // namespace vitastor::cluster

// SPDX-License-Identifier: GPL-2.0-or-later
#include "cluster/map_builder.hpp"

#include <algorithm>

#include "cluster/json.hpp"

namespace vitastor::cluster {
namespace {

/// "12/34" -> {12, 34}.
std::optional<std::pair<uint64_t, uint64_t>> two_numbers(std::string_view text) {
    size_t slash = text.find('/');
    if (slash == std::string_view::npos) return std::nullopt;
    auto first = parse_u64(text.substr(0, slash));
    auto second = parse_u64(text.substr(slash + 1));
    if (!first || !second) return std::nullopt;
    return std::pair{*first, *second};
}

std::optional<PgId> pg_id(std::string_view text) {
    auto numbers = two_numbers(text);
    if (!numbers || numbers->first < 1 || numbers->first > 65535 || numbers->second < 1 ||
        numbers->second > UINT32_MAX)
        return std::nullopt;
    return PgId{static_cast<PoolId>(numbers->first), static_cast<PgNum>(numbers->second)};
}

bool is_deleted(const EtcdKeyValue& pair) { return pair.deleted || pair.value.empty(); }

}  // namespace

std::vector<std::string> load_ranges(const std::string& prefix) {
    std::string p = prefix == "/" ? "" : prefix;
    return {p + "/config/global", p + "/config/pools",  p + "/config/pgs",   p + "/pg/config", p + "/config/node_placement",
            p + "/config/inode/", p + "/pg/history/", p + "/pg/state/", p + "/osd/state/"};
}

std::vector<std::string> watch_prefixes(const std::string& prefix) {
    std::string p = prefix == "/" ? "" : prefix;
    return {p + "/config/", p + "/osd/state/", p + "/pg/"};
}

MapBuilder::MapBuilder(std::string prefix, ConfigLayers layers, Logger& logger)
    : prefix_(prefix == "/" ? "" : std::move(prefix)), layers_(std::move(layers)), logger_(logger) {
    placement_ = std::make_shared<std::map<std::string, std::pair<std::string, std::string>>>();
}

void MapBuilder::load(std::span<const EtcdKeyValue> pairs, uint64_t revision) {
    layers_.etcd.clear();
    pool_specs_.clear();
    pg_config_.reset();
    old_pg_config_.reset();
    pg_states_.clear();
    pg_histories_.clear();
    inodes_.clear();
    osds_.clear();
    placement_ = std::make_shared<std::map<std::string, std::pair<std::string, std::string>>>();
    inodes_dirty_ = global_dirty_ = changed_ = true;
    for (auto& pair : pairs) apply_one(pair);
    all_pools_dirty();
    revision_ = revision;
}

void MapBuilder::apply(std::span<const EtcdKeyValue> events, uint64_t revision) {
    // Only the last event of a key counts. Lists are short; a map pays from a few dozen on.
    std::unordered_map<std::string_view, size_t> last;
    if (events.size() > 1)
        for (size_t i = 0; i < events.size(); i++) last[events[i].key] = i;
    for (size_t i = 0; i < events.size(); i++)
        if (events.size() == 1 || last[events[i].key] == i) apply_one(events[i]);
    revision_ = std::max(revision_, revision);
}

void MapBuilder::apply_one(const EtcdKeyValue& pair) {
    std::string_view key = pair.key;
    if (!key.starts_with(prefix_)) return;
    key.remove_prefix(prefix_.size());
    auto under = [&](std::string_view folder) {
        if (!key.starts_with(folder)) return false;
        key.remove_prefix(folder.size());
        return true;
    };
    if (under("/pg/state/")) {
        if (auto pg = pg_id(key)) set_pg_state(*pg, pair);
    } else if (under("/pg/history/")) {
        if (auto pg = pg_id(key)) set_pg_history(*pg, pair);
    } else if (under("/osd/state/")) {
        auto osd = parse_u64(key);
        if (osd && *osd) set_osd(*osd, pair);
    } else if (under("/config/inode/")) {
        auto numbers = two_numbers(key);
        if (numbers && numbers->first >= 1 && numbers->first <= 65535 && numbers->second >> kPoolShift == 0)
            set_inode(full_inode(static_cast<PoolId>(numbers->first), numbers->second), pair);
    } else if (key == "/config/global") {
        set_global(pair);
    } else if (key == "/config/pools") {
        set_pools(pair);
    } else if (key == "/pg/config") {
        set_pg_config(pair, false);
    } else if (key == "/config/pgs") {
        set_pg_config(pair, true);
    } else if (key == "/config/node_placement") {
        set_placement(pair);
    }
}

void MapBuilder::all_pools_dirty() {
    for (auto& [id, spec] : pool_specs_) dirty_pools_.insert(id);
    for (auto& [id, pool] : pools_) dirty_pools_.insert(id);
    changed_ = true;
}

void MapBuilder::set_global(const EtcdKeyValue& pair) {
    ConfigMap values;
    if (!is_deleted(pair)) {
        auto decoded = decode_config_object(pair.value);
        if (!decoded.ok()) {
            log(logger_, LogLevel::warning, "etcd key %s: %s, ignored", pair.key.c_str(),
                decoded.status().message().c_str());
            return;
        }
        values = std::move(decoded.value());
    }
    if (values == layers_.etcd && !global_dirty_) return;
    layers_.etcd = std::move(values);
    global_dirty_ = true;
    all_pools_dirty();
}

void MapBuilder::set_pools(const EtcdKeyValue& pair) {
    std::optional<std::map<PoolId, PoolSpec>> specs(std::in_place);
    if (!is_deleted(pair)) specs = decode_pools(pair.key, pair.value, logger_);
    if (!specs) return;
    for (auto& [id, spec] : *specs) {
        auto before = pool_specs_.find(id);
        if (before == pool_specs_.end() || !(before->second == spec)) dirty_pools_.insert(id);
    }
    for (auto& [id, spec] : pool_specs_)
        if (!specs->count(id)) dirty_pools_.insert(id);
    pool_specs_ = std::move(*specs);
    changed_ = true;
}

void MapBuilder::set_pg_config(const EtcdKeyValue& pair, bool old_name) {
    std::optional<PgConfig> config;
    if (!is_deleted(pair)) {
        config = decode_pg_config(pair.key, pair.value, logger_);
        if (!config) return;
    }
    (old_name ? old_pg_config_ : pg_config_) = std::move(config);
    all_pools_dirty();
}

void MapBuilder::set_pg_state(PgId pg, const EtcdKeyValue& pair) {
    if (is_deleted(pair)) {
        if (!pg_states_.erase(pg)) return;
    } else {
        auto state = decode_pg_state(pair.key, pair.value, logger_);
        if (!state) return;
        auto& slot = pg_states_[pg];
        if (slot == *state) return;
        slot = std::move(*state);
    }
    dirty_pgs_[pg.pool].insert(pg.pg);
    changed_ = true;
}

void MapBuilder::set_pg_history(PgId pg, const EtcdKeyValue& pair) {
    if (is_deleted(pair)) {
        if (!pg_histories_.erase(pg)) return;
    } else {
        auto history = decode_pg_history(pair.key, pair.value, logger_);
        if (!history) return;
        auto& slot = pg_histories_[pg];
        if (slot == *history) return;
        slot = std::move(*history);
    }
    dirty_pgs_[pg.pool].insert(pg.pg);
    changed_ = true;
}

void MapBuilder::set_inode(InodeNum number, const EtcdKeyValue& pair) {
    if (is_deleted(pair)) {
        if (!inodes_.erase(number)) return;
    } else {
        auto inode = decode_inode(pair.key, pair.value, number, logger_);
        if (!inode) return;
        inode->mod_revision = pair.mod_revision;
        auto& slot = inodes_[number];
        if (slot.mod_revision == inode->mod_revision && slot.number == number) return;
        slot = std::move(*inode);
    }
    inodes_dirty_ = changed_ = true;
}

void MapBuilder::set_osd(OsdNum osd, const EtcdKeyValue& pair) {
    changed_ = true;
    if (is_deleted(pair)) {
        osds_.erase(osd);
        return;
    }
    auto state = decode_osd_state(pair.key, pair.value, osd, logger_);
    if (!state) return;
    if (state->osd) osds_[osd] = std::make_shared<const OsdState>(std::move(*state));
    else osds_.erase(osd);
}

void MapBuilder::set_placement(const EtcdKeyValue& pair) {
    std::optional<std::map<std::string, std::pair<std::string, std::string>>> nodes(std::in_place);
    if (!is_deleted(pair)) nodes = decode_placement(pair.key, pair.value, logger_);
    if (!nodes) return;
    placement_ = std::make_shared<const std::map<std::string, std::pair<std::string, std::string>>>(std::move(*nodes));
    changed_ = true;
}

void MapBuilder::fill_pg(const Pool& pool, PgNum number, const PgSpec& spec, Pg& pg) const {
    pg.osd_set = spec.osd_set;
    pg.target_primary = spec.primary;
    pg.paused = spec.paused || spec.osd_set.size() != pool.pg_size;
    auto state = pg_states_.find(PgId{pool.id, number});
    if (state != pg_states_.end()) {
        pg.primary = state->second.primary;
        pg.state = state->second.state;
        pg.peers = state->second.peers;
    }
    auto history = pg_histories_.find(PgId{pool.id, number});
    if (history != pg_histories_.end()) {
        pg.all_peers = history->second.all_peers;
        pg.history_sets = history->second.osd_sets;
    }
}

std::shared_ptr<const Pool> MapBuilder::build_pool(PoolId id, const PoolSpec& spec) const {
    auto pool = std::make_shared<Pool>();
    auto global_size = [&](const char* name, uint32_t fallback) {
        const std::string* text = layers_.find(name);
        auto value = text ? parse_size(*text) : std::nullopt;
        return value && *value && *value <= (1u << 27) ? static_cast<uint32_t>(*value) : fallback;
    };
    pool->id = id;
    pool->name = spec.name;
    pool->scheme = spec.scheme;
    pool->pg_size = spec.pg_size;
    pool->parity_chunks = spec.parity_chunks;
    pool->pg_minsize = spec.pg_minsize;
    pool->block_size = spec.block_size ? *spec.block_size : global_size("block_size", 131072);
    pool->bitmap_granularity =
        spec.bitmap_granularity ? *spec.bitmap_granularity : global_size("bitmap_granularity", 4096);
    if (!valid_block_size(pool->block_size, pool->bitmap_granularity)) {
        log(logger_, LogLevel::warning,
            "etcd key %s/config/pools: pool %u (%s): block_size %u with bitmap_granularity %u is not possible, the "
            "pool is skipped", prefix_.c_str(), id, spec.name.c_str(), pool->block_size, pool->bitmap_granularity);
        return nullptr;
    }
    pool->pg_stripe_size = std::max(spec.pg_stripe_size, pool->object_size());
    if (spec.immediate_commit) {
        pool->immediate_commit = *spec.immediate_commit;
    } else if (const std::string* text = layers_.find("immediate_commit")) {
        pool->immediate_commit = parse_immediate_commit(*text).value_or(wire::ImmediateCommit::none);
    }
    pool->local_reads = spec.local_reads;
    pool->used_for_app = spec.used_for_app;
    auto& config = pg_config_ ? pg_config_ : old_pg_config_;
    if (config) {
        auto pgs = config->find(id);
        if (pgs != config->end()) {
            pool->pgs.resize(pgs->second.size());
            for (size_t i = 0; i < pgs->second.size(); i++)
                fill_pg(*pool, static_cast<PgNum>(i + 1), pgs->second[i], pool->pgs[i]);
        }
    }
    return pool;
}

bool MapBuilder::patch_pool(PoolId id, const std::set<PgNum>& pgs) {
    auto before = pools_.find(id);
    auto& config = pg_config_ ? pg_config_ : old_pg_config_;
    if (before == pools_.end() || !config) return false;
    auto specs = config->find(id);
    if (specs == config->end()) return false;
    auto pool = std::make_shared<Pool>(*before->second);
    for (PgNum number : pgs) {
        if (number > pool->pgs.size()) continue;
        Pg pg;
        fill_pg(*pool, number, specs->second[number - 1], pg);
        pool->pgs[number - 1] = std::move(pg);
    }
    before->second = std::move(pool);
    return true;
}

std::shared_ptr<const ClusterMap> MapBuilder::publish() {
    for (PoolId id : dirty_pools_) {
        auto spec = pool_specs_.find(id);
        auto pool = spec != pool_specs_.end() ? build_pool(id, spec->second) : nullptr;
        if (pool) pools_[id] = std::move(pool);
        else pools_.erase(id);
    }
    for (auto& [id, pgs] : dirty_pgs_)
        if (!dirty_pools_.count(id)) patch_pool(id, pgs);
    dirty_pools_.clear();
    dirty_pgs_.clear();
    if (inodes_dirty_) {
        auto names = std::make_shared<std::unordered_map<std::string, InodeNum>>();
        for (auto& [number, inode] : inodes_) {
            if (inode.name.empty()) continue;
            auto [slot, fresh] = names->try_emplace(inode.name, number);
            if (fresh) continue;
            // Two inodes with one name (put by hand in two steps): the later one counts.
            auto& other = inodes_.at(slot->second);
            if (std::pair(inode.mod_revision, number) > std::pair(other.mod_revision, other.number))
                slot->second = number;
        }
        shared_inodes_ = std::make_shared<const std::unordered_map<InodeNum, Inode>>(inodes_);
        shared_names_ = std::move(names);
        inodes_dirty_ = false;
    }
    if (global_dirty_) {
        shared_global_ = std::make_shared<const std::map<std::string, std::string>>(layers_.etcd);
        global_dirty_ = false;
    }
    changed_ = false;
    auto map = std::make_shared<ClusterMap>();
    map->generation = ++generation_;
    map->revision = revision_;
    map->pools = pools_;
    map->inodes = shared_inodes_;
    map->image_by_name = shared_names_;
    map->osds = osds_;
    map->global_config = shared_global_;
    map->node_placement = placement_;
    return map;
}

}  // namespace vitastor::cluster

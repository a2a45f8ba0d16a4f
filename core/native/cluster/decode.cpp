// SPDX-License-Identifier: GPL-2.0-or-later
#include "cluster/decode.hpp"

#include <bit>

#include "cluster/config.hpp"
#include "cluster/json.hpp"

namespace vitastor::cluster {
namespace {

constexpr uint64_t kMaxPgSize = 256;
constexpr uint64_t kMaxPgCount = 1u << 20;
constexpr uint64_t kMaxIops = 1'000'000'000;

/// One value of etcd while it is decoded: names itself in every message.
class Value {
public:
    Value(const std::string& key, std::string_view json, Logger& logger) : key_(key), logger_(logger) {
        if (auto error = parser_.parse(json.data(), json.size()).get(root_)) {
            log(logger_, LogLevel::warning, "etcd key %s: invalid JSON (%s), ignored", key_.c_str(),
                simdjson::error_message(error));
            return;
        }
        if (root_.get(object_) != simdjson::SUCCESS) {
            log(logger_, LogLevel::warning, "etcd key %s: not a JSON object, ignored", key_.c_str());
            return;
        }
        ok_ = true;
    }
    bool ok() const { return ok_; }
    const JsonObject& object() const { return object_; }

    void wrong(const std::string& field, const char* expected, const char* consequence = "ignored") {
        log(logger_, LogLevel::warning, "etcd key %s: field %s: must be %s, %s", key_.c_str(), field.c_str(),
            expected, consequence);
    }

    std::optional<uint64_t> u64(const JsonObject& in, const char* name, const std::string& path,
        uint64_t min_value, uint64_t max_value, const char* expected) {
        auto field = json_field(in, name);
        if (!field) return std::nullopt;
        auto number = json_u64(*field);
        if (!number || *number < min_value || *number > max_value) {
            wrong(path + name, expected);
            return std::nullopt;
        }
        return number;
    }
    std::string string(const JsonObject& in, const char* name, const std::string& path = {}) {
        auto field = json_field(in, name);
        if (!field) return {};
        auto text = json_string(*field);
        if (!text) wrong(path + name, "a string");
        return text.value_or(std::string());
    }
    bool boolean(const JsonObject& in, const char* name, const std::string& path = {}) {
        auto field = json_field(in, name);
        if (!field) return false;
        auto value = json_bool(*field);
        if (!value) wrong(path + name, "true or false");
        return value.value_or(false);
    }
    /// nullopt: absent or wrong (message).
    std::optional<std::vector<OsdNum>> osds(const JsonObject& in, const char* name, const std::string& path = {}) {
        auto field = json_field(in, name);
        if (!field) return std::nullopt;
        return osd_list(*field, path + name);
    }
    std::optional<std::vector<OsdNum>> osd_list(JsonElement element, const std::string& path) {
        JsonArray array;
        if (element.get(array) != simdjson::SUCCESS) {
            wrong(path, "a list of OSD numbers");
            return std::nullopt;
        }
        std::vector<OsdNum> list;
        for (JsonElement item : array) {
            auto number = json_u64(item);
            if (!number) {
                wrong(path, "a list of OSD numbers");
                return std::nullopt;
            }
            list.push_back(*number);
        }
        return list;
    }

private:
    const std::string& key_;
    Logger& logger_;
    simdjson::dom::parser parser_;
    JsonElement root_;
    JsonObject object_;
    bool ok_ = false;
};

std::optional<Scheme> parse_scheme(std::string_view text) {
    if (text == "replicated") return Scheme::replicated;
    if (text == "xor") return Scheme::xor_parity;
    if (text == "ec" || text == "jerasure") return Scheme::ec;
    return std::nullopt;
}

/// What must hold for the pool to be usable at all; the rest is forgiven field by field.
std::optional<PoolSpec> decode_pool(Value& value, const JsonObject& pool, const std::string& path) {
    constexpr const char* kSkipped = "the pool is skipped";
    PoolSpec spec;
    spec.name = value.string(pool, "name", path);
    if (spec.name.empty()) {
        value.wrong(path + "name", "a non-empty string", kSkipped);
        return std::nullopt;
    }
    auto scheme = parse_scheme(value.string(pool, "scheme", path));
    if (!scheme) {
        value.wrong(path + "scheme", "replicated, xor or ec", kSkipped);
        return std::nullopt;
    }
    spec.scheme = *scheme;
    uint64_t min_size = spec.scheme == Scheme::replicated ? 1 : 3;
    auto size = value.u64(pool, "pg_size", path, min_size, kMaxPgSize, "1 to 256 (xor and ec: 3 to 256)");
    if (!size) {
        value.wrong(path + "pg_size", "present and valid", kSkipped);
        return std::nullopt;
    }
    spec.pg_size = static_cast<uint32_t>(*size);
    if (spec.scheme == Scheme::xor_parity) spec.parity_chunks = 1;
    if (spec.scheme == Scheme::ec) {
        auto parity = value.u64(pool, "parity_chunks", path, 1, *size - 2, "1 to pg_size - 2");
        if (!parity) {
            value.wrong(path + "parity_chunks", "present and valid", kSkipped);
            return std::nullopt;
        }
        spec.parity_chunks = static_cast<uint32_t>(*parity);
    }
    uint64_t data_chunks = spec.scheme == Scheme::replicated ? 1 : spec.pg_size - spec.parity_chunks;
    auto minsize = value.u64(pool, "pg_minsize", path, data_chunks, *size, "data chunks to pg_size");
    if (!minsize) {
        value.wrong(path + "pg_minsize", "present and valid", kSkipped);
        return std::nullopt;
    }
    spec.pg_minsize = static_cast<uint32_t>(*minsize);
    // A layout that is not understood would send data to wrong places: skipped as well.
    for (auto [name, target] : {std::pair{"block_size", &spec.block_size},
                                std::pair{"bitmap_granularity", &spec.bitmap_granularity}}) {
        auto field = json_field(pool, name);
        if (!field) continue;
        auto number = json_u64(*field);
        if (!number || *number > (1u << 27)) {
            value.wrong(path + name, "bytes", kSkipped);
            return std::nullopt;
        }
        if (*number) *target = static_cast<uint32_t>(*number);
    }
    if (auto field = json_field(pool, "pg_stripe_size")) {
        auto number = json_u64(*field);
        if (!number) {
            value.wrong(path + "pg_stripe_size", "bytes", kSkipped);
            return std::nullopt;
        }
        spec.pg_stripe_size = *number;
    }
    if (json_field(pool, "immediate_commit")) {
        spec.immediate_commit = parse_immediate_commit(value.string(pool, "immediate_commit", path));
        if (!spec.immediate_commit) {
            value.wrong(path + "immediate_commit", "all, small or none", "none is assumed");
            spec.immediate_commit = wire::ImmediateCommit::none;
        }
    }
    std::string reads = value.string(pool, "local_reads", path);
    if (reads == "nearest") spec.local_reads = LocalReads::nearest;
    else if (reads == "random") spec.local_reads = LocalReads::random;
    else if (!reads.empty() && reads != "primary") value.wrong(path + "local_reads", "primary, nearest or random");
    spec.used_for_app = value.string(pool, "used_for_app", path);
    if (spec.used_for_app.empty()) {
        std::string fs = value.string(pool, "used_for_fs", path);
        if (!fs.empty()) spec.used_for_app = "fs:" + fs;
    }
    return spec;
}

PgSpec decode_pg(Value& value, JsonElement element, const std::string& path) {
    PgSpec pg;
    JsonObject object;
    if (element.get(object) != simdjson::SUCCESS) {
        value.wrong(path, "an object", "the PG counts as paused");
        pg.paused = true;
        return pg;
    }
    auto set = value.osds(object, "osd_set", path + ".");
    if (!set) {
        value.wrong(path + ".osd_set", "present and valid", "the PG counts as paused");
        pg.paused = true;
        return pg;
    }
    pg.osd_set = std::move(*set);
    pg.primary = value.u64(object, "primary", path + ".", 0, UINT64_MAX, "an OSD number").value_or(0);
    pg.paused = value.boolean(object, "pause", path + ".");
    return pg;
}

constexpr std::pair<std::string_view, uint32_t> kStateWords[] = {
    {"starting", wire::pg_state::starting},
    {"peering", wire::pg_state::peering},
    {"incomplete", wire::pg_state::incomplete},
    {"active", wire::pg_state::active},
    {"repeering", wire::pg_state::repeering},
    {"stopping", wire::pg_state::stopping},
    {"offline", wire::pg_state::offline},
    {"degraded", wire::pg_state::degraded},
    {"has_incomplete", wire::pg_state::has_incomplete},
    {"has_degraded", wire::pg_state::has_degraded},
    {"has_misplaced", wire::pg_state::has_misplaced},
    {"has_unclean", wire::pg_state::has_unclean},
    {"has_invalid", wire::pg_state::has_invalid},
    {"has_corrupted", wire::pg_state::has_corrupted},
    {"has_inconsistent", wire::pg_state::has_inconsistent},
    {"left_on_dead", wire::pg_state::left_on_dead},
    {"scrubbing", wire::pg_state::scrubbing},
};

}  // namespace

uint32_t pg_state_bit(std::string_view word) {
    for (auto& [text, bit] : kStateWords)
        if (text == word) return bit;
    return 0;
}

std::optional<wire::ImmediateCommit> parse_immediate_commit(std::string_view text) {
    if (text == "all") return wire::ImmediateCommit::all;
    if (text == "small") return wire::ImmediateCommit::small;
    if (text == "none") return wire::ImmediateCommit::none;
    return std::nullopt;
}

bool valid_block_size(uint64_t block_size, uint64_t granularity) {
    return std::has_single_bit(block_size) && block_size >= 4096 && block_size <= (1u << 27) && granularity >= 512 &&
           block_size % granularity == 0 && block_size / granularity >= 8;
}

std::optional<std::map<PoolId, PoolSpec>> decode_pools(const std::string& key, std::string_view json, Logger& logger) {
    Value value(key, json, logger);
    if (!value.ok()) return std::nullopt;
    std::map<PoolId, PoolSpec> pools;
    for (auto field : value.object()) {
        std::string name(field.key);
        auto id = parse_u64(name);
        if (!id || *id < 1 || *id > 65535) {
            value.wrong(name, "a pool number 1 to 65535", "skipped");
            continue;
        }
        JsonObject pool;
        if (field.value.get(pool) != simdjson::SUCCESS) {
            value.wrong(name, "an object", "the pool is skipped");
            continue;
        }
        auto spec = decode_pool(value, pool, name + ".");
        if (spec) pools[static_cast<PoolId>(*id)] = std::move(*spec);
    }
    return pools;
}

std::optional<PgConfig> decode_pg_config(const std::string& key, std::string_view json, Logger& logger) {
    Value value(key, json, logger);
    if (!value.ok()) return std::nullopt;
    PgConfig config;
    auto items = json_field(value.object(), "items");
    if (!items) return config;
    JsonObject pools;
    if (items->get(pools) != simdjson::SUCCESS) {
        value.wrong("items", "an object");
        return std::nullopt;
    }
    for (auto pool : pools) {
        std::string path = "items." + std::string(pool.key);
        auto id = parse_u64(pool.key);
        JsonObject pgs;
        if (!id || *id < 1 || *id > 65535 || pool.value.get(pgs) != simdjson::SUCCESS) {
            value.wrong(path, "a pool number with an object of PGs", "skipped");
            continue;
        }
        std::map<uint64_t, PgSpec> by_number;
        bool whole = true;
        for (auto pg : pgs) {
            std::string pg_path = path + "." + std::string(pg.key);
            auto number = parse_u64(pg.key);
            if (!number || *number < 1 || *number > kMaxPgCount) {
                value.wrong(pg_path, "a PG number", "the pool has no PGs");
                whole = false;
                continue;
            }
            by_number[*number] = decode_pg(value, pg.value, pg_path);
        }
        if (!by_number.empty() && by_number.rbegin()->first != by_number.size()) {
            value.wrong(path, "PGs 1 to n without gaps", "the pool has no PGs");
            whole = false;
        }
        if (!whole) continue;
        auto& list = config[static_cast<PoolId>(*id)];
        for (auto& [number, pg] : by_number) list.push_back(std::move(pg));
    }
    return config;
}

std::optional<PgState> decode_pg_state(const std::string& key, std::string_view json, Logger& logger) {
    namespace bits = wire::pg_state;
    Value value(key, json, logger);
    if (!value.ok()) return std::nullopt;
    PgState pg;
    auto primary = value.u64(value.object(), "primary", "", 1, UINT64_MAX, "an OSD number");
    if (!primary) {
        value.wrong("primary", "an OSD number", "the update is ignored");
        return std::nullopt;
    }
    pg.primary = *primary;
    auto field = json_field(value.object(), "state");
    JsonArray words;
    if (!field || field->get(words) != simdjson::SUCCESS) {
        value.wrong("state", "a list of state words", "the update is ignored");
        return std::nullopt;
    }
    for (JsonElement item : words) {
        std::string_view word;
        uint32_t bit = item.get(word) == simdjson::SUCCESS ? pg_state_bit(word) : 0;
        if (!bit) {
            value.wrong("state", "known state words only", "the update is ignored");
            return std::nullopt;
        }
        pg.state |= bit;
    }
    bool alone = !(pg.state & (bits::offline | bits::peering)) || (pg.state & (pg.state - 1)) == 0;
    bool incomplete = !(pg.state & bits::incomplete) || !(pg.state & ~(bits::incomplete | bits::has_invalid));
    if (!pg.state || !alone || !incomplete) {
        value.wrong("state", "a possible combination", "the update is ignored");
        return std::nullopt;
    }
    if (auto peers = value.osds(value.object(), "peers")) pg.peers = std::move(*peers);
    return pg;
}

std::optional<PgHistory> decode_pg_history(const std::string& key, std::string_view json, Logger& logger) {
    Value value(key, json, logger);
    if (!value.ok()) return std::nullopt;
    PgHistory history;
    if (auto peers = value.osds(value.object(), "all_peers")) history.all_peers = std::move(*peers);
    auto field = json_field(value.object(), "osd_sets");
    if (!field) return history;
    JsonArray sets;
    if (field->get(sets) != simdjson::SUCCESS) {
        value.wrong("osd_sets", "a list of lists of OSD numbers");
        return history;
    }
    for (JsonElement item : sets)
        if (auto set = value.osd_list(item, "osd_sets")) history.osd_sets.push_back(std::move(*set));
    return history;
}

namespace {
/// meta.limits: {"iops", "bytes_per_second", "burst_ms"}. A wrong one is no limit.
IoLimits decode_limits(Value& value) {
    constexpr uint32_t kDefaultBurstMs = 1000, kMaxBurstMs = 3600 * 1000;
    IoLimits limits;
    const auto meta = json_field(value.object(), "meta");
    JsonObject fields;
    if (!meta || meta->get(fields) != simdjson::SUCCESS) return limits;  // meta is free-form
    const auto given = json_field(fields, "limits");
    if (!given) return limits;
    JsonObject each;
    if (given->get(each) != simdjson::SUCCESS) {
        value.wrong("meta.limits", "an object");
        return limits;
    }
    limits.iops = value.u64(each, "iops", "meta.limits.", 0, kMaxIops, "operations a second").value_or(0);
    limits.bytes_per_second = value.u64(each, "bytes_per_second", "meta.limits.", 0, UINT64_MAX, "bytes a second").value_or(0);
    limits.burst_ms = static_cast<uint32_t>(value.u64(each, "burst_ms", "meta.limits.", 0, kMaxBurstMs, "0 to 3600000 ms").value_or(kDefaultBurstMs));
    return limits;
}
}  // namespace

std::optional<Inode> decode_inode(const std::string& key, std::string_view json, InodeNum number, Logger& logger) {
    Value value(key, json, logger);
    if (!value.ok()) return std::nullopt;
    constexpr uint64_t kMaxInode = (1ull << kPoolShift) - 1;
    Inode inode;
    inode.number = number;
    inode.name = value.string(value.object(), "name");
    inode.size = value.u64(value.object(), "size", "", 0, UINT64_MAX, "bytes").value_or(0);
    if (json_field(value.object(), "parent_id")) {
        auto parent = value.u64(value.object(), "parent_id", "", 0, kMaxInode, "an inode number without pool");
        PoolId pool = pool_of(number);
        bool known = parent.has_value();
        if (json_field(value.object(), "parent_pool")) {
            auto other = value.u64(value.object(), "parent_pool", "", 0, 65535, "a pool number");
            if (!other) known = false;
            else if (*other) pool = static_cast<PoolId>(*other);
        }
        if (!known) {
            // Reading such an image as if it had no parent would show wrong data.
            value.wrong("parent_id", "a usable parent", "the image is skipped");
            return std::nullopt;
        }
        if (*parent) inode.parent = full_inode(pool, *parent);
    }
    inode.readonly = value.boolean(value.object(), "readonly");
    inode.deleted = value.boolean(value.object(), "deleted");
    inode.limits = decode_limits(value);
    return inode;
}

std::optional<OsdState> decode_osd_state(const std::string& key, std::string_view json, OsdNum osd, Logger& logger) {
    Value value(key, json, logger);
    if (!value.ok()) return std::nullopt;
    OsdState state;
    if (value.string(value.object(), "state") != "up") return state;
    auto port = value.u64(value.object(), "port", "", 1, 65535, "a TCP port");
    if (!port) {
        value.wrong("port", "a TCP port", "the OSD cannot be reached");
        return std::nullopt;
    }
    state.port = static_cast<uint16_t>(*port);
    auto field = json_field(value.object(), "addresses");
    JsonArray addresses;
    if (!field || field->get(addresses) != simdjson::SUCCESS) {
        value.wrong("addresses", "a list of addresses", "the OSD cannot be reached");
        return std::nullopt;
    }
    for (JsonElement item : addresses) {
        auto text = json_string(item);
        if (text && !text->empty()) state.addresses.push_back(std::move(*text));
        else value.wrong("addresses", "a list of addresses", "that entry is skipped");
    }
    state.host = value.string(value.object(), "host");
    state.osd = osd;
    return state;
}

std::optional<std::map<std::string, std::pair<std::string, std::string>>> decode_placement(
    const std::string& key, std::string_view json, Logger& logger) {
    Value value(key, json, logger);
    if (!value.ok()) return std::nullopt;
    std::map<std::string, std::pair<std::string, std::string>> nodes;
    for (auto field : value.object()) {
        std::string name(field.key);
        JsonObject node;
        if (field.value.get(node) != simdjson::SUCCESS) {
            value.wrong(name, "an object", "skipped");
            continue;
        }
        std::string level = value.string(node, "level", name + ".");
        auto parent = json_field(node, "parent");
        if (parse_u64(name)) level = "osd";
        nodes[name] = {level, parent ? json_text(*parent) : std::string()};
    }
    return nodes;
}

}  // namespace vitastor::cluster

// SPDX-License-Identifier: GPL-2.0-or-later
#include "convert.hpp"

#include <type_traits>

#include "js_reader.hpp"

namespace vitastor::binding {
namespace {

using namespace vitastor::engine;

// ---------------------------------------------------------------- commands

store::StoreOptions store_options(JsReader from) {
    store::StoreOptions options;
    options.osd_num = from.u64("osdNum");
    options.data_device = from.text("dataDevice");
    options.meta_device = from.text("metaDevice");
    options.data_offset = from.u64("dataOffset");
    options.data_size = from.u64("dataSize");
    options.meta_offset = from.u64("metaOffset");
    options.meta_size = from.u64("metaSize");
    options.block_size = from.u32("blockSize");
    options.bitmap_granularity = from.u32("bitmapGranularity");
    options.immediate_commit =
        static_cast<wire::ImmediateCommit>(from.word("immediateCommit", {"none", "small", "all"}));
    options.disable_data_fsync = from.boolean("disableDataFsync");
    options.disable_meta_fsync = from.boolean("disableMetaFsync");
    options.disable_device_lock = from.boolean("disableDeviceLock");
    options.readonly = from.boolean("readonly");
    options.checksums = from.boolean("checksums");
    options.checksums_in_memory = from.boolean("checksumsInMemory");
    options.checksum_cache_bytes = from.u64("checksumCacheSize");
    options.data_io = static_cast<runtime::FileIo>(from.word("dataIo", {"direct", "cached", "direct_sync"}));
    options.meta_io = static_cast<runtime::FileIo>(from.word("metaIo", {"direct", "cached", "direct_sync"}));
    options.max_write_iodepth = from.u32("maxWriteIodepth");
    options.max_tombstones = from.u64("maxTombstones");
    options.atomic_write_size = from.u32("atomicWriteSize");
    options.discard_freed = static_cast<store::DiscardFreed>(from.word("discardFreed", {"off", "on", "automatic"}));
    options.discard_on_start = from.boolean("discardOnStart");
    options.min_discard_size = from.u64("minDiscardSize");
    options.discard_granularity = from.u32("discardGranularity");
    options.skip_damaged_metadata = from.boolean("skipDamagedMetadata");
    options.create = from.boolean("create");
    return options;
}

Command configure(JsReader& from) {
    Configure command;
    command.store = store_options(from.object("store"));
    from.each("listen", [&](JsReader& item) {
        command.listen.push_back({item.text("host"), static_cast<uint16_t>(item.u32("port"))});
    });
    command.cluster_networks = from.texts("clusterNetworks");
    command.settings = from.text_map("settings");
    command.lease_timeout_s = from.u64("leaseTimeoutS");
    return command;
}

Command peer_list(JsReader& from) {
    PeerList command;
    from.each("up", [&](JsReader& item) {
        command.up.push_back({item.u64("osd"), item.texts("addresses"), static_cast<uint16_t>(item.u32("port"))});
    });
    return command;
}

Command pools(JsReader& from) {
    Pools command;
    from.each("pools", [&](JsReader& item) {
        PoolConfig pool;
        pool.pool = item.u32("pool");
        pool.scheme = item.word("scheme", {"replicated", "xor", "ec"});
        pool.pg_size = item.u32("pgSize");
        pool.pg_minsize = item.u32("pgMinsize");
        pool.parity_chunks = item.u32("parityChunks");
        pool.pg_count = item.u32("pgCount");
        pool.pg_stripe_size = item.u64("pgStripeSize");
        pool.block_size = item.u32("blockSize");
        pool.bitmap_granularity = item.u32("bitmapGranularity");
        pool.immediate_commit = item.word("immediateCommit", {"none", "small", "all"});
        pool.local_reads = item.word("localReads", {"primary", "nearest", "random"});
        pool.backfillfull = item.boolean("backfillfull");
        pool.used_for_app = item.boolean("usedForApp");
        command.pools.push_back(pool);
    });
    return command;
}

Command inodes(JsReader& from) {
    Inodes command;
    from.each("inodes", [&](JsReader& item) {
        command.inodes.push_back({item.u64("inode"), item.u64("parent"), item.u64("modRevision")});
    });
    return command;
}

PgId pg_id(JsReader from) { return {from.u32("pool"), from.u32("pg")}; }

Command start_pg(JsReader& from) {
    StartPg command;
    command.pg = pg_id(from.object("pg"));
    command.osd_set = from.u64s("osdSet");
    command.all_peers = from.u64s("allPeers");
    command.history_sets = from.u64_lists("historySets");
    command.epoch = from.u64("epoch");
    command.interval = from.u64("interval");
    return command;
}

Command read_command(const std::string& kind, JsReader& from, std::string& problem) {
    if (kind == "configure") return configure(from);
    if (kind == "settings") return Settings{from.text_map("settings")};
    if (kind == "peerList") return peer_list(from);
    if (kind == "pools") return pools(from);
    if (kind == "inodes") return inodes(from);
    if (kind == "startPg") return start_pg(from);
    if (kind == "stopPg") return StopPg{pg_id(from.object("pg")), from.u64("interval")};
    if (kind == "confirmHistory") {
        return ConfirmHistory{pg_id(from.object("pg")), from.u64("interval"), from.u64("epoch")};
    }
    if (kind == "scrubPg") return ScrubPg{pg_id(from.object("pg")), from.u64("interval")};
    if (kind == "leaseUntil") return LeaseUntil{from.u64("deadlineNs")};
    if (kind == "reportStatistics") return ReportStatistics{};
    if (kind == "stop") return Stop{};
    problem = "kind: there is no command \"" + kind + "\"";
    return Stop{};
}

// ---------------------------------------------------------------- events

/// Makes one object field by field, in order.
class JsWriter {
public:
    explicit JsWriter(Napi::Env env) : env_(env), object_(Napi::Object::New(env)) {}
    JsWriter(Napi::Env env, const char* kind) : JsWriter(env) { text("kind", kind); }
    JsWriter& text(const char* name, const std::string& value) { return set(name, Napi::String::New(env_, value)); }
    JsWriter& u32(const char* name, uint32_t value) { return set(name, Napi::Number::New(env_, value)); }
    JsWriter& u64(const char* name, uint64_t value) { return set(name, Napi::BigInt::New(env_, value)); }
    JsWriter& set(const char* name, const Napi::Value& value) {
        object_.Set(name, value);
        return *this;
    }
    JsWriter& u64s(const char* name, const std::vector<uint64_t>& values) {
        return list(name, values, [&](uint64_t value) -> Napi::Value { return Napi::BigInt::New(env_, value); });
    }
    template <class Items, class Make>
    JsWriter& list(const char* name, const Items& items, Make make) {
        Napi::Array array = Napi::Array::New(env_, items.size());
        uint32_t index = 0;
        for (const auto& item : items) array.Set(index++, make(item));
        return set(name, array);
    }
    template <class Map, class Make>
    JsWriter& record(const char* name, const Map& map, Make make) {
        Napi::Object inner = Napi::Object::New(env_);
        for (const auto& [key, value] : map) inner.Set(key, make(value));
        return set(name, inner);
    }
    Napi::Object done() const { return object_; }

private:
    Napi::Env env_;
    Napi::Object object_;
};

Napi::Value pg_to_js(Napi::Env env, const PgId& pg) { return JsWriter(env).u32("pool", pg.pool).u32("pg", pg.pg).done(); }

Napi::Value store_to_js(Napi::Env env, const store::StoreStats& stats) {
    return JsWriter(env)
        .u64("totalBlocks", stats.total_blocks)
        .u64("freeBlocks", stats.free_blocks)
        .u64("objectCount", stats.object_count)
        .u64("memoryBytes", stats.memory_bytes)
        .u64("deviceBytesWritten", stats.device_bytes_written)
        .u64("clientBytesWritten", stats.client_bytes_written)
        .u64("flushes", stats.flushes)
        .u64("dataFlushes", stats.data_flushes)
        .u64("metaFlushes", stats.meta_flushes)
        .u64("dataSyncWrites", stats.data_sync_writes)
        .u64("metaSyncWrites", stats.meta_sync_writes)
        .u64("discards", stats.discards)
        .u64("discardedBytes", stats.discarded_bytes)
        .u64("throttledWrites", stats.throttled_writes)
        .u64("throttledUs", stats.throttled_us)
        .u64("checksumErrors", stats.checksum_errors)
        .u64("checksumReads", stats.checksum_reads)
        .u64("checksumBytesWritten", stats.checksum_bytes_written)
        .u64("uuid", stats.uuid)
        .u64("logSequence", stats.log_sequence)
        .done();
}

Napi::Value counters_to_js(Napi::Env env, const OpCounters& counters) {
    return JsWriter(env)
        .u64("count", counters.count)
        .u64("usec", counters.usec)
        .u64("bytes", counters.bytes)
        .done();
}

Napi::Value pg_counters_to_js(Napi::Env env, const PgCounters& pg) {
    return JsWriter(env)
        .set("pg", pg_to_js(env, pg.pg))
        .u64("objectCount", pg.object_count)
        .u64("cleanCount", pg.clean_count)
        .u64("misplacedCount", pg.misplaced_count)
        .u64("degradedCount", pg.degraded_count)
        .u64("incompleteCount", pg.incomplete_count)
        .u64("corruptedCount", pg.corrupted_count)
        .u64s("writeOsdSet", pg.write_osd_set)
        .done();
}

Napi::Object to_js(Napi::Env env, const Ready& event) {
    return JsWriter(env, "ready")
        .u32("port", event.port)
        .list("addresses", event.addresses,
              [&](const std::string& text) -> Napi::Value { return Napi::String::New(env, text); })
        .set("store", store_to_js(env, event.store))
        .text("runtime", event.runtime)
        .done();
}

Napi::Object to_js(Napi::Env env, const PgStateChanged& event) {
    return JsWriter(env, "pgStateChanged")
        .set("pg", pg_to_js(env, event.pg))
        .u64("interval", event.interval)
        .u32("state", event.state)
        .u64s("peers", event.peers)
        .u64s("deadPeers", event.dead_peers)
        .text("reason", event.reason)
        .done();
}

Napi::Object to_js(Napi::Env env, const HistoryWanted& event) {
    Napi::Array more_sets = Napi::Array::New(env);
    for (const std::vector<OsdNum>& osds : event.more_sets) {
        Napi::Array set = Napi::Array::New(env);
        for (OsdNum osd : osds) set.Set(set.Length(), Napi::BigInt::New(env, osd));
        more_sets.Set(more_sets.Length(), set);
    }
    return JsWriter(env, "historyWanted")
        .set("pg", pg_to_js(env, event.pg))
        .u64("interval", event.interval)
        .u64("epoch", event.epoch)
        .set("addCurrentSet", Napi::Boolean::New(env, event.add_current_set))
        .u64s("currentSet", event.current_set)
        .set("moreSets", more_sets)
        .done();
}

Napi::Object to_js(Napi::Env env, const PgScrubbed& event) {
    return JsWriter(env, "pgScrubbed").set("pg", pg_to_js(env, event.pg)).u64("interval", event.interval).done();
}

Napi::Object to_js(Napi::Env env, const PeerLost& event) {
    return JsWriter(env, "peerLost").u64("osd", event.osd).text("reason", event.reason).done();
}

Napi::Object to_js(Napi::Env env, const Statistics& event) {
    auto counters = [&](const OpCounters& value) { return counters_to_js(env, value); };
    return JsWriter(env, "statistics")
        .set("store", store_to_js(env, event.store))
        .list("space", event.space,
              [&](const store::InodeSpace& item) -> Napi::Value {
                  return JsWriter(env).u64("inode", item.inode).u64("bytes", item.bytes).done();
              })
        .record("opStats", event.op_stats, counters)
        .record("subopStats", event.subop_stats, counters)
        .set("recoveryDegraded", counters_to_js(env, event.recovery_degraded))
        .set("recoveryMisplaced", counters_to_js(env, event.recovery_misplaced))
        .list("pgs", event.pgs, [&](const PgCounters& pg) { return pg_counters_to_js(env, pg); })
        .list("inodes", event.inodes,
              [&](const InodeCounters& item) -> Napi::Value {
                  return JsWriter(env)
                      .u64("inode", item.inode)
                      .set("read", counters_to_js(env, item.read))
                      .set("write", counters_to_js(env, item.write))
                      .set("del", counters_to_js(env, item.del))
                      .done();
              })
        .u64("slowOpsPrimary", event.slow_ops_primary)
        .u64("slowOpsSecondary", event.slow_ops_secondary)
        .u64("memoryBytes", event.memory_bytes)
        .record("memoryBy", event.memory_by,
                [&](uint64_t bytes) -> Napi::Value { return Napi::BigInt::New(env, bytes); })
        .done();
}

Napi::Object to_js(Napi::Env env, const Fatal& event) {
    return JsWriter(env, "fatal").text("name", event.name).text("text", event.text).done();
}

Napi::Object to_js(Napi::Env env, const LogLine& event) {
    static constexpr const char* kNames[] = {"error", "warning", "info", "debug"};
    return JsWriter(env, "logLine").text("level", kNames[static_cast<size_t>(event.level)]).text("text", event.text).done();
}

Napi::Object to_js(Napi::Env env, const LeaseExpired&) { return JsWriter(env, "leaseExpired").done(); }

Napi::Object to_js(Napi::Env env, const Stopped&) { return JsWriter(env, "stopped").done(); }

}  // namespace

std::optional<Command> command_from_js(const Napi::Object& object, std::string& problem) {
    Napi::Value kind_value = object.Get("kind");
    std::string kind = kind_value.IsString() ? kind_value.As<Napi::String>().Utf8Value() : "";
    JsReader reader(object, kind.empty() ? "command" : kind, problem);
    Command command = read_command(kind, reader, problem);
    if (!problem.empty()) return std::nullopt;
    return command;
}

Napi::Object event_to_js(Napi::Env env, const Event& event) {
    return std::visit([&](const auto& item) { return to_js(env, item); }, event);
}

}  // namespace vitastor::binding

// SPDX-License-Identifier: GPL-2.0-or-later
// The engine of one OSD: store, PGs, and service of requests, on one thread with one loop. TypeScript drives it with the
// commands below and hears of it through the events below; osd/src/engine.ts names the same ones in the same order.
//
// Control may stall for seconds: nothing here waits for it except what safety demands (epochs and histories confirmed in etcd).
// The lease is fenced here (safety.md 1): past lease_until no write is acknowledged and no read answered, all connections close.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/log.hpp"
#include "net/peers.hpp"
#include "runtime/loop.hpp"
#include "store/store.hpp"

namespace vitastor::engine {

/// Payload in flight that an OSD holds for its clients, about: beyond it they wait in their sockets. Other OSDs have a limit per connection.
inline constexpr uint64_t kBufferBytes = 24 << 20;
inline constexpr uint64_t kConnectionBytes = 16 << 20;

// ------------------------------------------------------------------ commands, in the order of osd/src/engine.ts

/// First and once. Opens the store and listens; answered by Ready or Fatal.
struct Configure {
    store::StoreOptions store;
    std::vector<runtime::Address> listen;
    std::vector<std::string> cluster_networks;  ///< osd_cluster_network (CIDR)
    std::map<std::string, std::string> settings;  ///< all other parameters of configuration.md 6, as text, also later by Settings
    uint64_t lease_timeout_s = 15;                ///< told to peers in SHOW_CONFIG
};
/// Online parameters changed in config/global.
struct Settings {
    std::map<std::string, std::string> settings;
};
/// OSD states from etcd: everything that is up. Replaces the previous list.
struct PeerList {
    std::vector<net::PeerAddress> up;
};
/// Pools and how they map to PGs. Replaces the previous list. pg_count = PGs really present in pg/config.
struct PoolConfig {
    PoolId pool = 0;
    uint8_t scheme = 0;  ///< 0 replicated, 1 xor, 2 ec
    uint32_t pg_size = 0, pg_minsize = 0, parity_chunks = 0;
    uint32_t pg_count = 0;
    uint64_t pg_stripe_size = 0;
    uint32_t block_size = 0, bitmap_granularity = 0;
    uint8_t immediate_commit = 2;  ///< wire::ImmediateCommit
    uint8_t local_reads = 0;       ///< 0 primary, 1 nearest, 2 random
    bool backfillfull = false;
    bool used_for_app = false;
};
struct Pools {
    std::vector<PoolConfig> pools;
};
/// Inode metadata for chained reads (wire-protocol 8.2). Replaces the previous list.
struct InodeConfig {
    InodeNum inode = 0;
    InodeNum parent = 0;  ///< full number, 0 = none
    uint64_t mod_revision = 0;
};
struct Inodes {
    std::vector<InodeConfig> inodes;
};
/// Take the lead of a PG: the state key {primary: me, state: [starting]} is ours in etcd. Starts peering.
struct StartPg {
    PgId pg;
    std::vector<OsdNum> osd_set;  ///< target set, pg_size entries
    std::vector<OsdNum> all_peers;
    std::vector<std::vector<OsdNum>> history_sets;
    uint64_t epoch = 0;
    uint64_t interval = 0;  ///< chosen by control, echoed in every event of this PG: events of an older start are ignored
};
/// Stop leading (config changed, moved away): no new operations, drain, unlock, then PgState{offline}.
struct StopPg {
    PgId pg;
    uint64_t interval = 0;
};
/// The history that the engine wanted (HistoryWanted) is in etcd and was seen back through the watch.
struct ConfirmHistory {
    PgId pg;
    uint64_t interval = 0;
    uint64_t epoch = 0;
};
/// The PG is due: read and compare all copies of its objects in the background. Answered by PgScrubbed; forgotten when the PG stops
/// being active (control asks again when it is).
struct ScrubPg {
    PgId pg;
    uint64_t interval = 0;
};
/// now_ns clock of the engine's loop (CLOCK_BOOTTIME): send time of the confirmed keepalive + TTL - margin. 0: no lease; fence at once.
struct LeaseUntil {
    uint64_t deadline_ns = 0;
};
/// Ask for a Statistics event now.
struct ReportStatistics {};
/// Orderly end: PGs drain and go offline, connections close, the store closes; answered by Stopped.
struct Stop {};

using Command = std::variant<Configure, Settings, PeerList, Pools, Inodes, StartPg, StopPg, ConfirmHistory, ScrubPg,
                             LeaseUntil, ReportStatistics, Stop>;

// ------------------------------------------------------------------ events, in the order of osd/src/engine.ts

struct Ready {
    uint16_t port = 0;
    std::vector<std::string> addresses;
    store::StoreStats store;
    std::string runtime;  ///< "io_uring" or "epoll"
};
/// A PG changed its state. state: wire::pg_state bits; offline = drained and unlocked, control may delete the key.
struct PgStateChanged {
    PgId pg;
    uint64_t interval = 0;
    uint32_t state = 0;
    std::vector<OsdNum> peers;  ///< reachable OSDs that take part (current set, without zeroes)
    std::vector<OsdNum> dead_peers;  ///< of all_peers, not reachable
    std::string reason;              ///< why incomplete, for people
};
/// The epoch (and, unless the PG is exactly active, the current set) must be in etcd before writes go on (semantics.md 7.4).
struct HistoryWanted {
    PgId pg;
    uint64_t interval = 0;
    uint64_t epoch = 0;
    bool add_current_set = false;
    std::vector<OsdNum> current_set;  ///< sorted, without zeroes
    /// Also to be added to the history's sets: those that hold the only good copies of some objects. Sorted, without zeroes.
    std::vector<std::vector<OsdNum>> more_sets;
};
/// Every object of the PG was looked at.
struct PgScrubbed {
    PgId pg;
    uint64_t interval = 0;
};
struct PeerLost {
    OsdNum osd = 0;
    std::string reason;
};
struct OpCounters {
    uint64_t count = 0, usec = 0, bytes = 0;
};
struct PgCounters {
    PgId pg;
    uint64_t object_count = 0, clean_count = 0, misplaced_count = 0, degraded_count = 0, incomplete_count = 0,
             corrupted_count = 0;
    std::vector<OsdNum> write_osd_set;
};
struct InodeCounters {
    InodeNum inode = 0;
    OpCounters read, write, del;
};
struct Statistics {
    store::StoreStats store;
    std::vector<store::InodeSpace> space;
    std::map<std::string, OpCounters> op_stats;     ///< by stat name
    std::map<std::string, OpCounters> subop_stats;  ///< sent by this OSD
    OpCounters recovery_degraded, recovery_misplaced;
    std::vector<PgCounters> pgs;
    std::vector<InodeCounters> inodes;
    uint64_t slow_ops_primary = 0, slow_ops_secondary = 0;
    uint64_t memory_bytes = 0;  ///< buffers, connections, index; what the 128 MB are spent on
    std::map<std::string, uint64_t> memory_by;  ///< part -> bytes; nothing is in two parts
};
/// Nothing more will be served; the process must end (1) or register again. name: machine-readable, e.g. "store", "listen", "lease".
struct Fatal {
    std::string name;
    std::string text;
};
struct LogLine {
    LogLevel level{};
    std::string text;
};
/// The lease ran out: PGs are dropped, connections closed; control registers again and starts PGs anew (the index stays loaded).
struct LeaseExpired {};
struct Stopped {};

using Event = std::variant<Ready, PgStateChanged, HistoryWanted, PgScrubbed, PeerLost, Statistics, Fatal, LogLine,
                           LeaseExpired, Stopped>;

class EventSink {
public:
    virtual ~EventSink() = default;
    /// Engine thread. Must not block.
    virtual void on_event(Event event) = 0;
};

/// Lives on one loop; the owner runs the loop. post() may be called from any thread (mailbox + notifier), also before the loop runs.
class Engine {
public:
    virtual ~Engine() = default;
    virtual void post(Command command) = 0;
    /// After Stopped or Fatal was emitted the owner may leave its loop and destroy the engine.
    virtual bool finished() const = 0;
    /// For the simulator alone, before the first command: faults of serve/planted.hpp.
    virtual void plant(uint32_t faults) = 0;
};

std::unique_ptr<Engine> create_engine(runtime::Loop& loop, EventSink& sink);

/// Makes the store; tests and the simulator put faults between.
using StoreFactory = std::unique_ptr<store::Store> (*)(void* arg, runtime::Loop& loop, const store::StoreOptions& options,
                                                       Logger& logger);
std::unique_ptr<Engine> create_engine(runtime::Loop& loop, EventSink& sink, StoreFactory factory, void* arg);

}  // namespace vitastor::engine

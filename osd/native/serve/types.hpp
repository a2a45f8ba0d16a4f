// SPDX-License-Identifier: GPL-2.0-or-later
// The things that the services of an OSD share: pools, led PGs, operations at work and their pools.
#pragma once

#include <array>
#include <coroutine>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "net/connection.hpp"
#include "pg/access.hpp"
#include "pg/activation.hpp"
#include "pg/objects.hpp"
#include "pg/scheme.hpp"
#include "pg/states.hpp"
#include "runtime/task.hpp"
#include "serve/ec.hpp"
#include "serve/recovery_tune.hpp"
#include "store/store.hpp"

namespace vitastor::serve {

class Osd;
struct Op;
struct Pg;

/// Recycles objects of one type: memory grows to the high-water mark of operations in flight (bounded by the connections).
template <class T>
class ObjectPool {
public:
    T* get() {
        if (free_.empty()) {
            all_.push_back(std::make_unique<T>());
            free_.reserve(all_.capacity());
            return all_.back().get();
        }
        T* item = free_.back();
        free_.pop_back();
        return item;
    }
    void put(T* item) { free_.push_back(item); }
    uint64_t memory_bytes() const { return all_.size() * sizeof(T); }

private:
    std::vector<std::unique_ptr<T>> all_;
    std::vector<T*> free_;
};

/// Parameters of configuration.md 6 that act here; unknown names are ignored, bad values keep the default.
struct Settings {
    uint64_t autosync_interval_s = 5;
    uint64_t autosync_writes = 128;
    uint64_t slow_log_interval_s = 10;
    uint64_t inode_vanish_time_s = 60;
    uint64_t recovery_queue_depth = 1;
    uint64_t recovery_sleep_us = 0;
    uint64_t recovery_pg_switch = 128;
    uint64_t recovery_sync_batch = 16;
    RecoveryTuneSettings recovery_tune;
    uint64_t pg_lock_retry_interval_ms = 100;
    uint64_t scrub_queue_depth = 1;
    uint64_t scrub_sleep_ms = 0;
    uint64_t scrub_list_limit = 262144;
    uint64_t scrub_ec_max_bruteforce = 100;
    bool no_scrub = false;
    bool scrub_find_best = true;
    /// Deletes leave tombstones (docs/adr/0046). Off: they may come back with an OSD that was away, as with 3.0.8. For tests.
    bool tombstones = true;
    uint64_t tombstone_interval_s = 30;  ///< at least so long a clean PG collects tombstones before it forgets them
    bool no_recovery = false;
    bool no_rebalance = false;
    bool allow_net_split = false;
    bool ec_early_reply = true;
    bool ec_short_writes = true;  ///< EC: what the own chunk, RowCache and the parity's holders know is not read across the network
    pg::LockMode lock_mode = pg::LockMode::localize_only;
    static Settings parse(const std::map<std::string, std::string>& text);
    bool operator==(const Settings&) const = default;
};

struct PoolInfo {
    PoolId id = 0;
    pg::Scheme scheme;
    uint32_t pg_count = 0;
    uint64_t pg_stripe_size = 0;
    uint32_t block_size = 0;
    uint32_t bitmap_granularity = 0;
    wire::ImmediateCommit immediate_commit = wire::ImmediateCommit::all;
    bool local_reads = false;  ///< nearest or random
    bool backfillfull = false;
    bool used_for_app = false;
};

struct Pool {
    PoolInfo info;
    std::vector<Pg*> pgs;  ///< led here, by PG number - 1; nullptr = not led
    std::shared_ptr<erasure::Codec> codec;  ///< erasure-coded pools; nullptr: cannot be served (codec_error)
    erasure::StripeShape shape;
    std::string codec_error;
    uint64_t object_span() const { return static_cast<uint64_t>(info.block_size) * info.scheme.data_chunks(); }
    PgNum pg_of(uint64_t stripe) const {
        return static_cast<PgNum>(stripe / info.pg_stripe_size % info.pg_count) + 1;
    }
    bool locks_apply(pg::LockMode mode) const {
        if (mode == pg::LockMode::localize_only) return info.local_reads;
        return mode == pg::LockMode::required;
    }
};

struct Inode {
    InodeNum parent = 0;
    uint64_t mod_revision = 0;
};

/// A read, or one layer of it, that waits for an overlapping write.
struct ReadWaiter : ListNode {
    void (*wake)(ReadWaiter* self) = nullptr;
};

/// Exists while a modification of the object runs. FIFO of modifications; readers of the active range wait beside it.
struct ObjectQueue {
    ObjectId object;
    ObjectQueue* next_in_bucket = nullptr;
    Op* active = nullptr;
    bool advancing = false;
    /// Erasure-coded objects: the first phase of a write is under way, reads take `read_version` (0: they see no object).
    bool overridden = false;
    Version read_version = 0;
    struct Node : ListNode {
        Op* op = nullptr;
    };
    List<Node> waiting;
    List<ReadWaiter> readers;
};

/// One sub-operation at another OSD.
struct SubCall : net::Call {
    Op* op = nullptr;
    SubCall* next = nullptr;
    OsdNum osd = 0;
    uint64_t start_ns = 0;
    wire::Opcode opcode{};
    int64_t result = 0;   ///< retval, or the negative errno of the connection
    bool lost = false;    ///< no reply: connection gone or protocol broken
};

/// One request at work (or an internal write of recovery). Pooled; everything of the hot paths is inside.
struct Op : ListNode {
    static constexpr size_t kInlineBitmap = 64;

    Osd* osd = nullptr;
    net::Request* request = nullptr;  ///< nullptr: internal
    Pool* pool = nullptr;
    Pg* pg = nullptr;                 ///< counted in pg->running when set
    uint64_t start_ns = 0;
    uint64_t sequence = 0;
    wire::Opcode opcode{};
    bool recovery = false;
    /// WRITE, DELETE, READ
    wire::ClientRequest message;
    ObjectId object;
    uint32_t offset = 0;  ///< in the object
    uint32_t len = 0;
    Version version = 0;      ///< new one, or the one read
    Version old_version = 0;

    ObjectQueue::Node queue_node;
    ObjectQueue* queue = nullptr;
    struct Reader : ReadWaiter {
        Op* op = nullptr;
    } reader;
    struct HistoryNode : ListNode {
        Op* op = nullptr;
    } history_node;

    /// Parts of a modification: the local one and the calls.
    struct Local : store::Operation {
        Op* op = nullptr;
    } local;
    bool local_used = false;
    iovec iov{};
    SubCall* calls = nullptr;
    uint32_t pending = 0;
    void (*on_parts)(Op* op) = nullptr;
    std::coroutine_handle<> waiter = nullptr;
    EcWork* ec = nullptr;  ///< writes of erasure-coded objects

    uint8_t bitmap_small[kInlineBitmap];
    Buffer bitmap_big;
    uint8_t* bitmap = nullptr;  ///< one of the two
    Buffer data;
    int64_t result = 0;
};

struct HistoryWaiters {
    List<Op::HistoryNode> list;
};

/// A PG that this OSD leads.
struct Pg {
    Osd* osd = nullptr;
    PgId id;
    Pool* pool = nullptr;
    uint64_t interval = 0;
    /// Connections whose last hello has a smaller number may bring requests from before another OSD led the PG (docs/adr/0048). 0: not active yet.
    pg::ConnectionSerial client_floor = 0;
    /// The same for clients that name no session, who pay more. 0: this OSD leads the PG for the first time, none are refused.
    pg::ConnectionSerial sessionless_floor = 0;
    pg::Phase phase = pg::Phase::offline;
    uint32_t flags = 0;  ///< degraded, left_on_dead, has_unclean, has_invalid; the rest follows from `objects`
    pg::Membership membership;
    pg::Activation activation;  ///< of the last check
    std::vector<OsdNum> others;  ///< current set without this OSD and 0
    std::vector<net::Connection*> connections;  ///< of `others`, valid while active
    bool self_in_set = false;
    bool peers_stabilize_late = false;  ///< erasure-coded: all OSDs of the current set let us reply before the stabilise
    bool peers_take_base = false;       ///< erasure-coded: and understand sub_flags::based and difference
    bool peers_settle = false;          ///< erasure-coded: and sub_flags::settles
    uint64_t activated = 0;             ///< number of this activation, for RowCache
    uint32_t unstable = 0;              ///< objects of this PG among Osd's UnstableObjects
    uint32_t own_role = erasure::kRolesMax;  ///< erasure-coded: first role of this OSD in the current set
    std::string reason;

    uint64_t epoch = 0;
    uint64_t confirmed_epoch = 0;  ///< in etcd
    uint64_t wanted_epoch = 0;     ///< asked for
    HistoryWaiters history;

    pg::ObjectTable objects;

    uint32_t running = 0;  ///< operations and tasks that refer to this PG
    bool disturbed = false;
    bool step_failed = false;  ///< a lock or a listing was refused: a pause before the next attempt
    bool stop = false;
    bool silent = false;   ///< dropped with the lease: no events any more
    bool dead = false;     ///< run_pg has ended
    uint32_t announced = UINT32_MAX;
    std::vector<OsdNum> announced_peers;
    std::string announced_reason;

    // ---- locks on secondaries
    std::set<OsdNum> locked;        ///< hold a lock for us (or may do)
    uint32_t locked_state = 0;      ///< last state announced to them
    uint32_t announcing = 0;        ///< announcements under way
    bool gate = false;              ///< left exactly active: no acknowledgement until all have confirmed
    runtime::WaitList gate_waiters;

    /// Superfluous copies to delete after the next SYNC (pool mode not `all`), and objects that are clean when it has made new copies durable.
    struct Extra {
        OsdNum osd;  ///< 0: nothing is to be deleted
        ObjectVersion what;
        uint64_t sequence;  ///< when the new copies were written: a SYNC that had begun before does not cover them
    };
    std::vector<Extra> extras;

    // ---- tombstones (tombstones.cpp)
    bool tombstones = false;          ///< all OSDs of this PG that are there keep them
    uint64_t deleted_at = 0;          ///< Osd::next_sequence_ of the last delete that may not be durable everywhere
    uint64_t buried = 0;              ///< about so many may be around; forgotten when the PG is exactly active
    std::multiset<Version> removing;  ///< versions of deletes under way
    runtime::WaitList removed;        ///< one of them has ended
    uint64_t forget_epoch = 0;        ///< asked for; forgetting begins when it stands in etcd
    bool forgetting = false;
    uint64_t forget_after_ns = 0;

    ObjectId recovery_cursor;
    bool scrub_wanted = false;  ///< control asked for it in this activity
    ObjectId scrub_cursor;      ///< first object that was not looked at
    runtime::WaitList changed;
    struct Kick : runtime::Deferred {
        Pg* pg = nullptr;
    } kick;

    struct Start {
        uint64_t interval = 0, epoch = 0;
        pg::Membership membership;
    };
    std::optional<Start> next_start;  ///< a new start that came before the old one was gone

    bool active() const { return phase == pg::Phase::active; }
    uint32_t state() const {
        return pg::announced_state(phase, phase == pg::Phase::active ? flags | objects.flags() : flags);
    }
};

/// "pool/pg", for messages.
inline std::string pg_text(const Pg& pg) { return std::to_string(pg.id.pool) + "/" + std::to_string(pg.id.pg); }

/// What an incoming connection holds here.
struct ClientState {
    net::Connection* connection = nullptr;
    pg::ConnectionSerial serial = 0;  ///< in order of arrival: whatever goes through all clients goes in this order
    pg::ConnectionSerial heard = 0;  ///< as serial, at its last hello: what comes now was sent after that
    uint64_t session = 0;            ///< of a client of ours
    bool voided = false;  ///< its OSD said hello on a newer connection
    std::map<PgId, uint64_t> dirty;  ///< written to since its last SYNC (dirty PG rule), with the sequence of the last write
};

struct Counters {
    uint64_t count = 0, usec = 0, bytes = 0;
    void add(uint64_t usec_spent, uint64_t byte_count) {
        count++;
        usec += usec_spent;
        bytes += byte_count;
    }
};

struct InodeStats {
    Counters read, write, del;
};

struct PgReport {
    PgId id;
    pg::ObjectCounts counts;
    std::vector<OsdNum> write_osd_set;
};

struct Report {
    std::array<Counters, wire::kMaxOpcode + 1> ops, subops;
    Counters recovery_degraded, recovery_misplaced;
    std::vector<PgReport> pgs;
    std::unordered_map<InodeNum, InodeStats> inodes;
    uint64_t slow_primary = 0, slow_secondary = 0;
    std::map<std::string, uint64_t> memory_by;
};

/// What the engine tells control.
class OsdEvents {
public:
    virtual ~OsdEvents() = default;
    virtual void on_pg_state(const Pg& pg, uint32_t state, const std::vector<OsdNum>& peers) = 0;
    virtual void on_history_wanted(const Pg& pg, uint64_t epoch, bool add_current_set,
                                   const std::vector<OsdNum>& current_set,
                                   const std::vector<std::vector<OsdNum>>& more_sets) = 0;
    virtual void on_pg_scrubbed(const Pg& pg) = 0;
    virtual void on_peer_lost(OsdNum osd, const std::string& reason) = 0;
    virtual void on_lease_expired() = 0;
    /// All PGs are gone after stop_all().
    virtual void on_all_stopped() = 0;
};

}  // namespace vitastor::serve

// SPDX-License-Identifier: GPL-2.0-or-later
// Serves the requests of one OSD: as secondary for the copies that lie here, as primary for the PGs that it leads.
// One loop, one thread. Promises: acknowledged means durable on every copy that was counted (safety 10); nothing is
// acknowledged or read past the lease (safety 1); modifications of one object run one after another (semantics 1.6).
#pragma once

#include "net/peers.hpp"
#include "net/server.hpp"
#include "pg/peering.hpp"
#include "serve/await.hpp"
#include "serve/ec_rows.hpp"
#include "serve/types.hpp"

namespace vitastor::serve {

class Osd final : public net::ServerHandler, public net::PeersListener {
public:
    Osd(runtime::Loop& loop, store::Store& store, OsdNum osd_num, Logger& logger, OsdEvents& events);
    ~Osd() override;
    /// Before anything else. Both outlive this object.
    void attach(net::Peers& peers, net::Server& server);

    // ---- commands
    void set_settings(const Settings& settings);
    void set_peers(const std::vector<net::PeerAddress>& up);
    void set_pools(const std::vector<PoolInfo>& pools);
    void set_inodes(std::unordered_map<InodeNum, Inode>&& inodes) {
        inodes_ = std::move(inodes);
        inodes_serial_++;
    }
    void start_pg(const PgId& id, Pg::Start&& start);
    void stop_pg(const PgId& id, uint64_t interval);
    void confirm_history(const PgId& id, uint64_t interval, uint64_t epoch);
    /// Scrub all objects of this PG, in the background; answered by on_pg_scrubbed unless the PG stops being active.
    void scrub_pg(const PgId& id, uint64_t interval);
    /// now_ns clock; 0 = no lease: fence at once.
    void set_lease(uint64_t deadline_ns);
    /// Every PG drains and goes offline; answered by on_all_stopped.
    void stop_all();
    /// Timers stop, nothing new starts. After on_all_stopped.
    void shut_down();
    /// For the simulator alone: faults of planted.hpp.
    void plant(uint32_t faults) { planted_ = faults; }
    Report report();
    /// Operations at work; 0 = may be destroyed once connections are closed and the store is idle.
    uint64_t busy() const { return busy_; }

    // ---- net
    void on_accepted(net::Connection& connection) override;
    void on_request(net::Connection& connection, net::Request& request) override;
    void on_peer_announced(net::Connection& connection, OsdNum osd) override;
    void on_client_announced(net::Connection& connection, uint64_t session) override;
    void on_closed(net::Connection& connection) override;
    void on_peer_up(OsdNum osd) override;
    void on_peer_down(OsdNum osd) override;

private:
    // ---- osd.cpp: dispatch, answers, pools
    Pool* find_pool(PoolId id);
    void set_codec(Pool& pool, const PoolInfo& info);
    Op* new_op(net::Request* request);
    void free_op(Op* op);
    void attach_pg(Op* op, Pg* pg);
    /// The lease holds at this very moment.
    bool lease_holds();
    void lease_expired();
    bool fill_bitmap_space(Op* op);
    /// Bytes of the bitmap that a client gets for an object of the pool.
    uint32_t object_bitmap_bytes(const Pool& pool) const { return pool.info.scheme.data_chunks() * bitmap_bytes_; }
    void answer(Op* op, int64_t retval);
    template <class Message>
    void answer(Op* op, int64_t retval, const Message& message);
    void complete(Op* op, int64_t retval);
    void refuse(net::Request& request, int64_t retval);
    bool is_modification(wire::Opcode opcode) const;
    ClientState* client_of(net::Connection* connection);
    static void on_tick(runtime::Timer* timer);
    void tick();

    // ---- client.cpp: checks common to READ, WRITE, DELETE, SCRUB
    bool route(Op* op, bool needs_primary);
    ObjectQueue* find_queue(const ObjectId& object);
    /// true: the operation may start now; else it waits its turn.
    bool enter_queue(Op* op);
    /// Ends the turn of op; starts what waited.
    void leave_queue(Op* op);
    void start_modification(Op* op);
    bool overlaps_write(const ObjectId& object, uint32_t offset, uint32_t len, ObjectQueue** queue);

    // ---- read.cpp
    void handle_read(Op* op);
    void route_read(Op* op);
    void start_read(Op* op);
    static void on_local_read(store::Operation* operation);
    void answer_read(Op* op, int64_t result);
    bool needs_history(Pg& pg);
    struct LayerRead {
        Pool* pool;
        Pg* pg;  ///< nullptr: local read of a lock holder
        ObjectId object;
        uint32_t offset, len;
        uint8_t* data;    ///< len bytes, 4096-aligned
        uint8_t* bitmap;  ///< bitmap_bytes
        uint32_t flags;   ///< of SEC_READ
        Version version = 0;
        bool of_client = false;  ///< not from inside the object's queue: a modification may run at the same time
    };
    /// Reads one object wherever it lies; missing = zeroes, version 0. Result len or an error for the client.
    runtime::Task<int64_t> read_object(LayerRead& read);
    runtime::Task<int64_t> read_copy(LayerRead& read, OsdNum osd, Version version);
    runtime::Task<> read_slow(Op* op);
    InodeNum parent_in_pool(InodeNum inode) const;
    runtime::Task<> read_chain(Op* op);
    runtime::Task<> wait_overlap(ObjectId object, uint32_t offset, uint32_t len);
    // forward.cpp
    runtime::Task<> forward_read(Op* op);
    runtime::Task<> ask_for_scrub(ObjectId object, OsdNum primary);
    void mark_copy(Pg& pg, const ObjectId& object, uint32_t role, OsdNum osd, uint32_t flag, Version target);
    std::vector<pg::Location> locations_of(Pg& pg, const ObjectId& object);

    // ---- ec_chunks.cpp: sub-operations on chunks of erasure-coded objects
    EcWork* new_ec(Pool& pool);
    void free_ec(EcWork* work);
    void locate_chunks(Pg& pg, const ObjectId& object, EcWork& work);
    ChunkCall& new_chunk(EcWork& work, uint32_t role, OsdNum osd, wire::Opcode opcode);
    void send_chunk(ChunkCall& chunk);
    void submit_chunk(ChunkCall& chunk, store::StoreOp op, const ObjectId& object, Version version);
    static void on_local_chunk(store::Operation* operation);
    static void on_remote_chunk(net::Call* call);
    static void chunk_done(EcWork& work);
    void prepare_buffers(EcWork& work);
    void read_chunks(EcWork& work, const ObjectId& object, Version version, uint8_t* client, uint32_t flags);
    ReadVerdict judge_reads(EcWork& work, Version expected, Version* version);
    /// Same small sub-operation {object, version} on every chunk in work.targets: SEC_STABILIZE, SEC_ROLLBACK, SEC_DELETE.
    void change_chunks(EcWork& work, wire::Opcode opcode, const ObjectId& object, Version version, uint32_t flags);
    /// 0, or the first error; connections that answered with errors are reset.
    int64_t judge_changes(EcWork& work);

    // ---- ec_read.cpp
    bool start_ec_read(Op* op);
    void read_own_chunk(Op* op, uint32_t role, Version version, void (*on_done)(store::Operation*));
    void on_chunk_read(Op* op);
    runtime::Task<int64_t> read_ec(LayerRead& read);

    // ---- ec_holder.cpp: READ of chunks that lie here, by whoever does not lead the PG
    const pg::PgLock* clean_lock(const Pool& pool, const ObjectId& object) const;
    bool may_read_here(const Pool& pool, const ObjectId& object, uint32_t offset, uint32_t len) const;
    Version held_version(const Pool& pool, const ObjectId& chunk) const;
    void read_held_chunk(Op* op);
    static void on_held_chunk(store::Operation* operation);
    runtime::Task<int64_t> read_held_layer(LayerRead& read);

    // ---- ec_stabilize.cpp
    bool may_reply_early(const Op* op) const;
    UnstableObject* find_unstable(const ObjectId& object);
    UnstableObject& get_unstable(Pg& pg, const ObjectId& object);
    void free_unstable(UnstableObject* entry);
    void add_unsynced(Op* op);
    bool add_unstable(Op* op);
    void want_stable(UnstableObject& entry, Version version, uint64_t bytes);
    void arm_stabilizer(uint64_t due_ns);
    void unwant_stable(UnstableObject& entry);
    bool waits_for_stable(const ObjectId& object, Version version);
    void settled_by_write(const Op* op);
    void stabilize_now();
    bool are_many_unstable() const;
    uint64_t collect_batch();
    void send_batch(EcWork& work);
    runtime::Task<> run_stabilizer();
    void drop_unstable(Pg& pg);
    void forget_unsynced(Pg& pg);
    runtime::Task<int64_t> settle_object(Op* op);
    runtime::Task<int64_t> settle_for_delete(Op* op);
    runtime::Task<> settle_pg(Pg& pg);
    runtime::Task<> await_stabilizer();
    void begin_sync_unstable();
    runtime::Task<> end_sync_unstable(bool success);

    // ---- ec_write.cpp
    runtime::Task<> write_ec(Op* op);
    runtime::Task<int64_t> read_old_chunks(Op* op);
    bool find_row(const Op* op, Version version);
    void write_chunks(Op* op);
    runtime::Task<int64_t> settle_tombstone(const Pg& pg);
    runtime::Task<int64_t> judge_stores(Op* op);
    std::vector<pg::Location> note_stored(Op* op, bool was_unclean, bool durable);
    runtime::Task<int64_t> stabilize_stored(Op* op, bool keeps_queue);
    void finish_ec_write(Op* op, int64_t result, uint32_t old_state);

    // ---- write.cpp
    void handle_write(Op* op);
    void start_write(Op* op);
    void write_parts(Op* op, const uint8_t* data, uint32_t offset, uint32_t len, uint32_t flags);
    static void on_local_part(store::Operation* operation);
    static void on_call_part(net::Call* call);
    void part_done(Op* op);
    static void on_write_parts(Op* op);
    void write_done(Op* op);
    bool need_history(Op* op);
    bool need_epoch(Pg& pg, uint64_t epoch);
    void wait_history(Op* op);
    /// Success, or the error for the client; marks outdated copies, resets bad connections.
    int64_t judge_write(Op* op);
    void free_calls(Op* op);
    runtime::Task<> write_unclean(Op* op);
    void note_unsynced(Op* op, bool whole_block);
    void keep_marks(const Op* op);
    runtime::Task<> finish_gated(Op* op, int64_t retval);
    SubCall* new_call(Op* op, OsdNum osd, wire::Opcode opcode);
    void send_call(SubCall* call, net::Connection* connection);

    // ---- remove.cpp
    runtime::Task<> remove_object(Op* op);
    runtime::Task<int64_t> delete_everywhere(Op* op, bool bury, bool* remembered);

    // ---- scrub.cpp
    struct ScrubCopy {
        pg::Location place;
        Buffer data;  ///< block_size_ bytes
        Version version = 0;
    };
    runtime::Task<> scrub_object(Op* op);
    runtime::Task<int64_t> read_for_scrub(Op* op, Version* target, std::vector<ScrubCopy>* copies,
                                          std::vector<pg::Location>* others);
    void judge_copies(std::vector<ScrubCopy>& copies);
    runtime::Task<> judge_chunks(Pool& pool, std::vector<ScrubCopy>& chunks);
    void set_places(Pg& pg, const ObjectId& object, std::span<const pg::Location> where, Version target);

    // ---- scrub_run.cpp
    void wake_scrub();
    void run_scrub();
    Pg* scrubbed_pg();
    void keep_scrub_cursor(Pg& pg);
    Pg* choose_scrub();
    runtime::Task<> list_for_scrub(Pg& pg);
    void scrub_ended(Op* op, int64_t result);

    // ---- tombstones.cpp
    bool all_keep_tombstones(const std::vector<OsdNum>& others);
    Version buried_version(const Pg& pg, const ObjectId& object);
    runtime::Task<int64_t> forget_here(PgId id, Version version);
    runtime::Task<> forget_secondary(Op* op, PgId id, Version version);
    void kick_forget();
    void consider_forget();
    void consider_forget(Pg& pg, uint64_t now);
    void begin_forget(Pg& pg);
    runtime::Task<> forget(Pg& pg, Version bound);

    // ---- sync.cpp
    runtime::Task<> sync_op(Op* op);
    bool counts_on(OsdNum osd) const;
    runtime::Task<int64_t> sync_on(OsdNum osd);
    runtime::Task<int64_t> sync_all(bool background);
    runtime::Task<> autosync();

    // ---- listing.cpp
    runtime::Task<> list_secondary(Op* op);
    runtime::Task<> list_primary(Op* op);
    runtime::Task<> describe(Op* op);
    runtime::Task<> wait_secondary_writes();
    runtime::Task<int64_t> list_store(ListAwait& list);
    runtime::Task<> encode_slices(const std::vector<ObjectVersion>& entries, uint8_t* out);
    runtime::Task<> sort_slices(std::vector<ObjectVersion>* entries);
    runtime::Task<> collect_objects(Pg& pg, store::Listing& listing, const wire::ListRequest& message,
                                    std::vector<ObjectVersion>* out);
    void answer_triples(Op* op, size_t count, uint64_t stable, uint64_t flags, uint64_t tombstones = 0);

    // ---- secondary.cpp
    int check_access(const net::Request& request, const ObjectId& object, uint32_t flags, bool modifies);
    void handle_sub_io(Op* op);
    void handle_sub_delete(Op* op);
    void note_blind_delete(const ObjectId& chunk);
    void handle_sub_sync(Op* op);
    void handle_lock(Op* op);
    runtime::Task<> handle_flush(Op* op);
    runtime::Task<int64_t> change_here(store::StoreOp kind, std::span<const ObjectVersion> list, bool absent_ok);
    runtime::Task<> read_bitmaps(Op* op);
    void read_for_difference(Op* op);
    static void on_difference_read(store::Operation* operation);
    static void on_sub_io(store::Operation* operation);

    // ---- pg_run.cpp
    runtime::Task<> run_pg(Pg& pg);
    runtime::Task<bool> peer_once(Pg& pg);
    runtime::Task<bool> record_holders(Pg& pg);
    runtime::Task<> lock_peer(Pg& pg, OsdNum osd, uint32_t* failed);
    runtime::Task<> list_peer(Pg& pg, OsdNum osd, store::Listing* out, uint32_t* failed);
    runtime::Task<> list_self(Pg& pg, store::Listing* out, uint32_t* failed);
    runtime::Task<> sync_step(Pg& pg, OsdNum osd, uint32_t* failed);
    runtime::Task<bool> sync_all_of(Pg& pg, std::vector<OsdNum> osds);
    runtime::Task<> flush_batch(Pg& pg, OsdNum osd, pg::FlushKind kind, std::vector<ObjectVersion> batch, uint32_t* failed);
    runtime::Task<bool> flush(Pg& pg, std::vector<pg::FlushAction> actions);
    runtime::Task<> unlock_all(Pg& pg);
    runtime::Task<> unlock_peer(Pg& pg, OsdNum osd);
    runtime::Task<> announce_lock(Pg& pg, OsdNum osd, uint32_t state);
    runtime::Task<> wait_running(Pg& pg);
    pg::Reachability reachability();
    uint64_t expected_entries(const PoolInfo& info) const;
    void move(Pg& pg, pg::PhaseEvent event);
    void publish(Pg& pg);
    void update_state(Pg& pg);
    void kick(Pg& pg);
    void disturb(Pg& pg);
    void disturb_with(OsdNum osd);
    void drop_connections_of(OsdNum osd);
    void release(Pg& pg);
    static void on_kick(runtime::Deferred* deferred);
    void update_wanted();
    void close_dirty_clients(Pg& pg);
    void fail_history_waiters(Pg& pg);
    void erase_pg(Pg* pg);

    // ---- recovery.cpp
    void wake_recovery();
    void put_off_recovery(const ObjectId& object);
    void retry_recovery();
    void run_recovery();
    bool pick_recovery(Pg** pg, ObjectId* object, bool* degraded);
    bool pick_recovery(Pg& pg, bool degraded, size_t* budget, ObjectId* object);
    bool more_to_scan();
    void tune_recovery(uint64_t now_ns);
    void recovery_ended(Op* op, bool success, bool was_degraded);
    void skip_recovery(Op* op);

    runtime::Loop& loop_;
    store::Store& store_;
    const OsdNum osd_num_;
    Logger& logger_;
    OsdEvents& events_;
    net::Peers* peers_ = nullptr;
    net::Server* server_ = nullptr;
    Settings settings_;
    const uint32_t bitmap_bytes_;
    const uint32_t block_size_;
    const uint32_t granularity_;
    const bool readonly_;

    std::map<PoolId, std::unique_ptr<Pool>> pools_;
    std::vector<std::unique_ptr<Pool>> retired_pools_;  ///< removed while PGs still refer to them
    Pool* last_pool_ = nullptr;
    std::map<PgId, std::unique_ptr<Pg>> pgs_;
    std::unordered_map<InodeNum, Inode> inodes_;
    uint64_t inodes_serial_ = 0;  ///< counts their changes
    std::map<OsdNum, net::PeerAddress> up_;
    std::set<OsdNum> wanted_;
    std::set<OsdNum> forward_to_;      ///< primaries that local reads were forwarded to: connections to them are kept
    std::set<ObjectId> scrubs_asked_;  ///< bad copies here whose primary is looking at them
    /// PGs that were led here since the start; PG 0: all of the pool, whose numbers mean other objects now.
    std::set<PgId> led_before_;

    uint64_t lease_until_ns_ = 0;
    bool fenced_ = true;
    bool stopping_ = false;
    bool shut_ = false;

    std::unordered_map<net::Connection*, std::unique_ptr<ClientState>> clients_;
    pg::ConnectionSerial next_serial_ = 1;
    pg::LockTable locks_;
    pg::ListFence list_fence_;
    uint32_t planted_ = 0;
    std::map<std::pair<PgId, OsdNum>, store::Listing> planted_lists_;

    Slices slices_;      ///< computing for requests
    Slices background_;  ///< listings, peering, scrub
    static constexpr uint64_t kListEntriesMax = 512 << 10;  ///< 24 bytes each, up to three times at once
    ListBudget peering_budget_{kListEntriesMax}, listing_budget_{kListEntriesMax};
    ListBudget walk_budget_{2};  ///< listings of the own store at once

    ObjectPool<Op> ops_;
    ObjectPool<SubCall> calls_;
    ObjectPool<ObjectQueue> queue_pool_;
    ObjectPool<EcWork> ec_works_;
    /// Changes begun of erasure-coded objects, by hash: what was read before must not be marked after.
    std::array<uint32_t, 1024> changes_{};
    std::array<ObjectQueue*, 4096> queues_{};
    uint32_t& changes_of(const ObjectId& object) { return changes_[ObjectIdHash{}(object) % changes_.size()]; }
    uint64_t busy_ = 0;
    List<Op> live_primary_, live_secondary_, live_sub_writes_;
    uint64_t next_sequence_ = 1;
    uint64_t synced_up_to_ = 0;  ///< what has a lower number was covered by a SYNC
    runtime::WaitList sub_write_done_;

    RowCache rows_;
    uint64_t activations_ = 0;  ///< of all PGs
    // ---- versions of erasure-coded objects that are not stable yet
    ObjectPool<UnstableObject> unstable_pool_;
    std::array<UnstableObject*, 1024> unstable_{};
    List<UnstableObject> unstable_list_;  ///< all of them; those that are wanted in that order
    size_t unstable_count_ = 0, wanted_count_ = 0, awaited_count_ = 0;
    uint64_t stabilize_due_ns_ = 0;  ///< of the armed timer
    uint64_t wanted_bytes_ = 0;  ///< UnstableObject::bytes of all
    bool stabilizing_ = false;
    uint32_t stabilize_waits_ = 0;  ///< somebody waits: no delay
    runtime::WaitList stable_waiters_;
    std::vector<StabilizeBatch> batches_;      ///< of the batch under way, by OSD
    std::vector<UnstableObject*> sending_;     ///< objects of the batch under way

    // ---- durability of pools that are not `all`
    std::set<OsdNum> unsynced_osds_;
    std::set<PgId> unsynced_pgs_;
    uint64_t unsynced_writes_ = 0;
    bool sync_running_ = false;
    runtime::WaitList sync_turn_;
    bool autosync_queued_ = false;

    // ---- recovery
    uint32_t recovering_ = 0;
    struct RecoveryPace {
        RecoveryTuner tuner;
        uint64_t client_us = 0;  ///< what the tuner takes for the time of client operations
        uint64_t next_ns = 0;    ///< no object starts before
    } pace_degraded_, pace_misplaced_;
    PgId recovery_pg_;               ///< whose turn it is, for recovery_pg_switch objects
    uint64_t recovery_of_pg_ = 0;    ///< started in this turn
    uint64_t recovered_unsynced_ = 0;
    uint64_t recovery_scanned_ = 0;  ///< objects looked at in vain
    uint64_t client_us_ = 0;  ///< time of client operations, of other primaries' too
    static constexpr uint64_t kBusySlotNs = 10'000'000;
    uint64_t busy_slots_ = 0, last_busy_slot_ = 0;  ///< slots of time in which one of them ended
    uint64_t tune_ticks_ = 0, tuned_ns_ = 0, tuned_client_us_ = 0;
    uint64_t recovery_forget_ns_ = 0;  ///< when all of recovery_failed_ get another chance
    struct RecoveryKick : runtime::Deferred {
        Osd* osd = nullptr;
    } recovery_kick_;
    std::set<ObjectId> recovery_failed_;
    struct RecoveryRetry : runtime::Timer {
        Osd* osd = nullptr;
    } recovery_retry_;

    // ---- scrub of PGs
    struct ScrubRun {
        bool chosen = false;    ///< `pg` is at work
        PgId pg;                ///< or the last one
        uint64_t serial = 0;    ///< of the choice: listings of former ones are dropped
        bool listing = false;
        bool at_end = false;    ///< nothing lies behind this batch
        std::vector<ObjectId> batch;
        size_t next = 0;        ///< in batch
        uint32_t running = 0;   ///< objects at work, also those of a PG that was given up
        uint64_t next_start_ns = 0;
        struct Kick : runtime::Deferred {
            Osd* osd = nullptr;
        } kick;
        void forget() {
            chosen = listing = false;
            serial++;
            next = 0;
            batch = {};
        }
    } scrub_;
    struct ForgetKick : runtime::Deferred {
        Osd* osd = nullptr;
    } forget_kick_;

    struct Tick : runtime::Timer {
        Osd* osd = nullptr;
    } tick_, lease_timer_, scrub_timer_, stabilize_timer_;
    uint64_t last_autosync_ns_ = 0;

    std::array<Counters, wire::kMaxOpcode + 1> op_stats_{}, subop_stats_{};
    Counters recovery_degraded_, recovery_misplaced_;
    std::unordered_map<InodeNum, InodeStats> inode_stats_;
    uint64_t slow_primary_ = 0, slow_secondary_ = 0;
};

}  // namespace vitastor::serve

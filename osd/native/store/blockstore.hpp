// SPDX-License-Identifier: GPL-2.0-or-later
// The blockstore behind store.hpp: per-object order, placement of data, durability, the cleaner of the log.
//
// Locks of one object: any number of readers or one modification, in order of submission. A modification changes the index
// only when it is complete (durable under the mode), so that readers and the cleaner see finished states alone. The cleaner waits
// until an object has no entry that is in the log and not yet in the index: what it writes is never older than what stands before it.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "runtime/task.hpp"
#include "store/block_allocator.hpp"
#include "store/checksum_lists.hpp"
#include "store/device.hpp"
#include "store/discarder.hpp"
#include "store/index.hpp"
#include "store/log_groups.hpp"
#include "store/meta_log.hpp"
#include "store/spare_blocks.hpp"
#include "store/store.hpp"
#include "store/throttle.hpp"

namespace vitastor::store {

class ListReader;
class Replay;
class Salvage;

class Blockstore final : public Store, private BlockSink {
public:
    Blockstore(runtime::Loop& loop, const StoreOptions& options, Logger& logger);
    ~Blockstore() override;

    void open(runtime::Completion& done) override;
    const std::string& error() const override { return error_; }
    void submit(Operation& operation) override;
    void list(ListOperation& operation) override;
    void forget_tombstones(PoolId pool, PgNum pg, Version version, runtime::Completion& done) override;
    Version tombstone(const ObjectId& object) const override;
    void set_pool_pgs(PoolId pool, uint32_t pg_count, uint64_t pg_stripe_size) override;
    Version peek(const ObjectId& object, Version version, uint8_t* bitmap) override;
    Newest newest(const ObjectId& object) const override;
    void set_throttle(const ThrottleOptions& throttle) override { throttle_.configure(throttle); }
    void set_write_depth(uint32_t max_write_iodepth) override;
    StoreStats stats() const override;
    std::vector<InodeSpace> space_by_inode() const override;
    void close(runtime::Completion& done) override;
    const StoreOptions& options() const override { return options_; }

private:
    friend class Relayout;

    enum class State { fresh, opening, open, closing, closed, failed };

    /// An object with operations in flight. Recycled, so that its buffer keeps its memory.
    struct ActiveObject {
        ObjectId object;
        ActiveObject* next = nullptr;  ///< in its bucket, or in the list of free ones
        List<Operation> waiting;
        uint32_t readers = 0;
        bool writing = false;
        bool pumping = false;
        std::vector<uint8_t> entry;     ///< of the modification at work; before a write possibly the one that stabilises what is there
        bool entry_appended = false;    ///< it is in the log and not yet in the index
        uint32_t reserved = kNoSlot;    ///< slot of an object that is being created
        bool waits_for_spare = false;   ///< its writer has done nothing yet: the mover may change the object meanwhile
        bool moving = false;            ///< and does
        bool was_moved = false;         ///< since the writer chose a place
    };
    enum class Placement {
        none,       ///< no data
        home,       ///< to granules of the home block that no version reads there: data, then entry
        announced,  ///< over granules in use, as many as the device writes whole or not at all: entry, then data
        decided,    ///< all but one granule as home or spare: data, then entry, then the deciding granule over what is in use
        fresh,      ///< a new home block that needs nothing of the old one
        spare,      ///< a run of a spare block: data, then entry
        rewritten,  ///< a new home block that takes over what the write leaves of the old one
    };
    struct WritePlan {
        Placement placement = Placement::none;
        uint32_t head = kNoSlot;
        uint32_t block = kNoBlock;  ///< home: the old one, or the new one (fresh, rewritten)
        uint32_t first = 0, count = 0;
        uint32_t decider = 0;   ///< decided: number in the block
        bool rest_to_spare = false;  ///< decided: the decider is the first or the last granule, the others go to a spare block
        SparePlace spare{};
        bool uses_spare() const { return placement == Placement::spare || (placement == Placement::decided && rest_to_spare); }
        uint32_t spare_count() const { return placement == Placement::decided ? count - 1 : count; }
        bool is_overwrite = false;  ///< gives its old block back
        bool is_new_block() const { return placement == Placement::fresh || placement == Placement::rewritten; }
    };
    struct Reads {  ///< of one operation, in parallel
        uint32_t running = 0;
        int status = 0;
        runtime::WaitList done;
    };
    struct Piece {  ///< granules that are neighbours on the device
        uint64_t offset;
        uint32_t first, end;
        bool is_home;
    };
    struct MoveBatch {
        uint32_t running = 0;
        uint64_t moved = 0;
        runtime::WaitList done;
    };

    // ---- opening and closing (blockstore_open.cpp)
    runtime::Task<void> run_open(runtime::Completion& done);
    runtime::Task<int> open_store();
    int open_devices();
    struct DeviceUse {
        std::string path;
        bool is_data = true;
        uint64_t offset = 0, size = 0;
        runtime::FileIo io{};
        bool no_fsync = false;
        /// The option's name for this device.
        std::string name(const char* before, const char* after) const {
            return std::string(before) + (is_data ? "data" : "meta") + after;
        }
    };
    void start_discarder();
    int open_device(const DeviceUse& use, std::unique_ptr<Device>& device, uint64_t* bytes);
    bool needs_flush(const DeviceUse& use, const runtime::FileInfo& info);
    runtime::Task<int> format();
    runtime::Task<int> write_superblock(Device& device, uint64_t offset, uint64_t uuid);
    runtime::Task<int> load(uint64_t uuid, bool data_is_blank);
    runtime::Task<int> count_blocks(Salvage* salvage);
    bool count_redirects(uint32_t head);
    runtime::Task<void> name_damage(uint64_t uuid, std::string error);
    void drop_touched(Salvage& salvage);
    runtime::Task<int> rewrite_log();
    runtime::Task<int> settle_replay(Replay& replay);
    runtime::Task<void> run_close(runtime::Completion& done);
    int refuse(int code, std::string text);
    uint64_t meta_area() const { return options_.meta_device.empty() ? options_.data_offset : options_.meta_offset; }
    const std::string& meta_path() const {
        return options_.meta_device.empty() ? options_.data_device : options_.meta_device;
    }

    // ---- order (blockstore.cpp)
    int check(const Operation& operation) const;
    ActiveObject& activate(const ObjectId& object);
    ActiveObject* find_active(const ObjectId& object);
    void pump(ActiveObject& active);
    void start(ActiveObject& active, Operation& operation);
    void finish(ActiveObject* active, Operation& operation, int64_t result);
    void complete(Operation& operation, int64_t result);
    void begin_activity() { activity_++; }
    void end_activity();
    bool admits_now() const { return writes_in_flight_ < write_depth_ && !log_is_low() && !log_->error(); }
    runtime::Task<int> admit();
    runtime::Task<int> wait_for_log_room();
    void release_token();

    // ---- operations (blockstore_read.cpp, blockstore_write.cpp)
    runtime::Task<void> run_read(ActiveObject& active, Operation& operation);
    runtime::Task<int64_t> read_data(Operation& operation, uint32_t slot);
    runtime::Task<int> read_granules(uint32_t slot, uint32_t first, uint32_t end, const iovec* iov, int count, uint32_t base);
    runtime::Task<void> read_piece(uint32_t slot, Piece piece, const iovec* iov, int count, uint32_t base, Reads& reads);
    void find_pieces(uint32_t slot, uint32_t first, uint32_t end, std::vector<Piece>& pieces) const;
    int64_t check_data(Operation& operation, uint32_t slot);
    void log_read_error(uint64_t offset, uint64_t length, int status) const;
    runtime::Task<void> run_modification(ActiveObject& active, Operation& operation);
    runtime::Task<int64_t> write(ActiveObject& active, Operation& operation);
    runtime::Task<int64_t> write_planned(ActiveObject& active, Operation& operation, WritePlan& plan);
    Placement place(WritePlan& plan, bool stable) const;
    uint32_t find_decider(WritePlan& plan, bool stable) const;
    bool may_announce(const WritePlan& plan, bool stable, uint32_t used_inside) const;
    static bool needs_room(const WritePlan& plan) {
        return plan.placement == Placement::spare || plan.placement == Placement::decided || plan.is_new_block() ||
               (plan.placement == Placement::announced && plan.count > 1);
    }
    runtime::Task<int> find_room(ActiveObject& active, WritePlan& plan, bool stable);
    bool take_spare_now(WritePlan& plan);
    runtime::Task<bool> take_spare(ActiveObject& active, WritePlan& plan, bool stable);
    runtime::Task<void> wait_for_spare(ActiveObject& active);
    /// Sets an incompatible bit of the superblock, durably, if it is not set.
    runtime::Task<int> enable(uint64_t feature);
    void settle_spare(const WritePlan& plan);
    void encode_write(ActiveObject& active, const Operation& operation, const WritePlan& plan);
    runtime::Task<int> write_data(const Operation& operation, const WritePlan& plan);
    runtime::Task<int> write_copied(const Operation& operation, uint64_t offset);
    runtime::Task<int> write_rest(const Operation& operation, const WritePlan& plan);
    runtime::Task<int> write_part(const Operation& operation, uint32_t first, uint32_t count, uint64_t offset);
    runtime::Task<int> rewrite_block(const Operation& operation, const WritePlan& plan);
    runtime::Task<int64_t> announced_write(ActiveObject& active, Operation& operation, const WritePlan& plan);
    runtime::Task<int64_t> remove(ActiveObject& active, Operation& operation);
    runtime::Task<int64_t> bury(ActiveObject& active, Operation& operation);
    runtime::Task<int64_t> stabilize(ActiveObject& active, Operation& operation);
    runtime::Task<int64_t> roll_back(ActiveObject& active, Operation& operation);
    runtime::Task<void> run_sync(Operation& operation);
    void encode_simple(ActiveObject& active, EntryType type, Version version);
    /// Logs active.entry, waits if `durable`, applies it. 0 or an error (then the index is as before).
    runtime::Task<int> log_and_apply(ActiveObject& active, bool durable);
    runtime::Task<void> wait_for_cleaner(const ActiveObject& active);
    void apply_entry(ActiveObject& active, uint64_t position);
    void release_block(uint32_t block) override { release_at(block, release_position_); }
    void use_spare(const Redirect& run, uint32_t head) override { spare_.use(run.block, run.place, run.count, head); }
    void release_spare(uint32_t block, uint32_t place, uint32_t count) override {
        spare_.release(block, place, count, release_position_);
    }
    void release_at(uint32_t block, uint64_t position);
    void give_back(uint32_t block);
    void give_back_empty_spare();
    uint64_t spare_limit() const;
    uint64_t hold_back_ns(const Operation& operation);
    double spare_fill() const;
    runtime::Task<uint32_t> allocate_block(ActiveObject& active, bool is_overwrite);
    void end_overwrite(const WritePlan& plan);
    uint64_t block_offset(uint32_t block) const {
        return geometry_.data_offset + uint64_t{block} * geometry_.block_size;
    }
    uint64_t version_cost() const { return sizeof(EntryHeader) + geometry_.version_bytes; }
    uint64_t live_bytes() const {
        return index_bytes() + new_versions_ * version_cost();
    }

    // ---- the mover of spare granules (mover.cpp)
    bool is_spare_short() const;
    bool start_mover(bool idle);
    runtime::Task<void> run_mover(bool idle);
    runtime::Task<uint64_t> empty_spare_blocks(const std::vector<uint32_t>& blocks, bool is_idle);
    runtime::Task<void> move_object(uint32_t owner, uint32_t block, MoveBatch& batch);
    runtime::Task<uint64_t> move_granules(uint32_t head, uint32_t block);
    runtime::Task<int> copy_home(uint32_t slot, const Redirect& run, std::vector<bool>& good);
    void watch_idle();
    static void on_idle(runtime::Timer* timer);

    // ---- checksums that are not in memory (blockstore_lists.cpp); lists_ is null where all are
    runtime::Task<void> fetch_list(uint32_t slot);
    runtime::Task<void> fetch_list_with(uint32_t slot, ListReader& reader);
    runtime::Task<void> fetch_beside(uint32_t slot, Reads& reads);
    runtime::Task<void> fetch_group(uint32_t group);
    void note_list(uint32_t head, const EntryView& entry, uint64_t end);
    void note_full(uint32_t head, uint64_t bytes);
    void settle_lists();
    void trim_lists();
    void write_list(uint32_t slot);

    // ---- the cleaner of the log (cleaner.cpp)
    static void on_batch(void* self);
    void after_batch();
    void cover_slots();
    uint64_t index_bytes() const;
    uint64_t weight_of(uint32_t head) const;
    bool apply_to_index(const EntryView& entry, uint32_t reserved);
    int64_t log_room() const;
    bool log_is_low() const { return log_room() < 0; }
    bool wants_cleaning() const;
    runtime::Task<void> run_cleaner();
    runtime::Task<int> clean_slice();
    runtime::Task<bool> move_tail(bool urgent);
    runtime::Task<void> freeze_front_group();
    bool has_entries_in_flight(uint32_t group);
    void emit_front_group();
    void watch_end();
    static void on_quiet(runtime::Timer* timer);
    runtime::Task<void> run_name_end();

    // ---- listings and PGs (listing.cpp)
    runtime::Task<void> run_list(ListOperation& operation);
    runtime::Task<int> walk(ListOperation& operation);
    runtime::Task<void> run_rebuild(PoolId pool);
    runtime::Task<void> run_forget(PoolId pool, PgNum pg, Version version, runtime::Completion& done);
    bool forget_some(Index::Walker& walker, Version version, int64_t& forgotten);
    void end_generation(uint64_t generation);
    struct PoolWish {
        uint32_t pg_count = 0;
        uint64_t stripe_size = 0;
        bool rebuilding = false;
    };

    runtime::Loop& loop_;
    StoreOptions options_;
    Logger& logger_;
    std::string error_;
    State state_ = State::fresh;
    Geometry geometry_;
    std::unique_ptr<Device> data_;
    std::unique_ptr<Device> separate_meta_;
    Device* meta_ = nullptr;
    uint64_t data_bytes_ = 0, meta_bytes_ = 0;  ///< lengths of the areas
    uint32_t logical_block_ = 512;
    runtime::FileInfo data_info_;
    std::vector<std::string> device_warnings_;
    std::unique_ptr<Index> index_;
    std::unique_ptr<MetaLog> log_;
    BlockAllocator blocks_;
    std::unique_ptr<Discarder> discarder_;
    Throttle throttle_;
    uint64_t throttled_writes_ = 0, throttled_us_ = 0;

    static constexpr uint32_t kActiveBuckets = 1024;
    std::vector<ActiveObject*> active_buckets_;
    std::vector<std::unique_ptr<ActiveObject>> active_pool_;
    ActiveObject* free_active_ = nullptr;
    uint64_t activity_ = 0;  ///< operations, listings, background tasks
    runtime::WaitList idle_waiters_;
    uint32_t submitting_ = 0;
    List<Operation> done_;
    struct DoneTurn : runtime::Deferred {
        Blockstore* store = nullptr;
    } done_turn_;

    uint32_t write_depth_ = 128;
    uint32_t writes_in_flight_ = 0;
    runtime::WaitList token_waiters_;
    runtime::WaitList room_waiters_;
    uint32_t stalled_ = 0;

    std::deque<std::pair<uint64_t, uint32_t>> pending_free_;  ///< {log position that must be durable, block}
    uint64_t release_position_ = 0;
    uint64_t overwrite_reserve_ = 0;  ///< blocks that only overwrites may take
    uint32_t overwrites_in_flight_ = 0;
    runtime::WaitList block_waiters_;
    uint64_t new_versions_ = 0;
    uint64_t new_tombstones_ = 0;  ///< on their way

    uint64_t uuid_ = 0;
    SpareBlocks spare_;
    uint64_t redirect_limit_ = 0;  ///< bytes of the log that redirects may take
    bool enabling_ = false;        ///< the superblock is being written
    bool is_relaid_ = false;       ///< a resize has changed what closing would write
    runtime::WaitList enable_waiters_;
    Buffer gap_buffer_;  ///< receives what reads pass over; never looked at
    bool moving_ = false;
    uint64_t mover_pass_ = 0;
    uint64_t mover_progress_ = 0;  ///< turns in which something was moved
    runtime::WaitList spare_waiters_;
    uint64_t spare_waiting_ = 0;  ///< writers in it
    uint64_t moved_bytes_ = 0;
    uint64_t submitted_ = 0;
    struct IdleTimer : runtime::Timer {
        Blockstore* store = nullptr;
        uint64_t submitted = 0;
    } idle_timer_;

    struct QuietTimer : runtime::Timer {
        Blockstore* store = nullptr;
        uint64_t sequence = 0;  ///< that was durable when it was armed
    } quiet_timer_;
    bool naming_end_ = false;

    LogGroups groups_;
    static constexpr uint32_t kNoGroup = UINT32_MAX;
    uint32_t frozen_group_ = kNoGroup;    ///< the cleaner is about to write it: no entry of its objects is appended
    runtime::WaitList settled_waiters_;   ///< the cleaner, for entries that were appended before
    runtime::WaitList thawed_waiters_;
    bool cleaning_ = false;
    uint64_t cleaner_bytes_ = 0;
    uint64_t paced_bytes_ = 0;  ///< room of the log, in bytes, that operations have filled
    uint64_t clean_quota_ = 0;
    std::vector<uint8_t> clean_buffer_;

    std::unique_ptr<ChecksumLists> lists_;
    uint32_t held_group_ = kNoGroup;  ///< the cleaner is about to write it: its lists stay in memory
    uint64_t list_reads_ = 0, list_bytes_written_ = 0;

    uint64_t first_generation_ = 0;  ///< operations are counted by generation; a listing waits for those before its own
    std::deque<uint64_t> generations_{0};
    runtime::WaitList generation_waiters_;
    std::map<PoolId, PoolWish> pool_wishes_;
    runtime::WaitList rebuild_waiters_;

    uint64_t client_bytes_written_ = 0;
    uint64_t checksum_errors_ = 0;
    bool failure_logged_ = false;
};

}  // namespace vitastor::store

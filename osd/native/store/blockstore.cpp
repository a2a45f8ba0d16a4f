// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/blockstore.hpp"

#include <algorithm>

#include "store/iov.hpp"

namespace vitastor::store {

using runtime::Task;

namespace {

// Operation::store_data while in flight.
constexpr int kGeneration = 0;  // of modifications
bool is_read(StoreOp op) { return op == StoreOp::read || op == StoreOp::read_bitmap; }
bool is_modification(StoreOp op) { return !is_read(op) && op != StoreOp::sync; }

}  // namespace

std::unique_ptr<Store> create_store(runtime::Loop& loop, const StoreOptions& options, Logger& logger) {
    return std::make_unique<Blockstore>(loop, options, logger);
}

Blockstore::Blockstore(runtime::Loop& loop, const StoreOptions& options, Logger& logger)
    : loop_(loop), options_(options), logger_(logger), throttle_(options.throttle), active_buckets_(kActiveBuckets) {
    done_turn_.store = this;
    idle_timer_.store = this;
    idle_timer_.on_fire = &Blockstore::on_idle;
    quiet_timer_.store = this;
    quiet_timer_.on_fire = &Blockstore::on_quiet;
    done_turn_.on_run = [](runtime::Deferred* self) {
        Blockstore& store = *static_cast<DoneTurn*>(self)->store;
        List<Operation> ready;  // what they submit and what ends at once waits for the next turn
        while (Operation* operation = store.done_.pop_front()) ready.push_back(operation);
        while (Operation* operation = ready.pop_front()) operation->on_done(operation);
    };
}

Blockstore::~Blockstore() { VITASTOR_ASSERT(activity_ == 0); }

// ---------------------------------------------------------------- submission

int Blockstore::check(const Operation& operation) const {
    if (state_ != State::open) return -EIO;
    if (operation.op == StoreOp::sync) return 0;
    if (is_modification(operation.op)) {
        if (options_.readonly) return -EROFS;
        if (log_->error()) return -EIO;
    }
    const bool writes = operation.op == StoreOp::write || operation.op == StoreOp::write_stable;
    if (writes && (operation.version == 0 || operation.version == kNewestVersion)) return -EINVAL;
    if (!writes && operation.op != StoreOp::read) return 0;
    if (operation.offset >= geometry_.block_size || operation.len > geometry_.block_size - operation.offset ||
        operation.offset % geometry_.granularity || operation.len % geometry_.granularity)
        return -EINVAL;
    if (operation.len && iov_bytes(operation.iov, operation.iov_count) != operation.len) return -EINVAL;
    return 0;
}

void Blockstore::submit(Operation& operation) {
    submitting_++;
    submitted_++;
    begin_activity();
    const bool counted = is_modification(operation.op);
    if (counted) {
        operation.store_data[kGeneration] = first_generation_ + generations_.size() - 1;
        generations_.back()++;
    }
    const int error = check(operation);
    if (error) {
        finish(nullptr, operation, error);
    } else if (operation.op == StoreOp::sync) {
        runtime::spawn(run_sync(operation));
    } else {
        ActiveObject& active = activate(operation.object);
        active.waiting.push_back(&operation);
        pump(active);
    }
    submitting_--;
}

Blockstore::ActiveObject* Blockstore::find_active(const ObjectId& object) {
    ActiveObject* active = active_buckets_[ObjectIdHash()(object) % kActiveBuckets];
    while (active && active->object != object) active = active->next;
    return active;
}

Blockstore::ActiveObject& Blockstore::activate(const ObjectId& object) {
    if (ActiveObject* active = find_active(object)) return *active;
    if (!free_active_) {
        active_pool_.push_back(std::make_unique<ActiveObject>());
        free_active_ = active_pool_.back().get();
    }
    ActiveObject& active = *free_active_;
    free_active_ = active.next;
    active.object = object;
    ActiveObject*& bucket = active_buckets_[ObjectIdHash()(object) % kActiveBuckets];
    active.next = bucket;
    bucket = &active;
    return active;
}

/// Starts what may run now. Operations that end at once come back here through finish(): the outermost call goes on.
void Blockstore::pump(ActiveObject& active) {
    if (active.pumping) return;
    active.pumping = true;
    while (Operation* next = active.waiting.front()) {
        if (active.writing || (!is_read(next->op) && active.readers)) break;
        next->unlink();
        start(active, *next);
    }
    active.pumping = false;
    if (active.writing || active.readers) return;
    VITASTOR_ASSERT(active.waiting.empty());
    ActiveObject** place = &active_buckets_[ObjectIdHash()(active.object) % kActiveBuckets];
    while (*place != &active) place = &(*place)->next;
    *place = active.next;
    active.next = free_active_;
    free_active_ = &active;
}

void Blockstore::start(ActiveObject& active, Operation& operation) {
    if (is_read(operation.op)) {
        active.readers++;
        runtime::spawn(run_read(active, operation));
    } else {
        active.writing = true;
        runtime::spawn(run_modification(active, operation));
    }
}

/// The object stays locked until the answer is given: answers come in the order of the operations.
void Blockstore::finish(ActiveObject* active, Operation& operation, int64_t result) {
    const bool counted = is_modification(operation.op);
    const bool reading = is_read(operation.op);
    const uint64_t generation = operation.store_data[kGeneration];
    complete(operation, result);  // the operation may be gone now
    if (active) {
        if (reading) active->readers--;
        else active->writing = false;
        pump(*active);
    }
    if (counted) end_generation(generation);
    end_activity();
}

void Blockstore::complete(Operation& operation, int64_t result) {
    operation.result = result;
    if (!submitting_ && done_.empty()) {
        operation.on_done(&operation);
        return;
    }
    if (done_.empty() && !done_turn_.linked()) loop_.defer(done_turn_);
    done_.push_back(&operation);
}

void Blockstore::end_activity() {
    VITASTOR_ASSERT(activity_ > 0);
    if (--activity_ == 0) idle_waiters_.notify_all();
}

void Blockstore::end_generation(uint64_t generation) {
    generations_[generation - first_generation_]--;
    bool passed = false;
    while (generations_.size() > 1 && generations_.front() == 0) {
        generations_.pop_front();
        first_generation_++;
        passed = true;
    }
    if (passed) generation_waiters_.notify_all();
}

// ---------------------------------------------------------------- how much at a time

/// Waits for one of the places for modifications, and for room in the log. 0 or -EIO.
Task<int> Blockstore::admit() {
    while (writes_in_flight_ >= write_depth_) {
        runtime::WaitList::Waiter waiter = token_waiters_.wait();
        co_await waiter;
    }
    writes_in_flight_++;
    Task<int> room = wait_for_log_room();
    const int status = co_await room;
    co_return status;
}

Task<int> Blockstore::wait_for_log_room() {
    while (log_is_low() && !log_->error()) {
        VITASTOR_PROBE("operation waits for room in the log");
        stalled_++;
        after_batch();
        runtime::WaitList::Waiter waiter = room_waiters_.wait();
        co_await waiter;
        stalled_--;
    }
    co_return log_->error() ? -EIO : 0;
}

void Blockstore::set_write_depth(uint32_t max_write_iodepth) {
    write_depth_ = std::clamp(max_write_iodepth, 1u, kMaxWriteDepth);
    token_waiters_.notify_all();
}

void Blockstore::release_token() {
    writes_in_flight_--;
    token_waiters_.notify_one();
}

// ---------------------------------------------------------------- numbers

Version Blockstore::peek(const ObjectId& object, Version version, uint8_t* bitmap) {
    const uint32_t head = index_ ? index_->find(object) : kNoSlot;
    const uint32_t slot = head == kNoSlot ? kNoSlot : index_->find_version(head, version);
    if (slot == kNoSlot) {
        if (bitmap) memset(bitmap, 0, bitmap_bytes());
        return 0;
    }
    if (bitmap) memcpy(bitmap, index_->bitmap(slot), geometry_.bitmap_bytes);
    return index_->at(slot).version;
}

Store::Newest Blockstore::newest(const ObjectId& object) const {
    const uint32_t head = index_ ? index_->find(object) : kNoSlot;
    if (head == kNoSlot) return {};
    return {index_->at(head).version, index_->at(head).is_stable != 0};
}

Version Blockstore::tombstone(const ObjectId& object) const {
    const uint32_t slot = index_ ? index_->find_any(object) : kNoSlot;
    return slot != kNoSlot && index_->at(slot).state == SlotState::tombstone ? Version{index_->at(slot).version} : 0;
}

StoreStats Blockstore::stats() const {
    StoreStats stats;
    if (!index_ || !log_) return stats;
    stats.total_blocks = geometry_.block_count;
    stats.free_blocks = blocks_.free_count() + pending_free_.size();
    if (discarder_) {
        stats.free_blocks += discarder_->held_blocks();
        stats.discards = discarder_->discards();
        stats.discarded_bytes = discarder_->discarded_bytes();
    }
    stats.throttled_writes = throttled_writes_;
    stats.throttled_us = throttled_us_;
    stats.object_count = index_->object_count();
    stats.tombstone_count = index_->tombstone_count();
    stats.memory_bytes = index_->memory_bytes() + blocks_.memory_bytes() + spare_.memory_bytes() +
                         groups_.memory_bytes();
    stats.device_bytes_written = data_->bytes_written() + (separate_meta_ ? separate_meta_->bytes_written() : 0);
    stats.client_bytes_written = client_bytes_written_;
    stats.data_flushes = data_->flushes_finished();
    stats.data_sync_writes = data_->sync_writes();
    stats.meta_flushes = separate_meta_ ? separate_meta_->flushes_finished() : 0;
    stats.meta_sync_writes = separate_meta_ ? separate_meta_->sync_writes() : 0;
    stats.flushes = stats.data_flushes + stats.meta_flushes;
    stats.checksum_errors = checksum_errors_;
    stats.uuid = log_->uuid();
    stats.log_sequence = log_->durable_sequence();
    stats.spare_blocks = spare_.count();
    stats.spare_granules = spare_.live_granules();
    stats.moved_bytes = moved_bytes_;
    stats.checksum_reads = list_reads_;
    stats.checksum_bytes_written = list_bytes_written_;
    if (lists_) stats.memory_bytes += lists_->memory_bytes();
    return stats;
}

std::vector<InodeSpace> Blockstore::space_by_inode() const {
    std::vector<InodeSpace> result;
    if (!index_) return result;
    index_->inodes().for_each([&](InodeNum inode, uint64_t blocks) {
        result.push_back({inode, blocks * geometry_.block_size});
    });
    std::sort(result.begin(), result.end(), [](const InodeSpace& a, const InodeSpace& b) { return a.inode < b.inode; });
    return result;
}

}  // namespace vitastor::store

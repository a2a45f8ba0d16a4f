// SPDX-License-Identifier: GPL-2.0-or-later
// Opening: devices and their locks, format or identity check, replay, who owns which block; and closing.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <set>

#include "store/blockstore.hpp"
#include "store/planted.hpp"
#include "store/replay.hpp"
#include "store/salvage.hpp"

namespace vitastor::store {

using runtime::Task;

namespace {

constexpr uint64_t kLockPauseNs = 20 * runtime::kNsPerMs;
constexpr uint32_t kSlice = 4000;  // slots looked at in one turn

using Number = unsigned long long;

bool is_zero(const uint8_t* data, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (data[i]) return false;
    return true;
}

/// No superblock, and nothing else but checkpoints that a formatting which did not end has left.
bool is_fresh(const uint8_t* head) {
    if (!is_zero(head, kPageSize) || !is_zero(head + 3 * kPageSize, kPageSize)) return false;
    for (int page = 1; page <= 2; page++) {
        const uint8_t* data = head + page * kPageSize;
        if (!is_zero(data, kPageSize) && memcmp(data, kCheckpointMagic, sizeof(kCheckpointMagic)) != 0) return false;
    }
    return true;
}

}  // namespace

int Blockstore::refuse(int code, std::string text) {
    error_ = std::move(text);
    return code;
}

void Blockstore::open(runtime::Completion& done) {
    VITASTOR_ASSERT(state_ == State::fresh);
    state_ = State::opening;
    begin_activity();
    runtime::spawn(run_open(done));
}

Task<void> Blockstore::run_open(runtime::Completion& done) {
    NextTurn turn(loop_);
    co_await turn;
    Task<int> opening = open_store();
    const int status = co_await opening;
    state_ = status < 0 ? State::failed : State::open;
    if (status == 0) {
        start_discarder();
        for (const auto& [pool, wish] : pool_wishes_) set_pool_pgs(pool, wish.pg_count, wish.stripe_size);
        watch_idle();
        watch_end();
    }
    end_activity();
    done.on_done(&done, status);
}

Task<int> Blockstore::open_store() {
    if (options_.osd_num == 0) co_return refuse(-EINVAL, "osd_num is 0; OSD numbers start from 1");
    Result<Geometry> geometry = check_geometry(options_);
    if (!geometry.ok()) co_return refuse(geometry.status().code(), geometry.status().message());
    geometry_ = geometry.value();
    int status = open_devices();
    const uint64_t give_up_ns = loop_.now_exact_ns() + options_.lock_wait_ms * runtime::kNsPerMs;
    while (status == -EBUSY && loop_.now_exact_ns() < give_up_ns) {
        meta_ = nullptr;
        separate_meta_.reset();
        data_.reset();
        Pause pause(loop_, kLockPauseNs);
        co_await pause;
        status = open_devices();
    }
    if (status < 0) co_return status;
    for (const std::string& warning : device_warnings_) log(logger_, LogLevel::warning, "%s", warning.c_str());
    if (geometry_.granularity % logical_block_)
        co_return refuse(-EINVAL, options_.data_device + ": bitmap_granularity " + std::to_string(geometry_.granularity) +
                                      " is smaller than the sectors of the device, " + std::to_string(logical_block_));
    write_depth_ = std::clamp(options_.max_write_iodepth, 1u, kMaxWriteDepth);

    const bool separate = !options_.meta_device.empty();
    const uint64_t meta_bytes = separate ? meta_bytes_ : data_bytes_;
    if (meta_bytes < kLogStart) co_return lay_out(geometry_, options_, data_bytes_, meta_bytes_).ok()
                                    ? refuse(-ENOSPC, meta_path() + ": the area is too small")
                                    : refuse(-ENOSPC, lay_out(geometry_, options_, data_bytes_, meta_bytes_).message());
    Buffer head = loop_.buffers().allocate(2 * kLogStart);
    iovec iov{head.data(), kLogStart};
    Task<int> reading = meta_->read(&iov, 1, meta_area());
    status = co_await reading;
    if (status < 0) co_return refuse(status, meta_path() + ": cannot read the superblock: " + strerror(-status));
    uint8_t* data_head = head.data() + kLogStart;
    memset(data_head, 0, kPageSize);
    if (separate) {
        iovec data_iov{data_head, kPageSize};
        Task<int> reading_data = data_->read(&data_iov, 1, options_.data_offset);
        status = co_await reading_data;
        if (status < 0) co_return refuse(status, options_.data_device + ": cannot read the superblock: " + strerror(-status));
    }
    const bool data_is_blank = is_zero(data_head, kPageSize);
    if (is_fresh(head.data())) {
        if (!data_is_blank)
            co_return refuse(-EINVAL, options_.data_device + ": the data area is not empty, but " + meta_path() +
                                          " holds no metadata for it; check the device names. Nothing was changed");
        if (!options_.create || options_.readonly)
            co_return refuse(-ENOENT, meta_path() + ": holds no store yet" +
                                          (options_.readonly ? ", and it is opened read-only" : ""));
        Task<int> formatting = format();
        status = co_await formatting;
        if (status < 0) co_return status;
        co_return 0;
    }
    Result<SuperblockInfo> info =
        decode_superblock(head.data(), geometry_, options_, meta_path(), meta_bytes, false);
    if (!info.ok()) co_return refuse(info.status().code(), info.status().message());
    if (info.value().readonly_only && !options_.readonly) {
        options_.readonly = true;
        log(logger_, LogLevel::warning, "%s: the store has features that this program can only read: it is opened read-only. "
                                        "To write, start it with the release that made it or a newer one", meta_path().c_str());
    }
    const uint64_t uuid = info.value().uuid;
    bool copy_is_old = false;  // a resize was interrupted at its very end
    if (separate && !data_is_blank) {
        Geometry again = geometry_;
        Result<SuperblockInfo> data_info =
            decode_superblock(data_head, again, options_, options_.data_device, data_bytes_, true);
        if (!data_info.ok()) co_return refuse(data_info.status().code(), data_info.status().message());
        const Status pair = compare_superblocks({geometry_, info.value(), again, data_info.value()}, options_, &copy_is_old);
        if (!pair.ok()) co_return refuse(pair.code(), pair.message());
    }
    Task<int> loading = load(uuid, separate && data_is_blank);
    status = co_await loading;
    if (status == 0 && copy_is_old && !options_.readonly) {
        Task<int> writing = write_superblock(*data_, options_.data_offset, uuid);
        status = co_await writing;
        if (status < 0) co_return refuse(status, options_.data_device + ": cannot write the superblock");
    }
    co_return status;
}

// ---------------------------------------------------------------- a fresh area

Task<int> Blockstore::write_superblock(Device& device, uint64_t offset, uint64_t uuid) {
    Buffer page = loop_.buffers().allocate(kPageSize);
    encode_superblock(page.data(), geometry_, options_, uuid);
    Task<int> writing = device.write_page(offset, page.data());
    const int status = co_await writing;
    co_return status;
}

Task<int> Blockstore::format() {
    Status fits = lay_out(geometry_, options_, data_bytes_, meta_bytes_);
    if (!fits.ok()) co_return refuse(fits.code(), fits.message());
    const uint64_t uuid = loop_.random_u64() | 1;
    geometry_.incompatible |= kSpareGranules | kTombstones | kDecided;
    index_ = std::make_unique<Index>(geometry_);
    log_ = std::make_unique<MetaLog>(*meta_, *data_, geometry_, uuid);
    log_->start(LogMark{}, LogMark{}, 0, 0);
    Task<int> checkpoint = log_->set_tail(LogMark{});
    int status = co_await checkpoint;
    if (status == 0) {
        Task<int> writing = write_superblock(*meta_, meta_area(), uuid);
        status = co_await writing;
    }
    if (status == 0 && !options_.meta_device.empty()) {
        Task<int> writing = write_superblock(*data_, options_.data_offset, uuid);
        status = co_await writing;
    }
    if (status < 0) co_return refuse(status, meta_path() + ": cannot write the superblock: " + strerror(-status));
    Task<int> loading = load(uuid, false);
    status = co_await loading;
    if (status == 0)
        log(logger_, LogLevel::info, "%s: made a new store for OSD %llu: %llu blocks of %u bytes, %llu bytes of metadata log",
            options_.data_device.c_str(), Number(options_.osd_num), Number(geometry_.block_count), geometry_.block_size,
            Number(geometry_.log_pages * kPageSize));
    co_return status;
}

// ---------------------------------------------------------------- an existing store

Task<int> Blockstore::load(uint64_t uuid, bool data_is_blank) {
    uuid_ = uuid;
    groups_.reset(static_cast<uint32_t>(std::clamp<uint64_t>(LogGroups::kStepBytes / geometry_.entry_bytes, 1, 64)));
    index_ = std::make_unique<Index>(geometry_);
    log_ = std::make_unique<MetaLog>(*meta_, *data_, geometry_, uuid);
    if (!options_.checksums_in_memory) index_->allow_swapping();
    if (index_->may_swap()) {
        lists_ = std::make_unique<ChecksumLists>();
        log_->remember_places();
    }
    Replay replay(*meta_, *data_, *index_, uuid, meta_path(), logger_);
    Salvage salvage(geometry_, meta_path(), logger_);
    if (options_.skip_damaged_metadata) replay.observer = &salvage;
    Task<int> replaying = replay.run();
    int status = co_await replaying;
    if (status == -EIO && !replay.observer) {
        Task<void> naming = name_damage(uuid, replay.error());
        co_await naming;
        co_return status;
    }
    if (status < 0) co_return refuse(status, replay.error());
    if (salvage.damages()) drop_touched(salvage);
    if (data_is_blank) {
        if (replay.entries)
            co_return refuse(-EINVAL, options_.data_device + ": the data area is empty, but the metadata on " +
                                          options_.meta_device + " describes data on it; check the device names");
        if (!options_.readonly) {  // formatting was interrupted
            Task<int> writing = write_superblock(*data_, options_.data_offset, uuid);
            status = co_await writing;
            if (status < 0) co_return refuse(status, options_.data_device + ": cannot write the superblock");
        }
    }
    log_->start(replay.tail, replay.end, replay.max_sequence + loop_.random_u64() % (1u << 20),
                replay.checkpoint_sequence, replay.promised == replay.end.previous);
    log_->note_objects(index_->linked_count());
    Task<int> counting = count_blocks(options_.skip_damaged_metadata ? &salvage : nullptr);
    status = co_await counting;
    if (status < 0) co_return status;
    if (salvage.damages()) salvage.report(options_.readonly ? "left out" : "dropped; if other copies exist, they bring it back");
    Task<int> settling = settle_replay(replay);
    status = co_await settling;
    if (status == 0 && salvage.damages() && !options_.readonly) {
        Task<int> rewriting = rewrite_log();
        status = co_await rewriting;
    }
    if (status < 0) co_return refuse(status, meta_path() + ": cannot write to the metadata log: " + strerror(-status));
    if (replay.entries)
        log(logger_, LogLevel::info, "%s: loaded %llu objects; %llu of %llu blocks are free", meta_path().c_str(),
            Number(index_->object_count()), Number(blocks_.free_count()), Number(geometry_.block_count));
    co_return 0;
}

/// Marks the blocks of all versions as taken, and spare blocks with the granules that versions have in them. A block with two
/// owners, or a granule of a spare block with two, is damage.
Task<int> Blockstore::count_blocks(Salvage* salvage) {
    std::set<uint32_t> disputed;
    blocks_.reset(geometry_.block_count);
    spare_.reset(geometry_.granules);
    const uint64_t all_objects = geometry_.block_count * version_cost();
    const uint64_t limit = geometry_.live_limit_bytes();
    redirect_limit_ = std::min(geometry_.redirect_bytes_max(), limit > all_objects ? limit - all_objects : 0);
    overwrite_reserve_ = std::clamp<uint64_t>(geometry_.block_count / 1024, 2, 128);
    for (uint32_t slot = 0; slot < index_->slot_count(); slot++) {
        if (slot % kSlice == kSlice - 1) {
            NextTurn turn(loop_);
            co_await turn;
        }
        if (index_->at(slot).state != SlotState::head) continue;
        if (!count_redirects(slot)) {
            if (salvage) {
                salvage->touch(index_->object(slot));
                for (uint32_t version = slot; version != kNoSlot; version = index_->at(version).older)
                    for (const Redirect& run : index_->redirects(version)) disputed.insert(run.block);
                continue;
            }
            char text[256];
            snprintf(text, sizeof(text), ": the metadata is damaged: granules of object %llx:%llx lie in a place that belongs to "
                     "something else. If other copies of the data exist, replace this OSD",
                     Number(index_->object(slot).inode), Number(index_->at(slot).stripe));
            co_return refuse(-EIO, meta_path() + text);
        }
        uint32_t previous = kNoBlock;  // versions that share a block are neighbours
        for (uint32_t version = slot; version != kNoSlot; version = index_->at(version).older) {
            const uint32_t block = index_->at(version).block;
            if (block == kNoBlock || block == previous) continue;
            previous = block;
            if (blocks_.take(block)) continue;
            if (salvage) {
                disputed.insert(block);
                continue;
            }
            char text[256];
            snprintf(text, sizeof(text), ": the metadata is damaged: block %u belongs to two objects, one of them %llx:%llx. "
                     "If other copies of the data exist, replace this OSD", block,
                     Number(index_->object(slot).inode), Number(index_->at(slot).stripe));
            co_return refuse(-EIO, meta_path() + text);
        }
    }
    if (disputed.empty()) co_return 0;
    for (uint32_t slot = 0; slot < index_->slot_count(); slot++) {
        if (index_->at(slot).state != SlotState::head) continue;
        for (uint32_t version = slot; version != kNoSlot; version = index_->at(version).older) {
            bool is_disputed = disputed.count(index_->at(version).block) > 0;
            for (const Redirect& run : index_->redirects(version)) is_disputed = is_disputed || disputed.count(run.block) > 0;
            if (is_disputed) salvage->touch(index_->object(slot));
        }
    }
    salvage->on_damage(geometry_.log_offset, std::to_string(disputed.size()) + " blocks have two owners");
    drop_touched(*salvage);
    Task<int> again = count_blocks(nullptr);
    const int status = co_await again;
    co_return status;
}

/// Removes the touched objects from the index. Before blocks are counted for the last time.
void Blockstore::drop_touched(Salvage& salvage) {
    struct Nobody final : BlockSink {
        void release_block(uint32_t) override {}
        void use_spare(const Redirect&, uint32_t) override {}
        void release_spare(uint32_t, uint32_t, uint32_t) override {}
    } nobody;
    salvage.settle();
    for (const ObjectId& object : salvage.touched()) {
        EntryView entry{};
        entry.header.size = sizeof(entry.header);
        entry.header.type = EntryType::del;
        entry.header.inode = object.inode;
        entry.header.stripe = object.stripe;
        entry.header.version = kNewestVersion;
        index_->apply(entry, kNoSlot, nobody);
    }
}

/// The start was refused because of damage: reads once more, behind it too, to say which objects it touches.
Task<void> Blockstore::name_damage(uint64_t uuid, std::string error) {
    index_ = std::make_unique<Index>(geometry_);
    Salvage salvage(geometry_, meta_path(), logger_);
    Replay replay(*meta_, *data_, *index_, uuid, meta_path(), logger_);
    replay.observer = &salvage;
    Task<int> replaying = replay.run();
    const int status = co_await replaying;
    if (status == 0 && salvage.damages()) {
        salvage.settle();
        salvage.report("it would be dropped");
        error += ". To start without the " + std::to_string(salvage.touched().size()) +
                 " objects that are known to be touched (named in the log), set skip_corrupted_meta_entries once";
    }
    refuse(-EIO, std::move(error));
}

/// Everything is written to the log anew and its start moves behind the damage, so that the next start is an ordinary one.
Task<int> Blockstore::rewrite_log() {
    cleaning_ = true;
    int status = 0;
    const uint64_t end = log_->mark().slot;
    for (size_t i = 0; i < groups_.size() && status == 0 && groups_.front_mark().slot < end; i++) {
        Task<int> cleaning = clean_slice();
        status = co_await cleaning;
    }
    if (status == 0) {
        Task<bool> moving = move_tail(true);
        const bool moved = co_await moving;
        if (!moved) log_->fail(log_->error() ? log_->error() : -EIO);
        log(logger_, LogLevel::info, "%s: the metadata is written anew, without the damage", meta_path().c_str());
    }
    cleaning_ = false;
    co_return status;
}

bool Blockstore::count_redirects(uint32_t head) {
    struct Use {
        uint64_t place;  ///< granule of the data area
        uint32_t granule;
        auto operator<=>(const Use&) const = default;
    };
    std::vector<Use> uses;
    for (uint32_t slot = head; slot != kNoSlot; slot = index_->at(slot).older)
        for (const Redirect& run : index_->redirects(slot))
            for (uint32_t i = 0; i < run.count; i++)
                uses.push_back({uint64_t{run.block} * geometry_.granules + run.place + i, uint32_t{run.first} + i});
    std::sort(uses.begin(), uses.end());
    for (size_t i = 0; i < uses.size(); i++) {
        if (i > 0 && uses[i].place == uses[i - 1].place) {
            if (uses[i].granule != uses[i - 1].granule) return false;
            continue;  // several versions share it
        }
        const auto block = static_cast<uint32_t>(uses[i].place / geometry_.granules);
        const auto place = static_cast<uint32_t>(uses[i].place % geometry_.granules);
        if (!spare_.contains(block)) {
            if (!blocks_.take(block)) return false;
            spare_.load(block);
        }
        if (spare_.owner(block, place) != SpareBlocks::kNoOwner) return false;
        spare_.use(block, place, 1, head);
    }
    return true;
}

/// Groups for the cleaner, lists of PGs, and the entries that take unfinished writes back.
Task<int> Blockstore::settle_replay(Replay& replay) {
    const LogMark end = log_->mark();
    for (const auto& [pool, wish] : pool_wishes_) {  // the lists are empty yet: nothing has to be moved
        index_->set_pool_pgs(pool, wish.pg_count, wish.stripe_size);
        while (!index_->rebuild_step(index_->pool(pool), UINT32_MAX)) continue;
    }
    index_->end_loading(0, 0);
    LogMark first = end;
    uint64_t weight = 0, logged = 0;  // of the group
    for (uint32_t slot = 0; slot < index_->slot_count(); slot++) {
        if (slot % kSlice == kSlice - 1) {
            NextTurn turn(loop_);
            co_await turn;
        }
        if (index_->is_linked(slot)) {
            const LogMark& needed = replay.marks[index_->note(slot)];
            if (needed.slot < first.slot) first = needed;
            index_->end_loading(slot, slot + 1);
            weight += weight_of(slot);
            logged += index_->full_bytes(slot);
            if (lists_ && index_->at(slot).state == SlotState::head && index_->granule_count(slot) > 0 && !index_->is_swapped(slot))
                lists_->set(slot, {});
        }
        if ((slot + 1) % groups_.slots_per_group() == 0 || slot + 1 == index_->slot_count()) {
            groups_.load(first, weight, logged);
            first = end;
            weight = logged = 0;
        }
    }
    groups_.end_loading();
    if (options_.readonly) co_return 0;
    // What replay has seen may still be in a volatile cache; from now on it counts as durable.
    log_->note_data_written();
    Task<int> flushing = meta_->flush();
    int status = co_await flushing;
    if (status < 0) co_return status;
    // The entries may fill several pages: if the power fails between them, the rest has to be looked at again.
    LogIntent undecided;
    log_->hold_complete_page(undecided, replay.complete_page());
    std::vector<uint32_t> told = replay.reverted;
    if (VITASTOR_FAULT(taken_back_unsaid)) told.clear();
    for (uint32_t slot : told) {
        if (index_->at(slot).state != SlotState::head) continue;  // dropped because of damage
        clean_buffer_.clear();
        index_->encode_full(slot, clean_buffer_);
        log_->append(clean_buffer_);
    }
    Task<int> committing = log_->commit();
    status = co_await committing;
    undecided.unlink();
    paced_bytes_ = log_->next_slot() * kPagePayload;
    log_->on_batch = &Blockstore::on_batch;
    log_->on_batch_arg = this;
    co_return status;
}

// ---------------------------------------------------------------- the end

void Blockstore::close(runtime::Completion& done) {
    runtime::spawn(run_close(done));
}

Task<void> Blockstore::run_close(runtime::Completion& done) {
    int status = 0;
    if (state_ == State::open) state_ = State::closing;
    if (discarder_) discarder_->stop();
    loop_.disarm(idle_timer_);
    loop_.disarm(quiet_timer_);
    NextTurn first(loop_);
    co_await first;
    while (activity_ > 0) {
        runtime::WaitList::Waiter waiter = idle_waiters_.wait();
        co_await waiter;
    }
    if (log_) log_->on_batch = nullptr;  // no more cleaning
    if (state_ == State::closing && !options_.readonly && log_->has_work()) {
        Task<int> committing = log_->commit();
        status = co_await committing;
    }
    if (status == 0 && state_ == State::closing && !options_.readonly && !is_relaid_) {
        Task<int> naming = log_->name_end();
        status = co_await naming;
    }
    for (;;) {
        NextTurn turn(loop_);  // lets the last coroutines end
        co_await turn;
        runtime::WaitList* busy = log_ && !log_->is_idle() ? &log_->ended : discarder_ && !discarder_->is_idle() ? &discarder_->ended : nullptr;
        if (!busy) break;
        runtime::WaitList::Waiter waiter = busy->wait();
        co_await waiter;
    }
    state_ = State::closed;
    log_.reset();
    discarder_.reset();
    separate_meta_.reset();
    data_.reset();
    index_.reset();
    done.on_done(&done, status);
}

}  // namespace vitastor::store

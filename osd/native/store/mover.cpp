// SPDX-License-Identifier: GPL-2.0-or-later
// The mover: copies granules that live in spare blocks back to their home blocks, so that spare blocks become free again.
//
// It works when spare blocks are short, for writes that wait for one, and after a while without requests; one spare block at a
// time, the one with the least in it first. Like every modification it has the object to itself; objects in use are left
// for later. The order is that of any write: data into granules that nobody reads, durably so, then the entry.
#include <algorithm>

#include "base/crc32c.hpp"
#include "store/blockstore.hpp"

namespace vitastor::store {

using runtime::Task;

namespace {

constexpr uint32_t kMoves = 16;                             // objects at a time
constexpr uint32_t kMaxMoved = 256;                         // of one object in one entry
constexpr uint64_t kVictimBytes = 512 << 10;                // of spare blocks emptied together, at least one block
constexpr uint32_t kPassVictims = 256;                      // after so many, blocks that could not be moved are tried again
constexpr uint64_t kMoveBytes = 1 << 20;                    // of one transfer
constexpr uint64_t kIdleNs = 1000 * runtime::kNsPerMs;      // without requests

}  // namespace

/// Near the limit: time to make room before somebody has to wait for it.
bool Blockstore::is_spare_short() const {
    const uint64_t limit = spare_limit();
    return spare_.count() > limit - std::max<uint64_t>(limit / 16, 1);
}

/// 0 … 1 over the last quarter of the spare room: what the data device still has to write a second time.
double Blockstore::spare_fill() const {
    return std::clamp(4 * static_cast<double>(spare_.count()) / static_cast<double>(spare_limit()) - 3, 0.0, 1.0);
}

/// True if the mover is at work now.
bool Blockstore::start_mover(bool idle) {
    if (moving_) return true;
    if (state_ != State::open || options_.readonly || log_->error() || spare_.count() == 0) return false;
    moving_ = true;
    begin_activity();
    runtime::spawn(run_mover(idle));
    return true;
}

Task<void> Blockstore::run_mover(bool idle) {
    mover_pass_++;
    const uint64_t submitted = submitted_;
    uint64_t victims = 0;
    NextTurn turn(loop_);
    co_await turn;
    for (;;) {
        Task<int> room = wait_for_log_room();
        const int status = co_await room;
        const bool is_wanted = is_spare_short() || !spare_waiters_.empty();
        if (status < 0 || state_ != State::open || !(is_wanted || (idle && submitted == submitted_))) break;
        // Several, if as many wait: they share the pages of the log.
        const uint64_t most = std::clamp<uint64_t>(spare_waiting_, 1, std::max<uint64_t>(kVictimBytes / geometry_.block_size, 1));
        std::vector<uint32_t> blocks;
        while (blocks.size() < most) {
            const uint32_t block = spare_.victim(mover_pass_, idle || !spare_waiters_.empty());
            if (block == kNoBlock || std::count(blocks.begin(), blocks.end(), block)) break;
            blocks.push_back(block);
        }
        if (blocks.empty()) break;
        if (blocks.size() > 1) VITASTOR_PROBE("mover empties several blocks for several writers");
        Task<uint64_t> emptying = empty_spare_blocks(blocks, idle);
        const uint64_t emptied = co_await emptying;
        if (emptied) mover_progress_++;
        victims += emptied;
        if (victims >= kPassVictims) {
            victims = 0;
            mover_pass_++;
        }
        spare_waiters_.notify_all();
        NextTurn next(loop_);
        co_await next;
    }
    moving_ = false;
    spare_waiters_.notify_all();
    end_activity();
}

/// The number of blocks from which something was moved.
Task<uint64_t> Blockstore::empty_spare_blocks(const std::vector<uint32_t>& blocks, bool is_idle) {
    // A home is free for sure only when the entry that left it is durable.
    const bool is_waited_for = is_idle || !spare_waiters_.empty();
    if (is_waited_for || options_.immediate_commit != wire::ImmediateCommit::all) {
        Task<int> committing = log_->commit();
        const int status = co_await committing;
        if (status < 0) co_return 0;
    }
    uint64_t emptied = 0;
    for (uint32_t block : blocks) {
        const std::vector<uint32_t> owners = spare_.owners(block);
        MoveBatch batch;
        for (uint32_t owner : owners) {
            while (batch.running >= kMoves) {
                runtime::WaitList::Waiter waiter = batch.done.wait();
                co_await waiter;
            }
            batch.running++;
            runtime::spawn(move_object(owner, block, batch));
        }
        while (batch.running > 0) {
            runtime::WaitList::Waiter waiter = batch.done.wait();
            co_await waiter;
        }
        if (batch.moved) emptied++;
        else spare_.exclude(block, mover_pass_);
    }
    // Else the page of the next operation takes the entries along.
    if (emptied && is_waited_for) {
        Task<int> ending = log_->commit();
        const int status = co_await ending;
        if (status < 0) co_return 0;
    }
    co_return emptied;
}

Task<void> Blockstore::move_object(uint32_t owner, uint32_t block, MoveBatch& batch) {
    if (index_->at(owner).state == SlotState::head) {
        const ObjectId object = index_->object(owner);
        if (ActiveObject* used = find_active(object)) {
            if (used->waits_for_spare && !used->moving) {
                VITASTOR_PROBE("mover takes an object whose writer waits for it");
                used->moving = true;
                Task<uint64_t> moving = move_granules(owner, block);
                const uint64_t moved = co_await moving;
                used->moving = false;
                used->was_moved = used->was_moved || moved > 0;
                batch.moved += moved;
            } else {
                VITASTOR_PROBE("mover leaves an object in use");
            }
        } else {
            ActiveObject& active = activate(object);
            active.writing = true;
            Task<uint64_t> moving = move_granules(owner, block);
            const uint64_t moved = co_await moving;
            batch.moved += moved;
            active.writing = false;
            pump(active);
        }
    }
    batch.running--;
    batch.done.notify_all();
}

/// Moves what versions of the object have in the spare block, if nobody reads its home. The number of granules.
Task<uint64_t> Blockstore::move_granules(uint32_t head, uint32_t block) {
    if (log_is_low() || log_->error() || index_->redirect_position(head) > log_->durable()) co_return 0;
    if (index_->is_swapped(head)) {
        Task<void> fetching = fetch_list(head);
        co_await fetching;
    }
    struct Part {
        uint32_t granule, place, slot;
    };
    std::vector<Part> parts;
    for (uint32_t slot = head; slot != kNoSlot; slot = index_->at(slot).older)
        for (const Redirect& run : index_->redirects(slot))
            for (uint32_t i = 0; run.block == block && i < run.count; i++)
                parts.push_back({uint32_t{run.first} + i, uint32_t{run.place} + i, slot});
    // Of two versions that have one granule in different places, the newer one gets the home.
    std::stable_sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.granule < b.granule; });
    parts.erase(std::unique(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.granule == b.granule; }),
                parts.end());
    std::erase_if(parts, [&](const Part& part) {
        const bool used = index_->is_home_used(head, index_->at(part.slot).block, part.granule, 1);
        if (used) VITASTOR_PROBE("mover leaves a granule whose home is in use");
        return used;
    });
    if (parts.size() > kMaxMoved) parts.resize(kMaxMoved);
    std::vector<Redirect> moved;
    for (size_t i = 0; i < parts.size();) {
        size_t end = i + 1;
        while (end < parts.size() && parts[end].slot == parts[i].slot && parts[end].granule == parts[i].granule + (end - i) &&
               parts[end].place == parts[i].place + (end - i))
            end++;
        const Redirect run{block, static_cast<uint16_t>(parts[i].granule), static_cast<uint16_t>(end - i),
                           static_cast<uint16_t>(parts[i].place), 0};
        std::vector<bool> good(run.count, true);
        Task<int> copying = copy_home(parts[i].slot, run, good);
        const int status = co_await copying;
        for (uint32_t k = 0; status == 0 && k < run.count; k++) {
            if (!good[k]) continue;
            const Redirect one{block, static_cast<uint16_t>(run.first + k), 1, static_cast<uint16_t>(run.place + k), 0};
            if (!moved.empty() && moved.back().end() == one.first && moved.back().place + moved.back().count == one.place)
                moved.back().count++;
            else
                moved.push_back(one);
        }
        i = end;
    }
    if (moved.empty()) co_return 0;
    log_->note_data_written();
    uint64_t granules = 0;
    for (const Redirect& run : moved) granules += run.count;
    moved_bytes_ += granules * geometry_.granularity;
    const ObjectId object = index_->object(head);
    EntryHeader header{};
    header.size = static_cast<uint32_t>(sizeof(header) + moved.size() * sizeof(Redirect));
    header.type = EntryType::moved;
    header.count = static_cast<uint16_t>(moved.size());
    header.inode = object.inode;
    header.stripe = object.stripe;
    header.version = index_->at(head).version;
    std::vector<uint8_t> bytes(header.size);
    memcpy(bytes.data(), &header, sizeof(header));
    memcpy(bytes.data() + sizeof(header), moved.data(), moved.size() * sizeof(Redirect));
    // The index need not wait until the entry is durable: what it gives up is not used again before that.
    log_->append(bytes);
    release_position_ = log_->appended();
    EntryView entry;
    const bool valid = decode_entry(geometry_, bytes, entry);
    VITASTOR_ASSERT(valid);
    const bool applied = apply_to_index(entry, kNoSlot);
    VITASTOR_ASSERT(applied);
    give_back_empty_spare();
    co_return granules;
}

/// Copies a run to the home of a version. good: which granules have their checksum; others stay where they are.
Task<int> Blockstore::copy_home(uint32_t slot, const Redirect& run, std::vector<bool>& good) {
    const uint64_t granularity = geometry_.granularity;
    const uint64_t bytes = run.count * granularity, step = std::max(kMoveBytes, granularity);
    const uint64_t from = block_offset(run.block) + run.place * granularity;
    const uint64_t to = block_offset(index_->at(slot).block) + run.first * granularity;
    Buffer buffer = loop_.buffers().allocate(std::min(bytes, step));
    for (uint64_t done = 0; done < bytes; done += step) {
        iovec iov{buffer.data(), std::min(bytes - done, step)};
        Task<int> reading = data_->read(&iov, 1, from + done);
        int status = co_await reading;
        for (uint64_t at = 0; status == 0 && geometry_.checksums && at < iov.iov_len; at += granularity) {
            const auto index = static_cast<uint32_t>((done + at) / granularity);
            if (crc32c(buffer.data() + at, granularity) == index_->crc(slot, run.first + index)) continue;
            good[index] = false;
            checksum_errors_++;
            const ObjectId object = index_->object(slot);
            log(logger_, LogLevel::error, "%s: wrong checksum of object %llx:%llx version %llu at offset %llu, found while moving it",
                options_.data_device.c_str(), static_cast<unsigned long long>(object.inode),
                static_cast<unsigned long long>(object.stripe), static_cast<unsigned long long>(index_->at(slot).version),
                static_cast<unsigned long long>((run.first + index) * granularity));
        }
        if (status == 0) {
            Task<int> writing = data_->write(&iov, 1, to + done);
            status = co_await writing;
        }
        if (status < 0) {
            log(logger_, LogLevel::error, "%s: cannot move %llu bytes from %llu to %llu: %s", options_.data_device.c_str(),
                static_cast<unsigned long long>(iov.iov_len), static_cast<unsigned long long>(from + done),
                static_cast<unsigned long long>(to + done), strerror(-status));
            co_return status;
        }
    }
    co_return 0;
}

// ---------------------------------------------------------------- when nothing else is to do

void Blockstore::watch_idle() {
    if (spare_.count() == 0 || options_.readonly || idle_timer_.armed() || state_ != State::open) return;
    idle_timer_.submitted = submitted_;
    loop_.arm(idle_timer_, loop_.now_ns() + kIdleNs);
}

void Blockstore::on_idle(runtime::Timer* timer) {
    Blockstore& store = *static_cast<IdleTimer*>(timer)->store;
    if (store.idle_timer_.submitted == store.submitted_ && store.activity_ == 0) {
        VITASTOR_PROBE("mover works while the store is idle");
        store.start_mover(true);
    } else {
        store.watch_idle();
    }
}

}  // namespace vitastor::store

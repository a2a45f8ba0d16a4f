// SPDX-License-Identifier: GPL-2.0-or-later
// Where data goes (docs/adr/0031-spare-granules.md), and the blocks and spare granules that it needs.
#include <algorithm>
#include <bit>
#include <cstring>

#include "store/blockstore.hpp"
#include "store/iov.hpp"
#include "store/planted.hpp"

namespace vitastor::store {

using runtime::Task;

namespace {

constexpr uint64_t kCopyBytes = 1 << 20;         // of a block at a time
constexpr uint32_t kMaxAnnouncedGranules = 256;  // their checksums must fit into what the log keeps free for an entry
constexpr uint64_t kRewriteShare = 2;            // a block is rewritten if it keeps at most 1/2 as much as the write brings

}  // namespace

Blockstore::Placement Blockstore::place(WritePlan& plan, bool stable) const {
    if (plan.count == 0) return Placement::none;
    if (plan.head == kNoSlot || plan.block == kNoBlock) return Placement::fresh;
    uint32_t inside = 0, used = 0;
    for (uint32_t i = 0; i < plan.count; i++) inside += index_->is_allocated(plan.head, plan.first + i);
    if (inside == 0 || VITASTOR_FAULT(in_place)) return Placement::home;
    const Slot& head = index_->at(plan.head);
    const bool is_plain = head.older == kNoSlot && !head.is_redirected;
    if (!is_plain && !index_->is_home_used(plan.head, plan.block, plan.first, plan.count)) {
        if (index_->redirect_position(plan.head) <= log_->durable()) {
            VITASTOR_PROBE("overwrite goes home");
            return Placement::home;
        }
        VITASTOR_PROBE("home is free but not durably");
    } else if (may_announce(plan, stable, inside)) {
        return Placement::announced;
    }
    const uint8_t* bits = index_->allocated(plan.head);
    for (uint32_t i = 0; i < geometry_.bitmap_bytes; i++) used += static_cast<uint32_t>(std::popcount(bits[i]));
    if (used == inside) return Placement::fresh;
    const uint32_t at_home = find_decider(plan, stable);
    if (at_home == 1) {
        VITASTOR_PROBE("a granule decides over others at home");
        return Placement::decided;
    }
    if ((used - inside) * kRewriteShare <= plan.count) return Placement::rewritten;
    // Where spare room is large, most of what is there is overwritten before it has to be moved: not worth a third step.
    const bool is_moved = plan.count * spare_limit() < geometry_.block_count;
    if (at_home && is_moved) VITASTOR_PROBE("a granule decides over others in a spare block");
    return at_home && is_moved ? Placement::decided : Placement::spare;
}

/// How many granules of the range are in use at home, if one of them can decide over the write (plan says which), else 0.
/// The deciding granule is written last, over its old data; whether it is new tells replay whether the write happened. So what
/// its entry gives up must not be used before that granule is durable, which it is when the entry is applied.
uint32_t Blockstore::find_decider(WritePlan& plan, bool stable) const {
    if (!stable || plan.count < 2 || index_->at(plan.head).older != kNoSlot || geometry_.granularity > options_.atomic_write_size) return 0;
    if (data_->is_volatile() && options_.immediate_commit == wire::ImmediateCommit::none) return 0;
    const uint32_t last = plan.first + plan.count - 1;
    uint32_t at_home = 0;
    for (uint32_t granule = plan.first; granule <= last; granule++) {
        if (!index_->is_at_home(plan.head, granule)) continue;
        plan.decider = granule;
        at_home++;
    }
    if (at_home == 1 && index_->redirect_position(plan.head) <= log_->durable()) {
        plan.rest_to_spare = false;
        return 1;
    }
    plan.rest_to_spare = true;
    if (plan.decider != last) plan.decider = plan.first;
    return at_home && index_->is_at_home(plan.head, plan.decider) ? std::max(at_home, 2u) : 0;
}

/// The device writes the range whole or not at all, and every granule of it has an old state at home that replay can tell.
bool Blockstore::may_announce(const WritePlan& plan, bool stable, uint32_t used_inside) const {
    if (!stable || used_inside != plan.count || index_->at(plan.head).older != kNoSlot) return false;
    if (uint64_t{plan.count} * geometry_.granularity > options_.atomic_write_size) return false;
    for (const Redirect& run : index_->redirects(plan.head))
        if (run.first < plan.first + plan.count && plan.first < run.end()) return false;
    return plan.count == 1 ||
           (plan.count <= kMaxAnnouncedGranules && std::has_single_bit(plan.count) && plan.first % plan.count == 0);
}

/// Takes what the placement needs; where there is none of it, another placement. 0, or an error and nothing is taken. -EAGAIN: the
/// mover has changed the object meanwhile, the place must be chosen anew.
Task<int> Blockstore::find_room(ActiveObject& active, WritePlan& plan, bool stable) {
    if (plan.placement == Placement::announced && plan.count > 1) {
        VITASTOR_PROBE("announced write of several granules");
        Task<int> enabling = enable(kSpareGranules);
        const int status = co_await enabling;
        co_return status;
    }
    bool spare_tried = false;
    if (plan.placement == Placement::decided) {
        Task<int> enabling = enable(kDecided);
        const int status = co_await enabling;
        if (status < 0 || !plan.rest_to_spare) co_return status;
    }
    if (plan.uses_spare()) {
        Task<bool> taking = take_spare(active, plan, stable);
        const bool taken = co_await taking;
        if (taken) co_return 0;
        if (log_->error()) co_return -EIO;
        if (active.was_moved) co_return -EAGAIN;
        if (!index_->is_home_used(plan.head, plan.block, plan.first, plan.count)) {
            VITASTOR_PROBE("no spare room: home is made free durably");
            plan.placement = Placement::home;
            Task<int> committing = log_->commit();
            const int status = co_await committing;
            co_return status < 0 ? -EIO : 0;
        }
        VITASTOR_PROBE("no spare room: the block is rewritten");
        plan.placement = Placement::rewritten;
        spare_tried = true;
    }
    if (!plan.is_new_block()) co_return 0;
    plan.is_overwrite = stable && plan.block != kNoBlock;
    Task<uint32_t> allocation = allocate_block(active, plan.is_overwrite);
    const uint32_t block = co_await allocation;
    if (block != kNoBlock) {
        plan.block = block;
        co_return 0;
    }
    plan.is_overwrite = false;
    if (log_->error()) co_return -EIO;
    if (plan.placement == Placement::rewritten && !spare_tried) {
        VITASTOR_PROBE("no free block: the write goes to spare granules");
        plan.placement = Placement::spare;
        Task<bool> taking = take_spare(active, plan, stable);
        const bool taken = co_await taking;
        if (taken) co_return 0;
        if (active.was_moved && !log_->error()) co_return -EAGAIN;
    }
    co_return log_->error() ? -EIO : -ENOSPC;
}

/// A fixed part of the store, and more while blocks are free anyway: the more granules wait in spare blocks, the more of them
/// are overwritten before they have to be moved.
uint64_t Blockstore::spare_limit() const {
    const uint64_t most = geometry_.spare_blocks_max();
    const uint64_t least = std::clamp<uint64_t>(geometry_.block_count / 64, 4, most);
    const uint64_t free = blocks_.free_count() + pending_free_.size() + spare_.count();
    return std::clamp(free / 8 * 7, least, most);
}

/// Spare room for a write that needs nothing else, where it is there for the taking.
bool Blockstore::take_spare_now(WritePlan& plan) {
    if (plan.placement != Placement::spare || enabling_ || !(geometry_.incompatible & kSpareGranules) || plan.count >= geometry_.granules) return false;
    const uint64_t more = (uint64_t{writes_in_flight_} + 1) * 2 * sizeof(Redirect);
    if (index_->redirect_count() * sizeof(Redirect) + more > redirect_limit_) return false;
    const std::optional<SparePlace> place = spare_.take(plan.spare_count());
    if (!place) return false;
    plan.spare = *place;
    if (is_spare_short()) start_mover(false);
    return true;
}

Task<bool> Blockstore::take_spare(ActiveObject& active, WritePlan& plan, bool stable) {
    const uint64_t more = (uint64_t{writes_in_flight_} + 1) * 2 * sizeof(Redirect);  // a run may cut another in two
    if (plan.count >= geometry_.granules || index_->redirect_count() * sizeof(Redirect) + more > redirect_limit_) {
        VITASTOR_PROBE("no room in the log for another redirect");
        co_return false;
    }
    Task<int> enabling = enable(kSpareGranules);
    const int enabled = co_await enabling;
    if (enabled < 0) co_return false;
    // The last block stays for overwrites that need a fresh one; what must stay revocable takes no block of the reserve.
    const uint64_t floor = stable ? 1 : overwrite_reserve_;
    for (;;) {
        if (const std::optional<SparePlace> place = spare_.take(plan.spare_count())) {
            plan.spare = *place;
            if (is_spare_short()) start_mover(false);
            co_return true;
        }
        if (spare_.count() < spare_limit()) {
            if (blocks_.free_count() > floor) {
                spare_.open(blocks_.allocate());
                continue;
            }
            if (!pending_free_.empty()) {
                Task<int> committing = log_->commit();
                const int status = co_await committing;
                if (status < 0) co_return false;
                continue;
            }
            if (discarder_ && discarder_->held_blocks() > 0) {
                runtime::WaitList::Waiter waiter = block_waiters_.wait();
                co_await waiter;
                continue;
            }
        }
        const uint64_t progress = mover_progress_;
        if (!start_mover(false)) co_return false;
        VITASTOR_PROBE("write waits for spare granules");
        Task<void> waiting = wait_for_spare(active);
        co_await waiting;
        if (active.was_moved || log_->error() || (mover_progress_ == progress && !moving_)) co_return false;
    }
}

/// A writer that waits for spare room keeps its object, but lets the mover have it: all that is there may belong to such objects.
Task<void> Blockstore::wait_for_spare(ActiveObject& active) {
    do {
        active.waits_for_spare = true;
        spare_waiting_++;
        runtime::WaitList::Waiter waiter = spare_waiters_.wait();
        co_await waiter;
        spare_waiting_--;
        active.waits_for_spare = false;
    } while (active.moving);
}

/// Older programs must not open a store with what they do not know. Once in its life for each bit; the change fits into one sector.
Task<int> Blockstore::enable(uint64_t feature) {
    while (enabling_) {
        runtime::WaitList::Waiter waiter = enable_waiters_.wait();
        co_await waiter;
    }
    if (geometry_.incompatible & feature) co_return 0;
    VITASTOR_PROBE("a store of an older release gets a new feature");
    enabling_ = true;
    geometry_.incompatible |= feature;
    Task<int> writing = write_superblock(*meta_, meta_area(), uuid_);
    int status = co_await writing;
    if (status == 0 && !options_.meta_device.empty()) {
        Task<int> copying = write_superblock(*data_, options_.data_offset, uuid_);
        status = co_await copying;
    }
    if (status < 0) {
        geometry_.incompatible &= ~feature;
        log(logger_, LogLevel::error, "%s: cannot write the superblock: %s", meta_path().c_str(), strerror(-status));
    }
    enabling_ = false;
    enable_waiters_.notify_all();
    co_return status < 0 ? -EIO : 0;
}

/// The used part of the old block with the new data over it. Old checksums go along: rot is found by the next reader.
Task<int> Blockstore::rewrite_block(const Operation& operation, const WritePlan& plan) {
    const uint32_t granularity = geometry_.granularity;
    const uint64_t write_start = operation.offset, write_end = operation.offset + uint64_t{operation.len};
    uint32_t from = 0, to = geometry_.granules;
    while (from < plan.first && !index_->is_allocated(plan.head, from)) from++;
    while (to > plan.first + plan.count && !index_->is_allocated(plan.head, to - 1)) to--;
    const uint64_t start = uint64_t{from} * granularity, end = uint64_t{to} * granularity;
    const uint64_t step = std::max<uint64_t>(kCopyBytes, granularity);
    Buffer buffer = loop_.buffers().allocate(std::min(end - start, step));
    for (uint64_t position = start; position < end;) {
        const uint64_t length = std::min(end - position, step), stop = position + length;
        iovec iov{buffer.data(), length};
        const auto base = static_cast<uint32_t>(position / granularity);
        const uint64_t cover_start = std::clamp(write_start, position, stop), cover_end = std::clamp(write_end, position, stop);
        const std::pair<uint64_t, uint64_t> kept[2] = {{position, cover_start}, {std::max(cover_end, cover_start), stop}};
        for (const auto& [kept_start, kept_end] : kept) {
            if (kept_start >= kept_end) continue;
            Task<int> reading = read_granules(plan.head, static_cast<uint32_t>(kept_start / granularity),
                                              static_cast<uint32_t>(kept_end / granularity), &iov, 1, base);
            const int status = co_await reading;
            if (status < 0) co_return status;
            for (uint64_t at = kept_start; at < kept_end; at += granularity) {  // holes: not what the memory happened to hold
                if (!index_->is_allocated(plan.head, static_cast<uint32_t>(at / granularity))) memset(buffer.data() + (at - position), 0, granularity);
            }
        }
        if (cover_start < cover_end)
            gather(buffer.data() + (cover_start - position), operation.iov, operation.iov_count, cover_start - write_start,
                   cover_end - cover_start);
        Task<int> writing = data_->write(&iov, 1, block_offset(plan.block) + position);
        const int status = co_await writing;
        if (status < 0) co_return status;
        position = stop;
    }
    co_return 0;
}

// ---------------------------------------------------------------- blocks

/// It may be used again once the log is durable up to the entry that gave it up.
void Blockstore::release_at(uint32_t block, uint64_t position) {
    if (position <= log_->durable() || VITASTOR_FAULT(blocks_at_once)) {
        give_back(block);
        block_waiters_.notify_all();
    } else {
        pending_free_.push_back({position, block});
    }
}

void Blockstore::give_back(uint32_t block) {
    blocks_.free(block);
    if (discarder_) discarder_->on_free(block);
}

void Blockstore::give_back_empty_spare() {
    while (const std::optional<SpareBlocks::Empty> empty = spare_.take_empty()) release_at(empty->block, empty->position);
}

Task<uint32_t> Blockstore::allocate_block(ActiveObject& active, bool is_overwrite) {
    for (;;) {
        if (blocks_.free_count() > (is_overwrite ? 0 : overwrite_reserve_)) {
            if (is_overwrite) overwrites_in_flight_++;
            co_return blocks_.allocate();
        }
        if (!pending_free_.empty()) {
            Task<int> committing = log_->commit();
            const int status = co_await committing;
            if (status < 0) co_return kNoBlock;
        } else if (discarder_ && discarder_->held_blocks() > 0) {
            VITASTOR_PROBE("write waits for a block under discard");
            runtime::WaitList::Waiter waiter = block_waiters_.wait();
            co_await waiter;
        } else if (is_overwrite && overwrites_in_flight_ > 0) {
            VITASTOR_PROBE("overwrite waits for a block");
            runtime::WaitList::Waiter waiter = block_waiters_.wait();
            co_await waiter;
        } else if (spare_.count() > spare_limit()) {
            // Blocks that were free when they became spare ones.
            const uint64_t progress = mover_progress_;
            if (!start_mover(false)) co_return kNoBlock;
            VITASTOR_PROBE("write waits for a spare block to become free");
            Task<void> waiting = wait_for_spare(active);
            co_await waiting;
            if (log_->error() || (mover_progress_ == progress && !moving_)) co_return kNoBlock;
        } else {
            co_return kNoBlock;
        }
    }
}

void Blockstore::end_overwrite(const WritePlan& plan) {
    if (!plan.is_overwrite) return;
    overwrites_in_flight_--;
    block_waiters_.notify_all();
}

}  // namespace vitastor::store

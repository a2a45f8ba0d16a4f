// SPDX-License-Identifier: GPL-2.0-or-later
// The cleaner: writes objects again at the end of the log so that its start can move.
//
// Slots are taken in groups, the one that is needed from the earliest place first. A group that was written again is needed
// from its new place on; the log starts at the place of the front group. The pace follows what operations append, so that the
// log never runs full; operations wait only when less is free than one whole round may take.
#include <algorithm>

#include "store/blockstore.hpp"

namespace vitastor::store {

using runtime::Task;

namespace {

constexpr uint64_t kSliceBytes = 64 << 10;
constexpr uint32_t kSliceSlots = 2048;
constexpr uint64_t kTailSteps = 32;  // the start moves by at least that part of the log, unless room is short

}  // namespace

/// Every slot belongs to a group; new groups are needed from here on at the earliest.
void Blockstore::cover_slots() {
    while (group_marks_.size() * group_slots_ < index_->slot_count()) {
        group_order_.push_back(static_cast<uint32_t>(group_marks_.size()));
        group_marks_.push_back(log_->mark());
    }
}

/// With less than this free, operations wait: one round of the cleaner, and what is in flight.
uint64_t Blockstore::stall_pages() const {
    return Geometry::pages_for(live_bytes()) + geometry_.reserve_pages();
}

/// With less than this free, the cleaner works.
uint64_t Blockstore::clean_pages() const {
    const uint64_t live = Geometry::pages_for(live_bytes());
    const uint64_t stall = stall_pages();
    const uint64_t spare = geometry_.log_pages > live + stall ? geometry_.log_pages - live - stall : 0;
    return stall + spare / 2;
}

void Blockstore::on_batch(void* self) { static_cast<Blockstore*>(self)->after_batch(); }

void Blockstore::after_batch() {
    bool freed = false;
    while (!pending_free_.empty() && pending_free_.front().first <= log_->durable()) {
        give_back(pending_free_.front().second);
        pending_free_.pop_front();
        freed = true;
    }
    if (freed) {
        block_waiters_.notify_all();
        spare_waiters_.notify_all();
    }
    const uint64_t bytes = log_->appended() - cleaner_bytes_ - paced_bytes_;
    paced_bytes_ += bytes;
    const uint64_t free = log_->free_pages();
    const uint64_t begin = clean_pages(), stall = stall_pages();
    if (free >= begin) {
        clean_quota_ = 0;
        return;
    }
    const uint64_t budget = std::max<uint64_t>((begin - stall) * kPagePayload / 2, 1);
    clean_quota_ += bytes * live_bytes() / budget + (bytes ? 256 : 0);
    if (cleaning_ || (clean_quota_ < kSliceBytes && !(stalled_ && free < stall))) return;
    cleaning_ = true;
    begin_activity();
    runtime::spawn(run_cleaner());
}

Task<void> Blockstore::run_cleaner() {
    while (!log_->error() && (clean_quota_ >= kSliceBytes || (stalled_ && log_is_low()))) {
        Task<int> slice = clean_slice();
        const int status = co_await slice;
        if (status < 0) break;
        // After an idle slice the loop must get its turn: operations in flight may hold the start of the log.
        NextTurn turn(loop_);
        co_await turn;
    }
    cleaning_ = false;
    room_waiters_.notify_all();
    end_activity();
}

Task<int> Blockstore::clean_slice() {
    const uint64_t before = log_->appended();
    uint32_t slots = 0;
    for (size_t i = 0; i < group_marks_.size() && slots < kSliceSlots; i++) {
        const uint32_t group = group_order_.front();
        group_order_.pop_front();
        group_order_.push_back(group);
        group_marks_[group] = log_->mark();
        emit_group(group);
        slots += group_slots_;
        if (log_->appended() - before >= kSliceBytes) break;
    }
    const uint64_t bytes = log_->appended() - before;
    cleaner_bytes_ += bytes;
    clean_quota_ -= std::min(clean_quota_, std::max<uint64_t>(bytes, uint64_t{slots} * 8));
    Task<int> committing = log_->commit();
    const int status = co_await committing;
    if (status < 0) co_return status;
    Task<bool> moving = move_tail(log_is_low());
    const bool moved = co_await moving;
    if (moved) room_waiters_.notify_all();
    co_return log_->error();
}

void Blockstore::emit_group(uint32_t group) {
    const uint64_t first = uint64_t{group} * group_slots_;
    const uint64_t end = std::min<uint64_t>(first + group_slots_, index_->slot_count());
    for (uint64_t i = first; i < end; i++) {
        const auto slot = static_cast<uint32_t>(i);
        const Slot& record = index_->at(slot);
        if (!index_->is_linked(slot) && record.state != SlotState::reserved) continue;
        if (record.state != SlotState::reserved) {
            clean_buffer_.clear();
            index_->encode_full(slot, clean_buffer_);
            log_->append(clean_buffer_);
        }
        const ActiveObject* active = writes_in_flight_ ? find_active(index_->object(slot)) : nullptr;
        if (active && active->entry_appended) {
            VITASTOR_PROBE("cleaner repeats an entry in flight");
            log_->append(active->entry);
        }
    }
}

/// Moves the start of the log to the place of the front group, if that is worth a checkpoint. True if it moved.
Task<bool> Blockstore::move_tail(bool urgent) {
    const LogMark target = group_order_.empty() ? log_->mark() : group_marks_[group_order_.front()];
    const LogMark& tail = log_->tail();
    if (target.slot <= tail.slot) co_return false;
    if (!urgent && target.slot - tail.slot < geometry_.log_pages / kTailSteps) co_return false;
    if (target.page > log_->complete_page()) {
        // Announced writes must stay in the log until their data is on disk.
        log_->note_data_written();
        Task<int> committing = log_->commit();
        const int status = co_await committing;
        if (status < 0 || target.page > log_->complete_page()) co_return false;
    }
    Task<int> moving = log_->set_tail(target);
    const int status = co_await moving;
    co_return status == 0;
}

}  // namespace vitastor::store

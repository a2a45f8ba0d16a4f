// SPDX-License-Identifier: GPL-2.0-or-later
// The cleaner: writes objects again at the end of the log so that its start can move.
//
// Slots are taken in groups, the one that is needed from the earliest place first. A group that was written again is needed
// from its new place on; the log starts at the place of the front group. The cleaner waits until the log is nearly as full as
// it may get (log_groups.hpp), because what is written again late is written again less often; then it goes ahead of the
// operations at a fixed ratio, and they wait only when it could not go on otherwise.
#include <algorithm>

#include "store/blockstore.hpp"
#include "store/planted.hpp"

namespace vitastor::store {

using runtime::Task;

namespace {

constexpr uint32_t kSliceSlots = 2048;
constexpr uint64_t kTailSteps = 32;   // the start moves by at least that part of the log, unless room is short
constexpr uint64_t kCleanRate = 8;    // pages written again for each page that operations have filled, while the cleaner is at work
constexpr uint64_t kLeastRoom = 16;   // it is at work when operations have less than that part of the log left
constexpr uint64_t kQuietNs = 10 * runtime::kNsPerSecond;  // without a write to the log: longer than guests wait between commits

}  // namespace

void Blockstore::cover_slots() { groups_.cover(index_->slot_count(), log_->mark()); }

/// What the index holds, as it may lie in the log at most.
uint64_t Blockstore::index_bytes() const {
    return index_->version_count() * version_cost() + index_->redirect_count() * sizeof(Redirect) +
           index_->tombstone_count() * sizeof(EntryHeader);
}

/// Changes the index; the cleaner's books follow.
bool Blockstore::apply_to_index(const EntryView& entry, uint32_t reserved) {
    const EntryType type = entry.header.type;
    const bool names_slot = type == EntryType::write || type == EntryType::full || type == EntryType::tombstone;
    uint32_t slot = names_slot ? kNoSlot : index_->find_any(entry.object());
    const uint64_t before = index_bytes();
    const bool applied = index_->apply(entry, reserved, *this);
    const uint64_t after = index_bytes();
    if (names_slot) slot = index_->applied_slot();
    cover_slots();
    if (after != before && slot != kNoSlot) groups_.change(slot, static_cast<int64_t>(after - before));
    return applied;
}

/// Pages of the log that operations may still fill before the cleaner must have gone on. Negative: they wait.
int64_t Blockstore::log_room() const {
    const uint64_t reserve = geometry_.reserve_pages();
    const uint64_t pages = geometry_.log_pages > reserve ? geometry_.log_pages - reserve : 0;
    const uint64_t live = live_bytes();
    const int64_t room = groups_.room(pages, log_->next_slot(), live, new_versions_ * version_cost() + new_tombstones_ * sizeof(EntryHeader));
    // The start may lie before the front group for a while.
    return std::min(room, static_cast<int64_t>(log_->free_pages()) - static_cast<int64_t>(reserve + groups_.step_pages(live)));
}

/// The log is kept at 7/4 of what is live even if it is longer: entries cost time at a start.
bool Blockstore::wants_cleaning() const {
    if (groups_.empty()) return false;
    const uint64_t pages = geometry_.log_pages - geometry_.reserve_pages(), live = Geometry::pages_for(live_bytes());
    const uint64_t used = log_->next_slot() - groups_.front_mark().slot;
    return used > std::max(live / 4 * 7, pages / 2) || log_room() < static_cast<int64_t>(std::max(live / 8, pages / kLeastRoom));
}

void Blockstore::on_batch(void* self) { static_cast<Blockstore*>(self)->after_batch(); }

void Blockstore::after_batch() {
    log_->note_objects(index_->linked_count());
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
    if (lists_) settle_lists();
    watch_end();
    const uint64_t filled = log_->next_slot() * kPagePayload;
    const uint64_t by_operations = filled > paced_bytes_ + cleaner_bytes_ ? filled - paced_bytes_ - cleaner_bytes_ : 0;
    paced_bytes_ += by_operations;
    if (!wants_cleaning()) {
        clean_quota_ = 0;
        return;
    }
    clean_quota_ += by_operations * kCleanRate;
    if (cleaning_ || (clean_quota_ < LogGroups::kStepBytes && !(stalled_ && log_is_low()))) return;
    cleaning_ = true;
    begin_activity();
    runtime::spawn(run_cleaner());
}

Task<void> Blockstore::run_cleaner() {
    while (!log_->error() && (clean_quota_ >= LogGroups::kStepBytes || (stalled_ && log_is_low()))) {
        Task<int> slice = clean_slice();
        const int status = co_await slice;
        if (status < 0) break;
        NextTurn turn(loop_);  // also after a slice that had nothing to write
        co_await turn;
    }
    cleaning_ = false;
    room_waiters_.notify_all();
    end_activity();
}

Task<int> Blockstore::clean_slice() {
    const uint64_t place = log_->next_slot();
    uint64_t bytes = 0;
    uint32_t slots = 0;
    for (size_t i = 0; i < groups_.size() && slots < kSliceSlots; i++) {
        if (lists_) {
            Task<void> fetching = fetch_group(groups_.front());
            co_await fetching;
        }
        Task<void> freezing = freeze_front_group();
        co_await freezing;
        const uint64_t before = log_->appended();
        if (!log_->error()) emit_front_group();
        held_group_ = frozen_group_ = kNoGroup;
        thawed_waiters_.notify_all();
        if (log_->error()) break;
        slots += groups_.slots_per_group();
        bytes += log_->appended() - before;
        if (bytes >= LogGroups::kStepBytes) break;
    }
    clean_quota_ -= std::min(clean_quota_, std::max<uint64_t>(bytes, uint64_t{slots} * 8));
    if (VITASTOR_FAULT(tail_before_commit)) {
        Task<bool> early = move_tail(true);
        co_await early;
    }
    Task<int> committing = log_->commit();
    const int status = co_await committing;
    if (status < 0) co_return status;
    // All room that went meanwhile, or what it leaves unused would make work for itself without end.
    if (log_->next_slot() > place) cleaner_bytes_ += (log_->next_slot() - place) * kPagePayload;
    Task<bool> moving = move_tail(log_is_low());
    const bool moved = co_await moving;
    if (moved) room_waiters_.notify_all();
    co_return log_->error();
}

bool Blockstore::has_entries_in_flight(uint32_t group) {
    if (writes_in_flight_ == 0) return false;
    const uint64_t first = uint64_t{group} * groups_.slots_per_group();
    const uint64_t end = std::min<uint64_t>(first + groups_.slots_per_group(), index_->slot_count());
    for (uint64_t i = first; i < end; i++) {
        const auto slot = static_cast<uint32_t>(i);
        if (!index_->is_linked(slot) && index_->at(slot).state != SlotState::reserved) continue;
        const ActiveObject* active = find_active(index_->object(slot));
        if (active && active->entry_appended) return true;
    }
    return false;
}

/// Waits until no object of the group has an entry in the log that is not in the index, and lets none be appended. Without that a
/// full entry could become durable behind a newer one, and undo what was acknowledged.
Task<void> Blockstore::freeze_front_group() {
    frozen_group_ = groups_.front();
    while (has_entries_in_flight(frozen_group_) && !log_->error() && !VITASTOR_FAULT(cleaner_hurries)) {
        VITASTOR_PROBE("cleaner waits for entries in flight");
        runtime::WaitList::Waiter waiter = settled_waiters_.wait();
        co_await waiter;
    }
}

/// Before an entry of the object is appended.
Task<void> Blockstore::wait_for_cleaner(const ActiveObject& active) {
    while (frozen_group_ != kNoGroup && !VITASTOR_FAULT(cleaner_hurries)) {
        const uint32_t slot = active.reserved != kNoSlot ? active.reserved : index_->find_any(active.object);
        if (slot == kNoSlot || slot / groups_.slots_per_group() != frozen_group_) co_return;
        VITASTOR_PROBE("operation waits until the cleaner has written its group");
        runtime::WaitList::Waiter waiter = thawed_waiters_.wait();
        co_await waiter;
    }
}

void Blockstore::emit_front_group() {
    const LogMark mark = log_->mark();
    const uint64_t first = uint64_t{groups_.front()} * groups_.slots_per_group();
    const uint64_t end = std::min<uint64_t>(first + groups_.slots_per_group(), index_->slot_count());
    uint64_t weight = 0, logged = 0;
    for (uint64_t i = first; i < end; i++) {
        const auto slot = static_cast<uint32_t>(i);
        if (!index_->is_linked(slot)) continue;
        clean_buffer_.clear();
        index_->encode_full(slot, clean_buffer_);
        log_->append(clean_buffer_);
        note_full(slot, clean_buffer_.size());
        weight += weight_of(slot);
        logged += clean_buffer_.size();
    }
    groups_.rewrite(mark, weight, logged);
}

/// What an object may take in the log at most: its part of index_bytes().
uint64_t Blockstore::weight_of(uint32_t head) const {
    if (index_->at(head).state == SlotState::tombstone) return sizeof(EntryHeader);
    uint64_t bytes = 0;
    for (uint32_t slot = head; slot != kNoSlot; slot = index_->at(slot).older)
        bytes += version_cost() + index_->redirects(slot).size_bytes();
    return bytes;
}

/// Moves the start of the log to the place of the front group, if that is worth a checkpoint. True if it moved. No announced write is
/// passed that may have to be taken back: those under way were waited for, and before a full entry with the new checksums became
/// durable the data was flushed.
Task<bool> Blockstore::move_tail(bool urgent) {
    const LogMark target = groups_.empty() ? log_->mark() : groups_.front_mark();
    const LogMark& tail = log_->tail();
    if (target.slot <= tail.slot) co_return false;
    if (!urgent && target.slot - tail.slot < geometry_.log_pages / kTailSteps) co_return false;
    Task<int> moving = log_->set_tail(target);
    const int status = co_await moving;
    co_return status == 0;
}

// ---------------------------------------------------------------- the end of the log

/// Each page names what was durable before it; so if the newest one rots, nobody misses it. When the log has rested for a while, a
/// checkpoint names it (docs/adr/0037-the-end-is-named.md).
void Blockstore::watch_end() {
    if (quiet_timer_.armed() || naming_end_ || state_ != State::open || options_.readonly || log_->is_end_named()) return;
    quiet_timer_.sequence = log_->durable_sequence();
    loop_.arm(quiet_timer_, loop_.now_ns() + kQuietNs);
}

void Blockstore::on_quiet(runtime::Timer* timer) {
    Blockstore& store = *static_cast<QuietTimer*>(timer)->store;
    if (store.quiet_timer_.sequence != store.log_->durable_sequence() || store.log_->error()) {
        if (!store.log_->error()) store.watch_end();
        return;
    }
    VITASTOR_PROBE("the end of a resting log is named");
    store.naming_end_ = true;
    store.begin_activity();
    runtime::spawn(store.run_name_end());
}

Task<void> Blockstore::run_name_end() {
    Task<int> naming = log_->name_end();
    co_await naming;  // an error ends the log: the next operation says so
    naming_end_ = false;
    watch_end();
    end_activity();
}

}  // namespace vitastor::store

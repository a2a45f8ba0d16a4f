// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/log_groups.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace vitastor::store {

namespace {

/// A step leaves up to a page of the log unused, every kStepBytes.
uint64_t written_pages(uint64_t bytes) { return Geometry::pages_for(bytes + bytes / 16); }

}  // namespace

void LogGroups::reset(uint32_t slots_per_group) {
    *this = LogGroups();
    slots_ = slots_per_group;
    groups_.reserve_first();  // an empty store costs that, not the first object
}

void LogGroups::cover(uint64_t slot_count, const LogMark& mark) {
    while (groups_.size() * slots_ < slot_count) {
        order_.push_back(static_cast<uint32_t>(groups_.size()));
        groups_.push_back(Group{mark, 0, 0});
    }
}

void LogGroups::load(const LogMark& mark, uint64_t weight, uint64_t logged) {
    order_.push_back(static_cast<uint32_t>(groups_.size()));
    groups_.push_back(Group{mark, 0, 0});
    set(groups_.back(), weight, logged);
}

void LogGroups::end_loading() {
    std::stable_sort(order_.begin(), order_.end(), [this](uint32_t a, uint32_t b) {
        return groups_[a].mark.slot < groups_[b].mark.slot;
    });
    loaded_left_ = order_.size();
    loaded_need_ = INT64_MIN;
    for (uint32_t number : order_) {
        loaded_bytes_ += groups_[number].logged;
        const int64_t need = static_cast<int64_t>(written_pages(loaded_bytes_)) - static_cast<int64_t>(groups_[number].mark.slot);
        loaded_need_ = std::max(loaded_need_, need);
    }
}

void LogGroups::set(Group& group, uint64_t weight, uint64_t logged) {
    debt_ -= debt_of(group);
    group.weight = static_cast<uint32_t>(std::min<uint64_t>(weight, UINT32_MAX));
    group.logged = static_cast<uint32_t>(std::min<uint64_t>(logged, UINT32_MAX));
    debt_ += debt_of(group);
    largest_ = std::max<uint64_t>(largest_, group.weight);
}

void LogGroups::rewrite(const LogMark& mark, uint64_t weight, uint64_t logged) {
    const uint32_t number = order_.front();
    order_.pop_front();
    order_.push_back(number);
    Group& group = groups_[number];
    if (loaded_left_) {
        loaded_left_--;
        loaded_bytes_ -= group.logged;
        written_bytes_ += group.logged;
    }
    group.mark = mark;
    set(group, weight, std::min(logged, weight));
    if (++in_round_ < groups_.size()) return;
    in_round_ = 0;
    largest_before_ = largest_;
    largest_ = 0;
}

void LogGroups::change(uint32_t slot, int64_t bytes) {
    VITASTOR_ASSERT(slot / slots_ < groups_.size());
    Group& group = groups_[slot / slots_];
    const uint64_t less = bytes < 0 ? std::min<uint64_t>(static_cast<uint64_t>(-bytes), group.weight) : 0;
    set(group, bytes < 0 ? group.weight - less : group.weight + static_cast<uint64_t>(bytes), group.logged);
}

uint64_t LogGroups::step_pages(uint64_t live_bytes) const {
    return Geometry::pages_for(std::min(live_bytes, kStepBytes + std::max(largest_, largest_before_)));
}

int64_t LogGroups::room(uint64_t pages, uint64_t end, uint64_t live_bytes, uint64_t more_bytes) const {
    const auto whole = static_cast<int64_t>(pages) - static_cast<int64_t>(Geometry::pages_for(live_bytes) / 16);
    if (order_.empty()) return whole;
    const auto last = static_cast<int64_t>(end);
    const auto step = static_cast<int64_t>(step_pages(live_bytes));
    const auto debt = static_cast<int64_t>(Geometry::pages_for(debt_ + more_bytes));
    const auto live = static_cast<int64_t>(Geometry::pages_for(live_bytes));
    const int64_t whole_round = whole - (last - static_cast<int64_t>(front_mark().slot)) - live;  // enough whatever lies where, but for the end of a step (the reserve has room for it)
    // Groups in the order in which they lie, after `before` pages. Groups of one step have one mark: the room of a step comes
    // back only when its last group has been written, which may take the step after it.
    const auto behind = [&](const LogMark& mark, int64_t before) {
        return whole - (last - static_cast<int64_t>(mark.slot)) - before - debt - 2 * step;
    };
    if (!loaded_left_) return std::max(whole_round, behind(front_mark(), 0));
    int64_t room = whole - last - (loaded_need_ - static_cast<int64_t>(written_bytes_ / kPagePayload)) - debt - step;
    if (loaded_left_ < order_.size())
        room = std::min(room, behind(groups_[order_[loaded_left_]].mark, static_cast<int64_t>(written_pages(loaded_bytes_))));
    return std::max(whole_round, room);
}

}  // namespace vitastor::store

// SPDX-License-Identifier: GPL-2.0-or-later
// Which part of the metadata log is needed by whom, and how full the log may get: the cleaner's books, numbers only.
//
// Slots of the index are taken in groups. A group is needed from its mark on; when it is written again at the end of the log, it
// is needed from there. The start of the log is the mark of the front group, so writing the first k groups again takes the room
// of k groups and gives back what lies before the mark of the next one. After a first round the groups lie in the log one behind
// the other, each with at least the room that it took then: cleaning then never needs more than two steps in advance, plus
// what the groups have grown since ("debt"). So the log may be filled to within that of its end, instead of keeping a whole
// round free. For the groups found at a start ("loaded") the same is computed from their marks once.
#pragma once

#include <cstdint>
#include <deque>

#include "store/meta_log.hpp"
#include "store/segments.hpp"

namespace vitastor::store {

class LogGroups {
public:
    /// slots_per_group: at least 1. Forgets all groups.
    void reset(uint32_t slots_per_group);

    /// Slots below slot_count belong to a group from now on; what they need is written behind `mark`.
    void cover(uint64_t slot_count, const LogMark& mark);
    /// At a start, in order of the slots: a group that is needed from `mark` on. weight, logged: as in rewrite().
    void load(const LogMark& mark, uint64_t weight, uint64_t logged);
    /// After the last load().
    void end_loading();

    bool empty() const { return order_.empty(); }
    uint64_t size() const { return groups_.size(); }
    uint32_t slots_per_group() const { return slots_; }
    /// The group that is needed from the earliest place on, and that place. There must be one.
    uint32_t front() const { return order_.front(); }
    const LogMark& front_mark() const { return groups_[order_.front()].mark; }

    /// The front group is written again from `mark` on and goes to the back. weight: bytes that it may take at most, as long as no
    /// version, redirect or tombstone is added; logged: bytes that it has taken now, at most weight.
    void rewrite(const LogMark& mark, uint64_t weight, uint64_t logged);
    /// The weight of the group of a slot has changed.
    void change(uint32_t slot, int64_t bytes);
    uint64_t weight_at(uint32_t slot) const { return slot / slots_ < groups_.size() ? groups_[slot / slots_].weight : 0; }

    /// Pages that one step of the cleaner may take. live_bytes: sum of the weights, or more.
    uint64_t step_pages(uint64_t live_bytes) const;
    /// Pages that operations may still append, out of `pages`, before the cleaner must have finished a step; may be negative.
    /// end: the next free place of the log. more_bytes: weight that is on its way.
    int64_t room(uint64_t pages, uint64_t end, uint64_t live_bytes, uint64_t more_bytes) const;

    uint64_t memory_bytes() const { return groups_.memory_bytes() + order_.size() * sizeof(uint32_t); }

    /// One step of the cleaner writes at least so many bytes (or all there is), and at most one group more.
    static constexpr uint64_t kStepBytes = 64 << 10;

private:
    struct Group {
        LogMark mark;
        uint32_t weight;  ///< bytes, at most
        uint32_t logged;  ///< bytes that it took when it was written last; 0: its objects were created behind the mark
    };
    static uint64_t debt_of(const Group& group) { return group.weight > group.logged ? group.weight - group.logged : 0; }
    void set(Group& group, uint64_t weight, uint64_t logged);

    uint32_t slots_ = 64;
    SegmentedVector<Group> groups_;
    std::deque<uint32_t> order_;  ///< the front is needed from the earliest place
    uint64_t debt_ = 0;           ///< sum of debt_of()
    uint64_t largest_ = 0;        ///< weight of any group written or grown in this round
    uint64_t largest_before_ = 0; ///< and in the one before
    uint64_t in_round_ = 0;       ///< groups written in this round
    uint64_t loaded_left_ = 0;    ///< the first so many in order_ have not been written since the start
    uint64_t loaded_bytes_ = 0;   ///< sum of their `logged`
    uint64_t written_bytes_ = 0;  ///< of loaded groups that have been written
    int64_t loaded_need_ = 0;     ///< largest of (pages of the groups up to k) - (place of group k) over all loaded k, at the start
};

}  // namespace vitastor::store

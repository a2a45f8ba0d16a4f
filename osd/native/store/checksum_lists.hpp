// SPDX-License-Identifier: GPL-2.0-or-later
// Of a store that keeps checksums out of memory: which objects have theirs in memory for now, and where on disk they are too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_map>

namespace vitastor::store {

class ChecksumLists {
public:
    enum class Source : uint8_t {
        none,      ///< no entry of the log holds the list whole
        appended,  ///< one does, and will be on disk
        page,      ///< one is on disk for good
    };
    struct Item {
        Source source = Source::none;
        bool used = false;                ///< since the hand came by
        uint32_t page = 0;                ///< on the device
        uint64_t position = 0, end = 0;   ///< appended: of the entry in the stream of the log
    };

    /// What is known now of the list of a head; in memory it must be.
    void set(uint32_t slot, const Item& item) {
        const auto [place, is_new] = items_.try_emplace(slot, item);
        place->second = item;
        if (is_new) hand_.push_back(slot);
        if (item.source == Source::appended) unsettled_.push_back(slot);
    }
    Item* find(uint32_t slot) {
        const auto found = items_.find(slot);
        return found == items_.end() ? nullptr : &found->second;
    }
    /// Calls settle(Item&) for lists whose entry was appended, the earliest first, until it answers false.
    template <class Settle>
    void settle(Settle settle) {
        while (!unsettled_.empty()) {
            Item* item = find(unsettled_.front());
            if (item && item->source == Source::appended && !settle(*item)) return;
            unsettled_.pop_front();
        }
    }

    // ---- the hand: goes round over all lists (second chance)
    bool empty() const { return hand_.empty(); }
    uint32_t at_hand() const { return hand_.front(); }
    void pass() {
        hand_.push_back(hand_.front());
        hand_.pop_front();
    }
    void drop() {
        items_.erase(hand_.front());
        hand_.pop_front();
    }
    /// Without the lists themselves.
    uint64_t memory_bytes() const { return items_.size() * kItemBytes; }

private:
    static constexpr uint64_t kItemBytes = 80;  ///< node and bucket of the table, place at the hand
    std::unordered_map<uint32_t, Item> items_;
    std::deque<uint32_t> hand_;  ///< each item once
    std::deque<uint32_t> unsettled_;
};

}  // namespace vitastor::store

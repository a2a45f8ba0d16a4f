// SPDX-License-Identifier: GPL-2.0-or-later
// Both checkpoints are damaged: the start of the log is found from its pages. The log is a circle that is never full, so that it
// still holds pages from before its start; reading them too gives the same objects, because later entries count.
#include <algorithm>
#include <cstring>
#include <map>

#include "base/assert.hpp"
#include "store/replay.hpp"

namespace vitastor::store {

using runtime::Task;

namespace {

/// What a crash may leave between the end of the log and its oldest page: a batch under way, and places between pages.
constexpr uint64_t kMostBetween = 64 + 8;
constexpr uint64_t kMostApart = 1;  // the two copies of a page

}  // namespace

/// Sets the start to the oldest page from which an unbroken chain leads to the newest one that is durable for sure.
Task<int> Replay::find_start() {
    struct Copy {
        uint64_t sequence, previous, place;
    };
    std::multimap<uint64_t, Copy> copies;  // by number of the page
    uint64_t durable = 0;
    for (uint64_t place = 0; place < geometry_.log_pages; place++) {
        Task<const uint8_t*> reading = page_at(place);
        const uint8_t* page = co_await reading;
        if (!page) co_return -EIO;
        if (!is_page(page)) continue;
        PageHeader header;
        memcpy(&header, page, sizeof(header));
        copies.emplace(header.page, Copy{header.write_sequence, header.previous, place});
        durable = std::max(durable, header.durable);
        max_sequence = std::max(max_sequence, header.write_sequence);
    }
    if (copies.empty()) {
        error_ = path_ + ": both checkpoints of the metadata log are damaged, and it holds no readable page of this store: which objects "
                         "there were is lost, nothing can be saved. Nothing was changed. If other copies of the data exist, replace this OSD";
        co_return -EIO;
    }
    auto oldest = copies.end();
    for (auto copy = copies.begin(); copy != copies.end(); ++copy)
        if (copy->second.sequence >= durable && (oldest == copies.end() || copy->second.sequence < oldest->second.sequence)) oldest = copy;
    if (oldest == copies.end()) oldest = std::prev(copies.end());
    const uint64_t newest_place = oldest->second.place;
    for (bool found = true; found;) {
        found = false;
        const auto range = copies.equal_range(oldest->first - 1);
        for (auto copy = range.first; copy != range.second && !found; ++copy) {
            if (copy->second.sequence != oldest->second.previous) continue;
            oldest = copy;
            found = true;
        }
    }
    start_was_lost_ = true;
    uint64_t first_place = oldest->second.place;  // of its two copies
    const auto range = copies.equal_range(oldest->first);
    for (auto copy = range.first; copy != range.second; ++copy) {
        const uint64_t before = (oldest->second.place + geometry_.log_pages - copy->second.place) % geometry_.log_pages;
        if (copy->second.previous == oldest->second.previous && before > 0 && before <= kMostApart) first_place = copy->second.place;
    }
    tail = LogMark{first_place + geometry_.log_pages, oldest->first, oldest->second.previous};
    checkpoint_sequence = 1;
    const uint64_t between = (oldest->second.place + geometry_.log_pages - newest_place) % geometry_.log_pages;
    const bool is_whole = oldest->first == 1 || (copies.begin()->first + 1 >= oldest->first && between > 0 && between <= kMostBetween);
    VITASTOR_PROBE("the start of the log is found without a checkpoint");
    damage(tail.slot, is_whole ? "both checkpoints are damaged; all of the log is read, from its oldest page on, which begins there"
                               : "both checkpoints are damaged, and older pages of the log are not readable: it is read from there on");
    if (!is_whole) {
        const std::vector<uint8_t> nothing(kPageSize);
        observer->on_lost(nothing);  // names are missing
    }
    co_return 0;
}

/// Without checkpoints nothing says where the log ends: what cannot be read there may have been a part of it.
Task<int> Replay::look_behind_end() {
    for (uint64_t slot = end.slot - kMostApart - 1; slot < end.slot + kMostApart + 2; slot++) {
        Task<const uint8_t*> reading = page_at(slot);
        const uint8_t* page = co_await reading;
        if (!page) co_return -EIO;
        if (is_page(page) || std::all_of(page, page + kPageSize, [](uint8_t byte) { return byte == 0; })) continue;
        const std::vector<uint8_t> nothing(kPageSize);
        observer->on_lost(nothing);
        break;
    }
    co_return 0;
}

/// The start moves to what is needed: behind it is the room for what is written next.
void Replay::raise_tail() {
    if (log_only || marks.empty()) return;
    uint64_t needed = marks.size() - 1;
    for (uint32_t slot = 0; slot < index_.slot_count(); slot++)
        if (index_.is_linked(slot)) needed = std::min<uint64_t>(needed, index_.note(slot));
    while (needed > 0 && marks[needed].page > complete_page_) needed--;
    tail = marks[needed];
}

}  // namespace vitastor::store

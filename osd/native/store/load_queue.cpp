// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/load_queue.hpp"

#include <cstring>

namespace vitastor::store {

/// Those whose headers lie in the page. Not checked: what is wrong is fetched in vain.
void LoadQueue::find_entries(Waiting& page) {
    PageHeader header;
    memcpy(&header, page.bytes.data(), sizeof(header));
    const uint8_t* payload = page.bytes.data() + sizeof(header);
    page.count = 0;
    for (uint32_t position = header.first_entry; page.count < kAtOnce && position + sizeof(EntryHeader) <= header.used;) {
        EntryHeader entry;
        memcpy(&entry, payload + position, sizeof(entry));
        if (entry.size < sizeof(entry)) break;
        const bool is_new = entry.type == EntryType::write && (entry.flags & kEntryCreate);
        page.entries[page.count++] = {{entry.inode, entry.stripe}, kNoSlot, is_new};
        if (entry.size > header.used - position) break;  // its end is in the next page
        position += entry.size;
    }
}

void LoadQueue::push(std::vector<uint8_t>& bytes, uint64_t slot, uint64_t copy) {
    Waiting& page = at(pushed_);
    page.bytes.swap(bytes);
    page.slot = slot;
    page.copy = copy;
    find_entries(page);
    for (uint32_t i = 0; i < page.count; i++) index_.prefetch_bucket(page.entries[i].object);
    pushed_++;
    if (pushed_ - popped_ > 1) {
        Waiting& second = at(pushed_ - 2);
        for (uint32_t i = 0; i < second.count; i++) {
            Entry& entry = second.entries[i];
            entry.first = index_.prefetch_first(entry.object, !entry.is_new);
        }
    }
    if (pushed_ - popped_ > 2) {
        Waiting& third = at(pushed_ - 3);
        for (uint32_t i = 0; i < third.count; i++) index_.prefetch_rest(third.entries[i].first, third.entries[i].object);
    }
}

const LoadQueue::Page* LoadQueue::pop(bool all) {
    if (pushed_ - popped_ <= (all ? 0 : kPagesAhead)) return nullptr;
    return &at(popped_++);
}

}  // namespace vitastor::store

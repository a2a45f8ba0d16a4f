// SPDX-License-Identifier: GPL-2.0-or-later
// Lists of checksums that are read from the log when they are needed (docs/adr/0032-checksums-out-of-memory.md).
//
// A list may leave memory when an entry on disk holds it whole, and nothing else needs it now: no operation, no cleaner. Where no
// entry does, the object is written to the log in full, as the cleaner does. Who needs a list fetches it first.
#include <cstring>

#include "store/blockstore.hpp"
#include "store/list_reader.hpp"

namespace vitastor::store {

using runtime::Task;

namespace {

constexpr uint32_t kTrimSteps = 16;         // of the hand at a time
constexpr uint64_t kUnwritten = 64 << 10;   // bytes on their way to the log, above which no lists are added
constexpr uint32_t kGroupPages = 16;        // read at a time for the cleaner

using Number = unsigned long long;
using Source = ChecksumLists::Source;

}  // namespace

/// Brings a list into memory. Where it cannot be read, reads of the object fail with EDOM from then on.
Task<void> Blockstore::fetch_list(uint32_t slot) {
    if (!index_->is_swapped(slot)) co_return;
    ListReader reader(*meta_, geometry_, uuid_, 1);
    Task<void> fetching = fetch_list_with(slot, reader);
    co_await fetching;
}

Task<void> Blockstore::fetch_list_with(uint32_t slot, ListReader& reader) {
    bool is_fresh = false;
    SumList list;
    while (index_->is_swapped(slot)) {
        const uint32_t page = index_->swapped_page(slot);
        const ObjectId object = index_->object(slot);
        const Version version = index_->at(slot).version;
        const uint64_t before = reader.reads;
        Task<int> reading = reader.read(page, object, version, list);
        const int status = co_await reading;
        list_reads_ += reader.reads - before;
        if (!index_->is_swapped(slot)) break;  // somebody else was faster
        const bool is_same = index_->swapped_page(slot) == page && index_->object(slot) == object && index_->at(slot).version == version;
        const bool is_good = status == 0 && memcmp(list.bits.data(), index_->allocated(slot), geometry_.bitmap_bytes) == 0;
        if (!is_same || (!is_good && !is_fresh)) {  // what the reader keeps may be older than the log
            is_fresh = is_same;
            reader.forget();
            continue;
        }
        index_->swap_in(slot, is_good ? list.sums.data() : nullptr);
        ChecksumLists::Item item;
        item.source = is_good ? Source::page : Source::none;
        item.page = page;
        item.used = true;
        lists_->set(slot, item);
        if (is_good) break;
        VITASTOR_PROBE("a list of checksums is lost");
        checksum_errors_++;
        log(logger_, LogLevel::error, "%s: the checksums of object %llx:%llx, in page %u of the metadata log, cannot be read%s%s: reads "
                                      "will fail with EDOM until it is written anew", meta_path().c_str(), Number(object.inode),
            Number(object.stripe), page, status < 0 && status != -ENODATA ? ": " : "",
            status < 0 && status != -ENODATA ? strerror(-status) : "");
    }
    trim_lists();
}

Task<void> Blockstore::fetch_beside(uint32_t slot, Reads& reads) {
    Task<void> fetching = fetch_list(slot);
    co_await fetching;
    reads.running--;
    reads.done.notify_all();
}

/// All lists of a group, so that the cleaner can write them; they stay until it has.
Task<void> Blockstore::fetch_group(uint32_t group) {
    held_group_ = group;
    ListReader reader(*meta_, geometry_, uuid_, kGroupPages);
    const uint64_t first = uint64_t{group} * groups_.slots_per_group();
    for (bool again = true; again;) {
        again = false;
        for (uint64_t i = first; i < std::min<uint64_t>(first + groups_.slots_per_group(), index_->slot_count()); i++) {
            if (!index_->is_swapped(static_cast<uint32_t>(i))) continue;
            again = true;  // others may have been swapped out meanwhile
            Task<void> fetching = fetch_list_with(static_cast<uint32_t>(i), reader);
            co_await fetching;
        }
    }
}

/// After an entry was applied. end: where it ends in the stream of the log.
void Blockstore::note_list(uint32_t head, const EntryView& entry, uint64_t end) {
    if (head == kNoSlot || index_->at(head).state != SlotState::head || index_->granule_count(head) == 0) return;
    ChecksumLists::Item item;
    item.used = true;
    if (index_->is_whole_list(head, entry)) {
        item.source = Source::appended;
        item.position = end - entry.header.size;
        item.end = end;
    }
    lists_->set(head, item);
    trim_lists();
}

/// After the object was written to the log in full; the entry ends where the log ends.
void Blockstore::note_full(uint32_t head, uint64_t bytes) {
    if (!lists_ || !index_->has_single_list(head)) return;
    const ChecksumLists::Item* known = lists_->find(head);
    ChecksumLists::Item item;
    item.source = Source::appended;
    item.used = known && known->used;
    item.end = log_->appended();
    item.position = item.end - bytes;
    lists_->set(head, item);
}

void Blockstore::settle_lists() {
    lists_->settle([this](ChecksumLists::Item& item) {
        const MetaLog::Place place = log_->place_of(item.position, item.end);
        if (place.where == MetaLog::Where::not_yet) return false;
        item.source = place.where == MetaLog::Where::here ? Source::page : Source::none;
        item.page = place.page;
        return true;
    });
    trim_lists();
}

/// A few steps of the hand, if lists take more memory than they may.
void Blockstore::trim_lists() {
    const uint64_t limit = options_.checksum_cache_bytes;
    uint64_t bytes = index_->list_bytes() + lists_->memory_bytes();
    for (uint32_t steps = 0; steps < kTrimSteps && bytes > limit && !lists_->empty(); steps++) {
        const uint32_t slot = lists_->at_hand();
        ChecksumLists::Item& item = *lists_->find(slot);
        if (!index_->has_single_list(slot)) {
            if (index_->at(slot).state == SlotState::head && index_->at(slot).older != kNoSlot) lists_->pass();
            else lists_->drop();  // the object is gone
            continue;
        }
        const bool is_held = slot / groups_.slots_per_group() == held_group_ || find_active(index_->object(slot));
        if (item.used || is_held) {
            item.used = false;
            lists_->pass();
        } else if (item.source == Source::page) {
            bytes -= std::min<uint64_t>(bytes, 4 * (uint64_t{index_->granule_count(slot)} + 1));
            index_->swap_out(slot, item.page);
            lists_->drop();
        } else {
            if (item.source == Source::none) write_list(slot);
            lists_->pass();
        }
    }
}

/// The object in full to the end of the log, if there is room. Nothing else may be changing it.
void Blockstore::write_list(uint32_t slot) {
    if (state_ != State::open || options_.readonly || log_->error() || log_is_low()) return;
    if (log_->appended() - log_->durable() > kUnwritten) return;
    VITASTOR_PROBE("a list of checksums is written to leave memory");
    clean_buffer_.clear();
    index_->encode_full(slot, clean_buffer_);
    log_->append(clean_buffer_);
    list_bytes_written_ += clean_buffer_.size();
    note_full(slot, clean_buffer_.size());
}

}  // namespace vitastor::store

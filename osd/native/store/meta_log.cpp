// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/meta_log.hpp"

#include <algorithm>
#include <cstring>

#include "base/assert.hpp"
#include "base/crc32c.hpp"
#include "store/planted.hpp"
#include "store/store_format.hpp"

namespace vitastor::store {

using runtime::Task;

MetaLog::MetaLog(Device& meta, Device& data, const Geometry& geometry, uint64_t uuid)
    : meta_(meta), data_(data), geometry_(geometry), uuid_(uuid) {
    BufferPool& pool = meta.loop().buffers();
    batch_ = pool.allocate(kBatchPages * kPageSize);
    page_ = pool.allocate(kPageSize);
    checkpoint_ = pool.allocate(kPageSize);
}

MetaLog::~MetaLog() { VITASTOR_ASSERT(!running_); }

void MetaLog::start(const LogMark& tail, const LogMark& end, uint64_t last_sequence, uint64_t checkpoint_sequence,
                    bool end_named) {
    tail_ = tail;
    named_sequence_ = end_named ? end.previous : 0;
    next_slot_ = end.slot;
    next_page_ = end.page;
    last_sequence_ = durable_sequence_ = end.previous;
    // What a crash left beyond the end has numbers after the last one: never use them again.
    next_sequence_ = std::max(last_sequence, end.previous) + (1u << 20);
    if (VITASTOR_FAULT(numbers_again)) next_sequence_ = end.previous + 1;
    checkpoint_sequence_ = checkpoint_sequence;
}

// ---------------------------------------------------------------- appending and waiting

void MetaLog::append(std::span<const uint8_t> entry) {
    if (pending_start_ == pending_.size()) {
        pending_.clear();
        pending_start_ = 0;
    }
    pending_.insert(pending_.end(), entry.begin(), entry.end());
    appended_ += entry.size();
    if (pending_bytes() > kLazyBytes) kick();
}

void MetaLog::Waiter::await_suspend(std::coroutine_handle<> waiting) noexcept {
    handle = waiting;
    log->waiters_.push_back(this);
    log->kick();
}

Task<int> MetaLog::commit() {
    if (error_) co_return error_;
    if (durable_ == appended_ && !data_dirty_ && !running_) co_return 0;
    Waiter waiter = wait_durable();
    co_await waiter;
    co_return error_;
}

void MetaLog::kick() {
    kicked_ = true;
    if (running_) return;
    running_ = true;
    runtime::spawn(run());
}

void MetaLog::fail(int error) {
    if (!error_) error_ = error;
}

void MetaLog::wake() {
    while (Waiter* waiter = waiters_.front()) {
        if (!error_ && (waiter->position > durable_ || waiter->round > round_)) break;
        waiter->unlink();
        waiter->handle.resume();
    }
}

Task<void> MetaLog::run() {
    while (kicked_) {
        kicked_ = false;
        round_++;
        if (error_) {
            wake();
            continue;
        }
        const uint64_t limit = pending_bytes();
        if (data_dirty_ && !VITASTOR_FAULT(no_data_flush)) {
            data_dirty_ = false;
            Task<int> flushing = data_.flush();
            const int status = co_await flushing;
            if (status < 0) fail(status);
        }
        if (limit > 0 && !error_) {
            uint64_t slot = 0;
            const uint32_t pages = build(limit, &slot);
            if (pages == 0) {
                fail(-ENOSPC);  // the reserve is sized so that this does not happen
            } else {
                const uint64_t reached = taken_;
                const uint64_t sequence = last_sequence_;
                Task<int> writing = write_batch(slot, pages);
                int status = co_await writing;
                if (status == 0 && !VITASTOR_FAULT(no_log_flush)) {
                    Task<int> flushing = meta_.flush();
                    status = co_await flushing;
                }
                if (status < 0) {
                    fail(status);
                } else {
                    durable_ = reached;
                    durable_sequence_ = sequence;
                }
            }
        }
        wake();
        if (on_batch && !error_) on_batch(on_batch_arg);
        if (!waiters_.empty()) kicked_ = true;
    }
    running_ = false;
    ended.notify_all();
}

// ---------------------------------------------------------------- pages

/// Adds pending bytes to the payload of a page.
void MetaLog::fill(uint8_t* page, uint64_t bytes) {
    PageHeader header;
    memcpy(&header, page, sizeof(header));
    uint8_t* place = page + sizeof(header) + header.used;
    memcpy(place, pending_.data() + pending_start_, bytes);
    // Entries that begin in these bytes.
    uint64_t position = std::min<uint64_t>(entry_left_, bytes);
    entry_left_ -= position;
    while (position < bytes) {
        if (header.first_entry == kNoEntry) header.first_entry = static_cast<uint16_t>(header.used + position);
        uint32_t size;
        memcpy(&size, pending_.data() + pending_start_ + position, sizeof(size));
        const uint64_t here = std::min<uint64_t>(size, bytes - position);
        entry_left_ = size - here;
        position += here;
    }
    header.used = static_cast<uint16_t>(header.used + bytes);
    memcpy(page, &header, sizeof(header));
    pending_start_ += bytes;
    taken_ += bytes;
}

void MetaLog::seal(uint8_t* page) {
    PageHeader header;
    memcpy(&header, page, sizeof(header));
    header.write_sequence = next_sequence_++;
    header.durable = durable_sequence_;
    header.complete_page = complete_page();
    header.objects = objects_;
    memset(page + sizeof(header) + header.used, 0, kPagePayload - header.used);
    memcpy(page, &header, sizeof(header));
    header.crc = crc32c(page + 8, kPageSize - 8);
    memcpy(page, &header, sizeof(header));
    last_sequence_ = header.write_sequence;
}

uint32_t MetaLog::build(uint64_t limit, uint64_t* first_slot) {
    if (page_open_) {
        PageHeader header;
        memcpy(&header, page_.data(), sizeof(header));
        if (header.used + limit <= kPagePayload) {
            // The same page with more in it, to the place that does not hold its durable copy.
            uint64_t slot;
            if (page_copies_ == 1) {
                if (free_pages() == 0) return 0;
                slot = next_slot_++;
                page_slots_[1] = page_slots_[0];
                page_slots_[0] = slot;
                page_copies_ = 2;
            } else {
                if (!VITASTOR_FAULT(page_over_newest)) std::swap(page_slots_[0], page_slots_[1]);
                slot = page_slots_[0];
            }
            if (!page_starts_.empty()) page_starts_.back().slot = slot;
            fill(page_.data(), limit);
            seal(page_.data());
            memcpy(batch_.data(), page_.data(), kPageSize);
            *first_slot = slot;
            return 1;
        }
    }
    uint32_t pages = 0;
    // The older copy of the page that is left, if it is the last one: the next page takes its place.
    if (page_open_ && page_copies_ == 2 && page_slots_[1] + 1 == next_slot_) next_slot_--;
    page_open_ = false;
    *first_slot = next_slot_;
    while (limit > 0 && pages < kBatchPages) {
        if (free_pages() == 0) return 0;
        uint8_t* page = batch_.data() + size_t{pages} * kPageSize;
        PageHeader header{};
        header.magic = kPageMagic;
        header.uuid = uuid_;
        header.page = next_page_++;
        header.previous = last_sequence_;
        header.first_entry = kNoEntry;
        memcpy(page, &header, sizeof(header));
        page_mark_ = LogMark{next_slot_, header.page, header.previous};
        if (remembers_places_) {
            if (page_starts_.size() == kPlaces) page_starts_.pop_front();
            page_starts_.push_back({taken_, next_slot_});
        }
        page_slots_[0] = next_slot_++;
        page_copies_ = 1;
        page_open_ = true;
        const uint64_t bytes = std::min<uint64_t>(limit, kPagePayload);
        fill(page, bytes);
        seal(page);
        limit -= bytes;
        pages++;
    }
    memcpy(page_.data(), batch_.data() + size_t{pages - 1} * kPageSize, kPageSize);
    return pages;
}

Task<int> MetaLog::write_batch(uint64_t slot, uint32_t pages) {
    uint8_t* from = batch_.data();
    while (pages > 0) {
        const uint64_t physical = slot % geometry_.log_pages;
        const auto here = static_cast<uint32_t>(std::min<uint64_t>(pages, geometry_.log_pages - physical));
        iovec iov{from, size_t{here} * kPageSize};
        Task<int> writing = meta_.write(&iov, 1, geometry_.log_offset + physical * kPageSize);
        const int status = co_await writing;
        if (status < 0) co_return status;
        from += iov.iov_len;
        slot += here;
        pages -= here;
    }
    co_return 0;
}

MetaLog::Place MetaLog::place_of(uint64_t position, uint64_t end) const {
    const auto next = std::upper_bound(page_starts_.begin(), page_starts_.end(), position,
                                       [](uint64_t value, const PageStart& start) { return value < start.position; });
    if (next == page_starts_.end()) return {Where::not_yet};
    if (next == page_starts_.begin()) return {Where::forgotten};
    if (durable_ < std::max(end, next->position)) return {Where::not_yet};
    return {Where::here, static_cast<uint32_t>(std::prev(next)->slot % geometry_.log_pages)};
}

LogMark MetaLog::mark() const {
    if (page_open_) return page_mark_;
    return LogMark{next_slot_, next_page_, last_sequence_};
}

// ---------------------------------------------------------------- in-place writes

void MetaLog::begin_intent(LogIntent& intent) {
    intent.page = mark().page;
    intents_.push_back(&intent);
}

void MetaLog::hold_complete_page(LogIntent& intent, uint64_t page) {
    VITASTOR_ASSERT(intents_.empty());
    intent.page = page;
    intents_.push_back(&intent);
}

void MetaLog::end_intent(LogIntent& intent) {
    intent.unlink();
    if (!data_.is_volatile() || VITASTOR_FAULT(forgets_unflushed)) return;
    const uint64_t flush = data_.next_flush();
    for (Unflushed& other : unflushed_) {
        if (other.flush != flush) continue;
        other.page = std::min(other.page, intent.page);
        return;
    }
    unflushed_.push_back({flush, intent.page});
}

uint64_t MetaLog::complete_page() {
    uint64_t page = mark().page;
    if (VITASTOR_FAULT(complete_page_ahead)) return page;
    if (const LogIntent* first = intents_.front()) page = std::min(page, first->page);
    std::erase_if(unflushed_, [this](const Unflushed& other) { return other.flush <= data_.flushes_finished(); });
    for (const Unflushed& other : unflushed_) page = std::min(page, other.page);
    return page;
}

// ---------------------------------------------------------------- the start of the log

Task<int> MetaLog::set_tail(LogMark tail) {
    while (writing_checkpoint_) {
        runtime::WaitList::Waiter waiter = checkpoint_waiters_.wait();
        co_await waiter;
    }
    Task<int> writing = write_checkpoint(tail);
    const int status = co_await writing;
    co_return status;
}

Task<int> MetaLog::name_end() {
    while (writing_checkpoint_) {
        VITASTOR_PROBE("the end of the log is named while its start moves");
        runtime::WaitList::Waiter waiter = checkpoint_waiters_.wait();
        co_await waiter;
    }
    if (error_ || is_end_named()) co_return error_;
    Task<int> writing = write_checkpoint(tail_);
    const int status = co_await writing;
    co_return status;
}

/// One at a time: the newest one must say the newest start.
Task<int> MetaLog::write_checkpoint(LogMark tail) {
    writing_checkpoint_ = true;
    if (VITASTOR_FAULT(room_before_checkpoint)) tail_ = tail;
    Checkpoint checkpoint;
    memset(&checkpoint, 0, sizeof(checkpoint));
    memcpy(checkpoint.magic, kCheckpointMagic, sizeof(checkpoint.magic));
    checkpoint.uuid = uuid_;
    checkpoint.sequence = ++checkpoint_sequence_;
    checkpoint.tail_slot = tail.slot;
    checkpoint.tail_page = tail.page;
    checkpoint.tail_previous = tail.previous;
    checkpoint.durable = durable_sequence_;
    checkpoint.crc = crc32c(&checkpoint, sizeof(checkpoint));
    memcpy(checkpoint_.data(), &checkpoint, sizeof(checkpoint));
    iovec iov{checkpoint_.data(), kPageSize};
    const uint64_t number = VITASTOR_FAULT(one_checkpoint) ? 2 : 1 + checkpoint.sequence % 2;
    Task<int> writing = meta_.write(&iov, 1, geometry_.meta_area + number * kPageSize);
    int status = co_await writing;
    if (status == 0) {
        Task<int> flushing = meta_.flush();
        status = co_await flushing;
    }
    if (status < 0) {
        fail(status);
    } else {
        tail_ = tail;
        named_sequence_ = checkpoint.durable;
    }
    writing_checkpoint_ = false;
    checkpoint_waiters_.notify_all();
    co_return status;
}

}  // namespace vitastor::store

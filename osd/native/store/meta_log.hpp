// SPDX-License-Identifier: GPL-2.0-or-later
// The metadata log: a circle of 4 KB pages through which runs a stream of entries.
//
// Entries that arrive while a write is in flight go out together with the next one. A page that is not full is written again
// with more entries, in turn to two places, so that its last durable copy is never overwritten; when the next entries do not
// fit, it is left and a new page is begun. Each page names the write before it: replay follows this chain, so what a torn
// or lost write leaves behind is never taken for a part of the log. Data written before an entry was appended is made
// durable before the entry is.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "base/buffer.hpp"
#include "base/list.hpp"
#include "runtime/task.hpp"
#include "store/device.hpp"
#include "store/geometry.hpp"

namespace vitastor::store {

/// A place in the log from which replay can start.
struct LogMark {
    uint64_t slot = 0;      ///< absolute number of the place; physical page = slot mod log_pages
    uint64_t page = 1;      ///< logical page number
    uint64_t previous = 0;  ///< write_sequence of the final copy of the page before
};

/// An in-place write that was announced and is not yet known to be on disk.
struct LogIntent : ListNode {
    uint64_t page = 0;
};

class MetaLog {
public:
    MetaLog(Device& meta, Device& data, const Geometry& geometry, uint64_t uuid);
    ~MetaLog();

    /// Where replay ended. tail: start of what is needed; end: the next free place; last_sequence: newest write found.
    /// end_named: the newest checkpoint says so.
    void start(const LogMark& tail, const LogMark& end, uint64_t last_sequence, uint64_t checkpoint_sequence, bool end_named = false);

    /// Puts an entry at the end of the stream. It is written when somebody waits or enough has gathered.
    void append(std::span<const uint8_t> entry);
    /// Waits until everything appended so far, and all data written so far, is durable. 0 or the error that ended the log.
    runtime::Task<int> commit();
    struct Waiter : ListNode {
        MetaLog* log;
        std::coroutine_handle<> handle;
        uint64_t position;
        uint64_t round;
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> waiting) noexcept;
        void await_resume() noexcept {}
    };
    /// commit() without a coroutine, right after append() and without an error before: MetaLog::Waiter waiter = log.wait_durable();
    /// co_await waiter; then look at error().
    Waiter wait_durable() { return Waiter{{}, this, nullptr, appended_, round_ + 1}; }
    /// Number of bytes ever appended, and how many of them are durable.
    uint64_t appended() const { return appended_; }
    uint64_t durable() const { return durable_; }
    /// Number of the newest write that is durable: a later start finds the log up to there at least.
    uint64_t durable_sequence() const { return durable_sequence_; }
    uint64_t uuid() const { return uuid_; }
    /// To be called when a write to the data device has completed.
    void note_data_written() { data_dirty_ = true; }
    /// From now on place_of() knows where entries lie. Before anything is appended.
    void remember_places() { remembers_places_ = true; }
    enum class Where { here, not_yet, forgotten };
    struct Place {
        Where where;
        uint32_t page = 0;  ///< on the device
    };
    /// The page in which bytes [position, end) of the stream begin: `here` once they are durable and the page is not written again.
    /// Forgotten after kPlaces pages.
    Place place_of(uint64_t position, uint64_t end) const;
    bool has_work() const { return pending_bytes() > 0 || data_dirty_; }

    /// A mark at or before everything that is appended from now on.
    LogMark mark() const;
    /// What is appended from now on begins a page of its own. After commit(), with nothing under way.
    void begin_page() { page_open_ = false; }
    void begin_intent(LogIntent& intent);
    /// Before all others: pages keep saying that writes announced from that page on are open, until the intent is unlinked.
    void hold_complete_page(LogIntent& intent, uint64_t page);
    /// The data is written; if the device has a volatile cache, it counts as complete after the next flush.
    void end_intent(LogIntent& intent);
    /// All in-place writes announced in pages before this one are on disk.
    uint64_t complete_page();

    /// Moves the start of the log, durably. Everything before it is no longer needed.
    runtime::Task<int> set_tail(LogMark tail);
    const LogMark& tail() const { return tail_; }
    /// The newest page is named by no page behind it: a checkpoint does it, when the store is stopped or has nothing to write for a
    /// while. Nothing if one does already.
    runtime::Task<int> name_end();
    bool is_end_named() const { return named_sequence_ == durable_sequence_; }
    uint64_t checkpoint_sequence() const { return checkpoint_sequence_; }
    uint64_t free_pages() const { return geometry_.log_pages - (next_slot_ - tail_.slot); }
    uint64_t next_slot() const { return next_slot_; }

    /// What pages tell of the number of objects; for the next start.
    void note_objects(uint64_t count) { objects_ = static_cast<uint32_t>(std::min<uint64_t>(count, UINT32_MAX)); }

    int error() const { return error_; }
    void fail(int error);
    bool is_idle() const { return !running_; }
    runtime::WaitList ended;  ///< notified when nothing is under way any more, just before the last coroutine ends

    /// Runs after every batch; for the cleaner. Set once.
    void (*on_batch)(void* arg) = nullptr;
    void* on_batch_arg = nullptr;

private:
    struct Unflushed {
        uint64_t flush;
        uint64_t page;
    };

    runtime::Task<void> run();
    void kick();
    uint64_t pending_bytes() const { return pending_.size() - pending_start_; }
    /// Fills batch_ with up to kBatchPages from the first `limit` pending bytes; *first_slot receives their place.
    uint32_t build(uint64_t limit, uint64_t* first_slot);
    void fill(uint8_t* page, uint64_t bytes);
    void seal(uint8_t* page);
    runtime::Task<int> write_batch(uint64_t slot, uint32_t pages);
    runtime::Task<int> write_checkpoint(LogMark tail);
    void wake();

    static constexpr uint32_t kBatchPages = 64;
    static constexpr size_t kPlaces = 4096;
    struct PageStart {
        uint64_t position, slot;
    };
    static constexpr uint64_t kLazyBytes = 32 * kPagePayload;

    Device& meta_;
    Device& data_;
    Geometry geometry_;
    uint64_t uuid_;
    Buffer batch_;
    Buffer page_;  ///< the newest page as last built
    Buffer checkpoint_;

    std::vector<uint8_t> pending_;
    size_t pending_start_ = 0;
    size_t entry_left_ = 0;  ///< bytes of an entry that is already partly in a page
    uint64_t appended_ = 0;
    uint64_t taken_ = 0;
    uint64_t durable_ = 0;
    bool kicked_ = false;
    bool running_ = false;
    uint64_t round_ = 0;  ///< turns of run() that have begun
    bool data_dirty_ = false;
    int error_ = 0;
    List<Waiter> waiters_;

    uint32_t objects_ = 0;
    LogMark tail_;
    uint64_t named_sequence_ = 0;  ///< that the newest checkpoint says is durable
    uint64_t checkpoint_sequence_ = 0;
    bool writing_checkpoint_ = false;
    runtime::WaitList checkpoint_waiters_;
    uint64_t next_slot_ = 0;
    uint64_t next_sequence_ = 1;
    uint64_t last_sequence_ = 0;     ///< of the newest copy of the newest page
    uint64_t durable_sequence_ = 0;  ///< newest write known durable
    uint64_t next_page_ = 1;
    bool page_open_ = false;  ///< page_ may take more entries
    LogMark page_mark_;       ///< of page_
    uint64_t page_slots_[2] = {};
    int page_copies_ = 0;
    bool remembers_places_ = false;
    std::deque<PageStart> page_starts_;  ///< of the newest pages
    List<LogIntent> intents_;
    std::vector<Unflushed> unflushed_;  ///< at most a few: one per flush that is still to come
};

}  // namespace vitastor::store

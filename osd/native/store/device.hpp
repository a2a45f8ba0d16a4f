// SPDX-License-Identifier: GPL-2.0-or-later
// One file or block device under the store: whole transfers (short ones are continued), flushes that are shared, counters.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/loop.hpp"
#include "runtime/pause.hpp"
#include "runtime/task.hpp"

namespace vitastor::store {

class Device {
public:
    /// is_volatile: completed writes may be lost in a power failure until flush(). is_synchronous: each write is durable on
    /// completion because it was opened so (O_SYNC); they are counted.
    Device(runtime::Loop& loop, runtime::File file, bool is_volatile, bool is_synchronous = false)
        : loop_(loop), file_(file), is_volatile_(is_volatile), is_synchronous_(is_synchronous) {}
    Device(const Device&) = delete;
    ~Device() { loop_.close_file(file_); }

    /// All of it, or a negative errno (-EIO at the end of the device). iov stays valid until the end.
    runtime::Task<int> read(const iovec* iov, int count, uint64_t offset);
    runtime::Task<int> write(const iovec* iov, int count, uint64_t offset);
    /// Makes all writes completed before the call durable; nothing if the device has no volatile cache. One flush at a time;
    /// those that come meanwhile share the next one. After an error every flush fails: what was lost is not known.
    runtime::Task<int> flush();

    /// Gives the range back to the device; what it holds then is undefined. 0 or a negative errno (-EOPNOTSUPP).
    runtime::Task<int> discard(uint64_t offset, uint64_t length);

    /// One page (4096 bytes at any address), and durable: for superblocks.
    runtime::Task<int> write_page(uint64_t offset, const uint8_t* page);

    bool is_volatile() const { return is_volatile_; }
    /// Writes completed by now are durable once flushes_finished() >= this number.
    uint64_t next_flush() const { return flushes_started_ + 1; }
    uint64_t flushes_finished() const { return flushes_finished_; }
    uint64_t bytes_written() const { return bytes_written_; }
    uint64_t sync_writes() const { return sync_writes_; }
    runtime::Loop& loop() { return loop_; }

private:
    runtime::Task<int> finish(bool is_write, const iovec* iov, int count, uint64_t offset, int64_t result);

    runtime::Loop& loop_;
    runtime::File file_;
    bool is_volatile_;
    bool is_synchronous_;
    bool flushing_ = false;
    int flush_error_ = 0;
    uint64_t flushes_started_ = 0;
    uint64_t flushes_finished_ = 0;
    uint64_t bytes_written_ = 0;
    uint64_t sync_writes_ = 0;
    runtime::WaitList flush_waiters_;
};

/// co_await turn;  lets the loop run once: the border between two slices of long work.
struct NextTurn : runtime::Deferred {
    explicit NextTurn(runtime::Loop& loop) : loop_(loop) {
        on_run = [](runtime::Deferred* self) { static_cast<NextTurn*>(self)->handle_.resume(); };
    }
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) noexcept {
        handle_ = handle;
        loop_.defer(*this);
    }
    void await_resume() noexcept {}

private:
    runtime::Loop& loop_;
    std::coroutine_handle<> handle_;
};

using runtime::Pause;

}  // namespace vitastor::store

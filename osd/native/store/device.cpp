// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/device.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "store/store_format.hpp"

namespace vitastor::store {

using runtime::Await;
using runtime::Task;

namespace {

constexpr int kMaxAttempts = 1000;  // transfers that make no progress (EINTR, EAGAIN) before it is an error
constexpr int64_t kSector = 4096;   // a short transfer is continued at a page, so that no page is written in two parts

int64_t total_bytes(const iovec* iov, int count) {
    int64_t total = 0;
    for (int i = 0; i < count; i++) total += static_cast<int64_t>(iov[i].iov_len);
    return total;
}

}  // namespace

Task<int> Device::read(const iovec* iov, int count, uint64_t offset) {
    Await op;
    loop_.read(file_, iov, count, offset, op);
    const int64_t result = co_await op;
    if (result == total_bytes(iov, count)) co_return 0;
    Task<int> rest = finish(false, iov, count, offset, result);
    const int status = co_await rest;
    co_return status;
}

Task<int> Device::write(const iovec* iov, int count, uint64_t offset) {
    Await op;
    loop_.write(file_, iov, count, offset, op);
    const int64_t result = co_await op;
    const int64_t total = total_bytes(iov, count);
    bytes_written_ += static_cast<uint64_t>(total);
    sync_writes_ += is_synchronous_;
    if (result == total) co_return 0;
    Task<int> rest = finish(true, iov, count, offset, result);
    const int status = co_await rest;
    co_return status;
}

Task<int> Device::finish(bool is_write, const iovec* iov, int count, uint64_t offset, int64_t result) {
    const int64_t total = total_bytes(iov, count);
    int64_t done = 0;
    int idle = 0;
    for (;;) {
        if (result == -EINTR || result == -EAGAIN) result = 0;
        else if (result < 0) co_return static_cast<int>(result);
        else if (result == 0) co_return -EIO;  // the end of the device
        const int64_t reached = done + result;
        if (reached >= total) co_return 0;
        const auto start = static_cast<int64_t>(offset);
        const int64_t aligned = (start + reached) / kSector * kSector - start;
        if (aligned <= done && ++idle > kMaxAttempts) co_return -EIO;
        done = std::max(done, aligned);
        std::vector<iovec> rest;
        int64_t skip = done;
        for (int i = 0; i < count; i++) {
            const auto length = static_cast<int64_t>(iov[i].iov_len);
            if (skip >= length) {
                skip -= length;
                continue;
            }
            rest.push_back({static_cast<uint8_t*>(iov[i].iov_base) + skip, static_cast<size_t>(length - skip)});
            skip = 0;
        }
        Await op;
        const uint64_t place = offset + static_cast<uint64_t>(done);
        if (is_write) loop_.write(file_, rest.data(), static_cast<int>(rest.size()), place, op);
        else loop_.read(file_, rest.data(), static_cast<int>(rest.size()), place, op);
        result = co_await op;
    }
}

Task<int> Device::discard(uint64_t offset, uint64_t length) {
    Await op;
    loop_.discard(file_, offset, length, op);
    const int64_t result = co_await op;
    co_return static_cast<int>(std::min<int64_t>(result, 0));
}

Task<int> Device::flush() {
    if (!is_volatile_) co_return 0;
    const uint64_t needed = flushes_started_ + 1;
    while (flushes_finished_ < needed && !flush_error_) {
        if (flushing_) {
            runtime::WaitList::Waiter waiter = flush_waiters_.wait();
            co_await waiter;
            continue;
        }
        flushing_ = true;
        const uint64_t mine = ++flushes_started_;
        Await op;
        loop_.sync(file_, op);
        const int64_t result = co_await op;
        flushing_ = false;
        if (result < 0) flush_error_ = static_cast<int>(result);
        else flushes_finished_ = mine;
        flush_waiters_.notify_all();
    }
    co_return flush_error_;
}

Task<int> Device::write_page(uint64_t offset, const uint8_t* page) {
    Buffer buffer = loop_.buffers().allocate(kPageSize);
    memcpy(buffer.data(), page, kPageSize);
    iovec iov{buffer.data(), kPageSize};
    Task<int> writing = write(&iov, 1, offset);
    int status = co_await writing;
    if (status == 0) {
        Task<int> flushing = flush();
        status = co_await flushing;
    }
    co_return status;
}

}  // namespace vitastor::store

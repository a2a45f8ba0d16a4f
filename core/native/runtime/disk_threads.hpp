// SPDX-License-Identifier: GPL-2.0-or-later
// Blocking disk calls on a few threads, for the epoll loop. Private to runtime.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/loop.hpp"

namespace vitastor::runtime {

enum class DiskCall : uint8_t { read, write, sync, discard };

struct DiskJob {
    DiskCall call = DiskCall::read;
    int fd = -1;
    int count = 0;
    uint32_t slot = 0;  ///< index in the loop's file table
    const iovec* iov = nullptr;
    uint64_t offset = 0;
    uint64_t length = 0;
    Completion* completion = nullptr;
    int64_t result = 0;
};

class DiskThreads {
public:
    /// done: notified when take_finished() has something. Must be registered as long as this object lives.
    DiskThreads(Loop& loop, Notifier& done, int threads);
    /// Waits for the calls that are running; those not begun are dropped.
    ~DiskThreads();
    void start(DiskJob* job);
    /// True: it had not begun and never will.
    bool withdraw(DiskJob* job);
    /// Swaps the finished jobs into `out`, which must be empty.
    void take_finished(std::vector<DiskJob*>& out);

private:
    void work();

    Loop& loop_;
    Notifier& done_;
    std::mutex mutex_;  ///< guards all below
    std::condition_variable wanted_;
    std::deque<DiskJob*> queue_;
    std::vector<DiskJob*> finished_;
    bool stopping_ = false;
    std::vector<std::unique_ptr<Thread>> threads_;
};

}  // namespace vitastor::runtime

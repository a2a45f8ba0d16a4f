// SPDX-License-Identifier: GPL-2.0-or-later
#include "runtime/disk_threads.hpp"

#include <algorithm>

#include "runtime/os_file.hpp"

namespace vitastor::runtime {

DiskThreads::DiskThreads(Loop& loop, Notifier& done, int threads) : loop_(loop), done_(done) {
    for (int i = 0; i < std::max(threads, 1); i++) {
        threads_.push_back(start_thread(
            "disk", [](void* self) { static_cast<DiskThreads*>(self)->work(); }, this));
    }
}

DiskThreads::~DiskThreads() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stopping_ = true;
    }
    wanted_.notify_all();
    threads_.clear();
}

void DiskThreads::start(DiskJob* job) {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        queue_.push_back(job);
    }
    wanted_.notify_one();
}

bool DiskThreads::withdraw(DiskJob* job) {
    std::lock_guard<std::mutex> lock(mutex_);
    return std::erase(queue_, job) > 0;
}

void DiskThreads::take_finished(std::vector<DiskJob*>& out) {
    std::lock_guard<std::mutex> lock(mutex_);
    out.swap(finished_);
}

void DiskThreads::work() {
    for (;;) {
        DiskJob* job;
        {
            std::unique_lock<std::mutex> lock(mutex_);
            wanted_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
            if (stopping_) return;
            job = queue_.front();
            queue_.pop_front();
        }
        switch (job->call) {
        case DiskCall::read:
            job->result = blocking_read(job->fd, job->iov, job->count, job->offset);
            break;
        case DiskCall::write:
            job->result = blocking_write(job->fd, job->iov, job->count, job->offset);
            break;
        case DiskCall::sync:
            job->result = blocking_sync(job->fd);
            break;
        case DiskCall::discard:
            job->result = blocking_discard(job->fd, job->offset, job->length);
            break;
        }
        {
            std::lock_guard<std::mutex> lock(mutex_);
            finished_.push_back(job);
        }
        loop_.notify(done_);
    }
}

}  // namespace vitastor::runtime

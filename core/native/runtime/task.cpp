// SPDX-License-Identifier: GPL-2.0-or-later
#include "runtime/task.hpp"

#include <cstdlib>

namespace vitastor::runtime {

namespace {

constexpr size_t kStep = 64;
constexpr size_t kClasses = 32;          ///< frames up to 2 KiB are recycled
constexpr unsigned kKeepPerClass = 512;  ///< bounds the memory kept per thread to 17 MiB, in practice far less

struct FreeFrame {
    FreeFrame* next;
};

struct FramePool {
    FreeFrame* free[kClasses] = {};
    unsigned count[kClasses] = {};
    ~FramePool() { clear(); }
    void clear() {
        for (FreeFrame*& head : free) {
            while (head != nullptr) {
                FreeFrame* frame = head;
                head = frame->next;
                ::free(frame);
            }
        }
        for (unsigned& kept : count) kept = 0;
    }
};

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kRecycle = false;  // so that the sanitizer sees a frame used after its end
#else
constexpr bool kRecycle = true;
#endif

thread_local FramePool pool;

}  // namespace

void* allocate_frame(size_t size) {
    size_t index = (size + kStep - 1) / kStep - 1;
    if (kRecycle && index < kClasses) {
        if (FreeFrame* frame = pool.free[index]) {
            pool.free[index] = frame->next;
            pool.count[index]--;
            return frame;
        }
        size = (index + 1) * kStep;
    }
    void* memory = malloc(size);
    VITASTOR_ASSERT(memory != nullptr);
    return memory;
}

void free_frame(void* frame, size_t size) {
    size_t index = (size + kStep - 1) / kStep - 1;
    if (!kRecycle || index >= kClasses || pool.count[index] >= kKeepPerClass) {
        free(frame);
        return;
    }
    auto* block = static_cast<FreeFrame*>(frame);
    block->next = pool.free[index];
    pool.free[index] = block;
    pool.count[index]++;
}

void drop_free_frames() { pool.clear(); }

void WaitList::notify_all() {
    List<Waiter> now;
    while (Waiter* waiter = waiters_.pop_front()) now.push_back(waiter);
    while (Waiter* waiter = now.pop_front()) waiter->handle.resume();
}

}  // namespace vitastor::runtime

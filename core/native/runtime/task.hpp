// SPDX-License-Identifier: GPL-2.0-or-later
// Coroutines for multi-step operations: frames come from a per-thread pool, results are returned by value.
//
// Task<T> is lazy: it starts when awaited or spawned. It is awaited at most once. Everything runs on the loop's thread.
// GCC 12: give every non-trivial temporary inside a co_await expression a name of its own; never use capturing coroutine lambdas.
#pragma once

#include <coroutine>
#include <cstddef>
#include <utility>

#include "base/assert.hpp"
#include "runtime/loop.hpp"

namespace vitastor::runtime {

/// Frame memory; thread-local free lists by size class, bounded. Not for other use.
void* allocate_frame(size_t size);
void free_frame(void* frame, size_t size);
/// Gives back what this thread's free lists hold.
void drop_free_frames();

namespace detail {
struct FramePromise {
    static void* operator new(size_t size) { return allocate_frame(size); }
    static void operator delete(void* frame, size_t size) { free_frame(frame, size); }
    [[noreturn]] void unhandled_exception() { assertion_failed(__FILE__, __LINE__, "no exceptions"); }
};
struct FinalAwaiter {
    bool await_ready() const noexcept { return false; }
    template <class Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> self) const noexcept {
        return self.promise().continuation_;
    }
    void await_resume() const noexcept {}
};
}  // namespace detail

template <class T = void>
class [[nodiscard]] Task {
public:
    struct promise_type : detail::FramePromise {
        T value_{};
        std::coroutine_handle<> continuation_ = std::noop_coroutine();
        Task get_return_object() {
            return Task(std::coroutine_handle<promise_type>::from_promise(*this));
        }
        std::suspend_always initial_suspend() noexcept { return {}; }
        detail::FinalAwaiter final_suspend() noexcept { return {}; }
        void return_value(T value) { value_ = std::move(value); }
    };
    Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Task(const Task&) = delete;
    Task& operator=(Task&& other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~Task() {
        if (handle_) handle_.destroy();
    }
    bool await_ready() const noexcept { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<> waiter) noexcept {
        handle_.promise().continuation_ = waiter;
        return handle_;
    }
    T await_resume() { return std::move(handle_.promise().value_); }

private:
    explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
    std::coroutine_handle<promise_type> handle_;
};

template <>
class [[nodiscard]] Task<void> {
public:
    struct promise_type : detail::FramePromise {
        std::coroutine_handle<> continuation_ = std::noop_coroutine();
        Task get_return_object() {
            return Task(std::coroutine_handle<promise_type>::from_promise(*this));
        }
        std::suspend_always initial_suspend() noexcept { return {}; }
        detail::FinalAwaiter final_suspend() noexcept { return {}; }
        void return_void() {}
    };
    Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Task(const Task&) = delete;
    Task& operator=(Task&& other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~Task() {
        if (handle_) handle_.destroy();
    }
    bool await_ready() const noexcept { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<> waiter) noexcept {
        handle_.promise().continuation_ = waiter;
        return handle_;
    }
    void await_resume() {}

private:
    explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
    std::coroutine_handle<promise_type> handle_;
};

namespace detail {
struct Detached {
    struct promise_type : FramePromise {
        Detached get_return_object() { return {}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() {}
    };
};
inline Detached run_detached(Task<void> task) { co_await task; }
}  // namespace detail

/// Runs a task to its end on its own; it must not outlive what it refers to (owners count their spawned tasks and drain).
inline void spawn(Task<void> task) { detail::run_detached(std::move(task)); }

/// co_await of one Loop operation: derive nothing, just
///   Await op;  loop.read(file, &iov, 1, offset, op);  int64_t n = co_await op;
/// The Await object is a named local of the coroutine and is awaited exactly once after the operation was started.
struct Await : Completion {
    Await() {
        on_done = [](Completion* self, int64_t result) {
            auto* await = static_cast<Await*>(self);
            await->result_ = result;
            await->done_ = true;
            if (await->waiter_) std::exchange(await->waiter_, nullptr).resume();
        };
    }
    Await(const Await&) = delete;
    Await& operator=(const Await&) = delete;
    bool await_ready() const noexcept { return done_; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept { waiter_ = waiter; }
    int64_t await_resume() noexcept {
        done_ = false;
        return result_;
    }

private:
    std::coroutine_handle<> waiter_ = nullptr;
    int64_t result_ = 0;
    bool done_ = false;
};

/// Wakes any number of coroutines; they resume one after another from inside notify_all()/notify_one(). For queues and gates.
class WaitList {
public:
    struct Waiter : ListNode {
        std::coroutine_handle<> handle = nullptr;
        WaitList* list = nullptr;
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> h) noexcept {
            handle = h;
            list->waiters_.push_back(this);
        }
        void await_resume() noexcept {}
    };
    /// WaitList::Waiter w = list.wait();  co_await w;
    Waiter wait() { return Waiter{{}, nullptr, this}; }
    bool empty() const { return waiters_.empty(); }
    bool notify_one() {
        Waiter* waiter = waiters_.pop_front();
        if (waiter) waiter->handle.resume();
        return waiter != nullptr;
    }
    /// Wakes those that wait now; those that wait again while it runs stay.
    void notify_all();

private:
    List<Waiter> waiters_;
};

}  // namespace vitastor::runtime

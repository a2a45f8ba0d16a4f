// SPDX-License-Identifier: GPL-2.0-or-later
// What the multi-step tools (purge, merge) wait for: a call, a turn of the loop, several tasks.
#pragma once

#include "net/connection.hpp"
#include "runtime/task.hpp"

namespace vitastor::client {

/// CallAwait call; encode into call.request; connection->send(call); co_await call;
struct CallAwait : net::Call {
    std::coroutine_handle<> waiter;
    bool done = false;
    CallAwait() {
        on_reply = [](net::Call* self) {
            auto* call = static_cast<CallAwait*>(self);
            call->done = true;
            if (call->waiter) call->waiter.resume();
        };
    }
    bool await_ready() const noexcept { return done; }
    void await_suspend(std::coroutine_handle<> handle) noexcept { waiter = handle; }
    /// Result of the call: retval, or the status when the connection is gone.
    int64_t await_resume() const noexcept { return status ? status : retval; }
    wire::HeaderBytes header() { return wire::HeaderBytes(request, wire::kHeaderSize); }
    wire::ConstHeaderBytes answer() const { return wire::ConstHeaderBytes(reply, wire::kHeaderSize); }
};

/// Turn turn{loop}; co_await turn;  goes on at a later turn of the loop.
struct Turn {
    struct Hook : runtime::Deferred {
        std::coroutine_handle<> waiter;
    };
    runtime::Loop& loop;
    Hook hook{};
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) noexcept {
        hook.waiter = handle;
        hook.on_run = [](runtime::Deferred* self) { static_cast<Hook*>(self)->waiter.resume(); };
        loop.defer(hook);
    }
    void await_resume() const noexcept {}
};

/// Counts off several things that run at once; one waiter, which owns it and is woken last.
class Join {
public:
    void add(unsigned count = 1) { left_ += count; }
    void one_done() {
        if (--left_ == 0) done_.notify_one();
    }
    runtime::Task<> all() {
        while (left_ > 0) {
            auto waiter = done_.wait();
            co_await waiter;
        }
    }

private:
    unsigned left_ = 0;
    runtime::WaitList done_;
};

/// To be spawned: runs one of several tasks and counts it off.
inline runtime::Task<> joined(runtime::Task<> task, Join* join) {
    co_await task;
    join->one_done();
}

}  // namespace vitastor::client

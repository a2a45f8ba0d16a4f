// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <coroutine>
#include <utility>

#include "runtime/loop.hpp"

namespace vitastor::runtime {

/// co_await pause;  continues after duration_ns (nanoseconds), on the loop's thread. A named local of a coroutine; may be awaited again.
struct Pause : Timer {
    Pause(Loop& loop, uint64_t duration_ns) : loop_(loop), duration_ns_(duration_ns) {
        on_fire = [](Timer* self) { std::exchange(static_cast<Pause*>(self)->waiter_, nullptr).resume(); };
    }
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept {
        waiter_ = waiter;
        loop_.arm(*this, loop_.now_ns() + duration_ns_);
    }
    void await_resume() noexcept {}

private:
    Loop& loop_;
    uint64_t duration_ns_;
    std::coroutine_handle<> waiter_ = nullptr;
};

}  // namespace vitastor::runtime

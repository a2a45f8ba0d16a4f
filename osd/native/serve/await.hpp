// SPDX-License-Identifier: GPL-2.0-or-later
// co_await for store operations, listings, calls to peers, pauses and turns of the loop.
// Each is a named local of a coroutine, started by its owner, awaited exactly once per start.
#pragma once

#include <coroutine>
#include <utility>

#include "base/list.hpp"
#include "net/connection.hpp"
#include "runtime/loop.hpp"
#include "runtime/pause.hpp"
#include "runtime/task.hpp"
#include "store/store.hpp"

namespace vitastor::serve {

/// Waits for one event; the waker calls set() from any stack of the loop's thread.
class Signal {
public:
    void set() {
        done_ = true;
        if (waiter_) std::exchange(waiter_, nullptr).resume();
    }
    bool await_ready() const noexcept { return done_; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept { waiter_ = waiter; }
    void await_resume() noexcept { done_ = false; }

private:
    std::coroutine_handle<> waiter_ = nullptr;
    bool done_ = false;
};

/// Something that reports its end once by a callback: Base with a signal, which the callback sets.
template <class Base>
struct Awaited : Base {
    bool await_ready() const noexcept { return signal_.await_ready(); }
    void await_suspend(std::coroutine_handle<> waiter) noexcept { signal_.await_suspend(waiter); }

protected:
    static void wake(Base* self) { static_cast<Awaited*>(self)->signal_.set(); }
    Signal signal_;
};

/// Fill the fields, store.submit(op), co_await op.
struct StoreAwait : Awaited<store::Operation> {
    StoreAwait() { on_done = wake; }
    int64_t await_resume() noexcept {
        signal_.await_resume();
        return result;
    }
};

struct ListAwait : Awaited<store::ListOperation> {
    ListAwait() { on_done = wake; }
    int64_t await_resume() noexcept {
        signal_.await_resume();
        return result;
    }
};

struct CompletionAwait : Awaited<runtime::Completion> {
    CompletionAwait() {
        on_done = [](runtime::Completion* self, int64_t result) {
            static_cast<CompletionAwait*>(self)->result_ = result;
            wake(self);
        };
    }
    int64_t await_resume() noexcept {
        signal_.await_resume();
        return result_;
    }

private:
    int64_t result_ = 0;
};

/// Encode the request, connection->send(call), co_await call: retval of the reply, or a negative errno when there is none.
struct CallAwait : Awaited<net::Call> {
    CallAwait() { on_reply = wake; }
    int64_t await_resume() noexcept {
        signal_.await_resume();
        return status ? status : retval;
    }
};

/// Lets others run: the coroutine goes on in a later turn of the loop.
struct Yield : runtime::Deferred {
    explicit Yield(runtime::Loop& loop) : loop_(loop) {
        on_run = [](runtime::Deferred* self) { std::exchange(static_cast<Yield*>(self)->waiter_, nullptr).resume(); };
    }
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept {
        waiter_ = waiter;
        loop_.defer(*this);
    }
    void await_resume() noexcept {}

private:
    runtime::Loop& loop_;
    std::coroutine_handle<> waiter_ = nullptr;
};

/// Long background work (listings, peering, scrub lists) in slices: of all that wait, one goes on in each turn of the loop, so that
/// requests wait for one slice at most, however many such tasks there are. Slices::Turn turn(slices); co_await turn;
class Slices : runtime::Deferred {
public:
    explicit Slices(runtime::Loop& loop) : loop_(loop) {
        on_run = [](runtime::Deferred* self) { static_cast<Slices*>(self)->run(); };
    }
    struct Turn : ListNode {
        explicit Turn(Slices& slices) : slices_(slices) {}
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> waiter) noexcept {
            waiter_ = waiter;
            slices_.waiting_.push_back(this);
            if (!slices_.linked()) slices_.loop_.defer(slices_);
        }
        void await_resume() noexcept {}

    private:
        friend class Slices;
        Slices& slices_;
        std::coroutine_handle<> waiter_ = nullptr;
    };

private:
    void run() {
        Turn* next = waiting_.pop_front();
        if (!waiting_.empty()) loop_.defer(*this);
        if (next) next->waiter_.resume();
    }
    runtime::Loop& loop_;
    List<Turn> waiting_;
};

/// Memory of listings, counted in entries: those that fit run at once, the others wait; one that is larger than all runs alone.
class ListBudget {
public:
    explicit ListBudget(uint64_t limit) : limit_(limit) {}
    /// Frees its share when it goes away.
    struct Hold {
        Hold(ListBudget& owner, uint64_t entry_count) : budget(owner), entries(entry_count) {}
        Hold(const Hold&) = delete;
        ~Hold() {
            if (!granted) return;
            budget.used_ -= entries;
            budget.waiters_.notify_all();
        }
        ListBudget& budget;
        const uint64_t entries;
        bool granted = false;
    };
    /// Task<> admission = budget.admit(hold); co_await admission;
    runtime::Task<> admit(Hold& hold) {
        while (used_ > 0 && used_ + hold.entries > limit_) {
            runtime::WaitList::Waiter waiter = waiters_.wait();
            co_await waiter;
        }
        used_ += hold.entries;
        hold.granted = true;
    }

private:
    const uint64_t limit_;
    uint64_t used_ = 0;
    runtime::WaitList waiters_;
};

using runtime::Pause;

}  // namespace vitastor::serve

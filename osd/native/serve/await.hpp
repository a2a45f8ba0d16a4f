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

class Slices;

struct ListAwait : Awaited<store::ListOperation> {
    ListAwait() { on_done = wake; }
    Slices* slices = nullptr;  ///< of its give_way
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

/// Long work in short slices, of which one goes on in each turn of the loop, however many such tasks there are.
/// Slices::Turn turn(slices); co_await turn;
/// Pace::request: somebody waits for it; it goes on with the other work of a turn.
/// Pace::background: peering, listings, scrub: a request waits for one slice at most (Loop::defer_idle), and while clients are at
/// work each slice is followed by a pause as long as itself, so that what shares the processors with us gets them too.
class Slices {
public:
    enum class Pace { request, background };
    Slices(runtime::Loop& loop, Pace pace) : loop_(loop), pace_(pace) {
        next_.slices = pause_.slices = this;
        next_.on_run = [](runtime::Deferred* self) { static_cast<Next*>(self)->slices->run(); };
        pause_.on_fire = [](runtime::Timer* self) { static_cast<Timer*>(self)->slices->schedule(); };
    }
    ~Slices() {
        if (next_.linked()) next_.unlink();
        loop_.disarm(pause_);
    }
    Slices(const Slices&) = delete;

    struct Turn : runtime::Deferred {
        explicit Turn(Slices& slices) : slices_(slices) {
            on_run = [](runtime::Deferred* self) { static_cast<Turn*>(self)->waiter_.resume(); };
        }
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> waiter) noexcept {
            waiter_ = waiter;
            slices_.add(*this);
        }
        void await_resume() noexcept {}

    private:
        Slices& slices_;
        std::coroutine_handle<> waiter_ = nullptr;
    };
    /// Runs `slice` when it is its turn.
    void add(runtime::Deferred& slice) {
        waiting_.push_back(&slice);
        if (!running_) schedule();
    }
    /// A client's request has ended.
    void client_seen() { client_ns_ = loop_.now_ns(); }
    uint64_t count() const { return count_; }    ///< slices that have run
    uint64_t pauses() const { return pauses_; }  ///< pauses made for clients

    static constexpr uint64_t kClientWindowNs = 20 * runtime::kNsPerMs;  ///< clients are at work for so long after a request

private:
    struct Next : runtime::Deferred {
        Slices* slices = nullptr;
    };
    struct Timer : runtime::Timer {
        Slices* slices = nullptr;
    };
    void schedule() {
        if (waiting_.empty() || next_.linked() || pause_.armed()) return;
        if (pace_ == Pace::request) return loop_.defer(next_);
        if (not_before_ns_ <= loop_.now_ns()) return loop_.defer_idle(next_);
        pauses_++;
        loop_.arm(pause_, not_before_ns_);
    }
    void run() {
        runtime::Deferred* slice = waiting_.pop_front();
        if (!slice) return;
        count_++;
        const uint64_t start = pace_ == Pace::background ? loop_.now_exact_ns() : 0;
        running_ = true;
        slice->on_run(slice);
        running_ = false;
        if (pace_ == Pace::background && client_ns_ && start < client_ns_ + kClientWindowNs) {
            const uint64_t end = loop_.now_exact_ns();
            not_before_ns_ = end + (end - start);
        }
        schedule();
    }
    runtime::Loop& loop_;
    const Pace pace_;
    List<runtime::Deferred> waiting_;
    Next next_;
    Timer pause_;
    bool running_ = false;
    uint64_t client_ns_ = 0, not_before_ns_ = 0;
    uint64_t count_ = 0, pauses_ = 0;
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

// SPDX-License-Identifier: GPL-2.0-or-later
// What the io_uring and the epoll loop have in common: clock, randomness, timers, deferred work, mailbox, ready results.
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "runtime/loop.hpp"
#include "runtime/timer_heap.hpp"

namespace vitastor::runtime {

/// Results known at once (refused calls, files in memory) wait here until the next phase of run_once(), because completions
/// never run from inside the call that started the operation. Intrusive through Completion::loop_data; FIFO.
class ReadyQueue {
public:
    static constexpr uint64_t kMark = 1;  ///< loop_data[0] of a completion that waits here
    static bool holds(const Completion& completion) { return completion.loop_data[0] == kMark; }
    static int64_t result_of(const Completion& completion) { return static_cast<int64_t>(completion.loop_data[2]); }
    /// For a completion that waits here.
    static void change_result(Completion& completion, int64_t result) {
        completion.loop_data[2] = static_cast<uint64_t>(result);
    }

    bool empty() const { return first_ == nullptr; }
    void push(Completion& completion, int64_t result);
    /// Delivers what is there now, not what handlers add. Returns the number delivered.
    /// before(arg, completion) runs for each just before its on_done; may be null.
    unsigned run(void (*before)(void* arg, Completion& completion) = nullptr, void* arg = nullptr);

private:
    Completion* first_ = nullptr;
    Completion* last_ = nullptr;
};

class RealLoop : public Loop {
public:
    ~RealLoop() override;
    uint64_t now_ns() const override { return now_ns_; }
    uint64_t now_exact_ns() override;
    uint64_t wall_us() override;
    uint64_t random_u64() override;
    uint64_t next_deadline_ns() const override;
    void defer(Deferred& deferred) override { deferred_.push_back(&deferred); }
    void defer_idle(Deferred& deferred) override { idle_.push_back(&deferred); }
    void register_notifier(Notifier& notifier) override;
    void unregister_notifier(Notifier& notifier) override;
    void notify(Notifier& notifier) override;
    std::vector<std::string> local_addresses() override;
    BufferPool& buffers() override { return buffers_; }
    LoopCounters counters() const override { return counters_; }

protected:
    explicit RealLoop(const LoopOptions& options);
    void arm_timer(Timer& timer, uint64_t deadline_ns) override { timers_.arm(timer, deadline_ns); }
    void disarm_timer(Timer& timer) override { timers_.disarm(timer); }

    /// Runs due timers, the mailbox, ready results and deferred work, each as it stood on entry. True if anything ran.
    bool run_local();
    /// Just before a ready result is delivered.
    virtual void before_ready(Completion&) {}
    /// Something could run now (timers aside).
    bool local_pending() const { return urgent_pending() || !idle_.empty(); }
    /// Something of what run_local() runs.
    bool urgent_pending() const {
        return !ready_.empty() || !deferred_.empty() || has_mail_.load(std::memory_order_acquire);
    }
    /// At the end of a turn: it is time for a step of idle work. Submit what is queued, then run_idle().
    bool idle_due() { return !idle_.empty() && (!urgent_pending() || ++idle_put_off_ > kIdlePutOff); }
    void run_idle();
    void refresh_now() { now_exact_ns(); }
    /// Announces sleep: from here on notify() writes to the eventfd `wake_fd`. False: mail is there, do not sleep.
    bool prepare_sleep(int wake_fd);
    void end_sleep() { wake_fd_.store(-1, std::memory_order_relaxed); }
    /// Empties the eventfd. Call when mail_fd_ became readable.
    void drain_mail_fd();

    ReadyQueue ready_;
    LoopCounters counters_;
    int mail_fd_ = -1;  ///< nonblocking eventfd
    uint64_t spin_ns_;

private:
    struct MailSlot {
        Notifier* notifier = nullptr;
        bool pending = false;
    };
    bool run_timers();
    bool run_mail();
    bool run_deferred();

    uint64_t now_ns_ = 0;
    TimerHeap timers_;
    List<Deferred> deferred_;
    static constexpr unsigned kIdlePutOff = 8;
    List<Deferred> idle_;
    unsigned idle_put_off_ = 0;  ///< turns in a row in which idle work waited for other work
    uint64_t random_[64];
    unsigned random_left_ = 0;
    std::mutex mail_mutex_;  ///< guards mail_ and the slots
    std::vector<MailSlot*> mail_;
    std::vector<MailSlot*> mail_now_;  ///< loop thread only: the batch being delivered
    std::atomic<bool> has_mail_{false};
    std::atomic<int> wake_fd_{-1};  ///< eventfd that ends the sleep; -1: awake
    BufferPool buffers_;
};

Result<std::unique_ptr<Loop>> create_uring_loop(const LoopOptions& options);
Result<std::unique_ptr<Loop>> create_epoll_loop(const LoopOptions& options);

}  // namespace vitastor::runtime

// SPDX-License-Identifier: GPL-2.0-or-later
#include "runtime/real_loop.hpp"

#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "runtime/os_net.hpp"

namespace vitastor::runtime {

void ReadyQueue::push(Completion& completion, int64_t result) {
    completion.loop_data[0] = kMark;
    completion.loop_data[1] = 0;
    completion.loop_data[2] = static_cast<uint64_t>(result);
    if (last_ != nullptr) {
        last_->loop_data[1] = reinterpret_cast<uint64_t>(&completion);
    } else {
        first_ = &completion;
    }
    last_ = &completion;
}

unsigned ReadyQueue::run(void (*before)(void*, Completion&), void* arg) {
    Completion* item = first_;
    first_ = last_ = nullptr;
    unsigned count = 0;
    while (item != nullptr) {
        auto* next = reinterpret_cast<Completion*>(item->loop_data[1]);
        if (before != nullptr) before(arg, *item);
        item->loop_data[0] = 0;
        item->on_done(item, result_of(*item));
        item = next;
        count++;
    }
    return count;
}

RealLoop::RealLoop(const LoopOptions& options)
    : spin_ns_(uint64_t{options.spin_us} * 1000), buffers_(options.buffer_keep_bytes) {
    mail_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    VITASTOR_ASSERT(mail_fd_ >= 0);
    refresh_now();
}

RealLoop::~RealLoop() {
    while (deferred_.pop_front() != nullptr) {
    }
    while (idle_.pop_front() != nullptr) {
    }
    for (MailSlot* slot : mail_) slot->pending = false;
    close(mail_fd_);
}

uint64_t RealLoop::now_exact_ns() {
    timespec ts;
    clock_gettime(CLOCK_BOOTTIME, &ts);
    now_ns_ = static_cast<uint64_t>(ts.tv_sec) * kNsPerSecond + static_cast<uint64_t>(ts.tv_nsec);
    return now_ns_;
}

uint64_t RealLoop::wall_us() {
    timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return static_cast<uint64_t>(ts.tv_sec) * 1'000'000 + static_cast<uint64_t>(ts.tv_nsec) / 1000;
}

uint64_t RealLoop::random_u64() {
    if (random_left_ == 0) {
        size_t filled = 0;
        while (filled < sizeof(random_)) {
            ssize_t got = getrandom(reinterpret_cast<uint8_t*>(random_) + filled, sizeof(random_) - filled, 0);
            VITASTOR_ASSERT(got > 0 || errno == EINTR);
            if (got > 0) filled += static_cast<size_t>(got);
        }
        random_left_ = std::size(random_);
    }
    return random_[--random_left_];
}

uint64_t RealLoop::next_deadline_ns() const {
    return local_pending() ? now_ns_ : timers_.earliest_ns();
}

bool RealLoop::run_timers() {
    bool ran = false;
    uint64_t limit = timers_.sequence();
    while (Timer* timer = timers_.pop_due(now_ns_, limit)) {
        timer->on_fire(timer);
        ran = true;
    }
    return ran;
}

bool RealLoop::run_deferred() {
    if (deferred_.empty()) return false;
    // A mark at the end of today's queue; what is deferred from inside stands behind it.
    Deferred mark;
    deferred_.push_back(&mark);
    while (Deferred* item = deferred_.pop_front()) {
        if (item == &mark) break;
        item->on_run(item);
    }
    return true;
}

void RealLoop::run_idle() {
    idle_put_off_ = 0;
    counters_.idle_steps++;
    Deferred* item = idle_.pop_front();
    item->on_run(item);
}

bool RealLoop::run_local() {
    bool ran = run_timers();
    ran = run_mail() || ran;
    unsigned delivered = ready_.run(
        [](void* self, Completion& completion) { static_cast<RealLoop*>(self)->before_ready(completion); }, this);
    counters_.completions += delivered;
    ran = delivered > 0 || ran;
    return run_deferred() || ran;
}

// ---- mailbox

void RealLoop::register_notifier(Notifier& notifier) {
    VITASTOR_ASSERT(notifier.loop_data == nullptr);
    auto* slot = new MailSlot;
    slot->notifier = &notifier;
    notifier.loop_data = slot;
}

void RealLoop::unregister_notifier(Notifier& notifier) {
    auto* slot = static_cast<MailSlot*>(notifier.loop_data);
    if (slot == nullptr) return;
    notifier.loop_data = nullptr;
    std::lock_guard<std::mutex> lock(mail_mutex_);
    std::erase(mail_, slot);
    std::replace(mail_now_.begin(), mail_now_.end(), slot, static_cast<MailSlot*>(nullptr));
    delete slot;
}

void RealLoop::notify(Notifier& notifier) {
    auto* slot = static_cast<MailSlot*>(notifier.loop_data);
    VITASTOR_ASSERT(slot != nullptr);
    {
        std::lock_guard<std::mutex> lock(mail_mutex_);
        if (slot->pending) return;
        slot->pending = true;
        mail_.push_back(slot);
    }
    has_mail_.store(true, std::memory_order_seq_cst);
    // Pairs with prepare_sleep(): either it sees the mail, or we see that it sleeps.
    const int fd = wake_fd_.exchange(-1, std::memory_order_seq_cst);
    if (fd >= 0) {
        uint64_t one = 1;
        ssize_t written = ::write(fd, &one, sizeof(one));
        static_cast<void>(written);  // EAGAIN: it is readable already
    }
}

bool RealLoop::run_mail() {
    if (!has_mail_.load(std::memory_order_acquire)) return false;
    has_mail_.store(false, std::memory_order_seq_cst);
    {
        std::lock_guard<std::mutex> lock(mail_mutex_);
        mail_now_.swap(mail_);
        for (MailSlot* slot : mail_now_) slot->pending = false;
    }
    // Handlers may unregister others of the same batch: those become null.
    for (size_t i = 0; i < mail_now_.size(); i++) {
        if (mail_now_[i] == nullptr) continue;
        Notifier* notifier = mail_now_[i]->notifier;
        notifier->on_notify(notifier);
    }
    bool ran = !mail_now_.empty();
    mail_now_.clear();
    return ran;
}

bool RealLoop::prepare_sleep(int wake_fd) {
    wake_fd_.store(wake_fd, std::memory_order_seq_cst);
    if (!has_mail_.load(std::memory_order_seq_cst)) return true;
    end_sleep();
    return false;
}

void RealLoop::drain_mail_fd() {
    uint64_t count;
    ssize_t got = ::read(mail_fd_, &count, sizeof(count));
    static_cast<void>(got);  // EAGAIN: somebody wrote, we slept not; nothing is lost
}

std::vector<std::string> RealLoop::local_addresses() { return interface_addresses(); }

}  // namespace vitastor::runtime

// SPDX-License-Identifier: GPL-2.0-or-later
// The ring itself: set-up, turns, operations' life. The calls of the seam are in uring_calls.cpp.
#include "runtime/uring_loop.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "runtime/os_net.hpp"

namespace vitastor::runtime {

namespace {

constexpr uint64_t kTagIgnore = 1;  ///< user_data of cancels and wake-ups; operations carry their address
constexpr uint64_t kTagMail = 2;
constexpr unsigned kOpsPerChunk = 256;
constexpr unsigned kGatherLimit = 64;  ///< so many results end the gathering early
constexpr uint64_t kDrainLimitNs = 2 * kNsPerSecond;

}  // namespace

Result<std::unique_ptr<Loop>> create_uring_loop(const LoopOptions& options) { return UringLoop::create(options); }

Result<std::unique_ptr<Loop>> UringLoop::create(const LoopOptions& options) {
    std::unique_ptr<UringLoop> loop(new UringLoop(options));
    int error = loop->set_up(options.queue_depth);
    if (error != 0) {
        std::string why = error == -ENOMEM ? "too little lockable memory (RLIMIT_MEMLOCK)" : strerror(-error);
        return Status(error, "io_uring is refused on this machine: " + why);
    }
    return std::unique_ptr<Loop>(std::move(loop));
}

/// pollable: whoever polls poll_fd() is woken. Work that waits for the owner to enter (DEFER_TASKRUN) wakes nobody who polls the ring: poll() sees it only
/// when it looks anew (tried on kernel 6.18). It is told of through an eventfd. Other rings' work interrupts the thread in poll(), once more than necessary.
int UringLoop::set_up(uint32_t depth, bool pollable) {
    depth_ = depth;
    // From the best to the plainest; a kernel that does not know a flag says EINVAL.
    constexpr unsigned kBase = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    const unsigned attempts[] = {
        kBase | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN
            | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED,  // 6.1
        kBase | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,  // 5.19
        kBase,
    };
    int error = -EINVAL;
    for (unsigned flags : attempts) {
        io_uring_params params{};
        params.flags = flags;
        params.cq_entries = depth * 4;
        error = io_uring_queue_init_params(depth, &ring_, &params);
        if (error == -EINVAL) continue;
        if (error != 0) return error;
        if (!(params.features & IORING_FEAT_EXT_ARG) || !(params.features & IORING_FEAT_NODROP)) {
            io_uring_queue_exit(&ring_);
            return -ENOSYS;  // older than 5.11: no wait with a timeout
        }
        if (pollable && (flags & IORING_SETUP_DEFER_TASKRUN)) {
            event_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
            if (event_fd_ < 0 || io_uring_register_eventfd(&ring_, event_fd_) != 0) {
                if (event_fd_ >= 0) ::close(std::exchange(event_fd_, -1));
                io_uring_queue_exit(&ring_);
                continue;
            }
        }
        ring_made_ = true;
        disabled_ = flags & IORING_SETUP_R_DISABLED;
        task_run_flag_ = flags & IORING_SETUP_TASKRUN_FLAG;
        pollable_ = !(flags & IORING_SETUP_DEFER_TASKRUN);
        return 0;
    }
    return error;
}

/// The ring is made anew, so it must be unused yet.
int UringLoop::poll_fd() {
    if (event_fd_ >= 0) return event_fd_;
    if (pollable_) return ring_.ring_fd;
    if (bound_ || io_uring_sq_ready(&ring_) > 0) return -EBUSY;
    io_uring_queue_exit(&ring_);
    ring_made_ = false;
    const int error = set_up(depth_, true);
    if (error != 0) return error;
    return event_fd_ >= 0 ? event_fd_ : ring_.ring_fd;
}

UringLoop::~UringLoop() {
    if (discard_thread_ != nullptr) {
        discard_thread_.reset();
        unregister_notifier(discards_done_);
    }
    if (!ring_made_) return;
    abandon_all();
    io_uring_queue_exit(&ring_);
    if (event_fd_ >= 0) ::close(event_fd_);
}

/// Ends everything without running completions. On the loop's thread it waits until the kernel lets go of the memory.
void UringLoop::abandon_all() {
    bool mine = bound_ && pthread_equal(thread_, pthread_self());
    for (uint32_t i = 0; i < sockets_.size(); i++) {
        SocketSlot& slot = sockets_.at(i);
        if (slot.fd >= 0) ::shutdown(slot.fd, SHUT_RDWR);
    }
    if (mine && in_flight_ > 0) {
        for (auto& chunk : op_chunks_) {
            for (unsigned i = 0; i < kOpsPerChunk; i++) {
                if (chunk[i].completion != nullptr && !chunk[i].queued) queue_cancel(&chunk[i]);
            }
        }
        start_waiting();
        uint64_t limit = now_exact_ns() + kDrainLimitNs;
        while (in_flight_ > 0 && now_exact_ns() < limit) {
            wait(limit);
            io_uring_cqe* cqe = nullptr;
            while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
                if (cqe->user_data > kTagMail) {
                    auto* op = reinterpret_cast<Op*>(cqe->user_data);
                    if (op->kind == Kind::accept && cqe->res >= 0) ::close(cqe->res);
                    in_flight_--;
                }
                io_uring_cqe_seen(&ring_, cqe);
            }
        }
    }
    for (auto& chunk : op_chunks_) {
        for (unsigned i = 0; i < kOpsPerChunk; i++) {
            if (chunk[i].linked()) chunk[i].unlink();
            if (chunk[i].completion != nullptr && chunk[i].kind == Kind::connect) ::close(chunk[i].fd);
        }
    }
    for (uint32_t i = 0; i < sockets_.size(); i++) {
        if (sockets_.at(i).fd >= 0) ::close(sockets_.at(i).fd);
    }
    for (uint32_t i = 0; i < files_.size(); i++) {
        if (files_.at(i).os.fd >= 0) ::close(files_.at(i).os.fd);
    }
}

// ---- a turn

void UringLoop::bind() {
    bound_ = true;
    thread_ = pthread_self();
    if (disabled_) {
        // liburing 2.3 forgets to export io_uring_enable_rings().
        auto error = syscall(__NR_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
        VITASTOR_ASSERT(error == 0);
        disabled_ = false;
    }
    io_uring_register_ring_fd(&ring_);  // saves a descriptor look-up per entry; where refused, all works without
    arm_mail_poll();
}

void UringLoop::run_once(uint64_t until_ns) {
    if (!bound_) bind();
    const bool polled = events_on_;
    if (polled) stop_events();
    end_sleep();
    refresh_now();
    bool worked = run_local();
    start_waiting();
    uint64_t deadline = std::min(until_ns, next_deadline_ns());
    if (worked || local_pending() || deadline <= now_ns() || io_uring_cq_ready(&ring_) > 0) {
        submit(true);
    } else {
        if (had_work_ && spin_ns_ > 0) spin(deadline);
        if (io_uring_cq_ready(&ring_) == 0 && !local_pending()) wait(deadline);
    }
    refresh_now();
    unsigned reaped = reap();
    counters_.completions += reaped;
    worked = reaped > 0 || worked;
    counters_.turns++;
    worked = run_local() || worked;
    if (idle_due()) {
        start_waiting();
        submit(false);
        run_idle();
        worked = true;
    }
    // A caller may come for reasons of its own. In vain twice: it is told of what has been done already.
    if (worked) idle_polls_ = 0;
    else if (polled && ++idle_polls_ > 1) drain_events();
    had_work_ = worked;
}

// ---- who polls

/// For a turn, which looks by itself.
void UringLoop::stop_events() {
    io_uring_cq_eventfd_toggle(&ring_, false);
    events_on_ = false;
    if (event_written_ || local_pending() || kernel_has_work() || io_uring_cq_ready(&ring_) > 0) drain_events();
}

void UringLoop::drain_events() {
    uint64_t count;
    ssize_t got = ::read(event_fd_, &count, sizeof(count));
    static_cast<void>(got);  // EAGAIN: it was not readable
    event_written_ = false;
}

/// Before the caller polls. `now`: there is something to do at once.
void UringLoop::resume_events(bool now) {
    io_uring_cq_eventfd_toggle(&ring_, true);
    events_on_ = true;
    // What comes from here on is told of; what has come before is seen here.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (!now && !kernel_has_work() && io_uring_cq_ready(&ring_) == 0) return;
    const uint64_t one = 1;
    ssize_t written = ::write(event_fd_, &one, sizeof(one));
    static_cast<void>(written);  // EAGAIN: it is readable already
    event_written_ = true;
}

bool UringLoop::kernel_has_work() const {
    constexpr unsigned kFlags = IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN;
    return __atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED) & kFlags;
}

/// Hands queued entries over; with `reap` also lets the kernel finish what is pending. Enters only if there is a reason.
void UringLoop::submit(bool reap) {
    bool work = reap && kernel_has_work();
    if (!work && io_uring_sq_ready(&ring_) == 0) return;
    counters_.kernel_entries++;
    // EBUSY and EAGAIN leave the entries in the queue for the next time.
    if (reap) {
        io_uring_submit_and_get_events(&ring_);
    } else {
        io_uring_submit(&ring_);
    }
}

void UringLoop::wait(uint64_t until_ns) {
    if (!prepare_sleep(mail_fd_)) return submit(true);
    if (gather_ns_ > 0) {
        uint64_t end = now_exact_ns() + gather_ns_;
        if (end < until_ns) {
            // Many at once, or what there is when the time is up; nothing at all: sleep on as usual.
            sleep(kGatherLimit, end);
            if (io_uring_cq_ready(&ring_) > 0) return end_sleep();
        }
    }
    sleep(1, until_ns);
    end_sleep();
}

void UringLoop::sleep(unsigned wanted, uint64_t until_ns) {
    __kernel_timespec ts{};
    __kernel_timespec* limit = nullptr;
    if (until_ns != kNever) {
        uint64_t now = now_exact_ns();
        uint64_t left = until_ns > now ? until_ns - now : 0;
        ts.tv_sec = static_cast<int64_t>(left / kNsPerSecond);
        ts.tv_nsec = static_cast<long long>(left % kNsPerSecond);
        limit = &ts;
    }
    counters_.kernel_entries++;
    if (!kernel_has_work()) counters_.wakeups++;
    io_uring_cqe* cqe = nullptr;
    io_uring_submit_and_wait_timeout(&ring_, &cqe, wanted, limit, nullptr);
}

/// Looks at shared memory only; the kernel is entered when it shows work.
void UringLoop::spin(uint64_t until_ns) {
    submit(true);
    uint64_t end = std::min(until_ns, now_exact_ns() + spin_ns_);
    for (unsigned i = 1;; i++) {
        if (io_uring_cq_ready(&ring_) > 0 || local_pending()) return;
        if (task_run_flag_ ? kernel_has_work() : i % 64 == 0) {
            counters_.kernel_entries++;
            io_uring_get_events(&ring_);
            continue;
        }
        if (i % 16 == 0 && now_exact_ns() >= end) return;
        __builtin_ia32_pause();
    }
}

unsigned UringLoop::reap() {
    unsigned total = 0;
    io_uring_cqe* batch[64];
    // Bounded by what is there now: handlers enter the kernel only when the submission queue is full.
    for (unsigned left = io_uring_cq_ready(&ring_); left > 0;) {
        unsigned count = io_uring_peek_batch_cqe(&ring_, batch, std::min<unsigned>(left, 64));
        if (count == 0) break;
        struct Ended {
            uint64_t data;
            int32_t result;
            uint32_t flags;
        } ended[64];
        for (unsigned i = 0; i < count; i++) ended[i] = {batch[i]->user_data, batch[i]->res, batch[i]->flags};
        io_uring_cq_advance(&ring_, count);
        left -= count;
        for (unsigned i = 0; i < count; i++) {
            if (ended[i].data == kTagMail) {
                drain_mail_fd();
                arm_mail_poll();
            } else if (ended[i].data != kTagIgnore) {
                in_flight_--;
                total++;
                finish(reinterpret_cast<Op*>(ended[i].data), ended[i].result, ended[i].flags);
            }
        }
    }
    return total;
}

void UringLoop::flush() {
    if (!bound_) bind();
    start_waiting();
    // Something to run here makes poll_fd() readable at once; otherwise mail does from now on. It writes to the eventfd that is polled itself: a kernel does not
    // always write to it because of another eventfd (tried on 6.18: once only).
    const bool now = local_pending() || !prepare_sleep(event_fd_ >= 0 ? event_fd_ : mail_fd_);
    if (now && event_fd_ < 0) queue_tag(kTagIgnore);
    submit(true);
    if (event_fd_ >= 0) resume_events(now);
}

// ---- operations

UringLoop::Op* UringLoop::new_op(Kind kind, Completion& completion) {
    if (free_ops_ == nullptr) {
        op_chunks_.push_back(std::make_unique<Op[]>(kOpsPerChunk));
        for (unsigned i = 0; i < kOpsPerChunk; i++) free_op(&op_chunks_.back()[i]);
    }
    Op* op = free_ops_;
    free_ops_ = op->next_free;
    op->kind = kind;
    op->completion = &completion;
    op->cancel_requested = false;
    completion.loop_data[0] = reinterpret_cast<uint64_t>(op);
    return op;
}

void UringLoop::free_op(Op* op) {
    op->completion = nullptr;
    op->next_free = free_ops_;
    free_ops_ = op;
}

io_uring_sqe* UringLoop::get_sqe() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr && bound_) {
        VITASTOR_PROBE("submission queue full");
        submit(false);
        sqe = io_uring_get_sqe(&ring_);
    }
    return sqe;
}

void UringLoop::start(Op* op) {
    io_uring_sqe* sqe = waiting_.empty() ? get_sqe() : nullptr;
    if (sqe == nullptr) {
        op->queued = true;
        waiting_.push_back(op);
        return;
    }
    prepare(op, sqe);
}

void UringLoop::start_waiting() {
    while (!waiting_cancels_.empty()) {
        io_uring_sqe* sqe = get_sqe();
        if (sqe == nullptr) return;
        io_uring_prep_cancel(sqe, waiting_cancels_.back(), 0);
        sqe->user_data = kTagIgnore;
        waiting_cancels_.pop_back();
    }
    while (!waiting_.empty()) {
        io_uring_sqe* sqe = get_sqe();
        if (sqe == nullptr) return;
        Op* op = waiting_.front();
        waiting_.pop_front();
        op->queued = false;
        prepare(op, sqe);
    }
}

void UringLoop::prepare(Op* op, io_uring_sqe* sqe) {
    switch (op->kind) {
    case Kind::connect:
        io_uring_prep_connect(sqe, op->fd, reinterpret_cast<sockaddr*>(&op->address), op->address_length);
        break;
    case Kind::accept:
        io_uring_prep_accept(sqe, op->fd, nullptr, nullptr, SOCK_CLOEXEC);
        break;
    case Kind::receive:
    case Kind::send:
        if (op->count == 1) {
            if (op->kind == Kind::receive) {
                io_uring_prep_recv(sqe, op->fd, op->iov->iov_base, op->iov->iov_len, 0);
            } else {
                io_uring_prep_send(sqe, op->fd, op->iov->iov_base, op->iov->iov_len, MSG_NOSIGNAL);
            }
        } else {
            op->message = msghdr{};
            op->message.msg_iov = const_cast<iovec*>(op->iov);
            op->message.msg_iovlen = static_cast<size_t>(op->count);
            if (op->kind == Kind::receive) {
                io_uring_prep_recvmsg(sqe, op->fd, &op->message, 0);
            } else {
                io_uring_prep_sendmsg(sqe, op->fd, &op->message, MSG_NOSIGNAL);
            }
        }
        if (op->kind == Kind::receive && task_run_flag_ && sockets_.at(op->slot).drained) {
            sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
        }
        break;
    case Kind::read:
        if (op->count == 1) {
            io_uring_prep_read(sqe, op->fd, op->iov->iov_base, static_cast<unsigned>(op->iov->iov_len), op->offset);
        } else {
            io_uring_prep_readv(sqe, op->fd, op->iov, static_cast<unsigned>(op->count), op->offset);
        }
        break;
    case Kind::write:
        if (op->count == 1) {
            io_uring_prep_write(sqe, op->fd, op->iov->iov_base, static_cast<unsigned>(op->iov->iov_len), op->offset);
        } else {
            io_uring_prep_writev(sqe, op->fd, op->iov, static_cast<unsigned>(op->count), op->offset);
        }
        break;
    case Kind::sync:
        io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
        break;
    case Kind::discard:
        io_uring_prep_fallocate(sqe, op->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                static_cast<off_t>(op->offset), static_cast<off_t>(op->length));
        break;
    }
    io_uring_sqe_set_data(sqe, op);
    in_flight_++;
}

void UringLoop::queue_cancel(Op* op) {
    io_uring_sqe* sqe = waiting_cancels_.empty() ? get_sqe() : nullptr;
    if (sqe == nullptr) {
        waiting_cancels_.push_back(op);
        return;
    }
    io_uring_prep_cancel(sqe, op, 0);
    sqe->user_data = kTagIgnore;
}

void UringLoop::queue_tag(uint64_t tag) {
    io_uring_sqe* sqe = get_sqe();
    if (sqe == nullptr) return;  // full of work: the ring will be readable anyway
    io_uring_prep_nop(sqe);
    sqe->user_data = tag;
}

void UringLoop::arm_mail_poll() {
    io_uring_sqe* sqe = get_sqe();
    VITASTOR_ASSERT(sqe != nullptr);
    io_uring_prep_poll_add(sqe, mail_fd_, POLLIN);
    sqe->user_data = kTagMail;
}

void UringLoop::finish(Op* op, int result, uint32_t cqe_flags) {
    Completion* completion = op->completion;
    int64_t value = result;
    bool on_socket = false;
    switch (op->kind) {
    case Kind::connect:
        if (result == 0) {
            value = new_socket(op->fd);
        } else {
            ::close(op->fd);
            if (op->cancel_requested) value = -ECANCELED;
        }
        break;
    case Kind::receive:
        sockets_.at(op->slot).drained = !(cqe_flags & IORING_CQE_F_SOCK_NONEMPTY);
        on_socket = true;
        break;
    case Kind::accept:
        if (result >= 0) {
            set_no_delay(result);
            value = sockets_.at(op->slot).open ? new_socket(result) : (::close(result), -ECANCELED);
        }
        on_socket = true;
        break;
    case Kind::send:
        on_socket = true;
        break;
    case Kind::read:
    case Kind::write:
    case Kind::sync:
    case Kind::discard: {
        leave_file(op->slot);
        break;
    }
    }
    if (on_socket && !sockets_.at(op->slot).open) value = -ECANCELED;
    if (value == -EINTR && op->cancel_requested) value = -ECANCELED;
    if (on_socket) finish_socket_op(op);
    if (!waiting_cancels_.empty()) std::erase(waiting_cancels_, op);
    free_op(op);
    completion->loop_data[0] = 0;
    completion->on_done(completion, value);
}

void UringLoop::finish_socket_op(Op* op) {
    op->unlink();
    SocketSlot& slot = sockets_.at(op->slot);
    if (!slot.open && slot.ops.empty()) {
        ::close(std::exchange(slot.fd, -1));
        sockets_.recycle(op->slot);
    }
}

}  // namespace vitastor::runtime

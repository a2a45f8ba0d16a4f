// SPDX-License-Identifier: GPL-2.0-or-later
#include "runtime/epoll_loop.hpp"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/os_net.hpp"

namespace vitastor::runtime {

namespace {

constexpr uint64_t kMailData = UINT64_MAX;
constexpr int kEventsPerTurn = 256;
constexpr size_t kJobLimit = 65536;

// Completion::loop_data[0] is null when idle, ReadyQueue::kMark in the ready queue, kWaiting at a socket, else a DiskJob.
constexpr uint64_t kWaiting = 2;

}  // namespace

Result<std::unique_ptr<Loop>> create_epoll_loop(const LoopOptions& options) { return EpollLoop::create(options); }

Result<std::unique_ptr<Loop>> EpollLoop::create(const LoopOptions& options) {
    std::unique_ptr<EpollLoop> loop(new EpollLoop(options));
    if (loop->epoll_fd_ < 0) {
        return Status(loop->epoll_fd_, std::string("epoll is refused: ") + strerror(-loop->epoll_fd_));
    }
    return std::unique_ptr<Loop>(std::move(loop));
}

EpollLoop::EpollLoop(const LoopOptions& options) : RealLoop(options), disk_thread_count_(options.disk_threads) {
    epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd_ < 0) {
        epoll_fd_ = -errno;
        return;
    }
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    event.data.u64 = kMailData;
    int error = epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, mail_fd_, &event);
    VITASTOR_ASSERT(error == 0);
    disk_done_.loop = this;
    disk_done_.on_notify = [](Notifier* self) { static_cast<DoneNotifier*>(self)->loop->collect_finished(); };
    register_notifier(disk_done_);
}

EpollLoop::~EpollLoop() {
    disk_.reset();
    unregister_notifier(disk_done_);
    for (uint32_t i = 0; i < sockets_.size(); i++) {
        if (sockets_.at(i).fd >= 0) ::close(sockets_.at(i).fd);
    }
    for (uint32_t i = 0; i < files_.size(); i++) {
        if (files_.at(i).os.fd >= 0) ::close(files_.at(i).os.fd);
    }
    if (epoll_fd_ >= 0) ::close(epoll_fd_);
}

// ---- a turn

void EpollLoop::run_once(uint64_t until_ns) {
    end_sleep();
    refresh_now();
    bool worked = run_local();
    uint64_t deadline = std::min(until_ns, next_deadline_ns());
    bool may_sleep = !worked && !local_pending() && deadline > now_ns();
    if (may_sleep && had_work_ && spin_ns_ > 0) {
        uint64_t end = std::min(deadline, now_ns() + spin_ns_);
        while (may_sleep && now_exact_ns() < end) {
            if (poll_kernel(0, false) || local_pending()) may_sleep = false;
        }
        if (may_sleep) poll_kernel(deadline, true);
    } else {
        poll_kernel(deadline, may_sleep);
    }
    refresh_now();
    counters_.turns++;
    had_work_ = run_local() || worked;
    if (idle_due()) {
        run_idle();
        had_work_ = true;
    }
}

int EpollLoop::wait_events(uint64_t until_ns, bool may_sleep) {
    static thread_local epoll_event events[kEventsPerTurn];
    timespec ts{};
    timespec* limit = &ts;
    uint64_t left = 0;
    if (may_sleep && prepare_sleep(mail_fd_)) {
        counters_.wakeups++;
        if (until_ns == kNever) {
            limit = nullptr;
        } else {
            uint64_t now = now_exact_ns();
            left = until_ns > now ? until_ns - now : 0;
            ts.tv_sec = static_cast<time_t>(left / kNsPerSecond);
            ts.tv_nsec = static_cast<long>(left % kNsPerSecond);
        }
    }
    counters_.kernel_entries++;
    int count = -1;
    if (precise_wait_) {
        count = epoll_pwait2(epoll_fd_, events, kEventsPerTurn, limit, nullptr);
        if (count < 0 && (errno == ENOSYS || errno == EPERM)) precise_wait_ = false;
    }
    if (!precise_wait_) {
        int milliseconds = limit == nullptr ? -1
            : static_cast<int>(std::min<uint64_t>((left + kNsPerMs - 1) / kNsPerMs, 3'600'000));
        count = epoll_wait(epoll_fd_, events, kEventsPerTurn, milliseconds);
    }
    end_sleep();
    for (int i = 0; i < count; i++) {
        uint64_t data = events[i].data.u64;
        if (data == kMailData) {
            drain_mail_fd();
            continue;
        }
        // A socket closed by an earlier event of this batch is not open under this handle any more.
        SocketSlot& slot = sockets_.at(sockets_.index_of(static_cast<Socket>(data)));
        if (slot.handle == static_cast<Socket>(data)) on_event(slot, events[i].events);
    }
    return count;
}

bool EpollLoop::poll_kernel(uint64_t until_ns, bool may_sleep) { return wait_events(until_ns, may_sleep) > 0; }

bool EpollLoop::ready() {
    pollfd waiting{epoll_fd_, POLLIN, 0};
    return local_pending() || poll(&waiting, 1, 0) > 0;
}

void EpollLoop::flush() {
    if (local_pending() || !prepare_sleep(mail_fd_)) {
        uint64_t one = 1;
        ssize_t written = ::write(mail_fd_, &one, sizeof(one));
        static_cast<void>(written);  // full is as good: it is readable
    }
}

void EpollLoop::on_event(SocketSlot& slot, uint32_t events) {
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) slot.hung_up = true;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        slot.in.ready = true;
        try_in(slot);
    }
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
        slot.out.ready = true;
        try_out(slot);
    }
}

// ---- network

void EpollLoop::complete(SocketSlot& slot, Direction direction, int64_t result) {
    Side& side = direction == Direction::in ? slot.in : slot.out;
    // The slot keeps the completion until it is delivered, so that a close in between can still change the result.
    side.completion->loop_data[3] =
        (uint64_t{sockets_.index_of(slot.handle)} << 2) | static_cast<uint64_t>(direction);
    ready_.push(*side.completion, result);
}

void EpollLoop::before_ready(Completion& completion) {
    uint64_t where = std::exchange(completion.loop_data[3], 0);
    if (where == 0) return;
    SocketSlot& slot = sockets_.at(static_cast<uint32_t>(where >> 2));
    Side& side = static_cast<Direction>(where & 3) == Direction::in ? slot.in : slot.out;
    if (side.completion == &completion) side.completion = nullptr;
}

void EpollLoop::try_in(SocketSlot& slot) {
    Side& side = slot.in;
    if (!side.ready || side.completion == nullptr || ReadyQueue::holds(*side.completion)) return;
    counters_.kernel_entries++;
    if (slot.listening) {
        int fd = accept4(slot.fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)) {
            side.ready = errno != EAGAIN;
            if (side.ready) try_in(slot);
            return;
        }
        if (fd < 0) return complete(slot, Direction::in, -errno);
        set_no_delay(fd);
        return complete(slot, Direction::in, add_socket(fd));
    }
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(side.iov);
    message.msg_iovlen = static_cast<size_t>(side.count);
    ssize_t got;
    do {
        got = recvmsg(slot.fd, &message, 0);
    } while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN) {
        side.ready = false;
        return;
    }
    if (got > 0 && static_cast<uint64_t>(got) < iov_bytes(side.iov, side.count) && !slot.hung_up) {
        side.ready = false;
    }
    complete(slot, Direction::in, got < 0 ? -errno : got);
}

void EpollLoop::try_out(SocketSlot& slot) {
    Side& side = slot.out;
    if (!side.ready || side.completion == nullptr || ReadyQueue::holds(*side.completion)) return;
    counters_.kernel_entries++;
    if (slot.connecting) {
        int error = 0;
        socklen_t length = sizeof(error);
        getsockopt(slot.fd, SOL_SOCKET, SO_ERROR, &error, &length);
        slot.connecting = false;
        if (error == 0) return complete(slot, Direction::out, slot.handle);
        complete(slot, Direction::out, -error);
        return close_socket(slot.handle);
    }
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(side.iov);
    message.msg_iovlen = static_cast<size_t>(side.count);
    ssize_t sent;
    do {
        sent = sendmsg(slot.fd, &message, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno == EAGAIN) {
        side.ready = false;
        return;
    }
    complete(slot, Direction::out, sent < 0 ? -errno : sent);
}

Socket EpollLoop::add_socket(int fd) {
    Socket handle = sockets_.open();
    SocketSlot& slot = sockets_.get(handle);
    uint32_t generation = slot.generation;
    slot = SocketSlot{};
    slot.open = true;
    slot.generation = generation;
    slot.fd = fd;
    slot.handle = handle;
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.u64 = static_cast<uint64_t>(handle);
    int error = epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event);
    VITASTOR_ASSERT(error == 0);
    return handle;
}

void EpollLoop::begin(SocketSlot& slot, Side& side, const iovec* iov, int count, Completion& completion) {
    VITASTOR_ASSERT(slot.open);
    VITASTOR_ASSERT(side.completion == nullptr);
    side.completion = &completion;
    side.iov = iov;
    side.count = count;
    completion.loop_data[0] = kWaiting;
    Direction direction = &side == &slot.in ? Direction::in : Direction::out;
    completion.loop_data[3] =
        (uint64_t{sockets_.index_of(slot.handle)} << 2) | static_cast<uint64_t>(direction);
}

void EpollLoop::connect(const Address& address, Completion& completion) {
    completion.loop_data[3] = 0;
    sockaddr_storage where{};
    socklen_t length = 0;
    int fd = parse_address(address, &where, &length);
    if (fd == 0) fd = make_stream_socket(where.ss_family, SOCK_NONBLOCK);
    if (fd < 0) return ready_.push(completion, fd);
    int error = ::connect(fd, reinterpret_cast<sockaddr*>(&where), length) == 0 ? 0 : errno;
    if (error != 0 && error != EINPROGRESS && error != EINTR) {
        ::close(fd);
        return ready_.push(completion, -error);
    }
    SocketSlot& slot = sockets_.get(add_socket(fd));
    slot.connecting = true;
    slot.out.ready = error == 0;
    begin(slot, slot.out, nullptr, 0, completion);
    try_out(slot);
}

Result<Socket> EpollLoop::listen(const Address& address, uint16_t* port) {
    Result<int> fd = listen_on(address, SOCK_NONBLOCK, port);
    if (!fd.ok()) return fd.status();
    Socket handle = add_socket(fd.value());
    sockets_.get(handle).listening = true;
    return handle;
}

void EpollLoop::accept(Socket listener, Completion& completion) {
    SocketSlot& slot = sockets_.get(listener);
    begin(slot, slot.in, nullptr, 0, completion);
    try_in(slot);
}

void EpollLoop::receive(Socket socket, const iovec* iov, int count, Completion& completion) {
    SocketSlot& slot = sockets_.get(socket);
    begin(slot, slot.in, iov, count, completion);
    try_in(slot);
}

void EpollLoop::send(Socket socket, const iovec* iov, int count, Completion& completion) {
    SocketSlot& slot = sockets_.get(socket);
    begin(slot, slot.out, iov, count, completion);
    try_out(slot);
}

void EpollLoop::abort_side(SocketSlot& slot, Direction direction) {
    Side& side = direction == Direction::in ? slot.in : slot.out;
    if (side.completion == nullptr) return;
    Completion& completion = *std::exchange(side.completion, nullptr);
    completion.loop_data[3] = 0;
    if (!ReadyQueue::holds(completion)) return ready_.push(completion, -ECANCELED);
    int64_t result = ReadyQueue::result_of(completion);
    if (slot.listening && result >= 0) close_socket(static_cast<Socket>(result));
    ReadyQueue::change_result(completion, -ECANCELED);
}

void EpollLoop::close_socket(Socket socket) {
    SocketSlot& slot = sockets_.get(socket);
    // A connect that failed has its result in the queue already and no handle outside.
    if (slot.out.completion != nullptr && ReadyQueue::holds(*slot.out.completion)
        && ReadyQueue::result_of(*slot.out.completion) < 0) {
        std::exchange(slot.out.completion, nullptr)->loop_data[3] = 0;
    }
    abort_side(slot, Direction::in);
    abort_side(slot, Direction::out);
    uint32_t index = sockets_.close(socket);
    slot.handle = -1;
    ::close(std::exchange(slot.fd, -1));
    sockets_.recycle(index);
}

void EpollLoop::cancel(Completion& completion) {
    uint64_t state = completion.loop_data[0];
    if (state == 0 || state == ReadyQueue::kMark) return;
    if (state == kWaiting) {
        uint64_t where = completion.loop_data[3];
        SocketSlot& slot = sockets_.at(static_cast<uint32_t>(where >> 2));
        abort_side(slot, static_cast<Direction>(where & 3));
        if (slot.connecting) close_socket(slot.handle);
        return;
    }
    auto* job = reinterpret_cast<DiskJob*>(state);
    if (!disk_->withdraw(job)) return;  // the result comes soon
    files_.at(job->slot).in_flight--;
    free_jobs_.push_back(job);
    completion.loop_data[3] = 0;
    ready_.push(completion, -ECANCELED);
}

std::string EpollLoop::peer_name(Socket socket) { return peer_text(sockets_.get(socket).fd); }

// ---- disk

Result<File> EpollLoop::open_file(const std::string& path, const FileOptions& options) {
    Result<OpenedFile> opened = open_os_file(path, options);
    if (!opened.ok()) return opened.status();
    File handle = files_.open();
    FileSlot& slot = files_.get(handle);
    slot.os = opened.value();
    slot.in_flight = 0;
    return handle;
}

void EpollLoop::file_op(DiskCall call, File file, const iovec* iov, int count, uint64_t offset, uint64_t length,
                        Completion& completion) {
    FileSlot& slot = files_.get(file);
    completion.loop_data[3] = 0;
    if (slot.os.in_memory) {
        int64_t result = 0;
        if (call == DiskCall::read) result = blocking_read(slot.os.fd, iov, count, offset);
        if (call == DiskCall::write) result = blocking_write(slot.os.fd, iov, count, offset);
        if (call == DiskCall::discard) result = blocking_discard(slot.os.fd, offset, length);
        counters_.kernel_entries++;
        return ready_.push(completion, result);
    }
    if (disk_ == nullptr) disk_ = std::make_unique<DiskThreads>(*this, disk_done_, disk_thread_count_);
    if (free_jobs_.empty()) {
        VITASTOR_ASSERT(jobs_.size() < kJobLimit);
        jobs_.push_back(std::make_unique<DiskJob>());
        free_jobs_.push_back(jobs_.back().get());
    }
    DiskJob* job = free_jobs_.back();
    free_jobs_.pop_back();
    *job = DiskJob{call, slot.os.fd, count, files_.index_of(file), iov, offset, length, &completion, 0};
    completion.loop_data[0] = reinterpret_cast<uint64_t>(job);
    slot.in_flight++;
    disk_->start(job);
}

void EpollLoop::read(File file, const iovec* iov, int count, uint64_t offset, Completion& completion) {
    file_op(DiskCall::read, file, iov, count, offset, 0, completion);
}

void EpollLoop::write(File file, const iovec* iov, int count, uint64_t offset, Completion& completion) {
    file_op(DiskCall::write, file, iov, count, offset, 0, completion);
}

void EpollLoop::sync(File file, Completion& completion) {
    file_op(DiskCall::sync, file, nullptr, 0, 0, 0, completion);
}

void EpollLoop::discard(File file, uint64_t offset, uint64_t length, Completion& completion) {
    file_op(DiskCall::discard, file, nullptr, 0, offset, length, completion);
}

void EpollLoop::collect_finished() {
    disk_->take_finished(finished_now_);
    for (DiskJob* job : finished_now_) {
        FileSlot& slot = files_.at(job->slot);
        slot.in_flight--;
        if (!slot.open && slot.in_flight == 0) {
            ::close(std::exchange(slot.os.fd, -1));
            files_.recycle(job->slot);
        }
        ready_.push(*job->completion, job->result);
        free_jobs_.push_back(job);
    }
    finished_now_.clear();
}

void EpollLoop::close_file(File file) {
    uint32_t index = files_.close(file);
    FileSlot& slot = files_.at(index);
    if (slot.in_flight > 0) return;  // closed by the last operation
    ::close(std::exchange(slot.os.fd, -1));
    files_.recycle(index);
}

}  // namespace vitastor::runtime

// SPDX-License-Identifier: GPL-2.0-or-later
// The seam's calls on the io_uring loop: sockets and files.
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "runtime/os_net.hpp"
#include "runtime/uring_loop.hpp"

namespace vitastor::runtime {

namespace {

/// Files in memory: up to here a copy on this thread is cheaper than a worker thread of the kernel (docs/adr/0001).
constexpr uint64_t kInlineLimit = 1 << 20;

}  // namespace

// ---- network

int64_t UringLoop::new_socket(int fd) {
    Socket handle = sockets_.open();
    SocketSlot& slot = sockets_.get(handle);
    slot.fd = fd;
    slot.drained = false;
    return handle;
}

void UringLoop::connect(const Address& address, Completion& completion) {
    sockaddr_storage where{};
    socklen_t length = 0;
    int fd = parse_address(address, &where, &length);
    if (fd == 0) fd = make_stream_socket(where.ss_family, 0);
    if (fd < 0) return ready_.push(completion, fd);
    Op* op = new_op(Kind::connect, completion);
    op->fd = fd;
    op->address = where;
    op->address_length = length;
    start(op);
}

Result<Socket> UringLoop::listen(const Address& address, uint16_t* port) {
    Result<int> fd = listen_on(address, 0, port);
    if (!fd.ok()) return fd.status();
    return static_cast<Socket>(new_socket(fd.value()));
}

void UringLoop::accept(Socket listener, Completion& completion) {
    SocketSlot& slot = sockets_.get(listener);
    Op* op = new_op(Kind::accept, completion);
    op->fd = slot.fd;
    op->slot = sockets_.index_of(listener);
    slot.ops.push_back(op);
    start(op);
}

void UringLoop::transfer(Kind kind, Socket socket, const iovec* iov, int count, Completion& completion) {
    SocketSlot& slot = sockets_.get(socket);
    Op* op = new_op(kind, completion);
    op->fd = slot.fd;
    op->slot = sockets_.index_of(socket);
    op->iov = iov;
    op->count = count;
    slot.ops.push_back(op);
    start(op);
}

void UringLoop::receive(Socket socket, const iovec* iov, int count, Completion& completion) {
    transfer(Kind::receive, socket, iov, count, completion);
}

void UringLoop::send(Socket socket, const iovec* iov, int count, Completion& completion) {
    transfer(Kind::send, socket, iov, count, completion);
}

void UringLoop::close_socket(Socket socket) {
    uint32_t index = sockets_.close(socket);
    SocketSlot& slot = sockets_.at(index);
    if (slot.ops.empty()) {
        ::close(std::exchange(slot.fd, -1));
        sockets_.recycle(index);
        return;
    }
    // The peer must see the end now; the descriptor itself lives until the kernel has let go of it.
    ::shutdown(slot.fd, SHUT_RDWR);
    for (Op* op = slot.ops.front(); op != nullptr;) {
        Op* next = slot.ops.next(op);
        Completion* completion = op->completion;
        cancel(*completion);
        op = next;
    }
}

void UringLoop::cancel(Completion& completion) {
    uint64_t data = completion.loop_data[0];
    if (data == 0 || data == ReadyQueue::kMark) return;
    auto* op = reinterpret_cast<Op*>(data);
    if (op->cancel_requested) return;
    op->cancel_requested = true;
    if (!op->queued) return queue_cancel(op);
    // The kernel has not seen it.
    std::erase(waiting_, op);
    op->queued = false;
    if (op->kind == Kind::connect) ::close(op->fd);
    if (op->kind == Kind::accept || op->kind == Kind::receive || op->kind == Kind::send) finish_socket_op(op);
    if (op->kind >= Kind::read) files_.at(op->slot).in_flight--;
    free_op(op);
    ready_.push(completion, -ECANCELED);
}

std::string UringLoop::peer_name(Socket socket) { return peer_text(sockets_.get(socket).fd); }

// ---- disk

Result<File> UringLoop::open_file(const std::string& path, const FileOptions& options) {
    Result<OpenedFile> opened = open_os_file(path, options);
    if (!opened.ok()) return opened.status();
    File handle = files_.open();
    FileSlot& slot = files_.get(handle);
    slot.os = opened.value();
    slot.in_flight = 0;
    return handle;
}

void UringLoop::file_op(Kind kind, File file, const iovec* iov, int count, uint64_t offset, uint64_t length,
                        Completion& completion) {
    FileSlot& slot = files_.get(file);
    Op* op = new_op(kind, completion);
    op->fd = slot.os.fd;
    op->slot = files_.index_of(file);
    op->iov = iov;
    op->count = count;
    op->offset = offset;
    op->length = length;
    slot.in_flight++;
    start(op);
}

void UringLoop::read(File file, const iovec* iov, int count, uint64_t offset, Completion& completion) {
    FileSlot& slot = files_.get(file);
    if (slot.os.in_memory && iov_bytes(iov, count) <= kInlineLimit) {
        return ready_.push(completion, blocking_read(slot.os.fd, iov, count, offset));
    }
    file_op(Kind::read, file, iov, count, offset, 0, completion);
}

void UringLoop::write(File file, const iovec* iov, int count, uint64_t offset, Completion& completion) {
    FileSlot& slot = files_.get(file);
    if (slot.os.in_memory && iov_bytes(iov, count) <= kInlineLimit) {
        return ready_.push(completion, blocking_write(slot.os.fd, iov, count, offset));
    }
    file_op(Kind::write, file, iov, count, offset, 0, completion);
}

void UringLoop::sync(File file, Completion& completion) {
    FileSlot& slot = files_.get(file);
    if (slot.os.in_memory) return ready_.push(completion, blocking_sync(slot.os.fd));
    file_op(Kind::sync, file, nullptr, 0, 0, 0, completion);
}

void UringLoop::discard(File file, uint64_t offset, uint64_t length, Completion& completion) {
    if (files_.get(file).os.info.is_block_device)
        return discard_on_thread(files_.index_of(file), offset, length, completion);
    file_op(Kind::discard, file, nullptr, 0, offset, length, completion);
}

void UringLoop::discard_on_thread(uint32_t slot, uint64_t offset, uint64_t length, Completion& completion) {
    if (discard_thread_ == nullptr) {
        discards_done_.loop = this;
        discards_done_.on_notify = [](Notifier* self) { static_cast<DiscardNotifier*>(self)->loop->collect_discards(); };
        register_notifier(discards_done_);
        discard_thread_ = std::make_unique<DiskThreads>(*this, discards_done_, 1);
    }
    discards_.push_back(std::make_unique<DiskJob>());
    DiskJob* job = discards_.back().get();
    job->call = DiskCall::discard;
    job->fd = files_.at(slot).os.fd;
    job->slot = slot;
    job->offset = offset;
    job->length = length;
    job->completion = &completion;
    completion.loop_data[0] = 0;  // cannot be cancelled
    files_.at(slot).in_flight++;
    discard_thread_->start(job);
}

void UringLoop::collect_discards() {
    discard_thread_->take_finished(discards_finished_);
    for (DiskJob* job : discards_finished_) {
        leave_file(job->slot);
        ready_.push(*job->completion, job->result);
        std::erase_if(discards_, [job](const std::unique_ptr<DiskJob>& other) { return other.get() == job; });
    }
    discards_finished_.clear();
}

/// An operation has ended: the last one of a closed file closes the descriptor.
void UringLoop::leave_file(uint32_t index) {
    FileSlot& slot = files_.at(index);
    slot.in_flight--;
    if (slot.open || slot.in_flight > 0) return;
    ::close(std::exchange(slot.os.fd, -1));
    files_.recycle(index);
}

void UringLoop::close_file(File file) {
    uint32_t index = files_.close(file);
    FileSlot& slot = files_.at(index);
    if (slot.in_flight > 0) return;  // closed by the last operation
    ::close(std::exchange(slot.os.fd, -1));
    files_.recycle(index);
}

}  // namespace vitastor::runtime

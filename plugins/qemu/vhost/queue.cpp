// SPDX-License-Identifier: GPL-2.0-or-later
#include "vhost/queue.hpp"

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace vitastor::vhost {
namespace {

/// Takes `bytes` from the front of the pieces; copies them to `out` if there is one. False: there are fewer.
bool take_front(std::vector<iovec>& pieces, size_t bytes, void* out) {
    auto* to = static_cast<uint8_t*>(out);
    size_t used = 0;
    for (; bytes > 0 && used < pieces.size();) {
        iovec& piece = pieces[used];
        const size_t size = std::min(bytes, piece.iov_len);
        std::memcpy(to, piece.iov_base, size);
        to += size;
        bytes -= size;
        piece.iov_base = static_cast<uint8_t*>(piece.iov_base) + size;
        piece.iov_len -= size;
        if (piece.iov_len == 0) used++;
    }
    pieces.erase(pieces.begin(), pieces.begin() + static_cast<ptrdiff_t>(used));
    return bytes == 0;
}

/// The last byte of the pieces, which end before it afterwards.
uint8_t* take_last_byte(std::vector<iovec>& pieces) {
    while (!pieces.empty() && pieces.back().iov_len == 0) pieces.pop_back();
    if (pieces.empty()) return nullptr;
    iovec& piece = pieces.back();
    piece.iov_len--;
    uint8_t* last = static_cast<uint8_t*>(piece.iov_base) + piece.iov_len;
    if (piece.iov_len == 0) pieces.pop_back();
    return last;
}

}  // namespace

struct Queue::Call {
    Queue* queue = nullptr;
    Chain chain;
    std::vector<iovec> data;
    uint8_t* status = nullptr;
    uint32_t written = 0;  ///< bytes for the guest besides the status, if all goes well
};

Queue::Queue(Disk& disk, const Memory& memory, const std::atomic<bool>& write_back, unsigned index)
    : disk_(disk), write_back_(write_back), index_(index), ring_(memory), wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    thread_ = std::thread([this] { body(); });
    park(false);
}

Queue::~Queue() {
    resume();
    park(true);
    {
        const std::lock_guard lock(mutex_);
        wish_ = Wish::end;
    }
    changed_.notify_all();
    thread_.join();
}

void Queue::park(bool drained) {
    std::unique_lock lock(mutex_);
    wish_ = drained ? Wish::drain : Wish::park;
    signal(wake_);
    changed_.wait(lock, [this] { return parked_; });
}

void Queue::resume() {
    {
        const std::lock_guard lock(mutex_);
        wish_ = Wish::run;
        parked_ = false;
    }
    changed_.notify_all();
}

bool Queue::start_or_break(bool started) {
    if (!started && !std::exchange(told_broken_, true)) {
        std::fprintf(stderr, "vitastor-vhost: queue %u stops: %s\n", index_, ring_.broken().c_str());
        signal(error);
    }
    return started;
}

bool Queue::start_ring() {
    told_broken_ = false;
    if (kick) ::fcntl(kick.get(), F_SETFL, ::fcntl(kick.get(), F_GETFL) | O_NONBLOCK);
    return start_or_break(ring_.start(setup));
}

uint16_t Queue::stop_ring() {
    const uint16_t next = ring_.running() ? ring_.next_available() : setup.base;
    ring_.stop();
    kick = Fd();
    setup.base = next;
    return next;
}

// ---- the thread

void Queue::body() {
    io_ = disk_.open_thread();
    for (;;) {
        {
            std::unique_lock lock(mutex_);
            if (wish_ == Wish::park || (wish_ == Wish::drain && in_progress_ == 0)) {
                parked_ = true;
                changed_.notify_all();
                // wish_ may become drain while it is parked with operations in progress.
                changed_.wait(lock, [this] { return !parked_ || wish_ == Wish::end; });
            }
            if (wish_ == Wish::end) break;
            if (wish_ == Wish::run) {
                lock.unlock();
                take_all();
            }
        }
        pollfd waits[3] = {{wake_.get(), POLLIN, 0}, {io_->fd(), POLLIN, 0}, {kick.get(), POLLIN, 0}};
        const bool waits_for_kick = ring_.running() && enabled && kick;
        ::poll(waits, waits_for_kick ? 3 : 2, io_->timeout_ms());
        if (waits[0].revents) consume(wake_);
        if (waits_for_kick && waits[2].revents) consume(kick);
        io_->run();
        notify();
    }
    io_.reset();
}

void Queue::notify() {
    if (ring_.publish()) signal(call);
}

void Queue::take_all() {
    if (!ring_.running() || !enabled || !ring_.broken().empty()) return;
    do {
        ring_.poll();
        for (;;) {
            if (free_.empty()) {
                calls_.push_back(std::make_unique<Call>());
                calls_.back()->queue = this;
                free_.push_back(calls_.back().get());
            }
            Call& next = *free_.back();
            if (!ring_.take(next.chain)) break;
            free_.pop_back();
            in_progress_++;
            begin(next);
        }
        io_->run();  // sends what was begun
        notify();
    } while (ring_.wait_for_kick());
    if (!ring_.broken().empty()) start_or_break(false);
}

bool Queue::in_range(uint64_t sector, uint64_t bytes) const {
    const uint64_t sectors = disk_.bytes() / kSectorBytes;
    return bytes % kSectorBytes == 0 && sector <= sectors && bytes / kSectorBytes <= sectors - sector;
}

void Queue::begin(Call& call) {
    Chain& chain = call.chain;
    blk::RequestHeader header{};
    call.written = 0;
    call.data = chain.writable;
    call.status = take_last_byte(call.data);
    std::vector<iovec> payload = chain.readable;
    if (!call.status || !take_front(payload, sizeof header, &header)) return finish(call, blk::io_error, 0);
    const uint64_t in_bytes = chain.writable_bytes - 1, out_bytes = chain.readable_bytes - sizeof header;
    const uint64_t offset = header.sector << kSectorShift;
    switch (header.type) {
        case blk::in:
            if (!in_range(header.sector, in_bytes)) return finish(call, blk::io_error, 0);
            call.written = static_cast<uint32_t>(in_bytes);
            if (in_bytes == 0) return finish(call, blk::ok, 0);
            return io_->read(offset, in_bytes, call.data.data(), static_cast<int>(call.data.size()), on_done, &call);
        case blk::out:
            if (disk_.read_only() || !in_range(header.sector, out_bytes)) return finish(call, blk::io_error, 0);
            if (out_bytes == 0) return finish(call, blk::ok, 0);
            call.data = std::move(payload);
            return io_->write(offset, out_bytes, call.data.data(), static_cast<int>(call.data.size()), on_written, &call);
        case blk::flush:
            return io_->flush(on_done, &call);
        case blk::get_id: {
            std::string serial = disk_.serial();
            serial.resize(kSerialBytes);
            size_t at = 0;
            for (const iovec& piece : call.data) {
                const size_t size = std::min(piece.iov_len, serial.size() - at);
                std::memcpy(piece.iov_base, serial.data() + at, size);
                at += size;
            }
            return finish(call, blk::ok, static_cast<uint32_t>(at));
        }
        case blk::discard:
        case blk::write_zeroes: {
            blk::Segment segment{};
            if (disk_.read_only() || out_bytes != sizeof segment || !take_front(payload, sizeof segment, &segment)) return finish(call, blk::io_error, 0);
            const uint64_t bytes = uint64_t{segment.sectors} * kSectorBytes;
            const uint32_t known = header.type == blk::write_zeroes ? blk::unmap : 0;
            if (segment.flags & ~known) return finish(call, blk::unsupported, 0);
            if (!in_range(segment.sector, bytes)) return finish(call, blk::io_error, 0);
            if (bytes == 0) return finish(call, blk::ok, 0);
            if (header.type == blk::discard || (segment.flags & blk::unmap))
                return io_->discard(segment.sector << kSectorShift, bytes, on_written, &call);
            return io_->zero(segment.sector << kSectorShift, bytes, on_written, &call);
        }
        default:
            return finish(call, blk::unsupported, 0);
    }
}

void Queue::on_done(void* arg, int64_t result) {
    Call& call = *static_cast<Call*>(arg);
    call.queue->finish(call, result < 0 ? blk::io_error : blk::ok, result < 0 ? 0 : call.written);
}

/// Write-through: the guest has turned the disk's cache off.
void Queue::on_written(void* arg, int64_t result) {
    Call& call = *static_cast<Call*>(arg);
    Queue& queue = *call.queue;
    if (result < 0 || queue.write_back_.load(std::memory_order_relaxed) || queue.disk_.is_durable()) return on_done(arg, result);
    queue.io_->flush(on_done, &call);
}

void Queue::finish(Call& call, uint8_t status, uint32_t written) {
    if (call.status) *call.status = status;
    ring_.put(call.chain, call.status ? written + 1 : 0);
    in_progress_--;
    free_.push_back(&call);
}

}  // namespace vitastor::vhost

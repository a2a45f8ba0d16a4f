// SPDX-License-Identifier: GPL-2.0-or-later
#include "client/unaligned.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "client/context.hpp"
#include "runtime/pause.hpp"

namespace vitastor::client {
namespace {

constexpr int kFairTries = 8;     ///< then other writes of this context to the object wait
constexpr int kMaxTries = 10000;  ///< other processes may write to the object as well
constexpr uint32_t kMaxLimboRounds = 320;

/// OpAwait sub(context, op);  ... sub->kind = ...;  const int64_t result = co_await sub;
struct OpAwait {
    Op* op;
    std::coroutine_handle<> waiter;
    int64_t result = 0;
    uint64_t version = 0;
    bool done = false;

    OpAwait(Context& context, const Op& whole, OpKind kind, uint64_t offset, uint64_t length) : op(context.take_op()) {
        op->kind = kind;
        op->image = whole.image;
        op->offset = offset;
        op->length = length;
        op->aligned = true;
        op->done_arg = this;
        op->done = [](Op* self) {
            auto* await = static_cast<OpAwait*>(self->done_arg);
            await->result = self->result;
            await->version = self->version;
            await->done = true;
            if (await->waiter) await->waiter.resume();
        };
    }
    bool await_ready() const noexcept { return done; }
    void await_suspend(std::coroutine_handle<> handle) noexcept { waiter = handle; }
    int64_t await_resume() const noexcept { return result; }
};

}  // namespace

/// Parts of a write that run side by side.
struct Unaligned::Join {
    uint32_t left = 1;
    int64_t error = 0;
    runtime::WaitList all;
    void end(int64_t result) {
        if (result < 0 && error == 0) error = result;
        if (--left == 0) all.notify_all();
    }
};

bool Unaligned::concerns(const Op& op) {
    const uint64_t granularity = op.image->granularity.load(std::memory_order_relaxed);
    return !op.aligned && (op.offset % granularity || op.length % granularity);
}

void Unaligned::start(Op& op) { runtime::spawn(run(op)); }

runtime::Task<> Unaligned::run(Op& op) {
    if (op.kind == OpKind::read) {
        runtime::Task<> reading = read(op);
        co_await reading;
    } else {
        runtime::Task<> writing = write(op);
        co_await writing;
    }
    context_.finish_later(op, op.result < 0 ? op.result : static_cast<int64_t>(op.length));
}

/// The whole granules, of which what nobody asked for goes into a scratch granule.
runtime::Task<> Unaligned::read(Op& op) {
    const uint64_t granularity = op.image->granularity.load(std::memory_order_relaxed);
    const uint64_t begin = op.offset / granularity * granularity;
    const uint64_t end = (op.offset + op.length + granularity - 1) / granularity * granularity;
    Buffer scratch = context_.loop().buffers().allocate(granularity);
    std::vector<iovec> iov;
    iov.reserve(static_cast<size_t>(op.iov_count) + 2);
    if (op.offset > begin) iov.push_back({scratch.data(), op.offset - begin});
    iov.insert(iov.end(), op.iov, op.iov + op.iov_count);
    if (end > op.offset + op.length) iov.push_back({scratch.data(), end - op.offset - op.length});
    OpAwait whole(context_, op, OpKind::read, begin, end - begin);
    Context::set_iov(*whole.op, iov.data(), static_cast<int>(iov.size()));
    context_.start(*whole.op);
    op.result = co_await whole;
    op.version = whole.version;
}

runtime::Task<> Unaligned::write(Op& op) {
    const uint64_t granularity = op.image->granularity.load(std::memory_order_relaxed);
    const uint64_t end = op.offset + op.length;
    const uint64_t middle = std::min(end, (op.offset + granularity - 1) / granularity * granularity);
    const uint64_t tail = std::max(middle, end / granularity * granularity);
    Join join;
    if (middle > op.offset) {
        join.left++;
        runtime::spawn(change(op, op.offset, middle, join));
    }
    if (end > tail) {
        join.left++;
        runtime::spawn(change(op, tail, end, join));
    }
    if (tail > middle) {
        OpAwait whole(context_, op, op.kind, middle, tail - middle);
        if (op.iov_count) {
            std::vector<iovec> iov;
            each_piece(op, middle - op.offset, tail - middle, [&](uint8_t* data, uint64_t, uint64_t size) { iov.push_back({data, size}); });
            Context::set_iov(*whole.op, iov.data(), static_cast<int>(iov.size()));
        }
        context_.start(*whole.op);
        const int64_t result = co_await whole;
        if (result < 0 && join.error == 0) join.error = result;
    }
    if (--join.left > 0) {
        runtime::WaitList::Waiter all = join.all.wait();
        co_await all;
    }
    op.result = join.error;
}

runtime::Task<> Unaligned::change(Op& op, uint64_t begin, uint64_t end, Join& join) {
    runtime::Task<int64_t> changing = change_granule(op, begin, end);
    const int64_t result = co_await changing;
    join.end(result);
}

/// [begin, end) lies inside one granule. One at a time an object: they would only lose races against each other.
runtime::Task<int64_t> Unaligned::change_granule(Op& op, uint64_t begin, uint64_t end) {
    uint32_t limbo_rounds = 0;
    int64_t result = -EAGAIN;
    for (int tries = 0; result == -EAGAIN || result == -EINTR;) {
        // All of one attempt goes to this inode, also if the image's name moves on meanwhile.
        const InodeView& view = context_.inode_view(*op.image);
        if (context_.closing()) co_return -ECANCELED;
        if (!view.pool) co_return -ENOENT;
        const InodeNum inode = view.inode;
        const Key key{inode, begin / view.pool->object_size * view.pool->object_size};
        const uint64_t granularity = view.pool->pool->bitmap_granularity;
        Object& object = objects_[key];
        object.users++;
        if (object.busy) {
            runtime::WaitList::Waiter turn = object.turn.wait();
            co_await turn;
        }
        object.busy = true;
        result = -EAGAIN;
        // Not if the inode has become a snapshot while this waited.
        while ((result == -EAGAIN || result == -EINTR) && tries < kMaxTries && context_.inode_view(*op.image).inode == inode) {
            if (tries++ == kFairTries && !std::exchange(object.exclusive, true)) exclusive_++;
            runtime::Task<int64_t> attempt = try_change(op, inode, granularity, begin, end);
            result = co_await attempt;
        }
        if (std::exchange(object.exclusive, false)) exclusive_--;
        List<net::Call> held_back;
        while (net::Call* part = object.held_back.pop_front()) held_back.push_back(part);
        object.busy = false;
        object.users--;
        if (!object.turn.notify_one() && object.users == 0) objects_.erase(key);
        while (net::Call* part = held_back.pop_front()) context_.dispatch_again(*static_cast<Part*>(part));
        if (tries >= kMaxTries && result < 0) {
            log(context_.logger(), LogLevel::error,
                "a part of a granule at offset %llu of inode %llx could not be written: others have changed the object %d times meanwhile",
                static_cast<unsigned long long>(begin), static_cast<unsigned long long>(inode), kMaxTries);
            co_return -EIO;
        }
        if (result < 0 && result != -EAGAIN && result != -EINTR) {
            runtime::Task<int64_t> waiting = wait_after(op, inode, result, &limbo_rounds);
            result = co_await waiting;
        }
    }
    co_return result;
}

/// Bytes, -EINTR (changed meanwhile, or nobody knows), or an error.
runtime::Task<int64_t> Unaligned::try_change(Op& op, InodeNum inode, uint64_t granularity, uint64_t begin, uint64_t end) {
    const uint64_t from = begin / granularity * granularity;
    const uint64_t length = (end + granularity - 1) / granularity * granularity - from;
    Buffer data = context_.loop().buffers().allocate(length);
    const iovec iov{data.data(), length};
    OpAwait before(context_, op, OpKind::read, from, length);
    before.op->fixed_inode = inode;
    Context::set_iov(*before.op, &iov, 1);
    context_.start(*before.op);
    const int64_t seen = co_await before;
    if (seen < 0) co_return seen;
    uint8_t* to = data.data() + (begin - from);
    if (op.kind == OpKind::discard) {
        std::memset(to, 0, end - begin);
    } else {
        each_piece(op, begin - op.offset, end - begin, [&](uint8_t* piece, uint64_t at, uint64_t size) { std::memcpy(to + at, piece, size); });
    }
    OpAwait after(context_, op, OpKind::compare_write, from, length);
    after.op->fixed_inode = inode;
    after.op->expected_version = before.version;
    Context::set_iov(*after.op, &iov, 1);
    context_.start(*after.op);
    const int64_t written = co_await after;
    co_return written < 0 ? written : static_cast<int64_t>(end - begin);
}

/// A compare-and-set is sent only once, a write would be tried again. -EAGAIN: so is this, after a pause; else the error.
runtime::Task<int64_t> Unaligned::wait_after(Op& op, InodeNum inode, int64_t error, uint32_t* limbo_rounds) {
    const cluster::ClientConfig& config = context_.config();
    uint64_t pause_ms = std::max<uint64_t>(config.client_eio_retry_interval_ms, 10);
    if (error == -EROFS) {
        const InodeView& now = context_.inode_view(*op.image);
        if (now.inode != inode) co_return -EAGAIN;
        if (!now.limbo || ++*limbo_rounds > kMaxLimboRounds) co_return -EROFS;
        pause_ms = config.client_retry_interval_ms;
    } else if (!(error == -ENOSPC && config.client_retry_enospc) && !(error == -EIO && config.client_eio_retry_interval_ms)) {
        co_return error;
    }
    runtime::Pause pause(context_.loop(), pause_ms * runtime::kNsPerMs);
    co_await pause;
    co_return -EAGAIN;
}

bool Unaligned::hold_back(Part& part, InodeNum inode, uint64_t stripe) {
    const auto found = objects_.find({inode, stripe});
    if (found == objects_.end() || !found->second.exclusive) return false;
    VITASTOR_PROBE("a write waits for a part of a granule");
    found->second.held_back.push_back(&part);
    return true;
}

}  // namespace vitastor::client

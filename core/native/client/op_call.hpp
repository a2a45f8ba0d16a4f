// SPDX-License-Identifier: GPL-2.0-or-later
// Operations of a context as coroutines of tools (merge, purge) use them, on images of their own.
#pragma once

#include <utility>

#include "client/await.hpp"
#include "client/context.hpp"

namespace vitastor::client {

/// An image of an inode that exists or not, without an open: for the context that makes it alone.
inline Image* open_internally(Context& context, ImageOptions options, uint32_t granularity) {
    const InodeNum inode = options.inode;
    options.unlimited = true;
    Image* image = context.shared().create_image(std::move(options));
    image->inode.store(inode, std::memory_order_relaxed);
    image->granularity.store(granularity, std::memory_order_relaxed);
    return image;
}
/// Its operations are done.
inline void close_internally(Context& context, Image* image) {
    image->closed.store(true, std::memory_order_release);
    context.forget_image(image);
    image->unref();
}

/// Lets the context look at waiting operations every second while it lives, so that those of tools are given up in time.
class GiveUpTick {
public:
    explicit GiveUpTick(Context& context) : context_(context) {
        timer_.tick = this;
        timer_.on_fire = [](runtime::Timer* timer) { static_cast<Timer*>(timer)->tick->fire(); };
        arm();
    }
    ~GiveUpTick() { context_.loop().disarm(timer_); }
    GiveUpTick(const GiveUpTick&) = delete;
    GiveUpTick& operator=(const GiveUpTick&) = delete;

private:
    struct Timer : runtime::Timer {
        GiveUpTick* tick = nullptr;
    };
    void arm() { context_.loop().arm(timer_, context_.loop().now_ns() + runtime::kNsPerSecond); }
    void fire() {
        context_.wake();
        arm();
    }
    Context& context_;
    Timer timer_;
};

/// One operation on an image: set() it, start() it, co_await it, or let a Join count it off.
class OpCall {
public:
    OpCall() = default;
    OpCall(const OpCall&) = delete;
    OpCall& operator=(const OpCall&) = delete;
    int64_t result = 0;
    Version version = 0;

    void set(Context& context, OpKind kind, Image* image, uint64_t offset) {
        context_ = &context;
        done_ = false;
        op_ = context.take_op();
        op_->kind = kind;
        op_->image = image;
        op_->offset = offset;
        op_->give_up_ns = context.loop().now_ns() + context.config().client_wait_up_timeout_s * runtime::kNsPerSecond;
        op_->done_arg = this;
        op_->done = [](Op* op) { static_cast<OpCall*>(op->done_arg)->on_done(*op); };
    }
    void set(Context& context, OpKind kind, Image* image, uint64_t offset, uint8_t* data, uint64_t length) {
        set(context, kind, image, offset);
        op_->length = length;
        iovec iov{data, length};
        Context::set_iov(*op_, &iov, 1);
    }
    Op& op() { return *op_; }
    void start(Join* join = nullptr) {
        join_ = join;
        context_->start(*op_);
    }
    bool await_ready() const noexcept { return done_; }
    void await_suspend(std::coroutine_handle<> handle) noexcept { waiter_ = handle; }
    int64_t await_resume() const noexcept { return result; }

private:
    void on_done(const Op& op) {
        result = op.result;
        version = op.version;
        done_ = true;
        if (join_) join_->one_done();
        else if (waiter_) waiter_.resume();
    }
    Context* context_ = nullptr;
    Op* op_ = nullptr;
    Join* join_ = nullptr;
    std::coroutine_handle<> waiter_;
    bool done_ = false;
};

}  // namespace vitastor::client

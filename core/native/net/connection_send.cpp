// SPDX-License-Identifier: GPL-2.0-or-later
// The sending side: one queue of Calls and answers, gathered into one send at a time.
#include <cstring>

#include "base/assert.hpp"
#include "net/connection_impl.hpp"

namespace vitastor::net {

namespace {

/// The pieces of one message, skipping what has left already, appended to a list up to so many bytes; touching pieces become one.
class Gather {
public:
    Gather(iovec* out, int capacity, size_t max_bytes) : out_(out), capacity_(capacity), max_bytes_(max_bytes) {}
    /// Skips the first `bytes` of what follows.
    void skip(size_t bytes) { skip_ = bytes; }
    bool has_room(int pieces) const { return count_ + pieces <= capacity_ && bytes_ < max_bytes_; }
    void add(const void* data, size_t size) {
        if (skip_ >= size) {
            skip_ -= size;
            return;
        }
        auto* base = static_cast<uint8_t*>(const_cast<void*>(data)) + skip_;
        size = std::min(size - skip_, max_bytes_ - bytes_);
        skip_ = 0;
        if (!size)
            return;
        bytes_ += size;
        if (base == end_) {
            out_[count_ - 1].iov_len += size;
        } else {
            out_[count_++] = {base, size};
        }
        end_ = base + size;
    }
    int count() const { return count_; }
    size_t bytes() const { return bytes_; }

private:
    iovec* out_;
    int capacity_;
    size_t max_bytes_;
    int count_ = 0;
    size_t skip_ = 0;
    size_t bytes_ = 0;
    uint8_t* end_ = nullptr;
};

size_t sum(const iovec* iov, int count) {
    size_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += iov[i].iov_len;
    return bytes;
}

size_t message_size(Outgoing item) {
    if (Call* call = item.call())
        return wire::kHeaderSize + sum(call->payload, call->payload_count);
    Request* request = item.request();
    return wire::kHeaderSize + sum(request->reply_iov, request->reply_count);
}

}  // namespace

/// The kernel has let go of it: a reply that came earlier is handed over.
void Connection::Impl::call_left(Call& call) {
    call.leaving = false;
    if (call.replied)
        answer_call(&call, 0);
}

void Connection::Impl::answer_call(Call* call, int status) {
    call->status = status;
    call->leaving = false;
    call->on_reply(call);
}

void Connection::Impl::queue_call(Call& call) {
    VITASTOR_ASSERT(call.payload_count <= Call::kMaxPayloadIov);
    VITASTOR_ASSERT(call.on_reply);
    call.status = 0;
    call.bitmap_size = 0;
    call.replied = false;
    call.leaving = true;
    if (!is_open()) {
        late.push_back(&call);
        // While closing, finish() comes anyway and takes these too.
        if (state == ConnectionState::finished || state == ConnectionState::failing)
            want_turn();
        return;
    }
    call.id = ++last_id;
    wire::patch_request_id(call.request, call.id);
    calls.insert(&call);
    queue.push_back(Outgoing(&call));
    if (!sending)
        want_turn();
}

void Connection::Impl::queue_reply(Request& request) {
    VITASTOR_ASSERT(request.reply_count <= Request::kMaxReplyIov);
    if (!is_open()) {
        recycle(&request);
        return;
    }
    reply_bytes += sum(request.reply_iov, request.reply_count);
    queue.push_back(Outgoing(&request));
    if (!sending)
        want_turn();
}

/// The request is over: tells the handler and takes it back.
void Connection::Impl::recycle(Request* request) {
    request_bytes -= request->sizes.total();
    if (request->on_finished)
        request->on_finished(request);
    RequestPool::put(request);
    if (pool->free_count() > RequestPool::kIdleKeep && !trim_timer.armed() && is_open())
        loop.arm(trim_timer, loop.now_ns() + kTrimIntervalNs);
}

void Connection::Impl::start_send() {
    if (sending || queue.empty())
        return;
    const bool is_long = message_size(queue.front()) > kMaxSendBytes;
    Gather gather(send_iov, kMaxSendIov, is_long ? kMaxPieceBytes : kMaxSendBytes);
    gather.skip(front_sent);
    const size_t count = queue.size();
    for (size_t i = 0; i < count; i++) {
        if (Call* call = queue[i].call()) {
            if (!gather.has_room(1 + call->payload_count))
                break;
            gather.add(call->request, wire::kHeaderSize);
            for (int j = 0; j < call->payload_count; j++)
                gather.add(call->payload[j].iov_base, call->payload[j].iov_len);
        } else {
            Request* request = queue[i].request();
            if (!gather.has_room(1 + request->reply_count))
                break;
            gather.add(request->reply, wire::kHeaderSize);
            for (int j = 0; j < request->reply_count; j++)
                gather.add(request->reply_iov[j].iov_base, request->reply_iov[j].iov_len);
        }
    }
    sending = true;
    loop.send(socket, send_iov, gather.count(), send_op);
}

void Connection::Impl::on_sent(int64_t result) {
    sending = false;
    if (is_open() && result <= 0) {
        const auto error = static_cast<int>(-result);
        close(error == EPIPE || error == ECONNRESET ? CloseReason::by_peer : CloseReason::error,
              std::string("sending failed: ") + strerror(error));
    }
    if (!is_open()) {
        want_turn();
        return;
    }
    auto left = static_cast<size_t>(result) + front_sent;
    while (!queue.empty()) {
        const Outgoing item = queue.front();
        const size_t size = message_size(item);
        if (left < size)
            break;
        left -= size;
        queue.pop_front();
        if (Call* call = item.call()) {
            call_left(*call);
        } else {
            Request* request = item.request();
            reply_bytes -= size - wire::kHeaderSize;
            recycle(request);
        }
    }
    front_sent = left;
    if (!is_open())
        return;  // a callback has closed us; the turn is queued
    start_send();
    if (paused && !overloaded())
        resume();
}

/// At the end: calls that had their reply get it, answers are dropped. The other calls are in the table.
void Connection::Impl::drop_queue() {
    while (!queue.empty()) {
        const Outgoing item = queue.front();
        queue.pop_front();
        if (Call* call = item.call()) {
            call_left(*call);
        } else {
            recycle(item.request());
        }
    }
}

}  // namespace vitastor::net

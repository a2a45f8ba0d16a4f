// SPDX-License-Identifier: GPL-2.0-or-later
// Life of a connection: opening, keepalive, closing with every Call and Request accounted for.
#include "net/connection.hpp"

#include <cstring>

#include "base/assert.hpp"
#include "net/connection_impl.hpp"

namespace vitastor::net {

namespace {

template <class Part>
auto* impl_of(auto* node) {
    return static_cast<Part*>(node)->impl;
}

std::string seconds(uint64_t ns) {
    char text[32];
    snprintf(text, sizeof(text), "%.3g s", static_cast<double>(ns) / 1e9);
    return text;
}

}  // namespace

Connection::Impl::Impl(Connection& self, runtime::Loop& loop, runtime::Socket socket,
                       const ConnectionOptions& options, ConnectionHandler& handler)
    : self(self)
    , loop(loop)
    , handler(handler)
    , options(options)
    , socket(socket)
    , name(loop.peer_name(socket))
    , pool(new RequestPool) {
    VITASTOR_ASSERT(options.receive_buffer_bytes >= kBulkStaging);
    staging = loop.buffers().allocate(options.receive_buffer_bytes);
    last_receive_ns = loop.now_ns();
    send_op.impl = receive_op.impl = turn.impl = keepalive.impl = ping_call.impl = trim_timer.impl = this;
    send_op.on_done = [](runtime::Completion* op, int64_t result) {
        impl_of<Part<runtime::Completion>>(op)->on_sent(result);
    };
    receive_op.on_done = [](runtime::Completion* op, int64_t result) {
        impl_of<Part<runtime::Completion>>(op)->on_received(result);
    };
    turn.on_run = [](runtime::Deferred* work) { impl_of<Part<runtime::Deferred>>(work)->on_turn(); };
    keepalive.on_fire = [](runtime::Timer* timer) {
        impl_of<Part<runtime::Timer>>(timer)->on_keepalive();
    };
    trim_timer.on_fire = [](runtime::Timer* timer) { impl_of<Part<runtime::Timer>>(timer)->on_trim(); };
    ping_call.on_reply = [](Call* call) { impl_of<Part<Call>>(call)->on_ping_reply(); };
    start_receive();
}

Connection::Impl::~Impl() {
    VITASTOR_ASSERT(state == ConnectionState::finished);
    VITASTOR_ASSERT(late.empty());
    if (turn.linked())
        turn.unlink();
    pool->abandon();
}

Connection::Connection(runtime::Loop& loop, runtime::Socket socket,
                       const ConnectionOptions& options, ConnectionHandler& handler)
    : impl_(new Impl(*this, loop, socket, options, handler)) {}

Connection::~Connection() { delete impl_; }

void Connection::send(Call& call) { impl_->queue_call(call); }

void Connection::reply(Request& request) {
    if (request.connection) {
        request.connection->impl_->queue_reply(request);
        return;
    }
    if (request.on_finished)
        request.on_finished(&request);
    RequestPool::put(&request);
}

void Connection::reply_status(Request& request, int64_t retval) {
    wire::encode_reply(request.reply, {request.id, request.opcode, retval});
    request.reply_count = 0;
    reply(request);
}

void Connection::close(CloseReason reason, const std::string& text) { impl_->close(reason, text); }
bool Connection::closed() const { return !impl_->is_open(); }
OsdNum Connection::peer_osd() const { return impl_->peer_osd; }
void Connection::set_peer_osd(OsdNum osd) { impl_->peer_osd = osd; }
void Connection::require_sequencing() { impl_->check_sequence = true; }
uint64_t Connection::calls_in_flight() const { return impl_->calls.size(); }
uint64_t Connection::requests_in_flight() const { return impl_->pool->live(); }
ConnectionMemory Connection::memory() const {
    const Impl& i = *impl_;
    ConnectionMemory memory;
    memory.objects = sizeof(Connection) + sizeof(Impl) + i.queue.memory_bytes() + i.calls.memory_bytes() +
                     i.pool->memory_bytes();
    memory.receive_buffers = i.staging.size();
    memory.requests = i.request_bytes;
    memory.replies = i.reply_bytes;
    return memory;
}
std::string Connection::peer_name() const { return impl_->name; }
runtime::Loop& Connection::loop() { return impl_->loop; }

// ---- closing

void Connection::Impl::close(CloseReason reason, std::string text) {
    if (!is_open())
        return;
    state = ConnectionState::closing;
    close_reason = reason;
    close_text = std::move(text);
    loop.disarm(keepalive);
    loop.disarm(trim_timer);
    loop.close_socket(socket);
    want_turn();
}

void Connection::Impl::want_turn() {
    if (turn_queued)
        return;
    turn_queued = true;
    loop.defer(turn);
}

void Connection::Impl::on_turn() {
    turn_queued = false;
    if (is_open())
        start_send();
    else
        finish();
}

/// Runs again and again from later turns until nothing is left. The last statement of the last run may destroy the connection.
void Connection::Impl::finish() {
    if (sending || receiving)
        return;  // their completions come back here
    if (state == ConnectionState::closing) {
        state = ConnectionState::failing;
        staging.release();
        if (rx_request) {
            rx_request->connection = nullptr;
            RequestPool::put(std::exchange(rx_request, nullptr));
        }
        rx_call = nullptr;
        pool->detach_all();
        drop_queue();
        for (Call* call : calls.take_all())
            answer_call(call, call->status ? call->status : -EPIPE);
    }
    // Callers may have sent again from on_reply; those get their answer, and what they send from there waits for the next turn.
    Call last;
    late.push_back(&last);
    while (Call* call = late.pop_front()) {
        if (call == &last)
            break;
        answer_call(call, -EPIPE);
    }
    if (!late.empty()) {
        want_turn();
        return;
    }
    if (state == ConnectionState::failing) {
        state = ConnectionState::finished;
        handler.on_closed(self, close_reason, close_text);
    }
}

// ---- keepalive (wire-protocol 1.3). Any byte counts as life: a large payload on a slow line must not look like death.

void Connection::start_keepalive(uint64_t idle_ns, uint64_t timeout_ns) {
    Impl& impl = *impl_;
    if (!impl.is_open())
        return;
    impl.idle_ns = idle_ns;
    impl.timeout_ns = timeout_ns;
    impl.ping_waiting = impl.ping_grace = false;
    impl.loop.arm(impl.keepalive, impl.last_receive_ns + idle_ns);
}

void Connection::stop_keepalive() { impl_->loop.disarm(impl_->keepalive); }

void Connection::Impl::on_keepalive() {
    const uint64_t now = loop.now_ns();
    if (paused) {
        // We do not listen, so silence means nothing.
        last_receive_ns = now;
        ping_waiting = false;
    }
    if (ping_waiting && last_receive_ns < ping_ns) {
        if (!ping_grace) {
            ping_grace = true;
            loop.arm(keepalive, now + kTimeoutGraceNs);
            return;
        }
        VITASTOR_PROBE("peer did not answer PING");
        close(CloseReason::timeout, "no answer to PING within " + seconds(timeout_ns));
        return;
    }
    ping_waiting = ping_grace = false;
    if (now < last_receive_ns + idle_ns) {
        loop.arm(keepalive, last_receive_ns + idle_ns);
        return;
    }
    send_ping();
    ping_waiting = true;
    ping_ns = now;
    loop.arm(keepalive, now + timeout_ns);
}

void Connection::Impl::send_ping() {
    if (ping_busy)
        return;  // an older one still waits for its answer
    ping_busy = true;
    wire::encode_request(ping_call.request, {0, wire::Opcode::ping});
    queue_call(ping_call);
}

void Connection::Impl::on_ping_reply() {
    ping_busy = false;
    if (!is_open() || ping_call.status != 0)
        return;
    if (ping_call.retval != 0) {
        protocol_error("PING was answered with " + std::to_string(ping_call.retval));
        return;
    }
    ping_waiting = ping_grace = false;
    if (keepalive.armed())
        loop.arm(keepalive, last_receive_ns + idle_ns);
}

// ---- an idle connection gives memory back

void Connection::Impl::on_trim() {
    const uint32_t keep = std::max(RequestPool::kIdleKeep, pool->most_live());
    pool->trim(keep > pool->live() ? keep - pool->live() : 0);
    if (queue.empty() && queue.capacity() > 64 && pool->live() == 0 && !sending)
        queue.shrink();
    if (pool->free_count() > RequestPool::kIdleKeep)
        loop.arm(trim_timer, loop.now_ns() + kTrimIntervalNs);
}

}  // namespace vitastor::net

// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/peers.hpp"

#include <cstring>
#include <unordered_map>

#include "base/assert.hpp"
#include "net/address.hpp"
#include "net/handshake.hpp"

namespace vitastor::net {

namespace {

/// Between the starts of two attempts, so that a peer that accepts and closes at once is not hammered.
constexpr uint64_t kMinAttemptGapNs = 10 * runtime::kNsPerMs;
/// OSD numbers below it are found by index.
constexpr OsdNum kDirectNumbers = 1 << 16;

/// absent: no attempt under way. waiting: for the timer. connecting: TCP. handshake: SHOW_CONFIG sent. up: usable.
/// leaving: the connection is closing.
enum class State { absent, waiting, connecting, handshake, up, leaving };

template <class Base, class Owner>
struct Part : Base {
    Owner* owner = nullptr;
};

}  // namespace

struct Peers::Impl {
    struct Peer;

    runtime::Loop& loop;
    PeerOptions options;
    PeersListener& listener;
    Logger& logger;
    std::vector<Peer*> direct;  ///< by OSD number
    std::unordered_map<OsdNum, std::unique_ptr<Peer>> all;
    size_t active = 0;  ///< peers with an operation or a connection
    bool stopping = false;
    runtime::Completion* done = nullptr;
    Part<runtime::Deferred, Impl> done_turn;

    Impl(runtime::Loop& loop, const PeerOptions& options, PeersListener& listener, Logger& logger)
        : loop(loop), options(options), listener(listener), logger(logger) {
        done_turn.owner = this;
        done_turn.on_run = [](runtime::Deferred* work) {
            Impl* self = static_cast<Part<runtime::Deferred, Impl>*>(work)->owner;
            runtime::Completion* done = std::exchange(self->done, nullptr);
            done->on_done(done, 0);
        };
    }

    Peer* find(OsdNum osd) const {
        if (osd < direct.size())
            return direct[osd];
        if (osd < kDirectNumbers)
            return nullptr;
        auto found = all.find(osd);
        return found == all.end() ? nullptr : found->second.get();
    }
    Peer& get(OsdNum osd);
    void release() {
        VITASTOR_ASSERT(active > 0);
        active--;
        check_done();
    }
    void check_done() {
        if (done && active == 0 && !done_turn.linked())
            loop.defer(done_turn);
    }
};

struct Peers::Impl::Peer : ConnectionHandler {
    Impl& peers;
    const OsdNum osd;
    State state = State::absent;
    bool wanted = false;
    bool attempt_failed = false;  ///< while leaving: go on with the next address afterwards
    bool was_up = false;          ///< while leaving: the listener has been told of it
    std::optional<PeerAddress> address;
    std::vector<std::string> candidates;
    size_t next = 0;
    uint64_t attempt_ns = 0;  ///< start of the last attempt; 0 = never
    std::unique_ptr<Connection> connection;
    wire::ConfigReplyJson config;
    std::string target;  ///< address under trial, for messages
    std::string error;
    std::string logged;
    std::string hello_json;
    Part<runtime::Completion, Peer> connect_op;
    bool timed_out = false;
    Part<runtime::Timer, Peer> timer;
    Part<Call, Peer> hello;

    Peer(Impl& peers, OsdNum osd) : peers(peers), osd(osd) {
        connect_op.owner = timer.owner = hello.owner = this;
        connect_op.on_done = [](runtime::Completion* op, int64_t result) {
            static_cast<Part<runtime::Completion, Peer>*>(op)->owner->on_connected(result);
        };
        timer.on_fire = [](runtime::Timer* timer) {
            static_cast<Part<runtime::Timer, Peer>*>(timer)->owner->on_timer();
        };
        hello.on_reply = [](Call* call) { static_cast<Part<Call, Peer>*>(call)->owner->on_hello(); };
    }

    bool may_connect() const { return wanted && address && !peers.stopping; }

    /// Starts at the first address, now or as soon as the gap allows. Only from absent or waiting.
    void start() {
        VITASTOR_ASSERT(state == State::absent || state == State::waiting);
        peers.loop.disarm(timer);
        state = State::absent;
        if (!may_connect())
            return;
        const uint64_t now = peers.loop.now_ns();
        if (attempt_ns && now < attempt_ns + kMinAttemptGapNs)
            wait_until(attempt_ns + kMinAttemptGapNs);
        else
            start_round();
    }

    void start_round() {
        candidates = choose_addresses(address->addresses, peers.options.networks);
        next = 0;
        try_next();
    }

    void wait_until(uint64_t when_ns) {
        state = State::waiting;
        peers.loop.arm(timer, when_ns);
    }

    void try_next() {
        if (!may_connect()) {
            state = State::absent;
            return;
        }
        if (next >= candidates.size()) {
            if (candidates.empty())
                fail("it has published no address in etcd");
            wait_until(peers.loop.now_ns() + peers.options.connect_interval_ns);
            return;
        }
        const std::string& host = candidates[next++];
        target = address_text(host, address->port);
        state = State::connecting;
        timed_out = false;
        attempt_ns = peers.loop.now_ns();
        peers.active++;
        peers.loop.arm(timer, attempt_ns + peers.options.connect_timeout_ns);
        peers.loop.connect({host, address->port}, connect_op);
    }

    void on_timer() {
        switch (state) {
        case State::waiting:
            state = State::absent;
            if (may_connect())
                start_round();
            break;
        case State::connecting:
            timed_out = true;
            peers.loop.cancel(connect_op);
            break;
        case State::handshake:
            fail("it did not answer SHOW_CONFIG in time");
            leave(CloseReason::timeout, error, After::try_next);
            break;
        case State::absent:
        case State::up:
        case State::leaving:
            break;
        }
    }

    void on_connected(int64_t result) {
        VITASTOR_ASSERT(state == State::connecting);
        peers.loop.disarm(timer);
        state = State::absent;
        if (result < 0 || !may_connect()) {
            if (result >= 0)
                peers.loop.close_socket(static_cast<runtime::Socket>(result));
            else if (may_connect() && (timed_out || result != -ECANCELED))
                fail(std::string("connecting failed: ") +
                     strerror(timed_out ? ETIMEDOUT : static_cast<int>(-result)));
            try_next();
            peers.release();
            return;
        }
        ConnectionOptions options = peers.options.connection;
        options.accept_requests = peers.options.own_osd != 0;
        connection = std::make_unique<Connection>(peers.loop, static_cast<runtime::Socket>(result), options, *this);
        connection->set_peer_osd(osd);
        state = State::handshake;
        peers.loop.arm(timer, peers.loop.now_ns() + peers.options.connect_timeout_ns);
        send_hello(hello, hello_json);
    }

    void send_hello(Call& call, std::string& json) {
        wire::ConfigRequestJson request;
        request.osd_num = peers.options.own_osd;
        if (!request.osd_num)
            request.session = peers.options.session;
        json = wire::encode_config_request(request);
        wire::encode_request(call.request, {0, wire::Opcode::show_config}, wire::ConfigRequest{json.size()});
        call.payload[0] = {json.data(), json.size()};
        call.payload_count = 1;
        connection->send(call);
    }

    void on_hello() {
        Buffer payload = std::move(hello.reply_payload);
        if (state != State::handshake)
            return;  // given up meanwhile
        // Also a good reply may come when its connection is closing already: on_closed follows in both cases.
        if (hello.status || connection->closed())
            return;
        if (hello.retval < 0) {
            fail("SHOW_CONFIG was answered with " + std::to_string(hello.retval));
            leave(CloseReason::protocol, error, After::try_next);
            return;
        }
        auto reply = wire::decode_config_reply({payload.data(), payload.size()});
        if (!reply.ok()) {
            fail(reply.status().message());
            leave(CloseReason::protocol, error, After::try_next);
            return;
        }
        const HandshakeVerdict verdict = judge_config(reply.value(), osd, peers.options);
        if (!verdict.refused.empty()) {
            fail(verdict.refused);
            leave(CloseReason::protocol, error, After::try_next);
            return;
        }
        if (!verdict.warning.empty())
            log(peers.logger, LogLevel::warning, "%s: %s", who().c_str(), verdict.warning.c_str());
        peers.loop.disarm(timer);
        config = std::move(reply.value());
        state = State::up;
        error.clear();
        logged.clear();
        connection->start_keepalive(peers.options.idle_ns, peers.options.ping_timeout_ns);
        log(peers.logger, LogLevel::debug, "%s: connected", who().c_str());
        peers.listener.on_peer_up(osd);
    }

    /// Nobody wants it any more: ends an attempt, a pause, or the connection. Its state says when that is over.
    void give_up(const char* why) {
        switch (state) {
        case State::waiting:
            peers.loop.disarm(timer);
            state = State::absent;
            break;
        case State::connecting:
            peers.loop.cancel(connect_op);
            break;
        case State::handshake:
        case State::up:
            leave(CloseReason::by_us, why, After::start_anew);
            break;
        case State::absent:
        case State::leaving:
            break;
        }
    }

    /// Closes the connection. after: try_next = the attempt has failed, go on with the next address.
    enum class After { start_anew, try_next };
    void leave(CloseReason reason, const std::string& text, After after) {
        peers.loop.disarm(timer);
        was_up = state == State::up;
        state = State::leaving;
        attempt_failed = after == After::try_next;
        connection->close(reason, text);
    }

    void on_request(Connection& from, Request& request) override {
        from.close(CloseReason::protocol, std::string("an accepting OSD sent a request (") +
                                              wire::opcode_name(request.opcode) + "); only PING may go that way");
        Connection::reply_status(request, -EINVAL);
    }

    void on_closed(Connection&, CloseReason reason, const std::string& text) override {
        peers.loop.disarm(timer);
        const bool up = state == State::up || was_up;
        const bool failed = state == State::handshake || (state == State::leaving && attempt_failed);
        if (state == State::handshake)
            fail(text);
        else if (state == State::up && reason != CloseReason::by_us)
            fail(text);
        was_up = attempt_failed = false;
        state = State::absent;
        connection.reset();
        if (up)
            peers.listener.on_peer_down(osd);
        // The listener may have started anew already.
        if (state == State::absent) {
            if (failed)
                try_next();
            else
                start();
        }
        peers.release();
    }

    std::string who() const { return "OSD " + std::to_string(osd) + " at " + target; }

    /// Remembers why, and says it once per reason.
    void fail(const std::string& why) {
        error = (target.empty() ? "OSD " + std::to_string(osd) : who()) + ": " + why;
        if (error == logged)
            return;
        logged = error;
        log(peers.logger, LogLevel::warning, "%s", error.c_str());
    }
};

Peers::Impl::Peer& Peers::Impl::get(OsdNum osd) {
    auto& slot = all[osd];
    if (!slot) {
        slot = std::make_unique<Peer>(*this, osd);
        if (osd < kDirectNumbers) {
            if (direct.size() <= osd)
                direct.resize(osd + 1);
            direct[osd] = slot.get();
        }
    }
    return *slot;
}

Peers::Peers(runtime::Loop& loop, const PeerOptions& options, PeersListener& listener, Logger& logger)
    : impl_(std::make_unique<Impl>(loop, options, listener, logger)) {}

Peers::~Peers() {
    VITASTOR_ASSERT(impl_->active == 0);
    if (impl_->done_turn.linked())
        impl_->done_turn.unlink();
    for (auto& [osd, peer] : impl_->all)
        impl_->loop.disarm(peer->timer);
}

void Peers::set_address(OsdNum osd, const std::optional<PeerAddress>& address) {
    Impl::Peer& peer = impl_->get(osd);
    if (peer.address == address)
        return;
    peer.address = address;
    if (!address) {
        if (peer.state == State::waiting) {
            impl_->loop.disarm(peer.timer);
            peer.state = State::absent;
        } else if (peer.state == State::connecting) {
            impl_->loop.cancel(peer.connect_op);
        }
        return;
    }
    peer.attempt_ns = 0;  // a first attempt there is never delayed
    if (peer.state == State::absent || peer.state == State::waiting) {
        peer.start();
    } else if (peer.state == State::connecting) {
        // The old address is not worth waiting for.
        peer.candidates = choose_addresses(address->addresses, impl_->options.networks);
        peer.next = 0;
        impl_->loop.cancel(peer.connect_op);
    }
}

void Peers::want(OsdNum osd) {
    Impl::Peer& peer = impl_->get(osd);
    if (peer.wanted)
        return;
    peer.wanted = true;
    if (peer.state == State::absent || peer.state == State::waiting)
        peer.start();
}

void Peers::unwant(OsdNum osd) {
    Impl::Peer* peer = impl_->find(osd);
    if (!peer || !peer->wanted)
        return;
    peer->wanted = false;
    peer->give_up("not needed any more");
}

Connection* Peers::get(OsdNum osd) {
    Impl::Peer* peer = impl_->find(osd);
    return peer && peer->state == State::up && !peer->connection->closed() ? peer->connection.get() : nullptr;
}

const wire::ConfigReplyJson* Peers::peer_config(OsdNum osd) {
    Impl::Peer* peer = impl_->find(osd);
    return peer && peer->state == State::up ? &peer->config : nullptr;
}

void Peers::reset(OsdNum osd, const std::string& reason) {
    Impl::Peer* peer = impl_->find(osd);
    if (peer && peer->state == State::up)
        peer->leave(CloseReason::by_us, reason, Impl::Peer::After::start_anew);
}

void Peers::greet(OsdNum osd) {
    struct Greeting : Call {
        Impl::Peer* peer;
        std::string json;
    };
    Impl::Peer* peer = impl_->find(osd);
    if (!peer || peer->state != State::up)
        return;
    auto* greeting = new Greeting;
    greeting->peer = peer;
    greeting->on_reply = [](Call* call) {
        std::unique_ptr<Greeting> answered(static_cast<Greeting*>(call));
        Impl::Peer& peer = *answered->peer;
        if (call->status || peer.state != State::up)
            return;  // its connection goes
        if (call->retval >= 0)
            peer.peers.listener.on_peer_greeted(peer.osd);
        else
            peer.leave(CloseReason::protocol, "SHOW_CONFIG was answered with " + std::to_string(call->retval), Impl::Peer::After::start_anew);
    };
    peer->send_hello(*greeting, greeting->json);
}

void Peers::set_options(const PeerOptions& options) { impl_->options = options; }

void Peers::close_all(runtime::Completion& done) {
    VITASTOR_ASSERT(!impl_->stopping);
    impl_->stopping = true;
    impl_->done = &done;
    for (auto& [osd, peer] : impl_->all) {
        peer->give_up("shutting down");
    }
    impl_->check_done();
}

ConnectionMemory Peers::memory() const {
    ConnectionMemory memory;
    for (auto& [osd, peer] : impl_->all) {
        if (peer->connection) memory.add(peer->connection->memory());
    }
    return memory;
}

std::string Peers::last_error(OsdNum osd) const {
    Impl::Peer* peer = impl_->find(osd);
    return peer ? peer->error : std::string();
}

}  // namespace vitastor::net

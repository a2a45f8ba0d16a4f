// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/server.hpp"

#include <cstring>

#include "base/assert.hpp"
#include "net/address.hpp"

namespace vitastor::net {

namespace {

constexpr uint64_t kAcceptRetryNs = 100 * runtime::kNsPerMs;  ///< after running out of descriptors
constexpr int kPortAttempts = 16;  ///< a free port of the first address may be taken on another
constexpr uint32_t kComplaintsPerSecond = 10;

template <class Base, class Owner>
struct Part : Base {
    Owner* owner = nullptr;
};

}  // namespace

struct Server::Impl {
    struct Listener;
    struct Incoming;

    runtime::Loop& loop;
    ServerOptions options;
    ServerHandler& handler;
    Logger& logger;
    std::string config_text;
    std::vector<std::unique_ptr<Listener>> listeners;
    List<Incoming> connections;
    uint32_t connection_count = 0;
    uint16_t port = 0;
    size_t accepting = 0;  ///< listeners with an operation in flight
    bool stopping = false;
    runtime::Completion* done = nullptr;
    Part<runtime::Deferred, Impl> done_turn;
    uint64_t complaint_second = 0;
    uint32_t complaints = 0;

    Impl(runtime::Loop& loop, const ServerOptions& options, ServerHandler& handler, Logger& logger)
        : loop(loop), options(options), handler(handler), logger(logger) {
        this->options.connection.accept_requests = true;
        config_text = wire::encode_config_reply(options.config);
        done_turn.owner = this;
        done_turn.on_run = [](runtime::Deferred* work) {
            Impl* self = static_cast<Part<runtime::Deferred, Impl>*>(work)->owner;
            runtime::Completion* done = std::exchange(self->done, nullptr);
            done->on_done(done, 0);
        };
    }

    Status open_listeners();
    void accepted(runtime::Socket socket);
    void check_done() {
        if (done && accepting == 0 && connection_count == 0 && !done_turn.linked())
            loop.defer(done_turn);
    }
    /// A peer must not be able to fill our log.
    bool may_complain() {
        const uint64_t second = loop.now_ns() / runtime::kNsPerSecond;
        if (second != complaint_second) {
            complaint_second = second;
            complaints = 0;
        }
        return ++complaints <= kComplaintsPerSecond;
    }
};

struct Server::Impl::Listener {
    Impl& server;
    runtime::Socket socket;
    std::string host;
    Part<runtime::Completion, Listener> accept_op;
    Part<runtime::Timer, Listener> retry;

    Listener(Impl& server, runtime::Socket socket, std::string host)
        : server(server), socket(socket), host(std::move(host)) {
        accept_op.owner = retry.owner = this;
        accept_op.on_done = [](runtime::Completion* op, int64_t result) {
            static_cast<Part<runtime::Completion, Listener>*>(op)->owner->on_accept(result);
        };
        retry.on_fire = [](runtime::Timer* timer) {
            static_cast<Part<runtime::Timer, Listener>*>(timer)->owner->accept();
        };
    }
    void accept() {
        server.accepting++;
        server.loop.accept(socket, accept_op);
    }
    void on_accept(int64_t result) {
        server.accepting--;
        if (server.stopping) {
            if (result >= 0)
                server.loop.close_socket(static_cast<runtime::Socket>(result));
            server.check_done();
            return;
        }
        if (result >= 0) {
            server.accepted(static_cast<runtime::Socket>(result));
            accept();
            return;
        }
        if (result == -ECONNABORTED || result == -EINTR) {
            accept();
            return;
        }
        if (server.may_complain())
            log(server.logger, LogLevel::warning, "cannot accept connections on %s: %s; trying again",
                address_text(host, server.port).c_str(), strerror(static_cast<int>(-result)));
        server.loop.arm(retry, server.loop.now_ns() + kAcceptRetryNs);
    }
};

struct Server::Impl::Incoming : ListNode, ConnectionHandler {
    Impl& server;
    Connection connection;

    Incoming(Impl& server, runtime::Socket socket)
        : server(server), connection(server.loop, socket, server.options.connection, *this) {}

    void on_request(Connection& from, Request& request) override {
        if (request.opcode == wire::Opcode::show_config)
            show_config(request);
        else
            server.handler.on_request(from, request);
    }

    void show_config(Request& request) {
        const auto hello = wire::decode_config_request(
            {request.sizes.data_bytes ? request.data() : nullptr, request.sizes.data_bytes});
        connection.set_peer_osd(hello.osd_num);
        if (hello.check_sequencing)
            connection.require_sequencing();
        if (hello.osd_num) {
            connection.start_keepalive(server.options.idle_ns, server.options.ping_timeout_ns);
            server.handler.on_peer_announced(connection, hello.osd_num);
        } else {
            connection.stop_keepalive();  // a client would drop us for a PING
            server.handler.on_client_announced(connection, hello.session);
        }
        const size_t size = server.config_text.size() + 1;  // with the NUL that 3.0.8 needs
        request.reply_buffer = server.loop.buffers().allocate(size);
        std::memcpy(request.reply_buffer.data(), server.config_text.c_str(), size);
        request.reply_iov[0] = {request.reply_buffer.data(), size};
        request.reply_count = 1;
        wire::encode_reply(request.reply, {request.id, request.opcode, static_cast<int64_t>(size)});
        Connection::reply(request);
    }

    void on_closed(Connection& closed, CloseReason reason, const std::string& text) override {
        const bool their_fault = reason == CloseReason::protocol || reason == CloseReason::timeout;
        if (!their_fault || server.may_complain()) {
            const OsdNum osd = closed.peer_osd();
            const std::string who = osd ? "OSD " + std::to_string(osd) : "client";
            log(server.logger, their_fault ? LogLevel::warning : LogLevel::debug, "connection of %s %s closed: %s",
                who.c_str(), closed.peer_name().c_str(), text.c_str());
        }
        server.handler.on_closed(closed);
        unlink();
        server.connection_count--;
        Impl& owner = server;
        delete this;
        owner.check_done();
    }
};

void Server::Impl::accepted(runtime::Socket socket) {
    if (connection_count >= options.max_connections) {
        if (may_complain())
            log(logger, LogLevel::warning, "connection of %s refused: %u connections are the limit (max_connections)",
                loop.peer_name(socket).c_str(), options.max_connections);
        loop.close_socket(socket);
        return;
    }
    auto* incoming = new Incoming(*this, socket);
    connections.push_back(incoming);
    connection_count++;
    handler.on_accepted(incoming->connection);
}

Status Server::Impl::open_listeners() {
    const uint16_t wanted = options.listen[0].port;
    for (int attempt = 1;; attempt++) {
        port = wanted;
        Status failed;
        for (const auto& address : options.listen) {
            uint16_t real = 0;
            auto socket = loop.listen({address.host, port}, &real);
            if (!socket.ok()) {
                failed = Status(socket.status().code(), "cannot listen on " + address_text(address.host, port) + ": " +
                                                            strerror(-socket.status().code()));
                break;
            }
            if (port == 0)
                port = real;
            listeners.push_back(std::make_unique<Listener>(*this, socket.value(), address.host));
        }
        if (failed.ok())
            return failed;
        for (auto& listener : listeners)
            loop.close_socket(listener->socket);
        listeners.clear();
        if (wanted != 0 || failed.code() != -EADDRINUSE || attempt == kPortAttempts)
            return failed;
    }
}

Server::Server(runtime::Loop& loop, const ServerOptions& options, ServerHandler& handler, Logger& logger)
    : impl_(std::make_unique<Impl>(loop, options, handler, logger)) {}

Server::~Server() {
    VITASTOR_ASSERT(impl_->accepting == 0);
    VITASTOR_ASSERT(impl_->connection_count == 0);
    if (impl_->done_turn.linked())
        impl_->done_turn.unlink();
}

Status Server::start() {
    if (impl_->options.listen.empty())
        return Status(-EINVAL, "no address to listen on; set bind_address or osd_network");
    Status status = impl_->open_listeners();
    if (!status.ok())
        return status;
    for (auto& listener : impl_->listeners)
        listener->accept();
    return {};
}

uint16_t Server::port() const { return impl_->port; }

std::vector<std::string> Server::addresses() const {
    std::vector<std::string> hosts;
    for (const auto& listener : impl_->listeners)
        hosts.push_back(listener->host);
    return hosts;
}

void Server::set_config(const wire::ConfigReplyJson& config) {
    impl_->options.config = config;
    impl_->config_text = wire::encode_config_reply(config);
}

void Server::visit(void (*visit)(void* arg, Connection& connection), void* arg) {
    for (auto* incoming = impl_->connections.front(); incoming; incoming = impl_->connections.next(incoming)) {
        if (!incoming->connection.closed())
            visit(arg, incoming->connection);
    }
}

ConnectionMemory Server::memory() const {
    ConnectionMemory memory;
    for (auto* incoming = impl_->connections.front(); incoming; incoming = impl_->connections.next(incoming))
        memory.add(incoming->connection.memory());
    return memory;
}

void Server::close_all(runtime::Completion& done) {
    VITASTOR_ASSERT(!impl_->stopping);
    impl_->stopping = true;
    impl_->done = &done;
    for (auto& listener : impl_->listeners) {
        impl_->loop.disarm(listener->retry);
        impl_->loop.close_socket(listener->socket);
    }
    for (auto* incoming = impl_->connections.front(); incoming; incoming = impl_->connections.next(incoming))
        incoming->connection.close(CloseReason::by_us, "shutting down");
    impl_->check_done();
}

}  // namespace vitastor::net

// SPDX-License-Identifier: GPL-2.0-or-later
// Incoming connections of an OSD: listens, accepts, answers SHOW_CONFIG, hands requests on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "net/connection.hpp"

namespace vitastor::net {

class ServerHandler {
public:
    virtual ~ServerHandler() = default;
    virtual void on_accepted(Connection& connection) = 0;
    /// Every request but PING and SHOW_CONFIG.
    virtual void on_request(Connection& connection, Request& request) = 0;
    /// SHOW_CONFIG announced an OSD number (again): safety.md 2, "a new SHOW_CONFIG from OSD p voids what p's older connections held".
    virtual void on_peer_announced(Connection& connection, OsdNum osd) = 0;
    /// SHOW_CONFIG of a client (again). session: 0 = it has none.
    virtual void on_client_announced(Connection&, uint64_t session) { static_cast<void>(session); }
    /// The connection object is destroyed right after.
    virtual void on_closed(Connection& connection) = 0;
};

struct ServerOptions {
    std::vector<runtime::Address> listen;  ///< port 0 = any; all addresses then share the first one's port
    wire::ConfigReplyJson config;          ///< what SHOW_CONFIG answers
    uint64_t idle_ns = 5 * runtime::kNsPerSecond;
    uint64_t ping_timeout_ns = 5 * runtime::kNsPerSecond;
    uint32_t max_connections = 4096;
    ConnectionOptions connection;
};

class Server {
public:
    Server(runtime::Loop& loop, const ServerOptions& options, ServerHandler& handler, Logger& logger);
    ~Server();
    Status start();
    uint16_t port() const;
    std::vector<std::string> addresses() const;
    void set_config(const wire::ConfigReplyJson& config);
    /// Calls visit for each live connection (which must not close any from inside).
    void visit(void (*visit)(void* arg, Connection& connection), void* arg);
    /// Of all connections, also those that are closing.
    ConnectionMemory memory() const;
    /// Stops listening and closes all connections; `done` runs once when nothing is left.
    void close_all(runtime::Completion& done);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace vitastor::net

// SPDX-License-Identifier: GPL-2.0-or-later
// Outgoing connections to OSDs, one each: address choice, connect timeout, SHOW_CONFIG handshake with the checks of
// wire-protocol 6.3, keepalive, reconnect. Used by clients (contexts) and by OSDs (as primaries).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/connection.hpp"

namespace vitastor::net {

/// "10.0.0.0/8", "fd00::/8", "192.0.2.7" (= /32, /128). Error -EINVAL names the text.
struct Cidr {
    uint8_t bytes[16] = {};
    uint8_t prefix_bits = 0;
    bool ipv6 = false;
    static Result<Cidr> parse(const std::string& text);
    bool contains(const std::string& address) const;
};

struct PeerAddress {
    OsdNum osd = 0;
    std::vector<std::string> addresses;  ///< textual IPv4 or IPv6
    uint16_t port = 0;
    bool operator==(const PeerAddress&) const = default;
};

struct PeerOptions {
    OsdNum own_osd = 0;  ///< 0 = client: announces no number, applies the checks of clients
    uint64_t session = 0;  ///< clients: announced instead, see wire::ConfigRequestJson
    /// OSD only: own layout, checked against the peer's.
    uint64_t block_size = 0;
    uint64_t bitmap_granularity = 0;
    wire::ImmediateCommit immediate_commit = wire::ImmediateCommit::none;
    std::vector<Cidr> networks;  ///< osd_cluster_network for OSDs, osd_network for clients; empty = any
    uint64_t connect_timeout_ns = 5 * runtime::kNsPerSecond;
    uint64_t connect_interval_ns = 5 * runtime::kNsPerSecond;
    uint64_t idle_ns = 5 * runtime::kNsPerSecond;
    uint64_t ping_timeout_ns = 5 * runtime::kNsPerSecond;
    ConnectionOptions connection;
};

class PeersListener {
public:
    virtual ~PeersListener() = default;
    /// The handshake has succeeded; peer_config() is known.
    virtual void on_peer_up(OsdNum osd) = 0;
    /// The connection is gone; all its Calls have been answered with -EPIPE before.
    virtual void on_peer_down(OsdNum osd) = 0;
    /// A hello of greet() was answered, over the connection that is up.
    virtual void on_peer_greeted(OsdNum) {}
};

class Peers {
public:
    Peers(runtime::Loop& loop, const PeerOptions& options, PeersListener& listener, Logger& logger);
    /// close_all() must have drained first.
    ~Peers();

    /// What etcd says. A changed or vanished address closes an existing connection only if it is used by nobody else's decision
    /// (vanished: stop reconnecting; the live connection stays until it dies by itself). nullopt = the state key is gone.
    void set_address(OsdNum osd, const std::optional<PeerAddress>& address);
    /// Wants a connection to `osd` from now on: connects at once if there is none (a first attempt is never delayed), and keeps
    /// reconnecting every connect_interval while wanted and an address is known.
    void want(OsdNum osd);
    /// Stops trying and closes a live connection (on_peer_down follows).
    void unwant(OsdNum osd);
    /// Usable (handshake done) connection, or nullptr.
    Connection* get(OsdNum osd);
    const wire::ConfigReplyJson* peer_config(OsdNum osd);
    /// Drops the connection (client rule for -EPIPE) and connects anew at once if wanted.
    void reset(OsdNum osd, const std::string& reason);
    /// Says hello once more on a live connection: whatever is sent once it is answered is known to be sent after now (docs/adr/0048).
    void greet(OsdNum osd);
    /// Applies new timeouts to later connections.
    void set_options(const PeerOptions& options);
    /// Closes everything; `done` runs once when nothing is left.
    void close_all(runtime::Completion& done);
    /// Why `osd` cannot be reached, for messages; empty when connected or not tried.
    std::string last_error(OsdNum osd) const;

    /// Of all connections, also those that are on their way up or down.
    ConnectionMemory memory() const;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace vitastor::net

// SPDX-License-Identifier: GPL-2.0-or-later
// Several engines and clients in one process, over one real loop. Control is played by the test: it keeps the addresses,
// the PG configuration and the histories, and confirms what the engines want.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.hpp"
#include "net/peers.hpp"
#include "runtime/sim_world.hpp"
#include "memory_store.hpp"

namespace vitastor::test {

class Cluster;

struct TestLogger : Logger {
    void write(LogLevel level, const std::string& text) override;
};

/// One engine and what control would know of it.
class Node : public engine::EventSink {
public:
    Node(Cluster& cluster, OsdNum osd);
    ~Node() override;
    void on_event(engine::Event event) override;
    void post(engine::Command command) { engine->post(std::move(command)); }
    uint32_t state(PgNum pg) const {
        auto it = states.find(pg);
        return it == states.end() ? 0 : it->second.state;
    }

    Cluster& cluster;
    OsdNum osd;
    std::unique_ptr<runtime::Loop> own_loop;  ///< simulated: that of its node
    std::unique_ptr<engine::Engine> engine;
    std::map<PgNum, engine::PgStateChanged> states;
    std::vector<engine::HistoryWanted> wanted;
    std::optional<engine::Statistics> statistics;
    uint16_t port = 0;
    int scrubbed = 0;  ///< PgScrubbed events
    bool ready = false, stopped = false, lease_expired = false;
    std::string fatal;
};

struct Reply {
    int64_t result = 0;  ///< retval, or a negative errno of the connection
    Version version = 0;
    std::vector<uint8_t> data, bitmap;
    wire::DeleteReply del;
    wire::LockReply lock;
    wire::ListReply list;
    std::vector<ObjectVersion> triples;
    std::vector<wire::DescribeItem> items;
    bool done = false;
};

/// Opens connections as a client (osd 0) or as an OSD.
class Client : public net::PeersListener {
public:
    /// Without a session of its own it acts as ours do: a request that is refused as perhaps late is sent again behind a hello.
    Client(Cluster& cluster, OsdNum own_osd, std::optional<uint64_t> session = std::nullopt);
    ~Client() override;
    void on_peer_up(OsdNum osd) override { ups[osd]++; }
    void on_peer_down(OsdNum osd) override { downs[osd]++; }
    /// Waits for the connection first.
    net::Connection* connect(OsdNum osd);
    std::shared_ptr<Reply> start_read(OsdNum osd, InodeNum inode, uint64_t offset, uint32_t len, uint64_t revision = 0);
    std::shared_ptr<Reply> start_write(OsdNum osd, InodeNum inode, uint64_t offset, std::vector<uint8_t> data, Version cas = 0);
    Reply read(OsdNum osd, InodeNum inode, uint64_t offset, uint32_t len, uint64_t revision = 0);
    Reply write(OsdNum osd, InodeNum inode, uint64_t offset, std::vector<uint8_t> data, Version cas = 0);
    std::shared_ptr<Reply> start_remove(OsdNum osd, InodeNum inode, uint64_t offset, Version cas = 0);
    Reply remove(OsdNum osd, InodeNum inode, uint64_t offset, Version cas = 0);
    std::shared_ptr<Reply> start_simple(OsdNum osd, wire::Opcode opcode);
    Reply simple(OsdNum osd, wire::Opcode opcode) { return wait(start_simple(osd, opcode)); }
    Reply scrub(OsdNum osd, InodeNum inode, uint64_t offset);
    Reply sub_write(OsdNum osd, const ObjectId& object, Version version, std::vector<uint8_t> data, uint32_t flags = 0);
    std::shared_ptr<Reply> start_list(OsdNum osd, const wire::ListRequest& message);
    Reply list(OsdNum osd, const wire::ListRequest& message) { return wait(start_list(osd, message)); }
    Reply lock(OsdNum osd, PgNum pg, uint64_t flags, uint32_t state);
    Reply describe(OsdNum osd);
    Reply wait(std::shared_ptr<Reply> reply);
    void greet(OsdNum osd) { peers_->greet(osd); }
    /// Once the connection is lost it makes no other.
    void connect_no_more(OsdNum osd) { peers_->set_address(osd, std::nullopt); }

    Cluster& cluster;
    std::map<OsdNum, int> ups, downs;
    std::map<OsdNum, uint16_t> known;  ///< ports of OSDs that are no nodes of the cluster

private:
    struct Pending;
    const bool greets_;
    std::shared_ptr<Reply> send(OsdNum osd, Pending* pending);
    TestLogger logger_;
    std::unique_ptr<net::Peers> peers_;
};

struct ClusterOptions {
    uint32_t osds = 3;
    uint32_t pg_size = 2, pg_minsize = 1;
    wire::ImmediateCommit mode = wire::ImmediateCommit::all;
    bool local_reads = false;
    uint32_t pg_count = 1;
    uint8_t scheme = 0;
    uint32_t parity = 1;  ///< of scheme 1 and 2
    /// On the simulated runtime: a node for each engine and one for the clients, virtual time, kill().
    bool simulated = false;
    uint64_t latency_ns = 100'000;  ///< one way
    std::map<std::string, std::string> settings{{"no_recovery", "1"}, {"no_rebalance", "1"}, {"peer_connect_interval", "1"}};
    runtime::LoopKind loop = runtime::LoopKind::automatic;
};

/// Pool 1 with one PG, block 131072, granularity 4096.
class Cluster {
public:
    explicit Cluster(const ClusterOptions& options = {});
    ~Cluster();
    /// Runs the loop until `condition` holds; fails the test after a generous time.
    void until(const char* what, const std::function<bool()>& condition);
    void turns(int count);
    void start(OsdNum osd);
    /// Orderly end.
    void stop(OsdNum osd);
    /// All that etcd would tell to everybody: addresses of running nodes (without `hidden`), pools.
    void publish();
    /// Simulated: the process dies at once, its disk keeps what was completed. start() brings it back.
    void kill(OsdNum osd);
    std::string address(OsdNum osd) const { return world ? "10.0.0." + std::to_string(osd + 1) : "127.0.0.1"; }
    uint32_t data_chunks() const { return options.scheme ? options.pg_size - options.parity : 1; }
    engine::PoolConfig pool_config() const;
    void start_pg(OsdNum primary, std::vector<OsdNum> osd_set);
    void stop_pg(OsdNum primary);
    void lease(OsdNum osd, uint64_t from_now_ns);
    Node& node(OsdNum osd) { return *nodes.at(osd); }
    /// Copies of an object: OSD -> version, for those that have it.
    std::map<OsdNum, Version> copies(const ObjectId& object);

    ClusterOptions options;
    TestLogger logger;
    std::unique_ptr<runtime::SimWorld> world;
    std::map<OsdNum, runtime::NodeId> sim_nodes;
    std::unique_ptr<runtime::Loop> loop;  ///< simulated: of the clients
    std::map<OsdNum, MemoryDisk> disks;
    bool any_killed = false;
    std::function<void()> after_step;  ///< simulated: after every event
    std::map<OsdNum, std::unique_ptr<Node>> nodes;
    std::map<OsdNum, bool> hidden;  ///< no state key
    bool confirm_histories = true;
    uint64_t epoch = 0;
    std::vector<OsdNum> all_peers;
    std::vector<std::vector<OsdNum>> history_sets;
    uint64_t interval = 0;
};

inline std::vector<uint8_t> block(uint8_t fill, size_t size = 4096) { return std::vector<uint8_t>(size, fill); }
inline const InodeNum kInode = full_inode(1, 1);
inline const ObjectId kFirst{kInode, 0};
/// A listing of everything in PG 1 of pool 1, as peering asks for it.
inline wire::ListRequest whole_pool() {
    wire::ListRequest list;
    list.list_pg = 1;
    list.pg_count = 1;
    list.pg_stripe_size = 131072;
    list.min_inode = full_inode(1, 0);
    list.max_inode = full_inode(2, 0) - 1;
    return list;
}

namespace ps = wire::pg_state;

/// Until PG 1 is in exactly this state, as its primary says.
inline void until_state(Cluster& c, OsdNum primary, uint32_t state) {
    c.until("PG state", [&] { return c.node(primary).state(1) == state; });
}
inline void activate(Cluster& c, OsdNum primary, std::vector<OsdNum> set, uint32_t state = ps::active) {
    c.start_pg(primary, std::move(set));
    until_state(c, primary, state);
}

}  // namespace vitastor::test

// SPDX-License-Identifier: GPL-2.0-or-later
// Inside of the simulated world: events, nodes, connections, disks. Everything is found by number, never by address, and every
// container that is walked is ordered.
#pragma once

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/sim_world.hpp"

namespace vitastor::runtime {

class SimLoop;

/// xoshiro256**; one stream per purpose, so that a new draw in one place does not change the others.
class SimRandom {
public:
    explicit SimRandom(uint64_t seed);
    uint64_t next();
    uint64_t below(uint64_t bound) { return bound ? next() % bound : 0; }
    bool chance(double p) { return p > 0 && static_cast<double>(next() >> 11) < p * 9007199254740992.0; }

private:
    uint64_t s_[4];
};

using EventKey = std::pair<uint64_t, uint64_t>;  ///< virtual time, sequence number
inline constexpr EventKey kNoEvent{0, 0};

struct SimEvent {
    const char* what = "";
    uint64_t loop = 0;  ///< serial of the loop it belongs to; 0: the world's own
    uint64_t detail = 0;
    std::function<void()> run;
};

enum class NodeState { running, crashed, off };

struct SimNode {
    std::string name;
    std::vector<std::string> addresses;
    NodeState state = NodeState::running;
    int32_t drift_ppm = 0;
    uint64_t offset_ns = 0;
    int64_t wall_jump_us = 0;
    bool refusing = false;
    uint16_t next_port = 30000;
    SimRandom random{0};
    std::set<uint64_t> loops;  ///< serials of the living
};

/// Bytes in order, taken from the front.
struct ByteQueue {
    std::vector<uint8_t> bytes;
    size_t head = 0;
    bool empty() const { return head == bytes.size(); }
    size_t size() const { return bytes.size() - head; }
    void append(std::vector<uint8_t>&& more) {
        if (empty()) {
            bytes = std::move(more);
            head = 0;
        } else {
            bytes.erase(bytes.begin(), bytes.begin() + static_cast<long>(std::exchange(head, 0)));
            bytes.insert(bytes.end(), more.begin(), more.end());
        }
    }
    const uint8_t* data() const { return bytes.data() + head; }
    void drop(size_t count) {
        head += count;
        if (empty()) clear();
    }
    void clear() {
        bytes.clear();
        head = 0;
    }
};

/// One end of a connection, or a listener. Belongs to a loop until closed there; lives on while the other end may speak to it.
struct SimEndpoint {
    uint64_t id = 0;
    uint64_t peer = 0;  ///< 0: listener, or not connected yet
    NodeId node = 0;
    NodeId peer_node = 0;
    uint64_t loop = 0;  ///< 0: closed by its program
    Socket handle = -1;
    Address local, remote;
    bool listening = false;
    bool established = false;
    bool vanished = false;      ///< its host lost power: answers nothing until restart, then resets
    bool spoken_to = false;     ///< bytes came while it was vanished
    int error = 0;              ///< negative errno, sticky
    bool end_received = false;
    bool stalled = false;       ///< arrivals are held back by a partition
    ByteQueue received;
    struct Segment {
        enum class Kind { data, end, reset } kind = Kind::data;
        std::vector<uint8_t> bytes;
    };
    std::deque<Segment> arriving;
    uint64_t arriving_bytes = 0;
    uint64_t last_arrival_ns = 0;
    uint64_t kill_after = UINT64_MAX;  ///< reset both ends when so many more bytes have arrived here
    std::deque<uint64_t> backlog;      ///< listener: endpoints to accept
    uint64_t receive_op = 0, send_op = 0, accept_op = 0;  ///< in flight, by number
};

struct SimOp {
    enum class Kind { connect, accept, receive, send, file } kind = Kind::connect;
    uint64_t loop = 0;
    uint64_t endpoint = 0;
    Completion* completion = nullptr;
    std::vector<iovec> iov;
    EventKey event = kNoEvent;    ///< of its completion, when scheduled
    EventKey timeout = kNoEvent;  ///< of a connect
    struct SimDisk* disk = nullptr;  ///< of a file operation
    uint64_t number = 0;          ///< of a file operation on its disk
    bool timed() const { return event != kNoEvent; }
};

/// What a sector held at the end of each write since it was last durable.
struct SectorHistory {
    std::vector<uint8_t> durable;
    struct Version {
        uint64_t write_number;
        std::vector<uint8_t> bytes;
    };
    std::vector<Version> versions;
};

struct SimDisk {
    SimDiskOptions options;
    /// Newest content, in pieces of kExtentBytes; null, and beyond the end: zeroes.
    std::vector<std::unique_ptr<uint8_t[]>> extents;
    static constexpr uint64_t kExtentBytes = 256 << 10;
    std::map<uint64_t, SectorHistory> dirty;
    uint64_t lock_holder = 0;     ///< serial of a loop; 0: free
    bool release_when_landed = false;
    struct AreaLock {
        uint64_t loop;
        File file;
        uint64_t from, to;
        bool shared;
    };
    std::vector<AreaLock> area_locks;
    uint64_t operations = 0;
    uint64_t write_number = 0;
    uint64_t landing = 0;         ///< writes in flight of loops that died by a crash without power loss
    std::map<uint64_t, int> planned_errors;
    struct InFlightWrite {
        uint64_t loop;
        uint64_t offset;
        std::vector<uint8_t> bytes;
        bool through;
    };
    std::map<uint64_t, InFlightWrite> writes;  ///< by operation number

    void apply(uint64_t offset, const std::vector<uint8_t>& bytes, bool durable);
    void copy_in(uint64_t offset, uint64_t length, const uint8_t* from);
    std::vector<uint8_t> content(uint64_t offset, uint64_t length) const;
    void copy_out(uint64_t offset, uint64_t length, uint8_t* out) const;
    void make_durable(uint64_t up_to_write);
    /// Returns a digest of what became of it.
    uint64_t lose_power(SimRandom& random);
};

struct SimWorld::State {
    State(uint64_t seed, const SimNetworkOptions& net);

    // ---- events
    EventKey schedule(uint64_t at_ns, const char* what, uint64_t loop, uint64_t detail, std::function<void()> run);
    void unschedule(EventKey key) { events.erase(key); }
    bool step();
    void fold(uint64_t value) { hash = mix(hash ^ value); }
    static uint64_t mix(uint64_t x);
    void drop_events_of(uint64_t loop);

    // ---- nodes
    SimNode& node(NodeId id);
    uint64_t node_time(NodeId id, uint64_t world_ns);
    uint64_t world_time(NodeId id, uint64_t node_ns);
    void crash(NodeId id, bool power_loss);
    void restart(NodeId id);
    /// The loop is gone, by crash or by its owner: operations vanish, connections end, writes in flight land or not.
    void retire_loop(uint64_t serial, NodeId node, const std::vector<std::string>& paths, bool power_loss);

    // ---- operations
    uint64_t start_op(SimOp::Kind kind, uint64_t loop, Completion& completion);
    SimOp* find_op(uint64_t id);
    void finish_op_at(uint64_t id, uint64_t at_ns, const char* what, int64_t result);
    /// The event itself: takes the operation off the books and runs its on_done.
    void finish_op(uint64_t id, int64_t result);
    void cancel_op(uint64_t id);

    // ---- network (sim_net.cpp)
    SimEndpoint* endpoint(uint64_t id);
    SimEndpoint& new_endpoint(NodeId node, uint64_t loop);
    bool blocked(NodeId from, NodeId to) const { return partitions.count({from, to}) > 0; }
    uint64_t flight_ns(uint64_t bytes);
    int find_host(const std::string& host, NodeId* out) const;
    Result<uint64_t> listen(NodeId node, uint64_t loop, const Address& address, uint16_t* port);
    void connect(uint64_t op, NodeId node, const Address& address);
    void arrive_syn(uint64_t op, Address address);
    void arrive_syn_ack(uint64_t op);
    void refuse_later(uint64_t op, int error);
    void push_segment(SimEndpoint& to, SimEndpoint::Segment segment);
    void arrive(uint64_t id);
    void reset(SimEndpoint& end, bool keep_received);
    void reset_peer_of(SimEndpoint& end);
    void kick_receive(SimEndpoint& end);
    void kick_send(SimEndpoint& end);
    void kick_accept(SimEndpoint& end);
    void do_receive(uint64_t id);
    void do_send(uint64_t id);
    void do_accept(uint64_t id);
    bool can_send(const SimEndpoint& end, uint64_t* room);
    void close_endpoint(uint64_t id);
    void drop_if_dead(uint64_t id);
    void heal(NodeId from, NodeId to);

    // ---- disks (sim_disk.cpp)
    enum class FileCall { read, write, sync, discard };
    struct FileRequest {
        FileCall call = FileCall::read;
        SimDisk* disk = nullptr;
        bool direct = true;
        bool through = false;  ///< durable on completion whatever the disk's cache
        bool writable = true;
        uint64_t offset = 0;
        uint64_t length = 0;
    };
    SimDisk& disk(const std::string& path);
    void start_file_op(uint64_t op, const FileRequest& request);
    void finish_file_op(uint64_t op, const FileRequest& request, uint64_t write_mark);
    void land(SimDisk& disk, uint64_t number);
    int refuse_file_op(const SimDisk& disk, const SimOp& op, const FileRequest& request) const;
    void close_disk(const std::string& path, uint64_t loop);
    void abandon_writes(const std::string& path, uint64_t loop, bool power_loss);

    SimRandom net_random, disk_random, fault_random, harness_random;
    SimNetworkOptions network;
    uint64_t now = kNsPerSecond;
    uint64_t sequence = 1;
    uint64_t hash = 0;
    uint64_t event_count = 0;
    uint64_t next_id = 1;  ///< of loops, endpoints, operations
    bool stepping = false;
    std::map<EventKey, SimEvent> events;
    std::map<NodeId, SimNode> nodes;
    std::map<uint64_t, SimLoop*> loops;  ///< by serial: never walked in the order of pointers
    std::map<uint64_t, SimEndpoint> endpoints;
    std::map<std::pair<std::string, uint16_t>, uint64_t> listeners;
    std::set<std::pair<NodeId, NodeId>> partitions;
    std::map<uint64_t, SimOp> ops;
    std::map<std::string, SimDisk> disks;
    std::function<void(const std::string&)> trace;
};

}  // namespace vitastor::runtime

// SPDX-License-Identifier: GPL-2.0-or-later
// The simulated runtime: virtual clock, network and disks in one thread, from one seed, one native event at a time.
//
// A node is one process on a host of its own: it has addresses, a clock, and any number of loops. Everything that happens is an
// event with a virtual time and a sequence number; step() runs the next one. Same seed and same calls: same trace hash.
// Order never depends on addresses of objects or on hashing. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/loop.hpp"

namespace vitastor::runtime {

using NodeId = uint32_t;  ///< from 1

/// Chances are per operation, 0 … 1.
struct SimNetworkOptions {
    uint64_t latency_ns = 30'000;   ///< one way
    uint64_t jitter_ns = 20'000;    ///< added at random; bytes of one connection stay in order
    uint64_t bytes_per_us = 1'000;  ///< 1 GB/s
    uint32_t buffer_bytes = 256 << 10;  ///< sent and not yet received by the peer's program, per direction
    double short_chance = 0;        ///< a send or receive moves fewer bytes than it could
    double late_sent_chance = 0;    ///< a send is completed only after the peer has had its bytes, and perhaps answered
    double kill_chance = 0;         ///< a new connection dies at a random byte
    uint64_t kill_after_max_bytes = 16 << 20;
    uint64_t connect_timeout_ns = 127 * kNsPerSecond;  ///< unanswered connects end with -ETIMEDOUT
};

struct SimDiskOptions {
    uint64_t size_bytes = 64 << 20;
    uint32_t logical_block = 512;   ///< alignment of direct I/O
    uint32_t sector_bytes = 4096;   ///< what a power loss keeps, loses or tears as one
    uint32_t atomic_bytes = 4096;   ///< a torn sector is torn at multiples of this; = sector_bytes: sectors are never torn
    bool volatile_cache = true;     ///< completed writes are durable only after sync(); false: on completion
    bool is_block_device = false;   ///< true: also tells whether it has a volatile cache
    bool can_discard = true;
    bool refuse_direct = false;     ///< as a file system without O_DIRECT: is_direct = false
    uint64_t latency_ns = 20'000;
    uint64_t jitter_ns = 20'000;    ///< also reorders operations in flight
    uint64_t sync_latency_ns = 200'000;
    uint64_t bytes_per_us = 2'000;
    double slow_chance = 0;         ///< one operation takes slow_ns longer
    uint64_t slow_ns = 500 * kNsPerMs;
    double read_error_chance = 0, write_error_chance = 0, sync_error_chance = 0;  ///< -EIO, nothing done
    double short_chance = 0;        ///< fewer bytes than asked, a multiple of logical_block
    double bit_rot_chance = 0;      ///< per write: a bit of what was written flips, silently
    double misdirect_chance = 0;    ///< per write: it lands at another aligned place, silently
    double lost_write_chance = 0;   ///< per write: acknowledged, never done
};

struct SimNodeOptions {
    std::string name;
    std::vector<std::string> addresses;  ///< empty: 10.0.x.y by number. Textual, each owned by one node
    int32_t drift_ppm = 0;               ///< how much faster its clock runs than the world's
    uint64_t clock_offset_ns = 0;        ///< added to its clock
};

class SimWorld {
public:
    explicit SimWorld(uint64_t seed, const SimNetworkOptions& network = {});
    /// All loops must be gone.
    ~SimWorld();
    SimWorld(const SimWorld&) = delete;
    SimWorld& operator=(const SimWorld&) = delete;

    // ---- running
    /// Runs the next event. False: there is none, the world stands still.
    bool step();
    /// Runs the next event if it is due by limit_ns; otherwise moves the clock to limit_ns and returns false.
    bool step_until(uint64_t limit_ns);
    /// Virtual nanoseconds of the world (no drift). Starts at one second.
    uint64_t now_ns() const;
    /// When step() would happen; kNever: no event.
    uint64_t next_event_ns() const;
    uint64_t events() const;
    /// Every event so far folded together, with what was moved.
    uint64_t trace_hash() const;
    /// One line per event, without newline. Null: none. Formatting costs time.
    void set_trace(std::function<void(const std::string& line)> trace);
    /// Folds a remark of the harness into the trace.
    void note(const std::string& text);
    /// For the harness: draws from a stream of its own.
    uint64_t random_u64();

    // ---- nodes
    NodeId add_node(const SimNodeOptions& options = {});
    /// A loop of a running node. The world outlives it.
    std::unique_ptr<Loop> make_loop(NodeId node);
    /// The process dies: its loops fall silent (no completion, timer or notification runs any more; calls on them do nothing) and
    /// the owner destroys them. power_loss false: the kernel lives, peers see the connections end, writes in flight still land and
    /// the files stay locked until then. power_loss true: peers see nothing, and each sector not made durable on the disks that
    /// its loops have open is kept, lost, torn or left at an older version, as the seed says.
    void crash(NodeId node, bool power_loss);
    /// The host is there again; make_loop() works. Peers of connections from before a power loss are reset when they spoke since.
    void restart(NodeId node);
    bool running(NodeId node) const;
    /// wall_us() of this node jumps by so much (its monotonic clock does not).
    void jump_wall_clock(NodeId node, int64_t delta_us);
    uint64_t node_now_ns(NodeId node) const;

    // ---- network
    void set_network(const SimNetworkOptions& options);
    const SimNetworkOptions& network() const;
    /// Nothing gets from `from` to `to` until heal(): bytes are kept and arrive afterwards, connects stay unanswered.
    void partition_one_way(NodeId from, NodeId to);
    void partition(NodeId a, NodeId b);
    void heal(NodeId a, NodeId b);
    void heal_one_way(NodeId from, NodeId to);
    void heal_all();
    /// All connections between the two are reset now; what was in flight is lost.
    void kill_connections(NodeId a, NodeId b);
    /// Those that were to die at some byte (kill_chance) live on.
    void spare_connections();
    /// New connections to this node are refused.
    void refuse_connections(NodeId node, bool refuse);
    uint64_t open_connections() const;

    // ---- disks: files that open_file() of any node finds by this path
    void add_disk(const std::string& path, const SimDiskOptions& options);
    /// Nothing may be in flight on it.
    void remove_disk(const std::string& path);
    void set_disk(const std::string& path, const SimDiskOptions& options);  ///< size_bytes may only grow
    SimDiskOptions disk(const std::string& path) const;
    /// Operations begun on it so far.
    uint64_t disk_operations(const std::string& path) const;
    /// The operation with this number (from 1, as disk_operations() counts) ends with `error` (negative errno) and does nothing.
    void fail_operation(const std::string& path, uint64_t number, int error);
    /// What a read would see, without event or fault.
    std::vector<uint8_t> peek(const std::string& path, uint64_t offset, uint64_t length) const;
    /// Changes the medium, durably, behind everyone's back: damage, or preparation.
    void poke(const std::string& path, uint64_t offset, const std::vector<uint8_t>& bytes);
    void flip_bit(const std::string& path, uint64_t bit);
    /// Sectors with content that a power loss may take.
    uint64_t unflushed_sectors(const std::string& path) const;

    struct State;  ///< private to runtime/sim

private:
    std::unique_ptr<State> state_;
};

}  // namespace vitastor::runtime

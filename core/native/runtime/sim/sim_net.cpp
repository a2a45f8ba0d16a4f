// SPDX-License-Identifier: GPL-2.0-or-later
// The simulated network: streams of bytes in order, that end, break, stall and are cut as TCP's do.
#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

#include "base/crc32c.hpp"
#include "runtime/os_file.hpp"
#include "runtime/sim/sim_loop.hpp"
#include "runtime/sim/sim_state.hpp"

namespace vitastor::runtime {

namespace {

constexpr size_t kBacklog = 128;
constexpr uint64_t kSynRetryNs = kNsPerSecond;
constexpr uint64_t kRetransmitNs = 200 * kNsPerMs;
constexpr uint64_t kSystemCallNs = 300;
constexpr uint64_t kLateSentRoundTrips = 3;

}  // namespace

SimEndpoint* SimWorld::State::endpoint(uint64_t id) {
    auto found = endpoints.find(id);
    return found == endpoints.end() ? nullptr : &found->second;
}

SimEndpoint& SimWorld::State::new_endpoint(NodeId node_id, uint64_t loop) {
    uint64_t id = next_id++;
    SimEndpoint& end = endpoints[id];
    end.id = id;
    end.node = node_id;
    end.loop = loop;
    return end;
}

uint64_t SimWorld::State::flight_ns(uint64_t bytes) {
    uint64_t transfer = network.bytes_per_us ? bytes * 1000 / network.bytes_per_us : 0;
    return network.latency_ns + net_random.below(network.jitter_ns + 1) + transfer;
}

int SimWorld::State::find_host(const std::string& host, NodeId* out) const {
    uint8_t raw[16];
    if (inet_pton(AF_INET, host.c_str(), raw) != 1 && inet_pton(AF_INET6, host.c_str(), raw) != 1) return -EINVAL;
    for (const auto& [id, n] : nodes) {
        if (std::find(n.addresses.begin(), n.addresses.end(), host) != n.addresses.end()) {
            *out = id;
            return 0;
        }
    }
    return -EHOSTUNREACH;
}

// ---- connections begin

Result<uint64_t> SimWorld::State::listen(NodeId node_id, uint64_t loop, const Address& address, uint16_t* port) {
    SimNode& n = node(node_id);
    std::string name = address.host + " port " + std::to_string(address.port);
    std::vector<std::string> hosts{address.host};
    if (address.host == "0.0.0.0" || address.host == "::") hosts = n.addresses;
    for (std::string& host : hosts) {
        if (host == "127.0.0.1" || host == "::1") host = n.addresses[0];
        NodeId owner = 0;
        int error = find_host(host, &owner);
        if (error == -EINVAL) {
            return Status(-EINVAL, "cannot listen on " + name + ": not an IPv4 or IPv6 address");
        }
        if (error != 0 || owner != node_id) {
            return Status(-EADDRNOTAVAIL, "cannot listen on " + name + ": not an address of this machine");
        }
    }
    uint16_t chosen = address.port;
    auto taken = [&](uint16_t p) {
        return std::any_of(hosts.begin(), hosts.end(), [&](const std::string& h) { return listeners.count({h, p}); });
    };
    if (chosen == 0) {
        do {
            chosen = n.next_port++;
        } while (taken(chosen));
    } else if (taken(chosen)) {
        return Status(-EADDRINUSE, "cannot listen on " + name + ": the port is in use");
    }
    SimEndpoint& end = new_endpoint(node_id, loop);
    end.listening = true;
    end.local = {hosts[0], chosen};
    for (const std::string& host : hosts) listeners[{host, chosen}] = end.id;
    if (port != nullptr) *port = chosen;
    return end.id;
}

void SimWorld::State::connect(uint64_t op_id, NodeId node_id, const Address& address) {
    NodeId target = 0;
    Address where = address;
    if (where.host == "127.0.0.1" || where.host == "::1") where.host = node(node_id).addresses[0];
    int error = find_host(where.host, &target);
    if (error == -EINVAL) return finish_op_at(op_id, now, "connect", error);
    SimOp& op = *find_op(op_id);
    SimEndpoint& end = new_endpoint(node_id, op.loop);
    end.peer_node = target;
    end.local = {node(node_id).addresses[0], node(node_id).next_port++};
    end.remote = where;
    op.endpoint = end.id;
    if (error != 0) return refuse_later(op_id, error);
    op.timeout = schedule(now + network.connect_timeout_ns, "connect timeout", op.loop, op_id, [this, op_id] {
        SimOp* late = find_op(op_id);
        late->timeout = kNoEvent;
        uint64_t end_id = std::exchange(late->endpoint, 0);
        if (late->timed()) unschedule(late->event);
        close_endpoint(end_id);
        finish_op(op_id, -ETIMEDOUT);
    });
    schedule(now + flight_ns(0), "syn", 0, op_id, [this, op_id, where] { arrive_syn(op_id, where); });
}

void SimWorld::State::refuse_later(uint64_t op_id, int error) {
    schedule(now + flight_ns(0), "refused", 0, op_id, [this, op_id, error] {
        SimOp* op = find_op(op_id);
        if (op == nullptr || op->endpoint == 0) return;
        uint64_t end_id = std::exchange(op->endpoint, 0);
        close_endpoint(end_id);
        finish_op_at(op_id, now, "connect", error);
    });
}

void SimWorld::State::arrive_syn(uint64_t op_id, Address address) {
    SimOp* op = find_op(op_id);
    if (op == nullptr || op->endpoint == 0) return;  // cancelled, or died
    SimEndpoint& client = *endpoint(op->endpoint);
    SimNode& target = node(client.peer_node);
    if (target.state == NodeState::off || blocked(client.node, client.peer_node)) {
        schedule(now + kSynRetryNs, "syn", 0, op_id, [this, op_id, address] { arrive_syn(op_id, address); });
        return;
    }
    auto listener = listeners.find({address.host, address.port});
    if (listener == listeners.end() || target.refusing) return refuse_later(op_id, -ECONNREFUSED);
    SimEndpoint& door = *endpoint(listener->second);
    if (door.backlog.size() >= kBacklog) return refuse_later(op_id, -ECONNREFUSED);
    uint64_t client_id = client.id, door_id = door.id;
    SimEndpoint& server = new_endpoint(door.node, door.loop);
    server.peer = client_id;
    server.peer_node = client.node;
    server.local = address;
    server.remote = client.local;
    server.established = true;
    client.peer = server.id;
    if (fault_random.chance(network.kill_chance)) {
        SimEndpoint& victim = fault_random.below(2) ? server : client;
        victim.kill_after = fault_random.below(network.kill_after_max_bytes + 1);
    }
    endpoint(door_id)->backlog.push_back(server.id);
    kick_accept(*endpoint(door_id));
    schedule(now + flight_ns(0), "syn ack", 0, op_id, [this, op_id] { arrive_syn_ack(op_id); });
}

void SimWorld::State::arrive_syn_ack(uint64_t op_id) {
    SimOp* op = find_op(op_id);
    if (op == nullptr || op->endpoint == 0) return;
    SimEndpoint& client = *endpoint(op->endpoint);
    if (blocked(client.peer_node, client.node)) {
        schedule(now + kSynRetryNs, "syn ack", 0, op_id, [this, op_id] { arrive_syn_ack(op_id); });
        return;
    }
    client.established = true;
    uint64_t end_id = client.id;
    op->event = schedule(now + kSystemCallNs, "connect", op->loop, op_id, [this, op_id, end_id] {
        SimEndpoint* end = endpoint(end_id);
        end->handle = loops.at(end->loop)->add_socket(end_id);
        finish_op(op_id, end->handle);
    });
}

void SimWorld::State::kick_accept(SimEndpoint& end) {
    if (end.accept_op == 0 || end.backlog.empty()) return;
    SimOp* op = find_op(end.accept_op);
    if (op->timed()) return;
    uint64_t id = end.id;
    op->event = schedule(now + kSystemCallNs, "accept", op->loop, end.accept_op, [this, id] { do_accept(id); });
}

void SimWorld::State::do_accept(uint64_t id) {
    SimEndpoint& door = *endpoint(id);
    uint64_t op_id = std::exchange(door.accept_op, 0);
    uint64_t server_id = door.backlog.front();
    door.backlog.pop_front();
    SimEndpoint& server = *endpoint(server_id);
    server.handle = loops.at(server.loop)->add_socket(server_id);
    finish_op(op_id, server.handle);
}

// ---- bytes

void SimWorld::State::push_segment(SimEndpoint& to, SimEndpoint::Segment segment) {
    uint64_t size = segment.bytes.size();
    to.arriving_bytes += size;
    to.arriving.push_back(std::move(segment));
    to.last_arrival_ns = std::max(to.last_arrival_ns + 1, now + flight_ns(size));
    if (to.stalled) return;  // heal() lets them go
    uint64_t id = to.id;
    schedule(to.last_arrival_ns, "arrive", 0, id, [this, id] { arrive(id); });
}

void SimWorld::State::arrive(uint64_t id) {
    SimEndpoint* end = endpoint(id);
    if (end == nullptr || end->stalled || end->arriving.empty()) return;
    if (blocked(end->peer_node, end->node)) {
        end->stalled = true;
        return;
    }
    SimEndpoint::Segment segment = std::move(end->arriving.front());
    end->arriving.pop_front();
    end->arriving_bytes -= segment.bytes.size();
    fold(crc32c(segment.bytes.data(), segment.bytes.size()));
    using Kind = SimEndpoint::Segment::Kind;
    if (segment.kind == Kind::reset) {
        reset(*end, false);
        return drop_if_dead(id);
    }
    if (end->vanished) {
        if (node(end->node).state == NodeState::running) {
            reset_peer_of(*end);
        } else {
            end->spoken_to = true;
        }
        return drop_if_dead(id);
    }
    if (end->loop == 0) {  // closed here: data makes the peer's side break, its end is the end of all
        if (segment.kind == Kind::data) reset_peer_of(*end);
        end->end_received = end->end_received || segment.kind == Kind::end;
        return drop_if_dead(id);
    }
    if (end->error != 0) return;
    if (segment.kind == Kind::end) {
        end->end_received = true;
        return kick_receive(*end);
    }
    if (segment.bytes.size() >= end->kill_after) {
        VITASTOR_PROBE("simulated connection cut in the middle of a message");
        segment.bytes.resize(end->kill_after);
        end->received.append(std::move(segment.bytes));
        reset_peer_of(*end);
        return reset(*end, true);
    }
    if (end->kill_after != UINT64_MAX) end->kill_after -= segment.bytes.size();
    end->received.append(std::move(segment.bytes));
    kick_receive(*end);
}

void SimWorld::State::reset(SimEndpoint& end, bool keep_received) {
    end.error = -ECONNRESET;
    end.arriving.clear();
    end.arriving_bytes = 0;
    if (!keep_received) end.received.clear();
    if (end.loop == 0) return;
    kick_receive(end);
    kick_send(end);
}

void SimWorld::State::reset_peer_of(SimEndpoint& end) {
    SimEndpoint* peer = endpoint(end.peer);
    if (peer == nullptr || peer->error != 0) return;
    push_segment(*peer, {SimEndpoint::Segment::Kind::reset, {}});
}

void SimWorld::State::kick_receive(SimEndpoint& end) {
    if (end.receive_op == 0) return;
    if (end.received.empty() && !end.end_received && end.error == 0) return;
    SimOp* op = find_op(end.receive_op);
    if (op->timed()) return;
    uint64_t id = end.id;
    op->event = schedule(now + kSystemCallNs, "receive", op->loop, end.receive_op, [this, id] { do_receive(id); });
}

void SimWorld::State::do_receive(uint64_t id) {
    SimEndpoint& end = *endpoint(id);
    uint64_t op_id = std::exchange(end.receive_op, 0);
    SimOp& op = *find_op(op_id);
    if (end.received.empty()) return finish_op(op_id, end.error);  // 0: the end of the stream
    uint64_t room = iov_bytes(op.iov.data(), static_cast<int>(op.iov.size()));
    uint64_t count = std::min<uint64_t>(room, end.received.size());
    if (count > 1 && fault_random.chance(network.short_chance)) count = 1 + fault_random.below(count - 1);
    uint64_t left = count;
    const uint8_t* from = end.received.data();
    for (const iovec& piece : op.iov) {
        uint64_t part = std::min<uint64_t>(left, piece.iov_len);
        if (part > 0) memcpy(piece.iov_base, from, part);
        from += part;
        left -= part;
    }
    end.received.drop(count);
    if (SimEndpoint* peer = endpoint(end.peer)) kick_send(*peer);
    finish_op(op_id, static_cast<int64_t>(count));
}

/// True: a send would end now, with *room bytes (0: with an error).
bool SimWorld::State::can_send(const SimEndpoint& end, uint64_t* room) {
    *room = 0;
    if (end.error != 0) return true;
    SimEndpoint* peer = endpoint(end.peer);
    uint64_t used = peer == nullptr ? 0 : peer->arriving_bytes + peer->received.size();
    if (used >= network.buffer_bytes) return false;
    *room = network.buffer_bytes - used;
    return true;
}

void SimWorld::State::kick_send(SimEndpoint& end) {
    uint64_t room = 0;
    if (end.send_op == 0 || !can_send(end, &room)) return;
    SimOp* op = find_op(end.send_op);
    if (op->timed()) return;
    uint64_t id = end.id;
    op->event = schedule(now + kSystemCallNs, "send", op->loop, end.send_op, [this, id] { do_send(id); });
}

void SimWorld::State::do_send(uint64_t id) {
    SimEndpoint& end = *endpoint(id);
    SimOp& op = *find_op(end.send_op);
    op.event = kNoEvent;
    uint64_t room = 0;
    if (!can_send(end, &room)) return;  // taken meanwhile; kicked again when there is room
    uint64_t op_id = std::exchange(end.send_op, 0);
    if (room == 0) return finish_op(op_id, -EPIPE);
    uint64_t count = std::min(room, iov_bytes(op.iov.data(), static_cast<int>(op.iov.size())));
    if (count > 1 && fault_random.chance(network.short_chance)) count = 1 + fault_random.below(count - 1);
    SimEndpoint::Segment segment;
    segment.bytes.reserve(count);
    for (const iovec& piece : op.iov) {
        auto* base = static_cast<const uint8_t*>(piece.iov_base);
        uint64_t part = std::min<uint64_t>(count - segment.bytes.size(), piece.iov_len);
        segment.bytes.insert(segment.bytes.end(), base, base + part);
    }
    if (SimEndpoint* peer = endpoint(end.peer)) {
        push_segment(*peer, std::move(segment));
    } else {
        // Nobody there any more: the answer is a reset.
        push_segment(end, {SimEndpoint::Segment::Kind::reset, {}});
    }
    if (fault_random.chance(network.late_sent_chance)) {
        const uint64_t late = fault_random.below(kLateSentRoundTrips * 2 * (network.latency_ns + network.jitter_ns) + 1);
        return finish_op_at(op_id, now + late, "sent", static_cast<int64_t>(count));
    }
    finish_op(op_id, static_cast<int64_t>(count));
}

// ---- connections end

void SimWorld::State::close_endpoint(uint64_t id) {
    SimEndpoint* found = endpoint(id);
    if (found == nullptr) return;
    SimEndpoint& end = *found;
    for (uint64_t* op : {&end.receive_op, &end.send_op, &end.accept_op}) {
        if (*op != 0) finish_op_at(std::exchange(*op, 0), now, "cancelled", -ECANCELED);
    }
    end.loop = 0;
    end.handle = -1;
    if (end.listening) {
        std::erase_if(listeners, [id](const auto& item) { return item.second == id; });
        auto backlog = std::move(end.backlog);
        endpoints.erase(id);
        for (uint64_t waiting : backlog) close_endpoint(waiting);
        return;
    }
    SimEndpoint* peer = endpoint(end.peer);
    if (peer != nullptr && end.error == 0) {
        bool unread = !end.received.empty();
        push_segment(*peer, {unread ? SimEndpoint::Segment::Kind::reset : SimEndpoint::Segment::Kind::end, {}});
    }
    end.received.clear();
    drop_if_dead(id);
}

void SimWorld::State::drop_if_dead(uint64_t id) {
    SimEndpoint* end = endpoint(id);
    if (end == nullptr || end->loop != 0) return;
    SimEndpoint* peer = endpoint(end->peer);
    // A peer that closed, or whose machine forgot it, asks nothing more of this end.
    bool needed = peer != nullptr && (peer->loop != 0 || !peer->arriving.empty());
    if (needed) return;
    uint64_t peer_id = end->peer;
    endpoints.erase(id);
    if (peer_id != 0 && endpoint(peer_id) != nullptr) drop_if_dead(peer_id);
}

void SimWorld::State::heal(NodeId from, NodeId to) {
    if (partitions.erase({from, to}) == 0) return;
    for (auto& [id, end] : endpoints) {
        if (!end.stalled || end.node != to || end.peer_node != from) continue;
        end.stalled = false;
        uint64_t at = now + flight_ns(0) + net_random.below(kRetransmitNs);
        end.last_arrival_ns = std::max(end.last_arrival_ns, at);
        for (size_t i = 0; i < end.arriving.size(); i++) {
            uint64_t end_id = id;
            schedule(end.last_arrival_ns++, "arrive", 0, end_id, [this, end_id] { arrive(end_id); });
        }
    }
}

}  // namespace vitastor::runtime

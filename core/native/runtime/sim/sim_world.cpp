// SPDX-License-Identifier: GPL-2.0-or-later
// Events, nodes and operations of the simulated world.
#include "runtime/sim_world.hpp"

#include <bit>
#include <cstdio>

#include "runtime/sim/sim_loop.hpp"
#include "runtime/sim/sim_state.hpp"

namespace vitastor::runtime {

namespace {

uint64_t text_hash(const char* text) {
    uint64_t hash = 0xcbf29ce484222325ull;
    for (; *text; text++) hash = (hash ^ static_cast<uint8_t>(*text)) * 0x100000001b3ull;
    return hash;
}

}  // namespace

SimRandom::SimRandom(uint64_t seed) {
    for (uint64_t& word : s_) {
        seed += 0x9e3779b97f4a7c15ull;
        word = SimWorld::State::mix(seed);
    }
}

uint64_t SimRandom::next() {
    uint64_t result = std::rotl(s_[1] * 5, 7) * 9;
    uint64_t t = s_[1] << 17;
    s_[2] ^= s_[0];
    s_[3] ^= s_[1];
    s_[1] ^= s_[2];
    s_[0] ^= s_[3];
    s_[2] ^= t;
    s_[3] = std::rotl(s_[3], 45);
    return result;
}

uint64_t SimWorld::State::mix(uint64_t x) {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

SimWorld::State::State(uint64_t seed, const SimNetworkOptions& net)
    : net_random(mix(seed ^ 1)), disk_random(mix(seed ^ 2)), fault_random(mix(seed ^ 3)),
      harness_random(mix(seed ^ 4)), network(net), hash(mix(seed ^ 5)) {}

// ---- events

EventKey SimWorld::State::schedule(uint64_t at_ns, const char* what, uint64_t loop, uint64_t detail,
                                   std::function<void()> run) {
    EventKey key{std::max(at_ns, now), sequence++};
    events.emplace(key, SimEvent{what, loop, detail, std::move(run)});
    return key;
}

bool SimWorld::State::step() {
    VITASTOR_ASSERT(!stepping);
    if (events.empty()) return false;
    auto first = events.begin();
    EventKey key = first->first;
    SimEvent event = std::move(first->second);
    events.erase(first);
    VITASTOR_ASSERT(key.first >= now);
    now = key.first;
    event_count++;
    fold(now);
    fold(text_hash(event.what));
    fold(event.loop);
    fold(event.detail);
    if (trace) {
        char line[160];
        snprintf(line, sizeof(line), "%llu.%09llu %s loop %llu #%llu", static_cast<unsigned long long>(now / kNsPerSecond),
                 static_cast<unsigned long long>(now % kNsPerSecond), event.what,
                 static_cast<unsigned long long>(event.loop), static_cast<unsigned long long>(event.detail));
        trace(line);
    }
    stepping = true;
    event.run();
    stepping = false;
    return true;
}

void SimWorld::State::drop_events_of(uint64_t loop) {
    std::erase_if(events, [loop](const auto& item) { return item.second.loop == loop; });
}

// ---- operations

uint64_t SimWorld::State::start_op(SimOp::Kind kind, uint64_t loop, Completion& completion) {
    uint64_t id = next_id++;
    completion.loop_data[0] = id;
    SimOp& op = ops[id];
    op.kind = kind;
    op.loop = loop;
    op.completion = &completion;
    return id;
}

SimOp* SimWorld::State::find_op(uint64_t id) {
    auto found = ops.find(id);
    return found == ops.end() ? nullptr : &found->second;
}

void SimWorld::State::finish_op(uint64_t id, int64_t result) {
    auto found = ops.find(id);
    VITASTOR_ASSERT(found != ops.end());
    SimOp op = std::move(found->second);
    ops.erase(found);
    if (op.timeout != kNoEvent) unschedule(op.timeout);
    fold(static_cast<uint64_t>(result));
    loops.at(op.loop)->count_completion();
    op.completion->loop_data[0] = 0;
    op.completion->on_done(op.completion, result);
}

void SimWorld::State::finish_op_at(uint64_t id, uint64_t at_ns, const char* what, int64_t result) {
    SimOp* op = find_op(id);
    VITASTOR_ASSERT(op != nullptr);
    if (op->timed()) unschedule(op->event);
    op->event = schedule(at_ns, what, op->loop, id, [this, id, result] { finish_op(id, result); });
}

void SimWorld::State::cancel_op(uint64_t id) {
    SimOp* op = find_op(id);
    if (op == nullptr) return;
    if (op->kind == SimOp::Kind::file) {
        // Mostly the request has already begun.
        if (!fault_random.chance(0.25)) return;
        op->disk->writes.erase(op->number);
        return finish_op_at(id, now, "cancelled", -ECANCELED);
    }
    if (SimEndpoint* end = endpoint(op->endpoint)) {
        if (op->kind == SimOp::Kind::receive) end->receive_op = 0;
        if (op->kind == SimOp::Kind::send) end->send_op = 0;
        if (op->kind == SimOp::Kind::accept) end->accept_op = 0;
        if (op->kind == SimOp::Kind::connect) {
            op->endpoint = 0;
            close_endpoint(end->id);
        }
    }
    finish_op_at(id, now, "cancelled", -ECANCELED);
}

// ---- nodes

SimNode& SimWorld::State::node(NodeId id) {
    auto found = nodes.find(id);
    VITASTOR_ASSERT(found != nodes.end());
    return found->second;
}

uint64_t SimWorld::State::node_time(NodeId id, uint64_t world_ns) {
    const SimNode& n = node(id);
    auto drift = static_cast<__int128>(world_ns) * n.drift_ppm / 1'000'000;
    return static_cast<uint64_t>(static_cast<__int128>(world_ns) + drift) + n.offset_ns;
}

uint64_t SimWorld::State::world_time(NodeId id, uint64_t node_ns) {
    const SimNode& n = node(id);
    if (node_ns <= n.offset_ns) return 0;
    uint64_t local = node_ns - n.offset_ns;
    auto guess = static_cast<uint64_t>(static_cast<__int128>(local) * 1'000'000 / (1'000'000 + n.drift_ppm));
    while (guess > 0 && node_time(id, guess - 1) >= node_ns) guess--;
    while (node_time(id, guess) < node_ns) guess++;
    return guess;
}

void SimWorld::State::retire_loop(uint64_t serial, NodeId id, const std::vector<std::string>& paths, bool power_loss) {
    std::erase_if(ops, [&](auto& item) {
        if (item.second.loop != serial) return false;
        item.second.completion->loop_data[0] = 0;
        if (item.second.timeout != kNoEvent) unschedule(item.second.timeout);
        return true;
    });
    drop_events_of(serial);
    std::vector<uint64_t> ends;
    for (const auto& [end_id, end] : endpoints) {
        if (end.loop == serial) ends.push_back(end_id);
    }
    for (uint64_t end_id : ends) {
        SimEndpoint* end = endpoint(end_id);
        if (end == nullptr) continue;
        end->receive_op = end->send_op = end->accept_op = 0;
        if (power_loss && !end->listening) {
            end->vanished = true;
            end->loop = 0;
            end->received.clear();
            drop_if_dead(end_id);
        } else {
            close_endpoint(end_id);
        }
    }
    std::set<std::string> touched(paths.begin(), paths.end());
    for (const auto& [path, d] : disks) {
        for (const auto& [number, write] : d.writes) {
            if (write.loop == serial) touched.insert(path);  // closed with writes in flight
        }
    }
    for (const std::string& path : touched) abandon_writes(path, serial, power_loss);
    loops.erase(serial);
    node(id).loops.erase(serial);
}

void SimWorld::State::crash(NodeId id, bool power_loss) {
    SimNode& n = node(id);
    VITASTOR_ASSERT(!stepping);
    fold(text_hash(power_loss ? "power loss" : "crash"));
    fold(id);
    if (trace) trace((power_loss ? "power loss of node " : "crash of node ") + std::to_string(id));
    std::vector<uint64_t> serials(n.loops.begin(), n.loops.end());
    for (uint64_t serial : serials) loops.at(serial)->die(power_loss);
    n.state = power_loss ? NodeState::off : NodeState::crashed;
}

void SimWorld::State::restart(NodeId id) {
    SimNode& n = node(id);
    n.state = NodeState::running;
    std::vector<uint64_t> ends;
    for (const auto& [end_id, end] : endpoints) {
        if (end.node == id && end.vanished && end.spoken_to) ends.push_back(end_id);
    }
    for (uint64_t end_id : ends) {
        SimEndpoint* end = endpoint(end_id);
        reset_peer_of(*end);
        drop_if_dead(end_id);
    }
}

// ---- the public face

SimWorld::SimWorld(uint64_t seed, const SimNetworkOptions& network) : state_(std::make_unique<State>(seed, network)) {}

SimWorld::~SimWorld() { VITASTOR_ASSERT(state_->loops.empty()); }

bool SimWorld::step() { return state_->step(); }

bool SimWorld::step_until(uint64_t limit_ns) {
    if (next_event_ns() <= limit_ns) return state_->step();
    if (limit_ns > state_->now && limit_ns != kNever) state_->now = limit_ns;
    return false;
}

uint64_t SimWorld::now_ns() const { return state_->now; }
uint64_t SimWorld::next_event_ns() const {
    return state_->events.empty() ? kNever : state_->events.begin()->first.first;
}
uint64_t SimWorld::events() const { return state_->event_count; }
uint64_t SimWorld::trace_hash() const { return state_->hash; }
void SimWorld::set_trace(std::function<void(const std::string&)> trace) { state_->trace = std::move(trace); }

void SimWorld::note(const std::string& text) {
    state_->fold(text_hash(text.c_str()));
    if (state_->trace) state_->trace(text);
}

uint64_t SimWorld::random_u64() { return state_->harness_random.next(); }

NodeId SimWorld::add_node(const SimNodeOptions& options) {
    auto id = static_cast<NodeId>(state_->nodes.size() + 1);
    SimNode& n = state_->nodes[id];
    n.name = options.name.empty() ? "node" + std::to_string(id) : options.name;
    n.addresses = options.addresses;
    if (n.addresses.empty()) n.addresses = {"10.0." + std::to_string(id / 250) + "." + std::to_string(id % 250 + 1)};
    n.drift_ppm = options.drift_ppm;
    n.offset_ns = options.clock_offset_ns;
    n.random = SimRandom(State::mix(state_->hash ^ id));
    return id;
}

std::unique_ptr<Loop> SimWorld::make_loop(NodeId node) {
    VITASTOR_ASSERT(running(node));
    return std::make_unique<SimLoop>(*state_, node);
}

void SimWorld::crash(NodeId node, bool power_loss) { state_->crash(node, power_loss); }
void SimWorld::restart(NodeId node) { state_->restart(node); }
bool SimWorld::running(NodeId node) const { return state_->node(node).state == NodeState::running; }
void SimWorld::jump_wall_clock(NodeId node, int64_t delta_us) { state_->node(node).wall_jump_us += delta_us; }
uint64_t SimWorld::node_now_ns(NodeId node) const { return state_->node_time(node, state_->now); }

void SimWorld::set_network(const SimNetworkOptions& options) { state_->network = options; }
const SimNetworkOptions& SimWorld::network() const { return state_->network; }

void SimWorld::partition_one_way(NodeId from, NodeId to) { state_->partitions.insert({from, to}); }

void SimWorld::partition(NodeId a, NodeId b) {
    partition_one_way(a, b);
    partition_one_way(b, a);
}

void SimWorld::heal(NodeId a, NodeId b) {
    state_->heal(a, b);
    state_->heal(b, a);
}

void SimWorld::heal_one_way(NodeId from, NodeId to) { state_->heal(from, to); }

void SimWorld::heal_all() {
    auto pairs = state_->partitions;
    for (const auto& [from, to] : pairs) state_->heal(from, to);
}

void SimWorld::kill_connections(NodeId a, NodeId b) {
    std::vector<uint64_t> ends;
    for (const auto& [id, end] : state_->endpoints) {
        bool between = (end.node == a && end.peer_node == b) || (end.node == b && end.peer_node == a);
        if (between && end.established) ends.push_back(id);
    }
    for (uint64_t id : ends) {
        if (SimEndpoint* end = state_->endpoint(id)) state_->reset(*end, false);
    }
}

void SimWorld::spare_connections() {
    for (auto& [id, end] : state_->endpoints) end.kill_after = UINT64_MAX;
}

void SimWorld::refuse_connections(NodeId node, bool refuse) { state_->node(node).refusing = refuse; }

uint64_t SimWorld::open_connections() const {
    uint64_t count = 0;
    for (const auto& [id, end] : state_->endpoints) count += end.established && end.loop != 0;
    return count;
}

}  // namespace vitastor::runtime

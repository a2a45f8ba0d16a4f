// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness.hpp"

#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace vitastor::test {

using runtime::kNsPerSecond;
using wire::Opcode;

void TestLogger::write(LogLevel level, const std::string& text) {
    if (getenv("VITASTOR_TEST_LOG")) fprintf(stderr, "[%d] %s\n", static_cast<int>(level), text.c_str());
}

// ------------------------------------------------------------------ node

Node::Node(Cluster& cluster, OsdNum osd) : cluster(cluster), osd(osd) {
    engine::StoreFactory factory = [](void* arg, runtime::Loop& loop, const store::StoreOptions& options,
                                      Logger&) -> std::unique_ptr<store::Store> {
        return std::make_unique<MemoryStore>(loop, options, *static_cast<MemoryDisk*>(arg));
    };
    if (cluster.world) {
        if (!cluster.sim_nodes.contains(osd)) {
            runtime::SimNodeOptions options;
            options.addresses = {cluster.address(osd)};
            cluster.sim_nodes[osd] = cluster.world->add_node(options);
        }
        own_loop = cluster.world->make_loop(cluster.sim_nodes[osd]);
    }
    engine = engine::create_engine(own_loop ? *own_loop : *cluster.loop, *this, factory, &cluster.disks[osd]);
}

Node::~Node() = default;

void Node::on_event(engine::Event event) {
    if (auto* what = std::get_if<engine::Ready>(&event)) {
        ready = true;
        port = what->port;
    } else if (auto* state = std::get_if<engine::PgStateChanged>(&event)) {
        states[state->pg.pg] = *state;
    } else if (auto* history = std::get_if<engine::HistoryWanted>(&event)) {
        wanted.push_back(*history);
        cluster.epoch = std::max(cluster.epoch, history->epoch);
        if (history->add_current_set) cluster.history_sets.push_back(history->current_set);
        for (auto& set : history->more_sets) cluster.history_sets.push_back(set);
        if (cluster.confirm_histories) post(engine::ConfirmHistory{history->pg, history->interval, history->epoch});
    } else if (std::holds_alternative<engine::PgScrubbed>(event)) {
        scrubbed++;
    } else if (auto* stats = std::get_if<engine::Statistics>(&event)) {
        statistics = std::move(*stats);
    } else if (auto* failure = std::get_if<engine::Fatal>(&event)) {
        fatal = failure->name + ": " + failure->text;
    } else if (std::holds_alternative<engine::LeaseExpired>(event)) {
        lease_expired = true;
    } else if (std::holds_alternative<engine::Stopped>(event)) {
        stopped = true;
    } else if (auto* line = std::get_if<engine::LogLine>(&event)) {
        cluster.logger.write(line->level, "osd " + std::to_string(osd) + ": " + line->text);
    }
}

// ------------------------------------------------------------------ cluster

namespace {
/// What a killed process leaves is never destroyed: it could not end in order.
struct Grave {
    std::unique_ptr<Node> node;
    std::unique_ptr<runtime::SimWorld> world;
    std::unique_ptr<runtime::Loop> loop;
};
std::vector<Grave>& graves() {
    static auto* all = new std::vector<Grave>;
    return *all;
}
}  // namespace

Cluster::Cluster(const ClusterOptions& options) : options(options) {
    if (options.simulated) {
        runtime::SimNetworkOptions network;
        network.latency_ns = options.latency_ns;
        network.jitter_ns = 0;
        network.bytes_per_us = 1'000'000;
        network.buffer_bytes = 4 << 20;
        world = std::make_unique<runtime::SimWorld>(1, network);
        runtime::SimNodeOptions node;
        node.addresses = {address(0)};
        loop = world->make_loop(world->add_node(node));
    } else {
        runtime::LoopOptions loop_options;
        loop_options.kind = options.loop;
        auto made = runtime::create_loop(loop_options, logger);
        REQUIRE(made.ok());
        loop = std::move(made.value());
    }
    for (OsdNum osd = 1; osd <= options.osds; osd++) start(osd);
    publish();
}

Cluster::~Cluster() {
    for (auto& [osd, node] : nodes) {
        disks[osd].hold = false;
        node->post(engine::Stop{});
    }
    until("all engines stop", [&] {
        for (auto& [osd, node] : nodes) {
            if (!node->engine->finished()) return false;
        }
        return true;
    });
    turns(3);
    nodes.clear();
    if (any_killed) {  // loops of the dead refer to it
        graves().back().world = std::move(world);
        graves().back().loop = std::move(loop);
    }
}

void Cluster::kill(OsdNum osd) {
    REQUIRE(world != nullptr);
    any_killed = true;
    world->crash(sim_nodes.at(osd), false);
    graves().push_back({std::move(nodes.at(osd)), nullptr, nullptr});
    nodes.erase(osd);
}

void Cluster::until(const char* what, const std::function<bool()>& condition) {
    uint64_t deadline = loop->now_exact_ns() + (world ? 600 : 30) * kNsPerSecond;
    while (!condition()) {
        if (world) {
            if (!world->step() || world->now_ns() > deadline) FAIL("waited too long: ", std::string(what));
            if (after_step) after_step();
            continue;
        }
        if (loop->now_exact_ns() > deadline) {
            FAIL("waited too long: ", std::string(what));
        }
        loop->run_once(loop->now_exact_ns() + 5'000'000);
    }
}

void Cluster::turns(int count) {
    if (world) {
        const uint64_t end = world->now_ns() + static_cast<uint64_t>(count) * 1'000'000;
        while (world->step_until(end)) {
            if (after_step) after_step();
        }
        return;
    }
    for (int i = 0; i < count; i++) loop->run_once(loop->now_exact_ns() + 1'000'000);
}

void Cluster::start(OsdNum osd) {
    if (world && sim_nodes.contains(osd) && !world->running(sim_nodes.at(osd))) world->restart(sim_nodes.at(osd));
    nodes[osd] = std::make_unique<Node>(*this, osd);
    engine::Configure configure;
    configure.store.osd_num = osd;
    configure.store.immediate_commit = options.mode;
    configure.listen.push_back({address(osd), 0});
    configure.settings = options.settings;
    node(osd).post(configure);
    lease(osd, 3600 * kNsPerSecond);
    until("engine is ready", [&] { return node(osd).ready || !node(osd).fatal.empty(); });
    REQUIRE(node(osd).fatal == "");
}

void Cluster::stop(OsdNum osd) {
    disks[osd].hold = false;
    node(osd).post(engine::Stop{});
    until("engine stops", [&] { return node(osd).engine->finished(); });
    turns(2);
    nodes.erase(osd);
}

engine::PoolConfig Cluster::pool_config() const {
    engine::PoolConfig pool;
    pool.pool = 1;
    pool.scheme = options.scheme;
    pool.pg_size = options.pg_size;
    pool.pg_minsize = options.pg_minsize;
    pool.parity_chunks = options.scheme ? options.parity : 0;
    pool.pg_count = options.pg_count;
    pool.pg_stripe_size = 131072u * data_chunks();
    pool.block_size = 131072;
    pool.bitmap_granularity = 4096;
    pool.immediate_commit = static_cast<uint8_t>(options.mode);
    pool.local_reads = options.local_reads ? 2 : 0;
    return pool;
}

void Cluster::publish() {
    engine::PeerList list;
    for (auto& [osd, node] : nodes) {
        if (!hidden[osd]) list.up.push_back({osd, {address(osd)}, node->port});
    }
    for (auto& [osd, node] : nodes) {
        node->post(engine::Pools{{pool_config()}});
        node->post(list);
    }
}

void Cluster::start_pg(OsdNum primary, std::vector<OsdNum> osd_set) {
    engine::StartPg start;
    start.pg = {1, 1};
    start.osd_set = std::move(osd_set);
    start.all_peers = all_peers;
    start.history_sets = history_sets;
    start.epoch = epoch;
    start.interval = ++interval;
    node(primary).states.clear();
    node(primary).post(start);
}

void Cluster::stop_pg(OsdNum primary) {
    node(primary).post(engine::StopPg{{1, 1}, interval});
    until("PG is offline", [&] { return node(primary).state(1) == wire::pg_state::offline; });
}

void Cluster::lease(OsdNum osd, uint64_t from_now_ns) {
    node(osd).post(engine::LeaseUntil{from_now_ns ? loop->now_exact_ns() + from_now_ns : 0});
}

std::map<OsdNum, Version> Cluster::copies(const ObjectId& object) {
    std::map<OsdNum, Version> result;
    for (auto& [osd, disk] : disks) {
        auto it = disk.objects.find(object);
        if (it != disk.objects.end()) result[osd] = it->second.rbegin()->first;
    }
    return result;
}

// ------------------------------------------------------------------ client

struct Client::Pending : net::Call {
    std::shared_ptr<Reply> reply = std::make_shared<Reply>();
    Opcode opcode{};
    iovec data_iov{};
    std::vector<uint8_t> out;  ///< request payload
    uint8_t bitmap_small[4 * 16] = {};
    Client* greeter = nullptr;  ///< greets and sends it once more
    OsdNum osd = 0;
};

Client::Client(Cluster& cluster, OsdNum own_osd, std::optional<uint64_t> session) : cluster(cluster), greets_(!session) {
    static uint64_t next_session = 1000;
    net::PeerOptions options;
    options.session = session.value_or(next_session++);
    options.own_osd = own_osd;
    options.block_size = 131072;
    options.bitmap_granularity = 4096;
    options.connect_interval_ns = 50'000'000;
    peers_ = std::make_unique<net::Peers>(*cluster.loop, options, *this, logger_);
}

Client::~Client() {
    struct Closed : runtime::Completion {
        bool done = false;
    } closed;
    closed.on_done = [](runtime::Completion* self, int64_t) { static_cast<Closed*>(self)->done = true; };
    peers_->close_all(closed);
    cluster.until("client closes", [&] { return closed.done; });
    cluster.turns(2);
}

net::Connection* Client::connect(OsdNum osd) {
    uint16_t port = known.contains(osd) ? known[osd] : cluster.node(osd).port;
    peers_->set_address(osd, net::PeerAddress{osd, {cluster.address(osd)}, port});
    peers_->want(osd);
    cluster.until("client connects", [&] { return peers_->get(osd) != nullptr; });
    return peers_->get(osd);
}

std::shared_ptr<Reply> Client::send(OsdNum osd, Pending* pending) {
    std::shared_ptr<Reply> reply = pending->reply;
    pending->osd = osd;
    if (greets_ && (pending->opcode == Opcode::write || pending->opcode == Opcode::del)) pending->greeter = this;
    pending->on_reply = [](net::Call* call) {
        Pending* self = static_cast<Pending*>(call);
        if (Client* client = std::exchange(self->greeter, nullptr); client && self->status == 0 && self->retval == -EAGAIN) {
            client->greet(self->osd);
            if (net::Connection* connection = client->peers_->get(self->osd)) return connection->send(*self);
        }
        Reply& reply = *self->reply;
        wire::ConstHeaderBytes header(static_cast<net::Call*>(self)->reply);
        reply.result = self->status ? self->status : self->retval;
        switch (self->opcode) {
            case Opcode::read:
                reply.version = wire::decode<wire::ReadReply>(header).version;
                reply.bitmap.assign(self->bitmap_small, self->bitmap_small + self->bitmap_size);
                break;
            case Opcode::write:
                reply.version = wire::decode<wire::WriteReply>(header).version;
                break;
            case Opcode::sec_write_stable:
                reply.version = wire::decode<wire::SubReply>(header).version;
                break;
            case Opcode::del:
                reply.del = wire::decode<wire::DeleteReply>(header);
                break;
            case Opcode::sec_lock:
                reply.lock = wire::decode<wire::LockReply>(header);
                break;
            case Opcode::sec_list:
                reply.list = wire::decode<wire::ListReply>(header);
                if (self->reply_payload) {
                    reply.triples = wire::decode_triples({self->reply_payload.data(), self->reply_payload.size()}).value();
                }
                break;
            case Opcode::describe:
                if (self->reply_payload) {
                    reply.items = wire::decode_describe_items({self->reply_payload.data(), self->reply_payload.size()}).value();
                }
                break;
            default:
                break;
        }
        reply.done = true;
        delete self;
    };
    if (!pending->out.empty() && pending->payload_count == 0) {
        pending->payload[pending->payload_count++] = {pending->out.data(), pending->out.size()};
    }
    connect(osd)->send(*pending);
    return reply;
}

Reply Client::wait(std::shared_ptr<Reply> reply) {
    cluster.until("a reply", [&] { return reply->done; });
    return *reply;
}

std::shared_ptr<Reply> Client::start_read(OsdNum osd, InodeNum inode, uint64_t offset, uint32_t len, uint64_t revision) {
    auto* call = new Pending;
    call->opcode = Opcode::read;
    wire::ClientRequest message;
    message.inode = inode;
    message.offset = offset;
    message.len = len;
    message.meta_revision = revision;
    wire::encode_request(wire::HeaderBytes(call->request), {0, Opcode::read}, message);
    call->bitmap_out = call->bitmap_small;
    call->bitmap_capacity = sizeof(call->bitmap_small);
    call->reply->data.resize(len);
    if (len) {
        call->data_iov = {call->reply->data.data(), len};
        call->data_out = &call->data_iov;
        call->data_count = 1;
    }
    return send(osd, call);
}

std::shared_ptr<Reply> Client::start_write(OsdNum osd, InodeNum inode, uint64_t offset, std::vector<uint8_t> data, Version cas) {
    auto* call = new Pending;
    call->opcode = Opcode::write;
    wire::ClientRequest message;
    message.inode = inode;
    message.offset = offset;
    message.len = static_cast<uint32_t>(data.size());
    message.version = cas;
    wire::encode_request(wire::HeaderBytes(call->request), {0, Opcode::write}, message);
    call->out = std::move(data);
    return send(osd, call);
}

Reply Client::read(OsdNum osd, InodeNum inode, uint64_t offset, uint32_t len, uint64_t revision) {
    return wait(start_read(osd, inode, offset, len, revision));
}
Reply Client::write(OsdNum osd, InodeNum inode, uint64_t offset, std::vector<uint8_t> data, Version cas) {
    return wait(start_write(osd, inode, offset, std::move(data), cas));
}

Reply Client::remove(OsdNum osd, InodeNum inode, uint64_t offset, Version cas) {
    return wait(start_remove(osd, inode, offset, cas));
}

std::shared_ptr<Reply> Client::start_remove(OsdNum osd, InodeNum inode, uint64_t offset, Version cas) {
    auto* call = new Pending;
    call->opcode = Opcode::del;
    wire::ClientRequest message;
    message.inode = inode;
    message.offset = offset;
    message.version = cas;
    wire::encode_request(wire::HeaderBytes(call->request), {0, Opcode::del}, message);
    return send(osd, call);
}

Reply Client::scrub(OsdNum osd, InodeNum inode, uint64_t offset) {
    auto* call = new Pending;
    call->opcode = Opcode::scrub;
    wire::ClientRequest message;
    message.inode = inode;
    message.offset = offset;
    wire::encode_request(wire::HeaderBytes(call->request), {0, Opcode::scrub}, message);
    return wait(send(osd, call));
}

std::shared_ptr<Reply> Client::start_simple(OsdNum osd, Opcode opcode) {
    auto* call = new Pending;
    call->opcode = opcode;
    wire::encode_request(wire::HeaderBytes(call->request), {0, opcode});
    return send(osd, call);
}

Reply Client::sub_write(OsdNum osd, const ObjectId& object, Version version, std::vector<uint8_t> data, uint32_t flags) {
    auto* call = new Pending;
    call->opcode = Opcode::sec_write_stable;
    wire::SubRequest message;
    message.object = object;
    message.version = version;
    message.len = static_cast<uint32_t>(data.size());
    message.flags = flags;
    wire::encode_request(wire::HeaderBytes(call->request), {0, Opcode::sec_write_stable}, message);
    call->out = std::move(data);
    return wait(send(osd, call));
}

std::shared_ptr<Reply> Client::start_list(OsdNum osd, const wire::ListRequest& message) {
    auto* call = new Pending;
    call->opcode = Opcode::sec_list;
    wire::encode_request(wire::HeaderBytes(call->request), {0, Opcode::sec_list}, message);
    return send(osd, call);
}

Reply Client::lock(OsdNum osd, PgNum pg, uint64_t flags, uint32_t state) {
    auto* call = new Pending;
    call->opcode = Opcode::sec_lock;
    wire::encode_request(wire::HeaderBytes(call->request), {0, Opcode::sec_lock}, wire::LockRequest{flags, 1, pg, state});
    return wait(send(osd, call));
}

Reply Client::describe(OsdNum osd) {
    auto* call = new Pending;
    call->opcode = Opcode::describe;
    wire::encode_request(wire::HeaderBytes(call->request), {0, Opcode::describe}, wire::DescribeRequest{});
    return wait(send(osd, call));
}

}  // namespace vitastor::test

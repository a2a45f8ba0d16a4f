// SPDX-License-Identifier: GPL-2.0-or-later
#include "net_fixture.hpp"

namespace vitastor::net::test {

namespace {
constexpr uint64_t kLimitNs = 20 * runtime::kNsPerSecond;
constexpr uint64_t kSimulatedSeeds = 5;
struct DoneFlag : runtime::Completion {
    bool done = false;
    DoneFlag() {
        on_done = [](runtime::Completion* self, int64_t) { static_cast<DoneFlag*>(self)->done = true; };
    }
};
}  // namespace

Fixture::Fixture(runtime::LoopKind kind) {
    runtime::LoopOptions options;
    options.kind = kind;
    auto made = runtime::create_loop(options, logger);
    REQUIRE_MESSAGE(made.ok(), made.status().message());
    loop = std::move(made.value());
    logger.set_level(LogLevel::debug);
}

Fixture::Fixture(uint64_t seed) {
    runtime::SimNetworkOptions network;
    network.short_chance = 0.3;
    world = std::make_shared<runtime::SimWorld>(seed, network);
    runtime::SimNodeOptions options;
    options.addresses = {"127.0.0.1", "127.0.0.2", "127.0.0.3", "fd00::1"};
    node = world->add_node(options);
    loop = world->make_loop(node);
    logger.set_level(LogLevel::debug);
}

Fixture::Fixture(Fixture& neighbour, const std::string& address) : world(neighbour.world) {
    runtime::SimNodeOptions options;
    options.addresses = {address};
    node = world->add_node(options);
    loop = world->make_loop(node);
    logger.set_level(LogLevel::debug);
}

Fixture::~Fixture() { loop.reset(); }

void Fixture::turn(uint64_t until_ns) {
    if (world)
        world->step_until(until_ns);
    else
        loop->run_once(until_ns);
}

bool Fixture::run_until(const std::function<bool()>& done) {
    const uint64_t limit = loop->now_exact_ns() + kLimitNs;
    while (!done()) {
        if (loop->now_exact_ns() > limit)
            return false;
        turn(loop->now_exact_ns() + 50 * runtime::kNsPerMs);
    }
    return true;
}

void Fixture::settle(int turns) {
    for (int i = 0; i < turns; i++)
        turn(loop->now_exact_ns() + runtime::kNsPerMs);
}

void on_every_loop(void (*body)(Fixture& fixture)) {
    for (auto kind : {runtime::LoopKind::io_uring, runtime::LoopKind::epoll}) {
        Fixture fixture(kind);
        const std::string loop = fixture.loop->name();
        CAPTURE(loop);
        body(fixture);
    }
    for (uint64_t seed = 1; seed <= kSimulatedSeeds; seed++) {
        CAPTURE(seed);
        Fixture fixture(seed);
        body(fixture);
    }
}

// ---- RawPeer

void RawPeer::init() {
    receive_op_.self = send_op_.self = this;
    receive_op_.on_done = [](runtime::Completion* base, int64_t result) {
        auto* op = static_cast<Op*>(base);
        RawPeer& self = *op->self;
        op->busy = false;
        if (result <= 0) {
            self.eof_ = true;
            return;
        }
        self.received.append(self.buffer_, static_cast<size_t>(result));
        self.receive();
    };
    send_op_.on_done = [](runtime::Completion* base, int64_t result) {
        auto* op = static_cast<Op*>(base);
        op->busy = false;
        op->result = result;
    };
}

void RawPeer::connect(const std::string& host, uint16_t port) {
    send_op_.busy = true;
    f_.loop->connect({host, port}, send_op_);
    REQUIRE(f_.run_until([&] { return !send_op_.busy; }));
    REQUIRE(send_op_.result >= 0);
    attach(static_cast<runtime::Socket>(send_op_.result));
}

void RawPeer::attach(runtime::Socket socket) {
    socket_ = socket;
    receive();
}

void RawPeer::receive() {
    if (socket_ < 0)
        return;
    receive_iov_ = {buffer_, sizeof(buffer_)};
    receive_op_.busy = true;
    f_.loop->receive(socket_, &receive_iov_, 1, receive_op_);
}

void RawPeer::send(const std::string& bytes) { send_in_pieces(bytes, bytes.size()); }

void RawPeer::send_in_pieces(const std::string& bytes, size_t piece) {
    for (size_t at = 0; at < bytes.size() && !eof_;) {
        iovec iov = {const_cast<char*>(bytes.data()) + at, std::min(piece, bytes.size() - at)};
        send_op_.busy = true;
        f_.loop->send(socket_, &iov, 1, send_op_);
        REQUIRE(f_.run_until([&] { return !send_op_.busy; }));
        if (send_op_.result <= 0)
            return;
        at += static_cast<size_t>(send_op_.result);
    }
}

void RawPeer::close() {
    if (socket_ < 0)
        return;
    f_.loop->close_socket(std::exchange(socket_, -1));
    f_.run_until([&] { return !receive_op_.busy && !send_op_.busy; });
}

std::string RawPeer::take(size_t size) {
    if (!f_.run_until([&] { return received.size() >= size || eof_; }) || received.size() < size)
        return {};
    std::string out = received.substr(0, size);
    received.erase(0, size);
    return out;
}

// ---- RawServer

RawServer::RawServer(Fixture& fixture, const std::string& host) : f_(fixture) {
    auto listener = f_.loop->listen({host, 0}, &port_);
    REQUIRE_MESSAGE(listener.ok(), listener.status().message());
    listener_ = listener.value();
    op_.self = this;
    op_.on_done = [](runtime::Completion* base, int64_t result) {
        RawServer& self = *static_cast<Op*>(base)->self;
        self.op_.busy = false;
        if (result < 0)
            return;
        self.accepted_++;
        self.waiting_.push_back(static_cast<runtime::Socket>(result));
        self.accept();
    };
    accept();
}

void RawServer::accept() {
    op_.busy = true;
    f_.loop->accept(listener_, op_);
}

RawServer::~RawServer() {
    f_.loop->close_socket(listener_);
    f_.run_until([&] { return !op_.busy; });
    for (auto socket : waiting_)
        f_.loop->close_socket(socket);
}

std::unique_ptr<RawPeer> RawServer::next() {
    REQUIRE(f_.run_until([&] { return !waiting_.empty(); }));
    auto peer = std::make_unique<RawPeer>(f_);
    peer->attach(waiting_.front());
    waiting_.pop_front();
    return peer;
}

// ---- TestOsd

wire::ConfigReplyJson test_config(OsdNum osd) {
    wire::ConfigReplyJson config;
    config.osd_num = osd;
    config.protocol_version = 1;
    config.block_size = 131072;
    config.bitmap_granularity = 4096;
    config.immediate_commit = wire::ImmediateCommit::all;
    config.pg_locks = true;
    config.lease_timeout = 15;
    return config;
}

uint8_t pattern(uint64_t offset) { return static_cast<uint8_t>(offset % 251); }

static ServerOptions with(ServerOptions options, OsdNum osd, std::vector<runtime::Address> listen) {
    options.listen = std::move(listen);
    options.config = test_config(osd);
    return options;
}

TestOsd::TestOsd(Fixture& fixture, OsdNum osd, std::vector<runtime::Address> listen, ServerOptions options)
    : server(*fixture.loop, with(std::move(options), osd, std::move(listen)), *this, fixture.logger)
    , f_(fixture) {
    const Status status = server.start();
    REQUIRE_MESSAGE(status.ok(), status.message());
}

TestOsd::~TestOsd() { stop(); }

void TestOsd::stop() {
    if (std::exchange(stopped_, true))
        return;
    DoneFlag flag;
    server.close_all(flag);
    REQUIRE(f_.run_until([&] { return flag.done; }));
    while (!held.empty()) {
        Request* request = held.front();
        held.pop_front();
        CHECK(request->connection == nullptr);
        Connection::reply_status(*request, 0);
    }
}

void TestOsd::on_request(Connection&, Request& request) {
    requests++;
    last_bitmap.assign(reinterpret_cast<char*>(request.bitmap()), request.sizes.bitmap_bytes);
    last_data.clear();
    if (request.sizes.data_bytes)
        last_data.assign(reinterpret_cast<char*>(request.data()), request.sizes.data_bytes);
    if (hold)
        held.push_back(&request);
    else
        answer(request);
}

void TestOsd::answer(Request& request) {
    const auto message = wire::decode<wire::ClientRequest>(std::span<const uint8_t, 128>(request.header));
    if (request.opcode != Opcode::read) {
        Connection::reply_status(request, request.opcode == Opcode::write ? message.len : 0);
        return;
    }
    std::memset(request.reply_small, 0x5a, 4);
    request.reply_iov[0] = {request.reply_small, 4};
    request.reply_count = 1;
    if (message.len) {
        request.reply_buffer = request.connection->loop().buffers().allocate(message.len);
        for (uint32_t i = 0; i < message.len; i++)
            request.reply_buffer.data()[i] = pattern(message.offset + i);
        request.reply_iov[request.reply_count++] = {request.reply_buffer.data(), message.len};
    }
    wire::encode_reply(request.reply, {request.id, request.opcode, message.len}, wire::ReadReply{4, 7});
    Connection::reply(request);
}

// ---- bytes

std::string request_bytes(uint64_t id, Opcode opcode) {
    uint8_t header[wire::kHeaderSize];
    wire::encode_request(header, {id, opcode});
    return std::string(reinterpret_cast<char*>(header), sizeof(header));
}

std::string show_config_bytes(uint64_t id, const std::string& json) {
    return request_bytes(id, Opcode::show_config, wire::ConfigRequest{json.size()}, json);
}

std::string reply_bytes(uint64_t id, Opcode opcode, int64_t retval, const std::string& payload) {
    uint8_t header[wire::kHeaderSize];
    wire::encode_reply(header, {id, opcode, retval});
    return std::string(reinterpret_cast<char*>(header), sizeof(header)) + payload;
}

wire::ReplyHeader reply_of(const std::string& bytes) {
    if (bytes.size() < wire::kHeaderSize)
        return {0, Opcode(0), INT64_MIN};
    auto header = wire::decode_reply_header(
        std::span<const uint8_t, 128>(reinterpret_cast<const uint8_t*>(bytes.data()), 128));
    return header ? *header : wire::ReplyHeader{0, Opcode(0), INT64_MIN};
}

wire::RequestHeader request_of(const std::string& bytes) {
    if (bytes.size() < wire::kHeaderSize)
        return {};
    auto header = wire::decode_request_header(
        std::span<const uint8_t, 128>(reinterpret_cast<const uint8_t*>(bytes.data()), 128));
    return header ? *header : wire::RequestHeader{};
}

// ---- calls and peers

ReadCall::ReadCall(uint64_t offset, uint32_t len) : data(len) {
    wire::encode_request(request, {0, Opcode::read}, wire::ClientRequest{1, offset, len, 0, 0, 0});
    bitmap_out = bitmap;
    bitmap_capacity = sizeof(bitmap);
    if (len) {
        // Four pieces of unequal size.
        size_t at = 0;
        for (int i = 0; i < 4; i++) {
            const size_t size = i == 3 ? len - at : len / 7 * static_cast<size_t>(i);
            pieces[i] = {data.data() + at, size};
            at += size;
        }
        data_out = pieces;
        data_count = 4;
    }
    on_reply = [](Call* call) {
        auto* self = static_cast<ReadCall*>(call);
        self->replies++;
        if (self->then)
            self->then(*self);
    };
}

bool ReadCall::data_is_right(uint64_t offset) const {
    for (size_t i = 0; i < data.size(); i++)
        if (data[i] != pattern(offset + i))
            return false;
    return true;
}

TestPeers::~TestPeers() { stop(); }

void TestPeers::stop() {
    if (std::exchange(stopped, true))
        return;
    DoneFlag flag;
    peers.close_all(flag);
    REQUIRE(f.run_until([&] { return flag.done; }));
}

PeerOptions client_options() {
    PeerOptions options;
    options.connect_interval_ns = 20 * runtime::kNsPerMs;
    return options;
}

PeerOptions osd_options(OsdNum own) {
    PeerOptions options = client_options();
    options.own_osd = own;
    options.block_size = 131072;
    options.bitmap_granularity = 4096;
    options.immediate_commit = wire::ImmediateCommit::all;
    return options;
}

}  // namespace vitastor::net::test

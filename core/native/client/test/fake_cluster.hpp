// SPDX-License-Identifier: GPL-2.0-or-later
// OSDs in memory over net::Server, a fed map and contexts, all on one loop: client logic under faults, without processes.
#pragma once

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/test/text_logger.hpp"
#include "client/context.hpp"
#include "client/purge.hpp"
#include "cluster/map_hub.hpp"
#include "cluster/model_source.hpp"
#include "net/server.hpp"
#include "wire/codec.hpp"

namespace fake {

using namespace vitastor;

struct StoredObject {
    std::vector<uint8_t> data;
    std::vector<uint8_t> bitmap;
    uint64_t version = 0;
};
using Objects = std::map<ObjectId, StoredObject>;

constexpr uint32_t kBlock = 131072, kGranule = 4096;

/// One OSD. Data that was not synced is lost by restart() when `volatile_writes` is set.
class Osd : public net::ServerHandler {
public:
    Osd(runtime::Loop& loop, OsdNum number, Logger& logger) : loop_(loop), number_(number), logger_(logger) { start(); }
    uint32_t span = kBlock;      ///< bytes of an object
    struct Geometry {
        uint32_t span = 0, granule = 0;
    };
    std::map<PoolId, Geometry> geometry;  ///< of pools where they differ
    uint32_t span_of(InodeNum inode) const {
        auto found = geometry.find(pool_of(inode));
        return found == geometry.end() ? span : found->second.span;
    }
    uint32_t granule_of(InodeNum inode) const {
        auto found = geometry.find(pool_of(inode));
        return found == geometry.end() ? kGranule : found->second.granule;
    }
    bool reads_chunks = false;  ///< says so in its hello, after restart()
    ~Osd() override { stop(); }

    Objects objects, durable;
    bool volatile_writes = false;
    /// Called first; a value other than 0 is answered as an error. 1: no answer at all (dropped at close).
    std::function<int(net::Request& request)> fault;
    std::vector<std::string> seen;
    int reads = 0, writes = 0, syncs = 0, deletes = 0;
    uint64_t last_meta_revision = 0;
    bool old_server = false;
    uint32_t delete_flags = wire::DeleteReply::kSupported;
    int left_on_dead_once = 0;

    uint16_t port() const { return server_->port(); }
    void stop() {
        if (!server_) return;
        for (net::Request* request : held_) {
            wire::encode_reply(wire::HeaderBytes(request->reply, wire::kHeaderSize), {request->id, request->opcode, -EPIPE});
            net::Connection::reply(*request);
        }
        held_.clear();
        struct Done : runtime::Completion {
            bool done = false;
        } closed;
        closed.on_done = [](runtime::Completion* self, int64_t) { static_cast<Done*>(self)->done = true; };
        server_->close_all(closed);
        while (!closed.done) loop_.run_once(runtime::kNever);
        server_.reset();
        if (volatile_writes) objects = durable;
    }
    void start() {
        net::ServerOptions options;
        options.listen = {{"127.0.0.1", port_}};
        options.config.osd_num = number_;
        options.config.protocol_version = 1;
        options.config.block_size = kBlock;
        options.config.bitmap_granularity = kGranule;
        options.config.immediate_commit = wire::ImmediateCommit::all;
        options.config.ec_local_reads = reads_chunks;
        server_ = std::make_unique<net::Server>(loop_, options, *this, logger_);
        Status status = server_->start();
        VITASTOR_ASSERT(status.ok());
        port_ = server_->port();
    }
    void restart() {
        stop();
        start();
    }

    void on_accepted(net::Connection&) override {}
    void on_peer_announced(net::Connection&, OsdNum) override {}
    std::vector<uint64_t> sessions;  ///< of each hello
    std::function<void()> on_hello;  ///< before it is answered
    void on_client_announced(net::Connection&, uint64_t session) override {
        sessions.push_back(session);
        seen.push_back("hello");
        if (on_hello) on_hello();
    }
    void on_closed(net::Connection&) override {}
    void on_request(net::Connection& connection, net::Request& request) override {
        seen.push_back(wire::opcode_name(request.opcode));
        auto header = wire::ConstHeaderBytes(request.header, wire::kHeaderSize);
        auto reply = wire::HeaderBytes(request.reply, wire::kHeaderSize);
        int error = fault ? fault(request) : 0;
        if (error > 0) {
            held_.push_back(&request);
            return;
        }
        wire::ReplyHeader out{request.id, request.opcode, error};
        if (error) {
            wire::encode_reply(reply, out);
            return connection.reply(request);
        }
        auto io = wire::decode<wire::ClientRequest>(header);
        const uint32_t size = span_of(io.inode), granule = granule_of(io.inode), bitmap_bytes = size / granule / 8;
        ObjectId id{io.inode, io.offset / size * size};
        switch (request.opcode) {
        case wire::Opcode::read: {
            reads++;
            last_meta_revision = io.meta_revision;
            auto found = objects.find(id);
            request.reply_buffer = loop_.buffers().allocate(size + 4096);
            memset(request.reply_buffer.data(), 0, size + 4096);
            uint8_t* data = request.reply_buffer.data() + 4096;
            wire::ReadReply body;
            body.bitmap_len = bitmap_bytes;
            if (found != objects.end()) {
                body.version = found->second.version;
                memcpy(request.reply_buffer.data(), found->second.bitmap.data(), bitmap_bytes);
                memcpy(data, found->second.data.data() + (io.offset - id.stripe), io.len);
            }
            out.retval = io.len;
            wire::encode_reply(reply, out, body);
            request.reply_iov[0] = {request.reply_buffer.data(), bitmap_bytes};
            request.reply_iov[1] = {data, io.len};
            request.reply_count = io.len ? 2 : 1;
            break;
        }
        case wire::Opcode::write: {
            writes++;
            auto& object = objects[id];
            if (io.version && object.version != io.version - 1) {
                out.retval = -EINTR;
                wire::encode_reply(reply, out, wire::WriteReply{object.version});
                if (!object.version) objects.erase(id);
                break;
            }
            if (object.data.empty()) {
                object.data.resize(size);
                object.bitmap.resize(bitmap_bytes);
            }
            memcpy(object.data.data() + (io.offset - id.stripe), request.data(), io.len);
            for (uint64_t g = (io.offset - id.stripe) / granule; g < (io.offset - id.stripe + io.len) / granule; g++)
                object.bitmap[g / 8] |= static_cast<uint8_t>(1 << g % 8);
            object.version++;
            out.retval = io.len;
            wire::encode_reply(reply, out, wire::WriteReply{object.version});
            break;
        }
        case wire::Opcode::del: {
            deletes++;
            objects.erase(id);
            wire::DeleteReply body;
            body.flags = delete_flags;
            if (left_on_dead_once > 0) {
                left_on_dead_once--;
                body.flags |= wire::DeleteReply::kLeftOnDead;
                body.osd_count = 1;
                body.osds[0] = 9;
            }
            wire::encode_reply(reply, out, body);
            break;
        }
        case wire::Opcode::sync:
            syncs++;
            durable = objects;
            wire::encode_reply(reply, out);
            break;
        case wire::Opcode::sec_list: {
            auto list = wire::decode<wire::ListRequest>(header);
            std::vector<ObjectVersion> triples;
            for (auto& [object, value] : objects)
                if (object.inode >= list.min_inode && object.inode <= list.max_inode &&
                    object.stripe / list.pg_stripe_size % list.pg_count + 1 == list.list_pg)
                    triples.push_back({object, 0});
            out.retval = static_cast<int64_t>(triples.size());
            wire::encode_reply(reply, out, wire::ListReply{triples.size(), old_server ? 0u : wire::ListRequest::kPrimary});
            if (!triples.empty()) {
                request.reply_buffer = loop_.buffers().allocate(triples.size() * wire::kTripleSize);
                wire::encode_triples({request.reply_buffer.data(), triples.size() * wire::kTripleSize}, triples);
                request.reply_iov[0] = {request.reply_buffer.data(), triples.size() * wire::kTripleSize};
                request.reply_count = 1;
            }
            break;
        }
        default:
            out.retval = -EINVAL;
            wire::encode_reply(reply, out);
        }
        connection.reply(request);
    }
    /// Answers what `fault` held back, with an error.
    void answer_held(int error) {
        auto held = std::move(held_);
        held_.clear();
        for (net::Request* request : held) {
            wire::encode_reply(wire::HeaderBytes(request->reply, wire::kHeaderSize), {request->id, request->opcode, error});
            net::Connection::reply(*request);
        }
    }
    /// Executes what `fault` held back.
    void release_held() {
        auto held = std::move(held_);
        held_.clear();
        auto keep = std::move(fault);
        fault = nullptr;
        for (net::Request* request : held) on_request(*request->connection, *request);
        fault = std::move(keep);
    }
    size_t held() const { return held_.size(); }

private:
    runtime::Loop& loop_;
    OsdNum number_;
    Logger& logger_;
    uint16_t port_ = 0;
    std::unique_ptr<net::Server> server_;
    std::vector<net::Request*> held_;
};

/// A result that tests wait for.
struct Done {
    bool done = false;
    int64_t result = 0;
    uint64_t version = 0;
    int runs = 0;
    static void fn(void* arg, int64_t result, uint64_t version) {
        auto* self = static_cast<Done*>(arg);
        self->done = true;
        self->result = result;
        self->version = version;
        self->runs++;
    }
};

struct World {
    TextLogger logger;
    std::unique_ptr<runtime::Loop> loop;
    std::map<OsdNum, std::unique_ptr<Osd>> osds;
    cluster::ConfigLayers layers;
    std::unique_ptr<cluster::MapHub> hub;
    cluster::ModelEtcdSource source;
    std::unique_ptr<client::Shared> shared;
    std::vector<std::unique_ptr<client::Context>> contexts;
    std::vector<client::Image*> images;
    uint64_t revision = 100;
    std::string mode = "all";
    std::string pool_extra, pool2_extra;
    std::string pool_scheme = R"("scheme":"replicated","pg_size":2,"pg_minsize":1)";      ///< of pool 1
    std::string pool_pgs = R"({"1":{"osd_set":[1,2],"primary":1},"2":{"osd_set":[2,1],"primary":2}})";

    explicit World(std::string commit = "all", runtime::LoopKind kind = runtime::LoopKind::epoll) : mode(std::move(commit)) {
        runtime::LoopOptions options;
        options.kind = kind;
        loop = std::move(runtime::create_loop(options, logger).value());
        layers.options = {{"client_retry_interval", "10"}, {"client_eio_retry_interval", "10"},
            {"peer_connect_interval", "1"}, {"client_wait_up_timeout", "1"}};
    }
    ~World() {
        for (client::Image* image : images) close_image(image);
        for (auto& context : contexts) context->close();
        contexts.clear();
        source.stop();
        shared.reset();
        hub.reset();
        osds.clear();
        for (int i = 0; i < 3; i++) loop->run_once(0);
    }
    /// Starts hub and context 0. Feed the map before or after.
    client::Context& context(size_t index = 0) {
        if (!hub) {
            hub = std::make_unique<cluster::MapHub>(*loop, layers, 1, logger);
            source.start(*hub);
            shared = std::make_unique<client::Shared>(*hub, logger);
            shared->layers = layers;
        }
        while (contexts.size() <= index) contexts.push_back(std::make_unique<client::Context>(*shared, *loop));
        return *contexts[index];
    }
    void add_osd(OsdNum number) { osds[number] = std::make_unique<Osd>(*loop, number, logger); }
    static cluster::EtcdKeyValue pair(const std::string& key, const std::string& value, uint64_t revision) {
        return {"/vitastor" + key, value, revision, value.empty()};
    }
    std::string osd_state(OsdNum number) {
        return R"({"state":"up","addresses":["127.0.0.1"],"port":)" + std::to_string(osds.at(number)->port()) + R"(,"host":"h)" +
               std::to_string(number) + "\"}";
    }
    static std::string pg_state(OsdNum primary, const std::string& words = "\"active\"") {
        return "{\"primary\":" + std::to_string(primary) + ",\"state\":[" + words + "],\"peers\":[1,2]}";
    }
    std::string pools() {
        return R"({"1":{"name":"p",)" + pool_scheme + R"(,"pg_count":2,"immediate_commit":")" + mode +
               "\"" + pool_extra + R"(},"2":{"name":"q","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":1)" + pool2_extra + "}}";
    }
    /// Pools 1 (PGs 1, 2 led by OSDs 1, 2) and 2 (PG 1 led by 2); image "img" = inode 1 of pool 1.
    void feed() {
        std::vector<cluster::EtcdKeyValue> pairs = {pair("/config/pools", pools(), 1),
            pair("/pg/config", R"({"items":{"1":)" + pool_pgs + R"(,"2":{"1":{"osd_set":[2,1],"primary":2}}}})", 1),
            pair("/pg/state/1/1", pg_state(1), 1), pair("/pg/state/1/2", pg_state(2), 1), pair("/pg/state/2/1", pg_state(2), 1),
            pair("/config/inode/1/1", R"({"name":"img","size":1073741824})", 50)};
        for (auto& [number, osd] : osds) pairs.push_back(pair("/osd/state/" + std::to_string(number), osd_state(number), 1));
        source.feed_load(pairs, revision);
    }
    void put(const std::string& key, const std::string& value) {
        revision++;
        source.feed_events({pair(key, value, revision)}, revision);
    }
    template <class Condition>
    bool until(Condition condition) {
        uint64_t end = loop->now_exact_ns() + 20 * runtime::kNsPerSecond;
        while (!condition()) {
            if (loop->now_exact_ns() > end) {
                fprintf(stderr, "%s", logger.text.c_str());
                return false;
            }
            loop->run_once(loop->now_exact_ns() + 10 * runtime::kNsPerMs);
        }
        return true;
    }
    bool until_generation(uint64_t generation, size_t index = 0) {
        return until([&] { return contexts[index]->map() && contexts[index]->map()->generation >= generation; });
    }
    void start(client::OpKind kind, client::Image* image, uint64_t offset, uint64_t length, const std::vector<iovec>& iov, Done& done,
        size_t index = 0, uint64_t expected = 0) {
        client::Context& c = context(index);
        client::Op* op = c.take_op();
        op->kind = kind;
        op->image = image;
        op->offset = offset;
        op->length = length;
        op->expected_version = expected;
        op->done_fn = Done::fn;
        op->done_arg = &done;
        if (!iov.empty()) client::Context::set_iov(*op, iov.data(), static_cast<int>(iov.size()));
        c.start(*op);
    }
    client::Image* create(client::ImageOptions options) {
        context();
        images.push_back(shared->create_image(std::move(options)));
        return images.back();
    }
    void close_image(client::Image* image) {
        image->closed = true;
        for (auto& c : contexts) c->forget_image(image);
        image->unref();
    }
    int64_t run(client::OpKind kind, client::Image* image, uint64_t offset, uint64_t length, const std::vector<iovec>& iov,
        size_t index = 0, uint64_t expected = 0, uint64_t* version = nullptr) {
        Done done;
        start(kind, image, offset, length, iov, done, index, expected);
        VITASTOR_ASSERT(!done.done);
        if (!until([&] { return done.done; })) return -9999;
        if (version) *version = done.version;
        return done.runs == 1 ? done.result : -8888;
    }
    client::Image* open(const std::string& name = "img", size_t index = 0) {
        client::ImageOptions options;
        options.name = name;
        client::Image* image = create(std::move(options));
        return run(client::OpKind::open, image, 0, 0, {}, index) == 0 ? image : nullptr;
    }
    int64_t write(client::Image* image, uint64_t offset, std::vector<uint8_t>& data, size_t index = 0) {
        return run(client::OpKind::write, image, offset, data.size(), {{data.data(), data.size()}}, index);
    }
    std::vector<uint8_t> read(client::Image* image, uint64_t offset, uint64_t length, size_t index = 0) {
        std::vector<uint8_t> data(length, 0xee);
        int64_t result = run(client::OpKind::read, image, offset, length, {{data.data(), length}}, index);
        if (result != static_cast<int64_t>(length)) data.clear();
        return data;
    }
    int64_t flush(client::Image* image, size_t index = 0) { return run(client::OpKind::flush, image, 0, 0, {}, index); }
};

inline std::vector<uint8_t> pattern(size_t size, uint8_t seed) {
    std::vector<uint8_t> data(size);
    for (size_t i = 0; i < size; i++) data[i] = static_cast<uint8_t>(seed + i * 7 + i / 4096);
    return data;
}

}  // namespace fake

// SPDX-License-Identifier: GPL-2.0-or-later
// Calls and replies of one connection: any order, any cut of the stream, death at any moment.
#include "net_fixture.hpp"

using namespace vitastor;
using namespace vitastor::net;
using namespace vitastor::net::test;
using vitastor::wire::kHeaderSize;

namespace {

struct Handler : ConnectionHandler {
    int closed = 0;
    CloseReason reason = CloseReason::by_us;
    std::string text;
    std::function<void()> at_close;
    std::vector<Request*> requests;
    void on_request(Connection&, Request& request) override { requests.push_back(&request); }
    void on_closed(Connection&, CloseReason why, const std::string& sentence) override {
        closed++;
        reason = why;
        text = sentence;
        if (at_close)
            at_close();
    }
};

/// Our end is a Connection, the other end raw bytes.
struct Pair {
    Fixture& f;
    Handler handler;
    RawServer server;
    std::unique_ptr<Connection> connection;
    std::unique_ptr<RawPeer> raw;

    explicit Pair(Fixture& fixture, ConnectionOptions options = {}) : f(fixture), server(fixture) {
        struct Connected : runtime::Completion {
            int64_t result = INT64_MIN;
        } op;
        op.on_done = [](runtime::Completion* self, int64_t result) { static_cast<Connected*>(self)->result = result; };
        f.loop->connect({"127.0.0.1", server.port()}, op);
        REQUIRE(f.run_until([&] { return op.result != INT64_MIN; }));
        REQUIRE(op.result >= 0);
        connection = std::make_unique<Connection>(*f.loop, static_cast<runtime::Socket>(op.result), options, handler);
        raw = server.next();
    }
    ~Pair() {
        connection->close(CloseReason::by_us, "end of test");
        REQUIRE(f.run_until([&] { return handler.closed > 0; }));
        CHECK(handler.closed == 1);
    }
    bool wait_closed() {
        return f.run_until([&] { return handler.closed > 0; });
    }
};

std::string data_of(uint64_t offset, size_t size) {
    std::string data(size, '\0');
    for (size_t i = 0; i < size; i++)
        data[i] = static_cast<char>(pattern(offset + i));
    return data;
}

std::string bitmap4() { return std::string("\x0f\0\0\0", 4); }

std::string good_read_reply(uint64_t id, uint64_t offset, uint32_t len) {
    return reply_bytes(id, Opcode::read, len, wire::ReadReply{4, 9}, bitmap4() + data_of(offset, len));
}

}  // namespace

NET_TEST("replies in any order reach their calls") {
    Pair pair(f);
    std::vector<std::unique_ptr<ReadCall>> calls;
    for (uint64_t i = 0; i < 200; i++) {
        calls.push_back(std::make_unique<ReadCall>(i * 4096, 4096));
        pair.connection->send(*calls.back());
    }
    CHECK(pair.connection->calls_in_flight() == 200);
    const std::string sent = pair.raw->take(200 * kHeaderSize);
    REQUIRE(sent.size() == 200 * kHeaderSize);
    std::string replies;
    for (uint64_t i = 200; i > 0; i--) {
        const auto header = request_of(sent.substr((i - 1) * kHeaderSize));
        CHECK(header.id == i);
        CHECK(header.opcode == Opcode::read);
        replies += good_read_reply(i, (i - 1) * 4096, 4096);
    }
    pair.raw->send(replies);
    REQUIRE(f.run_until([&] { return calls[0]->replies == 1; }));
    for (uint64_t i = 0; i < 200; i++) {
        CHECK(calls[i]->replies == 1);
        CHECK(calls[i]->status == 0);
        CHECK(calls[i]->retval == 4096);
        CHECK(calls[i]->bitmap_size == 4);
        CHECK(calls[i]->bitmap[0] == 0x0f);
        CHECK(wire::decode<wire::ReadReply>(std::span<const uint8_t, 128>(calls[i]->reply)).version == 9);
        CHECK(calls[i]->data_is_right(i * 4096));
    }
    CHECK(pair.connection->calls_in_flight() == 0);
}

NET_TEST("replies may be cut at any byte") {
    Pair pair(f);
    for (size_t piece : {1, 3, 127, 129, 4096}) {
        CAPTURE(piece);
        ReadCall first(0, 4096), second(8192, 0), third(4096, 8192);
        pair.connection->send(first);
        pair.connection->send(second);
        pair.connection->send(third);
        const auto id = request_of(pair.raw->take(3 * kHeaderSize)).id;
        const std::string bytes = good_read_reply(id, 0, 4096) + good_read_reply(id + 1, 0, 0) + good_read_reply(id + 2, 4096, 8192);
        // The whole in small pieces takes long: only around the borders.
        if (piece < 100) {
            pair.raw->send_in_pieces(bytes.substr(0, 200), piece);
            pair.raw->send(bytes.substr(200, 4000));
            pair.raw->send_in_pieces(bytes.substr(4200, 300), piece);
            pair.raw->send(bytes.substr(4500));
        } else {
            pair.raw->send_in_pieces(bytes, piece);
        }
        REQUIRE(f.run_until([&] { return third.replies == 1; }));
        CHECK(first.data_is_right(0));
        CHECK(second.replies == 1);
        CHECK(second.bitmap_size == 4);
        CHECK(third.data_is_right(4096));
    }
}

NET_TEST("large payloads arrive whole, into scattered memory") {
    Pair pair(f);
    std::vector<std::unique_ptr<ReadCall>> calls;
    std::string replies;
    for (uint64_t i = 0; i < 8; i++) {
        calls.push_back(std::make_unique<ReadCall>(i << 20, 1 << 20));
        pair.connection->send(*calls.back());
        replies += good_read_reply(i + 1, i << 20, 1 << 20);
        if (i % 3 == 0) {
            calls.push_back(std::make_unique<ReadCall>(5, 4096));
            pair.connection->send(*calls.back());
        }
    }
    replies.clear();
    for (uint64_t i = 0, id = 0; i < 8; i++) {
        replies += good_read_reply(++id, i << 20, 1 << 20);
        if (i % 3 == 0)
            replies += good_read_reply(++id, 5, 4096);
    }
    pair.raw->take(calls.size() * kHeaderSize);
    pair.raw->send(replies);
    REQUIRE(f.run_until([&] { return calls.back()->replies == 1; }));
    for (auto& call : calls) {
        CHECK(call->replies == 1);
        const auto asked = wire::decode<wire::ClientRequest>(std::span<const uint8_t, 128>(call->request));
        CHECK(call->data_is_right(asked.offset));
    }
}

NET_TEST("bitmap of an error reply is consumed, without a bitmap buffer it is thrown away") {
    Pair pair(f);
    ReadCall failed(0, 4096), plain(4096, 4096), last(0, 4096);
    plain.bitmap_out = nullptr;
    plain.bitmap_capacity = 0;
    pair.connection->send(failed);
    pair.connection->send(plain);
    pair.connection->send(last);
    pair.raw->take(3 * kHeaderSize);
    pair.raw->send_in_pieces(reply_bytes(1, Opcode::read, -5, wire::ReadReply{4, 0}, "\xff\xff\xff\xff"), 131);
    pair.raw->send(good_read_reply(2, 4096, 4096) + reply_bytes(3, Opcode::read, -32));
    REQUIRE(f.run_until([&] { return last.replies == 1; }));
    CHECK(failed.retval == -5);
    CHECK(failed.bitmap_size == 0);
    CHECK(failed.bitmap[0] == 0);
    CHECK(plain.data_is_right(4096));
    CHECK(last.retval == -32);
    CHECK(last.status == 0);
}

NET_TEST("payloads without a place go to reply_payload") {
    Pair pair(f);
    struct ListCall : Call {
        bool done = false;
    } list;
    list.on_reply = [](Call* self) { static_cast<ListCall*>(self)->done = true; };
    wire::encode_request(list.request, {0, Opcode::sec_list}, wire::ListRequest{});
    pair.connection->send(list);
    pair.raw->take(kHeaderSize);
    std::string triples(24 * 10000, 'x');
    pair.raw->send(reply_bytes(1, Opcode::sec_list, 10000, wire::ListReply{10000, 0}, triples));
    REQUIRE(f.run_until([&] { return list.done; }));
    CHECK(list.status == 0);
    CHECK(list.reply_payload.size() == triples.size());
    CHECK(std::memcmp(list.reply_payload.data(), triples.data(), triples.size()) == 0);
}

NET_TEST("replies that do not fit close the connection, the call learns -EPROTO, others -EPIPE") {
    struct Case {
        const char* part;
        std::string bytes;
    };
    const Case cases[] = {
        {"unknown id 77", good_read_reply(77, 0, 4096)},
        {"answered with 8192", good_read_reply(1, 0, 8192)},
        {"answered with 0", reply_bytes(1, Opcode::read, 0)},
        {"bitmap of 16 bytes", reply_bytes(1, Opcode::read, 4096, wire::ReadReply{16, 0}, "")},
        {"the reply says WRITE", reply_bytes(1, Opcode::write, 4096)},
        {"limit", reply_bytes(1, Opcode::read, INT64_MAX)},
        {"wrong magic", std::string(128, 'g')},
        {"may only reply", request_bytes(1, Opcode::ping)},
    };
    for (const auto& c : cases) {
        CAPTURE(c.part);
        Pair pair(f);
        ReadCall first(0, 4096), second(0, 4096);
        pair.connection->send(first);
        pair.connection->send(second);
        pair.raw->take(2 * kHeaderSize);
        pair.raw->send(c.bytes);
        REQUIRE(pair.wait_closed());
        CHECK(pair.handler.reason == CloseReason::protocol);
        CHECK_MESSAGE(pair.handler.text.find(c.part) != std::string::npos, pair.handler.text);
        CHECK(first.replies == 1);
        CHECK(second.replies == 1);
        CHECK((first.status == -EPROTO || first.status == -EPIPE));
        CHECK(second.status == -EPIPE);
        CHECK(pair.raw->take(1).empty());
    }
}

NET_TEST("death of the peer answers each call once, in order, and then says closed") {
    Pair pair(f);
    std::vector<std::unique_ptr<ReadCall>> calls;
    std::vector<uint64_t> order;
    for (uint64_t i = 0; i < 500; i++) {
        calls.push_back(std::make_unique<ReadCall>(i, 65536));
        calls.back()->then = [&order](ReadCall& call) { order.push_back(call.id); };
        pair.connection->send(*calls.back());
    }
    ReadCall again(0, 4096);
    int sent_again = 0;
    calls[3]->then = [&](ReadCall& call) {
        order.push_back(call.id);
        CHECK(pair.connection->closed());
        if (sent_again++ == 0)
            pair.connection->send(again);
    };
    bool all_answered = false;
    pair.handler.at_close = [&] { all_answered = order.size() == 500 && again.replies == 1; };
    pair.raw->take(kHeaderSize);
    pair.raw->send(good_read_reply(1, 0, 65536).substr(0, 30000));  // dies in the middle of a payload
    f.settle();
    pair.raw->close();
    REQUIRE(pair.wait_closed());
    CHECK(all_answered);
    CHECK(pair.handler.reason == CloseReason::by_peer);
    for (size_t i = 0; i < order.size(); i++)
        CHECK(order[i] == i + 1);
    for (auto& call : calls) {
        CHECK(call->replies == 1);
        CHECK(call->status == -EPIPE);
    }
    CHECK(again.status == -EPIPE);
    // After the end it is the same.
    again.replies = 0;
    pair.connection->send(again);
    CHECK(again.replies == 0);
    REQUIRE(f.run_until([&] { return again.replies == 1; }));
    CHECK(again.status == -EPIPE);
}

NET_TEST("closing from inside a reply") {
    Pair pair(f);
    ReadCall first(0, 4096), second(0, 4096);
    first.then = [&](ReadCall&) {
        pair.connection->close(CloseReason::by_us, "enough");
        pair.connection->close(CloseReason::by_us, "twice");
        CHECK(pair.handler.closed == 0);
    };
    pair.connection->send(first);
    pair.connection->send(second);
    pair.raw->take(2 * kHeaderSize);
    pair.raw->send(good_read_reply(1, 0, 4096) + good_read_reply(2, 0, 4096));
    REQUIRE(pair.wait_closed());
    CHECK(pair.handler.text == "enough");
    CHECK(first.status == 0);
    CHECK(second.replies == 1);
    CHECK(second.status == -EPIPE);
}

NET_TEST("writes larger than the socket's buffers leave whole, gathered from pieces") {
    Pair pair(f);
    std::string data = data_of(0, 3 << 20);
    struct WriteCall : Call {
        bool done = false;
    } call;
    call.on_reply = [](Call* self) { static_cast<WriteCall*>(self)->done = true; };
    wire::encode_request(call.request, {0, Opcode::write},
                         wire::ClientRequest{1, 0, static_cast<uint32_t>(data.size()), 0, 0, 0});
    size_t at = 0;
    for (int i = 0; i < Call::kMaxPayloadIov; i++) {
        const size_t size = i + 1 == Call::kMaxPayloadIov ? data.size() - at : 4096u * static_cast<size_t>(i + 1) + 1;
        call.payload[i] = {data.data() + at, size};
        at += size;
    }
    call.payload_count = Call::kMaxPayloadIov;
    pair.connection->send(call);
    const std::string got = pair.raw->take(kHeaderSize + data.size());
    REQUIRE(got.size() == kHeaderSize + data.size());
    CHECK(got.substr(kHeaderSize) == data);
    pair.raw->send(reply_bytes(1, Opcode::write, static_cast<int64_t>(data.size())));
    REQUIRE(f.run_until([&] { return call.done; }));
}

NET_TEST("keepalive: PING after silence, close when nobody answers") {
    Pair pair(f);
    ReadCall waiting(0, 4096);
    pair.connection->send(waiting);
    pair.raw->take(kHeaderSize);
    pair.connection->start_keepalive(20 * runtime::kNsPerMs, 200 * runtime::kNsPerMs);
    const auto ping = request_of(pair.raw->take(kHeaderSize));
    CHECK(ping.opcode == Opcode::ping);
    CHECK(ping.id == 2);
    pair.raw->send(reply_bytes(2, Opcode::ping, 0));
    // Answered, so it stays and asks again.
    const auto next = request_of(pair.raw->take(kHeaderSize));
    CHECK(next.opcode == Opcode::ping);
    CHECK(next.id == 3);
    // Anything else counts as life as well.
    pair.raw->send(good_read_reply(1, 0, 4096));
    REQUIRE(f.run_until([&] { return waiting.replies == 1; }));
    CHECK(waiting.status == 0);
    CHECK(!pair.connection->closed());
    REQUIRE(pair.wait_closed());
    CHECK(pair.handler.reason == CloseReason::timeout);
    CHECK(pair.handler.text.find("PING") != std::string::npos);
}

NET_TEST("keepalive: a PING answered with an error closes") {
    Pair pair(f);
    pair.connection->start_keepalive(10 * runtime::kNsPerMs, 10 * runtime::kNsPerSecond);
    pair.raw->take(kHeaderSize);
    pair.raw->send(reply_bytes(1, Opcode::ping, -22));
    REQUIRE(pair.wait_closed());
    CHECK(pair.handler.reason == CloseReason::protocol);
}

NET_TEST("requests: -EINVAL for opcodes that do not exist, PING at once, the rest to the handler") {
    ConnectionOptions options;
    options.accept_requests = true;
    Pair pair(f, options);
    pair.raw->send(request_bytes(5, Opcode(0)) + request_bytes(6, Opcode(8)) + request_bytes(7, Opcode(20)) +
                   request_bytes(8, Opcode(UINT64_MAX)) + request_bytes(9, Opcode::ping) + request_bytes(11, Opcode::sync));
    for (uint64_t id = 5; id <= 8; id++) {
        const auto reply = reply_of(pair.raw->take(kHeaderSize));
        CHECK(reply.id == id);
        CHECK(reply.retval == -EINVAL);
    }
    CHECK(reply_of(pair.raw->take(kHeaderSize)).retval == 0);
    REQUIRE(f.run_until([&] { return pair.handler.requests.size() == 1; }));
    CHECK(pair.connection->requests_in_flight() == 1);
    Connection::reply_status(*pair.handler.requests[0], -EROFS);
    CHECK(reply_of(pair.raw->take(kHeaderSize)).retval == -EROFS);
    CHECK(!pair.connection->closed());
}

NET_TEST("requests: bitmap and data, small and long, aligned, at any cut") {
    ConnectionOptions options;
    options.accept_requests = true;
    Pair pair(f, options);
    uint64_t id = 0;
    for (uint32_t bitmap : {0u, 4u, 64u, 65u, 5000u}) {
        for (uint32_t len : {0u, 4096u, 131072u}) {
            for (size_t piece : {size_t{100}, size_t{1} << 20}) {
                CAPTURE(bitmap);
                CAPTURE(len);
                if (piece == 100 && len > 4096)
                    continue;
                const std::string attr = data_of(1000, bitmap), data = data_of(7, len);
                wire::SubRequest message{{full_inode(1, 2), 0}, 5, 0, len, bitmap, 0};
                pair.raw->send_in_pieces(request_bytes(++id, Opcode::sec_write, message, attr + data), piece);
                REQUIRE(f.run_until([&] { return !pair.handler.requests.empty(); }));
                Request& request = *pair.handler.requests.back();
                pair.handler.requests.clear();
                CHECK(request.id == id);
                CHECK(request.sizes.bitmap_bytes == bitmap);
                CHECK(request.sizes.data_bytes == len);
                CHECK(std::memcmp(request.bitmap(), attr.data(), bitmap) == 0);
                if (len) {
                    CHECK(std::memcmp(request.data(), data.data(), len) == 0);
                    CHECK(reinterpret_cast<uintptr_t>(request.data()) % 4096 == 0);
                }
                Connection::reply_status(request, len);
                CHECK(reply_of(pair.raw->take(kHeaderSize)).retval == len);
            }
        }
    }
}

NET_TEST("while the loop's buffers are many, a client has one request at a time, and an OSD as many as ever") {
    for (bool from_osd : {false, true}) {
        CAPTURE(from_osd);
        ConnectionOptions options;
        options.accept_requests = true;
        options.max_buffer_bytes = 1 << 20;
        Pair pair(f, options);
        if (from_osd) pair.connection->set_peer_osd(5);
        Buffer others = f.loop->buffers().allocate(2 << 20);
        std::string bytes;
        for (uint64_t id = 1; id <= 6; id++)
            bytes += request_bytes(id, Opcode::write, wire::ClientRequest{1, 0, 4096, 0, 0, 0}, data_of(id, 4096));
        pair.raw->send(bytes);
        REQUIRE(f.run_until([&] { return !pair.handler.requests.empty(); }));
        f.settle(3);
        CHECK(pair.connection->requests_in_flight() == (from_osd ? 6 : 1));
        for (uint64_t id = 1; id <= 6; id++) {
            REQUIRE(f.run_until([&] { return !pair.handler.requests.empty(); }));
            f.settle(3);
            if (id == 3) others.release();
            Request* request = pair.handler.requests.front();
            pair.handler.requests.erase(pair.handler.requests.begin());
            CHECK(request->id == id);
            Connection::reply_status(*request, 4096);
            CHECK(reply_of(pair.raw->take(kHeaderSize)).id == id);
            if (id == 3) {
                f.settle(3);
                CHECK(pair.connection->requests_in_flight() == 3);
            }
        }
    }
}

NET_TEST("requests beyond the limit wait in the socket") {
    for (bool by_bytes : {false, true}) {
        CAPTURE(by_bytes);
        ConnectionOptions options;
        options.accept_requests = true;
        if (by_bytes)
            options.max_request_bytes = 2 * 4096;
        else
            options.max_requests_in_flight = 2;
        Pair pair(f, options);
        std::string bytes;
        for (uint64_t id = 1; id <= 10; id++)
            bytes += request_bytes(id, Opcode::write, wire::ClientRequest{1, 0, 4096, 0, 0, 0}, data_of(id, 4096));
        pair.raw->send(bytes);
        for (uint64_t id = 1; id <= 10; id++) {
            REQUIRE(f.run_until([&] { return !pair.handler.requests.empty() && pair.handler.requests.back()->id >= std::min<uint64_t>(id + 1, 10); }));
            f.settle(3);
            CHECK(pair.connection->requests_in_flight() <= 2);
            ConnectionMemory memory = pair.connection->memory();
            CHECK(memory.requests >= 4096);
            CHECK(memory.requests <= 3 * 4096);
            CHECK(memory.receive_buffers == options.receive_buffer_bytes);
            CHECK(memory.objects > pair.connection->requests_in_flight() * sizeof(Request));
            Request* request = pair.handler.requests.front();
            pair.handler.requests.erase(pair.handler.requests.begin());
            CHECK(request->id == id);
            Connection::reply_status(*request, 4096);
            CHECK(reply_of(pair.raw->take(kHeaderSize)).id == id);
        }
        CHECK(pair.connection->memory().requests == 0);
    }
}

NET_TEST("answers that the peer does not take stop the receiving, not the process") {
    ConnectionOptions options;
    options.accept_requests = true;
    options.max_reply_bytes_queued = 1 << 20;
    Pair pair(f, options);
    std::string reply_data(1 << 20, 'z');
    // The raw peer reads only what it is told to take, but its loop reads on: so hold its bytes back by many requests at once.
    std::string bytes;
    for (uint64_t id = 1; id <= 20; id++)
        bytes += request_bytes(id, Opcode::sync);
    pair.raw->send(bytes);
    size_t answered = 0;
    REQUIRE(f.run_until([&] {
        for (; answered < pair.handler.requests.size(); answered++) {
            Request& request = *pair.handler.requests[answered];
            request.reply_iov[0] = {reply_data.data(), reply_data.size()};
            request.reply_count = 1;
            wire::encode_reply(request.reply, {request.id, request.opcode, 0});
            Connection::reply(request);
        }
        return pair.raw->received.size() >= 20 * (kHeaderSize + reply_data.size());
    }));
    CHECK(answered == 20);
}

NET_TEST("requests survive their connection until they are answered") {
    ConnectionOptions options;
    options.accept_requests = true;
    static int finished;
    finished = 0;
    std::vector<Request*> requests;
    {
        Pair pair(f, options);
        pair.raw->send(request_bytes(1, Opcode::write, wire::ClientRequest{1, 0, 8192, 0, 0, 0}, data_of(0, 8192)) +
                       request_bytes(2, Opcode::sync) + request_bytes(3, Opcode::sync));
        REQUIRE(f.run_until([&] { return pair.handler.requests.size() == 3; }));
        requests = pair.handler.requests;
        for (Request* request : requests)
            request->on_finished = [](Request*) { finished++; };
        pair.raw->close();
        Connection::reply_status(*requests[2], 0);  // before we know
        REQUIRE(pair.wait_closed());
        CHECK(finished == 1);
        CHECK(requests[0]->connection == nullptr);
        Connection::reply_status(*requests[1], 0);
        CHECK(finished == 2);
    }
    CHECK(std::memcmp(requests[0]->data(), data_of(0, 8192).data(), 8192) == 0);
    Connection::reply_status(*requests[0], 0);
    CHECK(finished == 3);
}

NET_TEST("sequence check, from the moment it is asked for") {
    ConnectionOptions options;
    options.accept_requests = true;
    Pair pair(f, options);
    pair.raw->send(request_bytes(10, Opcode::ping) + request_bytes(5, Opcode::ping));
    CHECK(reply_of(pair.raw->take(kHeaderSize)).id == 10);
    CHECK(reply_of(pair.raw->take(kHeaderSize)).id == 5);
    pair.connection->require_sequencing();
    pair.raw->send(request_bytes(6, Opcode::ping));
    CHECK(reply_of(pair.raw->take(kHeaderSize)).id == 6);
    pair.raw->send(request_bytes(6, Opcode::ping));
    REQUIRE(pair.wait_closed());
    CHECK(pair.handler.reason == CloseReason::protocol);
    CHECK(pair.handler.text.find("consecutive") != std::string::npos);
}

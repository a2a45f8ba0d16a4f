// SPDX-License-Identifier: GPL-2.0-or-later
// One TCP connection that speaks the OSD protocol, in both roles: sends Calls and matches replies, receives requests and
// takes answers. Batches: everything queued during a turn of the loop leaves with one send; one receive brings many messages.
// All methods on the loop's thread. Nothing here blocks or allocates from the general heap per message.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <string>

#include "base/buffer.hpp"
#include "base/list.hpp"
#include "runtime/loop.hpp"
#include "wire/codec.hpp"

namespace vitastor::net {

class Connection;

/// One request that we send. Embedded in the caller's object (derive from it); pinned from Connection::send until on_reply ran.
/// Its list node must be free meanwhile. On entry to on_reply the call is free for reuse or destruction.
/// on_reply runs exactly once: with status 0 and the decoded reply, or with a negative errno:
/// -EPIPE (connection gone), -EPROTO (the reply does not fit; the connection has been closed).
struct Call : ListNode {
    static constexpr int kMaxPayloadIov = 8;
    uint8_t request[wire::kHeaderSize];  ///< filled by wire::encode_request; the id is patched on sending
    iovec payload[kMaxPayloadIov];       ///< sent after the header, borrowed until on_reply
    int payload_count = 0;

    /// Where the reply's payload goes. bitmap_out: up to bitmap_capacity bytes (a longer bitmap is a protocol error);
    /// nullptr: the bitmap is thrown away.
    /// data_out: scatter list of exactly the expected data bytes, for READ and SEC_READ; it must sum up to the request's len.
    /// nullptr + data_count 0: the payload is received into reply_payload (allocated, for lists and JSON), bounded by wire limits.
    uint8_t* bitmap_out = nullptr;
    uint32_t bitmap_capacity = 0;
    const iovec* data_out = nullptr;
    int data_count = 0;

    // ---- results
    uint8_t reply[wire::kHeaderSize];
    int64_t retval = 0;          ///< of the reply, when status is 0
    uint32_t bitmap_size = 0;    ///< bytes received into bitmap_out
    Buffer reply_payload;
    int status = 0;
    void (*on_reply)(Call* self) = nullptr;

    // ---- private to Connection
    uint64_t id = 0;
    Call* hash_next = nullptr;
    bool leaving = false;  ///< still in the send queue or in the kernel's hands: on_reply waits for that
    bool replied = false;
};

/// One request that we received; owns its payload. Lives in a pool of its connection; given to the handler by on_request, which
/// must answer with Connection::reply exactly once (later is fine; if the connection has died meanwhile the answer is dropped).
struct Request : ListNode {
    static constexpr int kMaxReplyIov = 4;
    uint8_t header[wire::kHeaderSize];
    wire::Opcode opcode{};
    uint64_t id = 0;
    wire::PayloadSizes sizes;
    /// Bitmaps of up to kSmallBitmap bytes lie inside the request, then data starts the buffer; longer ones start the buffer and
    /// data follows at the next multiple of 4096. No buffer if there is nothing to hold.
    static constexpr size_t kSmallBitmap = 64;
    Buffer buffer;
    uint8_t bitmap_small[kSmallBitmap];
    uint8_t* bitmap() { return sizes.bitmap_bytes <= kSmallBitmap ? bitmap_small : buffer.data(); }
    size_t data_offset() const { return sizes.bitmap_bytes <= kSmallBitmap ? 0 : (sizes.bitmap_bytes + 4095) & ~size_t{4095}; }
    uint8_t* data() { return buffer.data() + data_offset(); }  ///< data_bytes, 4096-aligned; never touched when data_bytes is 0
    Connection* connection = nullptr;  ///< nullptr after the connection has died
    OsdNum peer_osd = 0;               ///< number announced by the peer when this arrived; 0 = client
    uint64_t received_ns = 0;
    void* user = nullptr;              ///< for the handler

    // ---- the answer: set by the handler before Connection::reply
    uint8_t reply[wire::kHeaderSize];
    uint8_t reply_small[64];  ///< room for a short bitmap; as the first reply_iov it leaves in one piece with the header
    iovec reply_iov[kMaxReplyIov];  ///< borrowed until on_finished (owner: reply_buffer, `buffer`, or whoever is told by on_finished)
    int reply_count = 0;
    Buffer reply_buffer;
    /// Optional: runs when the answer has left or the connection has died, just before the request is recycled.
    void (*on_finished)(Request* self) = nullptr;

    // ---- private to Connection
    void* pool = nullptr;
    Request* next_live = nullptr;
    Request* prev_live = nullptr;
};

enum class CloseReason { by_us, by_peer, error, protocol, timeout };

class ConnectionHandler {
public:
    virtual ~ConnectionHandler() = default;
    /// A complete request. PING and unknown opcodes (-EINVAL) are answered by the connection itself and never arrive here. A
    /// request of a peer that may not send any (client role) closes the connection instead.
    virtual void on_request(Connection& connection, Request& request) = 0;
    /// Once, after all Calls in flight have been answered with -EPIPE and all Requests have connection == nullptr.
    virtual void on_closed(Connection& connection, CloseReason reason, const std::string& text) = 0;
};

struct ConnectionOptions {
    uint32_t receive_buffer_bytes = 65536;  ///< tcp_header_buffer_size
    uint32_t max_requests_in_flight = 16384;  ///< received and not yet answered; beyond it we stop receiving
    uint64_t max_request_bytes = 128ull << 20;       ///< payload of requests not yet answered; beyond it we stop receiving
    uint64_t max_reply_bytes_queued = 128ull << 20;  ///< answers that the peer does not take; beyond it we stop receiving
    /// As long as buffers of the loop hold more than this, a connection (not one that announced an OSD: others wait for those) takes its next
    /// request only when it has none in flight. 0: no limit.
    uint64_t max_buffer_bytes = 0;
    bool accept_requests = false;             ///< OSD side, or our end of an OSD-OSD connection (PING only)
};

/// What a connection keeps in memory. The last three are buffers of the loop.
struct ConnectionMemory {
    uint64_t objects = 0;          ///< bytes of the connection itself, its queues and its requests, used and free ones
    uint64_t receive_buffers = 0;  ///< staging
    uint64_t requests = 0;         ///< payload of requests that are not yet answered
    uint64_t replies = 0;          ///< payload of answers that have not left
    void add(const ConnectionMemory& other) {
        objects += other.objects;
        receive_buffers += other.receive_buffers;
        requests += other.requests;
        replies += other.replies;
    }
};

class Connection {
public:
    /// Takes over the connected socket. handler outlives the connection. Deletes itself never: the owner destroys it after on_closed.
    Connection(runtime::Loop& loop, runtime::Socket socket, const ConnectionOptions& options,
               ConnectionHandler& handler);
    ~Connection();
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    /// Queues a request; it leaves at the end of this turn at the latest. On a closed connection on_reply runs on the next turn.
    void send(Call& call);
    /// Queues the answer (request.reply, reply_iov) and recycles the request when it has left; at once if the connection has
    /// died (then request.connection is nullptr). Static, so that it can be called in both cases.
    static void reply(Request& request);
    /// An answer without fields and payload.
    static void reply_status(Request& request, int64_t retval);
    /// Closes soon: on_closed runs on a later turn. Idempotent.
    void close(CloseReason reason, const std::string& text);
    bool closed() const;

    // ---- what SHOW_CONFIG negotiated
    OsdNum peer_osd() const;  ///< incoming: announced; outgoing: the OSD we wanted
    void set_peer_osd(OsdNum osd);
    void require_sequencing();  ///< incoming ids must be previous + 1 from now on
    /// Keepalive per wire-protocol 1.3: PING after idle_ns of silence, close when it is not answered within timeout_ns.
    void start_keepalive(uint64_t idle_ns, uint64_t timeout_ns);
    void stop_keepalive();

    uint64_t calls_in_flight() const;
    uint64_t requests_in_flight() const;
    ConnectionMemory memory() const;
    std::string peer_name() const;
    runtime::Loop& loop();

private:
    struct Impl;
    Impl* impl_;
};

}  // namespace vitastor::net

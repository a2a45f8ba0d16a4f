// SPDX-License-Identifier: GPL-2.0-or-later
// State of one connection. Private to connection.cpp (life, calls, keepalive), connection_send.cpp and connection_receive.cpp.
//
//   open ──close() or an error──► closing ──no operation in flight──► failing calls ──none left──► finished (on_closed)
//
// The receive side is a stream of units: header, then payload. Bytes land in the staging buffer; the rest of a payload that has
// not arrived completely is received straight into its destination, with the staging buffer behind it for what follows.
#pragma once

#include "net/call_table.hpp"
#include "net/request_pool.hpp"
#include "net/ring.hpp"

namespace vitastor::net {

inline constexpr int kMaxSendIov = 256;
inline constexpr size_t kMaxSendBytes = 1 << 20;  ///< a send is not extended beyond this
/// A longer message (a listing) goes and comes in pieces of this size: the kernel copies 4 KB in about 0.3 us, and nothing else runs meanwhile.
inline constexpr size_t kMaxPieceBytes = 256 << 10;
inline constexpr int kMaxReceiveIov = 17;         ///< 16 pieces of a payload and the staging buffer
inline constexpr uint64_t kBulkPayload = 32 << 10;  ///< from here on a payload counts as bulk
inline constexpr size_t kBulkStaging = 4096;  ///< what may be received behind a bulk payload: little of the next is copied
inline constexpr uint64_t kTimeoutGraceNs = 20 * runtime::kNsPerMs;  ///< a stalled loop first looks at what has arrived
inline constexpr uint64_t kTrimIntervalNs = runtime::kNsPerSecond;

/// A Call or a Request (its answer) in the order of leaving.
class Outgoing {
public:
    Outgoing() = default;
    explicit Outgoing(Call* call) : tagged_(reinterpret_cast<uintptr_t>(call)) {}
    explicit Outgoing(Request* request) : tagged_(reinterpret_cast<uintptr_t>(request) | 1) {}
    Call* call() const { return tagged_ & 1 ? nullptr : reinterpret_cast<Call*>(tagged_); }
    Request* request() const { return reinterpret_cast<Request*>(tagged_ & ~uintptr_t{1}); }

private:
    uintptr_t tagged_ = 0;
};

enum class ConnectionState { open, closing, failing, finished };

struct Connection::Impl {
    template <class Base>
    struct Part : Base {
        Impl* impl = nullptr;
    };

    Connection& self;
    runtime::Loop& loop;
    ConnectionHandler& handler;
    const ConnectionOptions options;
    runtime::Socket socket;
    const std::string name;
    ConnectionState state = ConnectionState::open;
    OsdNum peer_osd = 0;

    // ---- sending
    Ring<Outgoing> queue;      ///< not completely sent; the first may be sent in part
    size_t front_sent = 0;     ///< bytes of the first that have left
    bool sending = false;      ///< the kernel has send_iov
    bool turn_queued = false;  ///< turn runs at the end of this turn
    uint64_t last_id = 0;      ///< of our own requests
    uint64_t reply_bytes = 0;  ///< payload of queued answers
    CallTable calls;           ///< sent or queued, and not yet replied
    List<Call> late;           ///< sent after the end: answered on the next turn
    Part<runtime::Completion> send_op;
    Part<runtime::Deferred> turn;
    iovec send_iov[kMaxSendIov];

    // ---- receiving
    Buffer staging;
    size_t stage_begin = 0, stage_end = 0;  ///< unread bytes
    bool receiving = false;                 ///< the kernel has receive_iov
    bool paused = false;                    ///< too much in flight: neither parse nor receive
    uint32_t bulk_credit = 0;               ///< > 0: recent payloads were large
    Request* rx_request = nullptr;          ///< whose payload is arriving
    Call* rx_call = nullptr;
    uint64_t payload_left = 0;       ///< bytes of the current payload that have not arrived
    uint64_t skip_left = 0;          ///< of these, the first so many are thrown away
    iovec rx_own[2];                 ///< destination list when it is not the caller's
    iovec rx_head;                   ///< first piece, before the list; may be empty
    const iovec* rx_list = nullptr;  ///< the rest
    int rx_count = 0;
    size_t rx_offset = 0;  ///< in rx_head or, when that is full, in rx_list[0]
    uint64_t direct_bytes = 0;  ///< of receive_iov, before the staging buffer
    uint64_t last_request_id = 0;
    bool check_sequence = false;
    uint64_t request_bytes = 0;  ///< payload of requests not yet answered
    uint64_t last_receive_ns = 0;
    Part<runtime::Completion> receive_op;
    iovec receive_iov[kMaxReceiveIov];
    RequestPool* pool;

    // ---- keepalive and housekeeping
    Part<runtime::Timer> keepalive;
    uint64_t idle_ns = 0, timeout_ns = 0;
    bool ping_waiting = false;  ///< for any byte since ping_ns
    bool ping_grace = false;
    bool ping_busy = false;     ///< ping_call is in flight
    uint64_t ping_ns = 0;
    Part<Call> ping_call;
    Part<runtime::Timer> trim_timer;

    // ---- the end
    CloseReason close_reason = CloseReason::by_us;
    std::string close_text;

    Impl(Connection& self, runtime::Loop& loop, runtime::Socket socket,
         const ConnectionOptions& options, ConnectionHandler& handler);
    ~Impl();

    bool is_open() const { return state == ConnectionState::open; }
    void close(CloseReason reason, std::string text);
    void protocol_error(std::string text) { close(CloseReason::protocol, std::move(text)); }
    void want_turn();
    void on_turn();
    void finish();

    // connection_send.cpp
    void queue_call(Call& call);
    void queue_reply(Request& request);
    void start_send();
    void on_sent(int64_t result);
    void drop_queue();
    void recycle(Request* request);
    static void answer_call(Call* call, int status);
    static void call_left(Call& call);

    // connection_receive.cpp
    void start_receive();
    void on_received(int64_t result);
    void parse();
    bool parse_header(const uint8_t* bytes);
    bool parse_request(const uint8_t* bytes);
    bool parse_reply(const uint8_t* bytes);
    bool check_reply(Call& call, const wire::ReplyHeader& header, const wire::PayloadSizes& sizes);
    void begin_payload(uint64_t total);
    void advance_sink(size_t bytes);
    void copy_in(const uint8_t* bytes, size_t count);
    void payload_complete();
    void dispatch(Request& request);
    bool overloaded() const;
    void resume();

    // connection.cpp
    void on_keepalive();
    void send_ping();
    void on_ping_reply();
    void on_trim();
};

}  // namespace vitastor::net

// SPDX-License-Identifier: GPL-2.0-or-later
// The receiving side: cuts the stream into messages, believes no length before it is judged, copies payload at most once.
#include <cstring>

#include "base/assert.hpp"
#include "net/connection_impl.hpp"

namespace vitastor::net {

using wire::kHeaderSize;
using wire::Opcode;

namespace {

std::span<const uint8_t, kHeaderSize> header_at(const uint8_t* bytes) {
    return std::span<const uint8_t, kHeaderSize>(bytes, kHeaderSize);
}

/// Data bytes that the request asked for; UINT64_MAX if the opcode does not fix it.
uint64_t expected_data(const Call& call, Opcode opcode) {
    switch (opcode) {
    case Opcode::read:
        return wire::decode<wire::ClientRequest>(header_at(call.request)).len;
    case Opcode::sec_read:
        return wire::decode<wire::SubRequest>(header_at(call.request)).len;
    default:
        return UINT64_MAX;
    }
}

}  // namespace

bool Connection::Impl::overloaded() const {
    return pool->live() >= options.max_requests_in_flight || request_bytes >= options.max_request_bytes ||
           reply_bytes >= options.max_reply_bytes_queued ||
           // Looked at again when an answer of ours has left, at the latest the last one.
           (options.max_buffer_bytes && !peer_osd && pool->live() > 0 &&
            loop.buffers().used_bytes() > options.max_buffer_bytes);
}

void Connection::Impl::start_receive() {
    int count = 0;
    direct_bytes = 0;
    bool all_listed = true;
    if (payload_left && !skip_left) {
        VITASTOR_VERIFY(stage_begin == stage_end);
        size_t offset = rx_offset;
        if (rx_head.iov_len) {
            receive_iov[count++] = {static_cast<uint8_t*>(rx_head.iov_base) + offset, rx_head.iov_len - offset};
            direct_bytes += rx_head.iov_len - offset;
            offset = 0;
        }
        int i = 0;
        for (; i < rx_count && count < kMaxReceiveIov - 1 && direct_bytes < kMaxPieceBytes; i++) {
            const size_t left = rx_list[i].iov_len - offset, size = std::min<size_t>(left, kMaxPieceBytes - direct_bytes);
            receive_iov[count++] = {static_cast<uint8_t*>(rx_list[i].iov_base) + offset, size};
            direct_bytes += size;
            offset = 0;
            if (size < left)
                break;
        }
        all_listed = i == rx_count;
    }
    if (stage_begin == stage_end) {
        stage_begin = stage_end = 0;
    } else if (stage_begin) {
        std::memmove(staging.data(), staging.data() + stage_begin, stage_end - stage_begin);
        stage_end -= stage_begin;
        stage_begin = 0;
    }
    if (all_listed) {
        // Behind bulk data take little, so that little of the next payload has to be copied.
        size_t room = staging.size() - stage_end;
        if (bulk_credit && room > kBulkStaging)
            room = kBulkStaging;
        receive_iov[count++] = {staging.data() + stage_end, room};
    }
    receiving = true;
    loop.receive(socket, receive_iov, count, receive_op);
}

void Connection::Impl::on_received(int64_t result) {
    receiving = false;
    if (is_open() && result <= 0) {
        if (result == 0 || result == -ECONNRESET || result == -EPIPE)
            close(CloseReason::by_peer, "the peer has closed the connection");
        else
            close(CloseReason::error, std::string("receiving failed: ") + strerror(static_cast<int>(-result)));
    }
    if (!is_open()) {
        want_turn();
        return;
    }
    last_receive_ns = loop.now_ns();
    auto bytes = static_cast<uint64_t>(result);
    const uint64_t direct = std::min(bytes, direct_bytes);
    stage_end += bytes - direct;
    if (direct) {
        advance_sink(direct);
        payload_left -= direct;
        if (!payload_left)
            payload_complete();
    }
    if (is_open())
        parse();
    if (is_open() && !paused)
        start_receive();
}

/// Everything that the staging buffer holds. Stops when closed or overloaded.
void Connection::Impl::parse() {
    while (is_open()) {
        const size_t available = stage_end - stage_begin;
        if (payload_left) {
            if (!available)
                return;
            const auto count = static_cast<size_t>(std::min<uint64_t>(available, payload_left));
            copy_in(staging.data() + stage_begin, count);
            stage_begin += count;
            payload_left -= count;
            if (payload_left)
                return;
            payload_complete();
            continue;
        }
        if (available < kHeaderSize)
            return;
        if (overloaded()) {
            VITASTOR_PROBE("connection paused by backpressure");
            paused = true;
            return;
        }
        const uint8_t* bytes = staging.data() + stage_begin;
        stage_begin += kHeaderSize;
        if (!parse_header(bytes))
            return;
    }
}

void Connection::Impl::resume() {
    paused = false;
    last_receive_ns = loop.now_ns();
    parse();
    if (is_open() && !paused && !receiving)
        start_receive();
}

/// Takes one header; if no payload follows, the message is complete. False: closed.
bool Connection::Impl::parse_header(const uint8_t* bytes) {
    uint64_t magic;
    std::memcpy(&magic, bytes, 8);
    if (magic == wire::kReplyMagic)
        return parse_reply(bytes);
    if (magic == wire::kRequestMagic)
        return parse_request(bytes);
    char text[64];
    snprintf(text, sizeof(text), "wrong magic 0x%016llx at the start of a message",
             static_cast<unsigned long long>(magic));
    protocol_error(text);
    return false;
}

bool Connection::Impl::parse_request(const uint8_t* bytes) {
    const auto header = *wire::decode_request_header(header_at(bytes));
    if (!options.accept_requests) {
        protocol_error(std::string("a request (") + wire::opcode_name(header.opcode) +
                       ") came from a peer that may only reply");
        return false;
    }
    if (check_sequence && header.id != last_request_id + 1) {
        protocol_error("request id " + std::to_string(header.id) + " follows " +
                       std::to_string(last_request_id) + ", but ids must be consecutive");
        return false;
    }
    const auto sizes = wire::request_payload(header_at(bytes));
    if (!sizes.ok()) {
        protocol_error(sizes.status().message());
        return false;
    }
    last_request_id = header.id;
    Request* request = pool->get();
    std::memcpy(request->header, bytes, kHeaderSize);
    request->opcode = header.opcode;
    request->id = header.id;
    request->sizes = sizes.value();
    request->connection = &self;
    request->peer_osd = peer_osd;
    request->received_ns = last_receive_ns;
    const uint64_t total = request->sizes.total();
    if (!total) {
        dispatch(*request);
        return is_open();
    }
    request_bytes += total;
    const size_t offset = request->data_offset();
    if (offset + request->sizes.data_bytes > 0)
        request->buffer = loop.buffers().allocate(offset + request->sizes.data_bytes);
    rx_request = request;
    rx_head = {request->bitmap(), request->sizes.bitmap_bytes};
    rx_own[0] = {request->buffer ? request->data() : nullptr, request->sizes.data_bytes};
    rx_list = rx_own;
    rx_count = request->sizes.data_bytes ? 1 : 0;
    begin_payload(total);
    return true;
}

bool Connection::Impl::parse_reply(const uint8_t* bytes) {
    const auto header = *wire::decode_reply_header(header_at(bytes));
    Call* call = calls.find(header.id);
    if (!call) {
        protocol_error("a reply has the unknown id " + std::to_string(header.id));
        return false;
    }
    const auto sizes = wire::reply_payload(header_at(bytes));
    if (!sizes.ok()) {
        call->status = -EPROTO;
        protocol_error(sizes.status().message());
        return false;
    }
    if (!check_reply(*call, header, sizes.value()))
        return false;
    std::memcpy(call->reply, bytes, kHeaderSize);
    call->retval = header.retval;
    rx_call = call;
    const wire::PayloadSizes payload = sizes.value();
    if (!payload.total()) {
        payload_complete();
        return is_open();
    }
    rx_head = {};
    rx_list = rx_own;
    rx_count = 0;
    skip_left = 0;
    if (header.retval < 0 || !call->bitmap_out) {
        skip_left = payload.bitmap_bytes;
    } else {
        rx_head = {call->bitmap_out, payload.bitmap_bytes};
        call->bitmap_size = static_cast<uint32_t>(payload.bitmap_bytes);
    }
    if (call->data_out && payload.data_bytes) {
        rx_list = call->data_out;
        rx_count = call->data_count;
    } else if (payload.data_bytes) {
        call->reply_payload = loop.buffers().allocate(payload.data_bytes);
        rx_own[0] = {call->reply_payload.data(), payload.data_bytes};
        rx_count = 1;
    }
    begin_payload(payload.total());
    return true;
}

/// Does the reply fit what was asked and the room that the caller gave?
bool Connection::Impl::check_reply(Call& call, const wire::ReplyHeader& header,
                                   const wire::PayloadSizes& sizes) {
    const auto asked = wire::decode_request_header(header_at(call.request));
    std::string text;
    if (asked->opcode != header.opcode) {
        text = std::string("the request was ") + wire::opcode_name(asked->opcode) + ", the reply says " +
               wire::opcode_name(header.opcode);
    } else if (header.retval >= 0) {
        const uint64_t data = expected_data(call, header.opcode);
        if (data != UINT64_MAX && sizes.data_bytes != data)
            text = std::string(wire::opcode_name(header.opcode)) + " of " + std::to_string(data) +
                   " bytes was answered with " + std::to_string(sizes.data_bytes);
        else if (call.bitmap_out && sizes.bitmap_bytes > call.bitmap_capacity)
            text = std::string(wire::opcode_name(header.opcode)) + " was answered with a bitmap of " +
                   std::to_string(sizes.bitmap_bytes) + " bytes, at most " +
                   std::to_string(call.bitmap_capacity) + " were expected";
        else if (call.data_out && sizes.data_bytes) {
            uint64_t room = 0;
            for (int i = 0; i < call.data_count; i++)
                room += call.data_out[i].iov_len;
            if (room != sizes.data_bytes)
                text = "the caller gave room for " + std::to_string(room) + " bytes, " +
                       std::to_string(sizes.data_bytes) + " came";
        }
    } else if (call.data_out && sizes.data_bytes) {
        text = "an error reply carries data";
    }
    if (text.empty())
        return true;
    call.status = -EPROTO;
    protocol_error(text);
    return false;
}

void Connection::Impl::begin_payload(uint64_t total) {
    payload_left = total;
    rx_offset = 0;
    if (total >= kBulkPayload)
        bulk_credit = 8;
    else if (bulk_credit)
        bulk_credit--;
}

/// `bytes` have been put where rx_head and rx_list point; moves on.
void Connection::Impl::advance_sink(size_t bytes) {
    rx_offset += bytes;
    if (rx_head.iov_len) {
        if (rx_offset < rx_head.iov_len)
            return;
        rx_offset -= rx_head.iov_len;
        rx_head = {};
    }
    while (rx_count && rx_offset >= rx_list->iov_len) {
        rx_offset -= rx_list->iov_len;
        rx_list++;
        rx_count--;
    }
}

void Connection::Impl::copy_in(const uint8_t* bytes, size_t count) {
    if (skip_left) {
        const auto skipped = static_cast<size_t>(std::min<uint64_t>(skip_left, count));
        skip_left -= skipped;
        bytes += skipped;
        count -= skipped;
    }
    while (count) {
        const iovec& to = rx_head.iov_len ? rx_head : *rx_list;
        const size_t piece = std::min(count, to.iov_len - rx_offset);
        std::memcpy(static_cast<uint8_t*>(to.iov_base) + rx_offset, bytes, piece);
        advance_sink(piece);
        bytes += piece;
        count -= piece;
    }
}

void Connection::Impl::payload_complete() {
    if (rx_request) {
        dispatch(*std::exchange(rx_request, nullptr));
        return;
    }
    Call* call = std::exchange(rx_call, nullptr);
    calls.remove(call);
    call->replied = true;
    if (!call->leaving)
        answer_call(call, 0);
    else
        VITASTOR_PROBE("reply before the request was seen to leave");
}

void Connection::Impl::dispatch(Request& request) {
    const auto opcode = static_cast<uint64_t>(request.opcode);
    if (request.opcode == Opcode::ping) {
        Connection::reply_status(request, 0);
    } else if (opcode == 0 || opcode == 8 || opcode > wire::kMaxOpcode) {
        Connection::reply_status(request, -EINVAL);
    } else {
        handler.on_request(self, request);
    }
}

}  // namespace vitastor::net

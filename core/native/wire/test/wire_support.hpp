// SPDX-License-Identifier: GPL-2.0-or-later
// Decode-and-encode of any message by its opcode, and hexadecimal, for the tests and the fuzz target.
#pragma once

#include <array>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "wire/codec.hpp"
#include "wire/layout.hpp"

namespace vitastor::wire::test {

using Header = std::array<uint8_t, kHeaderSize>;

inline std::vector<uint8_t> from_hex(std::string_view text) {
    auto digit = [](char c) { return static_cast<uint8_t>(c <= '9' ? c - '0' : c - 'a' + 10); };
    std::vector<uint8_t> out(text.size() / 2);
    for (size_t i = 0; i < out.size(); i++) out[i] = static_cast<uint8_t>(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
    return out;
}

inline Header header_from_hex(std::string_view text) {
    Header header{};
    const auto bytes = from_hex(text);
    std::memcpy(header.data(), bytes.data(), std::min(bytes.size(), header.size()));
    return header;
}

/// Sees one row of the table and the message that it belongs to.
using FieldVisitor = std::function<void(const Field& field, void* message)>;

/// Decodes the message of `in`, shows each of its fields to `visit`, which may change it, and encodes it into `out`.
/// False: wrong magic or unknown opcode.
inline bool reencode_request(const Header& in, Header& out, const FieldVisitor& visit = {}) {
    const auto header = decode_request_header(in);
    if (!header) return false;
    auto run = [&]<class M>(M) {
        M message = decode<M>(in);
        if (visit)
            for (const Field& row : Layout<M>::rows) visit(row, &message);
        encode_request(out, *header, message);
        return true;
    };
    switch (header->opcode) {
        case Opcode::sec_read:
        case Opcode::sec_write:
        case Opcode::sec_write_stable:
            return run(SubRequest{});
        case Opcode::sec_sync:
            return run(SubSyncRequest{});
        case Opcode::sec_stabilize:
        case Opcode::sec_rollback:
        case Opcode::sec_read_bmp:
            return run(TripleRequest{});
        case Opcode::sec_delete:
            return run(SubDeleteRequest{});
        case Opcode::sec_list:
            return run(ListRequest{});
        case Opcode::show_config:
            return run(ConfigRequest{});
        case Opcode::read:
        case Opcode::write:
        case Opcode::del:
        case Opcode::scrub:
            return run(ClientRequest{});
        case Opcode::describe:
            return run(DescribeRequest{});
        case Opcode::sec_lock:
            return run(LockRequest{});
        case Opcode::sync:
        case Opcode::ping:
            encode_request(out, *header);
            return true;
    }
    return false;
}

inline bool reencode_reply(const Header& in, Header& out, const FieldVisitor& visit = {}) {
    const auto header = decode_reply_header(in);
    if (!header) return false;
    auto run = [&]<class M>(M) {
        M message = decode<M>(in);
        if (visit)
            for (const Field& row : Layout<M>::rows) visit(row, &message);
        encode_reply(out, *header, message);
        return true;
    };
    switch (header->opcode) {
        case Opcode::sec_read:
        case Opcode::sec_write:
        case Opcode::sec_write_stable:
            return run(SubReply{});
        case Opcode::sec_delete:
            return run(SubDeleteReply{});
        case Opcode::sec_list:
            return run(ListReply{});
        case Opcode::read:
            return run(ReadReply{});
        case Opcode::write:
            return run(WriteReply{});
        case Opcode::del:
            return run(DeleteReply{});
        case Opcode::describe:
            return run(DescribeReply{});
        case Opcode::sec_lock:
            return run(LockReply{});
        default:
            if (static_cast<uint64_t>(header->opcode) == 0 || header->opcode > Opcode::sec_lock) return false;
            encode_reply(out, *header);
            return true;
    }
}

/// Bytes that 3.0.8 leaves undefined in this request: from offset 64 on for SEC_READ and SEC_WRITE. Source: wire-protocol 2.1.
inline size_t defined_bytes(const Header& header, bool reply) {
    if (reply) return kHeaderSize;
    const auto request = decode_request_header(header);
    return request && request->opcode <= Opcode::sec_write_stable ? 64 : kHeaderSize;
}

}  // namespace vitastor::wire::test

// SPDX-License-Identifier: GPL-2.0-or-later
// Messages to bytes and back. encode_* zero the whole header first (reserved bytes are zero); decode_* never believe a length.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "wire/messages.hpp"

namespace vitastor::wire {

using HeaderBytes = std::span<uint8_t, kHeaderSize>;
using ConstHeaderBytes = std::span<const uint8_t, kHeaderSize>;

/// Message structs are encoded by overload: ClientRequest, SubRequest, SubSyncRequest, TripleRequest, SubDeleteRequest,
/// ListRequest, ConfigRequest, DescribeRequest, LockRequest. PING and SYNC have no fields: encode_request(out, header).
/// header.id may be 0; the connection writes its own with patch_request_id().
void encode_request(HeaderBytes out, const RequestHeader& header);
template <class Message>
void encode_request(HeaderBytes out, const RequestHeader& header, const Message& message);
void patch_request_id(HeaderBytes out, uint64_t id);

/// ReadReply, WriteReply, DeleteReply, SubReply, SubDeleteReply, ListReply, DescribeReply, LockReply; the rest have no fields.
void encode_reply(HeaderBytes out, const ReplyHeader& header);
template <class Message>
void encode_reply(HeaderBytes out, const ReplyHeader& header, const Message& message);

/// nullopt: wrong magic (close the connection). Does not check the opcode.
std::optional<RequestHeader> decode_request_header(ConstHeaderBytes in);
std::optional<ReplyHeader> decode_reply_header(ConstHeaderBytes in);
/// Fields of one message, without judgement; the caller validates ranges.
template <class Message>
Message decode(ConstHeaderBytes in);

/// What follows a header on the wire, in order.
struct PayloadSizes {
    uint64_t bitmap_bytes = 0;
    uint64_t data_bytes = 0;
    uint64_t total() const { return bitmap_bytes + data_bytes; }
};
/// From the request header alone (unknown opcodes: nothing). Error -E2BIG: over our limits, close the connection.
Result<PayloadSizes> request_payload(ConstHeaderBytes in);
/// From the reply header. Error as above, also for lengths that cannot belong to the opcode.
Result<PayloadSizes> reply_payload(ConstHeaderBytes in);

void encode_triples(std::span<uint8_t> out, std::span<const ObjectVersion> triples);  ///< out: 24 bytes each
/// in.size() must be a multiple of 24 (else -EINVAL).
Result<std::vector<ObjectVersion>> decode_triples(std::span<const uint8_t> in);
void encode_describe_items(std::span<uint8_t> out, std::span<const DescribeItem> items);
Result<std::vector<DescribeItem>> decode_describe_items(std::span<const uint8_t> in);

inline constexpr size_t kMaxSecureModes = 16;  ///< of an offer; more are ignored

/// SHOW_CONFIG payloads. Unknown fields are ignored. Source: wire-protocol 6.
struct ConfigRequestJson {
    OsdNum osd_num = 0;  ///< 0 = client
    bool check_sequencing = true;
    /// Reserved for our authenticated and encrypted mode: the modes the opener offers ("vitastor_secure": ["…"]); empty = plain.
    std::vector<std::string> secure_modes;
    /// Ours, of clients: the same on all connections of one context, below 2^53; 0 = none ("vitastor_session", docs/adr/0048).
    uint64_t session = 0;
};
enum class ImmediateCommit : uint8_t { none = 0, small = 1, all = 2 };
const char* to_string(ImmediateCommit mode);
struct ConfigReplyJson {
    OsdNum osd_num = 0;
    std::optional<uint64_t> protocol_version;
    std::optional<uint64_t> block_size;
    std::optional<uint64_t> bitmap_granularity;
    std::optional<ImmediateCommit> immediate_commit;
    bool pg_locks = false;
    bool tombstones = false;  ///< ours: features.tombstones (safety.md 6, docs/adr/0046)
    bool late_stabilize = false;  ///< ours: features.late_stabilize: EC writes may be answered before SEC_STABILIZE (safety.md 7)
    bool write_base = false;  ///< ours: features.write_base: SEC_WRITE takes sub_flags::based and difference (docs/adr/0045)
    bool ec_local_reads = false;  ///< ours: features.ec_local_reads: answers READs of chunks that it holds (docs/adr/0049)
    bool write_settles = false;  ///< ours: features.write_settles: and sub_flags::settles
    bool primary_enabled = true;
    bool blockstore_enabled = true;
    bool readonly = false;
    uint64_t lease_timeout = 0;
    std::string secure_mode;  ///< chosen mode, reserved
};
std::string encode_config_request(const ConfigRequestJson& config);
/// Invalid JSON counts as an empty object (wire-protocol 6.1).
ConfigRequestJson decode_config_request(std::span<const uint8_t> payload);
/// Without the terminating NUL; the sender adds it.
std::string encode_config_reply(const ConfigReplyJson& config);
/// Tolerates a missing NUL. Error -EINVAL: not a JSON object.
Result<ConfigReplyJson> decode_config_reply(std::span<const uint8_t> payload);

}  // namespace vitastor::wire

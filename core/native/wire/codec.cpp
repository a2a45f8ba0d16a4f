// SPDX-License-Identifier: GPL-2.0-or-later
// Headers and fixed-size items of the protocol. Every field access is generated from the rows of layout.hpp and compiles to
// plain loads and stores; lengths are judged here, before anybody allocates or receives by them.
#include "wire/codec.hpp"

#include <bit>
#include <cstring>
#include <utility>

#include "wire/layout.hpp"

namespace vitastor::wire {

static_assert(std::endian::native == std::endian::little, "fields are copied as they are; a big-endian host needs swaps here");

namespace {

constexpr size_t kRequestFieldsStart = 24;
constexpr size_t kReplyFieldsStart = 32;

template <class Message, size_t... I>
void put_rows(uint8_t* out, const Message& message, std::index_sequence<I...>) {
    constexpr auto& rows = Layout<Message>::rows;
    const auto* from = reinterpret_cast<const uint8_t*>(&message);
    (std::memcpy(out + rows[I].wire_offset, from + rows[I].member_offset, rows[I].size), ...);
}

template <class Message, size_t... I>
void get_rows(const uint8_t* in, Message& message, std::index_sequence<I...>) {
    constexpr auto& rows = Layout<Message>::rows;
    auto* to = reinterpret_cast<uint8_t*>(&message);
    (std::memcpy(to + rows[I].member_offset, in + rows[I].wire_offset, rows[I].size), ...);
}

template <class Message>
void put(uint8_t* out, const Message& message) {
    put_rows(out, message, std::make_index_sequence<Layout<Message>::rows.size()>());
}

template <class Message>
Message get(const uint8_t* in) {
    Message message;
    get_rows(in, message, std::make_index_sequence<Layout<Message>::rows.size()>());
    return message;
}

void put_u64(uint8_t* out, uint64_t value) { std::memcpy(out, &value, 8); }
uint64_t get_u64(const uint8_t* in) {
    uint64_t value;
    std::memcpy(&value, in, 8);
    return value;
}

/// wire-protocol 9.7: on the wire 0 means no bound and 2^64-1 means 0. The mapping is its own inverse.
uint64_t swap_max_stripe(uint64_t value) {
    if (value == 0) return UINT64_MAX;
    return value == UINT64_MAX ? 0 : value;
}

Status too_big(const char* what, uint64_t bytes, uint64_t limit) {
    return Status(-E2BIG, std::string(what) + " announces " + std::to_string(bytes) + " bytes, the limit is " +
                              std::to_string(limit));
}

}  // namespace

void encode_request(HeaderBytes out, const RequestHeader& header) {
    std::memset(out.data(), 0, kHeaderSize);
    put_u64(out.data(), kRequestMagic);
    put(out.data(), header);
}

template <class Message>
void encode_request(HeaderBytes out, const RequestHeader& header, const Message& message) {
    static_assert(layout_is_sound<Message>(kRequestFieldsStart));
    encode_request(out, header);
    put(out.data(), message);
}

template <>
void encode_request(HeaderBytes out, const RequestHeader& header, const ListRequest& message) {
    static_assert(layout_is_sound<ListRequest>(kRequestFieldsStart));
    ListRequest on_wire = message;
    on_wire.max_stripe = swap_max_stripe(message.max_stripe);
    encode_request(out, header);
    put(out.data(), on_wire);
}

void patch_request_id(HeaderBytes out, uint64_t id) { put_u64(out.data() + 8, id); }

void encode_reply(HeaderBytes out, const ReplyHeader& header) {
    std::memset(out.data(), 0, kHeaderSize);
    put_u64(out.data(), kReplyMagic);
    put(out.data(), header);
}

template <class Message>
void encode_reply(HeaderBytes out, const ReplyHeader& header, const Message& message) {
    static_assert(layout_is_sound<Message>(kReplyFieldsStart));
    encode_reply(out, header);
    put(out.data(), message);
}

std::optional<RequestHeader> decode_request_header(ConstHeaderBytes in) {
    if (get_u64(in.data()) != kRequestMagic) return std::nullopt;
    return get<RequestHeader>(in.data());
}

std::optional<ReplyHeader> decode_reply_header(ConstHeaderBytes in) {
    if (get_u64(in.data()) != kReplyMagic) return std::nullopt;
    return get<ReplyHeader>(in.data());
}

template <class Message>
Message decode(ConstHeaderBytes in) {
    return get<Message>(in.data());
}

template <>
ListRequest decode(ConstHeaderBytes in) {
    ListRequest message = get<ListRequest>(in.data());
    message.max_stripe = swap_max_stripe(message.max_stripe);
    return message;
}

/// Without the flag these bytes are leftover memory of the sender.
template <>
SubRequest decode(ConstHeaderBytes in) {
    SubRequest message = get<SubRequest>(in.data());
    if (!(message.flags & sub_flags::based)) message.base = 0;
    return message;
}

#define VITASTOR_REQUEST(Message)                                                                   \
    template void encode_request<Message>(HeaderBytes, const RequestHeader&, const Message&);       \
    template Message decode<Message>(ConstHeaderBytes);
#define VITASTOR_REPLY(Message)                                                                     \
    template void encode_reply<Message>(HeaderBytes, const ReplyHeader&, const Message&);           \
    template Message decode<Message>(ConstHeaderBytes);
VITASTOR_REQUEST(ClientRequest)
VITASTOR_REQUEST(SubRequest)
VITASTOR_REQUEST(SubSyncRequest)
VITASTOR_REQUEST(TripleRequest)
VITASTOR_REQUEST(SubDeleteRequest)
VITASTOR_REQUEST(ConfigRequest)
VITASTOR_REQUEST(DescribeRequest)
VITASTOR_REQUEST(LockRequest)
VITASTOR_REPLY(ReadReply)
VITASTOR_REPLY(WriteReply)
VITASTOR_REPLY(DeleteReply)
VITASTOR_REPLY(SubReply)
VITASTOR_REPLY(SubDeleteReply)
VITASTOR_REPLY(ListReply)
VITASTOR_REPLY(DescribeReply)
VITASTOR_REPLY(LockReply)
#undef VITASTOR_REQUEST
#undef VITASTOR_REPLY

Result<PayloadSizes> request_payload(ConstHeaderBytes in) {
    switch (get<RequestHeader>(in.data()).opcode) {
        case Opcode::sec_write:
        case Opcode::sec_write_stable: {
            auto message = get<SubRequest>(in.data());
            if (message.attr_len > kMaxBitmapBytes) return too_big("bitmap of SEC_WRITE", message.attr_len, kMaxBitmapBytes);
            if (message.len > kMaxTransfer) return too_big("data of SEC_WRITE", message.len, kMaxTransfer);
            return PayloadSizes{message.attr_len, message.len};
        }
        case Opcode::write: {
            auto message = get<ClientRequest>(in.data());
            if (message.len > kMaxTransfer) return too_big("data of WRITE", message.len, kMaxTransfer);
            return PayloadSizes{0, message.len};
        }
        case Opcode::sec_stabilize:
        case Opcode::sec_rollback:
        case Opcode::sec_read_bmp: {
            auto message = get<TripleRequest>(in.data());
            if (message.len > kMaxTripleBytes) return too_big("list of versions", message.len, kMaxTripleBytes);
            return PayloadSizes{0, message.len};
        }
        case Opcode::show_config: {
            auto message = get<ConfigRequest>(in.data());
            if (message.json_len > kMaxConfigJson) return too_big("SHOW_CONFIG", message.json_len, kMaxConfigJson);
            return PayloadSizes{0, message.json_len};
        }
        default:
            return PayloadSizes{};
    }
}

Result<PayloadSizes> reply_payload(ConstHeaderBytes in) {
    const auto header = get<ReplyHeader>(in.data());
    const uint64_t retval = header.retval > 0 ? static_cast<uint64_t>(header.retval) : 0;
    switch (header.opcode) {
        case Opcode::sec_read:
        case Opcode::read: {
            const uint64_t bitmap = header.opcode == Opcode::read ? get<ReadReply>(in.data()).bitmap_len
                                                                  : get<SubReply>(in.data()).attr_len;
            if (bitmap > kMaxBitmapBytes) return too_big("bitmap of a read reply", bitmap, kMaxBitmapBytes);
            if (retval > kMaxTransfer) return too_big("data of a read reply", retval, kMaxTransfer);
            return PayloadSizes{bitmap, retval};
        }
        case Opcode::sec_list:
            if (retval > kMaxListBytes / kTripleSize) return too_big("SEC_LIST reply (in entries)", retval, kMaxListBytes / kTripleSize);
            return PayloadSizes{0, retval * kTripleSize};
        case Opcode::show_config:
            if (retval > kMaxConfigJson) return too_big("SHOW_CONFIG reply", retval, kMaxConfigJson);
            return PayloadSizes{0, retval};
        case Opcode::sec_read_bmp:
            if (retval > kMaxListBytes) return too_big("SEC_READ_BMP reply", retval, kMaxListBytes);
            return PayloadSizes{0, retval};
        case Opcode::describe: {
            const uint64_t bytes = get<DescribeReply>(in.data()).result_bytes;
            if (bytes > kMaxListBytes) return too_big("DESCRIBE reply", bytes, kMaxListBytes);
            if (header.retval >= 0 && bytes != retval * kDescribeItemSize)
                return Status(-EPROTO, "DESCRIBE reply of " + std::to_string(retval) + " items announces " +
                                           std::to_string(bytes) + " bytes, 32 for each item were expected");
            return PayloadSizes{0, bytes};
        }
        default:
            return PayloadSizes{};
    }
}

namespace {
void put_triple(uint8_t* out, const ObjectVersion& item) {
    put_u64(out, item.object.inode);
    put_u64(out + 8, item.object.stripe);
    put_u64(out + 16, item.version);
}
}  // namespace

void encode_triples(std::span<uint8_t> out, std::span<const ObjectVersion> triples) {
    VITASTOR_ASSERT(out.size() >= triples.size() * kTripleSize);
    for (size_t i = 0; i < triples.size(); i++) put_triple(out.data() + i * kTripleSize, triples[i]);
}

Result<std::vector<ObjectVersion>> decode_triples(std::span<const uint8_t> in) {
    if (in.size() % kTripleSize)
        return Status(-EINVAL, "a list of versions has " + std::to_string(in.size()) + " bytes, not a multiple of 24");
    std::vector<ObjectVersion> triples(in.size() / kTripleSize);
    const uint8_t* p = in.data();
    for (auto& item : triples) {
        item = {{get_u64(p), get_u64(p + 8)}, get_u64(p + 16)};
        p += kTripleSize;
    }
    return triples;
}

void encode_describe_items(std::span<uint8_t> out, std::span<const DescribeItem> items) {
    VITASTOR_ASSERT(out.size() >= items.size() * kDescribeItemSize);
    uint8_t* p = out.data();
    for (const auto& item : items) {
        put_u64(p, item.object.inode);
        put_u64(p + 8, item.object.stripe);
        std::memcpy(p + 16, &item.role, 4);
        std::memcpy(p + 20, &item.flags, 4);
        put_u64(p + 24, item.osd);
        p += kDescribeItemSize;
    }
}

Result<std::vector<DescribeItem>> decode_describe_items(std::span<const uint8_t> in) {
    if (in.size() % kDescribeItemSize)
        return Status(-EINVAL, "a DESCRIBE list has " + std::to_string(in.size()) + " bytes, not a multiple of 32");
    std::vector<DescribeItem> items(in.size() / kDescribeItemSize);
    const uint8_t* p = in.data();
    for (auto& item : items) {
        item.object = {get_u64(p), get_u64(p + 8)};
        std::memcpy(&item.role, p + 16, 4);
        std::memcpy(&item.flags, p + 20, 4);
        item.osd = get_u64(p + 24);
        p += kDescribeItemSize;
    }
    return items;
}

namespace {
struct OpcodeNames {
    const char* stat;
    const char* spec;
};
constexpr OpcodeNames kNames[kMaxOpcode + 1] = {
    {"unknown", "unknown"},
    {"read", "SEC_READ"},
    {"write", "SEC_WRITE"},
    {"write_stable", "SEC_WRITE_STABLE"},
    {"sync", "SEC_SYNC"},
    {"stabilize", "SEC_STABILIZE"},
    {"rollback", "SEC_ROLLBACK"},
    {"delete", "SEC_DELETE"},
    {"unknown", "unknown"},  // retired test operation
    {"list", "SEC_LIST"},
    {"show_config", "SHOW_CONFIG"},
    {"primary_read", "READ"},
    {"primary_write", "WRITE"},
    {"primary_sync", "SYNC"},
    {"primary_delete", "DELETE"},
    {"ping", "PING"},
    {"sec_read_bmp", "SEC_READ_BMP"},
    {"scrub", "SCRUB"},
    {"describe", "DESCRIBE"},
    {"sec_lock", "SEC_LOCK"},
};
const OpcodeNames& names_of(Opcode opcode) {
    const auto number = static_cast<uint64_t>(opcode);
    return kNames[number <= kMaxOpcode ? number : 0];
}
}  // namespace

const char* opcode_stat_name(Opcode opcode) { return names_of(opcode).stat; }
const char* opcode_name(Opcode opcode) { return names_of(opcode).spec; }

}  // namespace vitastor::wire

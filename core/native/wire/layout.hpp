// SPDX-License-Identifier: GPL-2.0-or-later
// Where each field of each message sits in the 128-byte header: one row a field. The only place that knows wire offsets.
// codec.cpp turns the rows into straight loads and stores; tests and fixtures find fields by name.
// Source: wire-protocol.md 2.2, 6-9 (section in each table's comment).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "wire/messages.hpp"

namespace vitastor::wire {

/// One field. name: as in the specification; offsets in bytes; size: 4, 8, or 88 for the array of DELETE. All little-endian.
struct Field {
    const char* name;
    uint16_t wire_offset;
    uint16_t size;
    uint16_t member_offset;
};

/// Specialised for each message: `static constexpr std::array<Field, N> rows`, ordered by wire offset.
template <class Message>
struct Layout;

#define VITASTOR_FIELD(Message, wire_offset, member) \
    Field { #member, wire_offset, sizeof(Message::member), offsetof(Message, member) }
#define VITASTOR_OBJECT(Message, wire_offset)                                            \
    Field{"inode", wire_offset, 8, offsetof(Message, object) + offsetof(ObjectId, inode)}, \
    Field{"stripe", wire_offset + 8, 8, offsetof(Message, object) + offsetof(ObjectId, stripe)}

template <>
struct Layout<RequestHeader> {  // 2.2
    static constexpr std::array rows{VITASTOR_FIELD(RequestHeader, 8, id),
                                     VITASTOR_FIELD(RequestHeader, 16, opcode)};
};
template <>
struct Layout<ReplyHeader> {  // 2.2
    static constexpr std::array rows{VITASTOR_FIELD(ReplyHeader, 8, id), VITASTOR_FIELD(ReplyHeader, 16, opcode),
                                     VITASTOR_FIELD(ReplyHeader, 24, retval)};
};

template <>
struct Layout<ClientRequest> {  // 8.1
    static constexpr std::array rows{
        VITASTOR_FIELD(ClientRequest, 24, inode),         VITASTOR_FIELD(ClientRequest, 32, offset),
        VITASTOR_FIELD(ClientRequest, 40, len),           VITASTOR_FIELD(ClientRequest, 44, flags),
        VITASTOR_FIELD(ClientRequest, 48, meta_revision), VITASTOR_FIELD(ClientRequest, 56, version)};
};
template <>
struct Layout<ReadReply> {  // 8.2
    static constexpr std::array rows{VITASTOR_FIELD(ReadReply, 32, bitmap_len),
                                     VITASTOR_FIELD(ReadReply, 40, version)};
};
template <>
struct Layout<WriteReply> {  // 8.3
    static constexpr std::array rows{VITASTOR_FIELD(WriteReply, 40, version)};
};
template <>
struct Layout<DeleteReply> {  // 8.5
    static constexpr std::array rows{VITASTOR_FIELD(DeleteReply, 32, flags),
                                     VITASTOR_FIELD(DeleteReply, 36, osd_count),
                                     VITASTOR_FIELD(DeleteReply, 40, osds)};
};
template <>
struct Layout<SubRequest> {  // 9.2; from byte 64 on 3.0.8 sends leftover memory: believed only with a flag of ours
    static constexpr std::array rows{
        VITASTOR_OBJECT(SubRequest, 24),          VITASTOR_FIELD(SubRequest, 40, version),
        VITASTOR_FIELD(SubRequest, 48, offset),   VITASTOR_FIELD(SubRequest, 52, len),
        VITASTOR_FIELD(SubRequest, 56, attr_len), VITASTOR_FIELD(SubRequest, 60, flags),
        VITASTOR_FIELD(SubRequest, 64, base)};
};
template <>
struct Layout<SubReply> {  // 9.2
    static constexpr std::array rows{VITASTOR_FIELD(SubReply, 32, version), VITASTOR_FIELD(SubReply, 40, attr_len)};
};
template <>
struct Layout<SubSyncRequest> {  // 9.3
    static constexpr std::array rows{VITASTOR_FIELD(SubSyncRequest, 24, flags)};
};
template <>
struct Layout<TripleRequest> {  // 9.4, 9.6
    static constexpr std::array rows{VITASTOR_FIELD(TripleRequest, 24, len), VITASTOR_FIELD(TripleRequest, 32, flags)};
};
template <>
struct Layout<SubDeleteRequest> {  // 9.5
    static constexpr std::array rows{VITASTOR_OBJECT(SubDeleteRequest, 24),
                                     VITASTOR_FIELD(SubDeleteRequest, 40, version),
                                     VITASTOR_FIELD(SubDeleteRequest, 48, flags)};
};
template <>
struct Layout<SubDeleteReply> {  // 9.5
    static constexpr std::array rows{VITASTOR_FIELD(SubDeleteReply, 32, version)};
};
template <>
struct Layout<ListRequest> {  // 9.7; max_stripe is swapped 0 <-> 2^64-1 in codec.cpp
    static constexpr std::array rows{
        VITASTOR_FIELD(ListRequest, 24, list_pg),        VITASTOR_FIELD(ListRequest, 28, pg_count),
        VITASTOR_FIELD(ListRequest, 32, pg_stripe_size), VITASTOR_FIELD(ListRequest, 40, min_inode),
        VITASTOR_FIELD(ListRequest, 48, max_inode),      VITASTOR_FIELD(ListRequest, 56, min_stripe),
        VITASTOR_FIELD(ListRequest, 64, max_stripe),     VITASTOR_FIELD(ListRequest, 72, stable_limit),
        VITASTOR_FIELD(ListRequest, 76, flags),          VITASTOR_FIELD(ListRequest, 84, forget_version)};
};
template <>
struct Layout<ListReply> {  // 9.7
    static constexpr std::array rows{VITASTOR_FIELD(ListReply, 32, stable_count), VITASTOR_FIELD(ListReply, 40, flags),
                                     VITASTOR_FIELD(ListReply, 48, tombstone_count)};
};
template <>
struct Layout<ConfigRequest> {  // 6.1
    static constexpr std::array rows{VITASTOR_FIELD(ConfigRequest, 24, json_len)};
};
template <>
struct Layout<DescribeRequest> {  // 8.8
    static constexpr std::array rows{
        VITASTOR_FIELD(DescribeRequest, 24, state_mask), VITASTOR_FIELD(DescribeRequest, 32, min_inode),
        VITASTOR_FIELD(DescribeRequest, 40, min_offset), VITASTOR_FIELD(DescribeRequest, 48, max_inode),
        VITASTOR_FIELD(DescribeRequest, 56, max_offset), VITASTOR_FIELD(DescribeRequest, 64, limit),
        VITASTOR_FIELD(DescribeRequest, 72, pool),       VITASTOR_FIELD(DescribeRequest, 76, pg)};
};
template <>
struct Layout<DescribeReply> {  // 8.8
    static constexpr std::array rows{VITASTOR_FIELD(DescribeReply, 32, result_bytes)};
};
template <>
struct Layout<LockRequest> {  // 9.9
    static constexpr std::array rows{VITASTOR_FIELD(LockRequest, 24, flags), VITASTOR_FIELD(LockRequest, 32, pool),
                                     VITASTOR_FIELD(LockRequest, 40, pg), VITASTOR_FIELD(LockRequest, 48, state),
                                     VITASTOR_FIELD(LockRequest, 56, roles)};
};
template <>
struct Layout<LockReply> {  // 9.9
    static constexpr std::array rows{VITASTOR_FIELD(LockReply, 32, holder)};
};

#undef VITASTOR_FIELD
#undef VITASTOR_OBJECT

/// Rows stay inside the header, behind the common fields, in order and without overlap.
template <class Message>
constexpr bool layout_is_sound(size_t first_free) {
    size_t end = first_free;
    for (const Field& row : Layout<Message>::rows) {
        if (row.wire_offset < end || row.member_offset + row.size > sizeof(Message)) return false;
        end = row.wire_offset + row.size;
    }
    return end <= kHeaderSize;
}

}  // namespace vitastor::wire

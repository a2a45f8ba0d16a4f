// SPDX-License-Identifier: GPL-2.0-or-later
// What the fuzz target and its short form do with one input: the first 128 bytes are a header, the rest a payload.
#pragma once

#include "wire_support.hpp"

namespace vitastor::wire::test {

inline void fuzz_one(const uint8_t* data, size_t size) {
    const std::span<const uint8_t> rest(data + std::min(size, kHeaderSize), size - std::min(size, kHeaderSize));
    if (size >= kHeaderSize) {
        Header header, out, twice;
        std::memcpy(header.data(), data, kHeaderSize);
        const bool reply = decode_reply_header(header).has_value();
        if (auto sizes = request_payload(header); sizes.ok())
            VITASTOR_ASSERT(sizes.value().total() <= uint64_t{kMaxTransfer} + kMaxBitmapBytes);
        if (auto sizes = reply_payload(header); sizes.ok()) VITASTOR_ASSERT(sizes.value().total() <= kMaxListBytes);
        if (reply ? reencode_reply(header, out) : reencode_request(header, out)) {
            // Whatever was understood is kept: encoding is stable from the second time on.
            VITASTOR_ASSERT(reply ? reencode_reply(out, twice) : reencode_request(out, twice));
            VITASTOR_ASSERT(out == twice);
        }
    }
    if (auto triples = decode_triples(rest); triples.ok()) {
        std::vector<uint8_t> back(rest.size());
        encode_triples(back, triples.value());
        VITASTOR_ASSERT(std::equal(back.begin(), back.end(), rest.begin()));
    }
    if (auto items = decode_describe_items(rest); items.ok()) {
        std::vector<uint8_t> back(rest.size());
        encode_describe_items(back, items.value());
        VITASTOR_ASSERT(std::equal(back.begin(), back.end(), rest.begin()));
    }
    const auto request = decode_config_request(rest);
    const std::string text = encode_config_request(request);
    const auto again = decode_config_request({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
    VITASTOR_ASSERT(again.osd_num == request.osd_num && again.secure_modes == request.secure_modes);
    if (auto config = decode_config_reply(rest); config.ok()) {
        const std::string reply = encode_config_reply(config.value());
        VITASTOR_ASSERT(decode_config_reply({reinterpret_cast<const uint8_t*>(reply.data()), reply.size()}).ok());
    }
}

}  // namespace vitastor::wire::test

// SPDX-License-Identifier: GPL-2.0-or-later
// Golden bytes in both directions, limits of announced lengths, the quirks of SEC_LIST and of undefined header bytes.
#include <doctest/doctest.h>
#include <simdjson.h>

#include <map>

#include "wire_support.hpp"

using namespace vitastor;
using namespace vitastor::wire;
using namespace vitastor::wire::test;
namespace dom = simdjson::dom;

namespace {

struct Golden {
    std::string name;
    bool reply;
    std::string opcode;
    uint64_t id;
    int64_t retval = 0;
    std::map<std::string, uint64_t> fields;
    Header header;
    std::vector<uint8_t> payload;
};

std::vector<Golden> load_golden() {
    dom::parser parser;
    dom::array list;
    REQUIRE(!parser.load(VITASTOR_SOURCE_DIR "/test/fixtures/wire/golden.json").get_array().get(list));
    std::vector<Golden> out;
    for (dom::element entry : list) {
        auto text = [&](const char* key) { return std::string(std::string_view(entry[key])); };
        Golden g{text("name"), text("kind") == "reply", text("opcode"), 0, 0, {}, {}, {}};
        g.id = std::stoull(std::string(std::string_view(entry["header"]["id"])));
        if (g.reply) g.retval = std::stoll(std::string(std::string_view(entry["header"]["retval"])));
        for (auto field : dom::object(entry["fields"]))
            g.fields[std::string(field.key)] = std::stoull(std::string(std::string_view(field.value)));
        g.header = header_from_hex(text("header_hex"));
        g.payload = from_hex(text("payload_hex"));
        out.push_back(std::move(g));
    }
    return out;
}

/// The value the golden entry has for this row; the array of DELETE is spelled osds.0, osds.1 …
bool matches(const Golden& golden, const Field& row, void* message) {
    const auto* at = static_cast<uint8_t*>(message) + row.member_offset;
    for (uint16_t done = 0; done < row.size;) {
        const uint16_t width = row.size == 8 ? 8 : 4;
        uint64_t value = 0;
        std::memcpy(&value, at + done, width);
        const std::string name = row.size > 8 ? std::string(row.name) + "." + std::to_string(done / 4) : row.name;
        auto found = golden.fields.find(name);
        if (value != (found == golden.fields.end() ? 0 : found->second)) return false;
        done = static_cast<uint16_t>(done + width);
    }
    return true;
}

/// Writes the golden values into a message, whatever it held.
void fill(const Golden& golden, const Field& row, void* message) {
    auto* at = static_cast<uint8_t*>(message) + row.member_offset;
    std::memset(at, 0, row.size);
    for (const auto& [name, value] : golden.fields) {
        if (name == row.name) std::memcpy(at, &value, row.size);
        const std::string prefix = std::string(row.name) + ".";
        if (name.compare(0, prefix.size(), prefix) == 0)
            std::memcpy(at + 4 * std::stoul(name.substr(prefix.size())), &value, 4);
    }
}

Opcode opcode_by_name(const std::string& name) {
    for (uint64_t i = 1; i <= kMaxOpcode; i++)
        if (name == opcode_name(Opcode(i))) return Opcode(i);
    return Opcode(0);
}

}  // namespace

TEST_CASE("every golden message decodes to its fields and encodes from them to its bytes") {
    std::map<std::string, int> seen;
    for (const Golden& golden : load_golden()) {
        CAPTURE(golden.name);
        seen[(golden.reply ? "reply " : "request ") + golden.opcode]++;
        const Opcode opcode = opcode_by_name(golden.opcode);
        Header out;
        out.fill(0xee);
        auto check = [&](const Field& row, void* message) {
            CAPTURE(row.name);
            CHECK(matches(golden, row, message));
        };
        auto set = [&](const Field& row, void* message) { fill(golden, row, message); };
        Header empty{};
        if (golden.reply) {
            auto header = decode_reply_header(golden.header);
            REQUIRE(header);
            CHECK(header->id == golden.id);
            CHECK(header->opcode == opcode);
            CHECK(header->retval == golden.retval);
            REQUIRE(reencode_reply(golden.header, out, check));
            CHECK(out == golden.header);
            encode_reply(empty, {golden.id, opcode, golden.retval});
            REQUIRE(reencode_reply(empty, out, set));
        } else {
            auto header = decode_request_header(golden.header);
            REQUIRE(header);
            CHECK(header->id == golden.id);
            CHECK(header->opcode == opcode);
            REQUIRE(reencode_request(golden.header, out, check));
            CHECK(out == golden.header);
            encode_request(empty, {0, opcode});
            REQUIRE(reencode_request(empty, out, set));
            patch_request_id(out, golden.id);
        }
        CHECK(out == golden.header);
        auto sizes = golden.reply ? reply_payload(golden.header) : request_payload(golden.header);
        REQUIRE(sizes.ok());
        CHECK(sizes.value().total() == golden.payload.size());
    }
    CHECK(seen.size() == 2 * 18);
}

TEST_CASE("payloads of the golden messages decode and encode") {
    for (const Golden& golden : load_golden()) {
        CAPTURE(golden.name);
        if (golden.opcode == "SHOW_CONFIG") {
            const std::string text(golden.payload.begin(), golden.payload.end());
            if (golden.reply) {
                auto config = decode_config_reply(golden.payload);
                REQUIRE(config.ok());
                CHECK(config.value().block_size == 131072u);
                CHECK(config.value().immediate_commit == ImmediateCommit::all);
                CHECK(config.value().pg_locks);
                CHECK(encode_config_reply(config.value()) + '\0' == text);
            } else {
                auto config = decode_config_request(golden.payload);
                CHECK(config.check_sequencing);
                CHECK(encode_config_request(config) == text);
            }
        } else if (golden.opcode == "DESCRIBE" && golden.reply) {
            auto items = decode_describe_items(golden.payload);
            REQUIRE(items.ok());
            CHECK(items.value()[0].osd == 3);
            CHECK(items.value()[0].flags == DescribeItem::kOutdated);
            std::vector<uint8_t> out(golden.payload.size());
            encode_describe_items(out, items.value());
            CHECK(out == golden.payload);
        } else if ((golden.opcode == "SEC_LIST" && golden.reply) ||
                   (!golden.reply && (golden.opcode == "SEC_STABILIZE" || golden.opcode == "SEC_ROLLBACK"))) {
            auto triples = decode_triples(golden.payload);
            REQUIRE(triples.ok());
            std::vector<uint8_t> out(golden.payload.size());
            encode_triples(out, triples.value());
            CHECK(out == golden.payload);
        }
    }
    const uint8_t odd[25] = {};
    CHECK(decode_triples(odd).status().code() == -EINVAL);
    CHECK(decode_describe_items(odd).status().code() == -EINVAL);
}

TEST_CASE("SEC_LIST: 0 on the wire is no bound, 2^64-1 on the wire is 0") {
    Header header{};
    for (auto [meaning, wire] : {std::pair<uint64_t, uint64_t>{UINT64_MAX, 0}, {0, UINT64_MAX}, {4096, 4096}}) {
        ListRequest list;
        list.max_stripe = meaning;
        encode_request(header, {1, Opcode::sec_list}, list);
        uint64_t on_wire = 1;
        std::memcpy(&on_wire, header.data() + 64, 8);
        CHECK(on_wire == wire);
        CHECK(decode<ListRequest>(header).max_stripe == meaning);
    }
}

TEST_CASE("undefined bytes 64-127 of SEC_READ and SEC_WRITE requests change nothing") {
    for (Opcode opcode : {Opcode::sec_read, Opcode::sec_write, Opcode::sec_write_stable}) {
        SubRequest request{{full_inode(1, 7), 0x20000}, 0x10001, 4096, 8192, 4, 1};
        Header clean{}, dirty{}, out{};
        encode_request(clean, {9, opcode}, request);
        dirty = clean;
        for (size_t i = 64; i < kHeaderSize; i++) dirty[i] = static_cast<uint8_t>(i * 7);
        CHECK(request_payload(dirty).value().total() == request_payload(clean).value().total());
        REQUIRE(reencode_request(dirty, out));
        CHECK(out == clean);
        request.flags |= sub_flags::based;
        request.base = 0x10000;
        encode_request(clean, {9, opcode}, request);
        CHECK(decode<SubRequest>(clean).base == 0x10000);
    }
}

TEST_CASE("wrong magic is not a message") {
    Header header{};
    CHECK(!decode_request_header(header));
    encode_request(header, {1, Opcode::ping});
    CHECK(!decode_reply_header(header));
    CHECK(decode_request_header(header));
    header[7] ^= 1;
    CHECK(!decode_request_header(header));
}

TEST_CASE("lengths over the limits are refused, at the limits believed") {
    Header header{};
    auto write = [&](uint32_t len) {
        encode_request(header, {1, Opcode::write}, ClientRequest{0, 0, len, 0, 0, 0});
        return request_payload(header);
    };
    CHECK(write(kMaxTransfer).value().data_bytes == kMaxTransfer);
    CHECK(write(kMaxTransfer + 1).status().code() == -E2BIG);
    auto sub = [&](uint32_t len, uint32_t attr_len) {
        encode_request(header, {1, Opcode::sec_write}, SubRequest{{}, 0, 0, len, attr_len, 0});
        return request_payload(header);
    };
    CHECK(sub(4096, 4).value().bitmap_bytes == 4);
    CHECK(sub(0, kMaxBitmapBytes).ok());
    CHECK(sub(0, kMaxBitmapBytes + 1).status().code() == -E2BIG);
    CHECK(sub(UINT32_MAX, 0).status().code() == -E2BIG);
    encode_request(header, {1, Opcode::show_config}, ConfigRequest{uint64_t{kMaxConfigJson} + 1});
    CHECK(request_payload(header).status().code() == -E2BIG);
    encode_request(header, {1, Opcode::sec_rollback}, TripleRequest{UINT64_MAX, 0});
    CHECK(request_payload(header).status().code() == -E2BIG);
    encode_request(header, {1, Opcode(12345)});
    CHECK(request_payload(header).value().total() == 0);

    encode_reply(header, {1, Opcode::sec_list, INT64_MAX}, ListReply{});
    CHECK(reply_payload(header).status().code() == -E2BIG);
    encode_reply(header, {1, Opcode::read, 4096}, ReadReply{UINT32_MAX, 0});
    CHECK(reply_payload(header).status().code() == -E2BIG);
    encode_reply(header, {1, Opcode::read, -5}, ReadReply{4, 0});
    CHECK(reply_payload(header).value().bitmap_bytes == 4);  // consumed also on error
    CHECK(reply_payload(header).value().data_bytes == 0);
    encode_reply(header, {1, Opcode::describe, 3}, DescribeReply{64});
    CHECK(reply_payload(header).status().code() == -EPROTO);
    encode_reply(header, {1, Opcode::show_config, kMaxConfigJson + 1});
    CHECK(reply_payload(header).status().code() == -E2BIG);
}

TEST_CASE("SHOW_CONFIG: odd JSON counts as absent fields, never as a crash") {
    auto request = [](const std::string& text) {
        return decode_config_request({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
    };
    for (const char* text : {"", "{", "[]", "null", "7", "{\"osd_num\": \"2\", \"features\": 1}", "\xff\xfe", "{\"osd_num\": -1}",
                             "{\"features\": {\"check_sequencing\": \"yes\"}}", "{\"osd_num\": 1e3}"}) {
        CAPTURE(text);
        CHECK(request(text).osd_num == 0);
        CHECK(!request(text).check_sequencing);
    }
    CHECK(request("{\"osd_num\": 18446744073709551615}").osd_num == UINT64_MAX);
    CHECK(request(std::string(100000, '[')).osd_num == 0);
    auto offer = request("{\"vitastor_secure\": [\"a\", 1, \"b\\\"\"], \"later\": {}}");
    REQUIRE(offer.secure_modes.size() == 2);
    CHECK(encode_config_request(offer) == "{\"vitastor_secure\": [\"a\", \"b\\\"\"]}");

    auto reply = [](const std::string& text) {
        return decode_config_reply({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
    };
    CHECK(!reply("").ok());
    CHECK(!reply("{\"osd_num\": 1").ok());
    CHECK(!reply("[1]").ok());
    auto old = reply("{\"osd_num\": 1, \"protocol_version\": 1}");
    REQUIRE(old.ok());
    CHECK(old.value().protocol_version == 1u);
    CHECK(!old.value().block_size);
    CHECK(!old.value().immediate_commit);
    CHECK(!old.value().pg_locks);
    CHECK(reply("{\"immediate_commit\": \"sometimes\"}").value().immediate_commit == ImmediateCommit::none);
    ConfigReplyJson full;
    full.osd_num = 5;
    full.tombstones = true;
    full.secure_mode = "none\n";
    const auto back = reply(encode_config_reply(full) + '\0');
    REQUIRE(back.ok());
    CHECK(back.value().tombstones);
    CHECK(back.value().secure_mode == "none\n");
}

TEST_CASE("names of opcodes") {
    CHECK(std::string(opcode_stat_name(Opcode::read)) == "primary_read");
    CHECK(std::string(opcode_stat_name(Opcode::sec_read)) == "read");
    CHECK(std::string(opcode_name(Opcode::del)) == "DELETE");
    CHECK(std::string(opcode_stat_name(Opcode(8))) == "unknown");
    CHECK(std::string(opcode_name(Opcode(UINT64_MAX))) == "unknown");
}

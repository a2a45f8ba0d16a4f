// SPDX-License-Identifier: GPL-2.0-or-later
// Every message of every recorded session of Vitastor 3.0.8 decodes, and encodes back to the same bytes. The recordings are
// not part of the repository: VITASTOR_FIXTURES names their folder, by default ../shared/fixtures/vitastor-3.0.8.
#include <doctest/doctest.h>
#include <simdjson.h>

#include <cstdlib>
#include <filesystem>
#include <map>

#include "wire_support.hpp"

using namespace vitastor;
using namespace vitastor::wire;
using namespace vitastor::wire::test;
namespace dom = simdjson::dom;
namespace fs = std::filesystem;

namespace {

fs::path recordings() {
    const char* named = std::getenv("VITASTOR_FIXTURES");
    return named ? fs::path(named) : fs::path(VITASTOR_SOURCE_DIR) / "../shared/fixtures/vitastor-3.0.8";
}

/// The whole payload is there and consists of items that we write ourselves: they must come out the same.
void check_payload(const Header& header, bool reply, const std::vector<uint8_t>& payload) {
    const auto opcode = decode_request_header(header) ? decode_request_header(header)->opcode : decode_reply_header(header)->opcode;
    std::vector<uint8_t> out(payload.size());
    if ((opcode == Opcode::sec_list && reply) ||
        (!reply && (opcode == Opcode::sec_stabilize || opcode == Opcode::sec_rollback || opcode == Opcode::sec_read_bmp))) {
        auto triples = decode_triples(payload);
        REQUIRE(triples.ok());
        encode_triples(out, triples.value());
        CHECK(out == payload);
    } else if (opcode == Opcode::describe && reply) {
        auto items = decode_describe_items(payload);
        REQUIRE(items.ok());
        encode_describe_items(out, items.value());
        CHECK(out == payload);
    } else if (opcode == Opcode::show_config && reply) {
        auto config = decode_config_reply(payload);
        REQUIRE(config.ok());
        CHECK(config.value().protocol_version == 1u);
        CHECK(encode_config_reply(config.value()) + '\0' == std::string(payload.begin(), payload.end()));
    } else if (opcode == Opcode::show_config) {
        CHECK(encode_config_request(decode_config_request(payload)) == std::string(payload.begin(), payload.end()));
    }
}

}  // namespace

TEST_CASE("recorded sessions decode and encode back to the same bytes") {
    const fs::path folder = recordings();
    if (!fs::is_directory(folder)) {
        MESSAGE("left out: no recordings in " << folder.string() << " (set VITASTOR_FIXTURES)");
        return;
    }
    size_t files = 0, messages = 0, undefined = 0;
    std::map<std::string, int> kinds;
    for (const auto& entry : fs::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        if (name.rfind("wire-", 0) != 0 || name == "wire-connections.jsonl") continue;
        CAPTURE(name);
        files++;
        dom::parser parser;
        dom::document_stream lines;
        REQUIRE(!parser.load_many(entry.path().string(), 16 << 20).get(lines));
        for (auto line : lines) {
            dom::element message;
            REQUIRE(!line.get(message));
            const bool reply = std::string_view(message["dir"]) == "reply";
            const Header header = header_from_hex(std::string_view(message["header_hex"]));
            const uint64_t payload_len = uint64_t(message["payload_len"]);
            const std::string op{std::string_view(message["op"])};
            kinds[(reply ? "reply " : "request ") + op]++;
            CAPTURE(messages);
            CAPTURE(op);
            Header out;
            REQUIRE((reply ? reencode_reply(header, out) : reencode_request(header, out)));
            const size_t defined = defined_bytes(header, reply);
            CHECK(std::memcmp(out.data(), header.data(), defined) == 0);
            undefined += std::memcmp(out.data(), header.data(), kHeaderSize) != 0;
            auto sizes = reply ? reply_payload(header) : request_payload(header);
            REQUIRE(sizes.ok());
            CHECK(sizes.value().total() == payload_len);
            const auto payload = from_hex(std::string_view(message["payload_hex"]));
            if (payload.size() == payload_len) check_payload(header, reply, payload);
            messages++;
        }
    }
    MESSAGE(files << " sessions, " << messages << " messages of " << kinds.size() << " kinds, " << undefined
                  << " with leftover bytes of the sender");
    CHECK(messages > 0);
}

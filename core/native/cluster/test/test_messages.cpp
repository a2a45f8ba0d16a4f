// SPDX-License-Identifier: GPL-2.0-or-later
#include <doctest/doctest.h>

#include "cluster/base64.hpp"
#include "cluster/etcd_messages.hpp"

using namespace vitastor::cluster;

TEST_CASE("base64, both ways and refused") {
    for (std::string text : {"", "f", "fo", "foo", "foob", "fooba", "foobar"})
        CHECK(base64_decode(base64_encode(text)).value() == text);
    CHECK(base64_encode("foob") == "Zm9vYg==");
    CHECK(base64_encode(std::string("\xff\xfe\x00", 3)) == "//4A");
    CHECK_FALSE(base64_decode("a").has_value());
    CHECK_FALSE(base64_decode("ab*d").has_value());
}

TEST_CASE("load replies of any shape") {
    auto reply = decode_load(R"({"header":{"revision":"7"},"succeeded":true,"responses":[
        {"response_range":{"header":{"revision":"7"}}},
        {"response_range":{"kvs":[{"key":"L2E=","mod_revision":"5","value":"e30="},{"key":"L2I=","mod_revision":6}]}}]})");
    REQUIRE(reply.ok());
    CHECK(reply.value().revision == 7);
    REQUIRE(reply.value().pairs.size() == 2);
    CHECK(reply.value().pairs[0].key == "/a");
    CHECK(reply.value().pairs[0].value == "{}");
    CHECK(reply.value().pairs[1].mod_revision == 6);
    CHECK(reply.value().pairs[1].value.empty());
    for (const char* bad : {"", "[]", "{}", "{\"header\":5}", R"({"header":{"revision":"x"},"responses":[]})",
             R"({"header":{"revision":"7"},"responses":[1]})", R"({"header":{"revision":"7"},"responses":{}})",
             R"({"header":{"revision":"7"},"responses":[{"response_range":{"kvs":[{"key":7}]}}]})",
             R"({"error":"etcdserver: too many operations","code":3})"}) {
        CAPTURE(bad);
        CHECK_FALSE(decode_load(bad).ok());
    }
}

TEST_CASE("watch messages of any shape") {
    auto message = decode_watch(
        R"({"result":{"header":{"revision":"9"},"watch_id":"2","events":[{"kv":{"key":"L2E=","mod_revision":"9","value":"e30="}},
        {"type":"DELETE","kv":{"key":"L2I=","mod_revision":"9"}}]}})");
    REQUIRE(message.ok());
    CHECK(message.value().watch_id == 2);
    REQUIRE(message.value().events.size() == 2);
    CHECK_FALSE(message.value().events[0].deleted);
    CHECK(message.value().events[1].deleted);
    auto compacted = decode_watch(R"({"result":{"watch_id":"1","canceled":true,"compact_revision":"44"}})");
    CHECK(compacted.value().canceled);
    CHECK(compacted.value().compact_revision == 44);
    CHECK_FALSE(compacted.value().has_revision);
    CHECK(decode_watch(R"({"error":{"message":"no leader"}})").value().error == "etcd says: no leader");
    CHECK_FALSE(decode_watch("{").ok());
    CHECK_FALSE(decode_watch(R"({"result":{"watch_id":"1","events":[{}]}})").ok());
    CHECK_FALSE(decode_watch(R"({"result":{"watch_id":"1","events":[{"kv":{"key":"*"}}]}})").ok());
}

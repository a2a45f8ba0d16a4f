// SPDX-License-Identifier: GPL-2.0-or-later
#include "cluster/etcd_messages.hpp"

#include "cluster/base64.hpp"
#include "cluster/json.hpp"

namespace vitastor::cluster {
namespace {

/// The end of the range of all keys that start with `prefix`. The last byte of ours is '/'.
std::string range_end(std::string prefix) {
    prefix.back() = static_cast<char>(prefix.back() + 1);
    return prefix;
}

std::string key_fields(const std::string& range) {
    std::string text = "\"key\":\"" + base64_encode(range) + "\"";
    if (range.ends_with('/')) text += ",\"range_end\":\"" + base64_encode(range_end(range)) + "\"";
    return text;
}

uint64_t u64_field(const JsonObject& object, std::string_view name) {
    auto field = json_field(object, name);
    return field ? json_u64(*field).value_or(0) : 0;
}

bool bool_field(const JsonObject& object, std::string_view name) {
    auto field = json_field(object, name);
    return field && json_bool(*field).value_or(false);
}

bool object_field(const JsonObject& object, std::string_view name, JsonObject& out) {
    auto field = json_field(object, name);
    return field && field->get(out) == simdjson::SUCCESS;
}

bool decode_pair(JsonElement element, EtcdKeyValue& pair) {
    JsonObject object;
    if (element.get(object) != simdjson::SUCCESS) return false;
    auto key = json_field(object, "key");
    auto key_text = key ? json_string(*key) : std::nullopt;
    auto key_bytes = key_text ? base64_decode(*key_text) : std::nullopt;
    if (!key_bytes || key_bytes->empty()) return false;
    pair.key = std::move(*key_bytes);
    if (auto value = json_field(object, "value")) {
        auto value_text = json_string(*value);
        auto value_bytes = value_text ? base64_decode(*value_text) : std::nullopt;
        if (!value_bytes) return false;
        pair.value = std::move(*value_bytes);
    }
    pair.mod_revision = u64_field(object, "mod_revision");
    return true;
}

Status gateway_error(const JsonObject& root) {
    for (const char* name : {"message", "error"}) {
        auto field = json_field(root, name);
        if (!field) continue;
        JsonObject nested;
        if (field->get(nested) == simdjson::SUCCESS) return gateway_error(nested);
        return Status(-EIO, "etcd says: " + json_text(*field));
    }
    return Status(-EBADMSG, "not an answer of etcd (no header)");
}

Status parse_root(simdjson::dom::parser& parser, std::string_view json, JsonObject& root) {
    JsonElement element;
    if (auto error = parser.parse(json.data(), json.size()).get(element))
        return Status(-EBADMSG, std::string("not an answer of etcd (") + simdjson::error_message(error) + ")");
    if (element.get(root) != simdjson::SUCCESS) return Status(-EBADMSG, "not an answer of etcd (no object)");
    return {};
}

}  // namespace

std::string encode_load(const std::vector<std::string>& ranges) {
    std::string body = "{\"success\":[";
    for (size_t i = 0; i < ranges.size(); i++)
        body += std::string(i ? "," : "") + "{\"request_range\":{" + key_fields(ranges[i]) + "}}";
    return body + "]}";
}

std::string encode_watches(const std::vector<std::string>& prefixes, const std::vector<uint64_t>& revisions) {
    std::string body;
    for (size_t i = 0; i < prefixes.size(); i++)
        body += "{\"create_request\":{" + key_fields(prefixes[i]) + ",\"start_revision\":" +
                std::to_string(revisions[i]) + ",\"progress_notify\":true,\"watch_id\":" + std::to_string(i + 1) +
                "}}\n";
    return body;
}

std::string encode_probe(const std::string& key) {
    return "{\"key\":\"" + base64_encode(key) + "\",\"count_only\":true}";
}

Result<LoadReply> decode_load(std::string_view json) {
    simdjson::dom::parser parser;
    JsonObject root, header;
    if (Status status = parse_root(parser, json, root); !status.ok()) return status;
    LoadReply reply;
    if (!object_field(root, "header", header)) return gateway_error(root);
    reply.revision = u64_field(header, "revision");
    if (!reply.revision) return Status(-EBADMSG, "not an answer of etcd (no revision)");
    auto field = json_field(root, "responses");
    JsonArray responses;
    if (!field || field->get(responses) != simdjson::SUCCESS)
        return Status(-EBADMSG, "not an answer of etcd (no responses)");
    for (JsonElement item : responses) {
        JsonObject response, range;
        if (item.get(response) != simdjson::SUCCESS || !object_field(response, "response_range", range))
            return Status(-EBADMSG, "not an answer of etcd (a range is missing)");
        auto kvs = json_field(range, "kvs");
        JsonArray list;
        if (!kvs) continue;
        if (kvs->get(list) != simdjson::SUCCESS) return Status(-EBADMSG, "not an answer of etcd (kvs)");
        for (JsonElement kv : list) {
            EtcdKeyValue pair;
            if (!decode_pair(kv, pair)) return Status(-EBADMSG, "not an answer of etcd (a key is not base64)");
            reply.pairs.push_back(std::move(pair));
        }
    }
    return reply;
}

Result<uint64_t> decode_probe(std::string_view json) {
    simdjson::dom::parser parser;
    JsonObject root, header;
    if (Status status = parse_root(parser, json, root); !status.ok()) return status;
    if (!object_field(root, "header", header)) return gateway_error(root);
    return u64_field(header, "revision");
}

Result<WatchMessage> decode_watch(std::string_view json) {
    simdjson::dom::parser parser;
    JsonObject root, result, header;
    if (Status status = parse_root(parser, json, root); !status.ok()) return status;
    WatchMessage message;
    if (!object_field(root, "result", result)) {
        message.error = gateway_error(root).message();
        return message;
    }
    if (object_field(result, "header", header)) {
        message.revision = u64_field(header, "revision");
        message.has_revision = message.revision != 0;
    }
    if (json_field(result, "watch_id")) {
        message.watch_id = u64_field(result, "watch_id");
        if (message.watch_id == 0) message.watch_id = UINT64_MAX;
    }
    message.created = bool_field(result, "created");
    message.canceled = bool_field(result, "canceled");
    message.compact_revision = u64_field(result, "compact_revision");
    if (auto reason = json_field(result, "cancel_reason")) message.error = json_text(*reason);
    auto field = json_field(result, "events");
    JsonArray events;
    if (!field || field->get(events) != simdjson::SUCCESS) return message;
    for (JsonElement item : events) {
        JsonObject event;
        auto kv = item.get(event) == simdjson::SUCCESS ? json_field(event, "kv") : std::nullopt;
        EtcdKeyValue pair;
        if (!kv || !decode_pair(*kv, pair)) return Status(-EBADMSG, "a watch event without a usable key");
        auto type = json_field(event, "type");
        pair.deleted = type && (json_text(*type) == "DELETE" || json_text(*type) == "1");
        message.events.push_back(std::move(pair));
    }
    return message;
}

}  // namespace vitastor::cluster

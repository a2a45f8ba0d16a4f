// SPDX-License-Identifier: GPL-2.0-or-later
// JSON of SHOW_CONFIG. Written in the spelling of 3.0.8 (sorted keys, one blank after colon and comma), so that recorded
// payloads come out byte for byte; read with error codes only, wrong types count as absent. Source: wire-protocol 6.
#include <simdjson.h>

#include "wire/codec.hpp"

namespace vitastor::wire {

namespace {

namespace dom = simdjson::dom;

/// Collects "key": value pairs in the order of the calls, which callers keep sorted.
class ObjectWriter {
public:
    void raw(const char* key, const std::string& value) {
        text_ += text_.empty() ? "{\"" : ", \"";
        text_ += key;
        text_ += "\": ";
        text_ += value;
    }
    void number(const char* key, uint64_t value) { raw(key, std::to_string(value)); }
    void boolean(const char* key, bool value) { raw(key, value ? "true" : "false"); }
    void string(const char* key, const std::string& value) { raw(key, quoted(value)); }
    std::string finish() const { return text_.empty() ? "{}" : text_ + "}"; }

    static std::string quoted(const std::string& value) {
        std::string out = "\"";
        for (char c : value) {
            if (c == '"' || c == '\\') {
                out += '\\';
                out += c;
            } else if (static_cast<unsigned char>(c) < 0x20) {
                char escape[8];
                snprintf(escape, sizeof(escape), "\\u%04x", static_cast<unsigned char>(c));
                out += escape;
            } else {
                out += c;
            }
        }
        return out + '"';
    }

private:
    std::string text_;
};

std::optional<uint64_t> number_of(dom::object object, const char* key) {
    uint64_t value = 0;
    if (object[key].get_uint64().get(value)) return std::nullopt;
    return value;
}

bool boolean_of(dom::object object, const char* key, bool absent) {
    bool value = absent;
    if (object[key].get_bool().get(value)) return absent;
    return value;
}

std::string string_of(dom::object object, const char* key) {
    std::string_view value;
    if (object[key].get_string().get(value)) return {};
    return std::string(value);
}

bool feature_of(dom::object object, const char* key) {
    dom::object features;
    if (object["features"].get_object().get(features)) return false;
    return boolean_of(features, key, false);
}

/// Parses into `parser`, which owns the result. False: not a JSON object.
bool parse_object(dom::parser& parser, std::span<const uint8_t> payload, dom::object& object) {
    dom::element element;
    if (parser.parse(payload.data(), payload.size(), true).get(element)) return false;
    return element.get_object().get(object) == simdjson::SUCCESS;
}

}  // namespace

const char* to_string(ImmediateCommit mode) {
    switch (mode) {
        case ImmediateCommit::all:
            return "all";
        case ImmediateCommit::small:
            return "small";
        case ImmediateCommit::none:
            break;
    }
    return "none";
}

std::string encode_config_request(const ConfigRequestJson& config) {
    ObjectWriter features;
    if (config.check_sequencing) features.boolean("check_sequencing", true);
    ObjectWriter out;
    if (config.check_sequencing) out.raw("features", features.finish());
    if (config.osd_num) out.number("osd_num", config.osd_num);
    if (!config.secure_modes.empty()) {
        std::string list = "[";
        for (const auto& mode : config.secure_modes) {
            if (list.size() > 1) list += ", ";
            list += ObjectWriter::quoted(mode);
        }
        out.raw("vitastor_secure", list + "]");
    }
    if (config.session) out.number("vitastor_session", config.session);
    return out.finish();
}

ConfigRequestJson decode_config_request(std::span<const uint8_t> payload) {
    ConfigRequestJson config;
    config.check_sequencing = false;
    if (!payload.empty() && payload.back() == 0) payload = payload.first(payload.size() - 1);
    if (payload.empty() || payload.size() > kMaxConfigJson) return config;
    dom::parser parser(kMaxConfigJson);
    dom::object object;
    if (!parse_object(parser, payload, object)) return config;
    config.osd_num = number_of(object, "osd_num").value_or(0);
    config.check_sequencing = feature_of(object, "check_sequencing");
    config.session = number_of(object, "vitastor_session").value_or(0);
    dom::array modes;
    if (!object["vitastor_secure"].get_array().get(modes)) {
        for (dom::element element : modes) {
            std::string_view mode;
            if (config.secure_modes.size() < kMaxSecureModes && !element.get_string().get(mode))
                config.secure_modes.emplace_back(mode);
        }
    }
    return config;
}

std::string encode_config_reply(const ConfigReplyJson& config) {
    ObjectWriter features;
    if (config.pg_locks) features.boolean("pg_locks", true);
    if (config.tombstones) features.boolean("tombstones", true);
    if (config.late_stabilize) features.boolean("late_stabilize", true);
    if (config.write_base) features.boolean("write_base", true);
    if (config.ec_local_reads) features.boolean("ec_local_reads", true);
    if (config.write_settles) features.boolean("write_settles", true);
    ObjectWriter out;
    if (config.bitmap_granularity) out.number("bitmap_granularity", *config.bitmap_granularity);
    if (config.block_size) out.number("block_size", *config.block_size);
    out.boolean("blockstore_enabled", config.blockstore_enabled);
    if (config.pg_locks || config.tombstones || config.late_stabilize || config.write_base || config.ec_local_reads || config.write_settles)
        out.raw("features", features.finish());
    if (config.immediate_commit) out.string("immediate_commit", to_string(*config.immediate_commit));
    if (config.lease_timeout) out.number("lease_timeout", config.lease_timeout);
    out.number("osd_num", config.osd_num);
    out.boolean("primary_enabled", config.primary_enabled);
    if (config.protocol_version) out.number("protocol_version", *config.protocol_version);
    out.boolean("readonly", config.readonly);
    if (!config.secure_mode.empty()) out.string("vitastor_secure", config.secure_mode);
    return out.finish();
}

Result<ConfigReplyJson> decode_config_reply(std::span<const uint8_t> payload) {
    while (!payload.empty() && payload.back() == 0) payload = payload.first(payload.size() - 1);
    if (payload.empty() || payload.size() > kMaxConfigJson)
        return Status(-EINVAL, "SHOW_CONFIG reply of " + std::to_string(payload.size()) + " bytes is not a JSON object");
    dom::parser parser(kMaxConfigJson);
    dom::object object;
    if (!parse_object(parser, payload, object)) return Status(-EINVAL, "SHOW_CONFIG reply is not a JSON object");
    ConfigReplyJson config;
    config.osd_num = number_of(object, "osd_num").value_or(0);
    config.protocol_version = number_of(object, "protocol_version");
    config.block_size = number_of(object, "block_size");
    config.bitmap_granularity = number_of(object, "bitmap_granularity");
    if (object["immediate_commit"].error() == simdjson::SUCCESS) {
        const std::string mode = string_of(object, "immediate_commit");
        config.immediate_commit = mode == "all"     ? ImmediateCommit::all
                                  : mode == "small" ? ImmediateCommit::small
                                                    : ImmediateCommit::none;
    }
    config.pg_locks = feature_of(object, "pg_locks");
    config.tombstones = feature_of(object, "tombstones");
    config.late_stabilize = feature_of(object, "late_stabilize");
    config.write_base = feature_of(object, "write_base");
    config.ec_local_reads = feature_of(object, "ec_local_reads");
    config.write_settles = feature_of(object, "write_settles");
    config.primary_enabled = boolean_of(object, "primary_enabled", true);
    config.blockstore_enabled = boolean_of(object, "blockstore_enabled", true);
    config.readonly = boolean_of(object, "readonly", false);
    config.lease_timeout = number_of(object, "lease_timeout").value_or(0);
    config.secure_mode = string_of(object, "vitastor_secure");
    return config;
}

}  // namespace vitastor::wire

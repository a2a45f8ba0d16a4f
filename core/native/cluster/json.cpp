// SPDX-License-Identifier: GPL-2.0-or-later
#include "cluster/json.hpp"

#include "cluster/config.hpp"

namespace vitastor::cluster {

std::optional<uint64_t> parse_u64(std::string_view text) {
    if (text.empty()) return std::nullopt;
    uint64_t value = 0;
    for (char c : text) {
        if (c < '0' || c > '9') return std::nullopt;
        if (__builtin_mul_overflow(value, uint64_t{10}, &value)) return std::nullopt;
        if (__builtin_add_overflow(value, static_cast<uint64_t>(c - '0'), &value)) return std::nullopt;
    }
    return value;
}

std::optional<uint64_t> json_u64(JsonElement element) {
    uint64_t number = 0;
    if (element.get(number) == simdjson::SUCCESS) return number;
    double real = 0;
    if (element.is_double() && element.get(real) == simdjson::SUCCESS) {
        if (real < 0 || real > 9007199254740992.0) return std::nullopt;
        number = static_cast<uint64_t>(real);
        if (static_cast<double>(number) != real) return std::nullopt;
        return number;
    }
    std::string_view text;
    if (element.get(text) == simdjson::SUCCESS) return parse_u64(text);
    return std::nullopt;
}

std::optional<bool> json_bool(JsonElement element) {
    bool value = false;
    if (element.get(value) == simdjson::SUCCESS) return value;
    std::string_view text;
    if (element.get(text) == simdjson::SUCCESS) return parse_bool(text);
    auto number = json_u64(element);
    if (number && *number <= 1) return *number == 1;
    return std::nullopt;
}

std::optional<std::string> json_string(JsonElement element) {
    std::string_view text;
    if (element.get(text) != simdjson::SUCCESS) return std::nullopt;
    return std::string(text);
}

std::string json_text(JsonElement element) {
    if (element.is_null()) return {};
    std::string_view text;
    if (element.get(text) == simdjson::SUCCESS) return std::string(text);
    return simdjson::minify(element);
}

std::optional<std::string> json_list_text(JsonElement element) {
    if (auto text = json_string(element)) return text;
    JsonArray array;
    if (element.get(array) != simdjson::SUCCESS) return std::nullopt;
    std::string joined;
    for (JsonElement item : array) {
        auto text = json_string(item);
        if (!text) return std::nullopt;
        if (!joined.empty()) joined += ',';
        joined += *text;
    }
    return joined;
}

std::optional<JsonElement> json_field(const JsonObject& object, std::string_view name) {
    JsonElement value;
    if (object.at_key(name).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
    return value;
}

}  // namespace vitastor::cluster

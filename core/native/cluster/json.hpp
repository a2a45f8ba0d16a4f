// SPDX-License-Identifier: GPL-2.0-or-later
// JSON from outside, by error codes only: a wrong type is a nullopt, never an abort. Included by .cpp files of this layer alone.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace vitastor::cluster {

using JsonElement = simdjson::dom::element;
using JsonObject = simdjson::dom::object;
using JsonArray = simdjson::dom::array;

/// Number or decimal string ≥ 0; a float counts if it is a whole number below 2^53.
std::optional<uint64_t> json_u64(JsonElement element);
std::optional<uint64_t> parse_u64(std::string_view text);
/// true/false, or strings and numbers 1/true/yes and 0/false/no. Source: configuration.md 1.1.
std::optional<bool> json_bool(JsonElement element);
std::optional<std::string> json_string(JsonElement element);
/// A scalar as plain text; anything else as minified JSON; null as an empty string.
std::string json_text(JsonElement element);
/// A string as it is, an array of strings joined by commas; nullopt for anything else.
std::optional<std::string> json_list_text(JsonElement element);
/// The field, or nullopt when it is absent or null.
std::optional<JsonElement> json_field(const JsonObject& object, std::string_view name);

}  // namespace vitastor::cluster

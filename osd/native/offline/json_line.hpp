// SPDX-License-Identifier: GPL-2.0-or-later
// Writes one JSON object on one line, for what goes to the tools. Keys are literals, numbers are unsigned or text.
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>

namespace vitastor::offline {

class JsonLine {
public:
    /// kind: what the reader tells lines apart by; the first field.
    explicit JsonLine(std::string_view kind) : text_("{\"kind\":\"") { text_ += kind, text_ += '"'; }

    JsonLine& number(std::string_view key, uint64_t value) {
        name(key);
        text_ += std::to_string(value);
        return *this;
    }
    JsonLine& negative(std::string_view key, int64_t value) {
        name(key);
        text_ += std::to_string(value);
        return *this;
    }
    JsonLine& boolean(std::string_view key, bool value) {
        name(key);
        text_ += value ? "true" : "false";
        return *this;
    }
    JsonLine& hex_number(std::string_view key, uint64_t value) {
        name(key);
        char buffer[24];
        snprintf(buffer, sizeof(buffer), "\"0x%llx\"", static_cast<unsigned long long>(value));
        text_ += buffer;
        return *this;
    }
    JsonLine& hex(std::string_view key, std::span<const uint8_t> bytes) {
        static constexpr char kDigits[] = "0123456789abcdef";
        name(key);
        text_ += '"';
        for (uint8_t byte : bytes) text_ += kDigits[byte >> 4], text_ += kDigits[byte & 15];
        text_ += '"';
        return *this;
    }
    JsonLine& string(std::string_view key, std::string_view value) {
        name(key);
        text_ += '"';
        for (char c : value) {
            if (c == '"' || c == '\\') text_ += '\\', text_ += c;
            else if (static_cast<uint8_t>(c) < 0x20) {
                char buffer[8];
                snprintf(buffer, sizeof(buffer), "\\u%04x", static_cast<uint8_t>(c));
                text_ += buffer;
            } else text_ += c;
        }
        text_ += '"';
        return *this;
    }
    JsonLine& begin_list(std::string_view key) {
        name(key);
        text_ += '[';
        fresh_ = true;
        return *this;
    }
    JsonLine& begin_item() {
        text_ += fresh_ ? "{" : ",{";
        fresh_ = true;
        return *this;
    }
    JsonLine& end_item() {
        text_ += '}';
        fresh_ = false;
        return *this;
    }
    JsonLine& end_list() {
        text_ += ']';
        fresh_ = false;
        return *this;
    }
    std::string take() {
        text_ += '}';
        return std::move(text_);
    }

private:
    void name(std::string_view key) {
        if (!fresh_) text_ += ',';
        fresh_ = false;
        text_ += '"', text_ += key, text_ += "\":";
    }
    std::string text_;
    bool fresh_ = false;
};

}  // namespace vitastor::offline

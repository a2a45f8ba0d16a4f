// SPDX-License-Identifier: GPL-2.0-or-later
// Reads fields of a JavaScript object with checks; the first problem is kept, later reads give zeroes.
#pragma once

#include <napi.h>

#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace vitastor::binding {

class JsReader {
public:
    JsReader(const Napi::Object& object, std::string path, std::string& problem)
        : object_(object), path_(std::move(path)), problem_(problem) {}

    std::string text(const char* name) { return text_of(object_.Get(name), path_ + "." + name); }
    uint64_t u64(const char* name) { return u64_of(object_.Get(name), path_ + "." + name); }
    uint32_t u32(const char* name);
    bool boolean(const char* name);
    /// Index of the word in `words`.
    uint8_t word(const char* name, std::initializer_list<const char*> words);
    JsReader object(const char* name) { return object_of(object_.Get(name), path_ + "." + name); }
    std::vector<std::string> texts(const char* name);
    std::vector<uint64_t> u64s(const char* name) { return u64s_of(object_.Get(name), path_ + "." + name); }
    std::vector<std::vector<uint64_t>> u64_lists(const char* name);
    std::map<std::string, std::string> text_map(const char* name);
    /// read(JsReader&) for each object of an array.
    template <class Read>
    void each(const char* name, Read read) {
        Napi::Array items = array_of(object_.Get(name), path_ + "." + name);
        for (uint32_t i = 0; i < length(items); i++) {
            JsReader item = object_of(items.Get(i), path_ + "." + name + "[" + std::to_string(i) + "]");
            read(item);
        }
    }

private:
    JsReader object_of(const Napi::Value& value, const std::string& path);
    Napi::Array array_of(const Napi::Value& value, const std::string& path);
    std::string text_of(const Napi::Value& value, const std::string& path);
    uint64_t u64_of(const Napi::Value& value, const std::string& path);
    std::vector<uint64_t> u64s_of(const Napi::Value& value, const std::string& path);
    void wrong(const std::string& path, const char* what);
    static uint32_t length(const Napi::Array& array) { return array.IsEmpty() ? 0 : array.Length(); }

    Napi::Object object_;
    std::string path_;
    std::string& problem_;
};

}  // namespace vitastor::binding

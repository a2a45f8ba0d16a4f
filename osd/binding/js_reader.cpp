// SPDX-License-Identifier: GPL-2.0-or-later
#include "js_reader.hpp"

#include <cstring>

namespace vitastor::binding {

void JsReader::wrong(const std::string& path, const char* what) {
    if (problem_.empty()) problem_ = path + ": must be " + what;
}

JsReader JsReader::object_of(const Napi::Value& value, const std::string& path) {
    if (value.IsObject()) return JsReader(value.As<Napi::Object>(), path, problem_);
    wrong(path, "an object");
    return JsReader(Napi::Object::New(object_.Env()), path, problem_);
}

Napi::Array JsReader::array_of(const Napi::Value& value, const std::string& path) {
    if (value.IsArray()) return value.As<Napi::Array>();
    wrong(path, "an array");
    return Napi::Array();
}

std::string JsReader::text_of(const Napi::Value& value, const std::string& path) {
    if (value.IsString()) return value.As<Napi::String>().Utf8Value();
    wrong(path, "a string");
    return {};
}

uint64_t JsReader::u64_of(const Napi::Value& value, const std::string& path) {
    bool lossless = false;
    uint64_t number = value.IsBigInt() ? value.As<Napi::BigInt>().Uint64Value(&lossless) : 0;
    if (!lossless) wrong(path, "a bigint of 64 bits");
    return lossless ? number : 0;
}

uint32_t JsReader::u32(const char* name) {
    Napi::Value value = object_.Get(name);
    double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
    if (number >= 0 && number <= UINT32_MAX) return static_cast<uint32_t>(number);
    wrong(path_ + "." + name, "a number of 32 bits");
    return 0;
}

bool JsReader::boolean(const char* name) {
    Napi::Value value = object_.Get(name);
    if (value.IsBoolean()) return value.As<Napi::Boolean>().Value();
    wrong(path_ + "." + name, "a boolean");
    return false;
}

uint8_t JsReader::word(const char* name, std::initializer_list<const char*> words) {
    std::string given = text(name);
    uint8_t index = 0;
    for (const char* word : words) {
        if (given == word) return index;
        index++;
    }
    wrong(path_ + "." + name, "one of its words");
    return 0;
}

std::vector<std::string> JsReader::texts(const char* name) {
    std::string path = path_ + "." + name;
    Napi::Array items = array_of(object_.Get(name), path);
    std::vector<std::string> result;
    for (uint32_t i = 0; i < length(items); i++) result.push_back(text_of(items.Get(i), path));
    return result;
}

std::vector<uint64_t> JsReader::u64s_of(const Napi::Value& value, const std::string& path) {
    Napi::Array items = array_of(value, path);
    std::vector<uint64_t> result;
    for (uint32_t i = 0; i < length(items); i++) {
        result.push_back(u64_of(items.Get(i), path + "[" + std::to_string(i) + "]"));
    }
    return result;
}

std::vector<std::vector<uint64_t>> JsReader::u64_lists(const char* name) {
    std::string path = path_ + "." + name;
    Napi::Array items = array_of(object_.Get(name), path);
    std::vector<std::vector<uint64_t>> result;
    for (uint32_t i = 0; i < length(items); i++) result.push_back(u64s_of(items.Get(i), path));
    return result;
}

std::map<std::string, std::string> JsReader::text_map(const char* name) {
    JsReader inner = object(name);
    std::map<std::string, std::string> result;
    Napi::Array names = inner.object_.GetPropertyNames();
    for (uint32_t i = 0; i < length(names); i++) {
        std::string key = Napi::Value(names.Get(i)).As<Napi::String>().Utf8Value();
        result[key] = inner.text(key.c_str());
    }
    return result;
}

}  // namespace vitastor::binding

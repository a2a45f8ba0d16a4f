// SPDX-License-Identifier: GPL-2.0-or-later
#include "client/cache_settings.hpp"

#include <algorithm>

namespace vitastor::client {
namespace {

void garbage(const cluster::ConfigLayers& layers, Logger& logger, const char* name, const std::string& text) {
    log(logger, LogLevel::warning, "setting %s: \"%s\" (from %s) is not understood, the default is used", name, text.c_str(),
        layers.origin(name).c_str());
}

void take_bool(const cluster::ConfigLayers& layers, Logger& logger, const char* name, bool& out) {
    const std::string* text = layers.find(name);
    if (!text || text->empty()) return;
    const auto value = cluster::parse_bool(*text);
    if (value) out = *value;
    else garbage(layers, logger, name, *text);
}

/// 0 counts as the default (configuration.md 1.1).
template <class Number>
void take_number(const cluster::ConfigLayers& layers, Logger& logger, const char* name, Number& out, uint64_t min, uint64_t max) {
    const std::string* text = layers.find(name);
    if (!text || text->empty()) return;
    const auto value = cluster::parse_size(*text);
    if (!value) return garbage(layers, logger, name, *text);
    if (*value) out = static_cast<Number>(std::clamp(*value, min, max));
}

}  // namespace

CacheSettings resolve_cache_settings(const cluster::ConfigLayers& layers, Logger& logger) {
    CacheSettings settings;
    take_bool(layers, logger, "client_enable_writeback", settings.enable_writeback);
    take_bool(layers, logger, "client_writeback_allowed", settings.writeback_allowed);
    take_number(layers, logger, "client_max_buffered_bytes", settings.max_buffered_bytes, 4096, 1ull << 40);
    take_number(layers, logger, "client_max_buffered_ops", settings.max_buffered_ops, 1, 1u << 24);
    take_number(layers, logger, "client_max_writeback_iodepth", settings.max_writeback_iodepth, 1, 65536);
    take_number(layers, logger, "client_readahead_bytes", settings.readahead_bytes, 16384, 64 << 20);
    return settings;
}

}  // namespace vitastor::client

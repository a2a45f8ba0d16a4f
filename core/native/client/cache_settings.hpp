// SPDX-License-Identifier: GPL-2.0-or-later
// Settings of the write-back cache and of read-ahead. Source: configuration.md 8; docs/adr/0053-client-cache.md.
#pragma once

#include <cstdint>

#include "cluster/config.hpp"

namespace vitastor::client {

struct CacheSettings {
    bool enable_writeback = false;          ///< client_enable_writeback; the image's owner must allow it too
    bool writeback_allowed = false;         ///< client_writeback_allowed: for owners that say nothing themselves
    uint64_t max_buffered_bytes = 32 << 20; ///< write-out begins above this; writes wait above twice this
    uint64_t max_buffered_ops = 1024;       ///< the same for writes
    uint32_t max_writeback_iodepth = 256;   ///< write-outs of an image at a time
    uint64_t readahead_bytes = 0;           ///< client_readahead_bytes (ours): for each sequential reader; 0: off
};

/// Garbage counts as the default and is reported.
CacheSettings resolve_cache_settings(const cluster::ConfigLayers& layers, Logger& logger);

}  // namespace vitastor::client

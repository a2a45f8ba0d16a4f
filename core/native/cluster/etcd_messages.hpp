// SPDX-License-Identifier: GPL-2.0-or-later
// Requests and replies of etcd's JSON gateway as text. Unexpected replies are errors, never aborts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "cluster/etcd_api.hpp"

namespace vitastor::cluster {

std::string encode_load(const std::vector<std::string>& ranges);
/// revisions: one a prefix, the first revision wanted.
std::string encode_watches(const std::vector<std::string>& prefixes, const std::vector<uint64_t>& revisions);
/// A linearizable question with a tiny answer.
std::string encode_probe(const std::string& key);

struct LoadReply {
    std::vector<EtcdKeyValue> pairs;
    uint64_t revision = 0;
};
Result<LoadReply> decode_load(std::string_view json);
/// Revision of the answer.
Result<uint64_t> decode_probe(std::string_view json);

struct WatchMessage {
    bool has_revision = false;  ///< a header was there
    uint64_t revision = 0;
    uint64_t watch_id = UINT64_MAX;  ///< UINT64_MAX: all
    bool created = false;
    bool canceled = false;
    uint64_t compact_revision = 0;
    std::string error;  ///< the gateway's or etcd's own; not empty: the stream is of no use
    std::vector<EtcdKeyValue> events;
};
Result<WatchMessage> decode_watch(std::string_view json);

}  // namespace vitastor::cluster

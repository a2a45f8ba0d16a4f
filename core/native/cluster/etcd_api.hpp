// SPDX-License-Identifier: GPL-2.0-or-later
// The narrow door to etcd for native clients: full load, then watch. Life: JSON gateway over libcurl. Simulation: a model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace vitastor::cluster {

struct EtcdKeyValue {
    std::string key;
    std::string value;
    uint64_t mod_revision = 0;
    bool deleted = false;
};

class EtcdListener {
public:
    virtual ~EtcdListener() = default;
    /// All pairs of the ranges, as of `revision`. Replaces everything known before. ranges ask order is kept.
    virtual void on_load(std::vector<EtcdKeyValue> pairs, uint64_t revision) = 0;
    /// Changes in order; may repeat what is known already.
    virtual void on_events(std::vector<EtcdKeyValue> events, uint64_t revision) = 0;
    /// The first load failed on all addresses `attempts` times; loading goes on unless the owner stops it. text names each address and reason.
    virtual void on_trouble(unsigned attempts, const std::string& text) = 0;
};

/// Loads all `prefixes` and exact `keys`, watches the prefixes, reloads on gaps, compaction and cancel; until destroyed.
/// Callbacks on the thread (loop) that the implementation belongs to.
class EtcdSource {
public:
    virtual ~EtcdSource() = default;
    virtual void start(EtcdListener& listener) = 0;
    virtual void stop() = 0;
};

}  // namespace vitastor::cluster

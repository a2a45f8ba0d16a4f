// SPDX-License-Identifier: GPL-2.0-or-later
// The watcher of one cluster in a real process: a thread of its own with a small loop, libcurl and the MapHub.
#pragma once

#include <memory>

#include "cluster/map_hub.hpp"

namespace vitastor::cluster {

class EtcdThread {
public:
    /// Starts at once. Errors: -ENOENT (no etcd_address), -EINVAL (an address that cannot be used), or of the loop.
    static Result<std::unique_ptr<EtcdThread>> start(const ConfigLayers& layers, bool fail_fast, Logger& logger);
    /// Stops and joins; nobody may be subscribed any more.
    ~EtcdThread();
    EtcdThread(const EtcdThread&) = delete;
    EtcdThread& operator=(const EtcdThread&) = delete;
    MapHub& hub();

private:
    struct Impl;
    explicit EtcdThread(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace vitastor::cluster

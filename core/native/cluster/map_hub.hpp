// SPDX-License-Identifier: GPL-2.0-or-later
// Between etcd's events and the contexts: builds snapshots on the loop of the source, hands them to any thread.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cluster/map_builder.hpp"
#include "runtime/loop.hpp"

namespace vitastor::cluster {

/// Map and settings that belong together. map is nullptr before the first load.
struct Snapshot {
    std::shared_ptr<const ClusterMap> map;
    std::shared_ptr<const ClientConfig> config;
    std::string trouble;  ///< not empty: the first load was given up (fail_fast); names each address and reason
};

class MapHub final : public EtcdListener {
public:
    /// loop: of the thread on which the source calls. give_up_after: failed attempts of the first load; 0 = never.
    MapHub(runtime::Loop& loop, const ConfigLayers& layers, unsigned give_up_after, Logger& logger);
    ~MapHub() override;

    /// Any thread.
    Snapshot snapshot() const;
    /// notifier is notified on its loop after each new snapshot, and once now if there is one. Any thread; loop is the notifier's.
    void subscribe(runtime::Loop& loop, runtime::Notifier& notifier);
    /// After it returns the hub does not touch the notifier any more. Any thread.
    void unsubscribe(runtime::Notifier& notifier);

    /// Runs on the source's loop after a publication with changed settings.
    void (*on_config)(void* arg, const ClientConfig& config) = nullptr;
    void* on_config_arg = nullptr;

    void on_load(std::vector<EtcdKeyValue> pairs, uint64_t revision) override;
    void on_events(std::vector<EtcdKeyValue> events, uint64_t revision) override;
    void on_trouble(unsigned attempts, const std::string& text) override;

private:
    struct Subscriber {
        runtime::Loop* loop;
        runtime::Notifier* notifier;
    };
    struct Publisher : runtime::Deferred {
        MapHub* hub = nullptr;
    };
    void publish();
    void notify_all();

    runtime::Loop& loop_;
    Logger& logger_;
    MapBuilder builder_;
    unsigned give_up_after_;
    ConfigMap known_etcd_;
    Publisher publisher_;

    mutable std::mutex mutex_;  // guards what follows
    Snapshot snapshot_;
    std::vector<Subscriber> subscribers_;
};

}  // namespace vitastor::cluster

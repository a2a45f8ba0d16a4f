// SPDX-License-Identifier: GPL-2.0-or-later
#include "cluster/map_hub.hpp"

namespace vitastor::cluster {

MapHub::MapHub(runtime::Loop& loop, const ConfigLayers& layers, unsigned give_up_after, Logger& logger)
    : loop_(loop),
      logger_(logger),
      builder_(resolve_config(layers, logger).etcd_prefix, layers, logger),
      give_up_after_(give_up_after) {
    snapshot_.config = std::make_shared<const ClientConfig>(resolve_config(layers, logger));
    publisher_.hub = this;
    publisher_.on_run = [](runtime::Deferred* self) { static_cast<Publisher*>(self)->hub->publish(); };
}

MapHub::~MapHub() {
    if (publisher_.linked()) publisher_.unlink();
    VITASTOR_ASSERT(subscribers_.empty());
}

Snapshot MapHub::snapshot() const {
    std::lock_guard lock(mutex_);
    return snapshot_;
}

void MapHub::subscribe(runtime::Loop& loop, runtime::Notifier& notifier) {
    std::lock_guard lock(mutex_);
    subscribers_.push_back({&loop, &notifier});
    if (snapshot_.map || !snapshot_.trouble.empty()) loop.notify(notifier);
}

void MapHub::unsubscribe(runtime::Notifier& notifier) {
    std::lock_guard lock(mutex_);
    std::erase_if(subscribers_, [&](auto& subscriber) { return subscriber.notifier == &notifier; });
}

void MapHub::on_load(std::vector<EtcdKeyValue> pairs, uint64_t revision) {
    builder_.load(pairs, revision);
    publish();
}

void MapHub::on_events(std::vector<EtcdKeyValue> events, uint64_t revision) {
    builder_.apply(events, revision);
    // Everything that this turn brings becomes one snapshot.
    if (builder_.changed() && !publisher_.linked()) loop_.defer(publisher_);
}

void MapHub::on_trouble(unsigned attempts, const std::string& text) {
    if (!give_up_after_ || attempts < give_up_after_) return;
    std::lock_guard lock(mutex_);
    if (snapshot_.map) return;
    snapshot_.trouble = "etcd does not answer: " + text;
    notify_all();
}

void MapHub::notify_all() {
    for (auto& subscriber : subscribers_) subscriber.loop->notify(*subscriber.notifier);
}

void MapHub::publish() {
    auto map = builder_.publish();
    std::shared_ptr<const ClientConfig> config;
    if (known_etcd_ != builder_.layers().etcd) {
        known_etcd_ = builder_.layers().etcd;
        config = std::make_shared<const ClientConfig>(resolve_config(builder_.layers(), logger_));
    }
    {
        std::lock_guard lock(mutex_);
        snapshot_.map = std::move(map);
        if (config) snapshot_.config = config;
        snapshot_.trouble.clear();
        notify_all();
    }
    if (config && on_config) on_config(on_config_arg, *config);
}

}  // namespace vitastor::cluster

// SPDX-License-Identifier: GPL-2.0-or-later
// An etcd source that somebody else feeds: the simulator, or a test. Calls on the thread of the listener.
#pragma once

#include <optional>
#include <utility>

#include "cluster/etcd_api.hpp"

namespace vitastor::cluster {

class ModelEtcdSource final : public EtcdSource {
public:
    void start(EtcdListener& listener) override {
        listener_ = &listener;
        if (!waiting_) return;
        auto [pairs, revision] = std::move(*waiting_);
        waiting_.reset();
        listener_->on_load(std::move(pairs), revision);
    }
    void stop() override { listener_ = nullptr; }
    bool started() const { return listener_ != nullptr; }

    /// A full load (the first, or one after a gap). Kept until start() if that comes later.
    void feed_load(std::vector<EtcdKeyValue> pairs, uint64_t revision) {
        if (listener_) listener_->on_load(std::move(pairs), revision);
        else waiting_ = {std::move(pairs), revision};
    }
    void feed_events(std::vector<EtcdKeyValue> events, uint64_t revision) {
        if (listener_) listener_->on_events(std::move(events), revision);
    }
    void feed_trouble(unsigned attempts, const std::string& text) {
        if (listener_) listener_->on_trouble(attempts, text);
    }

private:
    EtcdListener* listener_ = nullptr;
    std::optional<std::pair<std::vector<EtcdKeyValue>, uint64_t>> waiting_;
};

}  // namespace vitastor::cluster

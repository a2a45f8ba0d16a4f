// SPDX-License-Identifier: GPL-2.0-or-later
// What the contexts of one cluster share: the hub of snapshots, the count of connections, image slots, who else is there.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "client/cache_settings.hpp"
#include "client/image.hpp"
#include "cluster/map_hub.hpp"

namespace vitastor::client {

class Context;

class Shared {
public:
    Shared(cluster::MapHub& hub, Logger& logger) : hub_(hub), logger_(logger) {}
    ~Shared() { VITASTOR_ASSERT(contexts_.empty()); }
    cluster::MapHub& hub() { return hub_; }
    Logger& logger() { return logger_; }

    /// Number of a connection that has just been established (see unsynced.hpp).
    uint64_t next_connection_epoch() { return epoch_.fetch_add(1, std::memory_order_acq_rel) + 1; }
    uint64_t connection_epoch() const { return epoch_.load(std::memory_order_acquire); }

    /// Options and file, for settings that this layer reads itself; etcd's come with the map. Set before the first context.
    cluster::ConfigLayers layers;

    Image* create_image(ImageOptions options);
    /// Called by the last unref().
    void destroy_image(Image* image);

    void add_context(Context* context);
    void remove_context(Context* context);
    /// Lets every context look at its waiting operations again. Any thread.
    void wake_contexts();

private:
    cluster::MapHub& hub_;
    Logger& logger_;
    std::atomic<uint64_t> epoch_{0};
    std::mutex mutex_;  // guards what follows
    std::vector<Context*> contexts_;
    std::vector<uint32_t> free_slots_;
    /// Of images that are open, by name or inode: all handles of one image keep to its limits together.
    std::map<std::string, std::weak_ptr<Throttle>> throttles_;
    /// The same for those that are written to as they are shown: one handle reads what another has buffered.
    std::map<std::string, std::weak_ptr<WriteCache>> caches_;
    uint32_t slot_count_ = 0;
    uint64_t next_serial_ = 1;
};

}  // namespace vitastor::client

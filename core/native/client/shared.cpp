// SPDX-License-Identifier: GPL-2.0-or-later
#include "client/shared.hpp"

#include <algorithm>

#include "client/context.hpp"

namespace vitastor::client {

void Image::unref() {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) shared_->destroy_image(this);
}

Image* Shared::create_image(ImageOptions options) {
    std::lock_guard lock(mutex_);
    uint32_t slot;
    if (free_slots_.empty()) {
        slot = slot_count_++;
    } else {
        slot = free_slots_.back();
        free_slots_.pop_back();
    }
    const std::string key = options.name.empty() ? std::to_string(options.inode) : "name " + options.name;
    std::weak_ptr<Throttle>& known = throttles_[key];
    std::shared_ptr<Throttle> throttle = known.lock();
    if (!throttle) known = throttle = std::make_shared<Throttle>();
    const bool shares = !options.read_only && !options.skip_parents && !options.override_read_only;
    options.writeback = (options.writeback || resolve_cache_settings(layers, logger_).writeback_allowed) && shares;
    std::shared_ptr<WriteCache> cache = shares ? caches_[key].lock() : nullptr;
    if (!cache) cache = std::make_shared<WriteCache>();
    if (shares) caches_[key] = cache;
    auto* image = new Image(std::move(options), slot, next_serial_++);
    image->shared_ = this;
    image->throttle = std::move(throttle);
    image->cache = std::move(cache);
    return image;
}

void Shared::destroy_image(Image* image) {
    {
        std::lock_guard lock(mutex_);
        free_slots_.push_back(image->slot);
        image->throttle.reset();
        image->cache.reset();
        std::erase_if(caches_, [](const auto& item) { return item.second.expired(); });
        std::erase_if(throttles_, [](const auto& item) { return item.second.expired(); });
    }
    delete image;
}

void Shared::add_context(Context* context) {
    std::lock_guard lock(mutex_);
    contexts_.push_back(context);
}

void Shared::remove_context(Context* context) {
    std::lock_guard lock(mutex_);
    std::erase(contexts_, context);
}

void Shared::wake_contexts() {
    std::lock_guard lock(mutex_);
    for (Context* context : contexts_) context->wake();
}

}  // namespace vitastor::client

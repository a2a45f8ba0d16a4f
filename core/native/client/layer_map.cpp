// SPDX-License-Identifier: GPL-2.0-or-later
#include "client/layer_map.hpp"

#include <algorithm>

namespace vitastor::client {
namespace {

constexpr size_t kMaxLayers = 4096;
constexpr uint64_t kDefaultExtents = 1u << 20;
constexpr unsigned kMaxWorkers = 4096;
/// Objects asked for between two looks at what was found.
constexpr uint64_t kMinBatch = 16, kMaxBatch = 16384;

}  // namespace

LayerMap::LayerMap(Context& context, LayerMapOptions options) : context_(context), options_(std::move(options)), tick_(context) {
    if (!options_.iodepth) options_.iodepth = 32;
    if (!options_.parallel_osds) options_.parallel_osds = 4;
    if (!options_.max_extents) options_.max_extents = kDefaultExtents;
    if (!options_.max_offset) options_.max_offset = UINT64_MAX;
    options_.iodepth = std::min(options_.iodepth, kMaxWorkers);
    options_.parallel_osds = std::min(options_.parallel_osds, kMaxWorkers);
    context_.add_listener(this);
}

LayerMap::~LayerMap() {
    for (Layer& layer : layers_)
        if (layer.image) close_internally(context_, layer.image);
    context_.remove_listener(this);
}

void LayerMap::start(Context& context, LayerMapOptions options, LayerMapDone done_fn, void* done_arg) {
    auto* map = new LayerMap(context, std::move(options));
    map->done_fn_ = done_fn;
    map->done_arg_ = done_arg;
    runtime::spawn(map->run());
}

int LayerMap::fail(int result, std::string text) {
    if (result_) return result_;
    error_ = std::move(text);
    return result_ = result;
}

void LayerMap::progress() {
    if (options_.progress_fn) options_.progress_fn(options_.progress_arg, std::min(next_, items_.size()), items_.size());
}

runtime::Task<> LayerMap::run() {
    if (options_.layers.empty() || options_.layers.size() > kMaxLayers) {
        fail(-EINVAL, "1 to 4096 layers can be looked at");
    } else {
        auto listing = list_layers();
        const int listed = co_await listing;
        if (listed) fail(listed, "");
    }
    if (!result_) {
        auto asking = ask_all();
        co_await asking;
    }
    if (context_.closing()) result_ = -ECANCELED;
    // Out of whatever has woken us, before this object goes.
    Turn turn{context_.loop()};
    co_await turn;
    context_.count_callback();
    const bool ok = result_ == 0;
    done_fn_(done_arg_, result_, ok ? extents_.data() : nullptr, ok ? extents_.size() : 0, next_offset_, error_.c_str());
    delete this;
}

/// Geometry of all layers.
int LayerMap::prepare() {
    for (InodeNum inode : options_.layers) {
        PoolView* pool = context_.pool_view(pool_of(inode));
        if (!pool) return fail(-ENOENT, "the pool of " + shown(inode) + " does not exist");
        Layer layer;
        layer.inode = inode;
        layer.object_size = pool->object_size;
        layer.granularity = pool->pool->bitmap_granularity;
        ImageOptions image;
        image.inode = inode;
        image.skip_parents = true;
        image.read_only = true;
        layer.image = open_internally(context_, std::move(image), layer.granularity);
        layers_.push_back(layer);
    }
    return 0;
}

// ---- listing

runtime::Task<> LayerMap::list_pg(Listing* listing, PgNum pg) {
    LayerMap& map = *listing->map;
    const Layer& layer = map.layers_[listing->layer];
    if (!listing->walk->inactive_pgs.empty()) co_return;
    std::vector<ObjectId> objects;
    ListRange range;
    range.inode = layer.inode;
    range.min_offset = map.options_.min_offset / layer.object_size * layer.object_size;
    range.max_offset = map.options_.max_offset == UINT64_MAX ? 0 : map.options_.max_offset;
    auto listed = listing->walk->list(pg, range, &objects);
    const bool ok = co_await listed;
    if (!ok) co_return;
    for (const ObjectId& object : objects) map.items_.push_back({object.stripe, listing->layer});
}

runtime::Task<int> LayerMap::list_layers() {
    for (uint32_t index = 0; index < options_.layers.size(); index++) {
        const InodeNum inode = options_.layers[index];
        walks_.push_back(std::make_unique<PgWalk>(context_, pool_of(inode)));
        PgWalk& walk = *walks_.back();
        auto beginning = walk.begin();
        const int begun = co_await beginning;
        if (begun) co_return fail(begun, begun == -ENOENT ? "the pool of " + shown(inode) + " does not exist" : "");
        if (layers_.empty() && prepare()) co_return result_;
        Listing listing{this, &walk, index};
        auto walking = walk.each_pg(
            options_.parallel_osds, [](void* arg, PgNum pg) { return list_pg(static_cast<Listing*>(arg), pg); }, &listing);
        co_await walking;
        if (context_.closing()) co_return -ECANCELED;
        const std::string pool = "pool " + std::to_string(pool_of(inode));
        if (!walk.still_valid()) co_return fail(-EAGAIN, "the PG count of " + pool + " changed meanwhile: repeat the command");
        if (!walk.inactive_pgs.empty())
            co_return fail(-ETIMEDOUT,
                "PG " + std::to_string(*walk.inactive_pgs.begin()) + " of " + pool + " is inactive: its objects cannot be listed");
        if (!walk.inactive_osds.empty())
            co_return fail(-EIO, "OSD " + std::to_string(*walk.inactive_osds.begin()) + " is down and may hold objects of " + shown(inode));
    }
    std::sort(items_.begin(), items_.end());
    co_return 0;
}

// ---- bitmaps

runtime::Task<> LayerMap::ask_all() {
    const uint64_t wanted = static_cast<uint64_t>(options_.iodepth) * options_.parallel_osds;
    const uint64_t batch = std::clamp(options_.max_extents, kMinBatch, kMaxBatch);
    while (next_ < items_.size() && !result_ && !context_.closing()) {
        progress();
        const size_t end = std::min<uint64_t>(items_.size(), next_ + batch);
        const auto count = static_cast<unsigned>(std::min<uint64_t>({wanted, kMaxWorkers, end - next_}));
        Join join;
        join.add(count);
        for (unsigned i = 0; i < count; i++) runtime::spawn(joined(work(end), &join));
        auto all = join.all();
        co_await all;
        // Nothing that is still to be asked for begins below this.
        settle(next_ < items_.size() ? items_[next_].offset : UINT64_MAX);
        if (next_offset_ != UINT64_MAX) break;
    }
    progress();
}

runtime::Task<> LayerMap::work(size_t end) {
    while (next_ < end && !result_ && !context_.closing()) {
        const Item item = items_[next_++];
        auto asking = ask(item);
        const int result = co_await asking;
        if (result)
            fail(result, "the bitmap of the object at " + std::to_string(item.offset) + " of " + shown(layers_[item.layer].inode) +
                             " cannot be read" + (result == -ETIMEDOUT ? ": its PG is inactive" : ""));
    }
}

runtime::Task<int> LayerMap::ask(Item item) {
    const Layer& layer = layers_[item.layer];
    const uint64_t granules = layer.object_size / layer.granularity;
    std::vector<uint8_t> bitmap((granules + 7) / 8);
    OpCall call;
    call.set(context_, OpKind::read_bitmap, layer.image, item.offset, bitmap.data(), bitmap.size());
    call.op().length = layer.object_size;
    call.start();
    const int64_t result = co_await call;
    if (result < 0) co_return static_cast<int>(result);
    const auto present = [&](uint64_t granule) { return bitmap[granule / 8] >> (granule % 8) & 1; };
    for (uint64_t granule = 0; granule < granules;) {
        const uint64_t first = granule;
        while (granule < granules && present(granule)) granule++;
        if (granule > first) add(item.offset + first * layer.granularity, item.offset + granule * layer.granularity);
        else granule++;
    }
    co_return 0;
}

void LayerMap::add(uint64_t offset, uint64_t end) {
    offset = std::max(offset, options_.min_offset);
    end = std::min(end, options_.max_offset);
    if (offset < end) extents_.push_back({offset, end - offset});
}

/// Puts what was found in order and joins what touches. Enough of it: the run ends, and the next one begins at `below`.
void LayerMap::settle(uint64_t below) {
    std::sort(extents_.begin(), extents_.end(), [](auto& a, auto& b) { return a.offset < b.offset; });
    size_t count = 0;
    for (const vitastor_extent& extent : extents_) {
        if (count && extent.offset <= extents_[count - 1].offset + extents_[count - 1].length) {
            vitastor_extent& last = extents_[count - 1];
            last.length = std::max(last.offset + last.length, extent.offset + extent.length) - last.offset;
        } else {
            extents_[count++] = extent;
        }
    }
    extents_.resize(count);
    if (below == UINT64_MAX || extents_.size() < options_.max_extents) return;
    next_offset_ = below;
    while (!extents_.empty() && extents_.back().offset >= below) extents_.pop_back();
    if (!extents_.empty()) extents_.back().length = std::min(extents_.back().offset + extents_.back().length, below) - extents_.back().offset;
}

}  // namespace vitastor::client

// SPDX-License-Identifier: GPL-2.0-or-later
// Where layers hold data: extents of an image from the bitmaps of its layers, without reading data. Source: semantics 11.3, 11.8.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "client/op_call.hpp"
#include "client/pg_walk.hpp"
#include "vitastor.h"

namespace vitastor::client {

struct LayerMapOptions {
    std::vector<InodeNum> layers;   ///< full numbers, any order; 1 … 4096, all different
    uint64_t min_offset = 0;        ///< image bytes
    uint64_t max_offset = 0;        ///< exclusive; 0 = no bound
    uint64_t max_extents = 0;       ///< about so many are returned at once; 0: 2^20
    uint32_t iodepth = 32;          ///< objects asked for at once, per OSD
    uint32_t parallel_osds = 4;
    void (*progress_fn)(void* arg, uint64_t done, uint64_t total) = nullptr;
    void* progress_arg = nullptr;
};

using LayerMapDone = void (*)(void* arg, int result, const vitastor_extent* extents, size_t count, uint64_t next_offset,
    const char* error);

/// One run; deletes itself after done_fn. On the context's thread. An OSD is asked for lists first and then, object by object, for
/// bitmaps: an image costs what is in it, not what its size is.
class LayerMap final : public ChangeListener {
public:
    /// done_fn as in vitastor_map_layers(). Extents are in order, disjoint, and never touch.
    static void start(Context& context, LayerMapOptions options, LayerMapDone done_fn, void* done_arg);

private:
    struct Layer {
        InodeNum inode = 0;
        Image* image = nullptr;
        uint64_t object_size = 0;
        uint32_t granularity = 0;
    };
    /// One object to be asked for.
    struct Item {
        uint64_t offset = 0;
        uint32_t layer = 0;
        bool operator<(const Item& other) const { return offset < other.offset; }
    };
    struct Listing {
        LayerMap* map = nullptr;
        PgWalk* walk = nullptr;
        uint32_t layer = 0;
    };

    LayerMap(Context& context, LayerMapOptions options);
    ~LayerMap();
    void on_change() override {}
    runtime::Task<> run();
    int prepare();
    runtime::Task<int> list_layers();
    static runtime::Task<> list_pg(Listing* listing, PgNum pg);
    runtime::Task<> ask_all();
    runtime::Task<> work(size_t end);
    runtime::Task<int> ask(Item item);
    void add(uint64_t offset, uint64_t end);
    void settle(uint64_t below);
    int fail(int result, std::string text);
    void progress();

    Context& context_;
    LayerMapOptions options_;
    LayerMapDone done_fn_ = nullptr;
    void* done_arg_ = nullptr;
    std::vector<Layer> layers_;
    std::vector<std::unique_ptr<PgWalk>> walks_;  ///< kept to the end
    std::vector<Item> items_;
    size_t next_ = 0;
    std::vector<vitastor_extent> extents_;
    uint64_t next_offset_ = UINT64_MAX;
    int result_ = 0;
    std::string error_;
    GiveUpTick tick_;
};

}  // namespace vitastor::client

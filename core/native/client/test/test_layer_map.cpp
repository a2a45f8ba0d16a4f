// SPDX-License-Identifier: GPL-2.0-or-later
// Maps of layers against a model: what is present in any of them, at the granularity of each.
#include <doctest/doctest.h>

#include <random>

#include "client/layer_map.hpp"
#include "fake_cluster.hpp"

using namespace fake;
using client::LayerMap;
using client::LayerMapOptions;

namespace {

struct Mapped {
    bool done = false;
    int result = 0;
    std::vector<vitastor_extent> extents;
    uint64_t next = 0;
    std::string error;
    static void fn(void* arg, int result, const vitastor_extent* extents, size_t count, uint64_t next, const char* error) {
        auto* self = static_cast<Mapped*>(arg);
        self->done = true;
        self->result = result;
        self->extents.assign(extents, extents + count);
        self->next = next;
        self->error = error;
    }
};

struct Rig : World {
    std::mt19937_64 random;
    std::map<InodeNum, std::set<uint64_t>> model;  ///< present pieces of kGranule

    explicit Rig(uint64_t seed) : World("all"), random(seed) {
        add_osd(1);
        add_osd(2);
        layers.options["client_wait_up_timeout"] = "4";
        for (auto& [number, osd] : osds) osd->geometry[2] = {2 * kBlock, 2 * kGranule};
        pool2_extra = R"(,"immediate_commit":"all","block_size":262144,"bitmap_granularity":8192)";
        feed();
    }
    uint64_t below(uint64_t limit) { return random() % limit; }
    void put(InodeNum inode, uint64_t offset) {
        Osd& any = *osds[1];
        const uint32_t size = any.span_of(inode), granule = any.granule_of(inode);
        const uint64_t stripe = offset / size * size;
        Osd& osd = *osds[pool_of(inode) == 1 && stripe / kBlock % 2 == 0 ? 1 : 2];
        auto& object = osd.objects[{inode, stripe}];
        object.data.resize(size);
        object.bitmap.resize(size / granule / 8);
        object.version = 1;
        const uint64_t inside = (offset - stripe) / granule;
        object.bitmap[inside / 8] |= static_cast<uint8_t>(1 << inside % 8);
        osd.durable[{inode, stripe}] = object;
        const uint64_t start = offset / granule * granule;
        for (uint64_t at = start; at < start + granule; at += kGranule) model[inode].insert(at);
    }
    void fill(InodeNum inode, uint64_t objects) {
        model[inode];
        for (uint64_t object = 0; object < objects; object++) {
            const uint64_t density = below(4);
            for (uint64_t g = 0; density && g < kBlock / kGranule; g++)
                if (density == 3 || below(density == 1 ? 16 : 2) == 0) put(inode, object * kBlock + g * kGranule);
        }
    }
    Mapped map(LayerMapOptions options) {
        Mapped mapped;
        LayerMap::start(context(0), std::move(options), Mapped::fn, &mapped);
        CHECK(until([&] { return mapped.done; }));
        return mapped;
    }
    std::set<uint64_t> expected(const std::vector<InodeNum>& chain, uint64_t min, uint64_t max) {
        std::set<uint64_t> all;
        for (InodeNum inode : chain)
            for (uint64_t at : model[inode])
                if (at >= min && at < max) all.insert(at);
        return all;
    }
};

}  // namespace

TEST_CASE("layer map: what is present in any of the layers, in parts or at once") {
    for (uint64_t seed = 1; seed <= 8; seed++) {
        CAPTURE(seed);
        Rig rig(seed);
        std::vector<InodeNum> chain;
        for (uint64_t i = 0; i < 1 + rig.below(4); i++) chain.push_back(full_inode(static_cast<PoolId>(1 + (seed > 2 ? rig.below(2) : 0)), 100 + i));
        for (InodeNum inode : chain) rig.fill(inode, 60);
        rig.fill(full_inode(1, 99), 60);  // somebody else's
        const uint64_t min = seed % 2 ? 0 : rig.below(300) * kGranule, max = seed % 3 ? UINT64_MAX : 50 * kBlock + 8 * kGranule;
        for (uint64_t limit : {uint64_t{0}, uint64_t{1}, uint64_t{40}}) {
            CAPTURE(limit);
            std::set<uint64_t> found;
            uint64_t next = min;
            for (int runs = 0; next != UINT64_MAX; runs++) {
                REQUIRE(runs < 1000);
                LayerMapOptions options;
                options.layers = chain;
                options.min_offset = next;
                options.max_offset = max == UINT64_MAX ? 0 : max;
                options.max_extents = limit;
                options.iodepth = 1 + static_cast<uint32_t>(rig.below(8));
                Mapped mapped = rig.map(options);
                CHECK(mapped.error == "");
                REQUIRE(mapped.result == 0);
                CHECK((limit != 0 || mapped.next == UINT64_MAX));
                uint64_t end = next;
                bool first = true;
                for (const vitastor_extent& extent : mapped.extents) {
                    CHECK(extent.length > 0);
                    CHECK((first ? extent.offset >= end : extent.offset > end));
                    first = false;
                    end = extent.offset + extent.length;
                    CHECK((mapped.next == UINT64_MAX || end <= mapped.next));
                    for (uint64_t at = extent.offset; at < end; at += kGranule) CHECK(found.insert(at).second);
                }
                REQUIRE(mapped.next > next);
                next = mapped.next;
            }
            CHECK((found == rig.expected(chain, min, max)));
        }
    }
}

TEST_CASE("layer map: errors name what is wrong, and end in time") {
    Rig rig(3);
    const InodeNum inode = full_inode(1, 100);
    rig.fill(inode, 10);
    LayerMapOptions options;
    CHECK(rig.map(options).result == -EINVAL);
    options.layers = {inode, full_inode(7, 5)};
    Mapped missing = rig.map(options);
    CHECK(missing.result == -ENOENT);
    CHECK(missing.error == "the pool of inode 5 of pool 7 does not exist");
    options.layers = {inode};
    for (auto& [number, osd] : rig.osds)
        osd->fault = [](net::Request& request) { return request.opcode == wire::Opcode::read ? -EINVAL : 0; };
    Mapped refused = rig.map(options);
    CHECK(refused.result == -EINVAL);
    CHECK(refused.error.find("the bitmap of the object at") == 0);
    for (auto& [number, osd] : rig.osds) osd->fault = nullptr;
    CHECK(rig.map(options).result == 0);
}

// SPDX-License-Identifier: GPL-2.0-or-later
// Purge: all objects of an inode, or what lies behind a new end.
#include <doctest/doctest.h>

#include "fake_cluster.hpp"

using namespace fake;
using client::OpKind;

namespace {
struct Purged {
    bool done = false;
    int result = 0;
    std::string json;
    static void fn(void* arg, int result, const char* json) {
        auto* self = static_cast<Purged*>(arg);
        self->done = true;
        self->result = result;
        self->json = json;
    }
};
}  // namespace

TEST_CASE("purge: every PG, bounds, retries, leftovers, old servers, missing PGs") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    auto fill = [&] {
        auto data = pattern(20 * kBlock, 1);
        REQUIRE(world.write(image, 0, data) == static_cast<int64_t>(data.size()));
    };
    auto purge = [&](client::PurgeOptions options) {
        Purged purged;
        options.pool = options.pool ? options.pool : 1;
        options.inode = full_inode(options.pool, 1);
        client::Purge::start(world.context(), options, Purged::fn, &purged);
        CHECK(world.until([&] { return purged.done; }));
        return purged;
    };
    fill();
    client::PurgeOptions options;
    options.iodepth = 3;
    options.min_offset = 18 * kBlock;
    int times = 4;
    world.osds[1]->fault = [&](net::Request& request) { return request.opcode == wire::Opcode::del && times-- > 0 ? -EPIPE : 0; };
    auto tail = purge(options);
    CHECK(tail.result == 0);
    CHECK(tail.json == R"({"removed_objects":2,"total_objects":2,"error_count":0,"inactive_osds":[],"inactive_pgs":[]})");
    options.min_offset = 0;
    options.wait_list = true;
    CHECK(purge(options).json.starts_with(R"({"removed_objects":18,"total_objects":18)"));
    CHECK(world.osds[1]->objects.empty());
    CHECK(world.osds[2]->objects.empty());
    fill();
    world.osds[2]->left_on_dead_once = 1;
    world.osds[1]->old_server = true;
    auto left = purge(client::PurgeOptions());
    CHECK(left.result == -EIO);
    CHECK(left.json.find("\"inactive_osds\":[9]") != std::string::npos);
    fill();
    world.put("/pg/state/1/2", "");
    REQUIRE(world.until_generation(2));
    auto missing = purge(client::PurgeOptions());
    CHECK(missing.result == -EIO);
    CHECK(missing.json == R"({"removed_objects":10,"total_objects":10,"error_count":0,"inactive_osds":[],"inactive_pgs":[2]})");
    client::PurgeOptions unknown;
    unknown.pool = 40;
    CHECK(purge(unknown).result == -ENOENT);
}

TEST_CASE("purge: the end cuts an object, nothing before it changes, also where a parent has data") {
    for (const uint64_t end : {5ull * kBlock + 3 * kGranule, 5ull * kBlock + 5000, 5ull * kBlock, 0ull}) {
        for (const bool parent : {false, true}) {
            CAPTURE(end);
            CAPTURE(parent);
            World world;
            world.add_osd(1);
            world.add_osd(2);
            world.feed();
            client::Image* image = world.open();
            auto data = pattern(10 * kBlock, 1);
            REQUIRE(world.write(image, 0, data) == static_cast<int64_t>(data.size()));
            // The object of the end: granules 0 to 5 alone; more in the parent, which lies in another pool.
            const ObjectId object{full_inode(1, 1), 5ull * kBlock};
            auto& stored = world.osds[2]->objects[object];
            std::fill(stored.bitmap.begin(), stored.bitmap.end(), uint8_t{0});
            stored.bitmap[0] = 0x3f;
            auto& below = world.osds[2]->objects[{full_inode(2, 9), 5ull * kBlock}];
            below.data.assign(kBlock, 0x77);
            below.bitmap = {0, 0x0f, 0, 0};
            below.version = 1;
            world.put("/config/inode/2/9", R"({"name":"base","size":1310720,"readonly":true})");
            world.put("/config/inode/1/1", std::string(R"({"name":"img","size":1310720,"readonly":true)") + (parent ? R"(,"parent_id":9,"parent_pool":2})" : "}"));
            REQUIRE(world.until([&] { return image->read_only.load(); }));
            Purged purged;
            client::PurgeOptions options;
            options.pool = 1;
            options.inode = full_inode(1, 1);
            options.min_offset = end;
            options.cut = true;
            client::Purge::start(world.context(), options, Purged::fn, &purged);
            REQUIRE(world.until([&] { return purged.done; }));
            CHECK(purged.result == 0);
            const bool cuts = end % kBlock;
            const uint64_t kept = (end + kBlock - 1) / kBlock;
            CHECK(world.osds[1]->objects.size() + world.osds[2]->objects.size() == kept + 1);
            for (uint64_t block = 0; block < kept; block++) {
                auto& osd = *world.osds[block % 2 ? 2 : 1];
                auto found = osd.objects.find({full_inode(1, 1), block * kBlock});
                REQUIRE(found != osd.objects.end());
                std::vector<uint8_t> expected(&data[block * kBlock], &data[block * kBlock] + kBlock);
                uint32_t bits = block == 5 ? 0x3f : 0xffffffff;
                if (block == 5 && cuts) {
                    for (uint64_t at = end - object.stripe; at < kBlock; at++)
                        if (at / kGranule <= 5 || (parent && at / kGranule >= 8 && at / kGranule < 12)) expected[at] = 0;
                    if (parent) bits |= 0xf00;
                }
                CHECK((found->second.data == expected));
                uint32_t found_bits = 0;
                memcpy(&found_bits, found->second.bitmap.data(), 4);
                CHECK(found_bits == bits);
            }
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
// Images while they are opened and open: names that come, go and move, read-only ones, parents, bitmaps.
#include <doctest/doctest.h>

#include "fake_cluster.hpp"

using namespace fake;
using client::OpKind;

namespace {

/// Inode 7 of pool 2, to be written before it is made a parent.
client::Image* open_base(World& world) {
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::ImageOptions base;
    base.inode = full_inode(2, 7);
    client::Image* parent = world.create(base);
    CHECK(world.run(OpKind::open, parent, 0, 0, {}) == 0);
    return parent;
}

}  // namespace

TEST_CASE("open: unknown names, unknown pools, no etcd, and by number") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    client::ImageOptions missing;
    missing.name = "nothing";
    client::Image* image = world.create(missing);
    Done done;
    world.start(OpKind::open, image, 0, 0, {}, done);
    world.loop->run_once(0);
    CHECK_FALSE(done.done);  // waits for the first load
    world.feed();
    REQUIRE(world.until([&] { return done.done; }));
    CHECK(done.result == -ENOENT);
    CHECK(world.logger.text.find("image nothing does not exist") != std::string::npos);
    client::ImageOptions other;
    other.inode = full_inode(77, 1);
    CHECK(world.run(OpKind::open, world.create(other), 0, 0, {}) == -ENOENT);
    client::ImageOptions number;
    number.inode = full_inode(1, 500);
    number.size_bytes = 4096;
    client::Image* by_number = world.create(number);
    CHECK(world.run(OpKind::open, by_number, 0, 0, {}) == 0);
    CHECK(by_number->size_bytes == 4096);
    auto data = pattern(8192, 1);
    CHECK(world.write(by_number, 0, data) == 8192);
    CHECK(world.read(by_number, 0, 8192) == data);
    CHECK(world.osds[1]->last_meta_revision == 0);
}

TEST_CASE("open: a name that was made a moment ago, one that is made never, and a context that closes meanwhile") {
    World world;
    world.add_osd(1);
    world.feed();
    REQUIRE(world.open());
    client::ImageOptions options;
    options.name = "young";
    Done done;
    client::Image* image = world.create(options);
    world.start(OpKind::open, image, 0, 0, {}, done);
    options.name = "never";
    Done never;
    const uint64_t begin = world.loop->now_exact_ns();
    world.start(OpKind::open, world.create(options), 0, 0, {}, never);
    world.loop->run_once(0);
    CHECK_FALSE(done.done);
    world.put("/config/inode/1/30", R"({"name":"young","size":1048576})");
    REQUIRE(world.until([&] { return done.done; }));
    CHECK(done.result == 0);
    CHECK(image->size_bytes == 1048576);
    CHECK((!never.done || world.loop->now_exact_ns() - begin >= runtime::kNsPerSecond));  // which it is waited for
    REQUIRE(world.until([&] { return never.done; }));
    CHECK(never.result == -ENOENT);
    CHECK(world.logger.text.find("image never does not exist") != std::string::npos);
    Done late;
    world.start(OpKind::open, world.create(options), 0, 0, {}, late);
    world.loop->run_once(0);
    CHECK_FALSE(late.done);
    world.contexts[0]->close();
    CHECK(late.result == -ECANCELED);
}

TEST_CASE("open is given up when the first contact with etcd is") {
    World world;
    client::ImageOptions options;
    options.name = "img";
    client::Image* image = world.create(options);
    Done done;
    world.start(OpKind::open, image, 0, 0, {}, done);
    world.source.feed_trouble(1, "etcd:1: connection refused");
    REQUIRE(world.until([&] { return done.done; }));
    CHECK(done.result == -ETIMEDOUT);
    CHECK(world.logger.text.find("etcd:1") != std::string::npos);
}

TEST_CASE("read-only images, and a snapshot made by three puts while writing") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    struct Changed {
        int count = 0;
        uint64_t size = 0;
    } changed;
    client::ImageOptions options;
    options.name = "img";
    options.changed_arg = &changed;
    options.changed_fn = [](void* arg, uint64_t size, int) {
        static_cast<Changed*>(arg)->count++;
        static_cast<Changed*>(arg)->size = size;
    };
    client::Image* image = world.create(options);
    CHECK(world.run(OpKind::open, image, 0, 0, {}) == 0);
    auto data = pattern(4096, 1), newer = pattern(4096, 2);
    CHECK(world.write(image, 0, data) == 4096);
    world.put("/config/inode/1/1", R"({"name":"img@0","size":1073741824,"readonly":true})");
    REQUIRE(world.until_generation(2));
    Done done;
    world.start(OpKind::write, image, 0, 4096, {{newer.data(), 4096}}, done);
    for (int i = 0; i < 20; i++) world.loop->run_once(world.loop->now_exact_ns() + runtime::kNsPerMs);
    CHECK_FALSE(done.done);
    world.put("/config/inode/1/2", R"({"name":"img","size":2147483648,"parent_id":1})");
    REQUIRE(world.until([&] { return done.done; }));
    CHECK(done.result == 4096);
    CHECK(world.osds[1]->objects[ObjectId{full_inode(1, 1), 0}].data[7] == data[7]);
    CHECK(world.osds[1]->objects[ObjectId{full_inode(1, 2), 0}].data[7] == newer[7]);
    CHECK(image->inode == full_inode(1, 2));
    CHECK(changed.count >= 1);
    CHECK(changed.size == 2147483648);
    world.put("/config/inode/1/2", R"({"name":"img","size":4096,"parent_id":1,"readonly":true})");
    REQUIRE(world.until([&] { return image->size_bytes == 4096; }));
    CHECK(world.write(image, 0, data) == -EROFS);
    CHECK(world.run(OpKind::discard, image, 0, 4096, {}) == -EROFS);
    CHECK(world.read(image, 0, 4096) == newer);
}

TEST_CASE("a renamed image: its users stay with it, whatever gets its old name, and follow its snapshots under the new one") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    REQUIRE(image);
    auto data = pattern(4096, 1), newer = pattern(4096, 2), third = pattern(4096, 3);
    const auto byte = [&](uint64_t inode) { return world.osds[1]->objects[ObjectId{full_inode(1, inode), 0}].data.at(7); };
    world.put("/config/inode/1/1", R"({"name":"other","size":1073741824})");
    REQUIRE(world.until([&] { return image->renamed.load(); }));
    CHECK(image->name() == "other");
    CHECK(world.write(image, 0, data) == 4096);
    CHECK(byte(1) == data[7]);
    world.put("/config/inode/1/5", R"({"name":"img","size":4096})");
    REQUIRE(world.until_generation(3));
    CHECK(image->inode == full_inode(1, 1));
    CHECK(image->size_bytes == 1073741824);
    CHECK(world.write(image, 0, newer) == 4096);
    CHECK(byte(1) == newer[7]);
    // A snapshot, and a new size, under the new name.
    world.put("/config/inode/1/1", R"({"name":"other@0","size":1073741824,"readonly":true})");
    world.put("/config/inode/1/6", R"({"name":"other","size":2147483648,"parent_id":1})");
    REQUIRE(world.until([&] { return image->size_bytes == 2147483648; }));
    CHECK(world.write(image, 0, third) == 4096);
    CHECK(byte(1) == newer[7]);
    CHECK(byte(6) == third[7]);
    // Old and new name in one step.
    client::Image* second = world.open("other", 1);
    REQUIRE(second);
    world.revision++;
    world.source.feed_events({World::pair("/config/inode/1/6", R"({"name":"again","size":2147483648,"parent_id":1})", world.revision),
        World::pair("/config/inode/1/7", R"({"name":"other","size":8192})", world.revision)}, world.revision);
    REQUIRE(world.until([&] { return image->name() == "again" && second->name() == "again"; }));
    CHECK(world.write(second, 0, data, 1) == 4096);
    CHECK(byte(6) == data[7]);
    CHECK(second->size_bytes == 2147483648);
    // A snapshot by hand that renames first and becomes read-only later: seen by who has opened it under that name.
    client::Image* third_handle = world.open("again");
    REQUIRE(third_handle);
    world.put("/config/inode/1/6", R"({"name":"again@1","size":2147483648,"parent_id":1})");
    REQUIRE(world.until([&] { return image->name() == "again@1"; }));
    world.put("/config/inode/1/8", R"({"name":"again","size":2147483648,"parent_id":6})");
    world.put("/config/inode/1/6", R"({"name":"again@1","size":2147483648,"parent_id":1,"readonly":true})");
    REQUIRE(world.until([&] { return third_handle->inode == full_inode(1, 8); }));
    CHECK_FALSE(third_handle->renamed);
    world.put("/config/inode/1/8", "");
    REQUIRE(world.until([&] { return world.contexts[0]->map()->image_by_name->count("again") == 0; }));
    CHECK(third_handle->inode == full_inode(1, 8));
}

TEST_CASE("an image that is removed while it is open: an error, and nothing is written to what others make under its name") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    client::Image* elsewhere = world.open("img", 1);
    REQUIRE(image);
    REQUIRE(elsewhere);
    auto data = pattern(4096, 1);
    CHECK(world.write(image, 0, data) == 4096);
    const auto refused = [&](client::Image* of, size_t index) {
        CHECK(world.write(of, 4096, data, index) == -ENOENT);
        CHECK(world.run(OpKind::read, of, 0, 4096, {{data.data(), 4096}}, index) == -ENOENT);
        CHECK(world.run(OpKind::discard, of, 0, 4096, {}, index) == -ENOENT);
        CHECK(world.flush(of, index) == 0);
    };
    // The first step of a removal, which may be taken back.
    world.put("/config/inode/1/1", R"({"name":"img","size":1073741824,"deleted":true})");
    REQUIRE(world.until([&] { return world.contexts[0]->map()->generation >= 2 && world.contexts[1]->map()->generation >= 2; }));
    refused(image, 0);
    refused(elsewhere, 1);
    CHECK(world.open() == nullptr);
    CHECK(world.logger.text.find("image img cannot be opened: it is being removed") != std::string::npos);
    CHECK(world.logger.text.find("image img, which is open, cannot be used any more: it is being removed") != std::string::npos);
    world.put("/config/inode/1/1", R"({"name":"img","size":1073741824})");
    REQUIRE(world.until_generation(3));
    CHECK(world.write(image, 4096, data) == 4096);
    CHECK(world.logger.text.find("image img is whole again") != std::string::npos);
    // Waiting operations end, too.
    Done waiting;
    world.osds[1]->fault = [](net::Request&) { return -EPIPE; };
    world.start(OpKind::write, image, 0, 4096, {{data.data(), 4096}}, waiting);
    world.put("/config/inode/1/1", "");
    REQUIRE(world.until([&] { return waiting.done; }));
    CHECK(waiting.result == -ENOENT);
    world.osds[1]->fault = nullptr;
    const int writes = world.osds[1]->writes;
    world.put("/config/inode/1/5", R"({"name":"img","size":4096})");
    REQUIRE(world.until([&] { return world.contexts[0]->map()->generation >= 5 && world.contexts[1]->map()->generation >= 5; }));
    refused(image, 0);
    refused(elsewhere, 1);
    CHECK(image->size_bytes == 1073741824);
    CHECK(world.osds[1]->writes == writes);
    CHECK(world.open() != nullptr);  // the new one
}

TEST_CASE("parents that vanish while their child is open: reads fail, writes go on") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    REQUIRE(world.open());
    world.put("/config/inode/2/7", R"({"name":"base","size":1073741824,"readonly":true})");
    const auto put_middle = [&] {
        world.put("/config/inode/1/8", R"({"name":"middle","size":1073741824,"readonly":true,"parent_id":7,"parent_pool":2})");
    };
    put_middle();
    world.put("/config/inode/1/9", R"({"name":"top","size":1073741824,"parent_id":8})");
    client::Image* top = world.open("top");
    REQUIRE(top);
    auto data = pattern(4096, 1);
    CHECK(world.read(top, 0, 4096).size() == 4096);
    for (const char* key : {"/config/inode/1/8", "/config/inode/2/7"}) {
        world.put(key, "");
        REQUIRE(world.until([&] { return top->fault == -ENOENT; }));
        CHECK(world.run(OpKind::read, top, 0, 4096, {{data.data(), 4096}}) == -ENOENT);
        uint8_t bits[1] = {0};
        CHECK(world.run(OpKind::read_bitmap, top, 0, 4096, {{bits, 1}}) == -ENOENT);
        CHECK(world.write(top, 0, data) == 4096);
        CHECK(world.logger.text.find("image top, which is open, cannot be read any more: inode ") != std::string::npos);
        put_middle();
        world.put("/config/inode/2/7", R"({"name":"base","size":1073741824,"readonly":true})");
        REQUIRE(world.until([&] { return top->fault == 0; }));
        CHECK(world.read(top, 0, 4096) == data);
    }
}

TEST_CASE("reads through a parent in another pool, granule by granule, and parents in a ring") {
    World world;
    client::Image* parent = open_base(world);
    auto old_data = pattern(2 * kBlock, 1), new_data = pattern(kBlock, 100);
    CHECK(world.write(parent, 0, old_data) == static_cast<int64_t>(old_data.size()));
    world.put("/config/inode/2/7", R"({"name":"base","size":1073741824,"readonly":true})");
    world.put("/config/inode/1/9", R"({"name":"clone","size":1073741824,"parent_id":7,"parent_pool":2})");
    REQUIRE(world.until_generation(2));
    client::Image* clone = world.open("clone");
    REQUIRE(clone);
    for (size_t g : {1u, 2u, 30u}) {
        std::vector<uint8_t> granule(new_data.begin() + static_cast<long>(g) * 4096, new_data.begin() + static_cast<long>(g + 1) * 4096);
        CHECK(world.write(clone, g * 4096, granule) == 4096);
    }
    auto expected = old_data;
    for (size_t g : {1u, 2u, 30u}) memcpy(&expected[g * 4096], &new_data[g * 4096], 4096);
    CHECK(world.read(clone, 0, 2 * kBlock) == expected);
    std::vector<uint8_t> part(expected.begin() + 4096, expected.begin() + 4096 + kBlock);
    CHECK(world.read(clone, 4096, kBlock) == part);
    // A failing ancestor fails the read, once.
    world.osds[2]->fault = [](net::Request& request) {
        auto io = wire::decode<wire::ClientRequest>(wire::ConstHeaderBytes(request.header, wire::kHeaderSize));
        return pool_of(io.inode) == 2 ? -EINVAL : 0;
    };
    CHECK(world.read(clone, 0, kBlock).empty());
    world.osds[2]->fault = nullptr;
    world.put("/config/inode/1/9", R"({"name":"clone","size":1073741824,"parent_id":10})");
    world.put("/config/inode/1/10", R"({"name":"c2","size":1073741824,"parent_id":9})");
    REQUIRE(world.until_generation(3));
    CHECK(world.run(OpKind::read, clone, 0, 4096, {{part.data(), 4096}}) == -ELOOP);
    // Over pools too, where every step is a read of its own.
    world.put("/config/inode/2/7", R"({"name":"base","size":1073741824,"parent_id":9,"parent_pool":1})");
    world.put("/config/inode/1/9", R"({"name":"clone","size":1073741824,"parent_id":7,"parent_pool":2})");
    REQUIRE(world.until_generation(4));
    CHECK(world.run(OpKind::read, clone, 0, 4096, {{part.data(), 4096}}) == -ELOOP);
}

TEST_CASE("a parent in another pool is merged and deleted while it is read") {
    World world;
    client::Image* parent = open_base(world);
    auto data = pattern(4096, 1);
    CHECK(world.write(parent, 0, data) == 4096);
    world.put("/config/inode/2/7", R"({"name":"base","size":1073741824,"readonly":true})");
    world.put("/config/inode/1/9", R"({"name":"clone","size":1073741824,"parent_id":7,"parent_pool":2})");
    REQUIRE(world.until_generation(2));
    client::Image* clone = world.open("clone");
    REQUIRE(clone);
    Osd& below = *world.osds[2];  // leads the other pool
    auto of_parent = [](const net::Request& request) {
        return pool_of(wire::decode<wire::ClientRequest>(wire::ConstHeaderBytes(request.header, wire::kHeaderSize)).inode) == 2;
    };
    for (bool gone : {false, true}) {
        CAPTURE(gone);
        below.fault = [&](net::Request& request) { return of_parent(request) ? 1 : 0; };
        Done read;
        std::vector<uint8_t> seen(4096, 0xff);
        world.start(OpKind::read, clone, 0, 4096, {{seen.data(), 4096}}, read);
        REQUIRE(world.until([&] { return below.held() == 1; }));
        // As flatten does: copied up, taken out of the chain, deleted.
        CHECK(world.write(clone, 0, data) == 4096);
        world.put("/config/inode/1/9", R"({"name":"clone","size":1073741824})");
        REQUIRE(world.until_generation(gone ? 5 : 3));
        if (gone) {
            below.answer_held(-ENOENT);
        } else {
            std::erase_if(below.objects, [](const auto& object) { return pool_of(object.first.inode) == 2; });
            below.release_held();
        }
        REQUIRE(world.until([&] { return read.done; }));
        CHECK(read.result == 4096);
        CHECK(seen == data);
        below.fault = nullptr;
        world.osds[1]->objects.clear();
        std::erase_if(below.objects, [](const auto& object) { return pool_of(object.first.inode) == 1; });
        world.put("/config/inode/1/9", R"({"name":"clone","size":1073741824,"parent_id":7,"parent_pool":2})");
        REQUIRE(world.until_generation(gone ? 6 : 4));
    }
}

TEST_CASE("open: parents that form a loop, in a pool and over pools, and parents that do not exist") {
    World world;
    world.add_osd(1);
    world.feed();
    REQUIRE(world.open());
    world.put("/config/inode/1/20", R"({"name":"self","size":1048576,"parent_id":20})");
    world.put("/config/inode/1/21", R"({"name":"a","size":1048576,"parent_id":7,"parent_pool":2})");
    world.put("/config/inode/2/7", R"({"name":"b","size":1048576,"parent_id":21,"parent_pool":1})");
    world.put("/config/inode/1/22", R"({"name":"on-a","size":1048576,"parent_id":21})");
    world.put("/config/inode/1/23", R"({"name":"orphan","size":1048576,"parent_id":99})");
    world.put("/config/inode/1/24", R"({"name":"poolless","size":1048576,"parent_id":1,"parent_pool":77})");
    world.put("/config/inode/1/25", R"({"name":"fine","size":1048576,"parent_id":26})");
    world.put("/config/inode/1/26", R"({"name":"below","size":1048576})");
    REQUIRE(world.until_generation(2));
    auto open = [&](const char* name, bool skip_parents = false) {
        client::ImageOptions options;
        options.name = name;
        options.skip_parents = skip_parents;
        world.logger.text.clear();
        return world.run(OpKind::open, world.create(options), 0, 0, {});
    };
    auto says = [&](const char* text) { return world.logger.text.find(text) != std::string::npos; };
    for (const char* name : {"self", "a", "b", "on-a"}) {
        CHECK(open(name) == -ELOOP);
        CHECK(says(name));
        CHECK(says("its parents form a loop: correct parent_id of inode"));
    }
    CHECK(open("orphan") == -ENOENT);
    CHECK(says("inode 99 of pool 1, which it stands on, does not exist"));
    CHECK(open("poolless") == -ENOENT);
    CHECK(says("inode 1 of pool 77"));
    CHECK(open("fine") == 0);
    CHECK(open("orphan", true) == 0);
    CHECK(open("self", true) == 0);
}

TEST_CASE("bitmaps: own layer, layers in other pools with larger objects, many objects, errors, read-only images") {
    World world;
    client::Image* parent = open_base(world);
    auto granule = pattern(kGranule, 3);
    for (uint64_t g : {0u, 31u, 32u, 70u}) CHECK(world.write(parent, g * kGranule, granule) == kGranule);
    world.put("/config/inode/2/7", R"({"name":"base","size":1073741824,"readonly":true})");
    world.put("/config/inode/1/9", R"({"name":"clone","size":1073741824,"parent_id":7,"parent_pool":2})");
    REQUIRE(world.until_generation(2));
    client::Image* clone = world.open("clone");
    REQUIRE(clone);
    CHECK(clone->has_parent);
    for (uint64_t g : {1u, 33u, 95u}) CHECK(world.write(clone, g * kGranule, granule) == kGranule);
    auto bitmap = [&](client::Image* image, uint64_t first, uint64_t count) {
        std::vector<uint8_t> bits((count + 7) / 8);
        const int64_t result = world.run(OpKind::read_bitmap, image, first * kGranule, count * kGranule, {{bits.data(), bits.size()}});
        std::set<uint64_t> set;
        for (uint64_t i = 0; i < bits.size() * 8; i++)
            if (bits[i / 8] >> (i % 8) & 1) set.insert(first + i);
        if (result != static_cast<int64_t>(count)) set = {UINT64_MAX};
        return set;
    };
    using Set = std::set<uint64_t>;
    const int writes = world.osds[1]->writes + world.osds[2]->writes;
    CHECK(bitmap(clone, 0, 96) == Set{0, 1, 31, 32, 33, 70, 95});
    CHECK(bitmap(clone, 31, 3) == Set{31, 32, 33});
    CHECK(bitmap(clone, 96, 32) == Set{});
    CHECK(bitmap(parent, 0, 96) == Set{0, 31, 32, 70});  // read-only now
    CHECK(bitmap(clone, 0, 32 * 600) == Set{0, 1, 31, 32, 33, 70, 95});
    client::ImageOptions alone;
    alone.name = "clone";
    alone.skip_parents = true;
    client::Image* own = world.create(alone);
    CHECK(world.run(OpKind::open, own, 0, 0, {}) == 0);
    CHECK(bitmap(own, 0, 96) == Set{1, 33, 95});
    CHECK(world.osds[1]->last_meta_revision == 0);
    CHECK(world.osds[1]->writes + world.osds[2]->writes == writes);
    // A lost answer is asked for again; an ancestor that fails fails the whole, once.
    int refuse = 1;
    world.osds[2]->fault = [&](net::Request&) { return refuse-- > 0 ? -EPIPE : 0; };
    CHECK(bitmap(clone, 0, 96) == Set{0, 1, 31, 32, 33, 70, 95});
    world.osds[2]->fault = [](net::Request& request) {
        auto io = wire::decode<wire::ClientRequest>(wire::ConstHeaderBytes(request.header, wire::kHeaderSize));
        return pool_of(io.inode) == 2 ? -EINVAL : 0;
    };
    uint8_t bits[12];
    CHECK(world.run(OpKind::read_bitmap, clone, 0, 96 * kGranule, {{bits, sizeof bits}}) == -EINVAL);
    world.osds[2]->fault = nullptr;
}

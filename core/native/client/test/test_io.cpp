// SPDX-License-Identifier: GPL-2.0-or-later
// The client against OSDs in memory, pools with immediate_commit all: misuse, slicing, faults, retries, layers, discard, purge.
#include <doctest/doctest.h>

#include "fake_cluster.hpp"

using namespace fake;
using client::OpKind;

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
    world.start(OpKind::open, world.create(options), 0, 0, {}, never);
    world.loop->run_once(0);
    CHECK_FALSE(done.done);
    world.put("/config/inode/1/30", R"({"name":"young","size":1048576})");
    REQUIRE(world.until([&] { return done.done; }));
    CHECK(done.result == 0);
    CHECK(image->size_bytes == 1048576);
    CHECK_FALSE(never.done);
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

TEST_CASE("requests that can never work") {
    World world;
    world.feed();
    client::Image* image = world.open();
    REQUIRE(image);
    uint8_t byte;
    iovec iov{&byte, 4096};
    CHECK(client::Context::check_request(*image, 1, 4096, &iov, 1) == -EINVAL);
    CHECK(client::Context::check_request(*image, 0, 100, &iov, 1) == -EINVAL);
    CHECK(client::Context::check_request(*image, 0, 8192, &iov, 1) == -EINVAL);
    CHECK(client::Context::check_request(*image, UINT64_MAX - 4095, 4096, &iov, 1) == -EINVAL);
    CHECK(client::Context::check_request(*image, 0, 4096, &iov, -1) == -EINVAL);
    CHECK(client::Context::check_request(*image, 0, 4096, &iov, 1) == 0);
    iovec two[] = {{&byte, SIZE_MAX}, {&byte, 4097}};
    CHECK(client::Context::check_request(*image, 0, 4096, two, 2) == -EINVAL);
}

TEST_CASE("slices at object borders, many pieces, reads land in the caller's memory") {
    for (auto kind : {runtime::LoopKind::epoll, runtime::LoopKind::automatic}) {
        World world("all", kind);
        world.add_osd(1);
        world.add_osd(2);
        world.feed();
        client::Image* image = world.open();
        REQUIRE(image);
        CHECK(image->size_bytes == 1u << 30);
        auto data = pattern(5 * kBlock, 3);
        CHECK(world.write(image, kBlock / 2, data) == static_cast<int64_t>(data.size()));
        CHECK(world.osds[1]->objects.size() == 3);
        CHECK(world.osds[2]->objects.size() == 3);
        CHECK(world.read(image, kBlock / 2, data.size()) == data);
        CHECK(world.osds[1]->last_meta_revision == 50);
        // 40 pieces of odd sizes, both ways.
        std::vector<uint8_t> out(data.size(), 0);
        std::vector<iovec> pieces;
        for (size_t at = 0, i = 0; at < data.size(); i++) {
            size_t size = i == 39 ? data.size() - at : std::min(data.size() - at, 1000 + i * 811);
            pieces.push_back({out.data() + at, size});
            if (i % 7 == 0) pieces.push_back({nullptr, 0});
            at += size;
        }
        CHECK(world.run(OpKind::read, image, kBlock / 2, out.size(), pieces) == static_cast<int64_t>(out.size()));
        CHECK(out == data);
        auto other = pattern(out.size(), 77);
        memcpy(out.data(), other.data(), out.size());
        CHECK(world.run(OpKind::write, image, 0, out.size(), pieces) == static_cast<int64_t>(out.size()));
        CHECK(world.read(image, 0, out.size()) == out);
        CHECK(world.read(image, 512 << 20, 4096) == std::vector<uint8_t>(4096, 0));
        CHECK(world.flush(image) == 0);
        CHECK(world.osds[1]->syncs == 0);
        CHECK(world.run(OpKind::read, image, 0, 0, {}) == 0);
    }
}

TEST_CASE("a first operation waits for no pause: image, map and connections arrive in any order") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    uint64_t begin = world.loop->now_exact_ns();
    auto data = pattern(4096, 1);
    CHECK(world.write(image, 0, data) == 4096);
    CHECK(world.loop->now_exact_ns() - begin < 5 * runtime::kNsPerSecond);
    CHECK(world.osds[1]->writes == 1);
}

TEST_CASE("results: EPIPE, EIO and ENOSPC are tried again, others are returned, wrong lengths close") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    auto data = pattern(4096, 9);
    for (int error : {-EPIPE, -EIO, -ENOSPC}) {
        int times = 3;
        world.osds[1]->fault = [&](net::Request&) { return times-- > 0 ? error : 0; };
        CHECK(world.write(image, 0, data) == 4096);
        CHECK(times == -1);
        times = 3;
        CHECK(world.read(image, 0, 4096) == data);
        CHECK(times == -1);
    }
    world.osds[1]->fault = [&](net::Request&) { return -EINVAL; };
    CHECK(world.write(image, 0, data) == -EINVAL);
    world.osds[1]->fault = [&](net::Request& request) { return request.opcode == wire::Opcode::write ? -EROFS : 0; };
    CHECK(world.write(image, 0, data) == -EROFS);
    CHECK(world.read(image, 0, 4096) == data);
}

TEST_CASE("EIO and ENOSPC are returned when the settings say so; the worst result of several parts wins") {
    World world;
    world.layers.options["client_eio_retry_interval"] = "0";
    world.layers.options["client_retry_enospc"] = "no";
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    auto data = pattern(2 * kBlock, 9);
    world.osds[1]->fault = [&](net::Request&) { return -ENOSPC; };
    CHECK(world.write(image, 0, data) == -ENOSPC);
    world.osds[2]->fault = [&](net::Request&) { return -EIO; };
    CHECK(world.write(image, 0, data) == -EIO);
    world.osds[2]->fault = [&](net::Request&) { return -EINVAL; };
    CHECK(world.write(image, 0, data) == -ENOSPC);
}

TEST_CASE("lost connections, moved primaries, inactive and resharded PGs") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    auto data = pattern(4096, 2);
    CHECK(world.write(image, 0, data) == 4096);
    // The reply never comes, the connection goes, the primary moves: the part ends there.
    world.osds[1]->fault = [](net::Request&) { return 1; };
    Done done;
    std::vector<uint8_t> second = pattern(4096, 5);
    world.start(OpKind::write, image, 0, 4096, {{second.data(), 4096}}, done);
    REQUIRE(world.until([&] { return world.osds[1]->held() == 1; }));
    world.put("/pg/state/1/1", "");
    world.osds[1]->stop();
    for (int i = 0; i < 20; i++) world.loop->run_once(world.loop->now_exact_ns() + runtime::kNsPerMs);
    CHECK_FALSE(done.done);
    world.put("/pg/state/1/1", World::pg_state(2));
    REQUIRE(world.until([&] { return done.done; }));
    CHECK(done.result == 4096);
    CHECK(world.osds[2]->objects[ObjectId{full_inode(1, 1), 0}].data[5] == second[5]);
    // Paused, then with another number of PGs: the same offsets go elsewhere.
    Done waiting;
    world.put("/pg/state/1/1", World::pg_state(2, "\"peering\""));
    REQUIRE(world.until_generation(4));
    world.start(OpKind::write, image, 0, 4096, {{second.data(), 4096}}, waiting);
    world.put("/pg/config", R"({"items":{"1":{"1":{"osd_set":[2,1],"primary":2}}}})");
    world.put("/pg/state/1/1", World::pg_state(2));
    REQUIRE(world.until([&] { return waiting.done; }));
    CHECK(waiting.result == 4096);
}

TEST_CASE("an OSD that is frozen: when its key in etcd goes, nobody waits for its answers any more") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    auto data = pattern(4096, 2);
    CHECK(world.write(image, 0, data) == 4096);
    // The connection lives, pings are answered, and the reply never comes.
    world.osds[1]->fault = [](net::Request&) { return 1; };
    Done done;
    std::vector<uint8_t> second = pattern(4096, 5);
    world.start(OpKind::write, image, 0, 4096, {{second.data(), 4096}}, done);
    REQUIRE(world.until([&] { return world.osds[1]->held() == 1; }));
    world.put("/osd/state/1", "");
    world.put("/pg/state/1/1", World::pg_state(2));
    REQUIRE(world.until([&] { return done.done; }));
    CHECK(done.result == 4096);
    CHECK(world.osds[1]->held() == 1);
    CHECK(world.osds[2]->objects[ObjectId{full_inode(1, 1), 0}].data[5] == second[5]);
    world.osds[1]->answer_held(-EPIPE);
}

TEST_CASE("an OSD that is killed and comes back under another port") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    auto data = pattern(4096, 2);
    CHECK(world.write(image, 0, data) == 4096);
    Objects kept = world.osds[1]->objects;
    world.osds[1]->stop();
    Done done;
    std::vector<uint8_t> out(4096);
    world.start(OpKind::read, image, 0, 4096, {{out.data(), 4096}}, done);
    for (int i = 0; i < 10; i++) world.loop->run_once(world.loop->now_exact_ns() + runtime::kNsPerMs);
    CHECK_FALSE(done.done);
    world.osds.erase(1);
    world.add_osd(1);
    world.osds[1]->objects = kept;
    world.put("/osd/state/1", world.osd_state(1));
    REQUIRE(world.until([&] { return done.done; }));
    CHECK(out == data);
}

TEST_CASE("compare and write: once, with the version; loss and refusal are EINTR") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    auto data = pattern(4096, 1);
    std::vector<iovec> iov{{data.data(), 4096}};
    uint64_t version = 0;
    CHECK(world.run(OpKind::compare_write, image, 0, 4096, iov, 0, 0, &version) == 4096);
    CHECK(version == 1);
    CHECK(world.run(OpKind::compare_write, image, 0, 4096, iov, 0, 0, &version) == -EINTR);
    CHECK(version == 1);
    CHECK(world.run(OpKind::compare_write, image, 0, 4096, iov, 0, 1, &version) == 4096);
    int sent = 0;
    world.osds[1]->fault = [&](net::Request&) {
        sent++;
        return -EPIPE;
    };
    CHECK(world.run(OpKind::compare_write, image, 0, 4096, iov, 0, 2, &version) == -EINTR);
    CHECK(sent == 1);
    world.osds[1]->fault = [](net::Request&) { return 1; };
    Done done;
    world.start(OpKind::compare_write, image, 0, 4096, iov, done, 0, 2);
    REQUIRE(world.until([&] { return world.osds[1]->held() == 1; }));
    world.osds[1]->fault = nullptr;
    world.osds[1]->restart();
    REQUIRE(world.until([&] { return done.done; }));
    CHECK(done.result == -EINTR);
    auto wide = pattern(kBlock, 1);
    CHECK(world.run(OpKind::compare_write, image, 4096, kBlock, {{wide.data(), kBlock}}) == -EINVAL);
    CHECK(world.run(OpKind::remove, image, 100, 0, {}, 0, 0) == 0);
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
    // Gone: it stays what it was, and nothing is written to what others make.
    world.put("/config/inode/1/8", "");
    REQUIRE(world.until([&] { return world.contexts[0]->map()->image_by_name->count("again") == 0; }));
    CHECK(third_handle->inode == full_inode(1, 8));
}

TEST_CASE("reads through a parent in another pool, granule by granule, and parents in a ring") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::ImageOptions base;
    base.inode = full_inode(2, 7);
    client::Image* parent = world.create(base);
    CHECK(world.run(OpKind::open, parent, 0, 0, {}) == 0);
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
    CHECK(world.run(OpKind::read, clone, 0, 4096, {{part.data(), 4096}}) == -EINVAL);
    // Over pools too, where every step is a read of its own.
    world.put("/config/inode/2/7", R"({"name":"base","size":1073741824,"parent_id":9,"parent_pool":1})");
    world.put("/config/inode/1/9", R"({"name":"clone","size":1073741824,"parent_id":7,"parent_pool":2})");
    REQUIRE(world.until_generation(4));
    CHECK(world.run(OpKind::read, clone, 0, 4096, {{part.data(), 4096}}) == -EINVAL);
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
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::ImageOptions base;
    base.inode = full_inode(2, 7);
    client::Image* parent = world.create(base);
    CHECK(world.run(OpKind::open, parent, 0, 0, {}) == 0);
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

TEST_CASE("discard: whole objects are deleted where that is safe, all else reads as zeroes") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    auto data = pattern(4 * kBlock, 1);
    auto check_zeroes = [&](uint64_t from, uint64_t to) {
        auto expected = data;
        std::fill(expected.begin() + static_cast<long>(from), expected.begin() + static_cast<long>(to), 0);
        CHECK(world.read(image, 0, data.size()) == expected);
    };
    CHECK(world.write(image, 0, data) == static_cast<int64_t>(data.size()));
    CHECK(world.run(OpKind::discard, image, kBlock - 4096, 2 * kBlock + 8192, {}) == 2 * kBlock + 8192);
    CHECK(world.osds[1]->deletes + world.osds[2]->deletes == 2);
    check_zeroes(kBlock - 4096, 3 * kBlock + 4096);
    // The primary says that an OSD which is away may bring it back: zeroes over it.
    CHECK(world.write(image, 0, data) == static_cast<int64_t>(data.size()));
    world.osds[1]->left_on_dead_once = 1;
    CHECK(world.run(OpKind::discard, image, 0, kBlock, {}) == kBlock);
    CHECK(world.osds[1]->objects.count(ObjectId{full_inode(1, 1), 0}));
    check_zeroes(0, kBlock);
    // Known to be so beforehand, or with a parent: no delete at all.
    CHECK(world.write(image, 0, data) == static_cast<int64_t>(data.size()));
    int deletes = world.osds[1]->deletes;
    world.put("/pg/state/1/1", World::pg_state(1, R"("active","left_on_dead")"));
    REQUIRE(world.until_generation(2));
    CHECK(world.run(OpKind::discard, image, 0, kBlock, {}) == kBlock);
    CHECK(world.osds[1]->deletes == deletes);
    check_zeroes(0, kBlock);
    world.put("/pg/state/1/1", World::pg_state(1));
    world.put("/config/inode/1/1", R"({"name":"img","size":1073741824,"parent_id":3})");
    REQUIRE(world.until_generation(3));
    CHECK(world.write(image, 0, data) == static_cast<int64_t>(data.size()));
    CHECK(world.run(OpKind::discard, image, 0, kBlock, {}) == kBlock);
    CHECK(world.osds[1]->deletes == deletes);
    check_zeroes(0, kBlock);
}

TEST_CASE("operations over very many objects go in batches, and a failure ends them early") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    CHECK(world.run(OpKind::discard, image, 4096, 1000ull * kBlock, {}) == 1000ll * kBlock);
    CHECK(world.osds[1]->deletes + world.osds[2]->deletes == 999);
    CHECK(world.osds[1]->writes + world.osds[2]->writes == 2);
    world.osds[1]->fault = [](net::Request&) { return -EINVAL; };
    int deletes = world.osds[2]->deletes;
    CHECK(world.run(OpKind::discard, image, 0, 100000ull * kBlock, {}) == -EINVAL);
    CHECK(world.osds[2]->deletes - deletes < 1000);
}

TEST_CASE("an OSD that fears a request of long ago: hello again, and the request behind it") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    auto data = pattern(4096, 1);
    CHECK(world.write(image, 0, data) == 4096);
    Osd& osd = *world.osds[1];
    REQUIRE(osd.sessions.size() == 1);
    CHECK(osd.sessions[0] > 0);
    CHECK(osd.sessions[0] < 1ull << 53);
    osd.seen.clear();
    auto refuse = [&](net::Request& request) {
        return osd.sessions.size() == 1 && request.opcode != wire::Opcode::read ? -EAGAIN : 0;
    };
    osd.fault = refuse;
    std::vector<Done> done(8);
    for (size_t i = 0; i < done.size(); i++)
        world.start(OpKind::write, image, i * 4096, 4096, {{data.data(), 4096}}, done[i]);
    REQUIRE(world.until([&] { return std::all_of(done.begin(), done.end(), [](const Done& d) { return d.done; }); }));
    for (const Done& d : done) CHECK(d.result == 4096);
    // The connection stays, and one hello is enough for all that came before it.
    CHECK(osd.sessions.size() == 2);
    CHECK(osd.sessions[1] == osd.sessions[0]);
    CHECK(std::count(osd.seen.begin(), osd.seen.end(), std::string("hello")) == 1);
    CHECK(std::count(osd.seen.begin(), osd.seen.end(), std::string(wire::opcode_name(wire::Opcode::write))) == 16);
    // Nothing was done, so that a compare-and-set may be sent again as well.
    osd.sessions.resize(1);
    CHECK(world.run(OpKind::compare_write, image, 0, 4096, {{data.data(), 4096}}, 0, osd.objects.begin()->second.version) == 4096);
    // Whoever refuses for ever gets a new connection and a pause each time.
    int refusals = 5;
    osd.fault = [&](net::Request& request) { return request.opcode == wire::Opcode::write && refusals-- > 0 ? -EAGAIN : 0; };
    CHECK(world.write(image, 0, data) == 4096);
    CHECK(refusals < 0);
    // A read that reaches its primary as a mere holder of chunks (seed 22842 of the simulator).
    refusals = 1;
    osd.fault = [&](net::Request& request) { return request.opcode == wire::Opcode::read && refusals-- > 0 ? -EAGAIN : 0; };
    CHECK(world.read(image, 0, 4096) == data);
    CHECK(refusals < 0);
    // Refusals that lie behind the one for which the connection was given up.
    osd.fault = [](net::Request& request) { return request.opcode == wire::Opcode::write ? 1 : 0; };
    for (Done& d : done) d = {};
    for (size_t i = 0; i < done.size(); i++)
        world.start(OpKind::write, image, i * 4096, 4096, {{data.data(), 4096}}, done[i]);
    for (int again : {0, 1}) {
        CAPTURE(again);
        REQUIRE(world.until([&] { return osd.held() == done.size(); }));
        osd.answer_held(-EAGAIN);
    }
    osd.fault = nullptr;
    REQUIRE(world.until([&] { return std::all_of(done.begin(), done.end(), [](const Done& d) { return d.done; }); }));
    for (const Done& d : done) CHECK(d.result == 4096);
}

TEST_CASE("local reads go near while the PG is clean, to the primary otherwise") {
    World world;
    world.layers.options["hostname"] = "h2";
    world.layers.options["client_eio_retry_interval"] = "0";  // EIO of the primary would be final
    world.pool_extra = R"(,"local_reads":"nearest")";
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    auto data = pattern(4096, 1);
    CHECK(world.write(image, 0, data) == 4096);
    world.osds[2]->objects = world.osds[1]->objects;
    CHECK(world.read(image, 0, 4096) == data);
    REQUIRE(world.until([&] {
        world.osds[1]->reads = 0;
        world.read(image, 0, 4096);
        return world.osds[1]->reads == 0;
    }));
    // It holds no lock and refuses: the primary answers.
    world.osds[2]->fault = [](net::Request&) { return -EPIPE; };
    CHECK(world.read(image, 0, 4096) == data);
    CHECK(world.osds[1]->reads == 1);
    // Its copy is bad: the same.
    world.osds[2]->fault = [](net::Request&) { return -EIO; };
    CHECK(world.read(image, 0, 4096) == data);
    CHECK(world.osds[1]->reads == 2);
    world.osds[2]->fault = nullptr;
    world.osds[2]->reads = 0;
    world.put("/pg/state/1/1", World::pg_state(1, R"("active","has_degraded")"));
    REQUIRE(world.until_generation(2));
    CHECK(world.read(image, 0, 4096) == data);
    CHECK(world.osds[2]->reads == 0);
}

TEST_CASE("local reads of an erasure-coded pool ask the chunk's holder") {
    for (const std::string mode : {"all", "none"}) {
        CAPTURE(mode);
        World world(mode);
        world.pool_scheme = R"("scheme":"ec","pg_size":3,"parity_chunks":1,"pg_minsize":2)";
        world.pool_pgs = R"({"1":{"osd_set":[1,2,3],"primary":1},"2":{"osd_set":[2,3,1],"primary":2}})";
        world.pool_extra = R"(,"local_reads":"nearest")";
        for (OsdNum osd : {1, 2, 3}) {
            world.add_osd(osd);
            world.osds[osd]->span = 2 * kBlock;
            world.osds[osd]->reads_chunks = osd != 3;
            world.osds[osd]->restart();
        }
        Osd &primary = *world.osds[1], &holder = *world.osds[2], &old = *world.osds[3];
        world.feed();
        client::Image* image = world.open();
        auto data = pattern(4 * kBlock, 1);
        REQUIRE(world.write(image, 0, data) == static_cast<int64_t>(data.size()));
        auto piece = [&](uint64_t offset, size_t length) { return std::vector<uint8_t>(&data[offset], &data[offset] + length); };
        auto share = [&] {
            const auto first = primary.objects, second = holder.objects;
            for (auto& [number, osd] : world.osds) {
                osd->objects = first;
                osd->objects.insert(second.begin(), second.end());
            }
        };
        share();
        auto reads = [&] { return std::vector<int>{primary.reads, holder.reads, old.reads}; };
        if (mode == "none") {  // what is not synced is the primary's
            CHECK(world.read(image, kBlock, 4096) == piece(kBlock, 4096));
            CHECK(reads() == std::vector<int>{1, 0, 0});
            CHECK(world.run(OpKind::flush, image, 0, 0, {}) == 0);
        }
        auto settled = [&](uint64_t offset, OsdNum osd) {
            return world.until([&] {
                const int before = world.osds[osd]->reads;
                CHECK(world.read(image, offset, 4096) == piece(offset, 4096));
                return world.osds[osd]->reads > before;
            });
        };
        CHECK(settled(kBlock + 8192, 2));
        primary.reads = holder.reads = old.reads = 0;
        CHECK(world.read(image, kBlock, kBlock) == piece(kBlock, kBlock));
        CHECK(reads() == std::vector<int>{0, 1, 0});
        CHECK(world.read(image, kBlock - 4096, 8192) == piece(kBlock - 4096, 8192));  // of two chunks
        CHECK(reads() == std::vector<int>{1, 1, 0});
        CHECK(world.read(image, 0, 4096) == piece(0, 4096));
        CHECK(reads() == std::vector<int>{2, 1, 0});
        // OSD 3 does not say in its hello that it can: it is never asked.
        for (int i = 0; i < 20; i++) CHECK(world.read(image, 3 * kBlock, 4096) == piece(3 * kBlock, 4096));
        CHECK(old.reads == 0);
        // The object is being changed: the primary answers at once, and the next read asks the holder again.
        primary.reads = holder.reads = 0;
        int refusals = 1;
        holder.fault = [&](net::Request& request) { return request.opcode == wire::Opcode::read && refusals-- > 0 ? -EAGAIN : 0; };
        CHECK(world.read(image, kBlock, 4096) == piece(kBlock, 4096));
        CHECK(reads() == std::vector<int>{1, 0, 0});
        CHECK(world.read(image, kBlock, 4096) == piece(kBlock, 4096));
        CHECK(reads() == std::vector<int>{1, 1, 0});
        // It holds no lock: not asked for a while.
        int asked = 0;
        holder.fault = [&](net::Request& request) { return request.opcode == wire::Opcode::read ? (asked++, -EPIPE) : 0; };
        for (int i = 0; i < 5; i++) CHECK(world.read(image, kBlock, 4096) == piece(kBlock, 4096));
        CHECK(asked == 1);
        CHECK(primary.reads == 6);
        holder.fault = nullptr;
        CHECK(settled(kBlock, 2));
        // Not clean, or the chunk's OSD is gone: the primary.
        holder.reads = 0;
        world.put("/pg/state/1/1", World::pg_state(1, R"("active","has_degraded")"));
        REQUIRE(world.until_generation(2));
        CHECK(world.read(image, kBlock, 4096) == piece(kBlock, 4096));
        CHECK(holder.reads == 0);
        world.put("/pg/state/1/1", World::pg_state(1, R"("active","left_on_dead")"));
        REQUIRE(world.until_generation(3));
        CHECK(settled(kBlock, 2));
        holder.reads = 0;
        holder.stop();
        CHECK(world.read(image, kBlock, 4096) == piece(kBlock, 4096));
        CHECK(holder.reads == 0);
    }
}

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
            world.put("/config/inode/1/1", std::string(R"({"name":"img","size":1310720,"readonly":true)") + (parent ? R"(,"parent_id":9,"parent_pool":2})" : "}"));
            REQUIRE(world.until_generation(2));
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

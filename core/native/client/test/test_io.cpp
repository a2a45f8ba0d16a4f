// SPDX-License-Identifier: GPL-2.0-or-later
// The client against OSDs in memory, pools with immediate_commit all: misuse, slicing, faults, retries, discard.
#include <doctest/doctest.h>

#include "fake_cluster.hpp"

using namespace fake;
using client::OpKind;

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
    world.put("/config/inode/1/3", R"({"name":"base","size":1073741824,"readonly":true})");
    world.put("/config/inode/1/1", R"({"name":"img","size":1073741824,"parent_id":3})");
    REQUIRE(world.until([&] { return image->has_parent.load(); }));
    CHECK(world.write(image, 0, data) == static_cast<int64_t>(data.size()));
    CHECK(world.run(OpKind::discard, image, 0, kBlock, {}) == kBlock);
    CHECK(world.osds[1]->deletes == deletes);
    check_zeroes(0, kBlock);
}

TEST_CASE("discard: a snapshot is made while whole objects are being deleted: the rest is zeroed, or its data would show through") {
    World world;
    world.add_osd(1);
    world.add_osd(2);
    world.feed();
    client::Image* image = world.open();
    auto data = pattern(kBlock, 1);
    CHECK(world.write(image, 0, data) == static_cast<int64_t>(data.size()));
    world.osds[1]->fault = [](net::Request&) { return 1; };
    Done done;
    world.start(OpKind::discard, image, 0, kBlock, {}, done);
    REQUIRE(world.until([&] { return world.osds[1]->held() == 1; }));
    world.put("/config/inode/1/1", R"({"name":"img@0","size":1073741824,"readonly":true})");
    world.put("/config/inode/1/2", R"({"name":"img","size":1073741824,"parent_id":1})");
    REQUIRE(world.until([&] { return image->inode == full_inode(1, 2); }));
    world.osds[1]->fault = nullptr;
    world.osds[1]->answer_held(-EPIPE);
    REQUIRE(world.until([&] { return done.done; }));
    CHECK(done.result == kBlock);
    CHECK(world.osds[1]->deletes == 0);
    CHECK(world.osds[1]->objects.count(ObjectId{full_inode(1, 2), 0}));
    CHECK(world.read(image, 0, kBlock) == std::vector<uint8_t>(kBlock));
}

TEST_CASE("discard: objects larger than what is zeroed at once, in a degraded PG and one that becomes so") {
    constexpr uint64_t kLarge = 16u << 20;
    World world;
    world.pool_extra = R"(,"block_size":16777216)";
    for (OsdNum osd : {1, 2}) {
        world.add_osd(osd);
        world.osds[osd]->geometry[1] = {kLarge, kGranule};
    }
    world.feed();
    client::Image* image = world.open();
    auto data = pattern(kLarge, 1);
    const std::vector<uint8_t> zeroes(kLarge);
    CHECK(world.write(image, 0, data) == kLarge);
    world.osds[1]->left_on_dead_once = 1;
    CHECK(world.run(OpKind::discard, image, 0, kLarge, {}) == kLarge);
    CHECK(world.osds[1]->objects.count(ObjectId{full_inode(1, 1), 0}));
    CHECK((world.read(image, 0, kLarge) == zeroes));
    CHECK(world.write(image, 0, data) == kLarge);
    world.put("/pg/state/1/1", World::pg_state(1, R"("active","left_on_dead")"));
    REQUIRE(world.until_generation(2));
    CHECK(world.run(OpKind::discard, image, 0, kLarge, {}) == kLarge);
    CHECK((world.read(image, 0, kLarge) == zeroes));
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
    // Nothing was done, so that a compare-and-set may be sent again as well. It waits for the answer to the hello: sent right behind it,
    // it could come as late as the hello, from a time before another OSD led the PG.
    osd.sessions.resize(1);
    uint64_t in_flight = 0;
    osd.on_hello = [&] { in_flight = world.context().link(1)->connection->calls_in_flight(); };
    CHECK(world.run(OpKind::compare_write, image, 0, 4096, {{data.data(), 4096}}, 0, osd.objects.begin()->second.version) == 4096);
    CHECK(in_flight == 1);
    osd.on_hello = nullptr;
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
        // It holds no lock: not asked for a second.
        int asked = 0;
        const uint64_t begin = world.loop->now_exact_ns();
        holder.fault = [&](net::Request& request) { return request.opcode == wire::Opcode::read ? (asked++, -EPIPE) : 0; };
        for (int i = 0; i < 5; i++) CHECK(world.read(image, kBlock, 4096) == piece(kBlock, 4096));
        CHECK((asked == 1 || world.loop->now_exact_ns() - begin >= runtime::kNsPerSecond));
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

// SPDX-License-Identifier: GPL-2.0-or-later
// Pools without immediate commit: nothing that a flush has acknowledged is lost, whatever restarts, through whichever context.
#include <doctest/doctest.h>

#include "fake_cluster.hpp"

using namespace fake;
using client::OpKind;

namespace {

struct NoneWorld : World {
    client::Image* image;
    NoneWorld() : World("none") {
        add_osd(1);
        add_osd(2);
        for (auto& [number, osd] : osds) osd->volatile_writes = true;
        feed();
        image = open();
    }
    StoredObject& durable(OsdNum osd, uint64_t stripe) { return osds[osd]->durable[ObjectId{full_inode(1, 1), stripe}]; }
    /// As after kill -9: what was not synced is gone; etcd shows the same primaries.
    void crash(OsdNum osd) {
        osds[osd]->restart();
        put("/osd/state/" + std::to_string(osd), osd_state(osd));
    }
};

}  // namespace

TEST_CASE("flush sends SYNC to those that were written to, and only then") {
    NoneWorld world;
    REQUIRE(world.image);
    CHECK_FALSE(world.image->immediate);
    CHECK(world.flush(world.image) == 0);
    CHECK(world.osds[1]->syncs == 0);
    auto data = pattern(4096, 1);
    CHECK(world.write(world.image, 0, data) == 4096);
    CHECK(world.flush(world.image) == 0);
    CHECK(world.osds[1]->syncs == 1);
    CHECK(world.osds[2]->syncs == 0);
    CHECK(world.durable(1, 0).data[3] == data[3]);
    CHECK(world.flush(world.image) == 0);
    CHECK(world.osds[1]->syncs == 1);
    CHECK(world.image->unsynced.empty());
}

TEST_CASE("an OSD restarts between write and flush: the writes are sent again, newer over older") {
    NoneWorld world;
    auto first = pattern(65536, 1), second = pattern(8192, 50);
    CHECK(world.write(world.image, 0, first) == 65536);
    CHECK(world.write(world.image, 4096, second) == 8192);
    world.crash(1);
    CHECK(world.osds[1]->objects.empty());
    CHECK(world.flush(world.image) == 0);
    auto expected = first;
    memcpy(&expected[4096], second.data(), second.size());
    CHECK(memcmp(world.durable(1, 0).data.data(), expected.data(), expected.size()) == 0);
    CHECK(world.read(world.image, 0, 65536) == expected);
}

TEST_CASE("a read after a restart never sees the past") {
    NoneWorld world;
    auto data = pattern(4096, 1);
    CHECK(world.write(world.image, 0, data) == 4096);
    world.crash(1);
    CHECK(world.read(world.image, 0, 4096) == data);
    // Through a context that has never been connected to the OSD.
    auto more = pattern(4096, 9);
    CHECK(world.write(world.image, 4096, more) == 4096);
    world.crash(1);
    CHECK(world.read(world.image, 4096, 4096, 1) == more);
    CHECK(world.flush(world.image, 1) == 0);
    CHECK(world.durable(1, 0).data[4096] == more[0]);
}

TEST_CASE("the primary moves: unsynced writes follow it") {
    NoneWorld world;
    auto data = pattern(4096, 1);
    CHECK(world.write(world.image, 0, data) == 4096);
    world.put("/pg/state/1/1", World::pg_state(2));
    REQUIRE(world.until_generation(2));
    REQUIRE(world.until([&] { return world.osds[2]->writes == 1; }));
    CHECK(world.read(world.image, 0, 4096) == data);
    CHECK(world.flush(world.image) == 0);
    CHECK(world.durable(2, 0).data[9] == data[9]);
    CHECK(world.osds[2]->syncs == 1);
}

TEST_CASE("one flush covers the writes of all contexts") {
    NoneWorld world;
    auto a = pattern(4096, 1), b = pattern(4096, 2);
    CHECK(world.write(world.image, 0, a, 0) == 4096);
    CHECK(world.write(world.image, kBlock, b, 1) == 4096);
    CHECK(world.flush(world.image, 2) == 0);
    CHECK(world.durable(1, 0).data[0] == a[0]);
    CHECK(world.durable(2, kBlock).data[0] == b[0]);
    CHECK(world.image->unsynced.empty());
}

TEST_CASE("SYNC fails or the connection goes while it runs: replay, then SYNC again") {
    NoneWorld world;
    auto data = pattern(4096, 1);
    CHECK(world.write(world.image, 0, data) == 4096);
    int failures = 2;
    world.osds[1]->fault = [&](net::Request& request) {
        return request.opcode == wire::Opcode::sync && failures-- > 0 ? (failures ? -EIO : -ENOSPC) : 0;
    };
    CHECK(world.flush(world.image) == 0);
    CHECK(world.durable(1, 0).data[1] == data[1]);
    auto newer = pattern(4096, 2);
    CHECK(world.write(world.image, 0, newer) == 4096);
    world.osds[1]->fault = [&](net::Request& request) { return request.opcode == wire::Opcode::sync ? 1 : 0; };
    Done done;
    world.start(OpKind::flush, world.image, 0, 0, {}, done);
    REQUIRE(world.until([&] { return world.osds[1]->held() == 1; }));
    world.osds[1]->fault = nullptr;
    world.crash(1);
    REQUIRE(world.until([&] { return done.done; }));
    CHECK(done.result == 0);
    CHECK(world.durable(1, 0).data[1] == newer[1]);
    world.osds[1]->fault = [&](net::Request& request) { return request.opcode == wire::Opcode::sync ? -EROFS : 0; };
    CHECK(world.write(world.image, 0, data) == 4096);
    CHECK(world.flush(world.image) == -EROFS);
}

TEST_CASE("a write in flight when its object must be sent again ends up on top") {
    NoneWorld world;
    auto old_data = pattern(4096, 1), new_data = pattern(4096, 2);
    CHECK(world.write(world.image, 0, old_data, 0) == 4096);
    // Context 1 has a write in flight; context 2, connected later, wants to read: it must wait for that write, then replay.
    CHECK(world.read(world.image, kBlock, 4096, 1).size() == 4096);
    world.osds[1]->fault = [&](net::Request& request) { return request.opcode == wire::Opcode::write ? 1 : 0; };
    Done write, read;
    std::vector<uint8_t> out(4096);
    world.start(OpKind::write, world.image, 0, 4096, {{new_data.data(), 4096}}, write, 0);
    REQUIRE(world.until([&] { return world.osds[1]->held() == 1; }));
    world.start(OpKind::read, world.image, 0, 4096, {{out.data(), 4096}}, read, 2);
    for (int i = 0; i < 20; i++) world.loop->run_once(world.loop->now_exact_ns() + runtime::kNsPerMs);
    CHECK_FALSE(read.done);
    world.osds[1]->fault = nullptr;
    world.osds[1]->release_held();
    REQUIRE(world.until([&] { return write.done && read.done; }));
    CHECK(out == new_data);
    CHECK(world.osds[1]->objects[ObjectId{full_inode(1, 1), 0}].data[8] == new_data[8]);
}

TEST_CASE("a snapshot is made, and an OSD loses what was written before: reads through the new layer wait until it is sent again") {
    for (const char* top : {"1/2", "2/2"}) {  // in the same pool, and in another, whose layers the client reads itself
        CAPTURE(top);
        NoneWorld world;
        auto data = pattern(4096, 1);
        CHECK(world.write(world.image, 0, data) == 4096);
        world.put("/config/inode/1/1", R"({"name":"img@0","size":1073741824,"readonly":true})");
        world.put(std::string("/config/inode/") + top, R"({"name":"img","size":1073741824,"parent_id":1,"parent_pool":1})");
        REQUIRE(world.until([&] { return world.image->has_parent.load(); }));
        world.crash(1);
        CHECK(world.osds[1]->objects.empty());
        world.osds[1]->fault = [](net::Request& request) { return request.opcode == wire::Opcode::write ? 1 : 0; };
        Done done;
        std::vector<uint8_t> seen(4096);
        world.start(OpKind::read, world.image, 0, 4096, {{seen.data(), 4096}}, done);
        REQUIRE(world.until([&] { return world.osds[1]->held() == 1; }));
        for (int i = 0; i < 20; i++) world.loop->run_once(world.loop->now_exact_ns() + runtime::kNsPerMs);
        CHECK_FALSE(done.done);
        world.osds[1]->fault = nullptr;
        world.osds[1]->release_held();
        REQUIRE(world.until([&] { return done.done; }));
        if (top[0] == '2') CHECK(seen == data);  // the OSDs of these tests do not look into layers
        CHECK(world.flush(world.image) == 0);
        CHECK(world.durable(1, 0).data[3] == data[3]);
    }
}

TEST_CASE("deletions are sent again as well, before what was written afterwards") {
    NoneWorld world;
    auto data = pattern(kBlock, 1), after = pattern(4096, 9);
    CHECK(world.write(world.image, 0, data) == kBlock);
    CHECK(world.flush(world.image) == 0);
    CHECK(world.run(OpKind::discard, world.image, 0, kBlock, {}) == kBlock);
    CHECK(world.write(world.image, 8192, after) == 4096);
    world.crash(1);
    CHECK(world.osds[1]->objects.size() == 1);
    std::vector<uint8_t> expected(kBlock, 0);
    memcpy(&expected[8192], after.data(), after.size());
    CHECK(world.read(world.image, 0, kBlock) == expected);
    CHECK(world.flush(world.image) == 0);
    CHECK(memcmp(world.durable(1, 0).data.data(), expected.data(), kBlock) == 0);
}

// Seed 22637 of the simulator: nobody had room to remember the deletion when it was sent again, and the object came back with an OSD.
TEST_CASE("a discard that is sent again leaves zeroes where the object may come back") {
    NoneWorld world;
    Osd& osd = *world.osds[1];
    auto data = pattern(4096, 1);
    CHECK(world.write(world.image, 0, data) == 4096);
    CHECK(world.flush(world.image) == 0);
    CHECK(world.run(OpKind::discard, world.image, 0, kBlock, {}) == kBlock);
    CHECK(osd.deletes == 1);
    const int writes = osd.writes;
    osd.left_on_dead_once = 1;
    world.crash(1);
    CHECK(world.flush(world.image) == 0);
    CHECK(osd.deletes == 2);
    CHECK(osd.writes == writes + 1);
    CHECK(world.read(world.image, 0, 4096) == std::vector<uint8_t>(4096));
    CHECK(world.image->unsynced.empty());
}

namespace {
/// A deletion and a write behind it, both acknowledged by OSD 1 over its connection 1.
struct Rewritten {
    using Unsynced = client::Unsynced;
    Unsynced unsynced;
    const ObjectId object{full_inode(1, 1), 0};
    Rewritten() {
        for (bool removed : {true, false}) {
            REQUIRE(unsynced.begin(object, {1, 1}, true) == Unsynced::Verdict::go);
            Unsynced::WriteEnd end;
            end.kind = Unsynced::WriteEnd::Kind::written;
            end.removed = removed;
            end.length = removed ? 0 : 4096;
            end.osd = 1;
            end.epoch = 1;
            unsynced.end_write(object, std::move(end));
        }
    }
    /// What is to be sent again.
    std::vector<Unsynced::ReplayItem> claim() {
        static client::Context* const somebody = reinterpret_cast<client::Context*>(8);
        std::vector<Unsynced::ReplayItem> items;
        REQUIRE(unsynced.claim(object, somebody, items));
        check(items);
        return items;
    }
    static void check(const std::vector<Unsynced::ReplayItem>& items) {
        REQUIRE(items.size() == 2);
        CHECK(items[0].remove);
    }
};
}  // namespace

// Seed 20098 of the simulator: the OSD restarted between the two, and a SYNC covered the second alone.
TEST_CASE("while a deletion may have to be sent again, so may what was written behind it") {
    Rewritten world;
    client::Unsynced& unsynced = world.unsynced;
    using client::Unsynced;
    const ObjectId object = world.object;
    auto items = world.claim();
    unsynced.replayed(object, 0, true, items[0].range.user_seq, 1, 2, 0);
    unsynced.replayed(object, 0, false, items[1].range.user_seq, 1, 3, 0);  // it had no room before
    unsynced.release(object);
    unsynced.synced(1, 3, unsynced.next_seq());
    CHECK(unsynced.begin(object, {1, 3}, false) == Unsynced::Verdict::replay);
    items = world.claim();
    for (auto& item : items) unsynced.replayed(object, 0, item.remove, item.range.user_seq, 1, 3, 0);
    unsynced.release(object);
    unsynced.synced(1, 3, unsynced.next_seq());
    CHECK(unsynced.empty());
}

// Seed 1090236 of the simulator: the write was sent again over connection 3, then the deletion too, and for the write there was no room any more.
TEST_CASE("a deletion that is sent again takes with it what was sent again before") {
    Rewritten world;
    client::Unsynced& unsynced = world.unsynced;
    using client::Unsynced;
    auto items = world.claim();
    unsynced.replayed(world.object, 0, true, items[0].range.user_seq, 1, 2, 0);
    unsynced.replayed(world.object, 0, false, items[1].range.user_seq, 1, 3, 0);
    unsynced.release(world.object);
    items = world.claim();
    unsynced.replayed(world.object, 0, true, items[0].range.user_seq, 1, 3, 0);
    unsynced.synced(1, 3, unsynced.next_seq());  // behind the deletion: the write is not there
    unsynced.pause(world.object);
    items.clear();
    REQUIRE(unsynced.resume(world.object, {1, 3}, items) == Unsynced::Verdict::replay);
    REQUIRE(items.size() == 1);  // the deletion is durable
    unsynced.replayed(world.object, 0, false, items[0].range.user_seq, 1, 3, 0);
    unsynced.release(world.object);
    CHECK(unsynced.begin(world.object, {1, 3}, false) == Unsynced::Verdict::go);
    unsynced.synced(1, 3, unsynced.next_seq());
    CHECK(unsynced.empty());
}

TEST_CASE("compare and write is followed by SYNC, and is not replayed") {
    NoneWorld world;
    auto plain = pattern(8192, 1), cas = pattern(4096, 2);
    CHECK(world.write(world.image, 0, plain) == 8192);
    uint64_t version = 0;
    CHECK(world.run(OpKind::compare_write, world.image, 0, 4096, {{cas.data(), 4096}}, 0, 1, &version) == 4096);
    CHECK(version == 2);
    CHECK(world.osds[1]->syncs == 1);
    CHECK(world.durable(1, 0).data[0] == cas[0]);
    world.crash(1);
    CHECK(world.flush(world.image) == 0);
    CHECK(world.durable(1, 0).data[0] == cas[0]);
    CHECK(world.durable(1, 0).data[4096] == plain[4096]);
    world.osds[1]->fault = [&](net::Request& request) { return request.opcode == wire::Opcode::sync ? -EIO : 0; };
    version = world.osds[1]->objects.begin()->second.version;
    CHECK(world.run(OpKind::compare_write, world.image, 0, 4096, {{cas.data(), 4096}}, 0, version) == -EINTR);
}

TEST_CASE("a write that is acknowledged while the SYNC of a compare-and-set runs is not forgotten") {
    NoneWorld world;
    auto cas = pattern(8192, 2), after = pattern(4096, 3);
    bool hold = true;
    world.osds[1]->fault = [&](net::Request& request) { return request.opcode == wire::Opcode::sync && hold ? 1 : 0; };
    Done compare;
    world.start(OpKind::compare_write, world.image, 0, 8192, {{cas.data(), 8192}}, compare, 0, 0);
    REQUIRE(world.until([&] { return world.osds[1]->held() == 1; }));
    // The SYNC has begun before this write came: it covers the compare-and-set alone.
    world.osds[1]->durable = world.osds[1]->objects;
    REQUIRE(world.write(world.image, 4096, after) == 4096);
    hold = false;
    world.osds[1]->answer_held(0);
    REQUIRE(world.until([&] { return compare.done; }));
    CHECK(compare.result == 8192);
    CHECK_FALSE(world.image->unsynced.empty());
    SUBCASE("the OSD crashes: it is sent again") {
        world.crash(1);
        CHECK(world.read(world.image, 4096, 4096) == after);
    }
    SUBCASE("a flush sends a SYNC for it") { CHECK(world.osds[1]->syncs == 0); }
    CHECK(world.flush(world.image) == 0);
    CHECK(world.osds[1]->syncs == 1);
    world.crash(1);
    CHECK(world.read(world.image, 4096, 4096) == after);
    CHECK(memcmp(world.durable(1, 0).data.data(), cas.data(), 4096) == 0);
}

TEST_CASE("a write that a compare-and-set overtook is not sent again over it, whichever is told of first") {
    using WriteEnd = client::Unsynced::WriteEnd;
    const ObjectId object{full_inode(1, 1), 0};
    const client::Route route{1, 1};
    auto end = [&](WriteEnd::Kind kind, uint32_t offset, uint32_t length, Version version, uint64_t start_seq) {
        WriteEnd result;
        result.kind = kind;
        result.offset = offset;
        result.length = length;
        result.version = version;
        result.start_seq = start_seq;
        result.osd = 1;
        result.epoch = 1;
        return result;
    };
    client::Unsynced unsynced;
    for (int i = 0; i < 2; i++) REQUIRE(unsynced.begin(object, route, true) == client::Unsynced::Verdict::go);
    // Version 5: three granules; version 6: the compare-and-set over the middle one.
    bool compared_first = false;
    SUBCASE("the write") {}
    SUBCASE("the compare-and-set") { compared_first = true; }
    if (!compared_first) unsynced.end_write(object, end(WriteEnd::Kind::written, 0, 12288, 5, 0));
    unsynced.end_write(object, end(WriteEnd::Kind::compared, 4096, 4096, 6, 0));
    if (compared_first) unsynced.end_write(object, end(WriteEnd::Kind::written, 0, 12288, 5, 0));
    std::vector<client::Unsynced::ReplayItem> items;
    auto* nobody = reinterpret_cast<client::Context*>(&items);
    REQUIRE(unsynced.claim(object, nobody, items));
    REQUIRE(items.size() == 2);
    CHECK(items[0].offset == 0);
    CHECK(items[0].range.length == 4096);
    CHECK(items[1].offset == 8192);
    CHECK(items[1].range.length == 4096);
    CHECK(items[1].range.data_offset == 8192);
    unsynced.release(object);
    // A later write over the same bytes counts, whatever version it got.
    REQUIRE(unsynced.begin(object, route, true) == client::Unsynced::Verdict::go);
    unsynced.end_write(object, end(WriteEnd::Kind::written, 4096, 4096, 1, unsynced.last_seq()));
    items.clear();
    REQUIRE(unsynced.claim(object, nobody, items));
    CHECK(items.size() == 3);
    unsynced.release(object);
}

TEST_CASE("forced SYNC bounds what is kept") {
    World limited("none");
    limited.layers.options["client_max_dirty_ops"] = "8";
    limited.add_osd(1);
    limited.add_osd(2);
    limited.feed();
    client::Image* image = limited.open();
    std::vector<Done> done(100);
    auto data = pattern(4096, 1);
    for (size_t i = 0; i < done.size(); i++)
        limited.start(OpKind::write, image, i * 4096 * 3 / 4096 * 4096, 4096, {{data.data(), 4096}}, done[i]);
    REQUIRE(limited.until([&] {
        for (auto& d : done)
            if (!d.done) return false;
        return true;
    }));
    for (auto& d : done) CHECK(d.result == 4096);
    CHECK(limited.osds[1]->syncs + limited.osds[2]->syncs > 0);
    CHECK(limited.flush(image) == 0);
    CHECK(image->unsynced.empty());
}

TEST_CASE("a deletion makes the room that what is sent again waits for, however much waits for a SYNC") {
    World limited("none");
    limited.layers.options["client_max_dirty_ops"] = "2";
    limited.add_osd(1);
    limited.add_osd(2);
    Osd& osd = *limited.osds[1];
    osd.volatile_writes = true;
    bool full = false;
    osd.fault = [&](net::Request& request) {
        if (request.opcode == wire::Opcode::sync) return -EIO;  // what was written stays unsynced
        if (request.opcode == wire::Opcode::del) full = false;
        return full && request.opcode == wire::Opcode::write ? -ENOSPC : 0;
    };
    limited.feed();
    client::Image* image = limited.open();
    auto data = pattern(4096, 1);
    for (uint64_t i = 0; i < 5; i++) CHECK(limited.write(image, i * 4096, data) == 4096);
    Done waiting;
    limited.start(OpKind::write, image, 5 * 4096, 4096, {{data.data(), 4096}}, waiting);
    full = true;
    osd.restart();
    limited.put("/osd/state/1", limited.osd_state(1));
    const int64_t other = 2 * kBlock;  // another object of the same PG
    CHECK(limited.run(OpKind::remove, image, other, 0, {}, 0, UINT64_MAX) == 0);
    osd.fault = nullptr;
    CHECK(limited.until([&] { return waiting.done; }));
    CHECK(limited.flush(image) == 0);
    CHECK(osd.durable.size() == 1);
}

TEST_CASE("a deletion passes what waits for room to be sent again on the same object") {
    for (bool fails : {false, true}) {
        CAPTURE(fails);
        NoneWorld world;
        auto data = pattern(4096, 1), later = pattern(4096, 9);
        CHECK(world.write(world.image, 0, data) == 4096);
        CHECK(world.write(world.image, 8192, data) == 4096);
        int refused = 0, failures = fails ? 1 : 0;
        bool full = true;
        world.osds[1]->fault = [&](net::Request& request) {
            if (request.opcode == wire::Opcode::del && failures) return failures--, -ENOSPC;
            if (request.opcode == wire::Opcode::del) full = false;
            return full && request.opcode == wire::Opcode::write ? refused++, -ENOSPC : 0;
        };
        world.crash(1);
        Done read, written, removed;
        std::vector<uint8_t> seen(4096, 0xff);
        world.start(OpKind::read, world.image, 0, 4096, {{seen.data(), 4096}}, read);
        REQUIRE(world.until([&] { return refused >= 2; }));
        world.start(OpKind::remove, world.image, 0, 0, {}, removed, 0, UINT64_MAX);
        world.start(OpKind::write, world.image, 4096, 4096, {{later.data(), 4096}}, written);
        REQUIRE(world.until([&] { return removed.done; }));
        CHECK(world.until([&] { return read.done; }));
        CHECK(world.until([&] { return written.done; }));
        CHECK(removed.result == 0);
        CHECK(seen == std::vector<uint8_t>(4096));  // the read waited, and began before the deletion had ended
        CHECK(world.flush(world.image) == 0);
        CHECK(world.image->unsynced.empty());
        CHECK(world.durable(1, 0).data[8192] == 0);  // nothing older was sent behind it
        CHECK(world.durable(1, 0).data[4096] == later[0]);
    }
}

TEST_CASE("random writes, flushes and crashes against an oracle") {
    for (unsigned seed = 1; seed <= 6; seed++) {
        NoneWorld world;
        uint64_t state = seed * 0x9e3779b97f4a7c15ull;
        auto random = [&](uint64_t below) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            return state % below;
        };
        std::vector<uint8_t> oracle(4 * kBlock, 0);
        CAPTURE(seed);
        for (int step = 0; step < 150; step++) {
            size_t index = random(3);
            switch (random(8)) {
            case 0: world.crash(1 + random(2)); break;
            case 1: REQUIRE(world.flush(world.image, index) == 0); break;
            case 3: {
                uint64_t offset = random(128) * 4096, length = std::min<uint64_t>((1 + random(40)) * 4096, oracle.size() - offset);
                auto got = world.read(world.image, offset, length, index);
                REQUIRE(got.size() == length);
                REQUIRE(memcmp(got.data(), &oracle[offset], length) == 0);
                break;
            }
            case 4: {
                uint64_t offset = random(4) * kBlock;
                REQUIRE(world.run(OpKind::discard, world.image, offset, kBlock, {}, index) == kBlock);
                memset(&oracle[offset], 0, kBlock);
                break;
            }
            default: {
                uint64_t offset = random(128) * 4096, length = std::min<uint64_t>((1 + random(16)) * 4096, oracle.size() - offset);
                auto data = pattern(length, static_cast<uint8_t>(random(256)));
                REQUIRE(world.write(world.image, offset, data, index) == static_cast<int64_t>(length));
                memcpy(&oracle[offset], data.data(), length);
            }
            }
        }
        REQUIRE(world.flush(world.image) == 0);
        world.crash(1);
        world.crash(2);
        CHECK(world.read(world.image, 0, oracle.size()) == oracle);
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
// What clients see of a healthy PG. Wire-protocol 8, 9.
#include <doctest/doctest.h>

#include "harness.hpp"

using namespace vitastor;
using namespace vitastor::test;
using wire::Opcode;

TEST_CASE("write, read, overwrite on two copies") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client client(c, 0);
    Reply w = client.write(1, kInode, 4096, block(7));
    CHECK(w.result == 4096);
    CHECK(w.version == 1);
    CHECK(c.copies(kFirst) == std::map<OsdNum, Version>{{1, 1}, {2, 1}});
    CHECK(c.disks[2].objects[kFirst][1].bitmap == std::vector<uint8_t>{2, 0, 0, 0});
    CHECK(c.disks[2].objects[kFirst][1].data[4096] == 7);
    Reply r = client.read(1, kInode, 0, 8192);
    CHECK(r.result == 8192);
    CHECK(r.version == 1);
    CHECK(r.bitmap == std::vector<uint8_t>{2, 0, 0, 0});
    CHECK(r.data[0] == 0);
    CHECK(r.data[4096] == 7);
    CHECK(client.write(1, kInode, 0, block(9)).version == 2);
    r = client.read(1, kInode, 0, 0);
    CHECK(r.result == 0);
    CHECK(r.version == 2);
    CHECK(r.bitmap == std::vector<uint8_t>{3, 0, 0, 0});
    CHECK(c.disks[1].objects[kFirst][2].data == c.disks[2].objects[kFirst][2].data);
    r = client.read(1, kInode, 131072 * 5, 4096);  // missing object
    CHECK(r.result == 4096);
    CHECK(r.version == 0);
    CHECK(r.bitmap == std::vector<uint8_t>{0, 0, 0, 0});
    CHECK(r.data == block(0));
}

TEST_CASE("requests that cannot be") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client client(c, 0);
    CHECK(client.read(1, kInode, 100, 4096).result == -EINVAL);
    CHECK(client.read(1, kInode, 0, 100).result == -EINVAL);
    CHECK(client.read(1, kInode, 126976, 8192).result == -EINVAL);
    CHECK(client.write(1, kInode, 126976, block(1, 8192)).result == -EINVAL);
    CHECK(client.write(1, kInode, 0, block(1, 262144)).result == -EINVAL);
    CHECK(client.read(1, kInode, UINT64_MAX - 4095, 4096).result == 4096);
    CHECK(client.read(1, full_inode(2, 1), 0, 4096).result == -EPIPE);
    CHECK(client.read(2, kInode, 0, 4096).result == -EPIPE);
    CHECK(client.write(2, kInode, 0, block(1)).result == -EPIPE);
    CHECK(client.remove(3, kInode, 0).result == -EPIPE);
    CHECK(client.simple(1, static_cast<Opcode>(8)).result == -EINVAL);
    CHECK(client.simple(1, Opcode::ping).result == 0);
    CHECK(client.simple(1, Opcode::sync).result == 0);
    CHECK(client.scrub(1, kInode, 0).result == -ENOENT);
}

TEST_CASE("compare and set") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client client(c, 0);
    CHECK(client.write(1, kInode, 0, block(1), 1).version == 1);
    Reply lost = client.write(1, kInode, 0, block(2), 1);
    CHECK(lost.result == -EINTR);
    CHECK(lost.version == 1);
    CHECK(client.write(1, kInode, 0, block(3), 2).version == 2);
    Reply del = client.remove(1, kInode, 0, 2);
    CHECK(del.result == -EINTR);
    CHECK(del.del.cas_version() == 2);
    CHECK(client.remove(1, kInode, 0, 3).result == 0);
    CHECK(c.copies(kFirst).empty());
}

TEST_CASE("delete twice, and again after a write") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client client(c, 0);
    CHECK(client.remove(1, kInode, 0).result == 0);
    CHECK(client.write(1, kInode, 0, block(1)).result == 4096);
    Reply del = client.remove(1, kInode, 8192);
    CHECK(del.result == 0);
    CHECK(del.del.flags == 1);
    CHECK(c.copies(kFirst).empty());
    CHECK(client.write(1, kInode, 0, block(2)).version == 3);  // above the tombstone
}

TEST_CASE("many writes of one object stay in order, and a read waits for an overlapping one") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client client(c, 0);
    std::vector<std::shared_ptr<Reply>> replies;
    for (int i = 0; i < 300; i++) replies.push_back(client.start_write(1, kInode, 0, block(static_cast<uint8_t>(i))));
    std::shared_ptr<Reply> read = client.start_read(1, kInode, 0, 4096);
    for (size_t i = 0; i < replies.size(); i++) {
        CHECK(client.wait(replies[i]).version == i + 1);
    }
    Reply seen = client.wait(read);
    CHECK(seen.data == block(static_cast<uint8_t>(seen.version - 1)));
    // A write whose other copy hangs: the read of the same range waits, that of another one does not.
    c.disks[2].hold = true;
    std::shared_ptr<Reply> stuck = client.start_write(1, kInode, 0, block(77));
    c.turns(20);
    std::shared_ptr<Reply> same = client.start_read(1, kInode, 0, 4096);
    Reply other = client.read(1, kInode, 4096, 4096);
    CHECK(other.result == 4096);
    c.turns(20);
    CHECK(!same->done);
    CHECK(!stuck->done);
    c.disks[2].hold = false;
    CHECK(client.wait(stuck).result == 4096);
    CHECK(client.wait(same).data == block(77));
}

TEST_CASE("chained reads") {
    Cluster c;
    activate(c, 1, {1, 2});
    InodeNum base = full_inode(1, 1), child = full_inode(1, 2), other = full_inode(2, 1);
    c.node(1).post(engine::Inodes{{{base, 0, 10}, {child, base, 20}, {full_inode(1, 3), other, 30}, {full_inode(1, 4), full_inode(1, 4), 40}}});
    Client client(c, 0);
    client.write(1, base, 0, block(1, 8192));
    client.write(1, child, 4096, block(2));
    client.write(1, child, 12288, block(3));
    Reply chain = client.read(1, child, 0, 16384, 20);
    CHECK(chain.result == 16384);
    CHECK(chain.bitmap == std::vector<uint8_t>{0x0b, 0, 0, 0});
    CHECK(chain.version == 2);
    CHECK(chain.data[0] == 1);
    CHECK(chain.data[4096] == 2);
    CHECK(chain.data[8192] == 0);
    CHECK(chain.data[12288] == 3);
    Reply plain = client.read(1, child, 0, 16384);
    CHECK(plain.bitmap == std::vector<uint8_t>{0x0a, 0, 0, 0});
    CHECK(plain.data[0] == 0);
    CHECK(client.read(1, child, 0, 0, 20).bitmap == std::vector<uint8_t>{0x0b, 0, 0, 0});
    Reply part = client.read(1, child, 4096, 4096, 20);
    CHECK(part.bitmap == std::vector<uint8_t>{0x02, 0, 0, 0});
    CHECK(client.read(1, child, 0, 4096, 19).result == -EPIPE);
    CHECK(client.read(1, full_inode(1, 3), 0, 4096, 30).result == 4096);
    CHECK(client.read(1, full_inode(1, 4), 0, 4096, 40).result == -EINVAL);
}

// Seed 2103386 of the simulator: zeroes were read.
TEST_CASE("a layer is taken out and deleted while a chained read waits at it") {
    for (bool below_top : {false, true}) {
        CAPTURE(below_top);
        Cluster c;
        activate(c, 1, {1, 2});
        const InodeNum base = full_inode(1, 1), taken = full_inode(1, 2), next = full_inode(1, 3), top = full_inode(1, 4);
        c.node(1).post(engine::Inodes{{{base, 0, 10}, {taken, base, 20}, {next, taken, 30}, {top, next, 40}}});
        Client client(c, 0);
        client.write(1, base, 0, block(1));
        client.write(1, taken, 4096, block(2));
        c.disks[2].hold = true;
        std::shared_ptr<Reply> stuck = client.start_remove(1, taken, 0);
        c.turns(20);
        const InodeNum reader = below_top ? top : next;
        std::shared_ptr<Reply> read = client.start_read(1, reader, 0, 4096, below_top ? 40 : 30);
        c.turns(20);
        CHECK(!read->done);
        c.node(1).post(engine::Inodes{{{base, 0, 10}, {next, base, 31}, {top, next, 40}}});
        c.turns(20);
        c.disks[2].hold = false;
        client.wait(stuck);
        if (below_top) CHECK(client.wait(read).data == block(1));
        else CHECK(client.wait(read).result == -EPIPE);  // it asks for what the layers were before
    }
}

TEST_CASE("primary listing and describe") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client client(c, 0);
    for (int i = 0; i < 3; i++) client.write(1, kInode, static_cast<uint64_t>(i) * 131072, block(1));
    client.write(1, full_inode(1, 2), 0, block(1));
    wire::ListRequest list;
    list.list_pg = 1;
    list.pg_count = 1;
    list.min_inode = list.max_inode = kInode;
    list.flags = 1;
    Reply listed = client.list(1, list);
    CHECK(listed.result == 3);
    CHECK(listed.list.flags == 1);
    CHECK(listed.triples[2] == ObjectVersion{{kInode, 262144}, 0});
    list.max_inode++;
    CHECK(client.list(1, list).result == -EINVAL);
    list.max_inode--;
    CHECK(client.list(2, list).result == -EPIPE);
    CHECK(client.describe(1).result == 0);
}

TEST_CASE("statistics") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    client.read(1, kInode, 0, 4096);
    c.node(1).post(engine::ReportStatistics{});
    c.until("statistics", [&] { return c.node(1).statistics.has_value(); });
    engine::Statistics& s = *c.node(1).statistics;
    CHECK(s.op_stats["primary_write"].count == 1);
    CHECK(s.op_stats["primary_write"].bytes == 4096);
    CHECK(s.op_stats["primary_read"].count == 1);
    CHECK(s.subop_stats["write_stable"].count == 1);
    REQUIRE(s.pgs.size() == 1);
    CHECK(s.pgs[0].object_count == 1);
    CHECK(s.pgs[0].clean_count == 1);
    CHECK(s.pgs[0].write_osd_set == std::vector<OsdNum>{1, 2});
    REQUIRE(s.inodes.size() == 1);
    CHECK(s.inodes[0].write.bytes == 4096);
    CHECK(s.space.size() == 1);
    uint64_t sum = 0;
    for (auto& [part, bytes] : s.memory_by) sum += bytes;
    CHECK(s.memory_bytes == sum);
    CHECK(s.memory_by["pgs"] > 0);
    CHECK(s.memory_by["clients"] > 0);
    // The client and OSD 2, and the latter's connection to us if it has one.
    CHECK(s.memory_by["connections"] > 2 * 4096);
    CHECK(s.memory_by["receive_buffers"] >= 2 * 65536);
    CHECK(s.memory_by["receive_buffers"] % 65536 == 0);
    CHECK(s.memory_by["requests"] == 0);
    CHECK(s.memory_by["replies"] == 0);
}

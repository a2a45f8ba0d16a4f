// SPDX-License-Identifier: GPL-2.0-or-later
// Membership changes: degraded writes, epochs and histories, rejoin, moves, locks, list fence. Semantics 7-9, safety 2.
#include <doctest/doctest.h>

#include "harness.hpp"

using namespace vitastor;
using namespace vitastor::test;
using wire::Opcode;

TEST_CASE("an OSD stops, the PG goes on degraded, it returns and a write heals the object") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client client(c, 0);
    CHECK(client.write(1, kInode, 0, block(1)).version == 1);
    CHECK(client.write(1, kInode, 131072, block(1)).version == 1);
    CHECK(c.node(1).wanted.empty());
    c.stop(2);
    c.publish();
    until_state(c, 1, ps::active | ps::degraded | ps::left_on_dead);
    CHECK(c.node(1).states[1].dead_peers == std::vector<OsdNum>{2});
    CHECK(c.node(1).states[1].peers == std::vector<OsdNum>{1});
    CHECK(client.write(1, kInode, 0, block(2)).version == 0x10001);
    CHECK(client.write(1, kInode, 0, block(3)).version == 0x10002);
    REQUIRE(c.node(1).wanted.size() == 1);
    CHECK(c.node(1).wanted[0].epoch == 1);
    CHECK(c.node(1).wanted[0].add_current_set);
    CHECK(c.node(1).wanted[0].current_set == std::vector<OsdNum>{1});
    Reply del = client.remove(1, kInode, 131072 * 7);
    CHECK(del.del.flags == 1);  // all who are there remember it (tombstone_test.cpp)
    CHECK(del.del.osd_count == 0);
    CHECK(client.describe(1).result == 0);  // what was written degraded is clean on the reduced set
    c.start(2);
    c.publish();
    until_state(c, 1, ps::active | ps::has_degraded);
    Reply unclean = client.describe(1);
    CHECK(unclean.result == 1);
    CHECK(unclean.items[0].object == kFirst);
    CHECK(unclean.items[0].osd == 1);
    CHECK(client.read(1, kInode, 0, 4096).data == block(3));
    CHECK(client.write(1, kInode, 4096, block(4)).version == 0x20001);
    until_state(c, 1, ps::active);
    CHECK(c.copies(kFirst) == std::map<OsdNum, Version>{{1, 0x20001}, {2, 0x20001}});
    CHECK(c.disks[2].objects[kFirst][0x20001].data == c.disks[1].objects[kFirst][0x20001].data);
    CHECK(c.disks[2].objects[kFirst][0x20001].bitmap == std::vector<uint8_t>{3, 0, 0, 0});
    CHECK(c.disks[2].objects[kFirst][0x20001].data[0] == 3);
}

TEST_CASE("a crashed OSD blocks its PGs until its key is gone") {
    Cluster c;
    activate(c, 1, {1, 2});
    c.node(2).post(engine::LeaseUntil{0});
    c.until("fence", [&] { return c.node(2).lease_expired; });
    // It still has a key and answers SHOW_CONFIG again, but serves nothing: the PG may not be active with or without it.
    c.turns(50);
    CHECK((c.node(1).state(1) & ps::active) == 0);
    c.hidden[2] = true;
    c.publish();
    until_state(c, 1, ps::active | ps::degraded | ps::left_on_dead);
    c.hidden[2] = false;
    c.lease(2, 3600 * runtime::kNsPerSecond);
    c.publish();
    until_state(c, 1, ps::active);
}

TEST_CASE("a frozen OSD: when its key is gone nobody waits for its answers, and its locks are free") {
    ClusterOptions options;
    options.local_reads = true;
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    // As secondary: it takes the copy and says nothing; its connections live.
    c.disks[2].hold = true;
    auto write = client.start_write(1, kInode, 0, block(2));
    c.turns(50);
    CHECK_FALSE(write->done);
    c.hidden[2] = true;
    c.publish();
    until_state(c, 1, ps::active | ps::degraded | ps::left_on_dead);
    // Not acknowledged on one copy of an older state: the client sends it again.
    CHECK(client.wait(write).result == -EPIPE);
    CHECK(client.write(1, kInode, 0, block(2)).result == 4096);
    c.disks[2].hold = false;
    // As primary: it holds a lock at the others and says no goodbye. OSD 3 is told that it was there.
    c.hidden[2] = false;
    c.publish();
    Client frozen(c, 2);
    CHECK(frozen.lock(3, 1, 1, ps::active).result == 0);
    c.hidden[2] = true;
    c.publish();
    c.until("disconnected", [&] { return frozen.downs[3] == 1; });
    CHECK(Client(c, 1).lock(3, 1, 1, ps::active).result == 0);
}

TEST_CASE("writes of a new epoch wait for etcd") {
    Cluster c;
    activate(c, 1, {1, 2});
    c.confirm_histories = false;
    c.stop(2);
    c.publish();
    until_state(c, 1, ps::active | ps::degraded | ps::left_on_dead);
    Client client(c, 0);
    auto first = client.start_write(1, kInode, 0, block(1));
    auto second = client.start_write(1, kInode, 131072, block(1));
    c.turns(30);
    CHECK(!first->done);
    CHECK(!second->done);
    auto third_read = client.start_read(1, kInode, 262144, 4096);
    c.turns(30);
    CHECK(!third_read->done);  // what it shows may be on this OSD alone
    REQUIRE(c.node(1).wanted.size() == 1);
    c.node(1).post(engine::ConfirmHistory{{1, 1}, c.interval, 1});
    CHECK(client.wait(first).version == 0x10001);
    CHECK(client.wait(second).version == 0x10001);
    CHECK(client.wait(third_read).result == 4096);
    // Not confirmed before the PG is taken away: nothing was done.
    auto third = client.start_write(1, kInode, 0, block(2));
    CHECK(client.wait(third).version == 0x10002);
    c.stop_pg(1);
    activate(c, 1, {1, 2}, ps::active | ps::degraded | ps::left_on_dead);
    auto fourth = client.start_write(1, kInode, 0, block(2));
    c.turns(30);
    CHECK(!fourth->done);
    c.stop_pg(1);
    CHECK(client.wait(fourth).result == -EPIPE);
    CHECK(c.copies(kFirst)[1] == 0x10002);
}

TEST_CASE("a moved PG: misplaced objects are served from where they are, writes move them") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    client.write(1, kInode, 131072, block(2));
    c.stop_pg(1);
    c.history_sets = {{1, 2}};
    activate(c, 3, {3, 1}, ps::active | ps::has_misplaced);
    CHECK(client.read(3, kInode, 131072, 4096).data == block(2));
    CHECK(client.write(3, kInode, 131072, block(3)).version == 0x10001);
    CHECK(c.copies({kInode, 131072}) == std::map<OsdNum, Version>{{1, 0x10001}, {3, 0x10001}});
    CHECK(client.remove(3, kInode, 0).result == 0);
    CHECK(c.copies(kFirst).empty());
    until_state(c, 3, ps::active);
    CHECK(c.node(1).state(1) == ps::offline);
}

TEST_CASE("a primary outside the target set serves too") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    c.stop_pg(1);
    activate(c, 3, {1, 2});
    CHECK(client.read(3, kInode, 0, 4096).data == block(1));
    CHECK(client.write(3, kInode, 4096, block(5)).version == 2);
    CHECK(client.write(3, kInode, 131072, block(5)).version == 1);
    CHECK(client.remove(3, kInode, 131072).result == 0);
    CHECK(c.copies(kFirst) == std::map<OsdNum, Version>{{1, 2}, {2, 2}});
    CHECK(c.disks[2].objects[kFirst][2].bitmap == std::vector<uint8_t>{3, 0, 0, 0});
}

TEST_CASE("background recovery makes everything clean") {
    ClusterOptions options;
    options.settings = {{"peer_connect_interval", "1"}, {"recovery_queue_depth", "4"}};
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    for (uint64_t i = 0; i < 50; i++) client.write(1, kInode, i * 131072, block(static_cast<uint8_t>(i)));
    c.stop(2);
    c.publish();
    until_state(c, 1, ps::active | ps::degraded | ps::left_on_dead);
    for (uint64_t i = 0; i < 50; i += 2) client.write(1, kInode, i * 131072 + 4096, block(200));
    c.start(2);
    c.publish();
    until_state(c, 1, ps::active);
    CHECK(c.disks[1].objects.size() == 50);
    for (auto& [object, versions] : c.disks[1].objects) {
        REQUIRE(c.disks[2].objects.contains(object));
        CHECK(c.disks[2].objects[object].rbegin()->second.data == versions.rbegin()->second.data);
    }
    c.stop_pg(1);
    c.history_sets = {{1, 2}};
    activate(c, 3, {3, 1});
    CHECK(c.disks[2].objects.empty());
    CHECK(c.disks[3].objects.size() == 50);
}

TEST_CASE("replicas left unstable by somebody are rolled back") {
    Cluster c;
    c.disks[2].objects[kFirst][1] = {true, std::vector<uint8_t>(131072), std::vector<uint8_t>(4)};
    c.disks[1].objects[kFirst][1] = {true, std::vector<uint8_t>(131072), std::vector<uint8_t>(4)};
    c.disks[2].objects[kFirst][2] = {false, std::vector<uint8_t>(131072), std::vector<uint8_t>(4)};
    activate(c, 1, {1, 2});
    CHECK(c.copies(kFirst) == std::map<OsdNum, Version>{{1, 1}, {2, 1}});
}

TEST_CASE("peering makes versions stable only on OSDs that stand in the history") {
    ClusterOptions options;
    options.scheme = 1;
    options.pg_size = 3;
    options.pg_minsize = 2;
    Cluster c(options);
    const MemoryDisk::Copy old{true, std::vector<uint8_t>(131072), std::vector<uint8_t>(4)};
    for (OsdNum osd = 1; osd <= 3; osd++) c.disks[osd].objects[{kInode, osd - 1}][1] = old;
    for (OsdNum osd = 1; osd <= 2; osd++) c.disks[osd].objects[{kInode, osd - 1}][2] = {false, old.data, old.bitmap};
    c.confirm_histories = false;
    c.stop(3);
    c.publish();
    c.start_pg(1, {1, 2, 3});
    c.until("a history is wanted", [&] { return !c.node(1).wanted.empty(); });
    c.turns(30);
    const engine::HistoryWanted wanted = c.node(1).wanted.front();
    CHECK(wanted.add_current_set);
    CHECK(wanted.current_set == std::vector<OsdNum>{1, 2});
    CHECK(!c.disks[1].objects[kFirst][2].stable);  // what is there and the chunk of OSD 3 are the old object still
    CHECK((c.node(1).state(1) & ps::active) == 0);
    c.node(1).post(engine::ConfirmHistory{{1, 1}, c.interval, wanted.epoch});
    until_state(c, 1, ps::active | ps::degraded | ps::left_on_dead);
    CHECK(c.disks[1].objects[kFirst][2].stable);
    Client client(c, 0);
    CHECK(client.write(1, kInode, 0, block(1)).version == 0x10001);  // of the same epoch
    CHECK(c.node(1).wanted.size() == 1);
}

// Seed 1001137 of the simulator: one OSD had made a version stable, the other lost its own chunk of it before a SYNC.
TEST_CASE("without immediate_commit peering makes stable only what is durable on all who have it") {
    for (auto mode : {wire::ImmediateCommit::none, wire::ImmediateCommit::small}) {
        ClusterOptions options;
        options.scheme = 1;
        options.pg_size = 3;
        options.pg_minsize = 2;
        options.mode = mode;
        Cluster c(options);
        const MemoryDisk::Copy old{true, std::vector<uint8_t>(131072), std::vector<uint8_t>(4)};
        for (OsdNum osd = 1; osd <= 3; osd++) c.disks[osd].objects[{kInode, osd - 1}][1] = old;
        for (OsdNum osd = 1; osd <= 2; osd++) c.disks[osd].objects[{kInode, osd - 1}][2] = {false, old.data, old.bitmap};
        c.disks[2].hold_syncs = true;
        c.stop(3);
        c.publish();
        c.start_pg(1, {1, 2, 3});
        c.until("OSD 1 has synced", [&] { return c.disks[1].syncs > 0; });
        c.turns(100);
        for (OsdNum osd = 1; osd <= 2; osd++) CHECK(!c.disks[osd].objects[{kInode, osd - 1}][2].stable);
        CHECK((c.node(1).state(1) & ps::active) == 0);
        c.disks[2].hold_syncs = false;
        until_state(c, 1, ps::active | ps::degraded | ps::left_on_dead);
        for (OsdNum osd = 1; osd <= 2; osd++) CHECK(c.disks[osd].objects[{kInode, osd - 1}][2].stable);
    }
}

TEST_CASE("mode none: peering goes on when its rollbacks are durable") {
    ClusterOptions options;
    options.scheme = 1;
    options.pg_size = 3;
    options.pg_minsize = 2;
    options.mode = wire::ImmediateCommit::none;
    Cluster c(options);
    const MemoryDisk::Copy old{true, std::vector<uint8_t>(131072), std::vector<uint8_t>(4)};
    for (OsdNum osd = 1; osd <= 3; osd++) c.disks[osd].objects[{kInode, osd - 1}][1] = old;
    c.disks[2].objects[{kInode, 1}][2] = {false, old.data, old.bitmap};
    c.disks[2].hold_syncs = true;
    c.start_pg(1, {1, 2, 3});
    c.until("rolled back", [&] { return c.disks[2].objects[{kInode, 1}].size() == 1; });
    c.turns(100);
    CHECK((c.node(1).state(1) & ps::active) == 0);
    c.disks[2].hold_syncs = false;
    until_state(c, 1, ps::active);
}

TEST_CASE("an impossible chunk makes the PG refuse") {
    Cluster c;
    c.disks[2].objects[{kInode, 1}][1] = {true, std::vector<uint8_t>(131072), std::vector<uint8_t>(4)};
    activate(c, 1, {1, 2}, ps::incomplete | ps::has_invalid);
    CHECK(c.node(1).states[1].reason.find("chunk number") != std::string::npos);
}

TEST_CASE("pg_minsize") {
    ClusterOptions options;
    options.pg_size = 3;
    options.pg_minsize = 2;
    Cluster c(options);
    activate(c, 1, {1, 2, 3});
    Client client(c, 0);
    CHECK(client.write(1, kInode, 0, block(1)).version == 1);
    CHECK(c.copies(kFirst).size() == 3);
    c.stop(3);
    c.publish();
    until_state(c, 1, ps::active | ps::degraded | ps::left_on_dead);
    CHECK(client.write(1, kInode, 0, block(1)).version == 0x10001);
    c.stop(2);
    c.publish();
    until_state(c, 1, ps::incomplete);
    c.until("the reason", [&] { return c.node(1).states[1].reason.find("pg_minsize is 2") != std::string::npos; });
    CHECK(client.write(1, kInode, 0, block(1)).result == -EPIPE);
}

TEST_CASE("local reads need a lock with a clean state") {
    ClusterOptions options;
    options.local_reads = true;
    options.pg_size = 3;
    Cluster c(options);
    activate(c, 1, {1, 2, 3});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    CHECK(client.read(2, kInode, 0, 4096).data == block(1));
    CHECK(client.read(3, kInode, 0, 4096).version == 1);
    CHECK(client.write(2, kInode, 0, block(1)).result == -EPIPE);
    // Others may not touch the copies.
    Client stranger(c, 9);
    CHECK(stranger.sub_write(2, kFirst, 5, block(1)).result == -EPIPE);
    CHECK(stranger.lock(2, 1, 1, 2).result == -EBUSY);
    CHECK(stranger.lock(2, 1, 1, 2).lock.holder == 1);
    CHECK(stranger.lock(1, 1, 1, 2).lock.holder == 1);
    CHECK(stranger.lock(2, 1, 2, 0).result == 0);
    CHECK(stranger.lock(2, 7, 1, 2).result == -ENOENT);
    CHECK(stranger.lock(2, 1, 3, 2).result == -EINVAL);
    CHECK(client.lock(2, 1, 1, 2).result == -EINVAL);
    c.stop(3);
    c.publish();
    until_state(c, 1, ps::active | ps::degraded | ps::left_on_dead);
    client.write(1, kInode, 0, block(2));
    CHECK(client.read(2, kInode, 0, 4096).result == -EPIPE);
    c.start(3);
    c.publish();
    until_state(c, 1, ps::active | ps::has_degraded);
    CHECK(client.read(2, kInode, 0, 4096).result == -EPIPE);
    client.write(1, kInode, 0, block(3));
    until_state(c, 1, ps::active);
    c.until("local read works again", [&] { return client.read(3, kInode, 0, 4096).data == block(3); });
    c.stop_pg(1);
    CHECK(client.read(2, kInode, 0, 4096).result == -EPIPE);
}

TEST_CASE("an OSD that left the set answers no local reads, although it is locked") {
    ClusterOptions options;
    options.local_reads = true;
    options.settings = {{"peer_connect_interval", "1"}};
    Cluster c(options);
    activate(c, 1, {1, 3});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    CHECK(client.read(3, kInode, 0, 4096).data == block(1));
    c.stop_pg(1);
    c.all_peers = {1, 2, 3};
    c.history_sets = {{1, 3}};
    activate(c, 1, {1, 2});
    c.until("local read works", [&] { return client.read(2, kInode, 0, 4096).data == block(1); });
    client.write(1, kInode, 0, block(2));
    CHECK(client.read(2, kInode, 0, 4096).data == block(2));
    CHECK(client.read(3, kInode, 0, 4096).result == -EPIPE);
}

TEST_CASE("a lock held by somebody else delays peering") {
    ClusterOptions options;
    options.local_reads = true;
    Cluster c(options);
    Client stranger(c, 9);
    CHECK(stranger.lock(2, 1, 1, 2).result == 0);
    c.start_pg(1, {1, 2});
    c.until("peering", [&] { return c.node(1).state(1) == ps::peering; });
    c.turns(100);
    CHECK(c.node(1).state(1) == ps::peering);
    CHECK(stranger.lock(2, 1, 2, 0).result == 0);
    until_state(c, 1, ps::active);
}

// Seeds 1075148 and 1094973 of the simulator: every later primary was told busy.
TEST_CASE("an OSD that has left a PG is given its lock back when the PG peers again") {
    ClusterOptions options;
    options.local_reads = true;
    options.pg_count = 2;
    Cluster c(options);
    Client stranger(c, 9);
    engine::StartPg other;  // keeps the connection to OSD 3
    other.pg = {1, 2};
    other.osd_set = other.all_peers = {1, 3};
    other.interval = 100;
    c.node(1).post(other);
    c.all_peers = {1, 2, 3};
    c.history_sets = {{1, 3}};
    activate(c, 1, {1, 2});
    CHECK(stranger.lock(3, 1, 1, 2).result == -EBUSY);
    // It was clean at once, so the past counts no more, and OSD 3 with it.
    c.node(1).post(engine::Settings{{{"allow_net_split", "1"}}});
    c.until("peering", [&] { return c.node(1).state(1) != ps::active; });
    until_state(c, 1, ps::active);
    c.turns(20);
    c.until("the other one too", [&] { return c.node(1).state(2) == ps::active; });
    CHECK(stranger.lock(3, 1, 1, 2).result == 0);
    CHECK(stranger.lock(2, 1, 1, 2).result == -EBUSY);
}

TEST_CASE("a hello of an older connection arrives late: the newer one is void, and the primary makes another") {
    ClusterOptions options;
    options.local_reads = true;
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client late(c, 1);
    late.connect(2);
    c.node(1).post(engine::Settings{{{"allow_net_split", "1"}, {"peer_connect_interval", "1"}}});  // it peers again
    c.until("peering", [&] { return c.node(1).state(1) != ps::active; });
    until_state(c, 1, ps::active);
}

TEST_CASE("list fence: who listed last may write, everybody else lists first") {
    Cluster c;
    Client old_primary(c, 8), new_primary(c, 9), tool(c, 0);
    CHECK(old_primary.sub_write(2, kFirst, 1, block(1)).result == 4096);
    CHECK(new_primary.list(2, whole_pool()).result == 1);
    CHECK(old_primary.sub_write(2, kFirst, 2, block(1)).result == -EPIPE);
    CHECK(new_primary.sub_write(2, kFirst, 2, block(1)).result == 4096);
    CHECK(tool.sub_write(2, kFirst, 3, block(1)).result == 4096);
    CHECK(old_primary.list(2, whole_pool()).result == 1);
    CHECK(old_primary.sub_write(2, kFirst, 4, block(1)).result == 4096);
    CHECK(new_primary.sub_write(2, kFirst, 5, block(1)).result == -EPIPE);
    // A new hello of OSD 8 voids its older connection.
    Client again(c, 8);
    again.connect(2);
    CHECK(old_primary.sub_write(2, kFirst, 6, block(1)).result == -EPIPE);
    CHECK(again.sub_write(2, kFirst, 6, block(1)).result == -EPIPE);
    CHECK(again.list(2, whole_pool()).result == 1);
    CHECK(again.sub_write(2, kFirst, 6, block(1)).result == 4096);
    CHECK(again.sub_write(2, kFirst, 6, block(1)).result == -EEXIST);
    // The OSD itself becomes primary.
    c.start_pg(2, {2, 3});
    c.until("active", [&] { return (c.node(2).state(1) & ps::active) != 0; });
    CHECK(again.sub_write(2, kFirst, 0x70000, block(1)).result == -EPIPE);
    wire::ListRequest wrong = whole_pool();
    wrong.pg_count = 2;
    CHECK(again.list(2, wrong).result == -EAGAIN);
    wrong = whole_pool();
    wrong.list_pg = 2;
    CHECK(again.list(2, wrong).result == -EINVAL);
    wrong = whole_pool();
    wrong.max_inode = full_inode(3, 0);
    CHECK(again.list(2, wrong).result == -EINVAL);
}

TEST_CASE("a request from before another OSD led the PG is not carried out, and its client says hello again") {
    Cluster c;
    Client other(c, 0), old(c, 0, 0), ours(c, 0, 7);
    CHECK(other.write(2, kInode, 0, block(1)).result == -EPIPE);  // connected, and not led there
    other.connect(2);
    activate(c, 1, {1, 2});
    CHECK(old.write(1, kInode, 0, block(1)).result == 4096);
    CHECK(ours.write(1, kInode, 4096, block(1)).result == 4096);
    c.stop_pg(1);
    activate(c, 2, {1, 2});
    CHECK(other.write(2, kInode, 0, block(2)).result == 4096);  // a takeover costs nobody a connection
    CHECK(other.downs[2] == 0);
    c.stop_pg(2);
    activate(c, 1, {1, 2});
    // What comes now on the connections of then may have been sent then, given up, and sent again to OSD 2.
    CHECK(old.write(1, kInode, 0, block(3)).result == -EPIPE);
    CHECK(old.remove(1, kInode, 0).result == -EPIPE);
    CHECK(old.read(1, kInode, 0, 4096).data == block(2));
    CHECK(ours.write(1, kInode, 0, block(3)).result == -EAGAIN);
    CHECK(ours.read(1, kInode, 0, 4096).data == block(2));
    auto late = ours.start_write(1, kInode, 0, block(4));
    ours.greet(1);
    auto again = ours.start_write(1, kInode, 0, block(5));
    CHECK(ours.wait(late).result == -EAGAIN);
    CHECK(ours.wait(again).result == 4096);
    CHECK(ours.write(1, kInode, 0, block(6)).result == 4096);
    Client fresh(c, 0);
    CHECK(fresh.read(1, kInode, 0, 4096).data == block(6));
    CHECK(fresh.write(1, kInode, 0, block(7)).result == 4096);
}

TEST_CASE("an OSD that has just started refuses what may be late too: its client may follow a map of its former life") {
    Cluster c;
    Client old(c, 0, 0), ours(c, 0, 7);
    for (Client* client : {&old, &ours}) CHECK(client->write(2, kInode, 0, block(1)).result == -EPIPE);  // connected, and not led there
    old.connect(2);
    ours.connect(2);
    activate(c, 1, {1, 2});
    Client there(c, 0);
    CHECK(there.write(1, kInode, 0, block(2)).result == 4096);
    c.stop_pg(1);
    // Also a hello while it peers is of a time when another OSD may still lead the PG.
    c.start_pg(2, {1, 2});
    ours.greet(2);
    until_state(c, 2, ps::active);
    CHECK(ours.write(2, kInode, 0, block(3)).result == -EAGAIN);
    ours.greet(2);
    CHECK(ours.write(2, kInode, 0, block(4)).result == 4096);
    CHECK(old.write(2, kInode, 0, block(5)).result == 4096);  // who names no session would have to connect anew
}

TEST_CASE("a client that connects anew ends its older connection") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client before(c, 0, 9), other(c, 0, 8), plain(c, 0, 0);
    for (Client* client : {&before, &other, &plain}) CHECK(client->write(1, kInode, 0, block(1)).result == 4096);
    before.connect_no_more(1);  // its hello would end the connection of its successor
    Client after(c, 0, 9);
    CHECK(after.write(1, kInode, 0, block(2)).result == 4096);
    c.until("the older connection is closed", [&] { return before.downs[1] == 1; });
    CHECK(other.downs[1] == 0);
    CHECK(plain.downs[1] == 0);
    CHECK(after.downs[1] == 0);
}

TEST_CASE("a lock holder with a bad copy: local reads are answered by the primary, which repairs it") {
    ClusterOptions options;
    options.local_reads = true;
    options.settings.erase("no_recovery");
    options.settings.erase("no_rebalance");
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    CHECK(client.read(2, kInode, 0, 4096).data == block(1));
    bool bad = true;
    c.disks[2].fault = [&](const store::Operation& op) -> int64_t {
        if (op.object == kFirst && op.op == store::StoreOp::write_stable) bad = false;
        return op.object == kFirst && op.op == store::StoreOp::read && bad ? -EDOM : 0;
    };
    // OSD 2 may have no connection to the primary yet: then the client is asked to try again.
    Reply reply;
    c.until("it is answered", [&] {
        reply = client.read(2, kInode, 0, 4096);
        CHECK(reply.result != -EIO);
        return reply.result != -EPIPE;
    });
    CHECK(reply.result == 4096);
    CHECK(reply.data == block(1));
    CHECK(reply.version == 1);
    CHECK(reply.bitmap == client.read(1, kInode, 0, 4096).bitmap);
    c.until("the copy is repaired", [&] { return !bad && c.node(1).state(1) == ps::active; });
    c.until("read here again", [&] { return client.read(2, kInode, 0, 4096).data == block(1); });
}

TEST_CASE("between two slices of long listings a client's request goes through") {
    Cluster c;
    constexpr uint64_t kObjects = 30000;
    for (uint64_t i = 1; i <= kObjects; i++) {
        for (OsdNum osd : {1, 2}) c.disks[osd].objects[{kInode, i * 131072}][1].bitmap.assign(4, 0);
    }
    activate(c, 1, {1, 2});
    Client client(c, 0), tool(c, 0), reader(c, 0);
    client.write(1, kInode, 0, block(1));
    wire::ListRequest as_primary = whole_pool();
    as_primary.min_inode = as_primary.max_inode = kInode;
    as_primary.flags = wire::ListRequest::kPrimary;
    int left = 0;
    std::vector<std::shared_ptr<Reply>> lists;
    const uint64_t before = c.loop->counters().idle_steps;
    for (int i = 0; i < 3; i++) {
        lists.push_back(tool.start_list(1, whole_pool()));
        lists.push_back(tool.start_list(1, as_primary));
    }
    auto running = [&] {
        left = 0;
        for (auto& list : lists) left += !list->done;
        return left > 0;
    };
    uint64_t most = 0, reads = 0;
    while (running()) {
        const uint64_t steps = c.loop->counters().idle_steps;
        CHECK(reader.read(1, kInode, 0, 4096).data == block(1));
        most = std::max(most, c.loop->counters().idle_steps - steps);
        reads++;
    }
    for (auto& list : lists) CHECK(list->result == static_cast<int64_t>(kObjects + 1));
    // Client and engine share one loop here: a turn to send, to serve, to receive, and what the store takes.
    CHECK(most <= 6);
    CHECK(c.loop->counters().idle_steps - before >= 6 * (kObjects / 1000));
    CHECK(reads >= 6 * (kObjects / 1000) / 8);
}

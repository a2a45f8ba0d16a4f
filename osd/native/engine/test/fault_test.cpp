// SPDX-License-Identifier: GPL-2.0-or-later
// Faults: lease, full and bad disks, dirty clients, garbage, geometry. Safety 1, 10; semantics 2, 3.2.5, 3.3.4.
#include <doctest/doctest.h>

#include <cstring>

#include "harness.hpp"

using namespace vitastor;
using namespace vitastor::test;
using wire::Opcode;

TEST_CASE("past the lease nothing is acknowledged, and everybody is disconnected") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    c.disks[1].hold = true;
    auto read = client.start_read(1, kInode, 0, 4096);
    auto write = client.start_write(1, kInode, 131072, block(2));
    c.turns(20);
    c.lease(1, 1);  // over at once
    c.until("lease expired", [&] { return c.node(1).lease_expired; });
    c.disks[1].hold = false;
    CHECK(client.wait(read).result == -EPIPE);
    CHECK(client.wait(write).result == -EPIPE);
    c.until("client disconnected", [&] { return client.downs[1] == 1; });
    CHECK(client.read(1, kInode, 0, 4096).result == -EPIPE);
    // Registered again: the index is still there.
    c.lease(1, 3600 * runtime::kNsPerSecond);
    activate(c, 1, {1, 2});
    CHECK(client.read(1, kInode, 0, 4096).data == block(1));
}

TEST_CASE("a full disk: the error reaches the client, the failed copy counts as outdated") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    c.disks[2].fault = [](const store::Operation& op) { return op.op == store::StoreOp::write_stable ? -ENOSPC : 0; };
    CHECK(client.write(1, kInode, 0, block(2)).result == -ENOSPC);
    until_state(c, 1, ps::active | ps::has_degraded);
    Reply unclean = client.describe(1);
    REQUIRE(unclean.result == 2);
    CHECK(unclean.items[0].osd == 1);
    CHECK(unclean.items[0].flags == 0);
    CHECK(unclean.items[1].osd == 2);
    CHECK(unclean.items[1].flags == wire::DescribeItem::kOutdated);
    CHECK(client.downs[1] == 0);
    CHECK(client.write(1, kInode, 4096, block(3)).result == -ENOSPC);
    c.disks[2].fault = nullptr;
    CHECK(client.write(1, kInode, 8192, block(4)).result == 4096);
    until_state(c, 1, ps::active);
    CHECK(c.disks[1].objects[kFirst].rbegin()->second.data == c.disks[2].objects[kFirst].rbegin()->second.data);
    // The own disk is the full one.
    c.disks[1].fault = [](const store::Operation& op) { return op.op == store::StoreOp::write_stable ? -ENOSPC : 0; };
    CHECK(client.write(1, kInode, 0, block(9)).result == -ENOSPC);
    CHECK(client.read(1, kInode, 0, 4096).data == block(9));
    c.disks[1].fault = nullptr;
    CHECK(client.write(1, kInode, 131072, block(5)).result == 4096);
    CHECK(client.write(1, kInode, 12288, block(5)).result == 4096);
    until_state(c, 1, ps::active);
    CHECK(c.disks[1].objects[kFirst].rbegin()->second.data == c.disks[2].objects[kFirst].rbegin()->second.data);
}

TEST_CASE("a version that a write replaces while it is read is no bad copy") {
    Cluster c;
    activate(c, 1, {1, 2});
    c.stop(2);
    c.publish();
    until_state(c, 1, ps::active | ps::degraded | ps::left_on_dead);
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    c.start(2);
    c.publish();
    until_state(c, 1, ps::active | ps::has_degraded);
    int replaced = 0;
    c.disks[1].fault = [&](const store::Operation& op) {
        bool of_client = op.op == store::StoreOp::read && op.offset == 0 && op.len == 4096;
        return of_client && replaced++ == 0 ? -ENOENT : 0;
    };
    auto write = client.start_write(1, kInode, 131072 - 4096, block(2));
    auto read = client.start_read(1, kInode, 0, 4096);
    CHECK(client.wait(read).data == block(1));
    CHECK(client.wait(write).result == 4096);
    CHECK(replaced > 1);
    until_state(c, 1, ps::active);
}

TEST_CASE("a bad own copy: served from another one, repaired by recovery") {
    ClusterOptions options;
    options.settings = {{"peer_connect_interval", "1"}};
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    bool bad = true;
    c.disks[1].fault = [&](const store::Operation& op) {
        if (op.op == store::StoreOp::write_stable) bad = false;
        return op.op == store::StoreOp::read && bad ? -EDOM : 0;
    };
    CHECK(client.read(1, kInode, 0, 4096).data == block(1));
    until_state(c, 1, ps::active);
    c.until("repaired", [&] { return !bad; });
    until_state(c, 1, ps::active);
    CHECK(client.read(1, kInode, 0, 4096).data == block(1));
    c.disks[1].fault = c.disks[2].fault = [](const store::Operation& op) { return op.op == store::StoreOp::read ? -EDOM : 0; };
    CHECK(client.read(1, kInode, 0, 4096).result == -EIO);
    CHECK(client.write(1, kInode, 0, block(3)).result == -EIO);
    CHECK(client.write(1, kInode, 0, block(3, 131072)).result == 131072);  // covers all that is missing
    c.disks[1].fault = c.disks[2].fault = nullptr;
    CHECK(client.read(1, kInode, 0, 4096).data == block(3));
}

// Seed 4108 of the simulator: the mark kept the version before the write, which no copy had any more.
TEST_CASE("a copy that is found bad beside a write of another part is bad in the version of that write") {
    ClusterOptions options;
    options.settings = {{"peer_connect_interval", "1"}};
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    REQUIRE(client.write(1, kInode, 0, block(1)).result == 4096);
    bool bad = true;
    c.disks[1].fault = [&](const store::Operation& op) {
        if (op.op == store::StoreOp::write_stable && op.len == 131072) bad = false;
        return op.op == store::StoreOp::read && bad ? -EDOM : 0;
    };
    c.disks[1].hold = true;
    auto read = client.start_read(1, kInode, 0, 4096);
    auto write = client.start_write(1, kInode, 65536, block(2));
    c.until("the other copy has it", [&] { return c.copies(kFirst)[2] == 2; });
    c.disks[1].hold = false;
    CHECK(client.wait(read).data == block(1));
    CHECK(client.wait(write).result == 4096);
    CHECK(client.read(1, kInode, 65536, 4096).data == block(2));
    c.until("repaired", [&] { return !bad; });
    until_state(c, 1, ps::active);
}

// Seed 1001034 of the simulator: the write was on the primary alone, its reader went on when the other OSD was lost, and so did the value.
TEST_CASE("a read that waited for a write sees nothing of it when the PG ends with it") {
    ClusterOptions options;
    options.simulated = true;
    options.settings = {{"peer_connect_interval", "1"}};
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    REQUIRE(client.write(1, kInode, 0, block(1)).result == 4096);
    c.disks[2].hold = true;
    auto write = client.start_write(1, kInode, 0, block(2));
    c.until("one copy has it", [&] { return c.copies(kFirst)[1] == 2; });
    auto read = client.start_read(1, kInode, 0, 4096);
    c.turns(50);
    CHECK(!read->done);
    c.kill(2);
    CHECK(client.wait(write).result == -EPIPE);
    CHECK(client.wait(read).result == -EPIPE);
}

TEST_CASE("dirty clients are disconnected when their PG stops, others are not") {
    ClusterOptions options;
    options.mode = wire::ImmediateCommit::none;
    options.settings["autosync_interval"] = "0";
    options.settings["autosync_writes"] = "0";
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client dirty(c, 0), idle(c, 0), synced(c, 0);
    CHECK(dirty.write(1, kInode, 0, block(1)).result == 4096);
    CHECK(synced.write(1, kInode, 131072, block(1)).result == 4096);
    idle.read(1, kInode, 0, 4096);
    uint64_t before = c.disks[2].syncs;
    CHECK(synced.simple(1, Opcode::sync).result == 0);
    CHECK(c.disks[2].syncs == before + 1);
    CHECK(c.disks[1].syncs > 0);
    CHECK(synced.simple(1, Opcode::sync).result == 0);
    CHECK(c.disks[2].syncs == before + 1);  // nothing to do
    c.stop(2);
    c.publish();
    until_state(c, 1, ps::active | ps::degraded | ps::left_on_dead);
    c.until("dirty client closed", [&] { return dirty.downs[1] == 1; });
    CHECK(idle.downs[1] == 0);
    CHECK(synced.downs[1] == 0);
}

TEST_CASE("a failed SYNC is reported and repeated") {
    ClusterOptions options;
    options.mode = wire::ImmediateCommit::none;
    options.settings["autosync_interval"] = "0";
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    c.disks[1].fault = [](const store::Operation& op) { return op.op == store::StoreOp::sync ? -EIO : 0; };
    CHECK(client.simple(1, Opcode::sync).result == -EIO);
    c.disks[1].fault = nullptr;
    uint64_t before = c.disks[1].syncs;
    CHECK(client.simple(1, Opcode::sync).result == 0);
    CHECK(c.disks[1].syncs == before + 1);
}

TEST_CASE("autosync after a number of writes") {
    ClusterOptions options;
    options.mode = wire::ImmediateCommit::none;
    options.settings["autosync_interval"] = "0";
    options.settings["autosync_writes"] = "10";
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    for (int i = 0; i < 9; i++) client.write(1, kInode, 0, block(1));
    c.turns(10);
    CHECK(c.disks[2].syncs == 0);
    client.write(1, kInode, 0, block(1));
    c.until("autosync", [&] { return c.disks[2].syncs == 1; });
}

TEST_CASE("mode none: superfluous copies go only after a SYNC") {
    ClusterOptions options;
    options.mode = wire::ImmediateCommit::none;
    options.settings["autosync_interval"] = "0";
    options.settings["autosync_writes"] = "0";
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    client.simple(1, Opcode::sync);
    c.stop_pg(1);
    c.history_sets = {{1, 2}};
    activate(c, 1, {1, 3}, ps::active | ps::has_misplaced);
    CHECK(client.write(1, kInode, 4096, block(2)).version == 0x10001);
    CHECK(c.copies(kFirst).size() == 3);
    CHECK(c.node(1).state(1) == (ps::active | ps::has_misplaced));
    CHECK(client.simple(1, Opcode::sync).result == 0);
    CHECK(c.copies(kFirst) == std::map<OsdNum, Version>{{1, 0x10001}, {3, 0x10001}});
    until_state(c, 1, ps::active);
}

TEST_CASE("mode none: a PG is clean only when the deletion of superfluous copies is durable") {
    ClusterOptions options;
    options.mode = wire::ImmediateCommit::none;
    options.settings["autosync_interval"] = "0";
    options.settings["autosync_writes"] = "0";
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    client.simple(1, Opcode::sync);
    c.stop_pg(1);
    c.history_sets = {{1, 2}};
    activate(c, 1, {1, 3}, ps::active | ps::has_misplaced);
    client.write(1, kInode, 4096, block(2));
    c.disks[2].hold_syncs = true;
    auto sync = client.start_simple(1, Opcode::sync);
    c.until("the copy is deleted", [&] { return !c.copies(kFirst).contains(2); });
    c.turns(30);
    CHECK(c.node(1).state(1) == (ps::active | ps::has_misplaced));
    CHECK(!sync->done);
    c.disks[2].hold_syncs = false;
    CHECK(client.wait(sync).result == 0);
    until_state(c, 1, ps::active);
}

TEST_CASE("mode none: a PG is clean only when the delete of an object is durable on those who leave it") {
    ClusterOptions options;
    options.mode = wire::ImmediateCommit::none;
    options.settings["autosync_interval"] = "0";
    options.settings["autosync_writes"] = "0";
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    client.simple(1, Opcode::sync);
    c.stop_pg(1);
    c.history_sets = {{1, 2}};
    activate(c, 1, {1, 3}, ps::active | ps::has_misplaced);
    c.disks[2].hold_syncs = true;
    auto removed = client.start_remove(1, kInode, 0);
    c.until("the copy is deleted", [&] { return !c.copies(kFirst).contains(2); });
    c.turns(30);
    CHECK(c.node(1).state(1) == (ps::active | ps::has_misplaced));
    CHECK(!removed->done);
    c.disks[2].hold_syncs = false;
    CHECK(client.wait(removed).result == 0);
    until_state(c, 1, ps::active);
}

// Seed 402994 of the simulator: the history was forgotten, all lost power, and the recovered OSD came back first with what it had before.
TEST_CASE("a PG is clean only when what recovery wrote is durable") {
    for (auto mode : {wire::ImmediateCommit::none, wire::ImmediateCommit::small}) {
        ClusterOptions options;
        options.mode = mode;
        options.settings = {{"peer_connect_interval", "1"}, {"autosync_interval", "0"}, {"autosync_writes", "0"}};
        Cluster c(options);
        c.stop(2);
        c.publish();
        activate(c, 1, {1, 2}, ps::active | ps::degraded | ps::left_on_dead);
        Client client(c, 0);
        REQUIRE(client.write(1, kInode, 0, block(1)).result == 4096);
        REQUIRE(client.simple(1, Opcode::sync).result == 0);
        c.stop_pg(1);
        c.history_sets = {{1}};
        c.start(2);
        c.publish();
        c.start_pg(1, {1, 2});
        c.until("active", [&] { return c.node(1).state(1) & ps::active; });
        c.disks[2].hold_syncs = true;
        c.until("recovered", [&] { return c.copies(kFirst).contains(2); });
        c.turns(30);
        CHECK(c.node(1).state(1) == (ps::active | ps::has_misplaced));
        c.disks[2].hold_syncs = false;
        until_state(c, 1, ps::active);
    }
}

TEST_CASE("a PG that peers again between recovery and its SYNC is clean only when what recovery wrote is durable") {
    for (auto mode : {wire::ImmediateCommit::none, wire::ImmediateCommit::small}) {
        for (OsdNum next : {1, 2}) {
            CAPTURE(next);
            ClusterOptions options;
            options.mode = mode;
            options.settings = {{"peer_connect_interval", "1"}, {"autosync_interval", "0"}, {"autosync_writes", "0"}};
            Cluster c(options);
            c.stop(2);
            c.publish();
            activate(c, 1, {1, 2}, ps::active | ps::degraded | ps::left_on_dead);
            Client client(c, 0);
            REQUIRE(client.write(1, kInode, 0, block(1)).result == 4096);
            REQUIRE(client.simple(1, Opcode::sync).result == 0);
            c.stop_pg(1);
            c.history_sets = {{1}};
            c.start(2);
            c.publish();
            c.start_pg(1, {1, 2});
            c.until("active", [&] { return c.node(1).state(1) & ps::active; });
            c.disks[2].hold_syncs = true;
            c.until("recovered", [&] { return c.copies(kFirst).contains(2); });
            c.stop_pg(1);
            c.history_sets = {{1}, {1, 2}};
            c.start_pg(next, {1, 2});
            c.turns(100);
            CHECK((c.node(next).state(1) & ps::active) == 0);
            c.disks[2].hold_syncs = false;
            until_state(c, next, ps::active);
        }
    }
}

TEST_CASE("mode none: a SYNC that had begun before new copies were written takes no superfluous ones away") {
    ClusterOptions options;
    options.mode = wire::ImmediateCommit::none;
    options.settings["autosync_interval"] = "0";
    options.settings["autosync_writes"] = "0";
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    for (uint64_t object : {0, 1}) client.write(1, kInode, object * 131072, block(1));
    client.simple(1, Opcode::sync);
    c.stop_pg(1);
    c.history_sets = {{1, 2}};
    activate(c, 1, {1, 3}, ps::active | ps::has_misplaced);
    CHECK(client.write(1, kInode, 4096, block(2)).result == 4096);
    c.disks[3].hold_syncs = true;
    auto sync = client.start_simple(1, Opcode::sync);
    CHECK(client.write(1, kInode, 131072 + 4096, block(2)).result == 4096);
    CHECK(!sync->done);
    c.disks[3].hold_syncs = false;
    CHECK(client.wait(sync).result == 0);
    CHECK(c.copies(kFirst).size() == 2);
    // OSD 3 may still lose this one: the old copy stays.
    CHECK(c.copies({kInode, 131072}).size() == 3);
    CHECK(c.node(1).state(1) == (ps::active | ps::has_misplaced));
    CHECK(client.simple(1, Opcode::sync).result == 0);
    CHECK(c.copies({kInode, 131072}).size() == 2);
    until_state(c, 1, ps::active);
}

// Seed 3005 of the simulator, with copies.
TEST_CASE("mode none: recovery writes an object once, however often the OSDs flush") {
    for (const std::string writes : {"0", "1", "128"}) {
        CAPTURE(writes);
        ClusterOptions options;
        options.mode = wire::ImmediateCommit::none;
        options.simulated = true;
        options.settings = {{"peer_connect_interval", "1"}, {"autosync_interval", "0"}, {"autosync_writes", writes}};
        Cluster c(options);
        activate(c, 1, {1, 2});
        Client client(c, 0);
        for (uint64_t object = 0; object < 3; object++) REQUIRE(client.write(1, kInode, object * 131072, block(1)).result == 4096);
        REQUIRE(client.simple(1, Opcode::sync).result == 0);
        c.stop_pg(1);
        c.history_sets = {{1, 2}};
        activate(c, 1, {1, 3});
        for (uint64_t object = 0; object < 3; object++) {
            CHECK(c.copies({kInode, object * 131072}) == std::map<OsdNum, Version>{{1, 0x10001}, {3, 0x10001}});
        }
    }
}

// Seed 300109 of the simulator: whatever recovery did next moved the second chance further away.
TEST_CASE("an object that could not be recovered is tried again after five seconds, however long the others take") {
    ClusterOptions options;
    options.simulated = true;
    options.settings = {{"peer_connect_interval", "1"}, {"recovery_tune_interval", "0"}, {"recovery_sleep_us", "600000"}};
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    for (uint64_t object = 0; object < 8; object++) REQUIRE(client.write(1, kInode, object * 131072, block(1)).result == 4096);
    c.stop_pg(1);
    c.history_sets = {{1, 2}};
    std::vector<uint64_t> tried_ns;
    const ObjectId second{kInode, 131072};
    c.disks[3].fault = [&](const store::Operation& op) {
        if (op.op != store::StoreOp::write_stable || !(op.object == second)) return 0;
        tried_ns.push_back(c.world->now_ns());
        return tried_ns.size() == 1 ? -ENOSPC : 0;
    };
    c.start_pg(1, {1, 3});
    c.until("recovery has failed", [&] { return !tried_ns.empty(); });
    until_state(c, 1, ps::active);
    REQUIRE(tried_ns.size() == 2);
    CHECK(tried_ns[1] - tried_ns[0] >= 4'900'000'000);
    CHECK(tried_ns[1] - tried_ns[0] <= 5'100'000'000);
}

TEST_CASE("scrub finds a wrong copy, recovery repairs it") {
    ClusterOptions options;
    options.pg_size = 3;
    Cluster c(options);
    activate(c, 1, {1, 2, 3});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    CHECK(client.scrub(1, kInode, 0).result == 0);
    CHECK(client.describe(1).result == 0);
    c.disks[1].objects[kFirst].rbegin()->second.data[5000] ^= 1;
    CHECK(client.scrub(1, kInode, 0).result == 0);
    Reply found = client.describe(1);
    REQUIRE(found.result == 3);
    for (const wire::DescribeItem& item : found.items) {
        CHECK(item.flags == (item.osd == 1 ? wire::DescribeItem::kCorrupted : 0));
    }
    CHECK(client.read(1, kInode, 4096, 4096).data == block(0));
    client.write(1, kInode, 0, block(2));
    until_state(c, 1, ps::active);
    CHECK(c.disks[1].objects[kFirst].rbegin()->second.data == c.disks[2].objects[kFirst].rbegin()->second.data);
}

TEST_CASE("a connection dies during writes: they fail or succeed, copies agree after peering") {
    ClusterOptions options;
    options.settings = {{"peer_connect_interval", "1"}};
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    std::vector<std::shared_ptr<Reply>> replies;
    for (uint64_t i = 0; i < 64; i++) replies.push_back(client.start_write(1, kInode, (i % 8) * 131072, block(static_cast<uint8_t>(i))));
    c.turns(2);
    c.node(2).post(engine::LeaseUntil{0});
    c.until("fence", [&] { return c.node(2).lease_expired; });
    for (auto& reply : replies) {
        Reply r = client.wait(reply);
        CHECK((r.result == 4096 || r.result == -EPIPE));
    }
    c.lease(2, 3600 * runtime::kNsPerSecond);
    until_state(c, 1, ps::active);
    for (auto& [object, versions] : c.disks[1].objects) {
        CHECK(c.disks[2].objects[object].rbegin()->second.data == versions.rbegin()->second.data);
    }
}

TEST_CASE("garbage on the port closes that connection only") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    struct Raw : runtime::Completion {
        int64_t result = 0;
        bool done = false;
        Raw() {
            on_done = [](runtime::Completion* self, int64_t result) {
                static_cast<Raw*>(self)->result = result;
                static_cast<Raw*>(self)->done = true;
            };
        }
    };
    for (unsigned seed = 0; seed < 40; seed++) {
        Raw op;
        c.loop->connect({"127.0.0.1", c.node(1).port}, op);
        c.until("connect", [&] { return op.done; });
        REQUIRE(op.result >= 0);
        runtime::Socket socket = static_cast<runtime::Socket>(op.result);
        std::vector<uint8_t> bytes(4096);
        unsigned state = seed * 7919 + 1;
        for (auto& b : bytes) b = static_cast<uint8_t>((state = state * 1103515245 + 12345) >> 16);
        if (seed % 2) {  // a right magic, an opcode, nonsense behind it
            wire::RequestHeader header{1, static_cast<Opcode>(seed % 20)};
            std::vector<uint8_t> right(128);
            wire::encode_request(wire::HeaderBytes(right.data(), 128), header);
            std::memcpy(bytes.data(), right.data(), 24);
        }
        iovec iov{bytes.data(), bytes.size()};
        Raw sent;
        c.loop->send(socket, &iov, 1, sent);
        c.until("send", [&] { return sent.done; });
        c.turns(3);
        c.loop->close_socket(socket);
    }
    CHECK(client.read(1, kInode, 0, 4096).data == block(1));
    CHECK(client.downs[1] == 0);
}

TEST_CASE("a pool of another geometry is refused with both values") {
    Cluster c;
    engine::PoolConfig pool = c.pool_config();
    pool.block_size = 262144;
    pool.pg_stripe_size = 262144;
    c.node(1).post(engine::Pools{{pool}});
    activate(c, 1, {1, 2}, ps::incomplete);
    CHECK(c.node(1).states[1].reason == "the pool's block_size is 262144, this OSD's is 131072");
    c.stop_pg(1);
    engine::StartPg unknown;
    unknown.pg = {7, 1};
    c.node(1).post(unknown);
    engine::PoolConfig nonsense;
    nonsense.pool = 9;
    c.node(1).post(engine::Pools{{nonsense}});
    c.turns(5);
}

TEST_CASE("a new start of a PG that is still led ends the old interval first") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client client(c, 0);
    c.disks[2].hold = true;
    auto write = client.start_write(1, kInode, 0, block(1));
    c.turns(10);
    c.start_pg(1, {1, 3});
    c.turns(10);
    CHECK(!write->done);
    c.disks[2].hold = false;
    client.wait(write);
    c.until("new interval", [&] { return c.node(1).states[1].interval == c.interval && (c.node(1).state(1) & ps::active); });
    CHECK(c.node(1).states[1].peers == std::vector<OsdNum>{1, 3});
}

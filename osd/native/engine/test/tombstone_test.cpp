// SPDX-License-Identifier: GPL-2.0-or-later
// Deletes and OSDs that are away: what was deleted does not come back, what was not deleted does not go. Safety 6, 8; docs/adr/0046.
#include <doctest/doctest.h>

#include "harness.hpp"

using namespace vitastor;
using namespace vitastor::test;
using wire::Opcode;

namespace {

constexpr uint32_t kReduced = ps::active | ps::degraded | ps::left_on_dead;
const std::map<std::string, std::string> kHealing{{"peer_connect_interval", "1"}, {"tombstone_interval", "0"}};

ClusterOptions healing(uint32_t copies = 2) {
    ClusterOptions options;
    options.pg_size = copies;
    options.settings = kHealing;
    return options;
}

void lose(Cluster& c, OsdNum osd, OsdNum primary, uint32_t state = kReduced) {
    c.stop(osd);
    c.publish();
    until_state(c, primary, state);
}

void until_forgotten(Cluster& c) {
    c.until("tombstones are forgotten", [&] {
        for (auto& [osd, disk] : c.disks) {
            if (!disk.tombstones.empty()) return false;
        }
        return true;
    });
}

}  // namespace

TEST_CASE("an OSD that missed deletes does not bring the objects back") {
    Cluster c(healing());
    activate(c, 1, {1, 2});
    Client client(c, 0);
    for (uint64_t i = 0; i < 20; i++) client.write(1, kInode, i * 131072, block(static_cast<uint8_t>(i + 1)));
    lose(c, 2, 1);
    for (uint64_t i = 0; i < 19; i++) {
        Reply del = client.remove(1, kInode, i * 131072);
        CHECK(del.result == 0);
        CHECK(del.del.flags == 1);  // nothing is left on the dead one
    }
    CHECK(c.disks[1].tombstones.size() == 19);
    CHECK(c.disks[2].objects.size() == 20);
    CHECK(client.read(1, kInode, 0, 4096).version == 0);
    c.start(2);
    c.publish();
    until_state(c, 1, ps::active);
    CHECK(c.disks[1].objects.size() == 1);
    CHECK(c.disks[2].objects.size() == 1);
    CHECK(client.read(1, kInode, 0, 4096).data == block(0));
    CHECK(client.read(1, kInode, 19 * 131072, 4096).data == block(20));
    until_forgotten(c);
}

TEST_CASE("an OSD that missed a delete may lead afterwards") {
    Cluster c(healing());
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    lose(c, 2, 1);
    CHECK(client.remove(1, kInode, 0).result == 0);
    c.stop_pg(1);
    c.start(2);
    c.publish();
    activate(c, 2, {2, 1});
    CHECK(c.copies(kFirst).empty());
    CHECK(client.read(2, kInode, 0, 4096).data == block(0));
    until_forgotten(c);
}

TEST_CASE("an object created again lies above its tombstone, also for the OSD that missed both") {
    Cluster c(healing());
    activate(c, 1, {1, 2});
    Client client(c, 0);
    for (int i = 0; i < 5; i++) client.write(1, kInode, 0, block(1));
    CHECK(client.remove(1, kInode, 0).result == 0);
    lose(c, 2, 1);
    CHECK(client.write(1, kInode, 0, block(2)).version == 0x10001);
    CHECK(client.remove(1, kInode, 0).result == 0);
    CHECK(c.disks[1].tombstones[kFirst] == 0x10002);
    CHECK(client.write(1, kInode, 0, block(3)).version == 0x10003);
    CHECK(c.disks[1].tombstones.empty());
    c.start(2);
    c.publish();
    until_state(c, 1, ps::active);
    CHECK(c.copies(kFirst).size() == 2);
    CHECK(client.read(1, kInode, 0, 4096).data == block(3));
    CHECK(client.remove(1, kInode, 0).result == 0);
    until_forgotten(c);
    // The tombstone is gone, but not its epoch.
    CHECK(client.write(1, kInode, 0, block(4)).version > 0x20000);
}

TEST_CASE("a repeated delete of a missing object leaves a tombstone where it matters") {
    ClusterOptions options = healing();
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    CHECK(client.remove(1, kInode, 131072).result == 0);
    CHECK(c.disks[1].tombstones.empty());  // exactly active: nobody can have it
    c.stop(2);
    c.disks[1].objects.clear();  // the delete was done here, its tombstone was not needed, and nobody was told
    c.publish();
    until_state(c, 1, kReduced);
    CHECK(client.remove(1, kInode, 0).result == 0);
    CHECK(c.disks[1].tombstones.size() == 1);
    CHECK(client.remove(1, kInode, 0).result == 0);
    CHECK(c.disks[1].tombstones.size() == 1);
    c.start(2);
    c.publish();
    until_state(c, 1, ps::active);
    CHECK(c.copies(kFirst).empty());
    until_forgotten(c);
}

TEST_CASE("an empty disk under an old number wipes nothing") {
    for (OsdNum primary : {1, 2}) {
        CAPTURE(primary);
        Cluster c(healing());
        activate(c, 1, {1, 2});
        Client client(c, 0);
        for (uint64_t i = 0; i < 10; i++) client.write(1, kInode, i * 131072, block(static_cast<uint8_t>(i + 1)));
        lose(c, 2, 1);
        client.remove(1, kInode, 0);
        c.disks[2].objects.clear();
        c.stop_pg(1);
        c.start(2);
        c.publish();
        activate(c, primary, {1, 2});
        CHECK(c.disks[1].objects.size() == 9);
        CHECK(c.disks[2].objects.size() == 9);
        CHECK(client.read(primary, kInode, 131072, 4096).data == block(2));
    }
}

TEST_CASE("three copies: those who are there remember together, and one of them is enough") {
    Cluster c(healing(3));
    activate(c, 1, {1, 2, 3});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    client.write(1, kInode, 131072, block(1));
    lose(c, 3, 1);
    CHECK(client.remove(1, kInode, 0).result == 0);
    CHECK(c.disks[1].tombstones == c.disks[2].tombstones);
    // 2 forgets it (a new disk) and comes back: it is told again before anything is served.
    c.stop(2);
    c.disks[2].tombstones.clear();
    c.disks[2].objects.clear();
    c.start(2);
    c.publish();
    until_state(c, 1, kReduced);
    CHECK(c.disks[2].tombstones == c.disks[1].tombstones);
    // 1 goes, 2 leads with 3, which missed it.
    c.stop(1);
    c.start(3);
    c.publish();
    c.history_sets.clear();
    activate(c, 2, {1, 2, 3}, kReduced);
    CHECK(client.read(2, kInode, 0, 4096).version == 0);
    CHECK(c.copies(kFirst).empty());
    c.start(1);
    c.publish();
    until_state(c, 2, ps::active);
    CHECK(c.copies(kFirst).empty());
    CHECK(c.copies({kInode, 131072}).size() == 3);
    until_forgotten(c);
}

TEST_CASE("a primary that dies in the middle of a delete leaves it done or undone, and what was read stays") {
    // Each of the three stores has done it or not when the primary dies. Then the others go on without it; then it returns.
    for (int done = 0; done < 8; done++) {
        for (bool rewrite : {false, true}) {
            CAPTURE(done);
            CAPTURE(rewrite);
            Cluster c(healing(3));
            activate(c, 1, {1, 2, 3});
            Client client(c, 0);
            client.write(1, kInode, 0, block(1));
            for (auto& [osd, disk] : c.disks) {
                disk.hold = true;
                const bool refuse = !(done >> (osd - 1) & 1);
                disk.fault = [refuse](const store::Operation& op) {
                    return refuse && op.op == store::StoreOp::del ? -EIO : 0;
                };
            }
            auto removing = client.start_remove(1, kInode, 0);
            c.turns(20);
            c.hidden[1] = true;
            c.lease(1, 0);
            c.until("fence", [&] { return c.node(1).lease_expired; });
            for (auto& [osd, disk] : c.disks) disk.hold = false;
            CHECK(client.wait(removing).result == -EPIPE);
            c.turns(20);
            for (auto& [osd, disk] : c.disks) disk.fault = nullptr;
            c.publish();
            c.history_sets.clear();
            activate(c, 2, {1, 2, 3}, kReduced);
            const bool gone = client.read(2, kInode, 0, 4096).version == 0;
            CHECK(gone == ((done & 6) != 0));
            if (rewrite) CHECK(client.write(2, kInode, 0, block(2)).result == 4096);
            c.hidden[1] = false;
            c.lease(1, 3600 * runtime::kNsPerSecond);
            c.publish();
            until_state(c, 2, ps::active);
            if (rewrite) {
                CHECK(c.copies(kFirst).size() == 3);
                CHECK(client.read(2, kInode, 0, 4096).data == block(2));
            } else {
                CHECK(c.copies(kFirst).size() == (done ? 0 : 3));
            }
            until_forgotten(c);
        }
    }
}

TEST_CASE("a secondary that dies in the middle of a delete") {
    for (bool executed : {false, true}) {
        CAPTURE(executed);
        Cluster c(healing());
        activate(c, 1, {1, 2});
        Client client(c, 0);
        client.write(1, kInode, 0, block(1));
        c.disks[2].hold = true;
        if (!executed) c.disks[2].fault = [](const store::Operation& op) { return op.op == store::StoreOp::del ? -EIO : 0; };
        auto removing = client.start_remove(1, kInode, 0);
        c.turns(20);
        c.hidden[2] = true;
        c.lease(2, 0);
        c.until("fence", [&] { return c.node(2).lease_expired; });
        c.disks[2].hold = false;
        CHECK(client.wait(removing).result == -EPIPE);
        c.turns(20);
        CHECK(c.disks[2].objects.empty() == executed);
        c.disks[2].fault = nullptr;
        c.publish();
        until_state(c, 1, kReduced);
        CHECK(client.read(1, kInode, 0, 4096).version == 0);  // seen once ...
        c.hidden[2] = false;
        c.lease(2, 3600 * runtime::kNsPerSecond);
        c.publish();
        until_state(c, 1, ps::active);
        CHECK(c.copies(kFirst).empty());  // ... it stays
        CHECK(client.write(1, kInode, 0, block(2)).result == 4096);
        CHECK(c.copies(kFirst).size() == 2);
    }
}

TEST_CASE("a clean PG forgets by itself, and not before the epoch stands in etcd") {
    Cluster c(healing());
    activate(c, 1, {1, 2});
    Client client(c, 0);
    c.confirm_histories = false;
    client.write(1, kInode, 0, block(1));
    client.write(1, kInode, 131072, block(1));
    CHECK(client.remove(1, kInode, 0).result == 0);
    c.until("an epoch is asked for", [&] { return !c.node(1).wanted.empty(); });
    c.turns(20);
    CHECK(c.disks[1].tombstones.size() == 1);
    CHECK(c.disks[2].tombstones.size() == 1);
    CHECK(c.node(1).wanted[0].epoch == 1);
    CHECK(!c.node(1).wanted[0].add_current_set);
    CHECK(client.write(1, kInode, 131072, block(2)).version == 2);  // nobody waits meanwhile
    CHECK(client.write(1, kInode, 0, block(2)).version == 3);       // above the tombstone
    CHECK(client.remove(1, kInode, 0).result == 0);
    c.node(1).post(engine::ConfirmHistory{{1, 1}, c.interval, 1});
    until_forgotten(c);
    CHECK(client.write(1, kInode, 0, block(2)).version == 0x10001);
}

TEST_CASE("no room for tombstones: the delete is done, and the caller hears what it is worth") {
    Cluster c(healing(3));
    activate(c, 1, {1, 2, 3});
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    client.write(1, kInode, 131072, block(1));
    lose(c, 3, 1);
    c.disks[2].fault = [](const store::Operation& op) { return op.tombstone ? -ENOSPC : 0; };
    Reply del = client.remove(1, kInode, 0);
    CHECK(del.result == 0);
    CHECK(del.del.flags == 3);
    CHECK(del.del.osds[0] == 3);
    CHECK(!c.disks[2].objects.contains(kFirst));
    c.disks[1].fault = c.disks[2].fault;
    CHECK(client.remove(1, kInode, 131072).del.flags == 3);
    CHECK(c.disks[1].objects.empty());
    CHECK(c.disks[1].tombstones.size() == 1);
}

TEST_CASE("without tombstones on all sides there are none, and old ones are in nobody's way") {
    ClusterOptions options = healing();
    options.settings["tombstones"] = "0";
    options.settings["no_recovery"] = "1";
    Cluster c(options);
    c.disks[1].tombstones[{kInode, 131072}] = 0x70005;
    activate(c, 1, {1, 2});
    CHECK(c.disks[1].tombstones.empty());
    Client client(c, 0);
    client.write(1, kInode, 0, block(1));
    client.write(1, kInode, 131072, block(1));
    lose(c, 2, 1);
    Reply del = client.remove(1, kInode, 0);
    CHECK(del.del.flags == 3);
    CHECK(del.del.osd_count == 1);
    CHECK(del.del.osds[0] == 2);
    CHECK(c.disks[1].tombstones.empty());
    c.start(2);
    c.publish();
    until_state(c, 1, ps::active | ps::has_degraded);  // resurrected, as semantics 10.2 says
}

TEST_CASE("a primary that knows no tombstones finds none in its way; nobody else makes them go") {
    Cluster c;
    activate(c, 1, {1, 2});
    Client client(c, 0), stranger(c, 9);
    client.write(1, kInode, 0, block(1));
    CHECK(client.remove(1, kInode, 0).result == 0);
    CHECK(c.disks[2].tombstones.size() == 1);
    wire::ListRequest list = whole_pool();
    CHECK(client.list(2, list).result == 0);
    CHECK(c.disks[2].tombstones.size() == 1);
    list.flags = wire::ListRequest::kForget;
    list.forget_version = UINT64_MAX;
    CHECK(client.list(2, list).result == -EPIPE);    // no OSD
    CHECK(stranger.list(2, list).result == -EPIPE);  // has not listed
    CHECK(c.disks[2].tombstones.size() == 1);
    list = whole_pool();
    list.flags = wire::ListRequest::kTombstones;
    Reply listed = stranger.list(2, list);
    CHECK(listed.result == 1);
    CHECK(listed.list.stable_count == 0);
    CHECK(listed.list.tombstone_count == 1);
    CHECK(listed.triples[0].version == 2);
    CHECK(stranger.list(2, whole_pool()).result == 0);
    CHECK(c.disks[2].tombstones.empty());
    CHECK(stranger.sub_write(2, kFirst, 1, block(7)).result == 4096);
}

// Seed 23793 of the simulator: the new object had the version of the tombstone, and the next peering took it for deleted.
TEST_CASE("a primary without room for a tombstone creates above what others remember") {
    ClusterOptions options;
    options.settings["tombstone_interval"] = "3600";
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    REQUIRE(client.write(1, kInode, 0, block(1)).result == 4096);
    c.disks[1].fault = [](const store::Operation& op) { return op.op == store::StoreOp::del && op.tombstone ? -ENOSPC : 0; };
    REQUIRE(client.remove(1, kInode, 0).result == 0);
    const Version buried = c.disks[2].tombstones[kFirst];
    CHECK(buried > 0);
    CHECK(client.write(1, kInode, 0, block(2)).version > buried);
}

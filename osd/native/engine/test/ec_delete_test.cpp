// SPDX-License-Identifier: GPL-2.0-or-later
// DELETE of erasure-coded objects, interrupted everywhere: deleted or whole afterwards, never incomplete. Safety 6; docs/adr/0046.
#include <doctest/doctest.h>

#include "ec_rig.hpp"

using namespace vitastor;
using namespace vitastor::test;

namespace {

bool disks_are_empty(EcRig& rig) {
    for (auto& [osd, disk] : rig.c.disks) {
        if (!disk.objects.empty()) return false;
    }
    return true;
}

void until_forgotten(EcRig& rig) {
    rig.c.until("tombstones are forgotten", [&] {
        for (auto& [osd, disk] : rig.c.disks) {
            if (!disk.tombstones.empty()) return false;
        }
        return true;
    });
}

struct Plan {
    std::vector<uint32_t> victims;  ///< roles
    bool rewrite;                   ///< the object is written again before they return
};

/// Starts a delete, lets `events` events pass, kills the victims, and judges. false: it had ended before.
bool kill_during_delete(const EcScheme& scheme, const Plan& plan, int events) {
    EcRig rig(scheme, {{"tombstone_interval", "0"}});
    const uint32_t span = static_cast<uint32_t>(rig.span());
    const std::vector<uint8_t> old = rig.random_bytes(span), zeroes(span);
    REQUIRE(rig.write(0, old) == span);
    rig.c.turns(50);
    auto removing = rig.client.start_remove(1, kInode, 0);
    for (int i = 0; i < events; i++) {
        if (removing->done) return false;
        rig.c.world->step();
    }
    for (uint32_t role : plan.victims) rig.kill(rig.set[role]);
    Reply reply = rig.client.wait(removing);
    if (reply.result < 0) REQUIRE(reply.result == -EPIPE);
    rig.until_active();
    REQUIRE((rig.state() & ps::has_incomplete) == 0);
    Reply seen = rig.client.read(rig.primary, kInode, 0, span);
    REQUIRE(seen.result == span);
    const bool gone = seen.version == 0;
    REQUIRE(seen.data == (gone ? zeroes : old));
    if (reply.result >= 0) REQUIRE(gone);
    const std::vector<uint8_t> fresh = rig.random_bytes(span);
    if (plan.rewrite) REQUIRE(rig.client.write(rig.primary, kInode, 0, fresh).result == span);
    for (uint32_t role : plan.victims) rig.revive(rig.set[role]);
    rig.until_clean();
    rig.c.turns(200);
    Reply again = rig.client.read(rig.primary, kInode, 0, span);
    REQUIRE(again.result == span);
    if (plan.rewrite) {
        REQUIRE(again.data == fresh);
    } else if (gone || again.version == 0) {
        // Seen or not, a delete that nobody acknowledged may still take place when somebody returns who knows of it.
        REQUIRE(again.version == 0);
        REQUIRE(disks_are_empty(rig));
    } else {
        REQUIRE(again.data == old);
    }
    until_forgotten(rig);
    return true;
}

}  // namespace

TEST_CASE("EC: killed after every event of a delete, an object is deleted or whole") {
    int total = 0;
    for (const EcScheme& scheme : kEcSchemes) {
        CAPTURE(scheme.name);
        std::vector<Plan> plans;
        for (uint32_t role = 0; role < scheme.data + scheme.parity; role++) plans.push_back({{role}, role % 2 == 1});
        plans.push_back({{0}, true});
        if (scheme.parity > 1) {
            plans.push_back({{0, 1}, false});
            plans.push_back({{0, 3}, true});
            plans.push_back({{1, 2}, false});
        }
        for (const Plan& plan : plans) {
            CAPTURE(plan.victims[0]);
            int events = 1;
            while (kill_during_delete(scheme, plan, events)) events++;
            CHECK(events > 5);
            total += events;
        }
    }
    MESSAGE("crash points: ", total);
}

TEST_CASE("EC: deletes while chunks are away do not leave incomplete objects behind") {
    for (const EcScheme& scheme : kEcSchemes) {
        CAPTURE(scheme.name);
        EcRig rig(scheme, {{"tombstone_interval", "0"}});
        const uint32_t span = static_cast<uint32_t>(rig.span());
        for (uint32_t i = 0; i < 6; i++) REQUIRE(rig.write(i * rig.span(), rig.random_bytes(span)) == span);
        for (uint32_t role = 0; role < scheme.data + scheme.parity; role++) {
            CAPTURE(role);
            rig.kill(rig.set[role]);
            rig.until_active();
            const uint64_t stripe = rig.content.begin()->first;
            Reply del = rig.client.remove(rig.primary, kInode, stripe);
            CHECK(del.result == 0);
            CHECK(del.del.flags == 1);
            rig.content.erase(stripe);
            rig.present.erase(stripe);
            // Once more created and deleted, once created for good: all of it above what the missing OSD has.
            REQUIRE(rig.write(stripe, rig.random_bytes(8192)) == 8192);
            if (role % 2) {
                CHECK(rig.client.remove(rig.primary, kInode, stripe).result == 0);
                rig.content.erase(stripe);
                rig.present.erase(stripe);
                REQUIRE(rig.write(stripe, rig.random_bytes(4096)) == 4096);
            }
            rig.revive(rig.set[role]);
            rig.until_clean();
            rig.c.turns(200);  // recovery counts as done before the last chunk is stable
            rig.check_chunks();
            until_forgotten(rig);
        }
    }
}

// Seed 2006448 of the simulator: an OSD lost power, had the old chunk again, and the new object had taken the places of all tombstones.
TEST_CASE("EC: mode none: an object is created again when its delete is durable") {
    EcRig rig(kEcSchemes[0], {{"tombstone_interval", "0"}, {"autosync_interval", "0"}, {"autosync_writes", "0"}}, wire::ImmediateCommit::none);
    REQUIRE(rig.write(0, rig.random_bytes(4096)) == 4096);
    REQUIRE(rig.client.simple(1, wire::Opcode::sync).result == 0);
    rig.c.turns(150);
    REQUIRE(rig.client.remove(1, kInode, 0).result == 0);
    rig.content.clear();
    rig.present.clear();
    rig.c.disks[3].hold_syncs = true;
    const std::vector<uint8_t> bytes = rig.random_bytes(4096);
    auto again = rig.client.start_write(1, kInode, 0, bytes);
    rig.c.turns(200);
    CHECK(!again->done);
    CHECK(disks_are_empty(rig));
    for (OsdNum osd = 1; osd <= 3; osd++) CHECK(rig.c.disks[osd].tombstones.size() == 1);
    rig.c.disks[3].hold_syncs = false;
    CHECK(rig.client.wait(again).result == 4096);
    // What a SYNC has covered needs no other one; nor does an object that has no tombstone.
    REQUIRE(rig.client.remove(1, kInode, 0).result == 0);
    REQUIRE(rig.client.simple(1, wire::Opcode::sync).result == 0);
    const uint64_t syncs = rig.c.disks[3].syncs;
    REQUIRE(rig.write(0, bytes) == 4096);
    REQUIRE(rig.client.remove(1, kInode, 0).result == 0);
    REQUIRE(rig.write(rig.span(), bytes) == 4096);
    CHECK(rig.c.disks[3].syncs == syncs);
    // A primary that finds tombstones does not know.
    rig.kill(1);
    rig.until_active();
    REQUIRE(rig.client.write(2, kInode, 0, bytes).result == 4096);
    CHECK(rig.c.disks[3].syncs > syncs);
}

TEST_CASE("EC: a new object that is rolled back gives its tombstone back") {
    EcRig rig(kEcSchemes[1], {{"tombstone_interval", "0"}});
    const uint32_t span = static_cast<uint32_t>(rig.span());
    REQUIRE(rig.write(0, rig.random_bytes(span)) == span);
    rig.kill(rig.set[3]);
    rig.until_active();
    CHECK(rig.client.remove(rig.primary, kInode, 0).result == 0);
    const OsdNum full = rig.set[2];
    rig.c.disks[full].fault = [](const store::Operation& op) { return op.op == store::StoreOp::write ? -ENOSPC : 0; };
    CHECK(rig.client.write(rig.primary, kInode, 0, rig.random_bytes(span)).result == -ENOSPC);
    rig.c.disks[full].fault = nullptr;
    for (uint32_t role = 0; role < 3; role++) CHECK(rig.c.disks[rig.set[role]].tombstones.size() == 1);
    rig.revive(rig.set[3]);
    rig.until_clean();
    CHECK(disks_are_empty(rig));
    until_forgotten(rig);
}

// Seed 4007 of the simulator: the tombstone of what was rolled back stood in the way of the next attempt, if the primary itself was full.
TEST_CASE("EC: a new object that has no room on some OSD is tried again and again without a new peering") {
    for (const bool deleted : {false, true}) {
        for (const uint32_t role : {0u, 2u}) {
            CAPTURE(deleted);
            CAPTURE(role);
            EcRig rig(kEcSchemes[1], {{"tombstone_interval", "3600"}});
            const uint32_t span = static_cast<uint32_t>(rig.span());
            if (deleted) {
                REQUIRE(rig.write(0, rig.random_bytes(span)) == span);
                REQUIRE(rig.client.remove(rig.primary, kInode, 0).result == 0);
                rig.content.clear();
                rig.present.clear();
            }
            const OsdNum full = rig.set[role];
            rig.c.disks[full].fault = [](const store::Operation& op) { return op.op == store::StoreOp::write ? -ENOSPC : 0; };
            const uint64_t epoch = rig.c.epoch;
            for (int i = 0; i < 3; i++) {
                CHECK(rig.client.write(rig.primary, kInode, 0, rig.random_bytes(span)).result == -ENOSPC);
                CHECK(rig.client.write(rig.primary, kInode, kGranule, rig.random_bytes(kGranule)).result == -ENOSPC);
            }
            CHECK(rig.state() == ps::active);
            CHECK(rig.c.epoch == epoch);
            for (uint32_t other = 0; other < 4; other++) CHECK(rig.c.disks[rig.set[other]].tombstones.size() == (deleted ? 1 : 0));
            rig.c.disks[full].fault = nullptr;
            CHECK(rig.client.write(rig.primary, kInode, 0, rig.random_bytes(span)).result == span);
            CHECK(rig.state() == ps::active);
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
// Bad copies: reads that meet them, SCRUB of an object, scrub of a PG. Semantics 3.3.4, 12.
#include <doctest/doctest.h>

#include "ec_rig.hpp"
#include "harness.hpp"

using namespace vitastor;
using namespace vitastor::test;

namespace {

constexpr uint32_t kBad = wire::DescribeItem::kCorrupted, kDiffer = wire::DescribeItem::kInconsistent;
constexpr uint64_t kBlock = 131072;

ClusterOptions options_of(uint32_t copies, bool recover) {
    ClusterOptions options;
    options.pg_size = copies;
    if (recover) {
        options.settings.erase("no_recovery");
        options.settings.erase("no_rebalance");
    }
    return options;
}

std::vector<uint8_t>& bytes_of(Cluster& c, OsdNum osd, const ObjectId& object) {
    return c.disks[osd].objects[object].rbegin()->second.data;
}

/// Flags by OSD, of the one unclean object.
std::map<OsdNum, uint32_t> flags_of(Client& client, OsdNum primary) {
    std::map<OsdNum, uint32_t> flags;
    for (const wire::DescribeItem& item : client.describe(primary).items) flags[item.osd] = item.flags;
    return flags;
}

bool all_equal(Cluster& c, std::vector<OsdNum> osds, const ObjectId& object) {
    for (OsdNum osd : osds) {
        if (bytes_of(c, osd, object) != bytes_of(c, osds[0], object)) return false;
    }
    return true;
}

void scrub_pg(Cluster& c, OsdNum primary) { c.node(primary).post(engine::ScrubPg{{1, 1}, c.interval}); }

}  // namespace

TEST_CASE("a read that meets a bad copy is served from a good one, and the copy is repaired") {
    for (int64_t error : {-EDOM, -EIO}) {
        CAPTURE(error);
        Cluster c(options_of(2, true));
        activate(c, 1, {1, 2});
        Client client(c, 0);
        client.write(1, kInode, 0, block(7));
        bytes_of(c, 1, kFirst).assign(kBlock, 0xee);
        bool bad = true;
        c.disks[1].fault = [&](const store::Operation& op) -> int64_t {
            if (op.object == kFirst && op.op == store::StoreOp::write_stable) bad = false;
            return op.object == kFirst && op.op == store::StoreOp::read && bad ? error : 0;
        };
        CHECK(client.read(1, kInode, 0, 4096).data == block(7));
        c.until("repair", [&] { return !bad && c.node(1).state(1) == ps::active; });
        CHECK(all_equal(c, {1, 2}, kFirst));
        CHECK(client.read(1, kInode, 0, 4096).data == block(7));
        CHECK(client.describe(1).result == 0);
    }
}

TEST_CASE("when no copy can be read the client gets EIO, and whole new data heals the object") {
    Cluster c(options_of(2, false));
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(7));
    for (OsdNum osd : {1, 2}) {
        c.disks[osd].fault = [](const store::Operation& op) -> int64_t { return op.op == store::StoreOp::read ? -EDOM : 0; };
    }
    CHECK(client.read(1, kInode, 0, 4096).result == -EIO);
    CHECK(c.node(1).state(1) == (ps::active | ps::has_incomplete | ps::has_corrupted));
    CHECK(client.write(1, kInode, 0, block(8)).result == -EIO);
    for (OsdNum osd : {1, 2}) c.disks[osd].fault = nullptr;
    CHECK(client.write(1, kInode, 0, block(9, kBlock)).result == static_cast<int64_t>(kBlock));
    until_state(c, 1, ps::active);
    CHECK(client.read(1, kInode, 0, 4096).data == block(9));
}

TEST_CASE("scrub of a PG finds silent corruption by comparing three copies, and recovery repairs it") {
    Cluster c(options_of(3, true));
    activate(c, 1, {1, 2, 3});
    Client client(c, 0);
    for (uint64_t i = 0; i < 20; i++) client.write(1, kInode, i * kBlock, block(static_cast<uint8_t>(i + 1)));
    const ObjectId own{kInode, 3 * kBlock}, other{kInode, 11 * kBlock};
    bytes_of(c, 1, own)[5000] ^= 1;
    bytes_of(c, 3, other)[0] ^= 0x80;
    scrub_pg(c, 1);
    c.until("scrub", [&] { return c.node(1).scrubbed == 1; });
    until_state(c, 1, ps::active);
    CHECK(all_equal(c, {1, 2, 3}, own));
    CHECK(all_equal(c, {1, 2, 3}, other));
    CHECK(bytes_of(c, 3, other)[0] == 12);
    CHECK(client.describe(1).result == 0);
}

TEST_CASE("two copies that differ stay inconsistent until a person deletes one") {
    Cluster c(options_of(2, true));
    activate(c, 1, {1, 2});
    Client client(c, 0);
    client.write(1, kInode, 0, block(7));
    client.write(1, kInode, kBlock, block(8));
    bytes_of(c, 2, kFirst)[100] = 1;
    scrub_pg(c, 1);
    c.until("scrub", [&] { return c.node(1).scrubbed == 1; });
    until_state(c, 1, ps::active | ps::has_inconsistent);
    CHECK(flags_of(client, 1) == std::map<OsdNum, uint32_t>{{1, kDiffer}, {2, kDiffer}});
    CHECK(client.read(1, kInode, 0, 4096).data == block(7));
    // A write to another part decides nothing.
    CHECK(client.write(1, kInode, 8192, block(9)).result == 4096);
    CHECK(bytes_of(c, 2, kFirst)[100] == 1);
    CHECK(bytes_of(c, 1, kFirst)[100] == 7);
    CHECK(bytes_of(c, 2, kFirst)[8192] == 9);
    CHECK(c.node(1).state(1) == (ps::active | ps::has_inconsistent));
    // What vitastor-cli fix does: the copy goes, the object is scrubbed.
    c.disks[2].objects.erase(kFirst);
    CHECK(client.scrub(1, kInode, 0).result == 0);
    until_state(c, 1, ps::active);
    CHECK(all_equal(c, {1, 2}, kFirst));
    CHECK(bytes_of(c, 2, kFirst)[100] == 7);
    CHECK(client.describe(1).result == 0);
}

TEST_CASE("without scrub_find_best the majority decides nothing") {
    ClusterOptions options = options_of(3, true);
    options.settings["scrub_find_best"] = "0";
    Cluster c(options);
    activate(c, 1, {1, 2, 3});
    Client client(c, 0);
    client.write(1, kInode, 0, block(7));
    bytes_of(c, 2, kFirst)[100] = 1;
    CHECK(client.scrub(1, kInode, 0).result == 0);
    until_state(c, 1, ps::active | ps::has_inconsistent);
    CHECK(flags_of(client, 1) == std::map<OsdNum, uint32_t>{{1, kDiffer}, {2, kDiffer}, {3, kDiffer}});
    bytes_of(c, 2, kFirst)[100] = 7;
    CHECK(client.scrub(1, kInode, 0).result == 0);
    until_state(c, 1, ps::active);
}

TEST_CASE("scrub finds missing and unreadable copies") {
    Cluster c(options_of(3, false));
    activate(c, 1, {1, 2, 3});
    Client client(c, 0);
    client.write(1, kInode, 0, block(7));
    c.disks[2].objects.erase(kFirst);
    c.disks[3].fault = [](const store::Operation& op) -> int64_t { return op.op == store::StoreOp::read ? -EDOM : 0; };
    CHECK(client.scrub(1, kInode, 0).result == 0);
    CHECK(c.node(1).state(1) == (ps::active | ps::has_degraded | ps::has_corrupted));
    CHECK(flags_of(client, 1) == std::map<OsdNum, uint32_t>{{1, 0}, {3, kBad}});
    c.disks[3].fault = nullptr;
    c.node(1).post(engine::Settings{{{"no_recovery", "0"}}});
    until_state(c, 1, ps::active);
    CHECK(all_equal(c, {1, 2, 3}, kFirst));
}

TEST_CASE("scrub goes on in short listings, pauses with no_scrub, and goes on after a new peering") {
    ClusterOptions options = options_of(2, false);
    options.settings["scrub_list_limit"] = "7";
    options.settings["scrub_queue_depth"] = "3";
    options.settings["no_scrub"] = "1";
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    constexpr int kObjects = 30;
    for (uint64_t i = 0; i < kObjects; i++) client.write(1, kInode, i * kBlock, block(1));
    std::map<ObjectId, int> reads;
    int stop_at = 0, seen = 0;
    c.disks[2].fault = [&](const store::Operation& op) -> int64_t {
        if (op.op != store::StoreOp::read) return 0;
        reads[op.object]++;
        if (++seen == stop_at) c.node(1).post(engine::Settings{{{"no_scrub", "1"}}});
        return 0;
    };
    scrub_pg(c, 1);
    c.turns(150);
    CHECK(reads.empty());
    CHECK(c.node(1).state(1) == ps::active);
    stop_at = 10;
    c.node(1).post(engine::Settings{{{"no_scrub", "0"}}});
    c.until("the pause", [&] { return seen >= 10 && c.node(1).state(1) == ps::active; });
    c.turns(150);
    const int before = seen;
    CHECK(before <= 10 + 3);
    CHECK(c.node(1).scrubbed == 0);
    // A new interval of the same PG: control asks again, and what was seen is not read again.
    c.node(1).post(engine::Settings{{{"no_scrub", "0"}}});
    c.until("the end", [&] { return c.node(1).scrubbed == 1; });
    CHECK(reads.size() == kObjects);
    for (const auto& [object, times] : reads) CHECK(times <= 2);
    CHECK(seen <= kObjects + 3);
    CHECK(c.node(1).state(1) == ps::active);
    // Each object once again, from the beginning.
    reads.clear();
    scrub_pg(c, 1);
    c.until("the second scrub", [&] { return c.node(1).scrubbed == 2; });
    CHECK(reads.size() == kObjects);
}

TEST_CASE("a PG that stops being active ends its scrub; deleted objects are left out") {
    ClusterOptions options = options_of(2, false);
    options.settings["scrub_sleep"] = "20";
    Cluster c(options);
    activate(c, 1, {1, 2});
    Client client(c, 0);
    for (uint64_t i = 0; i < 50; i++) client.write(1, kInode, i * kBlock, block(1));
    scrub_pg(c, 1);
    c.until("scrubbing", [&] { return c.node(1).state(1) == (ps::active | ps::scrubbing); });
    for (uint64_t i = 0; i < 50; i++) CHECK(client.remove(1, kInode, i * kBlock).result == 0);
    c.stop_pg(1);
    CHECK(c.node(1).scrubbed == 0);
    activate(c, 1, {1, 2});
    scrub_pg(c, 1);
    c.until("an empty scrub", [&] { return c.node(1).scrubbed == 1; });
    CHECK(client.describe(1).result == 0);
}

// ------------------------------------------------------------------ erasure-coded

namespace {

std::vector<uint8_t>& chunk_of(EcRig& rig, uint64_t stripe, uint32_t role) {
    return rig.c.disks[rig.set[role]].objects[{kInode, stripe | role}].rbegin()->second.data;
}

void scrub_all(EcRig& rig) {
    const int before = rig.c.node(rig.primary).scrubbed;
    scrub_pg(rig.c, rig.primary);
    rig.c.until("scrub", [&] { return rig.c.node(rig.primary).scrubbed == before + 1; });
}

}  // namespace

TEST_CASE("EC: a scrub finds the wrong chunk of any role by what fits together, and it is repaired") {
    for (const EcScheme& scheme : {kEcSchemes[1], kEcSchemes[2]}) {
        CAPTURE(scheme.name);
        EcRig rig(scheme);
        for (uint32_t i = 0; i < 3; i++) rig.write(i * rig.span(), rig.random_bytes(static_cast<uint32_t>(rig.span())));
        rig.c.turns(150);  // stable
        for (uint32_t role = 0; role < scheme.data + scheme.parity; role++) {
            CAPTURE(role);
            chunk_of(rig, (role % 3) * rig.span(), role)[role * 1000 + 5] ^= 0x10;
            scrub_all(rig);
            rig.until_clean();
            rig.c.turns(200);
            rig.check_chunks();
        }
        CHECK(rig.client.describe(rig.primary).result == 0);
        for (uint32_t i = 0; i < 3; i++) rig.check_read(i * rig.span(), static_cast<uint32_t>(rig.span()));
    }
}

TEST_CASE("EC: with one parity chunk a difference shows, and nobody can tell which chunk is wrong until one is deleted") {
    EcRig rig(kEcSchemes[0]);
    rig.write(0, rig.random_bytes(static_cast<uint32_t>(rig.span())));
    rig.c.turns(150);  // stable
    chunk_of(rig, 0, 1)[77] ^= 1;
    scrub_all(rig);
    rig.c.until("inconsistent", [&] { return rig.state() == (ps::active | ps::has_inconsistent); });
    Reply found = rig.client.describe(rig.primary);
    CHECK(found.result == 3);
    for (const wire::DescribeItem& item : found.items) CHECK(item.flags == kDiffer);
    // A small write does not hide it.
    CHECK(rig.write(kGranule * 4, rig.random_bytes(kGranule)) == kGranule);
    CHECK(rig.state() == (ps::active | ps::has_inconsistent));
    rig.c.turns(150);
    rig.c.disks[rig.set[1]].objects.erase({kInode, 1});
    CHECK(rig.client.scrub(rig.primary, kInode, 0).result == 0);
    rig.until_clean();
    rig.c.turns(200);
    rig.check_chunks();
    CHECK(rig.client.describe(rig.primary).result == 0);
}

TEST_CASE("EC: unreadable and missing chunks are found and rebuilt; without a chunk to spare nothing is compared") {
    EcRig rig(kEcSchemes[1]);
    rig.write(0, rig.random_bytes(static_cast<uint32_t>(rig.span())));
    rig.c.disks[rig.set[2]].objects.erase({kInode, 2});
    rig.c.disks[rig.set[3]].fault = [&](const store::Operation& op) -> int64_t {
        return op.op == store::StoreOp::read ? -EDOM : 0;
    };
    CHECK(rig.client.scrub(rig.primary, kInode, 0).result == 0);
    rig.until_clean();
    rig.c.disks[rig.set[3]].fault = nullptr;
    rig.c.turns(200);
    rig.check_chunks();
    CHECK(rig.client.scrub(rig.primary, kInode, rig.span()).result == -ENOENT);
}

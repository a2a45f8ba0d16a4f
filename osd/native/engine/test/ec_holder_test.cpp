// SPDX-License-Identifier: GPL-2.0-or-later
// Reads of chunks from the OSDs that hold them (docs/adr/0049): what the primary would answer, or a refusal.
#include <doctest/doctest.h>

#include "ec_rig.hpp"

using namespace vitastor;
using namespace vitastor::test;
using wire::ImmediateCommit;

namespace {

struct LocalRig : EcRig {
    explicit LocalRig(const EcScheme& scheme, const std::map<std::string, std::string>& settings = {},
                      ImmediateCommit mode = ImmediateCommit::all, uint32_t spares = 0)
        : EcRig(scheme, settings, mode, spares, true) {}
    OsdNum holder(uint64_t offset) const { return set[offset % span() / kChunk]; }
    Reply read(uint64_t offset, uint32_t len = kGranule) { return client.read(holder(offset), kInode, offset, len); }
    /// The holder's answer is the primary's.
    void check_same(uint64_t offset, uint32_t len = kGranule) {
        CAPTURE(offset);
        const Reply own = read(offset, len), other = client.read(primary, kInode, offset, len);
        CHECK(own.result == len);
        CHECK(own.data == other.data);
        CHECK(own.version == other.version);
        CHECK(own.bitmap == other.bitmap);
    }
    void until_read(uint64_t offset) {
        c.until("the holder answers", [&] { return read(offset).result == kGranule; });
    }
};

}  // namespace

TEST_CASE("EC local reads: the chunk's holder answers in one round trip, nobody else does") {
    for (const EcScheme& scheme : kEcSchemes) {
        CAPTURE(scheme.name);
        LocalRig rig(scheme);
        const uint32_t span = static_cast<uint32_t>(rig.span());
        REQUIRE(rig.write(0, rig.random_bytes(span)) == span);
        REQUIRE(rig.write(span + 8192, rig.random_bytes(4096)) == 4096);
        rig.c.turns(150);
        for (uint64_t offset = 0; offset < 3 * rig.span(); offset += kChunk / 2) {  // the third object does not exist
            rig.check_same(offset);
            rig.check_same(offset + 4096, 16384);
            const uint64_t start = rig.c.world->now_ns();
            REQUIRE(rig.read(offset).result == 4096);
            CHECK(rig.c.world->now_ns() - start < 3 * rig.c.options.latency_ns);
        }
        rig.check_same(0, kChunk);
        for (uint32_t role = 1; role < rig.set.size(); role++) {
            CAPTURE(role);
            for (uint32_t chunk = 0; chunk < scheme.data; chunk++) {
                if (chunk != role) CHECK(rig.client.read(rig.set[role], kInode, chunk * kChunk, 4096).result == -EPIPE);
            }
            CHECK(rig.client.read(rig.set[role], kInode, kChunk - 4096, 8192).result == -EPIPE);
            CHECK(rig.client.read(rig.set[role], kInode, role * kChunk, 0).result == -EPIPE);
            CHECK(rig.client.write(rig.set[role], kInode, 0, block(1)).result == -EPIPE);
        }
    }
}

TEST_CASE("EC local reads: a client of 3.0.8 that asks by an old map is sent to the primary in its own words") {
    LocalRig rig(kEcSchemes[0]);
    REQUIRE(rig.write(0, rig.random_bytes(2 * kChunk)) == 2 * kChunk);
    rig.until_read(kChunk);
    Client old(rig.c, 0, 0);
    CHECK(old.read(rig.holder(kChunk), kInode, kChunk, kGranule).result == -EPIPE);
    REQUIRE(rig.write(kChunk, rig.random_bytes(4096)) == 4096);
    CHECK(old.read(rig.holder(kChunk), kInode, kChunk, kGranule).result == -EPIPE);
    CHECK(rig.read(kChunk).result == -EAGAIN);
}

TEST_CASE("EC local reads: an unstable version is the primary's to judge") {
    for (auto mode : {ImmediateCommit::all, ImmediateCommit::none}) {
        LocalRig rig(kEcSchemes[0], {{"autosync_interval", "0"}, {"autosync_writes", "0"}}, mode);
        REQUIRE(rig.write(0, rig.random_bytes(2 * kChunk)) == 2 * kChunk);
        REQUIRE(rig.client.simple(1, wire::Opcode::sync).result == 0);
        rig.c.turns(150);
        rig.check_same(kChunk);
        REQUIRE(rig.write(kChunk, rig.random_bytes(4096)) == 4096);
        CHECK(rig.read(kChunk).result == -EAGAIN);
        rig.check_read(kChunk, 4096);
        if (mode == ImmediateCommit::none) {
            rig.c.turns(200);
            CHECK(rig.read(kChunk).result == -EAGAIN);  // nothing has made it durable
            REQUIRE(rig.client.simple(1, wire::Opcode::sync).result == 0);
        }
        rig.c.turns(150);
        rig.check_same(kChunk);
        // A version that is being written and that nobody can have seen: it may be rolled back.
        auto& disk = rig.c.disks[3];
        disk.hold = true;
        auto writing = rig.client.start_write(1, kInode, kChunk, rig.random_bytes(4096));
        rig.c.turns(5);
        CHECK(!writing->done);
        CHECK(rig.read(kChunk).result == -EAGAIN);
        disk.hold = false;
        CHECK(rig.client.wait(writing).result == 4096);
    }
}

TEST_CASE("EC local reads: what is missing may be a delete under way") {
    LocalRig rig(kEcSchemes[0], {{"tombstone_interval", "0"}});
    REQUIRE(rig.write(0, rig.random_bytes(2 * kChunk)) == 2 * kChunk);
    rig.c.turns(150);
    rig.check_same(kChunk);
    auto& disk = rig.c.disks[3];  // the parity: the delete cannot end
    disk.hold = true;
    auto removing = rig.client.start_remove(1, kInode, 0);
    rig.c.turns(5);
    CHECK(!removing->done);
    CHECK(!rig.c.disks[2].objects.contains({kInode, 1}));
    CHECK(rig.read(kChunk).result == -EAGAIN);
    disk.hold = false;
    CHECK(rig.client.wait(removing).result == 0);
    rig.content.clear();
    rig.present.clear();
    rig.until_read(kChunk);  // once the tombstones are forgotten
    CHECK(rig.c.disks[2].tombstones.empty());
    rig.check_same(kChunk);
}

TEST_CASE("EC local reads: a delete without a tombstone") {
    LocalRig rig(kEcSchemes[0], {{"tombstones", "0"}});
    for (uint64_t offset : {uint64_t{0}, rig.span()}) REQUIRE(rig.write(offset, rig.random_bytes(4096)) == 4096);
    rig.c.turns(150);
    rig.check_same(kChunk);
    rig.check_same(5 * rig.span() + kChunk);
    CHECK(rig.client.remove(1, kInode, 0).result == 0);
    CHECK(rig.read(kChunk).result == -EAGAIN);
    CHECK(rig.read(5 * rig.span() + kChunk).result == -EAGAIN);  // whatever is missing
    rig.check_same(rig.span() + kChunk);
    rig.c.stop_pg(1);
    rig.primary = 0;
    rig.elect();
    rig.until_clean();
    rig.until_read(kChunk);
    CHECK(rig.read(kChunk).version == 0);
}

TEST_CASE("EC local reads: a bad chunk is the primary's, which repairs it") {
    LocalRig rig(kEcSchemes[0]);
    rig.c.options.settings.erase("no_recovery");
    REQUIRE(rig.write(0, rig.random_bytes(2 * kChunk)) == 2 * kChunk);
    rig.c.turns(150);
    bool bad = true;
    rig.c.disks[2].fault = [&](const store::Operation& op) -> int64_t {
        if (op.op == store::StoreOp::write) bad = false;
        return op.op == store::StoreOp::read && bad ? -EDOM : 0;
    };
    CHECK(rig.read(kChunk).result == -EAGAIN);
    rig.check_read(kChunk, 4096);
    CHECK((rig.state() & (ps::has_corrupted | ps::has_degraded)) != 0);
    rig.c.turns(5);
    if (rig.state() != ps::active) CHECK(rig.read(kChunk).result == -EPIPE);  // nobody answers for the PG but its primary
    REQUIRE(rig.write(kChunk, rig.random_bytes(4096)) == 4096);
    rig.until_clean();
    rig.until_read(kChunk);
    rig.check_same(kChunk);
}

TEST_CASE("EC local reads: only while the PG is clean, and only what the primary said last") {
    LocalRig rig(kEcSchemes[0], {}, ImmediateCommit::all, 1);
    REQUIRE(rig.write(0, rig.random_bytes(2 * kChunk)) == 2 * kChunk);
    rig.c.turns(150);
    rig.check_same(kChunk);
    rig.kill(3);
    rig.until_active();
    CHECK(rig.read(kChunk).result == -EPIPE);
    REQUIRE(rig.write(kChunk, rig.random_bytes(4096)) == 4096);
    CHECK(rig.read(kChunk).result == -EPIPE);
    rig.check_read(kChunk, 4096);
    rig.revive(3);
    REQUIRE(rig.write(0, rig.random_bytes(2 * kChunk)) == 2 * kChunk);
    rig.until_clean();
    rig.until_read(kChunk);
    rig.check_same(kChunk);
    // Roles move: a client that follows an older map asks for a chunk that lies elsewhere now.
    rig.c.history_sets = {rig.set};
    rig.c.all_peers = {1, 2, 3, 4};
    rig.c.stop_pg(1);
    rig.primary = 0;
    rig.set = {1, 3, 2};
    rig.elect();
    rig.until_active();
    REQUIRE(rig.write(0, rig.random_bytes(2 * kChunk)) == 2 * kChunk);
    rig.until_clean();
    rig.until_read(kChunk);
    rig.check_same(kChunk);
    CHECK(rig.client.read(2, kInode, kChunk, 4096).result == -EPIPE);
    // Somebody else is going to lead the PG: what the primary of then said counts no more.
    Client other(rig.c, 9);
    wire::ListRequest list = whole_pool();
    list.pg_stripe_size = rig.span();
    CHECK(other.list(3, list).result >= 0);
    CHECK(rig.read(kChunk).result == -EPIPE);
}

TEST_CASE("EC local reads: layers of a chain, all from the holder") {
    LocalRig rig(kEcSchemes[0], {{"autosync_interval", "0"}});
    const InodeNum base = full_inode(1, 2), child = full_inode(1, 3);
    for (auto& [osd, node] : rig.c.nodes) node->post(engine::Inodes{{{base, 0, 10}, {child, base, 20}}});
    for (uint64_t at : {uint64_t{0}, uint64_t{kChunk}}) {
        REQUIRE(rig.client.write(1, base, at, block(1, 8192)).result == 8192);
        REQUIRE(rig.client.write(1, child, at + 4096, block(2)).result == 4096);
    }
    rig.c.turns(150);
    for (uint64_t at : {uint64_t{0}, uint64_t{kChunk}}) {
        const Reply own = rig.client.read(rig.holder(at), child, at, 16384, 20), other = rig.client.read(1, child, at, 16384, 20);
        CHECK(own.result == 16384);
        CHECK(own.data == other.data);
        CHECK(own.bitmap == other.bitmap);
        CHECK(own.version == other.version);
        CHECK(own.data[0] == 1);
        CHECK(own.data[4096] == 2);
    }
    CHECK(rig.client.read(2, child, kChunk, 4096, 19).result == -EPIPE);
    // One layer of it is not stable.
    REQUIRE(rig.client.write(1, base, kChunk, block(3)).result == 4096);
    CHECK(rig.client.read(2, child, kChunk, 4096, 20).result == -EAGAIN);
    rig.c.turns(150);
    CHECK(rig.client.read(2, child, kChunk, 4096, 20).data == block(3));
}

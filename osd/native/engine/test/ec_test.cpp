// SPDX-License-Identifier: GPL-2.0-or-later
// Erasure-coded pools: content, parity and bitmaps against an oracle, with chunks lost, bad and refused, and with every process
// killed after every single event of a write. Round trips are counted. Semantics 3.2, 3.3, 8, 9, 14; safety 5, 7, 10.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "ec_rig.hpp"

using namespace vitastor;
using namespace vitastor::test;

namespace {
constexpr uint32_t kObjects = 3;

unsigned long probe_hits(const char* probe) {
    std::pair<const char*, unsigned long> found{probe, 0};
    visit_probes([](void* arg, const char* name, unsigned long count) {
        auto& [wanted, hits] = *static_cast<std::pair<const char*, unsigned long>*>(arg);
        if (std::strcmp(name, wanted) == 0) hits = count;
    }, &found);
    return found.second;
}

struct Range {
    uint64_t offset;
    uint32_t len;
};

/// Mostly small, sometimes a chunk, a row of chunks, the object.
Range random_range(EcRig& rig) {
    const uint64_t object = rig.pick(kObjects) * rig.span();
    const uint32_t granules = static_cast<uint32_t>(rig.span() / kGranule);
    switch (rig.pick(8)) {
        case 0:
            return {object, static_cast<uint32_t>(rig.span())};
        case 1:
            return {object + rig.pick(rig.scheme.data) * kChunk, kChunk};
        case 2: {
            const uint32_t first = rig.pick(granules), len = 1 + rig.pick(granules - first);
            return {object + first * kGranule, len * kGranule};
        }
        default: {
            const uint32_t first = rig.pick(granules), len = 1 + rig.pick(std::min(3u, granules - first));
            return {object + first * kGranule, len * kGranule};
        }
    }
}

void write_some(EcRig& rig, int count) {
    for (int i = 0; i < count; i++) {
        const Range range = random_range(rig);
        REQUIRE(rig.write(range.offset, rig.random_bytes(range.len)) == range.len);
        const Range other = random_range(rig);
        rig.check_read(other.offset, other.len);
    }
}

void read_all(EcRig& rig) {
    for (uint32_t i = 0; i < kObjects; i++) {
        rig.check_read(i * rig.span(), static_cast<uint32_t>(rig.span()));
        rig.check_read(i * rig.span(), 0);
        for (uint32_t chunk = 0; chunk < rig.scheme.data; chunk++) rig.check_read(i * rig.span() + chunk * kChunk + 8192, 12288);
    }
}
}  // namespace

TEST_CASE("EC: random writes and reads while chunks are lost and come back") {
    for (const EcScheme& scheme : kEcSchemes) {
        CAPTURE(scheme.name);
        EcRig rig(scheme, {}, wire::ImmediateCommit::all, 1);
        write_some(rig, 20);
        rig.check_chunks();
        for (int round = 0; round < 6; round++) {
            while (rig.down.size() < scheme.parity) {
                OsdNum victim = 0;
                while (victim == 0 || !rig.up(victim)) victim = rig.set[rig.pick(static_cast<uint32_t>(rig.set.size()))];
                rig.kill(victim);
                if (rig.down.size() < scheme.parity && rig.pick(2)) break;
                rig.until_active();
                while (rig.pick(3)) {
                    write_some(rig, 2);
                    rig.c.turns(5);
                }
            }
            rig.until_active();
            read_all(rig);
            write_some(rig, 10);
            if (round % 2) {  // the lost ones' places go to others; objects move
                std::rotate(rig.set.begin(), rig.set.begin() + 1, rig.set.end());
                rig.settle_history();
                std::vector<OsdNum> old = rig.set;
                std::rotate(old.begin(), old.end() - 1, old.end());
                rig.c.history_sets.push_back(old);
                rig.elect();
                rig.until_active();
                read_all(rig);
                write_some(rig, 5);
            }
            while (!rig.down.empty()) rig.revive(*rig.down.begin());
            rig.until_active();
            write_some(rig, 5);
            rig.until_clean();
            read_all(rig);
            rig.c.turns(200);
            rig.check_chunks();
        }
    }
}

TEST_CASE("EC: compare and set") {
    EcRig rig(kEcSchemes[1]);
    CHECK(rig.write(4096, rig.random_bytes(4096), 1) == 4096);
    CHECK(rig.write(4096, rig.random_bytes(4096), 1) == -EINTR);
    const Version version = rig.client.read(1, kInode, 0, 4096).version;
    CHECK(rig.client.write(1, kInode, 0, block(7), version).version == version);
    CHECK(rig.write(0, rig.random_bytes(4096), version + 1) == 4096);
    rig.check_read(0, 8192);
}

TEST_CASE("EC: a bad chunk is rebuilt for the reader, and repaired") {
    for (const EcScheme& scheme : kEcSchemes) {
        CAPTURE(scheme.name);
        EcRig rig(scheme);
        write_some(rig, 5);
        for (uint32_t role = 0; role < scheme.data + scheme.parity; role++) {
            const OsdNum osd = rig.set[role];
            bool bad = true;
            rig.c.disks[osd].fault = [&bad, role](const store::Operation& op) -> int64_t {
                if ((op.object.stripe & kRoleMask) != role) return 0;
                if (op.op == store::StoreOp::write && op.len == kChunk) bad = false;
                return op.op == store::StoreOp::read && bad ? -EDOM : 0;
            };
            read_all(rig);
            write_some(rig, 3);
            rig.until_clean();
            if (role < scheme.data) CHECK(!bad);
            rig.c.disks[osd].fault = nullptr;
            rig.c.turns(200);
            rig.check_chunks();
        }
        // More bad chunks than parity: an error, and nothing is changed.
        const uint64_t stripe = rig.content.begin()->first;
        for (uint32_t role = 0; role <= scheme.parity; role++) {
            rig.c.disks[rig.set[role]].fault = [](const store::Operation& op) -> int64_t {
                return op.op == store::StoreOp::read ? -EDOM : 0;
            };
        }
        CHECK(rig.client.read(rig.primary, kInode, stripe, 4096).result == -EIO);
        for (uint32_t role = 0; role <= scheme.parity; role++) rig.c.disks[rig.set[role]].fault = nullptr;
        rig.check_read(stripe, 4096);
    }
}

TEST_CASE("EC: a full disk: the write is rolled back everywhere and can be repeated") {
    for (const EcScheme& scheme : kEcSchemes) {
        CAPTURE(scheme.name);
        for (uint32_t role = 0; role < scheme.data + scheme.parity; role++) {
            CAPTURE(role);
            EcRig rig(scheme);
            CHECK(rig.write(0, rig.random_bytes(8192)) == 8192);
            rig.c.disks[rig.set[role]].fault = [](const store::Operation& op) -> int64_t {
                return op.op == store::StoreOp::write ? -ENOSPC : 0;
            };
            CHECK(rig.write(4096, rig.random_bytes(4096)) == -ENOSPC);
            CHECK(rig.write(rig.span(), rig.random_bytes(4096)) == -ENOSPC);  // does not exist
            CHECK(rig.state() == ps::active);
            rig.check_read(0, 16384);
            rig.check_read(rig.span(), 4096);
            rig.check_chunks();
            rig.c.disks[rig.set[role]].fault = nullptr;
            CHECK(rig.write(4096, rig.random_bytes(4096)) == 4096);
            CHECK(rig.write(rig.span(), rig.random_bytes(4096)) == 4096);
            rig.check_read(0, 16384);
            rig.c.turns(200);
            rig.check_chunks();
        }
    }
}

TEST_CASE("EC: readers do not wait for a write and see the version before it") {
    EcRig rig(kEcSchemes[2]);
    CHECK(rig.write(0, rig.random_bytes(static_cast<uint32_t>(rig.span()))) == static_cast<int64_t>(rig.span()));
    bool held = false;
    rig.c.disks[3].fault = [&](const store::Operation& op) -> int64_t {
        if (op.op == store::StoreOp::write) held = true;
        return 0;
    };
    std::vector<uint8_t> fresh = rig.random_bytes(static_cast<uint32_t>(rig.span()));
    auto writing = rig.client.start_write(1, kInode, 0, fresh);
    rig.c.until("the second chunk is stored", [&] { return held; });
    CHECK(!writing->done);
    rig.check_read(0, static_cast<uint32_t>(rig.span()));  // old, although some chunks are new
    CHECK(rig.client.wait(writing).result == static_cast<int64_t>(rig.span()));
    rig.content[0] = fresh;
    rig.check_read(0, static_cast<uint32_t>(rig.span()));
}

TEST_CASE("EC: DELETE removes all chunks") {
    for (const EcScheme& scheme : kEcSchemes) {
        EcRig rig(scheme);
        write_some(rig, 5);
        while (!rig.content.empty()) {
            const uint64_t stripe = rig.content.begin()->first;
            CHECK(rig.client.remove(1, kInode, stripe).result == 0);
            rig.content.erase(stripe);
            rig.present.erase(stripe);
        }
        read_all(rig);
        for (auto& [osd, disk] : rig.c.disks) CHECK(disk.objects.empty());
        write_some(rig, 5);
    }
}

namespace {
/// Starts a write over old content, lets `events` events pass, kills the victim, and judges. false: the write had ended long before.
/// settles: the old content is not stable yet, the write takes that along.
bool kill_during_write(const EcScheme& scheme, Range range, bool fresh_object, uint32_t victim_role, int events, bool early, bool settles) {
    EcRig rig(scheme, {{"ec_early_reply", early ? "1" : "0"}});
    int after = 0;
    const uint32_t span = static_cast<uint32_t>(rig.span());
    if (!fresh_object) REQUIRE(rig.write(0, rig.random_bytes(span)) == span);
    if (!settles) rig.c.turns(150);
    std::vector<uint8_t> old = fresh_object ? std::vector<uint8_t>(span) : rig.content[0];
    std::vector<uint8_t> data = rig.random_bytes(range.len), wanted = old;
    std::copy(data.begin(), data.end(), wanted.begin() + static_cast<long>(range.offset));
    auto writing = rig.client.start_write(1, kInode, range.offset, data);
    for (int i = 0; i < events; i++) {
        if (writing->done && ++after > 30) return false;
        rig.c.world->step();
    }
    rig.kill(rig.set[victim_role]);
    Reply reply = rig.client.wait(writing);
    if (reply.result < 0) REQUIRE(reply.result == -EPIPE);
    rig.until_active();
    Reply seen = rig.client.read(rig.primary, kInode, 0, span);
    REQUIRE(seen.result == span);
    const bool is_new = seen.data == wanted;
    REQUIRE((is_new || seen.data == old));
    if (reply.result >= 0) REQUIRE(is_new);
    rig.revive(rig.set[victim_role]);
    rig.until_clean();
    rig.c.turns(200);
    Reply again = rig.client.read(rig.primary, kInode, 0, span);
    REQUIRE(again.data == seen.data);
    if (again.version) {
        rig.content[0] = is_new ? wanted : old;
        if (fresh_object) rig.present[0].clear();
        if (is_new) {
            for (uint64_t at = range.offset; at < range.offset + range.len; at += kGranule) {
                rig.present[0].insert(static_cast<uint32_t>(at / kGranule));
            }
        }
        rig.check_chunks();
    } else {
        REQUIRE(fresh_object);
        for (auto& [osd, disk] : rig.c.disks) CHECK(disk.objects.empty());
    }
    return true;
}
}  // namespace

TEST_CASE("EC: killed after every event of a write, an object is old or new on every role") {
    int total = 0;
    for (const EcScheme& scheme : kEcSchemes) {
        CAPTURE(scheme.name);
        const Range ranges[] = {{4096, 8192}, {kChunk - 4096, 8192}};
        for (const Range& range : ranges) {
            for (int variant = 0; variant < 4; variant++) {
                const bool fresh = variant == 1, early = variant != 2, settles = variant == 3;
                for (uint32_t victim = 0; victim < scheme.data + scheme.parity; victim++) {
                    CAPTURE(victim);
                    int events = 1;
                    // Every event for the narrow codes; larger steps elsewhere keep this within seconds.
                    const int step = (variant == 0 || settles) && scheme.data == 2 ? 1 : 4;
                    while (kill_during_write(scheme, range, fresh, victim, events, early, settles)) events += step;
                    CHECK(events > 10);
                    total += events;
                }
            }
        }
    }
    MESSAGE("crash points: ", total);
}

namespace {
/// Round trips between client and reply, with nothing but the network taking time.
double trips(EcRig& rig, const std::shared_ptr<Reply>& reply, int64_t expected) {
    const uint64_t start = rig.c.world->now_ns();
    CHECK(rig.client.wait(reply).result == expected);
    return static_cast<double>(rig.c.world->now_ns() - start) / static_cast<double>(2 * rig.c.options.latency_ns);
}
/// Versions above the newest stable one, the most that any chunk has.
size_t unstable_versions(EcRig& rig) {
    size_t most = 0;
    for (auto& [osd, disk] : rig.c.disks) {
        for (auto& [object, versions] : disk.objects) {
            size_t count = 0;
            for (auto it = versions.rbegin(); it != versions.rend() && !it->second.stable; ++it) count++;
            most = std::max(most, count);
        }
    }
    return most;
}
}  // namespace

TEST_CASE("EC: round trips") {
    for (const EcScheme& scheme : kEcSchemes) {
        CAPTURE(scheme.name);
        const double k = scheme.data;
        for (bool early : {true, false}) {
            CAPTURE(early);
            for (auto mode : {wire::ImmediateCommit::all, wire::ImmediateCommit::none}) {
                EcRig rig(scheme, {{"ec_early_reply", early ? "1" : "0"}, {"autosync_interval", "0"}, {"autosync_writes", "0"}}, mode);
                const uint32_t span = static_cast<uint32_t>(rig.span());
                REQUIRE(rig.write(0, rig.random_bytes(span)) == span);
                REQUIRE(rig.client.simple(1, wire::Opcode::sync).result == 0);
                double reads = 0, writes = 0, synced = 0;
                for (uint32_t chunk = 0; chunk < scheme.data; chunk++) {
                    reads += trips(rig, rig.client.start_read(1, kInode, chunk * kChunk, 4096), 4096) / k;
                    auto writing = rig.client.start_write(1, kInode, chunk * kChunk + 8192, rig.random_bytes(4096));
                    const double one = trips(rig, writing, 4096);
                    writes += one / k;
                    const uint64_t start = rig.c.world->now_ns();
                    REQUIRE(rig.client.simple(1, wire::Opcode::sync).result == 0);
                    synced += (one + static_cast<double>(rig.c.world->now_ns() - start) / static_cast<double>(2 * rig.c.options.latency_ns)) / k;
                }
                const double whole = trips(rig, rig.client.start_write(1, kInode, 0, rig.random_bytes(span)), span);
                const double created = trips(rig, rig.client.start_write(1, kInode, span, rig.random_bytes(4096)), 4096);
                const bool waits = !early && mode == wire::ImmediateCommit::all;
                CHECK(reads <= 1 + (k - 1) / k + 0.1);
                // Two as with two copies, and one more where neither the own chunk nor those of the row that lie here tell what changes.
                const double fewest = scheme.data == 2 ? 2 : 2 + (k - 1) / k;
                CHECK(writes <= fewest + (waits ? 1.1 : 0.1));
                CHECK(whole <= (waits ? 3.1 : 2.1));
                CHECK(created <= (waits ? 3.1 : 2.1));
                if (mode == wire::ImmediateCommit::none) CHECK(synced <= fewest + (early ? 2.1 : 3.1));
            }
        }
    }
}

TEST_CASE("EC: without short writes a small write reads first") {
    EcRig rig(kEcSchemes[0], {{"ec_short_writes", "0"}});
    REQUIRE(rig.write(0, rig.random_bytes(2 * kChunk)) == 2 * kChunk);
    for (uint64_t offset : {0u, kChunk}) {
        const double taken = trips(rig, rig.client.start_write(1, kInode, offset, rig.random_bytes(4096)), 4096);
        CHECK(taken >= 2.9);
        CHECK(taken <= 3.1);
    }
}

TEST_CASE("EC: messages of a small write") {
    EcRig rig(kEcSchemes[0]);
    REQUIRE(rig.write(0, rig.random_bytes(2 * kChunk)) == 2 * kChunk);
    std::map<store::StoreOp, int> seen;
    for (auto& [osd, disk] : rig.c.disks) {
        disk.fault = [&](const store::Operation& op) -> int64_t {
            seen[op.op]++;
            return 0;
        };
    }
    for (uint64_t offset : {0u, kChunk}) {
        REQUIRE(rig.write(offset, rig.random_bytes(4096)) == 4096);
        CHECK(seen[store::StoreOp::write] == 3);
        CHECK(seen[store::StoreOp::read] == (offset ? 1 : 2));  // the own chunk, for differences the parity as well
        seen.clear();
    }
    for (auto& [osd, disk] : rig.c.disks) disk.fault = nullptr;
    rig.c.turns(150);
    rig.check_chunks();
}

TEST_CASE("EC: a chunk is not what the primary knew: the write goes the long way") {
    for (const EcScheme& scheme : kEcSchemes) {
        CAPTURE(scheme.name);
        for (uint32_t role = 1; role < scheme.data + scheme.parity; role++) {
            CAPTURE(role);
            for (bool missing : {true, false}) {
                CAPTURE(missing);
                EcRig rig(scheme);
                const uint32_t span = static_cast<uint32_t>(rig.span());
                REQUIRE(rig.write(0, rig.random_bytes(span)) == span);
                rig.c.turns(150);
                auto& disk = rig.c.disks[rig.set[role]];
                bool refused = false;
                if (missing) {
                    std::erase_if(disk.objects, [](const auto&) { return true; });
                } else {
                    disk.fault = [&](const store::Operation& op) -> int64_t {
                        refused |= op.op == store::StoreOp::read;
                        return op.op == store::StoreOp::read ? -EDOM : 0;
                    };
                }
                CHECK(rig.write(4096, rig.random_bytes(4096)) == 4096);
                if (!missing) CHECK(refused == (role >= scheme.data));
                disk.fault = nullptr;
                rig.c.turns(200);
                rig.check_chunks();  // the write has healed it
                for (uint32_t at = 0; at < span; at += kChunk / 2) rig.check_read(at, 8192);
            }
        }
    }
}

TEST_CASE("EC: chunks of different versions: no reader gets a mixture, and peering decides") {
    for (const EcScheme& scheme : kEcSchemes) {
        CAPTURE(scheme.name);
        EcRig rig(scheme);
        const uint32_t span = static_cast<uint32_t>(rig.span());
        REQUIRE(rig.write(0, rig.random_bytes(span)) == span);
        rig.c.turns(200);
        // As of a write that was sent by a primary whose place this one has taken, and that came late.
        auto& [object, versions] = *rig.c.disks[rig.set[1]].objects.begin();
        const Version version = versions.rbegin()->first;
        MemoryDisk::Copy late = versions.rbegin()->second;
        for (uint8_t& byte : late.data) byte ^= 0xff;
        late.stable = false;
        versions[version + 1] = late;
        const unsigned long before = probe_hits("chunks of different versions");
        CHECK(rig.client.read(rig.primary, kInode, 0, span).result == -EPIPE);
        CHECK(probe_hits("chunks of different versions") > before);
        rig.check_read(0, span);
        rig.c.turns(200);
        rig.check_chunks();
    }
}

TEST_CASE("EC: versions become stable soon after an early reply, and in any case when the PG stops") {
    for (const EcScheme& scheme : kEcSchemes) {
        CAPTURE(scheme.name);
        EcRig rig(scheme);
        CHECK(rig.write(4096, rig.random_bytes(4096)) == 4096);
        CHECK(unstable_versions(rig) == 1);  // answered before
        rig.c.turns(150);
        CHECK(unstable_versions(rig) == 0);
        rig.check_chunks();
        CHECK(rig.write(0, rig.random_bytes(4096)) == 4096);
        CHECK(rig.write(rig.span(), rig.random_bytes(4096)) == 4096);
        CHECK(unstable_versions(rig) == 1);
        rig.c.stop_pg(1);
        CHECK(unstable_versions(rig) == 0);
        rig.check_chunks();
        rig.primary = 0;
        rig.elect();
        rig.until_clean();
        // Deleted and created again while versions wait.
        CHECK(rig.write(0, rig.random_bytes(4096)) == 4096);
        CHECK(rig.client.remove(1, kInode, 0).result == 0);
        rig.content.erase(0);
        rig.present.erase(0);
        rig.check_read(0, 8192);
        CHECK(rig.write(8192, rig.random_bytes(4096)) == 4096);
        rig.check_read(0, 16384);
        rig.c.turns(150);
        CHECK(rig.state() == ps::active);
        rig.check_chunks();
    }
}

TEST_CASE("EC: the backlog of unstable versions is bounded") {
    for (bool short_writes : {false, true}) {
        CAPTURE(short_writes);
        EcRig rig(kEcSchemes[0], {{"ec_short_writes", short_writes ? "1" : "0"}});
        REQUIRE(rig.write(0, rig.random_bytes(kChunk * 2)) == kChunk * 2);
        std::vector<std::shared_ptr<Reply>> flying;
        size_t most = 0;
        rig.c.after_step = [&] { most = std::max(most, unstable_versions(rig)); };
        for (int i = 0; i < 100; i++) flying.push_back(rig.client.start_write(1, kInode, 4096, block(static_cast<uint8_t>(i))));
        for (auto& reply : flying) CHECK(rig.client.wait(reply).result == 4096);
        rig.c.after_step = nullptr;
        if (short_writes) {
            CHECK(most == 1);  // each write makes the one before it stable
        } else {
            CHECK(most > 1);
        }
        CHECK(most <= 10);
        CHECK(rig.client.read(1, kInode, 4096, 4096).data == block(99));
        rig.c.turns(150);
        CHECK(unstable_versions(rig) == 0);
        CHECK(rig.state() == ps::active);
    }
}

TEST_CASE("EC: a write makes the version before it stable, without a message of its own") {
    for (const EcScheme& scheme : kEcSchemes) {
        CAPTURE(scheme.name);
        EcRig rig(scheme);
        const uint32_t span = static_cast<uint32_t>(rig.span());
        REQUIRE(rig.write(0, rig.random_bytes(span)) == span);
        int stabilised = 0;
        for (auto& [osd, disk] : rig.c.disks) {
            disk.fault = [&](const store::Operation& op) -> int64_t {
                stabilised += op.op == store::StoreOp::stabilize;
                return 0;
            };
        }
        for (int i = 0; i < 20; i++) REQUIRE(rig.write(rig.pick(span / kGranule) * kGranule, rig.random_bytes(4096)) == 4096);
        CHECK(stabilised == 0);
        CHECK(unstable_versions(rig) == 1);
        // One that fails somewhere takes nothing along for good or bad: the version before it stays the newest.
        auto& disk = rig.c.disks[rig.set.back()];
        disk.fault = [](const store::Operation& op) -> int64_t { return op.op == store::StoreOp::write ? -ENOSPC : 0; };
        CHECK(rig.write(0, rig.random_bytes(4096)) == -ENOSPC);
        disk.fault = nullptr;
        CHECK(unstable_versions(rig) == 0);
        rig.check_read(0, span);
        rig.check_chunks();
        CHECK(rig.write(0, rig.random_bytes(4096)) == 4096);
        rig.c.turns(150);
        rig.check_chunks();
    }
}

TEST_CASE("EC: mode none: a write is refused when its rollback is durable, for the next one has the same version") {
    EcRig rig(kEcSchemes[0], {{"autosync_interval", "0"}, {"autosync_writes", "0"}}, wire::ImmediateCommit::none);
    REQUIRE(rig.write(0, rig.random_bytes(4096)) == 4096);
    REQUIRE(rig.client.simple(1, wire::Opcode::sync).result == 0);
    rig.c.turns(150);
    rig.c.disks[3].fault = [](const store::Operation& op) -> int64_t { return op.op == store::StoreOp::write ? -ENOSPC : 0; };
    rig.c.disks[2].hold_syncs = true;
    const uint64_t syncs = rig.c.disks[1].syncs;
    auto refused = rig.client.start_write(1, kInode, 0, rig.random_bytes(4096));
    rig.c.turns(200);
    CHECK(rig.c.disks[2].objects[{kInode, 1}].size() == 1);
    CHECK(!refused->done);
    rig.c.disks[2].hold_syncs = false;
    CHECK(rig.client.wait(refused).result == -ENOSPC);
    CHECK(rig.c.disks[1].syncs == syncs + 1);
    rig.c.disks[3].fault = nullptr;
    CHECK(rig.write(0, rig.random_bytes(4096)) == 4096);
    REQUIRE(rig.client.simple(1, wire::Opcode::sync).result == 0);
    rig.check_chunks();
}

TEST_CASE("EC: without immediate_commit versions become stable with a SYNC only") {
    for (auto mode : {wire::ImmediateCommit::none, wire::ImmediateCommit::small}) {
        for (const char* early : {"1", "0"}) {
            CAPTURE(early);
            EcRig rig(kEcSchemes[2], {{"autosync_interval", "0"}, {"autosync_writes", "0"}, {"ec_early_reply", early}}, mode);
            const bool small = mode == wire::ImmediateCommit::small;
            CHECK(rig.write(4096, rig.random_bytes(4096)) == 4096);
            rig.c.turns(150);
            CHECK(unstable_versions(rig) == (small ? 0 : 1));
            CHECK(rig.write(0, rig.random_bytes(kChunk)) == kChunk);
            CHECK(rig.write(kChunk, rig.random_bytes(4096)) == 4096);
            rig.c.turns(150);
            CHECK(unstable_versions(rig) == (small ? 2 : 3));
            rig.check_read(0, 3 * kChunk);
            CHECK(rig.client.simple(1, wire::Opcode::sync).result == 0);
            if (early[0] == '0') CHECK(unstable_versions(rig) == 0);
            rig.c.turns(150);
            CHECK(unstable_versions(rig) == 0);
            rig.check_chunks();
            // A failed SYNC leaves them as they are; a deleted object is not brought up by the next one.
            CHECK(rig.write(4096, rig.random_bytes(4096)) == 4096);
            CHECK(rig.write(0, rig.random_bytes(kChunk)) == kChunk);
            CHECK(rig.write(rig.span(), rig.random_bytes(kChunk)) == kChunk);
            rig.c.disks[1].fault = [](const store::Operation& op) -> int64_t { return op.op == store::StoreOp::sync ? -EIO : 0; };
            CHECK(rig.client.simple(1, wire::Opcode::sync).result == -EIO);
            rig.c.turns(150);
            CHECK(unstable_versions(rig) >= 1);
            rig.c.disks[1].fault = nullptr;
            CHECK(rig.client.remove(1, kInode, 0).result == 0);
            rig.content.erase(0);
            rig.present.erase(0);
            CHECK(rig.client.simple(1, wire::Opcode::sync).result == 0);
            rig.c.turns(150);
            CHECK(unstable_versions(rig) == 0);
            CHECK(rig.state() == ps::active);
            rig.check_chunks();
        }
    }
}

// Seed 5038675 of the simulator: the second SYNC had nothing to ask but the OSD that was lost, no PG that served counted on it, and what
// the first one had not covered became stable on the others: too few chunks of the new version, and none of the old one.
TEST_CASE("EC: a SYNC makes nothing stable in a PG that stops, when it has lost a member") {
    for (auto mode : {wire::ImmediateCommit::none, wire::ImmediateCommit::small}) {
        EcRig rig(kEcSchemes[0], {{"autosync_interval", "0"}, {"autosync_writes", "0"}}, mode);
        Client idle(rig.c, 0);
        CHECK(rig.write(0, rig.random_bytes(kChunk)) == kChunk);
        rig.c.disks[3].hold = true;
        auto write = rig.client.start_write(1, kInode, rig.span(), rig.random_bytes(kChunk));
        auto first = idle.start_simple(1, wire::Opcode::sync);
        rig.c.turns(10);
        auto second = idle.start_simple(1, wire::Opcode::sync);
        rig.c.turns(10);
        rig.c.node(1).post(engine::StopPg{{1, 1}, rig.c.interval});
        rig.c.turns(10);
        rig.c.kill(3);
        CHECK(idle.wait(first).result == -EPIPE);
        idle.wait(second);
        rig.c.turns(200);
        for (OsdNum osd : {1, 2}) {
            CHECK_FALSE(rig.c.disks[osd].objects[{kInode, osd - 1}].rbegin()->second.stable);
        }
    }
}

TEST_CASE("EC: objects move without immediate_commit: old chunks go after a SYNC") {
    EcRig rig(kEcSchemes[0], {{"autosync_interval", "1"}}, wire::ImmediateCommit::none, 1);
    write_some(rig, 10);
    rig.c.turns(3000);
    const std::vector<OsdNum> old = rig.set;
    rig.set = {1, 4, 3};
    rig.settle_history();
    rig.c.history_sets.push_back(old);
    rig.elect();
    rig.until_active();
    write_some(rig, 10);
    rig.until_clean();
    rig.c.turns(3000);
    read_all(rig);
    rig.check_chunks();
    CHECK(rig.c.disks[2].objects.empty());
}

TEST_CASE("EC: a PG is clean only when what recovery wrote is durable") {
    for (auto mode : {wire::ImmediateCommit::none, wire::ImmediateCommit::small}) {
        EcRig rig(kEcSchemes[0], {{"autosync_interval", "0"}, {"autosync_writes", "0"}}, mode);
        rig.kill(3);
        rig.until_active();
        CHECK(rig.write(0, rig.random_bytes(kChunk)) == kChunk);
        CHECK(rig.client.simple(1, wire::Opcode::sync).result == 0);
        rig.revive(3);
        rig.c.until("OSD 3 is a member", [&] { return (rig.state() & (ps::active | ps::degraded)) == ps::active; });
        rig.c.disks[3].hold_syncs = true;
        rig.c.until("recovered", [&] { return !rig.c.disks[3].objects.empty(); });
        rig.c.turns(100);
        CHECK(rig.state() == (ps::active | ps::has_misplaced));
        rig.c.disks[3].hold_syncs = false;
        rig.until_clean();
        rig.c.turns(150);
        rig.check_chunks();
        rig.check_read(0, 2 * kChunk);
    }
}

// Seed 3005 of the simulator: the autosync that a recovery's write set off did not count that write as covered, and by the next one
// recovery had written the object again.
TEST_CASE("EC: without immediate_commit objects move once, however often OSDs flush") {
    for (const std::string writes : {"0", "1", "128"}) {
        for (const std::string interval : {"0", "5"}) {
            CAPTURE(writes);
            CAPTURE(interval);
            EcRig rig(kEcSchemes[0], {{"autosync_interval", interval}, {"autosync_writes", writes}}, wire::ImmediateCommit::none, 1);
            for (uint32_t i = 0; i < kObjects; i++) REQUIRE(rig.write(i * rig.span(), rig.random_bytes(4096)) == 4096);
            REQUIRE(rig.client.simple(1, wire::Opcode::sync).result == 0);
            rig.c.history_sets.push_back(rig.set);
            rig.set = {1, 4, 3};
            rig.elect();
            rig.until_clean();
            rig.c.turns(200);
            for (uint32_t i = 0; i < kObjects; i++) {
                const auto& versions = rig.c.disks[4].objects[{kInode, (i * rig.span()) | 1}];
                REQUIRE(versions.size() == 1);
                CHECK((versions.rbegin()->first & 0xffff) == 1);
            }
            CHECK(rig.c.disks[2].objects.empty());
            rig.check_chunks();
        }
    }
}

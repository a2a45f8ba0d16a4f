// SPDX-License-Identifier: GPL-2.0-or-later
// Random crashes, returns, moves and slow disks under writes, judged by an oracle: what was acknowledged or read stays.
#include <doctest/doctest.h>

#include <random>
#include <set>

#include "harness.hpp"

using namespace vitastor;
using namespace vitastor::test;

namespace {
constexpr int kBlocks = 12;  ///< block i: object i / 2, granule i % 2

uint64_t offset_of(int index) { return static_cast<uint64_t>(index / 2) * 131072 + static_cast<uint64_t>(index % 2) * 4096; }

struct Storm {
    Cluster c;
    Client client;
    std::mt19937 rng;
    std::set<OsdNum> down;
    std::vector<OsdNum> set{1, 2};
    OsdNum primary = 0;
    uint8_t committed[kBlocks] = {};
    std::set<uint8_t> maybe[kBlocks];
    uint8_t next_value = 1;
    uint64_t acknowledged = 0;

    static ClusterOptions options(uint32_t seed) {
        ClusterOptions options;
        options.settings = {{"peer_connect_interval", "1"}, {"recovery_queue_depth", "2"}};
        options.local_reads = seed % 2 == 0;
        return options;
    }
    explicit Storm(uint32_t seed) : c(options(seed)), client(c, 0), rng(seed) { elect(); }

    uint32_t pick(uint32_t below) { return static_cast<uint32_t>(rng() % below); }
    bool up(OsdNum osd) { return !down.contains(osd); }
    uint32_t state() { return primary ? c.node(primary).state(1) : 0; }

    /// What the monitor does: the first OSD of the set that is up leads.
    void elect() {
        OsdNum wanted = 0;
        for (OsdNum osd : set) {
            if (wanted == 0 && up(osd)) wanted = osd;
        }
        if (primary && up(primary)) c.stop_pg(primary);
        primary = wanted;
        if (primary) c.start_pg(primary, set);
    }
    /// What control does when the PG is clean.
    void settle_history() {
        if (primary && up(primary) && (state() & ~ps::left_on_dead) == ps::active) {
            c.history_sets.clear();
            c.all_peers = set;
            for (OsdNum osd : c.node(primary).states[1].dead_peers) c.all_peers.push_back(osd);
        }
    }
    void crash(OsdNum osd) {
        settle_history();
        c.lease(osd, 0);
        c.until("fence", [&] { return c.node(osd).lease_expired; });
        c.node(osd).lease_expired = false;
        down.insert(osd);
        c.hidden[osd] = true;
        c.publish();
        if (primary == osd) {
            primary = 0;
            elect();
        }
    }
    void revive(OsdNum osd) {
        down.erase(osd);
        c.hidden[osd] = false;
        c.lease(osd, 3600 * runtime::kNsPerSecond);
        c.publish();
        if (primary == 0) elect();
    }
    /// The primary still knows the old set until it is stopped: history first, in one step with the set.
    void move() {
        settle_history();
        std::vector<OsdNum> old = set;
        OsdNum a = 1 + pick(3), b = 1 + (a + pick(2)) % 3;
        set = {a, b};
        c.history_sets.push_back(old);
        elect();
    }
    /// One round of writes to distinct blocks, then reads of all.
    void write_some() {
        if (!primary) return;
        std::vector<std::pair<int, std::shared_ptr<Reply>>> flying;
        for (int i = 0; i < kBlocks; i++) {
            if (pick(2)) continue;
            uint8_t value = next_value == 255 ? (next_value = 1) : next_value++;
            maybe[i].insert(value);
            flying.push_back({i, client.start_write(primary, kInode, offset_of(i), block(value))});
            values[i] = value;
        }
        OsdNum victim = 0;
        if (pick(3) == 0) victim = 1 + pick(3);
        if (victim && up(victim) && down.empty()) {
            c.turns(static_cast<int>(pick(3)));
            crash(victim);
        }
        for (auto& [index, reply] : flying) {
            Reply r = client.wait(reply);
            if (r.result == 4096) {
                committed[index] = values[index];
                maybe[index].clear();
                acknowledged++;
            } else {
                REQUIRE(r.result == -EPIPE);
            }
        }
    }
    void read_all() {
        if (!primary) return;
        for (int i = 0; i < kBlocks; i++) {
            Reply r = client.read(primary, kInode, offset_of(i), 4096);
            if (r.result != 4096) {
                REQUIRE(r.result == -EPIPE);
                continue;
            }
            uint8_t seen = r.data[0];
            CAPTURE(i);
            CAPTURE(static_cast<int>(seen));
            CAPTURE(static_cast<int>(committed[i]));
            REQUIRE((seen == committed[i] || maybe[i].contains(seen)));
            REQUIRE(r.data == block(seen));
            // A write without an answer may still take effect later: only a later acknowledged one ends that.
            committed[i] = seen;
            maybe[i].erase(seen);
        }
    }
    uint8_t values[kBlocks] = {};

    void run(int rounds) {
        for (int round = 0; round < rounds; round++) {
            switch (pick(6)) {
                case 0:
                    if (down.empty()) crash(1 + pick(3));
                    break;
                case 1:
                    if (!down.empty()) revive(*down.begin());
                    break;
                case 2:
                    move();
                    break;
                case 3:
                    c.disks[1 + pick(3)].hold = true;
                    break;
                default:
                    break;
            }
            c.turns(static_cast<int>(pick(30)));
            for (auto& [osd, disk] : c.disks) disk.hold = false;
            write_some();
            read_all();
        }
        while (!down.empty()) revive(*down.begin());
        c.until("everything is clean", [&] { return state() == ps::active; });
        read_all();
        for (int i = 0; i < kBlocks; i++) {
            ObjectId object{kInode, offset_of(i) & ~131071ull};
            if (committed[i] == 0) continue;
            for (OsdNum osd : set) {
                REQUIRE(c.disks[osd].objects.contains(object));
                CHECK(c.disks[osd].objects[object].rbegin()->second.data[offset_of(i) % 131072] == committed[i]);
            }
        }
        CHECK(acknowledged > 0);
    }
};
}  // namespace

TEST_CASE("storms") {
    for (uint32_t seed = 1; seed <= 12; seed++) {
        CAPTURE(seed);
        Storm storm(seed);
        storm.run(40);
    }
}

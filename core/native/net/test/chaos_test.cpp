// SPDX-License-Identifier: GPL-2.0-or-later
// A client and an OSD on a network that kills, cuts and parts them: every call is answered exactly once, data that arrives is
// right, and the connection comes back when it can. Simulated, from a seed.
#include "net_fixture.hpp"

using namespace vitastor;
using namespace vitastor::net;
using namespace vitastor::net::test;

namespace {

constexpr int kDepth = 16;
constexpr int kEvents = 40;

struct Client : PeersListener {
    Fixture& f;
    Peers peers;
    struct Slot {
        std::unique_ptr<ReadCall> call;
        uint64_t offset = 0;
        bool busy = false;
    };
    Slot slots[kDepth];
    uint64_t sent = 0, good = 0, lost = 0, wrong = 0;
    int ups = 0, downs = 0;

    Client(Fixture& fixture, const PeerOptions& options) : f(fixture), peers(*fixture.loop, options, *this, fixture.logger) {}
    void on_peer_up(OsdNum) override { ups++; }
    void on_peer_down(OsdNum osd) override {
        downs++;
        CHECK(peers.get(osd) == nullptr);
        for (auto& slot : slots)
            CHECK(!slot.busy);  // all answered before
    }
    void fill() {
        Connection* connection = peers.get(1);
        if (!connection)
            return;
        for (auto& slot : slots) {
            if (slot.busy)
                continue;
            const uint64_t draw = f.world->random_u64();
            slot.offset = (draw >> 32) % 1000 * 4096;
            const uint32_t len = draw % 8 == 0 ? 0 : draw % 8 == 1 ? 131072 : 4096;
            slot.call = std::make_unique<ReadCall>(slot.offset, len);
            slot.busy = true;
            slot.call->then = [this, &slot](ReadCall& call) {
                CHECK(slot.busy);
                slot.busy = false;
                if (call.status == -EPIPE)
                    lost++;
                else if (call.status == 0 && call.retval == static_cast<int64_t>(call.data.size()) && call.data_is_right(slot.offset))
                    good++;
                else
                    wrong++;
            };
            sent++;
            connection->send(*slot.call);
        }
    }
    bool idle() const {
        for (const auto& slot : slots)
            if (slot.busy)
                return false;
        return true;
    }
};

struct Outcome {
    uint64_t hash = 0, good = 0, lost = 0;
    int ups = 0;
};

Outcome play(uint64_t seed) {
    Fixture f(seed);
    Fixture client_host(f, "10.1.1.1");
    runtime::SimNetworkOptions network = f.world->network();
    network.kill_chance = 0.3;
    network.kill_after_max_bytes = 1 << 20;
    f.world->set_network(network);
    Outcome outcome;
    {
        TestOsd osd(f, 1, {{"127.0.0.2", 0}});
        PeerOptions options;
        options.connect_interval_ns = runtime::kNsPerSecond;
        Client client(client_host, options);
        client.peers.set_address(1, PeerAddress{1, {"127.0.0.2"}, osd.port()});
        client.peers.want(1);
        for (int event = 0; event < kEvents; event++) {
            const uint64_t until = f.world->now_ns() + (1 + f.world->random_u64() % 50) * 20 * runtime::kNsPerMs;
            for (int steps = 0; steps < 600 && f.world->step_until(until); steps++)
                client.fill();
            switch (f.world->random_u64() % 6) {
            case 0:
                f.world->kill_connections(f.node, client_host.node);
                break;
            case 1:
                f.world->partition(f.node, client_host.node);
                break;
            case 2:
                f.world->partition_one_way(f.node, client_host.node);
                break;
            default:
                f.world->heal_all();
                break;
            }
        }
        // Faults end: it must work again, and nothing may be left without an answer.
        f.world->heal_all();
        network.kill_chance = 0;
        f.world->set_network(network);
        f.world->kill_connections(f.node, client_host.node);
        const uint64_t good_before = client.good;
        REQUIRE(client_host.run_until([&] {
            client.fill();
            return client.good >= good_before + 100;
        }));
        REQUIRE(client_host.run_until([&] { return client.idle(); }));
        CHECK(client.wrong == 0);
        CHECK(client.sent == client.good + client.lost);
        CHECK(client.ups == client.downs + 1);
        struct Done : runtime::Completion {
            bool done = false;
        } done;
        done.on_done = [](runtime::Completion* c, int64_t) { static_cast<Done*>(c)->done = true; };
        client.peers.close_all(done);
        REQUIRE(client_host.run_until([&] { return done.done; }));
        osd.stop();
        CHECK(osd.accepted == osd.closed);
        outcome = {f.world->trace_hash(), client.good, client.lost, client.ups};
    }
    client_host.loop.reset();
    return outcome;
}

}  // namespace

TEST_CASE("a network that kills and parts: every call answered once, data right, and it heals") {
    uint64_t good = 0, lost = 0;
    int ups = 0;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        CAPTURE(seed);
        const Outcome outcome = play(seed);
        good += outcome.good;
        lost += outcome.lost;
        ups += outcome.ups;
        if (seed <= 2)
            CHECK(play(seed).hash == outcome.hash);
    }
    MESSAGE(good << " replies, " << lost << " lost with their connection, " << ups << " connections");
    CHECK(lost > 0);
}

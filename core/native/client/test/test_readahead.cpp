// SPDX-License-Identifier: GPL-2.0-or-later
// Read-ahead: for whom it is, that it saves round trips, that nothing older is shown than a read must see, and that memory is bounded.
#include <doctest/doctest.h>

#include <random>

#include "fake_cluster.hpp"

using namespace fake;
using client::OpKind;

namespace {

constexpr uint64_t kWindow = 256 << 10, kSize = 32 * kBlock;

struct AheadWorld : World {
    explicit AheadWorld(const std::string& mode_in = "all", const char* window = "256k") : World(mode_in) {
        layers.options["client_readahead_bytes"] = window;
        add_osd(1);
        add_osd(2);
        feed();
        put("/config/inode/1/1", R"({"name":"img","size":4194304})");
    }
    client::Image* open_as(bool exclusive, bool writeback = false, size_t index = 0) {
        client::ImageOptions options;
        options.name = "img";
        options.exclusive = exclusive;
        options.writeback = writeback;
        options.any_alignment = true;
        client::Image* image = create(std::move(options));
        return run(OpKind::open, image, 0, 0, {}, index) == 0 ? image : nullptr;
    }
    int reads() { return osds[1]->reads + osds[2]->reads; }
};

}  // namespace

TEST_CASE("sequential reads of what nobody writes to are answered from memory, others are not") {
    for (const int who : {0, 1, 2, 3}) {  // off, somebody may write, read-only, promised
        CAPTURE(who);
        AheadWorld world("all", who == 0 ? "0" : "256k");
        client::Image* image = world.open_as(who == 3);
        REQUIRE(image);
        auto data = pattern(kSize, 5);
        REQUIRE(world.write(image, 0, data) == static_cast<int64_t>(kSize));
        if (who == 2) {
            world.put("/config/inode/1/1", R"({"name":"img","size":4194304,"readonly":true})");
            REQUIRE(world.until([&] { return image->read_only.load(); }));
        }
        const int before = world.reads();
        for (uint64_t at = 0; at < kSize; at += 8192) REQUIRE(world.read(image, at, 8192) == std::vector<uint8_t>(&data[at], &data[at + 8192]));
        const int used = world.reads() - before;
        if (who < 2) CHECK(used == kSize / 8192);
        else CHECK(used < static_cast<int>(kSize / 8192 / 4));
        CHECK(world.contexts[0]->readahead().bytes() <= 2 * kWindow);
        // Random ones, and those of odd sizes.
        std::mt19937 random(3);
        for (int i = 0; i < 300; i++) {
            const uint64_t length = 1 + random() % 100000;
            uint64_t at = random() % (kSize - length);
            for (int run = 0; run < 6 && at + length <= kSize; run++, at += length)
                REQUIRE(world.read(image, at, length) == std::vector<uint8_t>(&data[at], &data[at + length]));
            CHECK(world.contexts[0]->readahead().bytes() <= 8 * kWindow);
        }
    }
}

TEST_CASE("a write while something is being read ahead: nothing older is shown to who begins later") {
    for (const bool late : {false, true}) {
        AheadWorld world;
        client::Image* image = world.open_as(true);
        REQUIRE(image);
        auto data = pattern(kSize, 5), fresh = pattern(kGranule, 77);
        REQUIRE(world.write(image, 0, data) == static_cast<int64_t>(kSize));
        // What is read ahead, and has been looked up, comes late.
        bool hold = false;
        for (auto& [number, osd] : world.osds)
            osd->fault = [&](net::Request& request) { return request.opcode == wire::Opcode::read && hold ? 1 : 0; };
        for (uint64_t at = 0; at < 3 * kGranule; at += kGranule) REQUIRE(world.read(image, at, kGranule).size() == kGranule);
        hold = late;
        REQUIRE(world.read(image, 3 * kGranule, late ? 0 : kGranule).size() == (late ? 0 : kGranule));
        if (!late) REQUIRE(world.until([&] { return world.contexts[0]->readahead().bytes() > 0; }));
        for (int i = 0; i < 20; i++) world.loop->run_once(world.loop->now_exact_ns() + runtime::kNsPerMs);
        REQUIRE(world.write(image, 5 * kGranule, fresh) == kGranule);
        memcpy(&data[5 * kGranule], fresh.data(), kGranule);
        hold = false;
        for (auto& [number, osd] : world.osds) osd->release_held();
        for (uint64_t at = 4 * kGranule; at < 20 * kGranule; at += kGranule)
            REQUIRE(world.read(image, at, kGranule) == std::vector<uint8_t>(&data[at], &data[at + kGranule]));
    }
}

TEST_CASE("a snapshot that becomes writable is not read ahead any more") {
    AheadWorld world;
    client::Image* image = world.open_as(false);
    client::ImageOptions by_number;
    by_number.inode = full_inode(1, 1);
    REQUIRE(image);
    auto data = pattern(kSize, 5), fresh = pattern(kGranule, 77);
    REQUIRE(world.write(image, 0, data) == static_cast<int64_t>(kSize));
    world.put("/config/inode/1/1", R"({"name":"img","size":4194304,"readonly":true})");
    REQUIRE(world.until([&] { return image->read_only.load(); }));
    for (uint64_t at = 0; at < 6 * kGranule; at += kGranule) REQUIRE(world.read(image, at, kGranule).size() == kGranule);
    CHECK(world.contexts[0]->readahead().bytes() > 0);
    world.put("/config/inode/1/1", R"({"name":"img","size":4194304})");
    REQUIRE(world.until([&] { return !image->read_only; }));
    client::Image* other = world.open_as(false, false, 1);  // as another process would
    REQUIRE(world.write(other, 8 * kGranule, fresh, 1) == kGranule);
    for (uint64_t at = 6 * kGranule; at < 12 * kGranule; at += kGranule)
        REQUIRE(world.read(image, at, kGranule) == (at == 8 * kGranule ? fresh : std::vector<uint8_t>(&data[at], &data[at + kGranule])));
}

TEST_CASE("random sequential readers and writers of an exclusive image against a copy, several at a time") {
    for (const char* mode : {"all", "none"}) {
        for (uint32_t seed = 1; seed <= 8; seed++) {
            CAPTURE(seed);
            AheadWorld world(mode, seed % 2 ? "64k" : "256k");
            if (seed % 4 > 1) world.layers.options["client_enable_writeback"] = "1";
            world.layers.options["client_max_buffered_bytes"] = "128k";
            client::Image* image = world.open_as(true, true);
            REQUIRE(image);
            std::mt19937 random(seed);
            std::vector<uint8_t> model(kSize);
            for (int round = 0; round < 150; round++) {
                const size_t index = random() % 2;
                const uint64_t length = 512 * (1 + random() % 40);
                const uint64_t at = random() % (kSize - 10 * length);
                if (random() % 3 == 0) {
                    auto data = pattern(length, static_cast<uint8_t>(round));
                    REQUIRE(world.write(image, at, data, index) == static_cast<int64_t>(length));
                    memcpy(&model[at], data.data(), length);
                }
                if (random() % 10 == 0) REQUIRE(world.flush(image, index) == 0);
                // A few reads under way at once, and a write behind them that the next ones must see.
                const int depth = 1 + static_cast<int>(random() % 4);
                for (int i = 0; i + depth <= 10; i += depth) {
                    std::vector<Done> done(static_cast<size_t>(depth));
                    std::vector<std::vector<uint8_t>> out(static_cast<size_t>(depth), std::vector<uint8_t>(length, 0xee));
                    for (int k = 0; k < depth; k++)
                        world.start(OpKind::read, image, at + static_cast<uint64_t>(i + k) * length, length, {{out[static_cast<size_t>(k)].data(), length}},
                            done[static_cast<size_t>(k)], index);
                    REQUIRE(world.until([&] { return std::all_of(done.begin(), done.end(), [](const Done& d) { return d.done; }); }));
                    for (int k = 0; k < depth; k++) {
                        REQUIRE(done[static_cast<size_t>(k)].result == static_cast<int64_t>(length));
                        const uint64_t from = at + static_cast<uint64_t>(i + k) * length;
                        REQUIRE(out[static_cast<size_t>(k)] == std::vector<uint8_t>(&model[from], &model[from] + length));
                    }
                    if (random() % 4) continue;
                    const uint64_t to = std::min(at + static_cast<uint64_t>(i + depth) * length + random() % length, kSize - length);
                    auto data = pattern(length, static_cast<uint8_t>(round + i));
                    REQUIRE(world.write(image, to, data, random() % 2) == static_cast<int64_t>(length));
                    memcpy(&model[to], data.data(), length);
                }
            }
            CHECK(world.flush(image) == 0);
        }
    }
}

TEST_CASE("closing while reads wait for what is read ahead ends them once") {
    AheadWorld world;
    client::Image* image = world.open_as(true);
    REQUIRE(image);
    auto data = pattern(kSize, 5);
    REQUIRE(world.write(image, 0, data) == static_cast<int64_t>(kSize));
    int refused = 0;
    bool refuse = false;
    for (auto& [number, osd] : world.osds)
        osd->fault = [&](net::Request& request) {
            if (request.opcode != wire::Opcode::read || !refuse) return 0;
            refused++;
            return -EPIPE;
        };
    for (uint64_t at = 0; at < 3 * kGranule; at += kGranule) REQUIRE(world.read(image, at, kGranule).size() == kGranule);
    refuse = true;
    std::vector<Done> done(8);
    std::vector<uint8_t> out(kGranule);
    for (size_t i = 0; i < done.size(); i++) world.start(OpKind::read, image, (3 + i) * kGranule, kGranule, {{out.data(), kGranule}}, done[i]);
    REQUIRE(world.until([&] { return refused > 0; }));
    for (auto& context : world.contexts) context->close();
    for (const Done& d : done) {
        CHECK(d.runs == 1);
        CHECK(d.result == -ECANCELED);
    }
}

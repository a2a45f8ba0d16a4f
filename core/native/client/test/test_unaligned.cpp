// SPDX-License-Identifier: GPL-2.0-or-later
// Parts of granules against a model in memory: alone, beside other writers in this process and elsewhere, while a snapshot is made.
#include <doctest/doctest.h>

#include <random>

#include "fake_cluster.hpp"

using namespace fake;
using client::OpKind;

namespace {
constexpr uint64_t kSector = 512;

struct UnalignedWorld : World {
    explicit UnalignedWorld(std::string mode = "all") : World(std::move(mode)) {
        add_osd(1);
        add_osd(2);
        feed();
    }
    client::Image* open_any(size_t index = 0) {
        client::ImageOptions options;
        options.name = "img";
        options.any_alignment = true;
        client::Image* image = create(std::move(options));
        return run(OpKind::open, image, 0, 0, {}, index) == 0 ? image : nullptr;
    }
};
}  // namespace

TEST_CASE("any offset and length: reads, writes and discards are as of a disk of bytes") {
    for (const char* mode : {"all", "none"}) {
        UnalignedWorld world(mode);
        client::Image* image = world.open_any();
        REQUIRE(image);
        std::mt19937 random(7);
        std::vector<uint8_t> model(4 * kBlock);
        for (int i = 0; i < 300; i++) {
            const uint64_t unit = i % 3 ? kSector : 1;
            const uint64_t limit = i % 4 ? 3 * kGranule : 2 * kBlock;
            const uint64_t offset = random() % (model.size() - limit) / unit * unit;
            const uint64_t length = std::max<uint64_t>(unit, random() % limit / unit * unit);
            const uint32_t what = random() % 8;
            if (what == 0) {
                REQUIRE(world.run(OpKind::discard, image, offset, length, {}) == static_cast<int64_t>(length));
                memset(&model[offset], 0, length);
            } else if (what < 5) {
                auto data = pattern(length, static_cast<uint8_t>(i));
                std::vector<iovec> pieces = {{data.data(), length / 3}, {data.data() + length / 3, length - length / 3}};
                REQUIRE(world.run(OpKind::write, image, offset, length, pieces) == static_cast<int64_t>(length));
                memcpy(&model[offset], data.data(), length);
            }
            const auto seen = world.read(image, offset, length);
            REQUIRE(seen == std::vector<uint8_t>(&model[offset], &model[offset] + length));
        }
        CHECK(world.read(image, 0, model.size()) == model);
        if (mode == std::string("none")) CHECK(world.flush(image) == 0);
    }
}

TEST_CASE("what is misaligned stays refused where it cannot work") {
    UnalignedWorld world;
    client::Image* image = world.open_any();
    REQUIRE(image);
    uint8_t bytes[kSector] = {};
    const iovec iov{bytes, kSector};
    CHECK(client::Context::check_request(*image, 512, 512, &iov, 1) == 0);
    CHECK(client::Context::check_request(*image, 512, 1024, &iov, 1) == -EINVAL);
    CHECK(world.run(OpKind::compare_write, image, 512, 512, {iov}) == -EINVAL);
    client::Image* strict = world.open();
    CHECK(client::Context::check_request(*strict, 512, 512, &iov, 1) == -EINVAL);
    client::ImageOptions options;
    options.name = "img";
    options.any_alignment = options.read_only = true;
    client::Image* read_only = world.create(options);
    REQUIRE(world.run(OpKind::open, read_only, 0, 0, {}) == 0);
    CHECK(world.run(OpKind::write, read_only, 512, 512, {iov}) == -EROFS);
}

TEST_CASE("sectors of one granule, written by two processes at once, are all there") {
    UnalignedWorld world;
    client::Image* images[] = {world.open_any(0), world.open_any(1)};
    REQUIRE(images[0]);
    REQUIRE(images[1]);
    constexpr int kWriters = 8, kRounds = 40;
    std::vector<uint8_t> data[kWriters];
    Done done[kWriters];
    int rounds[kWriters] = {};
    auto next = [&](int writer) {
        data[writer].assign(kSector, static_cast<uint8_t>(16 * writer + rounds[writer] % 16));
        done[writer] = Done();
        const size_t context = static_cast<size_t>(writer % 2);
        world.start(OpKind::write, images[context], kGranule + static_cast<uint64_t>(writer) * kSector, kSector,
            {{data[writer].data(), kSector}}, done[writer], context);
    };
    for (int writer = 0; writer < kWriters; writer++) next(writer);
    REQUIRE(world.until([&] {
        bool all = true;
        for (int writer = 0; writer < kWriters; writer++) {
            if (done[writer].done && rounds[writer] < kRounds) {
                REQUIRE(done[writer].result == kSector);
                if (++rounds[writer] < kRounds) next(writer);
            }
            all &= rounds[writer] == kRounds;
        }
        return all;
    }));
    for (int writer = 0; writer < kWriters; writer++)
        CHECK(world.read(images[0], kGranule + static_cast<uint64_t>(writer) * kSector, kSector) == data[writer]);
}

TEST_CASE("a sector comes through beside a flood of writes to its object, and undoes none of them") {
    UnalignedWorld world;
    client::Image* image = world.open_any();
    REQUIRE(image);
    constexpr int kDepth = 4, kTooMany = 2000;
    auto flood = pattern(kGranule, 9);
    Done floods[kDepth];
    int written = 0, seen = 0, idle = 0;
    auto begin = [&](int i) {
        floods[i] = Done();
        world.start(OpKind::write, image, static_cast<uint64_t>(1 + i) * kGranule, kGranule, {{flood.data(), kGranule}}, floods[i]);
    };
    // A compare-and-set is answered only after another write, as long as there are any.
    world.osds[1]->fault = [](net::Request& request) {
        const auto io = wire::decode<wire::ClientRequest>(wire::ConstHeaderBytes(request.header, wire::kHeaderSize));
        return request.opcode == wire::Opcode::write && io.version ? 1 : 0;
    };
    for (int i = 0; i < kDepth; i++) begin(i);
    auto sector = pattern(kSector, 1);
    Done done;
    world.start(OpKind::write, image, kSector, kSector, {{sector.data(), kSector}}, done);
    REQUIRE(world.until([&] {
        for (int i = 0; i < kDepth; i++) {
            if (!floods[i].done) continue;
            REQUIRE(floods[i].result == kGranule);
            written++;
            if (!done.done) begin(i);
        }
        if (world.osds[1]->held() == 0) {
            seen = written;
            idle = 0;
        } else if (written > seen + kDepth || ++idle > 20) {
            world.osds[1]->release_held();
        }
        return done.done || written > kTooMany;
    }));
    CHECK(done.done);
    CHECK(done.result == kSector);
    REQUIRE(world.until([&] { return std::all_of(floods, floods + kDepth, [](const Done& d) { return d.done; }); }));
    CHECK(world.read(image, kSector, kSector) == sector);
    for (int i = 0; i < kDepth; i++) CHECK(world.read(image, static_cast<uint64_t>(1 + i) * kGranule, kGranule) == flood);
}

TEST_CASE("a snapshot between reading and writing back: the write goes to the new layer as a whole") {
    UnalignedWorld world;
    client::Image* image = world.open_any();
    REQUIRE(image);
    auto old = pattern(kGranule, 5);
    REQUIRE(world.write(image, 0, old) == kGranule);
    bool armed = true;
    world.osds[1]->fault = [&](net::Request& request) {
        if (request.opcode != wire::Opcode::write || !armed) return 0;
        armed = false;
        return 1;  // held
    };
    auto sector = pattern(kSector, 77);
    Done done;
    world.start(OpKind::write, image, kSector, kSector, {{sector.data(), kSector}}, done);
    REQUIRE(world.until([&] { return world.osds[1]->held() == 1; }));
    world.put("/config/inode/1/1", R"({"name":"img@0","size":1073741824,"readonly":true})");
    world.put("/config/inode/1/2", R"({"name":"img","size":1073741824,"parent_id":1})");
    world.osds[1]->fault = nullptr;
    world.osds[1]->answer_held(-EINTR);
    REQUIRE(world.until([&] { return done.done; }));
    CHECK(done.result == kSector);
    const auto& objects = world.osds[1]->objects;
    const auto base = objects.find({full_inode(1, 1), 0}), top = objects.find({full_inode(1, 2), 0});
    REQUIRE(base != objects.end());
    REQUIRE(top != objects.end());
    CHECK(std::vector<uint8_t>(base->second.data.begin(), base->second.data.begin() + kGranule) == old);
    CHECK(std::vector<uint8_t>(top->second.data.begin() + kSector, top->second.data.begin() + 2 * kSector) == sector);
}

TEST_CASE("a part of a granule on a full disk is tried again, or refused where the configuration says so") {
    for (bool retry : {true, false}) {
        UnalignedWorld world;
        world.layers.options["client_retry_enospc"] = retry ? "1" : "0";
        client::Image* image = world.open_any();
        REQUIRE(image);
        int refused = 0;
        world.osds[1]->fault = [&](net::Request& request) {
            return request.opcode == wire::Opcode::write && refused++ < 2 ? -ENOSPC : 0;
        };
        auto sector = pattern(kSector, 3);
        CHECK(world.run(OpKind::write, image, 0, kSector, {{sector.data(), kSector}}) == (retry ? int64_t{kSector} : -ENOSPC));
        if (retry) CHECK(world.read(image, 0, kSector) == sector);
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
// What a start knows of the number of objects before it has read the log, and the hash table that is made for them.
#include <doctest/doctest.h>

#include <cstdlib>
#include <vector>

#include "rig.hpp"
#include "store/index.hpp"
#include "store/meta_log.hpp"
#include "store/replay.hpp"

using namespace vitastor;
using namespace vitastor::test;
using runtime::Task;

namespace {

struct NoSink final : BlockSink {
    void release_block(uint32_t) override {}
    void use_spare(const Redirect&, uint32_t) override {}
    void release_spare(uint32_t, uint32_t, uint32_t) override {}
};

Task<void> replay_all(Replay& replay, int& status, bool& done) {
    Task<int> running = replay.run();
    status = co_await running;
    done = true;
}

struct Counts {
    uint64_t expected, found;
};

/// Reads the log of the closed store as a start does.
Counts replay(Rig& rig) {
    Geometry geometry = check_geometry(rig.options).value();
    const std::vector<uint8_t>& disk = rig.loop.disks["data"].current;
    auto info = decode_superblock(disk.data(), geometry, rig.options, "data", disk.size(), false);
    REQUIRE(info.ok());
    Result<runtime::File> file = rig.loop.open_file("data", {});
    REQUIRE(file.ok());
    Device device(rig.loop, file.value(), true);
    Index index(geometry);
    Replay replay(device, device, index, info.value().uuid, "data", rig.logger);
    int status = 1;
    bool done = false;
    runtime::spawn(replay_all(replay, status, done));
    while (!done) rig.loop.run_once(0);
    REQUIRE(status == 0);
    return {replay.expected, index.linked_count()};
}

void put(Index& index, const Geometry& geometry, NoSink& sink, uint64_t number) {
    EntryHeader header{};
    header.size = static_cast<uint32_t>(sizeof(header) + 4 + (geometry.checksums ? 4 : 0));
    header.type = EntryType::write;
    header.flags = kEntryStable | kEntryCreate | kEntryBlock;
    header.count = 1;
    header.inode = full_inode(1, 1 + number % 3);
    header.stripe = number / 3 * geometry.block_size;
    header.version = 1;
    std::vector<uint8_t> bytes(header.size);
    memcpy(bytes.data(), &header, sizeof(header));
    const auto block = static_cast<uint32_t>(number);
    memcpy(bytes.data() + sizeof(header), &block, 4);
    EntryView entry;
    REQUIRE(decode_entry(geometry, bytes, entry));
    REQUIRE(index.apply(entry, kNoSlot, sink));
}

}  // namespace

TEST_CASE("load: the pages of the log tell about how many objects there are, wherever the log is in its circle") {
    for (const bool small : {false, true}) {
        Rig rig(small ? 3 : 4);
        rig.make_disks(48 << 20);
        REQUIRE(rig.open() == 0);
        rig.close();
        if (small) rig.make_log_small();
        rig.move_log_to_end();
        REQUIRE(replay(rig).found == 0);
        Random random(small);
        std::vector<Version> versions(700);
        for (int step = 0; step < 40; step++) {
            REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
            for (int i = 0; i < 120; i++) {
                const uint64_t number = random.below(versions.size());
                const ObjectId object = object_id(1, number, rig.options.block_size);
                const bool deletes = random.chance(20 + step % 2 * 40);
                auto op = deletes ? rig.simple(StoreOp::del, object, ++versions[number])
                                  : rig.write(object, ++versions[number], 0, rig.granules(), 7);
                rig.run(*op);
            }
            rig.close();
            const Counts counts = replay(rig);
            REQUIRE(counts.found > 0);
            REQUIRE(counts.expected > 0);
            REQUIRE(std::llabs(static_cast<int64_t>(counts.expected - counts.found)) <= 100);  // what one page holds
        }
    }
}

TEST_CASE("load: a hash table made for many objects takes fewer and more") {
    StoreOptions options;
    Geometry geometry = check_geometry(options).value();
    geometry.block_count = kNoBlock - 1;
    for (const uint64_t expected : {0ull, 1ull, 1000ull, 4096ull, 70000ull}) {
        for (const uint64_t count : {1ull, 4095ull, 100000ull}) {
            NoSink sink;
            Index index(geometry);
            index.begin_loading();
            int steps = 0;
            while (!index.expect(expected)) steps++;
            CHECK(steps <= 3);  // of 32768 buckets
            for (uint64_t i = 0; i < count; i++) put(index, geometry, sink, i);
            uint64_t wrong = 0;
            for (uint64_t i = 0; i < count + 3; i++) {
                const uint32_t slot = index.find({full_inode(1, 1 + i % 3), i / 3 * geometry.block_size});
                wrong += i < count ? slot != i : slot != kNoSlot;
            }
            CHECK(wrong == 0);
        }
    }
}

TEST_CASE("load: objects alike in the low bits of their stripes use all buckets") {
    StoreOptions options;
    Geometry geometry = check_geometry(options).value();
    geometry.block_count = kNoBlock - 1;
    for (const uint64_t stride : {1ull, 2ull, 3ull, 4ull, 16ull, 64ull, 4096ull}) {
        NoSink sink;
        Index index(geometry);
        constexpr uint64_t kCount = 60000;
        for (uint64_t i = 0; i < kCount; i++) put(index, geometry, sink, i * stride * 3);
        uint64_t followed = 0;
        for (uint32_t slot = 0; slot < kCount; slot++) followed += index.at(slot).hash_next != kNoSlot;
        MESSAGE("stride " << stride << ": " << followed << " of " << kCount << " objects are followed by another in their bucket");
        CHECK(followed < kCount / 2);  // at random: 1 - (1 - 1/e) = 0.37 of them, more while buckets are being split
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
// What a start knows of the number of objects before it has read the log, and the hash table that is made for them.
#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "rig.hpp"
#include "store/index.hpp"
#include "store/load_queue.hpp"
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

void remove(Index& index, NoSink& sink, const ObjectId& object) {
    EntryView entry{};
    entry.header.size = sizeof(entry.header);
    entry.header.type = EntryType::del;
    entry.header.inode = object.inode;
    entry.header.stripe = object.stripe;
    entry.header.version = kNewestVersion;
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
    struct Case {
        uint64_t expected, count;
    };
    std::vector<Case> cases;
    for (const uint64_t expected : {0ull, 1ull, 1000ull, 4096ull, 70000ull})
        for (const uint64_t count : {1ull, 4095ull, 100000ull}) cases.push_back({expected, count});
    for (const uint64_t count : {1000ull, 600000ull, 640000ull}) cases.push_back({600000, count});  // its first 2 MB are a large page
    for (const auto& [expected, count] : cases) {
        NoSink sink;
        Index index(geometry);
        const uint64_t empty = index.memory_bytes();
        index.begin_loading();
        uint64_t steps = 0;
        while (!index.expect(expected)) steps++;
        CHECK(steps <= expected / 32768);
        uint64_t wrong = 0;
        const auto object = [&](uint64_t number) { return ObjectId{full_inode(1, 1 + number % 3), number / 3 * geometry.block_size}; };
        for (uint64_t i = 0; i < count; i++) put(index, geometry, sink, i);
        if (count == expected) CHECK(index.memory_bytes() <= empty + 68 * count);
        for (uint64_t i = 0; i < count + 3; i++) wrong += index.find(object(i)) != (i < count ? i : kNoSlot);
        for (uint64_t i = 0; i < count; i += 10) {  // a tenth is deleted and made again
            remove(index, sink, object(i));
            wrong += index.find(object(i)) != kNoSlot;
            put(index, geometry, sink, i);
            wrong += index.find(object(i)) != i;
        }
        index.end_loading(0, index.slot_count());
        for (uint64_t i = 0; i < count + 3; i++) wrong += index.find(object(i)) != (i < count ? i : kNoSlot);
        for (uint64_t i = count; i < count + 5000; i++) put(index, geometry, sink, i);
        for (uint64_t i = 0; i < count + 5003; i++) wrong += index.find(object(i)) != (i < count + 5000 ? i : kNoSlot);
        CHECK(wrong == 0);
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

TEST_CASE("load: pages leave the queue in the order in which they came, whatever is in them and whatever happens to their objects meanwhile") {
    StoreOptions options;
    Geometry geometry = check_geometry(options).value();
    geometry.block_count = kNoBlock - 1;
    NoSink sink;
    Index index(geometry);
    index.begin_loading();
    LoadQueue queue(index);
    Random random(11);
    std::vector<uint8_t> bytes(kPageSize);
    uint64_t pushed = 0, popped = 0;
    const auto pop = [&](bool all) {
        const LoadQueue::Page* page = queue.pop(all);
        if (!page) return false;
        uint64_t number;
        memcpy(&number, page->bytes.data() + kPageSize - 8, 8);
        REQUIRE(number == popped);
        REQUIRE(page->slot == popped + 7);
        REQUIRE(page->copy == popped + 8);
        popped++;
        return true;
    };
    for (int step = 0; step < 3000; step++) {
        for (uint64_t object = random.below(4); object > 0; object--) {
            const uint64_t number = random.below(200);
            const ObjectId id{full_inode(1, 1 + number % 3), number / 3 * geometry.block_size};
            if (index.find(id) == kNoSlot) {
                put(index, geometry, sink, number);
                continue;
            }
            remove(index, sink, id);
        }
        PageHeader header{};
        header.used = static_cast<uint16_t>(random.below(kPagePayload + 1));
        header.first_entry = random.chance(10) ? kNoEntry : static_cast<uint16_t>(random.below(header.used + 1u));
        for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.below(256));
        memcpy(bytes.data(), &header, sizeof(header));
        for (uint32_t position = header.first_entry; position + sizeof(EntryHeader) <= header.used;) {
            const uint64_t number = random.below(200);
            EntryHeader entry{};
            entry.size = static_cast<uint32_t>(random.chance(3) ? random.below(UINT32_MAX) : sizeof(entry) + random.below(200));
            entry.type = random.chance(50) ? EntryType::write : EntryType::full;
            entry.flags = random.chance(50) ? kEntryCreate : 0;
            entry.inode = full_inode(1, 1 + number % 4);
            entry.stripe = number / 3 * geometry.block_size;
            memcpy(bytes.data() + sizeof(header) + position, &entry, sizeof(entry));
            if (entry.size > kPagePayload) break;
            position += entry.size;
        }
        memcpy(bytes.data() + kPageSize - 8, &pushed, 8);
        queue.push(bytes, pushed + 7, pushed + 8);
        pushed++;
        REQUIRE(bytes.size() == kPageSize);
        if (random.chance(2)) {
            while (pop(true)) continue;
            REQUIRE(popped == pushed);
        }
        pop(false);
        REQUIRE(pushed - popped <= 3);
    }
}

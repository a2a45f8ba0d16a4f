// SPDX-License-Identifier: GPL-2.0-or-later
// Redirects on disk and in memory: older stores, damage, entries that nobody has written, the tables.
#include <cstring>
#include <map>

#include "base/crc32c.hpp"
#include "spare_rig.hpp"
#include "store/entry.hpp"
#include "store/redirects.hpp"
#include "store/spare_blocks.hpp"
#include "store/store_format.hpp"

using namespace vitastor;
using namespace vitastor::test;

TEST_CASE("spare: a store of an older release is opened, and marked before the first redirect") {
    SpareRig rig;
    rig.start_store();
    CHECK(rig.put(1, 1, 0, 8, 100) == 0);
    rig.close();
    for (FakeDisk* disk : {&rig.loop.disks["data"]}) {
        Superblock super;
        memcpy(&super, disk->current.data(), sizeof(super));
        CHECK((super.incompatible & kSpareGranules) != 0);
        super.incompatible &= ~kSpareGranules;
        super.crc = 0;
        super.crc = crc32c(&super, sizeof(super));
        memcpy(disk->current.data(), &super, sizeof(super));
        memcpy(disk->durable.data(), &super, sizeof(super));
    }
    REQUIRE(rig.open() == 0);
    const auto bit = [&] {
        Superblock super;
        memcpy(&super, rig.loop.disks["data"].durable.data(), sizeof(super));
        return super.incompatible & kSpareGranules;
    };
    CHECK(rig.put(1, 2, 3, 1, 200) == 0);
    CHECK(bit() == 0);
    const Reaches reaches("a store of an older release gets a new feature");
    CHECK(rig.put(1, 3, 3, 2, 300) == 0);
    CHECK(bit() == kSpareGranules);
    REQUIRE(rig.reopen() == 0);
    CHECK(rig.tags(1) == Tags{100, 101, 102, 300, 301, 105, 106, 107});
}

TEST_CASE("spare: two owners of a granule, and a spare block that is a home, are damage") {
    for (int kind = 0; kind < 2; kind++) {
        SpareRig rig;
        rig.options.disable_data_fsync = rig.options.disable_meta_fsync = true;
        rig.options.atomic_write_size = 512;
        rig.start_store();
        CHECK(rig.put(1, 1, 0, 8, 100) == 0);
        CHECK(rig.put(2, 1, 0, 8, 100) == 0);
        CHECK(rig.put(1, 2, 2, 2, 200) == 0);
        CHECK(rig.put(2, 2, 2, 2, 300) == 0);
        rig.close();
        // The newest copy of the page with both entries, and the place in the last of them.
        FakeDisk& disk = rig.loop.disks["data"];
        uint8_t* found = nullptr;
        PageHeader newest{};
        for (uint64_t at = 16384; at < disk.small_sectors_below; at += kPageSize) {
            PageHeader header;
            memcpy(&header, disk.current.data() + at, sizeof(header));
            if (header.magic != kPageMagic || header.write_sequence < newest.write_sequence) continue;
            newest = header;
            found = disk.current.data() + at;
        }
        REQUIRE(found);
        uint8_t* last = nullptr;
        for (uint32_t at = 0; at < newest.used;) {
            EntryHeader entry;
            memcpy(&entry, found + sizeof(newest) + at, sizeof(entry));
            if (entry.flags & kEntrySpare) last = found + sizeof(newest) + at + sizeof(entry);
            at += entry.size;
        }
        REQUIRE(last);
        SparePlace place;
        memcpy(&place, last, sizeof(place));
        if (kind == 0) place.place -= 2;
        else place.block = 0;  // the home of the first object
        memcpy(last, &place, sizeof(place));
        newest.crc = crc32c(found + 8, kPageSize - 8);
        memcpy(found, &newest, sizeof(newest));
        CHECK(rig.open() == -EIO);
        CHECK(rig.store->error().find("belongs to") != std::string::npos);
        CHECK(rig.store->error().find("If other copies") != std::string::npos);
    }
}

TEST_CASE("spare: entries from the disk are checked") {
    Geometry geometry;
    geometry.block_size = 32768;
    geometry.granularity = 4096;
    geometry.granules = 8;
    geometry.bitmap_bytes = 1;
    geometry.checksums = false;
    geometry.block_count = 10;
    EntryView view;
    const auto moved = [&](std::vector<Redirect> runs, size_t cut = 0) {
        EntryHeader header{};
        header.type = EntryType::moved;
        header.count = static_cast<uint16_t>(runs.size());
        std::vector<uint8_t> bytes(sizeof(header) + runs.size() * sizeof(Redirect) - cut);
        header.size = static_cast<uint32_t>(bytes.size());
        memcpy(bytes.data(), &header, sizeof(header));
        if (!runs.empty()) memcpy(bytes.data() + sizeof(header), runs.data(), bytes.size() - sizeof(header));
        return decode_entry(geometry, bytes, view);
    };
    CHECK(moved({{1, 0, 2, 3, 0}, {2, 2, 6, 2, 0}}));
    CHECK_FALSE(moved({}));
    CHECK_FALSE(moved({{1, 0, 2, 3, 0}}, 1));
    CHECK_FALSE(moved({{1, 0, 0, 3, 0}}));                    // empty
    CHECK_FALSE(moved({{1, 0, 2, 7, 0}}));                    // beyond the spare block
    CHECK_FALSE(moved({{1, 7, 2, 0, 0}}));                    // beyond the object
    CHECK_FALSE(moved({{10, 0, 2, 3, 0}}));                   // no such block
    CHECK_FALSE(moved({{1, 2, 2, 3, 0}, {1, 3, 1, 0, 0}}));   // overlapping
    CHECK_FALSE(moved({{1, 2, 2, 3, 0}, {1, 0, 1, 0, 0}}));   // not in order
    CHECK_FALSE(moved({{1, 0, 65535, 65535, 0}}));
    const auto write = [&](uint8_t flags, uint16_t count, SparePlace place) {
        EntryHeader header{};
        header.type = EntryType::write;
        header.flags = flags;
        header.count = count;
        header.version = 1;
        std::vector<uint8_t> bytes(sizeof(header) + sizeof(place));
        header.size = static_cast<uint32_t>(bytes.size());
        memcpy(bytes.data(), &header, sizeof(header));
        memcpy(bytes.data() + sizeof(header), &place, sizeof(place));
        return decode_entry(geometry, bytes, view);
    };
    CHECK(write(kEntrySpare, 3, {9, 5, 0}));
    CHECK_FALSE(write(kEntrySpare, 3, {9, 6, 0}));
    CHECK_FALSE(write(kEntrySpare, 3, {10, 5, 0}));
    CHECK_FALSE(write(kEntrySpare, 0, {9, 5, 0}));
    CHECK_FALSE(write(kEntrySpare | kEntryCreate, 3, {9, 5, 0}));
    CHECK_FALSE(write(kEntrySpare | kEntryIntent | kEntryStable, 3, {9, 5, 0}));
    const auto decided = [&](uint8_t flags, uint16_t count, uint32_t decider, uint16_t place = 5) {
        EntryHeader header{};
        header.type = EntryType::write;
        header.flags = flags | kEntryStable;
        header.count = count;
        header.first = 2;
        header.version = 1;
        header.decider = decider;
        std::vector<uint8_t> bytes(sizeof(header) + (flags & kEntrySpare ? sizeof(SparePlace) : 0) + 4 * count);
        header.size = static_cast<uint32_t>(bytes.size());
        memcpy(bytes.data(), &header, sizeof(header));
        const SparePlace spare{9, place, 0};
        if (flags & kEntrySpare) memcpy(bytes.data() + sizeof(header), &spare, sizeof(spare));
        return decode_entry(geometry, bytes, view);
    };
    CHECK(decided(kEntryIntent | kEntrySpare, 4, 1));
    CHECK(view.deciding_granule() == 2);
    CHECK(view.spare_run().first == 3);
    CHECK(decided(kEntryIntent | kEntrySpare, 4, 4));
    CHECK(view.deciding_granule() == 5);
    CHECK(view.spare_run().first == 2);
    CHECK(view.spare_run().count == 3);
    CHECK(decided(kEntryIntent, 4, 2));
    CHECK(view.deciding_granule() == 3);
    CHECK_FALSE(decided(kEntryIntent | kEntrySpare, 4, 2));     // neither the first nor the last
    CHECK_FALSE(decided(kEntryIntent | kEntrySpare, 4, 4, 6));  // beyond the spare block
    CHECK_FALSE(decided(kEntryIntent, 4, 5));                   // outside of the range
    CHECK_FALSE(decided(kEntryIntent, 1, 1));                   // alone
    CHECK_FALSE(decided(0, 4, 1));                              // not announced
    const auto full = [&](std::vector<Redirect> runs, uint8_t allocated, uint32_t block = 4) {
        EntryHeader header{};
        header.type = EntryType::full;
        header.count = 1;
        header.version = 1;
        const VersionHeader version{1, block, kEntryStable, static_cast<uint16_t>(runs.size())};
        std::vector<uint8_t> bytes(sizeof(header) + sizeof(version) + 2 + runs.size() * sizeof(Redirect));
        header.size = static_cast<uint32_t>(bytes.size());
        memcpy(bytes.data(), &header, sizeof(header));
        memcpy(bytes.data() + sizeof(header), &version, sizeof(version));
        bytes[sizeof(header) + sizeof(version) + 1] = allocated;
        if (!runs.empty()) memcpy(bytes.data() + sizeof(header) + sizeof(version) + 2, runs.data(), runs.size() * sizeof(Redirect));
        return decode_entry(geometry, bytes, view);
    };
    CHECK(full({{1, 0, 2, 3, 0}}, 0x0f));
    CHECK_FALSE(full({{1, 0, 2, 3, 0}}, 0x01));       // of a granule that is not in use
    CHECK_FALSE(full({{4, 0, 2, 3, 0}}, 0x0f));       // in the home block
    CHECK_FALSE(full({{1, 0, 2, 3, 0}}, 0, kNoBlock));
}

TEST_CASE("spare: the table of redirects against a map") {
    Redirects table;
    std::map<uint32_t, std::vector<Redirect>> model;
    Random random(11);
    for (uint32_t step = 0; step < 60000; step++) {
        const auto slot = static_cast<uint32_t>(random.below(random.chance(50) ? 300 : 3000)) * 64;
        std::vector<Redirect> runs(random.chance(40) ? 0 : 1 + random.below(5));
        for (Redirect& run : runs) run = {static_cast<uint32_t>(random.below(100)), static_cast<uint16_t>(random.below(8)), 1, 2, 0};
        table.set(slot, runs);
        table.set_position(slot, step);
        if (runs.empty()) model.erase(slot);
        else model[slot] = runs;
        const auto other = static_cast<uint32_t>(random.below(3000)) * 64;
        const std::span<const Redirect> found = table.of(other);
        const auto place = model.find(other);
        REQUIRE(found.size() == (place == model.end() ? 0 : place->second.size()));
        if (!found.empty()) REQUIRE(memcmp(found.data(), place->second.data(), found.size_bytes()) == 0);
    }
    uint64_t count = 0;
    for (const auto& [slot, runs] : model) {
        count += runs.size();
        table.set(slot, {});
    }
    CHECK(count > 0);
    CHECK(table.run_count() == 0);
}

TEST_CASE("spare: no tail is wasted while several blocks are open, and empty blocks are given back once") {
    SpareBlocks spare;
    spare.reset(8);
    CHECK_FALSE(spare.take(1));
    spare.open(3);
    const auto five = spare.take(5);
    REQUIRE(five);
    CHECK_FALSE(spare.take(5));
    spare.open(4);
    const auto again = spare.take(5);
    REQUIRE(again);
    CHECK(again->block == 4);
    const auto three = spare.take(3);
    REQUIRE(three);
    CHECK(three->place == 5);
    spare.use(five->block, five->place, 5, 77);
    spare.use(five->block, five->place, 5, 77);  // another version of the same object
    spare.settle(*five, 5);
    CHECK(spare.live_granules() == 5);
    CHECK(spare.owners(five->block) == std::vector<uint32_t>{77});
    spare.release(five->block, five->place, 5, 1000);
    spare.settle(*again, 5);
    if (three->block == five->block) CHECK_FALSE(spare.count() == 0);
    spare.settle(*three, 3);
    std::map<uint32_t, uint64_t> empty;
    while (const auto block = spare.take_empty()) empty[block->block] = block->position;
    CHECK(empty == std::map<uint32_t, uint64_t>{{3, 1000}, {4, 0}});
    CHECK(spare.count() == 0);
}

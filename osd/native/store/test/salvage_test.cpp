// SPDX-License-Identifier: GPL-2.0-or-later
// Bit rot in the metadata log: found at start, named, and left out when told to.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "sim_rig.hpp"
#include "store/store_format.hpp"

using namespace vitastor;
using namespace vitastor::test;

namespace {

constexpr uint64_t kDiskSize = 8 << 20;
constexpr uint64_t kObjects = 60;

struct DamagedRig : SimRig {
    std::map<uint64_t, uint8_t> there;
    std::vector<uint8_t> good;
    std::vector<uint64_t> pages;  ///< byte offsets of log pages, in order of writing

    explicit DamagedRig(uint64_t seed, int steps = 500) : SimRig(seed) {
        add_disk("data", kDiskSize);
        change_disk("data", [](auto& disk) { disk.volatile_cache = false; });
        REQUIRE(open() == 0);
        for (int step = 1; step <= steps; step++) {
            const uint64_t number = world.random_u64() % kObjects;
            if (world.random_u64() % 8 == 0) {
                REQUIRE(remove(number, static_cast<uint64_t>(step)) == 0);
                there.erase(number);
            } else {
                const auto tag = static_cast<uint8_t>(1 + world.random_u64() % 255);
                const bool whole = !there.count(number) || world.random_u64() % 4 == 0;
                REQUIRE(write(number, static_cast<uint64_t>(step), 0, whole ? 8 : 1, tag) > 0);
                there[number] = tag;
            }
        }
        SimRig::close();
        good = world.peek("data", 0, kDiskSize);
        const std::vector<std::pair<uint64_t, uint64_t>> found = log_pages(good);
        for (const auto& [sequence, at] : found) pages.push_back(at);
    }
    /// {write number, byte offset} of all log pages, in order of writing.
    static std::vector<std::pair<uint64_t, uint64_t>> log_pages(const std::vector<uint8_t>& disk) {
        std::vector<std::pair<uint64_t, uint64_t>> found;
        for (uint64_t at = 4 * 4096; at < kDiskSize; at += 4096) {
            PageHeader header;
            memcpy(&header, disk.data() + at, sizeof(header));
            if (header.magic == kPageMagic) found.push_back({header.write_sequence, at});
        }
        std::sort(found.begin(), found.end());
        return found;
    }
    uint64_t newest_page() { return log_pages(world.peek("data", 0, kDiskSize)).back().second; }
    void restore() { world.poke("data", 0, good); }
    bool named(uint64_t number) const {
        char name[64];
        snprintf(name, sizeof(name), "object %llx:%llx is touched", static_cast<unsigned long long>(full_inode(1, 1)),
                 static_cast<unsigned long long>(number * options.block_size));
        return logger.count(LogLevel::error, name) > 0;
    }
    /// Everything is as it was or left out; what is left out was named. Returns the number of objects left out.
    uint64_t check(bool all_named) {
        uint64_t missing = 0;
        for (uint64_t number = 0; number < kObjects; number++) {
            const int value = read(number, 0);
            const int expected = there.count(number) ? there[number] : -ENOENT;
            if (value == expected) continue;
            missing++;
            CAPTURE(number);
            if (all_named) {
                CHECK(value == -ENOENT);
                CHECK(named(number));
            }
        }
        return missing;
    }
};

}  // namespace

TEST_CASE("one flipped bit anywhere in the log: refused with place and names, or started without what it touched") {
    uint64_t refused = 0, dropped = 0;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        DamagedRig rig(seed);
        for (int round = 0; round < 60; round++) {
            CAPTURE(seed);
            CAPTURE(round);
            rig.options.skip_damaged_metadata = rig.options.readonly = false;
            rig.restore();
            rig.logger.lines.clear();
            // The newest page of all is named by the checkpoint that closing has written.
            const uint64_t page = round < 5 ? rig.pages.back() : rig.pages[rig.world.random_u64() % rig.pages.size()];
            rig.world.flip_bit("data", page * 8 + rig.world.random_u64() % 32768);
            const std::vector<uint8_t> damaged = rig.world.peek("data", 0, kDiskSize);
            const int status = rig.open();
            CHECK((status < 0 || round >= 5));
            if (status == 0) {  // an outdated copy of a page, or one before the start of the log
                CHECK(rig.check(true) == 0);
                rig.close();
                continue;
            }
            refused++;
            CHECK(status == -EIO);
            CHECK_MESSAGE(rig.store->error().find("the metadata log is damaged at byte") != std::string::npos, rig.store->error());
            CHECK_MESSAGE(rig.store->error().find("skip_corrupted_meta_entries") != std::string::npos, rig.store->error());
            rig.close();
            CHECK(rig.world.peek("data", 0, kDiskSize) == damaged);

            rig.options.skip_damaged_metadata = rig.options.readonly = true;
            REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
            const bool all_named = rig.logger.count(LogLevel::error, "whose names are lost") == 0;
            const uint64_t left_out = rig.check(all_named);
            rig.close();
            CHECK(rig.world.peek("data", 0, kDiskSize) == damaged);

            rig.options.readonly = false;
            REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
            CHECK(rig.check(all_named) == left_out);
            if (all_named) dropped += left_out;
            // Once is enough, and the store can be written to.
            rig.options.skip_damaged_metadata = false;
            REQUIRE_MESSAGE(rig.reopen() == 0, rig.store->error());
            CHECK(rig.check(all_named) == left_out);
            for (uint64_t number = 0; number < kObjects; number++) CHECK(rig.write(number, 100000, 0, 8, 77) == 32768);
            REQUIRE(rig.reopen() == 0);
            for (uint64_t number = 0; number < kObjects; number++) CHECK(rig.read(number, 7) == 77);
            rig.close();
        }
    }
    CHECK(refused > 20);
    CHECK(dropped > 20);
}

TEST_CASE("both checkpoints are damaged: refused, or started with everything that the log holds") {
    for (const int steps : {3, 200, 500, 6000}) {  // the log goes round in the last one
        CAPTURE(steps);
        DamagedRig rig(7, steps);
        for (const uint64_t at : {4096 + 40, 8192 + 12}) rig.world.flip_bit("data", at * 8 + 3);
        std::vector<uint8_t> damaged = rig.world.peek("data", 0, kDiskSize);
        CHECK(rig.open() == -EIO);
        CHECK_MESSAGE(rig.store->error().find("both checkpoints of the metadata log are damaged") != std::string::npos, rig.store->error());
        CHECK_MESSAGE(rig.store->error().find("without the 0 objects") != std::string::npos, rig.store->error());
        rig.close();
        CHECK(rig.world.peek("data", 0, kDiskSize) == damaged);
        rig.options.skip_damaged_metadata = true;
        REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
        CHECK(rig.logger.count(LogLevel::error, "all of the log is read") > 0);
        CHECK(rig.check(true) == 0);
        rig.options.skip_damaged_metadata = false;  // once is enough
        REQUIRE_MESSAGE(rig.reopen() == 0, rig.store->error());
        CHECK(rig.check(true) == 0);
        for (uint64_t number = 0; number < kObjects; number++) CHECK(rig.write(number, 100000, 0, 8, 77) == 32768);
        REQUIRE(rig.reopen() == 0);
        for (uint64_t number = 0; number < kObjects; number++) CHECK(rig.read(number, 7) == 77);
        rig.close();

        // A page of the log as well: what it touched is named, or it is said that names are lost.
        rig.restore();
        rig.logger.lines.clear();
        for (const uint64_t at : {4096 + 40, 8192 + 12}) rig.world.flip_bit("data", at * 8 + 3);
        rig.world.flip_bit("data", (rig.pages[rig.pages.size() / 2] + 700) * 8);
        rig.options.skip_damaged_metadata = true;
        REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
        rig.check(rig.logger.count(LogLevel::error, "whose names are lost") == 0);
        rig.close();

        // Nothing can be read at all: refused either way, and it is said why.
        rig.restore();
        for (const uint64_t at : {4096 + 40, 8192 + 12}) rig.world.flip_bit("data", at * 8 + 3);
        for (const uint64_t page : rig.pages) rig.world.flip_bit("data", (page + 100) * 8);
        damaged = rig.world.peek("data", 0, kDiskSize);
        CHECK(rig.open() == -EIO);
        CHECK_MESSAGE(rig.store->error().find("nothing can be saved") != std::string::npos, rig.store->error());
        rig.close();
        CHECK(rig.world.peek("data", 0, kDiskSize) == damaged);
    }
}

TEST_CASE("the newest page rots before the power fails: noticed at the next start once the log has rested") {
    for (const bool rests : {false, true}) {
        CAPTURE(rests);
        DamagedRig rig(21, 200);
        REQUIRE(rig.open() == 0);
        for (uint64_t number = 0; number < 3; number++) REQUIRE(rig.write(number, 1000, 0, 8, 99) == 32768);
        const uint64_t before = rig.store->stats().device_bytes_written;
        rig.run_for(9 * runtime::kNsPerSecond);
        CHECK(rig.store->stats().device_bytes_written == before);
        if (rests) rig.run_for(12 * runtime::kNsPerSecond);
        CHECK(rig.store->stats().device_bytes_written == before + (rests ? 4096 : 0));
        if (rests) {  // once
            rig.run_for(100 * runtime::kNsPerSecond);
            CHECK(rig.store->stats().device_bytes_written == before + 4096);
        }
        const uint64_t newest = rig.newest_page();
        rig.crash();
        rig.world.flip_bit("data", newest * 8 + 700);
        const int status = rig.open();
        if (!rests) {  // it looks like a page that was being written: what it held is gone
            CHECK(status == 0);
            rig.close();
            continue;
        }
        CHECK(status == -EIO);
        CHECK_MESSAGE(rig.store->error().find("the newest pages, which a checkpoint names, are not readable") != std::string::npos, rig.store->error());
        rig.close();
        rig.options.skip_damaged_metadata = true;
        REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
        CHECK(rig.named(2));
        rig.close();
    }
}

TEST_CASE("an end that a power failure has left unnamed is named when the store has rested after the start") {
    DamagedRig rig(22, 50);
    REQUIRE(rig.open() == 0);
    REQUIRE(rig.write(1, 1000, 0, 8, 99) == 32768);
    rig.crash();
    REQUIRE(rig.open() == 0);
    rig.run_for(21 * runtime::kNsPerSecond);
    const uint64_t newest = rig.newest_page();
    rig.crash();
    rig.world.flip_bit("data", newest * 8 + 5000);
    CHECK(rig.open() == -EIO);
    rig.close();
}

TEST_CASE("a sector of the log that cannot be read: the others of its chunk are read one by one") {
    DamagedRig rig(5, 900);
    rig.options.skip_damaged_metadata = true;
    uint64_t damaged = 0;
    for (uint64_t page = 0; page < 40; page++) {
        CAPTURE(page);
        rig.restore();
        rig.logger.lines.clear();
        // A start reads the superblock, the checkpoints, then chunks of the log.
        const uint64_t before = rig.world.disk_operations("data");
        rig.world.fail_operation("data", before + 3, -EIO);
        rig.world.fail_operation("data", before + 4 + page, -EIO);
        REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
        CHECK(rig.logger.count(LogLevel::error, "cannot be read at byte") == 1);
        CHECK(rig.logger.count(LogLevel::error, "whose names are lost") == 1);
        damaged += rig.check(false) > 0;
        rig.options.skip_damaged_metadata = false;
        REQUIRE_MESSAGE(rig.reopen() == 0, rig.store->error());
        rig.close();
        rig.options.skip_damaged_metadata = true;
    }
    CHECK(damaged > 0);
    CHECK(damaged < 40);
}

TEST_CASE("garbage of any kind: a store that opens, or a text that says why not; what opened opens again") {
    uint64_t opened = 0;
    for (uint64_t seed = 11; seed <= 13; seed++) {
        DamagedRig rig(seed, 300);
        rig.options.skip_damaged_metadata = true;
        for (int round = 0; round < 60; round++) {
            CAPTURE(seed);
            CAPTURE(round);
            rig.restore();
            rig.logger.lines.clear();
            const uint64_t hits = 1 + rig.world.random_u64() % 4;
            for (uint64_t i = 0; i < hits; i++) {
                const uint64_t page = rig.pages[rig.world.random_u64() % rig.pages.size()];
                std::vector<uint8_t> bytes(1 + rig.world.random_u64() % 3000);
                for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(rig.world.random_u64());
                const uint64_t at = page + rig.world.random_u64() % (4096 - bytes.size());
                rig.world.poke("data", at, bytes);
            }
            if (rig.open() == 0) {
                opened++;
                for (uint64_t number = 0; number < kObjects; number++) CHECK(rig.write(number, 100000, 0, 8, 78) == 32768);
                rig.options.skip_damaged_metadata = false;
                REQUIRE_MESSAGE(rig.reopen() == 0, rig.store->error());
                for (uint64_t number = 0; number < kObjects; number++) CHECK(rig.read(number, 3) == 78);
                rig.options.skip_damaged_metadata = true;
            } else {
                CHECK(!rig.store->error().empty());
            }
            rig.close();
        }
    }
    CHECK(opened > 150);
}

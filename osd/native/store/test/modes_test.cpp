// SPDX-License-Identifier: GPL-2.0-or-later
// Commit modes and I/O modes: how often each device is flushed, what is durable, what the log warns of.
#include <doctest/doctest.h>

#include "sim_rig.hpp"

using namespace vitastor;
using namespace vitastor::test;
using runtime::FileIo;
using wire::ImmediateCommit;

namespace {

constexpr uint64_t kDiskSize = 64 << 20;

struct Counts {
    uint64_t data = 0, meta = 0, data_sync = 0, meta_sync = 0;
    bool operator==(const Counts&) const = default;
};

Counts counts(SimRig& rig) {
    const StoreStats stats = rig.store->stats();
    CHECK(stats.flushes == stats.data_flushes + stats.meta_flushes);
    return {stats.data_flushes, stats.meta_flushes, stats.data_sync_writes, stats.meta_sync_writes};
}

template <class Work>
Counts spent(SimRig& rig, Work work) {
    const Counts before = counts(rig);
    work();
    const Counts after = counts(rig);
    return {after.data - before.data, after.meta - before.meta, after.data_sync - before.data_sync,
            after.meta_sync - before.meta_sync};
}

}  // namespace

TEST_CASE("two devices: a write that is durable at once costs one flush of each; none with protected caches or O_SYNC") {
    struct Case {
        ImmediateCommit commit;
        bool data_cache, meta_cache, no_data_fsync, no_meta_fsync;
        FileIo data_io, meta_io;
        Counts fresh;      // 4 KB to a new object
        Counts block;      // a whole block to a new object
        Counts sync_once;  // SYNC after both
    };
    const FileIo d = FileIo::direct, s = FileIo::direct_sync, c = FileIo::cached;
    const auto all = ImmediateCommit::all, small = ImmediateCommit::small, none = ImmediateCommit::none;
    const Case cases[] = {
        {all, true, true, false, false, d, d, {1, 1, 0, 0}, {1, 1, 0, 0}, {0, 0, 0, 0}},
        {all, true, true, false, false, c, c, {1, 1, 0, 0}, {1, 1, 0, 0}, {0, 0, 0, 0}},
        {all, false, true, false, false, d, d, {0, 1, 0, 0}, {0, 1, 0, 0}, {0, 0, 0, 0}},
        {all, true, false, false, false, d, d, {1, 0, 0, 0}, {1, 0, 0, 0}, {0, 0, 0, 0}},
        {all, false, false, false, false, d, d, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}},
        {all, false, false, true, true, d, d, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}},
        {all, true, true, true, true, d, d, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}},
        {all, true, true, true, false, d, d, {0, 1, 0, 0}, {0, 1, 0, 0}, {0, 0, 0, 0}},
        {all, true, true, false, false, s, s, {0, 0, 1, 1}, {0, 0, 1, 1}, {0, 0, 0, 0}},
        {all, true, true, false, false, d, s, {1, 0, 0, 1}, {1, 0, 0, 1}, {0, 0, 0, 0}},
        {small, true, true, false, false, d, d, {1, 1, 0, 0}, {0, 0, 0, 0}, {1, 1, 0, 0}},
        {small, false, false, false, false, d, d, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}},
        {none, true, true, false, false, d, d, {0, 0, 0, 0}, {0, 0, 0, 0}, {1, 1, 0, 0}},
        {none, false, false, false, false, d, d, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}},
        {none, true, true, false, false, s, s, {0, 0, 1, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}},
    };
    int number = 0;
    for (const Case& the : cases) {
        CAPTURE(number++);
        SimRig rig;
        rig.add_disk("data", kDiskSize);
        rig.add_disk("meta", kDiskSize);
        rig.change_disk("data", [&](auto& disk) { disk.is_block_device = true, disk.volatile_cache = the.data_cache; });
        rig.change_disk("meta", [&](auto& disk) { disk.is_block_device = true, disk.volatile_cache = the.meta_cache; });
        rig.options.meta_device = "meta";
        rig.options.immediate_commit = the.commit;
        rig.options.disable_data_fsync = the.no_data_fsync;
        rig.options.disable_meta_fsync = the.no_meta_fsync;
        rig.options.data_io = the.data_io;
        rig.options.meta_io = the.meta_io;
        REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
        CHECK(spent(rig, [&] { CHECK(rig.write(1, 1, 0, 1, 7) == 4096); }) == the.fresh);
        CHECK(spent(rig, [&] { CHECK(rig.write(2, 1, 0, 8, 8) == 32768); }) == the.block);
        CHECK(spent(rig, [&] { CHECK(rig.sync() == 0); }) == the.sync_once);
        CHECK(spent(rig, [&] { CHECK(rig.sync() == 0); }) == Counts{});  // nothing is left to flush
        const bool durable = (!the.no_data_fsync || !the.data_cache) && (!the.no_meta_fsync || !the.meta_cache);
        if (!durable) continue;
        rig.crash();
        REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
        CHECK(rig.read(1, 0) == 7);
        CHECK(rig.read(2, 7) == 8);
    }
}

TEST_CASE("128 writes at once share their flushes") {
    SimRig rig;
    rig.add_disk("data", kDiskSize);
    REQUIRE(rig.open() == 0);
    std::vector<std::unique_ptr<SimOperation>> ops;
    const uint64_t before = rig.store->stats().flushes;
    for (uint64_t i = 0; i < 128; i++) {
        ops.push_back(rig.operation(StoreOp::write_stable, i, 1, 0, 1, 1));
        rig.start(*ops.back());
    }
    rig.run_until([&] {
        for (auto& op : ops)
            if (!op->done) return false;
        return true;
    });
    CHECK(rig.store->stats().flushes - before <= 32);
}

TEST_CASE("where settings promise more than the device, the log says what to do, once") {
    SimRig rig;
    rig.add_disk("data", kDiskSize);
    rig.change_disk("data", [](auto& disk) { disk.is_block_device = true; });
    rig.options.disable_data_fsync = true;
    REQUIRE(rig.open() == 0);
    CHECK(rig.logger.count(LogLevel::warning, "volatile write cache") == 1);
    CHECK(rig.logger.count(LogLevel::warning, "disable_data_fsync") == 1);
    CHECK(rig.logger.count(LogLevel::warning, "hdparm -W 0") == 1);
    rig.options.data_io = FileIo::cached;
    REQUIRE(rig.reopen() == 0);
    CHECK(rig.logger.count(LogLevel::warning, "page cache") == 1);
    rig.close();
    const size_t lines = rig.logger.lines.size();
    rig.options.data_io = FileIo::direct;
    rig.change_disk("data", [](auto& disk) { disk.volatile_cache = false; });
    REQUIRE(rig.reopen() == 0);
    for (size_t i = lines; i < rig.logger.lines.size(); i++) CHECK(rig.logger.lines[i].first != LogLevel::warning);
}

TEST_CASE("a file system that refuses direct I/O: a warning, flushes even if they were switched off, nothing lost") {
    for (bool no_fsync : {false, true}) {
        SimRig rig;
        rig.add_disk("data", kDiskSize);
        rig.change_disk("data", [](auto& disk) { disk.refuse_direct = true; });
        rig.options.disable_data_fsync = rig.options.disable_meta_fsync = no_fsync;
        REQUIRE(rig.open() == 0);
        CHECK(rig.logger.count(LogLevel::warning, "refuses direct I/O") == 1);
        CHECK(rig.logger.count(LogLevel::warning, "although disable_data_fsync is set") == no_fsync);
        for (uint64_t i = 0; i < 20; i++) CHECK(rig.write(i, 1, 0, 1 + i % 8, static_cast<uint8_t>(i + 1)) > 0);
        for (uint64_t i = 0; i < 20; i++) CHECK(rig.write(i, 2, 0, 1, static_cast<uint8_t>(i + 101)) > 0);
        CHECK(rig.store->stats().flushes >= 40);
        rig.crash();
        REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
        for (uint64_t i = 0; i < 20; i++) CHECK(rig.read(i, 0) == static_cast<int>(i + 101));
    }
}

TEST_CASE("read-only, by option and by a bit of a newer release: reads are served, writes refused, no byte changes") {
    for (bool by_bit : {false, true}) {
        SimRig rig(by_bit ? 3 : 4);
        rig.add_disk("data", kDiskSize);
        REQUIRE(rig.open() == 0);
        for (uint64_t i = 0; i < 300; i++) CHECK(rig.write(i, 1, 0, 8, static_cast<uint8_t>(i)) == 32768);
        CHECK(rig.write(5, 2, 0, 1, 99) == 4096);
        CHECK(rig.remove(6, 2) == 0);
        // A write over data in use is on its way when the power goes: a start for writing would have to log what became of it.
        auto cut = rig.operation(StoreOp::write_stable, 7, 2, 0, 1, 98);
        rig.start(*cut);
        for (int i = 0; i < 3; i++) rig.world.step();
        REQUIRE_FALSE(cut->done);
        rig.crash();
        if (by_bit) {
            std::vector<uint8_t> page = rig.world.peek("data", 0, 4096);
            page[24] = 0x80;  // ro_compatible
            memset(page.data() + 8, 0, 4);
            const uint32_t crc = crc32c(page.data(), page.size());
            memcpy(page.data() + 8, &crc, 4);
            rig.world.poke("data", 0, page);
        } else {
            rig.options.readonly = true;
        }
        const std::vector<uint8_t> before = rig.world.peek("data", 0, kDiskSize);
        REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
        CHECK(rig.store->options().readonly);
        CHECK(rig.logger.count(LogLevel::warning, "opened read-only") == by_bit);
        for (uint64_t i = 0; i < 300; i++)
            if (i != 6 && i != 7) CHECK(rig.read(i, 0) == (i == 5 ? 99 : static_cast<int>(i % 256)));
        CHECK(rig.read(6, 0) == -ENOENT);
        const int seven = rig.read(7, 0);
        CHECK((seven == 7 || seven == 98));
        CHECK(rig.write(1000, 1, 0, 1, 1) == -EROFS);
        CHECK(rig.remove(1, 9) == -EROFS);
        auto stabilize = rig.operation(StoreOp::stabilize, 1, 1);
        CHECK(rig.run(*stabilize) == -EROFS);
        auto rollback = rig.operation(StoreOp::rollback, 1, 0);
        CHECK(rig.run(*rollback) == -EROFS);
        CHECK(rig.sync() == 0);
        rig.store->set_pool_pgs(1, 7, 1 << 20);
        rig.run_for(5 * runtime::kNsPerSecond);
        CHECK(rig.store->stats().device_bytes_written == 0);
        CHECK(rig.store->stats().flushes == 0);
        rig.close();
        CHECK(rig.world.peek("data", 0, kDiskSize) == before);
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
// Opening what is not as it should be: refused with a text that names the thing, and never changed, never a crash.
#include <doctest/doctest.h>

#include <cstring>

#include "rig.hpp"
#include "store/block_allocator.hpp"
#include "store/geometry.hpp"
#include "store/index.hpp"

using namespace vitastor;
using namespace vitastor::test;

namespace {

constexpr uint64_t kDiskSize = 6 << 20;

struct Made : Rig {
    explicit Made(uint64_t objects = 60) : Rig(1) {
        options.disable_data_fsync = true;
        make_disks(kDiskSize);
        REQUIRE(open() == 0);
        for (uint64_t i = 0; i < objects; i++) {
            auto op = write(object_id(1, i, 32768), 1, 0, 8, 100);
            run(*op);
            REQUIRE(op->result == op->len);
        }
        close();
    }
    std::vector<uint8_t>& disk() { return loop.disks["data"].current; }
    /// Opens, checks the error, and that nothing was written.
    void refused(int code, std::initializer_list<const char*> words) {
        const std::vector<uint8_t> image = disk();
        CHECK(open() == code);
        for (const char* word : words) CHECK_MESSAGE(store->error().find(word) != std::string::npos, store->error());
        close();
        CHECK(disk() == image);
    }
};

}  // namespace

TEST_CASE("an area that is too small names the size that is enough, and that size is enough") {
    for (uint32_t block_size : {4096u, 32768u, 131072u, 4194304u}) {
        Rig rig(1);
        rig.options.block_size = block_size;
        rig.options.bitmap_granularity = block_size == 4096 ? 512 : 4096;
        rig.make_disks(16384);
        CHECK(rig.open() == -ENOSPC);
        const std::string error = rig.store->error();
        const size_t place = error.find("at least ");
        REQUIRE_MESSAGE(place != std::string::npos, error);
        const uint64_t enough = strtoull(error.c_str() + place + 9, nullptr, 10);
        rig.close();
        rig.make_disks(enough - 4096);
        CHECK(rig.open() == -ENOSPC);
        rig.close();
        rig.make_disks(enough);
        REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
        CHECK(rig.store->stats().total_blocks == 8);
        auto op = rig.write(object_id(1, 1, block_size), 1, 0, rig.granules(), 100);
        rig.run(*op);
        CHECK(op->result == op->len);
    }
    Rig empty(1);
    empty.make_disks(0);
    CHECK(empty.open() == -ENOSPC);
    CHECK(empty.store->error().find("empty") != std::string::npos);
}

TEST_CASE("identity and geometry") {
    Made rig;
    rig.options.osd_num = 7;
    rig.refused(-EINVAL, {"OSD 1", "OSD 7"});
    rig.options.osd_num = 1;
    rig.options.block_size = 65536;
    rig.refused(-EINVAL, {"32768", "65536"});
    rig.options.block_size = 32768;
    rig.options.bitmap_granularity = 2048;
    rig.refused(-EINVAL, {"4096", "2048"});
    rig.options.bitmap_granularity = 4096;
    rig.options.checksums = false;
    rig.refused(-EINVAL, {"with", "without"});
    rig.options.checksums = true;
    rig.options.data_size = 5 << 20;
    rig.refused(-ENOSPC, {"cut off"});
    rig.options.data_size = 0;
    rig.options.block_size = 5000;
    rig.refused(-EINVAL, {"5000"});
    rig.options.block_size = 32768;
    CHECK(rig.open() == 0);
    CHECK(rig.store->stats().object_count == 60);
}

TEST_CASE("in use, missing, foreign, not formatted") {
    Made rig;
    rig.loop.disks["data"].locked = true;
    rig.refused(-EBUSY, {"data", "in use"});
    rig.loop.disks["data"].locked = false;
    rig.options.data_device = "nowhere";
    CHECK(rig.open() == -ENOENT);
    rig.close();
    rig.options.data_device = "data";
    memcpy(rig.disk().data(), "LABELONE", 8);
    rig.refused(-EINVAL, {"not a Vitastor store"});
    memset(rig.disk().data(), 0, rig.disk().size());
    rig.options.create = false;
    rig.refused(-ENOENT, {"no store yet"});
    rig.options.create = true;
    rig.options.readonly = true;
    rig.refused(-ENOENT, {"read-only"});
}

TEST_CASE("damaged superblock, unknown version, unknown features") {
    Made rig;
    const std::vector<uint8_t> good = rig.disk();
    for (size_t byte : {12u, 16u, 40u, 60u, 96u, 4000u}) {
        rig.disk() = good;
        rig.disk()[byte] ^= 0x40;
        CHECK(rig.open() < 0);
        rig.close();
    }
    rig.disk() = good;
    rig.disk()[500] ^= 1;
    rig.refused(-EIO, {"superblock is damaged"});
}

TEST_CASE("formatting that was interrupted is begun again; a blank data device under old metadata is not") {
    Rig rig(1);
    rig.options.disable_data_fsync = rig.options.disable_meta_fsync = true;
    for (uint64_t crash = 0; crash < 12; crash++) {
        rig.make_disks(2 << 20, 5 << 20);
        rig.loop.crash_at = rig.loop.io_count + crash;
        rig.open();
        REQUIRE_MESSAGE(rig.reopen() == 0, rig.store->error());
        rig.close();
    }
    rig.make_disks(2 << 20, 5 << 20);
    REQUIRE(rig.open() == 0);
    auto op = rig.write(object_id(1, 1, 32768), 1, 0, 8, 100);
    rig.run(*op);
    rig.close();
    const std::vector<uint8_t> data = rig.loop.disks["data"].current;
    memset(rig.loop.disks["data"].current.data(), 0, data.size());
    CHECK(rig.open() == -EINVAL);
    CHECK(rig.store->error().find("data area is empty") != std::string::npos);
    rig.close();
    rig.loop.disks["data"].current = data;
    memset(rig.loop.disks["meta"].current.data(), 0, rig.loop.disks["meta"].current.size());
    CHECK(rig.open() == -EINVAL);
    CHECK(rig.store->error().find("holds no metadata") != std::string::npos);
}

TEST_CASE("rot in the middle of the log is found at start") {
    Made rig;
    const std::vector<uint8_t> good = rig.disk();
    uint64_t pages = 0;
    for (uint64_t at = 4 * 4096; at < kDiskSize; at += 4096) {
        uint32_t magic;
        memcpy(&magic, good.data() + at, 4);
        if (magic != kPageMagic) continue;
        pages++;
    }
    REQUIRE(pages >= 2);
    uint64_t refused = 0, seen = 0;
    for (uint64_t at = 4 * 4096; at < kDiskSize; at += 4096) {
        uint32_t magic;
        memcpy(&magic, good.data() + at, 4);
        if (magic != kPageMagic) continue;
        seen++;
        rig.disk() = good;
        rig.disk()[at + 100] ^= 1;
        const int status = rig.open();
        if (status < 0) {
            refused++;
            CHECK(rig.store->error().find("log is damaged") != std::string::npos);
        } else {
            // An outdated copy of a page, or the newest page of all, which nothing vouches for.
            CHECK(rig.store->stats().object_count >= 1);
        }
        rig.close();
    }
    CHECK(refused >= 1);
    CHECK(seen == pages);
}

TEST_CASE("random garbage in the metadata area: an error or an opened store, never a crash") {
    Made rig;
    const std::vector<uint8_t> good = rig.disk();
    const uint64_t data_start = rig.loop.disks["data"].small_sectors_below;
    Random random(5);
    for (int round = 0; round < 300; round++) {
        rig.disk() = good;
        const uint64_t count = 1 + random.below(8);
        for (uint64_t i = 0; i < count; i++) {
            const uint64_t at = random.chance(50) ? random.below(40 * 4096) : random.below(data_start);
            const uint64_t length = 1 + random.below(64);
            for (uint64_t k = 0; k < length && at + k < data_start; k++)
                rig.disk()[at + k] = static_cast<uint8_t>(random.next());
        }
        if (rig.open() == 0) {
            auto op = rig.write(object_id(3, 1, 32768), 1, 0, 1, 5);
            rig.run(*op);
        } else {
            CHECK(!rig.store->error().empty());
        }
        rig.close();
    }
}

TEST_CASE("entries with valid checksums and senseless contents are refused") {
    StoreOptions options;
    Result<Geometry> checked = check_geometry(options);
    REQUIRE(checked.ok());
    Geometry geometry = checked.value();
    geometry.block_count = 100;
    Random random(7);
    uint64_t accepted = 0;
    for (int round = 0; round < 200000; round++) {
        uint8_t bytes[400];
        const size_t size = sizeof(EntryHeader) + random.below(sizeof(bytes) - sizeof(EntryHeader));
        for (size_t i = 0; i < size; i++) bytes[i] = random.chance(50) ? 0 : static_cast<uint8_t>(random.next());
        EntryHeader header;
        memcpy(&header, bytes, sizeof(header));
        header.size = static_cast<uint32_t>(size);
        header.type = static_cast<EntryType>(1 + random.below(6));
        header.count = static_cast<uint16_t>(random.below(40));
        header.first = static_cast<uint32_t>(random.below(40));
        memcpy(bytes, &header, sizeof(header));
        EntryView entry;
        accepted += decode_entry(geometry, {bytes, size}, entry);
    }
    CHECK(accepted > 0);
}

TEST_CASE("the allocator: every block once, lowest free ones found at any size") {
    for (uint64_t count : {1ull, 63ull, 64ull, 65ull, 4096ull, 5000ull, 300000ull}) {
        BlockAllocator blocks;
        blocks.reset(count);
        std::vector<bool> taken(count);
        for (uint64_t i = 0; i < count; i++) {
            const uint32_t block = blocks.allocate();
            REQUIRE(block < count);
            REQUIRE(!taken[block]);
            taken[block] = true;
        }
        CHECK(blocks.allocate() == kNoBlock);
        blocks.free(static_cast<uint32_t>(count / 2));
        CHECK(!blocks.take(static_cast<uint32_t>(count / 2 == 0 ? count : count / 2 - 1)));
        CHECK(blocks.allocate() == count / 2);
        blocks.free(0);
        CHECK(blocks.take(0));
        CHECK(blocks.free_count() == 0);
    }
}

TEST_CASE("many objects: memory per object, listing in slices, reload") {
    Rig rig(1);
    rig.options.block_size = 4096;
    rig.options.bitmap_granularity = 512;
    rig.options.disable_data_fsync = true;
    rig.make_disks(64 << 20);
    REQUIRE(rig.open() == 0);
    rig.store->set_pool_pgs(1, 3, 4096);
    constexpr uint64_t kCount = 9000;
    std::vector<std::unique_ptr<TestOp>> ops;
    for (uint64_t i = 0; i < kCount; i++) {
        ops.push_back(rig.write(object_id(1, i, 4096), 1, 0, 1, 1));
        rig.start(*ops.back());
        if (i % 200 == 0) rig.loop.drain();
    }
    rig.loop.drain();
    for (auto& op : ops) REQUIRE(op->result == 512);
    REQUIRE(rig.reopen() == 0);
    rig.store->set_pool_pgs(1, 5, 4096);
    size_t total = 0;
    for (PgNum pg = 1; pg <= 5; pg++) total += rig.list(1, pg).stable.size();
    CHECK(total == kCount);
    // Listing while objects come and go: each object that stays is there exactly once.
    struct Done : ListOperation {
        bool finished = false;
    } operation;
    operation.range = {1, 1, full_inode(1, 0), full_inode(2, 0) - 1};
    operation.on_done = [](ListOperation* self) { static_cast<Done*>(self)->finished = true; };
    rig.store->list(operation);
    std::vector<std::unique_ptr<TestOp>> deletes;
    for (uint64_t i = 0; i < 4500; i += 5) {
        deletes.push_back(rig.simple(StoreOp::del, object_id(1, i, 4096), 2));
        rig.start(*deletes.back());
    }
    while (!operation.finished) rig.loop.run_once(0);
    CHECK(operation.result == 0);
    std::vector<bool> seen(kCount);
    for (const auto& entry : operation.listing.stable) {
        CHECK(!seen[entry.object.stripe / 4096]);
        seen[entry.object.stripe / 4096] = true;
    }
    for (uint64_t i = 4500; i < kCount; i += 5) CHECK(seen[i]);
    rig.loop.drain();
    CHECK(rig.store->stats().object_count == kCount - 900);
}

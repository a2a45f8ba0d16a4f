// SPDX-License-Identifier: GPL-2.0-or-later
// What each operation answers, one case after another, on disks in memory.
#include <doctest/doctest.h>

#include <cstring>

#include "rig.hpp"

using namespace vitastor;
using namespace vitastor::test;

namespace {

constexpr uint64_t kDiskSize = 8 << 20;

void expect(Rig& rig, TestOp& op, int64_t result) {
    rig.run(op);
    CHECK(op.result == result);
}

struct Opened : Rig {
    explicit Opened(uint32_t block_size = 32768) : Rig(1) {
        options.block_size = block_size;
        make_disks(kDiskSize);
        REQUIRE_MESSAGE(open() == 0, store->error());
        store->set_pool_pgs(1, 4, 1 << 20);
    }
    ObjectId id(uint64_t number) const { return object_id(1, number, options.block_size); }
    void put(uint64_t number, Version version, uint32_t first, uint32_t count, uint32_t tag, bool stable = true) {
        auto op = write(id(number), version, first, count, tag, stable);
        run(*op);
        CHECK(op->result == op->len);
    }
    std::vector<uint32_t> tags(uint64_t number, Version version = kNewestVersion) {
        auto op = read(id(number), version, 0, granules());
        run(*op);
        if (op->result < 0) return {};
        std::vector<uint32_t> found;
        for (uint32_t i = 0; i < granules(); i++)
            found.push_back(read_granule(op->data + i * options.bitmap_granularity, options.bitmap_granularity));
        return found;
    }
};

using Tags = std::vector<uint32_t>;

}  // namespace

TEST_CASE("write, read, overwrite, across a restart") {
    Opened rig;
    rig.put(1, 1, 2, 3, 100);                   // fresh
    rig.put(1, 2, 6, 1, 200);                   // in place
    rig.put(1, 3, 3, 1, 300);                   // announced
    rig.put(1, 4, 4, 2, 400);                   // a granule that is in use decides, the other one is new
    rig.put(2, 65536 + 7, 0, 8, 500);           // whole
    rig.put(2, 65536 + 9, 0, 8, 600);           // whole again
    for (int round = 0; round < 2; round++) {
        CHECK(rig.tags(1) == Tags{0, 0, 100, 300, 400, 401, 200, 0});
        CHECK(rig.tags(2) == Tags{600, 601, 602, 603, 604, 605, 606, 607});
        CHECK(rig.store->stats().object_count == 2);
        CHECK(rig.store->stats().spare_blocks == 0);
        CHECK(rig.store->stats().free_blocks == rig.store->stats().total_blocks - 2);
        auto part = rig.read(rig.id(1), kNewestVersion, 1, 2);
        expect(rig, *part, 8192);
        CHECK(part->version == 4);
        CHECK(read_granule(part->data, 4096) == 0);
        CHECK(read_granule(part->data + 4096, 4096) == 100);
        REQUIRE(rig.reopen() == 0);
    }
    CHECK(rig.logger.errors == 0);
}

TEST_CASE("versions that are not newer are refused and change nothing") {
    Opened rig;
    rig.put(1, 5, 0, 8, 100);
    for (Version version : {Version{5}, Version{4}, Version{1}}) {
        auto op = rig.write(rig.id(1), version, 0, 1, 900);
        expect(rig, *op, -EEXIST);
        CHECK(op->version == 5);
    }
    auto zero = rig.write(rig.id(1), 0, 0, 1, 900);
    expect(rig, *zero, -EINVAL);
    CHECK(rig.tags(1)[0] == 100);
    CHECK(rig.store->stats().free_blocks == rig.store->stats().total_blocks - 1);
}

TEST_CASE("bad ranges are refused") {
    Opened rig;
    auto op = rig.write(rig.id(1), 1, 0, 1, 1);
    op->offset = 100;
    expect(rig, *op, -EINVAL);
    op->offset = 32768;
    op->version = 1;
    expect(rig, *op, -EINVAL);
    op->offset = 28672;
    op->version = 1;
    op->len = 8192;
    expect(rig, *op, -EINVAL);
    op->offset = 0;
    op->version = 1;
    expect(rig, *op, -EINVAL);  // len does not match the buffers
    auto read = rig.read(rig.id(1), kNewestVersion, 0, 1);
    read->len = 100;
    expect(rig, *read, -EINVAL);
    CHECK(rig.store->stats().object_count == 0);
}

TEST_CASE("missing objects") {
    Opened rig;
    auto read = rig.read(rig.id(1), kNewestVersion, 0, 1);
    expect(rig, *read, -ENOENT);
    CHECK(read->version == 0);
    auto bitmap = rig.simple(StoreOp::read_bitmap, rig.id(1), kNewestVersion);
    bitmap->bits = {0xff};
    bitmap->bitmap = bitmap->bits.data();
    expect(rig, *bitmap, 0);
    CHECK(bitmap->version == 0);
    CHECK(bitmap->bits[0] == 0);
    expect(rig, *rig.simple(StoreOp::del, rig.id(1), 3), 0);
    expect(rig, *rig.simple(StoreOp::rollback, rig.id(1), 3), 0);
    expect(rig, *rig.simple(StoreOp::stabilize, rig.id(1), 3), -ENOENT);
    uint8_t bits[1] = {0xff};
    CHECK(rig.store->peek(rig.id(1), kNewestVersion, bits) == 0);
    CHECK(bits[0] == 0);
}

TEST_CASE("the external bitmap: given, inherited, alone") {
    Opened rig;
    auto op = rig.write(rig.id(1), 1, 0, 1, 100);
    op->bits = {0x01};
    op->bitmap = op->bits.data();
    expect(rig, *op, 4096);
    rig.put(1, 2, 1, 1, 200);  // inherited
    uint8_t bits[1] = {};
    CHECK(rig.store->peek(rig.id(1), kNewestVersion, bits) == 2);
    CHECK(bits[0] == 0x01);
    auto alone = rig.write(rig.id(1), 3, 0, 0, 0);
    alone->bits = {0x83};
    alone->bitmap = alone->bits.data();
    expect(rig, *alone, 0);
    auto create = rig.write(rig.id(2), 1, 0, 0, 0);
    create->bits = {0x10};
    create->bitmap = create->bits.data();
    expect(rig, *create, 0);
    REQUIRE(rig.reopen() == 0);
    CHECK(rig.store->peek(rig.id(1), kNewestVersion, bits) == 3);
    CHECK(bits[0] == 0x83);
    CHECK(rig.tags(1) == Tags{100, 200, 0, 0, 0, 0, 0, 0});
    CHECK(rig.store->peek(rig.id(2), kNewestVersion, bits) == 1);
    CHECK(bits[0] == 0x10);
    CHECK(rig.tags(2) == Tags(8, 0));
    CHECK(rig.store->stats().free_blocks == rig.store->stats().total_blocks - 1);
}

TEST_CASE("unstable versions: several at a time, read at newest <= v, stabilise, roll back") {
    Opened rig;
    rig.put(1, 10, 0, 8, 100);
    rig.put(1, 11, 0, 1, 200, false);
    rig.put(1, 12, 1, 2, 300, false);
    rig.put(1, 13, 0, 0, 0, false);
    for (int round = 0; round < 2; round++) {
        CHECK(rig.tags(1, 10)[0] == 100);
        CHECK(rig.tags(1, 9).empty());
        CHECK(rig.tags(1, 11)[0] == 200);
        CHECK(rig.tags(1, 11)[1] == 101);
        CHECK(rig.tags(1)[1] == 300);
        rig.store->set_pool_pgs(1, 4, 1 << 20);
        const Listing listing = rig.list(1, 1);
        REQUIRE(listing.stable.size() == 1);
        CHECK(listing.stable[0].version == 10);
        CHECK(listing.unstable.size() == 3);
        CHECK(rig.store->stats().spare_granules == 3);  // the versions share the home block
        CHECK(rig.store->stats().free_blocks == rig.store->stats().total_blocks - 2);
        REQUIRE(rig.reopen() == 0);
    }
    auto stable = rig.write(rig.id(1), 14, 0, 1, 900);
    expect(rig, *stable, -EINVAL);
    expect(rig, *rig.simple(StoreOp::rollback, rig.id(1), 9), -EBUSY);
    expect(rig, *rig.simple(StoreOp::rollback, rig.id(1), 12), 0);
    expect(rig, *rig.simple(StoreOp::stabilize, rig.id(1), 13), -ENOENT);
    expect(rig, *rig.simple(StoreOp::stabilize, rig.id(1), 11), 0);
    expect(rig, *rig.simple(StoreOp::stabilize, rig.id(1), 11), 0);
    CHECK(rig.tags(1, 10).empty());
    CHECK(rig.tags(1, 11)[1] == 101);
    REQUIRE(rig.reopen() == 0);
    CHECK(rig.tags(1, 10).empty());
    CHECK(rig.tags(1)[2] == 301);
    expect(rig, *rig.simple(StoreOp::stabilize, rig.id(1), 12), 0);
    CHECK(rig.store->stats().free_blocks == rig.store->stats().total_blocks - 2);
    while (rig.store->stats().spare_blocks) rig.loop.run_once(0);  // idle: everything is moved home
    CHECK(rig.tags(1) == Tags{200, 300, 301, 103, 104, 105, 106, 107});
    CHECK(rig.store->stats().free_blocks == rig.store->stats().total_blocks - 1);
    rig.put(2, 1, 0, 1, 1, false);
    expect(rig, *rig.simple(StoreOp::rollback, rig.id(2), 0), 0);
    CHECK(rig.store->stats().object_count == 1);
}

TEST_CASE("delete, and create again with a low version") {
    Opened rig;
    rig.put(1, 70000, 0, 8, 100);
    rig.put(1, 70001, 3, 1, 200);
    expect(rig, *rig.simple(StoreOp::del, rig.id(1), 70002), 0);
    CHECK(rig.tags(1).empty());
    rig.put(1, 1, 2, 1, 300);
    REQUIRE(rig.reopen() == 0);
    CHECK(rig.tags(1) == Tags{0, 0, 300, 0, 0, 0, 0, 0});
    expect(rig, *rig.simple(StoreOp::del, rig.id(1), 0), 0);
    REQUIRE(rig.reopen() == 0);
    CHECK(rig.store->stats().object_count == 0);
    CHECK(rig.store->stats().free_blocks == rig.store->stats().total_blocks);
    CHECK(rig.store->space_by_inode().empty());
}

TEST_CASE("scattered and unaligned buffers") {
    Opened rig;
    auto op = rig.write(rig.id(1), 1, 0, 3, 100);
    memmove(op->data + 13, op->data, 3 * 4096);  // unaligned, cut in three at odd places
    iovec pieces[3] = {{op->data + 13, 1000}, {op->data + 1013, 5000}, {op->data + 6013, 3 * 4096 - 6000}};
    op->iov = pieces;
    op->iov_count = 3;
    expect(rig, *op, 3 * 4096);
    CHECK(rig.tags(1) == Tags{100, 101, 102, 0, 0, 0, 0, 0});
    auto read = rig.read(rig.id(1), kNewestVersion, 1, 3);
    std::vector<uint8_t> a(5000), b(3 * 4096 - 5000);
    iovec parts[2] = {{a.data(), a.size()}, {b.data(), b.size()}};
    read->iov = parts;
    read->iov_count = 2;
    expect(rig, *read, 3 * 4096);
    std::vector<uint8_t> whole(a);
    whole.insert(whole.end(), b.begin(), b.end());
    CHECK(read_granule(whole.data(), 4096) == 101);
    CHECK(read_granule(whole.data() + 4096, 4096) == 102);
    CHECK(read_granule(whole.data() + 8192, 4096) == 0);
}

TEST_CASE("a read that overlaps a write waits for it") {
    Opened rig;
    rig.put(1, 1, 0, 8, 100);
    auto write = rig.write(rig.id(1), 2, 3, 1, 200);
    auto read = rig.read(rig.id(1), kNewestVersion, 0, 8);
    auto bitmap = rig.simple(StoreOp::read_bitmap, rig.id(1), kNewestVersion);
    rig.start(*write);
    rig.start(*read);
    rig.start(*bitmap);
    CHECK(rig.store->peek(rig.id(1), kNewestVersion, nullptr) == 1);
    while (!read->done || !bitmap->done) rig.loop.run_once(0);
    CHECK(write->done);
    CHECK(read->result == 32768);
    CHECK(read->version == 2);
    CHECK(bitmap->version == 2);
    CHECK(read_granule(read->data + 3 * 4096, 4096) == 200);
}

TEST_CASE("listings: by PG, limited, and after a change of the PG count") {
    Opened rig;
    for (uint64_t i = 0; i < 100; i++) rig.put(i, 1, 0, 1, 100);
    size_t total = 0;
    for (PgNum pg = 1; pg <= 4; pg++) {
        int64_t result = 1;
        const Listing listing = rig.list(1, pg, &result);
        CHECK(result == 0);
        for (const auto& entry : listing.stable) CHECK(entry.object.stripe / (1 << 20) % 4 + 1 == pg);
        total += listing.stable.size();
    }
    CHECK(total == 100);
    const Listing limited = rig.list(1, 1, nullptr, 5);
    REQUIRE(limited.stable.size() == 5);
    for (uint64_t i = 0; i < 5; i++) CHECK(limited.stable[i].object == rig.id(i));
    int64_t result = 0;
    rig.list(1, 5, &result);
    CHECK(result == -EINVAL);
    rig.list(2, 1, &result);
    CHECK(result == -EAGAIN);
    rig.store->set_pool_pgs(1, 1, 4 << 20);
    CHECK(rig.list(1, 1).stable.size() == 100);
    rig.store->set_pool_pgs(1, 7, 32768);
    rig.store->set_pool_pgs(1, 9, 32768);
    total = 0;
    for (PgNum pg = 1; pg <= 9; pg++) total += rig.list(1, pg).stable.size();
    CHECK(total == 100);
    // A listing shows what was submitted before it.
    auto op = rig.write(rig.id(200), 1, 0, 1, 5);
    rig.start(*op);
    const PgNum pg = static_cast<PgNum>(200 % 9 + 1);
    const size_t before = 100 / 9 + (200 % 9 < 100 % 9 ? 1 : 0);
    CHECK(rig.list(1, pg).stable.size() == before + 1);
    CHECK(op->done);
    CHECK(rig.store->space_by_inode().size() == 1);
    CHECK(rig.store->space_by_inode()[0].bytes == 101 * 32768);
}

TEST_CASE("a full store refuses without side effects, and deletes make room") {
    Opened rig(131072);
    uint64_t written = 0;
    for (;; written++) {
        auto op = rig.write(rig.id(written), 1, 0, 32, 100);
        rig.run(*op);
        if (op->result == -ENOSPC) break;
        REQUIRE(op->result == op->len);
    }
    const StoreStats full = rig.store->stats();
    CHECK(written == full.total_blocks - full.free_blocks);
    CHECK(full.free_blocks <= 2);
    CHECK(rig.tags(written).empty());
    rig.put(0, 2, 3, 1, 200);  // announced
    rig.put(1, 2, 3, 2, 300);  // copied, through the reserve
    rig.put(2, 2, 0, 32, 400);
    // Many at a time share the reserve.
    std::vector<std::unique_ptr<TestOp>> ops;
    for (uint64_t i = 0; i < written; i++) ops.push_back(rig.write(rig.id(i), 5, 4, 3, 700));
    for (auto& op : ops) rig.start(*op);
    rig.loop.drain();
    for (auto& op : ops) CHECK(op->result == op->len);
    CHECK(rig.store->stats().free_blocks == full.free_blocks);
    auto unstable = rig.write(rig.id(0), 9, 0, 1, 800, false);
    expect(rig, *unstable, -ENOSPC);
    expect(rig, *rig.simple(StoreOp::del, rig.id(5), 9), 0);
    rig.put(written, 1, 0, 32, 500);
    REQUIRE(rig.reopen() == 0);
    CHECK(rig.store->stats().free_blocks == full.free_blocks);
    CHECK(rig.tags(0)[4] == 700);
}

TEST_CASE("damaged data answers EDOM, never wrong bytes, and a write repairs it") {
    Opened rig;
    rig.put(1, 1, 0, 8, 100);
    FakeDisk& disk = rig.loop.disks["data"];
    for (uint64_t at = disk.small_sectors_below; at < disk.current.size(); at += 4096)
        if (read_granule(disk.current.data() + at, 4096) == 103) disk.current[at + 77] ^= 1;
    auto read = rig.read(rig.id(1), kNewestVersion, 0, 8);
    expect(rig, *read, -EDOM);
    auto other = rig.read(rig.id(1), kNewestVersion, 4, 4);
    expect(rig, *other, 4 * 4096);
    CHECK(rig.store->stats().checksum_errors == 1);
    rig.put(1, 2, 6, 2, 200);  // copied: the damage goes along, still found
    auto again = rig.read(rig.id(1), kNewestVersion, 3, 1);
    expect(rig, *again, -EDOM);
    rig.put(1, 3, 0, 8, 300);
    CHECK(rig.tags(1)[3] == 303);
}

TEST_CASE("modes: what needs a flush gets one, and nothing else") {
    for (bool fsync : {true, false}) {
        for (auto mode : {wire::ImmediateCommit::none, wire::ImmediateCommit::small, wire::ImmediateCommit::all}) {
            Rig rig(1);
            rig.options.immediate_commit = mode;
            rig.options.disable_data_fsync = !fsync;
            rig.make_disks(kDiskSize);
            REQUIRE(rig.open() == 0);
            const uint64_t before = rig.store->stats().flushes;
            auto whole = rig.write(object_id(1, 1, 32768), 1, 0, 8, 100);
            rig.run(*whole);
            const uint64_t after_whole = rig.store->stats().flushes;
            auto part = rig.write(object_id(1, 2, 32768), 1, 0, 1, 100);
            rig.run(*part);
            const uint64_t after_part = rig.store->stats().flushes;
            CHECK((after_whole > before) == (fsync && mode == wire::ImmediateCommit::all));
            CHECK((after_part > after_whole) == (fsync && mode != wire::ImmediateCommit::none));
            auto sync = rig.simple(StoreOp::sync, {}, 0);
            expect(rig, *sync, 0);
            rig.loop.crash();
            REQUIRE(rig.reopen() == 0);
            CHECK(rig.store->stats().object_count == 2);
        }
    }
}

TEST_CASE("read-only: reads work, writes answer EROFS, nothing is written") {
    Opened rig;
    rig.put(1, 1, 0, 8, 100);
    rig.close();
    rig.options.readonly = true;
    const std::vector<uint8_t> image = rig.loop.disks["data"].current;
    REQUIRE(rig.open() == 0);
    CHECK(rig.tags(1)[2] == 102);
    auto op = rig.write(rig.id(1), 2, 0, 1, 200);
    expect(rig, *op, -EROFS);
    expect(rig, *rig.simple(StoreOp::del, rig.id(1), 2), -EROFS);
    expect(rig, *rig.simple(StoreOp::sync, {}, 0), 0);
    rig.close();
    CHECK(rig.loop.disks["data"].current == image);
}

TEST_CASE("errors of the device: a failed write changes nothing, a failed log ends writing") {
    Opened rig;
    rig.put(1, 1, 0, 8, 100);
    static uint64_t data_start;
    data_start = rig.loop.disks["data"].small_sectors_below;
    rig.loop.fail_io = [](const std::string&, bool is_write, uint64_t offset, uint64_t) -> int64_t {
        return is_write && offset >= data_start ? -EIO : 0;
    };
    for (uint32_t count : {1u, 2u, 8u}) {
        auto op = rig.write(rig.id(1), 2, 0, count, 200);
        expect(rig, *op, -EIO);
        CHECK(rig.tags(1)[0] == 100);
    }
    auto fresh = rig.write(rig.id(2), 1, 0, 8, 200);
    expect(rig, *fresh, -EIO);
    CHECK(rig.store->stats().object_count == 1);
    CHECK(rig.store->stats().free_blocks == rig.store->stats().total_blocks - 1);
    rig.loop.fail_io = nullptr;
    REQUIRE(rig.reopen() == 0);
    CHECK(rig.tags(1)[0] == 100);
    rig.put(1, 2, 0, 1, 300);
    rig.loop.fail_io = [](const std::string&, bool is_write, uint64_t offset, uint64_t) -> int64_t {
        return is_write && offset < data_start ? -EIO : 0;
    };
    auto op = rig.write(rig.id(1), 3, 0, 1, 400);
    expect(rig, *op, -EIO);
    rig.loop.fail_io = nullptr;
    auto later = rig.write(rig.id(1), 3, 0, 1, 400);
    expect(rig, *later, -EIO);
    CHECK(rig.tags(1)[0] == 300);
    REQUIRE(rig.reopen() == 0);
    CHECK(rig.tags(1)[1] == 101);
}

TEST_CASE("close in mode none writes what is waiting, also when the cleaner would want to work") {
    Opened rig;
    rig.close();
    rig.options.immediate_commit = wire::ImmediateCommit::none;
    REQUIRE(rig.open() == 0);
    // Few entries a page, until the cleaner has begun, then closed at once.
    Version version = 1;
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < 40; i++) rig.put(static_cast<uint64_t>(i), version, static_cast<uint32_t>(round % 8), 8 - static_cast<uint32_t>(round % 8), 100);
        version++;
        REQUIRE(rig.reopen() == 0);
        CHECK(rig.store->stats().object_count == 40);
    }
}

TEST_CASE("tombstones: left by deletes, seen by listings and writes, forgotten by version") {
    Rig rig(1);
    rig.options.max_tombstones = 3;
    rig.make_disks(8 << 20);
    REQUIRE(rig.open() == 0);
    rig.store->set_pool_pgs(1, 1, 32768);
    const auto remove = [&](uint64_t number, Version version, bool tombstone = true) {
        auto op = rig.simple(StoreOp::del, object_id(1, number, 32768), version);
        op->tombstone = tombstone;
        rig.run(*op);
        return op->result < 0 ? op->result : static_cast<int64_t>(op->version);
    };
    const auto write = [&](uint64_t number, Version version) {
        auto op = rig.write(object_id(1, number, 32768), version, 0, 2, 7);
        rig.run(*op);
        return op->result == -EEXIST ? -static_cast<int64_t>(op->version) : op->result;
    };
    CHECK(write(1, 5) == 8192);
    CHECK(remove(1, 6) == 6);
    CHECK(remove(2, 9) == 9);         // was never there
    CHECK(remove(2, 3) == 9);         // the newer one is kept
    CHECK(remove(3, 0) == 0);         // says nothing
    CHECK(remove(2, kNewestVersion) == -EINVAL);
    CHECK(write(4, 20) == 8192);
    CHECK(remove(4, 10) == 20);       // covers what was there
    CHECK(remove(5, 1) == -ENOSPC);   // max_tombstones
    CHECK(write(5, 1) == 8192);
    CHECK(remove(5, 2) == -ENOSPC);
    CHECK(remove(5, 2, false) == 2);  // without one
    CHECK(remove(2, 12, false) == 12);
    StoreStats stats = rig.store->stats();
    CHECK(stats.object_count == 0);
    CHECK(stats.tombstone_count == 3);
    CHECK(stats.free_blocks == stats.total_blocks);
    REQUIRE(rig.reopen() == 0);
    rig.store->set_pool_pgs(1, 1, 32768);
    CHECK(write(1, 6) == -6);
    CHECK(write(2, 9) == -9);
    CHECK(rig.store->tombstone(object_id(1, 2, 32768)) == 9);
    CHECK(rig.store->peek(object_id(1, 2, 32768), kNewestVersion, nullptr) == 0);
    auto read = rig.read(object_id(1, 1, 32768), kNewestVersion, 0, 1);
    rig.run(*read);
    CHECK(read->result == -ENOENT);
    Listing listing = rig.list(1, 1);
    CHECK(listing.stable.empty());
    CHECK(listing.unstable.empty());
    std::sort(listing.tombstones.begin(), listing.tombstones.end());
    REQUIRE(listing.tombstones.size() == 3);
    CHECK(listing.tombstones[0] == ObjectVersion{object_id(1, 1, 32768), 6});
    CHECK(listing.tombstones[1] == ObjectVersion{object_id(1, 2, 32768), 9});
    CHECK(listing.tombstones[2] == ObjectVersion{object_id(1, 4, 32768), 20});
    CHECK(write(1, 7) == 8192);  // creation above it takes its place
    CHECK(rig.store->tombstone(object_id(1, 1, 32768)) == 0);
    CHECK(rig.forget(1, 2, 9) == -EINVAL);
    CHECK(rig.forget(1, 1, 9) == 1);
    CHECK(write(2, 1) == 8192);
    CHECK(write(4, 20) == -20);
    REQUIRE(rig.reopen() == 0);
    stats = rig.store->stats();
    CHECK(stats.object_count == 2);
    CHECK(stats.tombstone_count == 1);
    rig.store->set_pool_pgs(1, 1, 32768);
    CHECK(rig.list(1, 1).stable.size() == 2);
}

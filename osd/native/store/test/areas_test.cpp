// SPDX-License-Identifier: GPL-2.0-or-later
// Where a store lies: areas of a shared device, a metadata device of its own, places far beyond 4 GB, devices of tens of TB.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>

#include "sim_rig.hpp"
#include "store/store_format.hpp"

using namespace vitastor;
using namespace vitastor::test;

namespace {

constexpr uint64_t kMiB = 1 << 20, kGiB = uint64_t{1} << 30, kTiB = uint64_t{1} << 40;

/// A second store in the world of a rig, in a process of its own.
struct Neighbour {
    explicit Neighbour(SimRig& rig) : world(rig.world), loop(rig.world.make_loop(rig.world.add_node())), options(rig.options) {}
    ~Neighbour() { close(); }
    int open() {
        store = create_store(*loop, options, logger);
        return finish([this](runtime::Completion& done) { store->open(done); });
    }
    void close() {
        if (!store) return;
        finish([this](runtime::Completion& done) { store->close(done); });
        store.reset();
    }
    int finish(const std::function<void(runtime::Completion&)>& begin) {
        struct Done : runtime::Completion {
            int64_t result = 1;
        } done;
        done.on_done = [](runtime::Completion* self, int64_t result) { static_cast<Done*>(self)->result = result; };
        begin(done);
        while (done.result == 1) VITASTOR_ASSERT(world.step());
        return static_cast<int>(done.result);
    }
    runtime::SimWorld& world;
    std::unique_ptr<runtime::Loop> loop;
    LinesLogger logger;
    StoreOptions options;
    std::unique_ptr<Store> store;
};

using ReadBytes = std::function<std::vector<uint8_t>(uint64_t offset, uint64_t length)>;
using WriteBytes = std::function<void(uint64_t offset, const std::vector<uint8_t>& bytes)>;

/// A store that holds one object in its first block: lets that object live in the last block instead, data and metadata.
/// Returns the byte offset of that block.
uint64_t move_to_far_end(const ReadBytes& read, const WriteBytes& write, uint64_t meta_area, uint64_t data_area) {
    const std::vector<uint8_t> page = read(meta_area, 4096);
    Superblock super;
    memcpy(&super, page.data(), sizeof(super));
    const uint64_t log = meta_area + super.log_offset;
    bool patched = false;
    for (uint64_t i = 0; i < 8; i++) {
        std::vector<uint8_t> bytes = read(log + i * 4096, 4096);
        PageHeader header;
        memcpy(&header, bytes.data(), sizeof(header));
        if (header.magic != kPageMagic || header.first_entry == kNoEntry) continue;
        EntryHeader entry;
        memcpy(&entry, bytes.data() + sizeof(header) + header.first_entry, sizeof(entry));
        REQUIRE(entry.type == EntryType::write);
        REQUIRE((entry.flags & kEntryBlock) != 0);
        const auto last = static_cast<uint32_t>(super.block_count - 1);
        memcpy(bytes.data() + sizeof(header) + header.first_entry + sizeof(entry), &last, 4);
        header.crc = 0;
        const uint32_t crc = crc32c(bytes.data() + 8, bytes.size() - 8);
        memcpy(bytes.data() + 4, &crc, 4);
        write(log + i * 4096, bytes);
        patched = true;
    }
    REQUIRE(patched);
    const uint64_t first = data_area + super.data_offset;
    const uint64_t end = first + (super.block_count - 1) * super.block_size;
    write(end, read(first, super.block_size));
    return end;
}

}  // namespace

TEST_CASE("OSDs on areas of one device: refused without disable_device_lock, and where areas overlap; apart otherwise") {
    SimRig one;
    one.add_disk("data", 48 * kMiB);
    one.options.data_size = 16 * kMiB;
    REQUIRE(one.open() == 0);
    Neighbour two(one);
    two.options.osd_num = 2;
    two.options.lock_wait_ms = 50;
    two.options.data_offset = 16 * kMiB;
    CHECK(two.open() == -EBUSY);
    CHECK(two.store->error().find("data_offset, data_size") != std::string::npos);
    CHECK(two.store->error().find("disable_device_lock") != std::string::npos);
    two.close();
    two.options.disable_device_lock = true;  // one side is not enough
    CHECK(two.open() == -EBUSY);
    CHECK(two.store->error().find("disable_device_lock") != std::string::npos);
    two.close();
    one.options.disable_device_lock = true;
    REQUIRE(one.reopen() == 0);
    two.options.data_offset = 16 * kMiB - 4096;
    CHECK(two.open() == -EBUSY);
    two.close();
    two.options.data_offset = 0;
    two.options.data_size = 0;
    CHECK(two.open() == -EBUSY);
    two.close();
    two.options.data_offset = 16 * kMiB;
    two.options.data_size = 32 * kMiB + 4096;
    CHECK(two.open() == -EINVAL);  // beyond the end of the device
    two.close();
    two.options.data_size = 0;
    REQUIRE_MESSAGE(two.open() == 0, two.store->error());
    uint64_t count = 0;
    while (one.write(count, 1, 0, 8, static_cast<uint8_t>(count)) == 32768) count++;  // to the last block
    CHECK(count > 400);
    two.close();
    REQUIRE_MESSAGE(two.open() == 0, two.store->error());
    CHECK(two.store->stats().object_count == 0);
    one.crash();
    REQUIRE_MESSAGE(one.open() == 0, one.store->error());
    for (uint64_t i = 0; i < count; i++) CHECK(one.read(i, 7) == static_cast<int>(i % 256));
    // The area of another OSD, given by mistake while that one is down.
    two.close();
    one.close();
    one.options.data_offset = 16 * kMiB;
    one.options.data_size = 0;
    CHECK(one.open() == -EINVAL);
    CHECK(one.store->error().find("OSD 2") != std::string::npos);
}

TEST_CASE("several OSDs share a metadata device") {
    SimRig one;
    one.add_disk("data", 64 * kMiB);
    one.add_disk("other", 64 * kMiB);
    one.add_disk("meta", 64 * kMiB);
    one.options.meta_device = "meta";
    one.options.meta_size = 32 * kMiB;
    one.options.disable_device_lock = true;
    REQUIRE_MESSAGE(one.open() == 0, one.store->error());
    Neighbour two(one);
    two.options.osd_num = 2;
    two.options.data_device = "other";
    two.options.lock_wait_ms = 50;
    CHECK(two.open() == -EBUSY);
    CHECK(two.store->error().find("meta_offset, meta_size") != std::string::npos);
    two.close();
    two.options.meta_offset = 32 * kMiB;
    REQUIRE_MESSAGE(two.open() == 0, two.store->error());
    for (uint64_t i = 0; i < 100; i++) CHECK(one.write(i, 1, 0, 8, 5) == 32768);
    two.close();
    REQUIRE(two.open() == 0);
    CHECK(two.store->stats().object_count == 0);
}

TEST_CASE("a metadata device that belongs to another OSD, another store or other data is refused, and nothing changes") {
    SimRig rig;
    for (const char* name : {"data", "meta", "data2", "meta2", "data3", "meta3"}) rig.add_disk(name, 24 * kMiB);
    const auto make = [&](OsdNum osd, const char* data, const char* meta) {
        rig.options.osd_num = osd;
        rig.options.data_device = data;
        rig.options.meta_device = meta;
        REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
        CHECK(rig.write(1, 1, 0, 8, static_cast<uint8_t>(osd)) == 32768);
        rig.close();
    };
    make(1, "data", "meta");
    make(2, "data2", "meta2");
    make(1, "data3", "meta3");  // the same number, another store
    const auto refused = [&](OsdNum osd, const char* data, const char* meta, const char* word) {
        CAPTURE(data);
        CAPTURE(meta);
        rig.options.osd_num = osd;
        rig.options.data_device = data;
        rig.options.meta_device = meta;
        const auto before_data = rig.world.peek(data, 0, 24 * kMiB);
        const auto before_meta = meta[0] ? rig.world.peek(meta, 0, 24 * kMiB) : std::vector<uint8_t>();
        CHECK(rig.open() < 0);
        CHECK_MESSAGE(rig.store->error().find(word) != std::string::npos, rig.store->error());
        rig.close();
        CHECK(rig.world.peek(data, 0, 24 * kMiB) == before_data);
        if (meta[0]) CHECK(rig.world.peek(meta, 0, 24 * kMiB) == before_meta);
    };
    refused(1, "data", "meta2", "OSD 2");
    refused(1, "data2", "meta", "OSD 2");
    refused(2, "data2", "meta", "OSD 1");
    refused(1, "data", "meta3", "another store");
    refused(1, "data3", "meta", "another store");
    refused(1, "meta", "data", "exchanged");
    refused(1, "data", "", "metadata device of its own");
    rig.add_disk("blank", 24 * kMiB);
    refused(1, "data", "blank", "holds no metadata");
    refused(1, "blank", "meta", "data area is empty");
    rig.options = StoreOptions(rig.options);
    rig.options.data_device = "data";
    rig.options.meta_device = "meta";
    REQUIRE(rig.open() == 0);
    CHECK(rig.read(1, 0) == 1);
}

TEST_CASE("areas far beyond 4 GB, on one device and on two") {
    for (bool separate : {false, true}) {
        CAPTURE(separate);
        SimRig rig;
        rig.add_disk("data", 20 * kTiB);
        rig.options.data_offset = 9 * kTiB + 4096 * 7;
        rig.options.data_size = 3 * kGiB;
        if (separate) {
            rig.add_disk("meta", 2 * kTiB);
            rig.options.meta_device = "meta";
            rig.options.meta_offset = kTiB + 5 * kGiB + 4096;
            rig.options.meta_size = 64 * kMiB;
        }
        REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
        for (uint64_t i = 0; i < 50; i++) CHECK(rig.write(i, 1, i % 8, 1, static_cast<uint8_t>(i + 1)) == 4096);
        rig.crash();
        REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
        for (uint64_t i = 0; i < 50; i++) CHECK(rig.read(i, static_cast<uint32_t>(i % 8)) == static_cast<int>(i + 1));
        rig.close();
        const std::vector<uint8_t> nothing(4096);
        CHECK(rig.world.peek("data", 0, 4096) == nothing);
        CHECK(rig.world.peek("data", rig.options.data_offset - 4096, 4096) == nothing);
        CHECK(rig.world.peek("data", rig.options.data_offset % (4 * kGiB), 4096) == nothing);
        if (separate) CHECK(rig.world.peek("meta", rig.options.meta_offset % (4 * kGiB), 4096) == nothing);
    }
}

TEST_CASE("64 TB: opened with few operations and bounded memory, written and read at its far end") {
    for (uint32_t block_size : {131072u, 4194304u}) {
        for (bool separate : {false, true}) {
            CAPTURE(block_size);
            CAPTURE(separate);
            SimRig rig;
            rig.options.block_size = block_size;
            rig.add_disk("data", 64 * kTiB);
            if (separate) {
                rig.add_disk("meta", kTiB);
                rig.options.meta_device = "meta";
            }
            REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
            const uint64_t blocks = rig.store->stats().total_blocks;
            CHECK(blocks > 63 * kTiB / block_size);
            CHECK(rig.store->stats().memory_bytes < blocks / 8 * 66 / 64 + 4 * kMiB);  // a bit a block
            const uint32_t granules = block_size / 4096;
            CHECK(rig.write(0, 1, 0, granules, 42) == block_size);
            rig.close();
            const std::string meta = separate ? "meta" : "data";
            uint64_t end = 0;
            {
                const WriteBytes write = [&](uint64_t at, const std::vector<uint8_t>& bytes) {
                    rig.world.poke(at >= 60 * kTiB || !separate ? "data" : "meta", at, bytes);
                };
                const uint64_t data_bytes = 64 * kTiB;
                const ReadBytes read = [&](uint64_t at, uint64_t length) {
                    return rig.world.peek(length == block_size ? "data" : meta, at, length);
                };
                end = move_to_far_end(read, write, 0, 0);
                CHECK(end > data_bytes - data_bytes / 10000);
            }
            const uint64_t before = rig.world.disk_operations("data") + (separate ? rig.world.disk_operations("meta") : 0);
            REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
            const uint64_t after = rig.world.disk_operations("data") + (separate ? rig.world.disk_operations("meta") : 0);
            CHECK(after - before < 40);
            CHECK(rig.read(0, granules - 1) == 42);
            CHECK(rig.write(0, 2, granules - 1, 1, 43) == 4096);
            CHECK(rig.write(1, 1, 0, granules, 44) == block_size);
            rig.crash();
            REQUIRE_MESSAGE(rig.open() == 0, rig.store->error());
            CHECK(rig.read(0, granules - 1) == 43);
            CHECK(rig.read(0, 0) == 42);
            CHECK(rig.read(1, 1) == 44);
            CHECK(rig.store->stats().free_blocks == blocks - rig.store->stats().object_count);
            CHECK(rig.world.peek("data", end, 1)[0] == 42);
        }
    }
}

TEST_CASE("a real sparse file of 40 TB") {
    char path[] = "/dev/shm/vitastor-sparse-XXXXXX";
    const int fd = mkstemp(path);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(40 * kTiB)) != 0) {
        MESSAGE("skipped: no sparse file of 40 TB in /dev/shm");
        if (fd >= 0) unlink(path), ::close(fd);
        return;
    }
    LinesLogger logger;
    StoreOptions options;
    options.osd_num = 1;
    options.data_device = path;
    options.immediate_commit = wire::ImmediateCommit::all;
    {
        runtime::LoopOptions loop_options;
        loop_options.kind = runtime::LoopKind::epoll;
        auto made = runtime::create_loop(loop_options, logger);
        REQUIRE(made.ok());
        runtime::Loop& loop = *made.value();
        struct Done : runtime::Completion {
            int64_t result = 1;
        } done;
        done.on_done = [](runtime::Completion* self, int64_t result) { static_cast<Done*>(self)->result = result; };
        Buffer buffer = loop.buffers().allocate(131072);
        iovec iov{buffer.data(), buffer.size()};
        const auto run = [&](Store& store, StoreOp op, Version version, uint8_t fill) {
            Operation operation;
            operation.op = op;
            operation.object = {full_inode(1, 1), 0};
            operation.version = version;
            operation.len = 131072;
            operation.iov = &iov;
            operation.iov_count = 1;
            memset(buffer.data(), fill, buffer.size());
            operation.result = INT64_MIN;
            operation.on_done = [](Operation*) {};
            store.submit(operation);
            while (operation.result == INT64_MIN) loop.run_once(runtime::kNever);
            return operation.result;
        };
        for (int round = 0; round < 3; round++) {
            CAPTURE(round);
            std::unique_ptr<Store> store = create_store(loop, options, logger);
            done.result = 1;
            store->open(done);
            while (done.result == 1) loop.run_once(runtime::kNever);
            REQUIRE_MESSAGE(done.result == 0, store->error());
            if (round == 0) CHECK(run(*store, StoreOp::write_stable, 1, 7) == 131072);
            if (round == 1) {
                CHECK(run(*store, StoreOp::read, kNewestVersion, 0) == 131072);
                CHECK(buffer.data()[131071] == 7);
                CHECK(run(*store, StoreOp::write_stable, 2, 8) == 131072);
            }
            if (round == 2) {
                CHECK(run(*store, StoreOp::read, kNewestVersion, 0) == 131072);
                CHECK(buffer.data()[0] == 8);
            }
            done.result = 1;
            store->close(done);
            while (done.result == 1) loop.run_once(runtime::kNever);
            store.reset();
            if (round == 0) {
                move_to_far_end(
                    [fd](uint64_t offset, uint64_t length) {
                        std::vector<uint8_t> bytes(length);
                        REQUIRE(pread(fd, bytes.data(), length, static_cast<off_t>(offset)) == static_cast<ssize_t>(length));
                        return bytes;
                    },
                    [fd](uint64_t offset, const std::vector<uint8_t>& bytes) {
                        REQUIRE(pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
                                static_cast<ssize_t>(bytes.size()));
                    },
                    0, 0);
            }
        }
    }
    unlink(path);
    ::close(fd);
}

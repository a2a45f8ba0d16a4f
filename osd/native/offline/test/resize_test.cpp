// SPDX-License-Identifier: GPL-2.0-or-later
// Resize: every object is there afterwards, with its data; and stopped at any I/O, the store opens as before or as after.
#include <doctest/doctest.h>

#include <cstring>

#include "../../store/test/rig.hpp"
#include "offline/job.hpp"

using namespace vitastor;
using namespace vitastor::test;
using namespace vitastor::offline;

namespace {

constexpr uint64_t kMb = 1 << 20;

struct Shape {
    const char* name;
    uint64_t disk = 8 * kMb, meta = 0;    ///< sizes; meta 0: one area
    uint64_t new_disk = 8 * kMb;          ///< the data device grows to that
    uint64_t new_size = 0;                ///< the data area is to be that long; 0: to the end
    const char* new_meta = "";            ///< "": one area
    uint64_t new_meta_size = 0;           ///< of the area
    uint64_t other_disk = 0;              ///< size of a third device "other"
    uint64_t meta_size = 0;               ///< of the area before
    uint32_t block_size = 32768;
    uint32_t keep_every = 3;              ///< of the objects that fill the area
    bool log_moves = true, blocks_move = true;
    uint32_t objects = 0;                 ///< found out
};

const Shape kShapes[] = {
    {.name = "grow in one area: the log goes to the end", .new_disk = 24 * kMb, .block_size = 4096, .keep_every = 16,
     .blocks_move = false},
    {.name = "shrink in one area: the log stays", .new_size = 7 * kMb, .log_moves = false},
    {.name = "a larger log in one area", .disk = 12 * kMb, .new_disk = 12 * kMb, .new_meta_size = 5 * kMb},
    {.name = "metadata to a device of their own", .new_meta = "other", .other_disk = 6 * kMb, .blocks_move = false},
    {.name = "metadata to a device of their own, smaller data area", .new_size = 6 * kMb, .new_meta = "other",
     .other_disk = 6 * kMb},
    {.name = "metadata back into one area", .meta = 4 * kMb},
    {.name = "metadata to another device", .meta = 4 * kMb, .new_meta = "other", .other_disk = 6 * kMb, .blocks_move = false},
    {.name = "larger data area, larger log on the same device", .meta = 20 * kMb, .new_disk = 40 * kMb, .new_meta = "meta",
     .new_meta_size = 19 * kMb, .meta_size = 6 * kMb, .block_size = 4096, .keep_every = 16, .blocks_move = false},
    {.name = "a larger log on the same device", .meta = 20 * kMb, .new_meta = "meta", .new_meta_size = 19 * kMb,
     .meta_size = 6 * kMb, .blocks_move = false},
    {.name = "smaller data area beside a metadata device", .meta = 4 * kMb, .new_size = 5 * kMb, .new_meta = "meta",
     .log_moves = false},
};

runtime::Task<void> run_to_end(FakeLoop& loop, const JobRequest& request, const Output& output, Logger& logger, std::string& error,
                               int& status) {
    runtime::Task<int> work = run_job(loop, request, output, logger, error);
    status = co_await work;
}

struct Made : Rig {
    Shape shape;
    StoreOptions after;
    std::vector<OracleObject> contents;
    std::vector<std::string> lines;
    std::string error;
    uint64_t next_object = 1000;

    explicit Made(const Shape& made, bool is_volatile = false, uint64_t seed = 1) : Rig(seed), shape(made) {
        options.disable_data_fsync = options.disable_meta_fsync = !is_volatile;
        options.immediate_commit = wire::ImmediateCommit::all;
        options.block_size = shape.block_size;
        options.bitmap_granularity = shape.block_size / 8;
        options.meta_size = shape.meta_size;
        make_disks(shape.disk, shape.meta);
        REQUIRE(open() == 0);
        // Full to the last block; then one in keep_every of the objects stays, all over the area.
        int64_t result = 0;
        for (shape.objects = 0; result != -ENOSPC; shape.objects += result != -ENOSPC) {
            const uint32_t i = shape.objects;
            auto op = write(object_id(1, i, options.block_size), 1, i % 3, granules() - i % 3, 1000 + 8 * i);
            run(*op);
            result = op->result;
            REQUIRE_MESSAGE((result == op->len || result == -ENOSPC), result);
        }
        for (uint32_t i = 0; i < shape.objects; i++) {
            if (i % shape.keep_every == 0) continue;
            auto op = simple(StoreOp::del, object_id(1, i, options.block_size), 9);
            op->Operation::tombstone = i % 5 == 0;
            run(*op);
        }
        for (uint32_t i = 0; i < shape.objects; i += shape.keep_every) {
            const uint32_t kind = i / shape.keep_every % 4;
            if (kind == 0) continue;
            // In place; to spare granules; and an unstable version
            auto op = write(object_id(1, i, options.block_size), 2, i % 5, kind == 2 ? 3 : 1, 5000 + 3 * i, kind != 3);
            run(*op);
            REQUIRE_MESSAGE(op->result == op->len, op->result);
        }
        contents = read_all();
        CHECK(store->stats().spare_blocks > 0);
        CHECK(store->stats().tombstone_count > 0);
        close();
        if (shape.new_disk > shape.disk) {
            loop.disks["data"].current.resize(shape.new_disk);
            loop.disks["data"].durable.resize(shape.new_disk);
        }
        if (shape.other_disk) loop.disks["other"] = FakeDisk(shape.other_disk);
        for (auto& [name, disk] : loop.disks) disk.is_volatile = is_volatile;
        for (auto& [name, disk] : loop.disks) disk.durable = disk.current, disk.unflushed.clear();
        after = options;
        after.data_size = shape.new_size;
        after.meta_device = shape.new_meta;
        after.meta_size = shape.new_meta_size;
    }
    std::vector<OracleObject> read_all() {
        std::vector<OracleObject> all;
        for (uint32_t i = 0; i < shape.objects; i++) {
            bool broken = false;
            all.push_back(inspect(object_id(1, i, options.block_size), &broken));
            if (broken) all.back().clear();
        }
        return all;
    }
    /// check finds nothing.
    void check(const StoreOptions& with) {
        JobRequest request;
        request.kind = JobKind::check;
        request.place.data_device = with.data_device;
        request.place.data_size = with.data_size;
        request.place.meta_device = with.meta_device;
        request.place.meta_size = with.meta_size;
        CHECK_MESSAGE(run_request(request) == 0, error);
        CHECK_MESSAGE(says("\"damages\":0"), lines.front(), "\n", lines.back());
    }
    int resize(ResizeMode mode = ResizeMode::really) {
        JobRequest request;
        request.kind = JobKind::resize;
        request.resize = mode;
        request.place.data_device = options.data_device;
        request.place.meta_device = options.meta_device;
        request.place.meta_size = options.meta_size;
        request.places.data_size = shape.new_size;
        request.places.meta_device = shape.new_meta;
        request.places.meta_size = shape.new_meta_size;
        return run_request(request);
    }
    int run_request(const JobRequest& request) {
        lines.clear();
        error.clear();
        int status = 1;
        const Output output = [this](std::string line) {
            lines.push_back(std::move(line));
            return true;
        };
        runtime::spawn(run_to_end(loop, request, output, logger, error, status));
        loop.drain();
        return status;
    }
    bool says(const char* word) const {
        for (const std::string& line : lines)
            if (line.find(word) != std::string::npos) return true;
        return false;
    }
    /// Opens as told; the contents must be those of before. Writes a little, so that a wrong idea of what is free shows.
    void verify(const StoreOptions& with, bool write_more) {
        const StoreOptions keep = options;
        options = with;
        REQUIRE_MESSAGE(open() == 0, store->error());
        const std::vector<OracleObject> now = read_all();
        for (uint32_t i = 0; i < shape.objects; i++) CHECK_MESSAGE(now[i] == contents[i], shape.name, ": object ", i, " ", describe(now[i]));
        if (write_more) {
            for (uint32_t i = 0; i < 10; i++) {
                auto op = write(object_id(2, next_object++, options.block_size), 1, 0, granules(), 9000 + i);
                run(*op);
                REQUIRE_MESSAGE(op->result == op->len, op->result);
            }
            close();
            REQUIRE_MESSAGE(open() == 0, store->error());
            CHECK(read_all() == now);
        }
        close();
        options = keep;
    }
};

}  // namespace

TEST_CASE("resize keeps every object") {
    for (const Shape& shape : kShapes) {
        INFO(std::string(shape.name));
        Made rig(shape);
        const auto disks = rig.loop.disks["data"].current;
        REQUIRE_MESSAGE(rig.resize(ResizeMode::dry_run) == 0, rig.error);
        CHECK(rig.loop.disks["data"].current == disks);
        CHECK(rig.says("\"changed\":true"));
        CHECK(rig.says("\"log_moved\":true") == shape.log_moves);
        CHECK(rig.says("\"moved_blocks\":0,") != shape.blocks_move);
        REQUIRE_MESSAGE(rig.resize() == 0, rig.error);
        CHECK(rig.says("\"done\":true"));
        rig.check(rig.after);
        rig.verify(rig.after, true);
        // Once more: nothing is left to do, whether the caller has written down where the store is or not.
        REQUIRE_MESSAGE(rig.resize() == 0, rig.error);
        if (rig.options.meta_device != shape.new_meta) CHECK(rig.says("\"changed\":false"));
        rig.options = rig.after;
        rig.verify(rig.after, true);
    }
}

TEST_CASE("there and back again, many times") {
    Shape shape = kShapes[2];
    shape.new_disk = 24 * kMb;
    Made rig(shape);
    const std::pair<uint64_t, uint64_t> sizes[] = {{24, 4}, {24, 5}, {20, 6}, {16, 3}, {24, 7}, {24, 0}, {10, 0}};
    for (const auto& [size, log_size] : sizes) {
        rig.shape.new_size = size * kMb;
        rig.shape.new_meta_size = log_size * kMb;
        REQUIRE_MESSAGE(rig.resize() == 0, rig.error);
        rig.options.data_size = rig.shape.new_size;
        rig.verify(rig.options, false);
    }
}

TEST_CASE("a log that is nearly full has room for what a resize has to say") {
    Shape shape = kShapes[4];
    shape.new_size = 6 * kMb;
    Made rig(shape);
    REQUIRE(rig.open() == 0);
    uint32_t version = 10;
    for (uint32_t round = 0; round < 12; round++) {  // a little further round the circle each time
        for (uint32_t i = 0; i < 4000; i++) {
            version++;
            auto op = rig.write(object_id(1, 0, rig.options.block_size), version, i % 8, 1, version);
            rig.run(*op);
            REQUIRE(op->result == op->len);
        }
        rig.contents = rig.read_all();
        rig.close();
        const auto disks = rig.loop.disks;
        REQUIRE_MESSAGE(rig.resize() == 0, rig.error);
        CHECK(!rig.says("\"moved_blocks\":0,"));
        rig.verify(rig.after, true);
        rig.loop.disks = disks;
        REQUIRE(rig.open() == 0);
    }
    rig.close();
}

TEST_CASE("what does not fit is refused, and nothing has changed") {
    Shape shape = kShapes[1];
    shape.new_size = 4 * kMb;
    Made rig(shape);
    const auto before = rig.loop.disks["data"].current;
    CHECK(rig.resize() == -ENOSPC);
    CHECK_MESSAGE(rig.error.find("blocks in use lie outside") != std::string::npos, rig.error);
    CHECK(rig.loop.disks["data"].current == before);
    rig.shape.new_size = 50 * kMb;
    CHECK(rig.resize() == -ENOSPC);
    CHECK(rig.error.find("larger first") != std::string::npos);
    rig.shape = kShapes[3];
    rig.loop.disks["other"] = FakeDisk(kMb);
    CHECK(rig.resize() == -ENOSPC);
    rig.loop.disks["other"] = FakeDisk(6 * kMb);
    memcpy(rig.loop.disks["other"].current.data(), "LABELONE", 8);
    CHECK(rig.resize() == -EEXIST);
    CHECK(rig.loop.disks["data"].current == before);
}

TEST_CASE("stopped at any I/O, the store opens as before or as after") {
    uint64_t points = 0, after_count = 0;
    for (const Shape& shape : kShapes) {
        INFO(std::string(shape.name));
        for (uint64_t n = 0;; n++) {
            Made rig(shape, true, n + 1);
            rig.loop.crash_at = rig.loop.io_count + n;
            const int status = rig.resize();
            const bool finished = !rig.loop.crashed;
            rig.loop.restart();
            if (finished) {
                CHECK(status == 0);
                break;
            }
            points++;
            CAPTURE(n);
            // Exactly one of the two opens.
            rig.options.create = rig.after.create = false;
            const bool as_before = rig.open() == 0;
            const std::string why = rig.store->error();
            rig.close();
            const bool same_device = shape.new_meta == rig.options.meta_device;
            if (as_before && same_device) {  // the same names: before or after
                rig.verify(rig.options, false);
                REQUIRE_MESSAGE(rig.resize() == 0, rig.error);
            } else if (as_before) {
                rig.verify(rig.options, false);
                const StoreOptions keep = rig.options;
                rig.options = rig.after;
                CHECK(rig.open() < 0);
                rig.close();
                rig.options = keep;
                REQUIRE_MESSAGE(rig.resize() == 0, rig.error);
            } else {
                after_count++;
                REQUIRE_MESSAGE((!same_device || rig.after.meta_size != rig.options.meta_size), why);
                REQUIRE_MESSAGE(rig.resize() == 0, rig.error);  // says that it is there already
            }
            rig.verify(rig.after, true);
        }
    }
    MESSAGE(points, " points, ", after_count, " of them open as after");
    CHECK(after_count > 0);
}

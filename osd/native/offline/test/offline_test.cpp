// SPDX-License-Identifier: GPL-2.0-or-later
// Dump and check of stores whose contents are known, whole and damaged.
#include <doctest/doctest.h>

#include <cstring>

#include "../../store/test/rig.hpp"
#include "base/crc32c.hpp"
#include "offline/disk_superblock.hpp"
#include "offline/job.hpp"
#include "store/store_format.hpp"

using namespace vitastor;
using namespace vitastor::test;
using namespace vitastor::offline;

namespace {

constexpr uint64_t kDiskSize = 6 << 20;

struct Ran {
    int status = 1;
    std::string error;
    std::vector<std::string> lines;
    /// Lines of a kind that hold all the words.
    size_t count(const std::string& kind, std::initializer_list<const char*> words = {}) const {
        size_t found = 0;
        for (const std::string& line : lines) {
            bool matches = line.rfind("{\"kind\":\"" + kind + "\"", 0) == 0;
            for (const char* word : words) matches = matches && line.find(word) != std::string::npos;
            found += matches;
        }
        return found;
    }
    std::string text() const {
        std::string all = error + "\n";
        for (const std::string& line : lines) all += line + "\n";
        return all;
    }
};

runtime::Task<void> run_to_end(FakeLoop& loop, const JobRequest& request, const Output& output, Logger& logger, Ran& ran) {
    runtime::Task<int> work = run_job(loop, request, output, logger, ran.error);
    ran.status = co_await work;
}

struct Made : Rig {
    explicit Made(uint64_t meta_size = 0, uint32_t small_writes = 0) : Rig(1) {
        options.disable_data_fsync = options.disable_meta_fsync = true;
        make_disks(kDiskSize, meta_size);
        REQUIRE(open() == 0);
        for (uint64_t i = 0; i < 60; i++) {
            auto op = write(object_id(1, i, options.block_size), 1, 0, granules(), 100 + static_cast<uint32_t>(i));
            run(*op);
            REQUIRE(op->result == op->len);
        }
        for (uint32_t i = 0; i < small_writes; i++) {
            auto op = write(object_id(1, 6 + i % 50, options.block_size), 2 + i / 50, i / 50 % 8, 1, 2000 + i);
            run(*op);
            REQUIRE(op->result == op->len);
        }
        auto small = write(object_id(1, 3, options.block_size), 2, 1, 1, 999);
        run(*small);
        auto unstable = write(object_id(1, 4, options.block_size), 2, 2, 1, 998, false);
        run(*unstable);
        auto gone = simple(StoreOp::del, object_id(1, 5, options.block_size), 1);
        run(*gone);
        auto left = simple(StoreOp::del, object_id(1, 500, options.block_size), 7);
        left->Operation::tombstone = true;
        run(*left);
        close();
    }
    Ran job(JobKind kind, LogForm form = LogForm::entries) {
        JobRequest request;
        request.kind = kind;
        request.form = form;
        request.place.data_device = options.data_device;
        request.place.meta_device = options.meta_device;
        Ran ran;
        const Output output = [&ran](std::string line) {
            ran.lines.push_back(std::move(line));
            return true;
        };
        runtime::spawn(run_to_end(loop, request, output, logger, ran));
        loop.drain();
        return ran;
    }
    std::vector<uint8_t>& disk(const char* name = "data") { return loop.disks[name].current; }
    /// Byte on the data device of a granule that holds the tag.
    size_t find_tag(uint32_t tag) {
        std::vector<uint8_t> wanted(options.bitmap_granularity);
        fill_granule(wanted.data(), options.bitmap_granularity, tag);
        for (size_t at = 0; at + wanted.size() <= disk().size(); at += 4096)
            if (memcmp(disk().data() + at, wanted.data(), wanted.size()) == 0) return at;
        return 0;
    }
};

}  // namespace

TEST_CASE("a sound store: dump names every object, check finds nothing, nothing is written") {
    for (uint64_t meta_size : {uint64_t{0}, uint64_t{4} << 20}) {
        Made rig(meta_size);
        const std::vector<uint8_t> before = rig.disk();
        const Ran dump = rig.job(JobKind::dump_objects);
        REQUIRE_MESSAGE(dump.status == 0, dump.text());
        CHECK(dump.count("object") == 60);
        CHECK(dump.count("object", {"\"writes\":[{\"version\":7,\"type\":\"delete\"}]"}) == 1);
        CHECK(dump.count("object", {"\"version\":2", "\"stable\":false"}) == 1);
        CHECK(dump.count("object", {"\"inode\":\"0x1\"", "\"pool\":1", "\"bitmap\":\"ff\""}) == 59);
        CHECK(dump.count("result", {"\"objects\":59", "\"versions\":60", "\"tombstones\":1", "\"damages\":0"}) == 1);
        const Ran check = rig.job(JobKind::check);
        REQUIRE_MESSAGE(check.status == 0, check.text());
        CHECK(check.count("damage") == 0);
        CHECK_MESSAGE(check.count("result", {"\"objects\":59", "\"damages\":0"}) == 1, check.text());
        const Ran log = rig.job(JobKind::dump_log);
        CHECK(log.count("entry", {"\"type\":\"write\"", "\"create\":true"}) == 60);
        CHECK(log.count("entry", {"\"type\":\"write\"", "\"intent\":true"}) == 1);
        CHECK(log.count("entry", {"\"type\":\"delete\""}) == 1);
        CHECK(rig.job(JobKind::dump_log, LogForm::pages).count("page") > 0);
        CHECK(rig.disk() == before);
        CHECK(rig.open() == 0);
    }
}

TEST_CASE("one flipped bit of data: check names object, version and bytes") {
    Made rig;
    const size_t at = rig.find_tag(166);
    REQUIRE(at > 0);
    rig.disk()[at + 77] ^= 4;
    const Ran check = rig.job(JobKind::check);
    REQUIRE(check.status == 0);
    CHECK_MESSAGE(check.count("damage") == 1, check.text());
    const std::string place = "\"offset\":" + std::to_string(at);
    CHECK_MESSAGE(check.count("damage", {"\"area\":\"data\"", "\"stripe\":\"0x1d8000\"", "version 1, bytes 28672", place.c_str()}) == 1,
                  check.text());
}

TEST_CASE("a data block that cannot be read: each granule of it is named, the others are still checked") {
    Made rig;
    rig.loop.fail_io = [](const std::string&, bool is_write, uint64_t offset, uint64_t length) -> int64_t {
        const uint64_t bad = 5 << 20;
        return !is_write && offset <= bad && bad < offset + length ? -EIO : 0;
    };
    const Ran check = rig.job(JobKind::check);
    CHECK(check.status == 0);
    CHECK(check.count("damage") <= 1);  // the place may be free
}

TEST_CASE("damage of the log: named with its place, and the objects behind it are still found") {
    Made rig(0, 600);
    const Ran pages = rig.job(JobKind::dump_log, LogForm::pages);
    REQUIRE(pages.count("page") > 4);
    const std::string& line = pages.lines[pages.lines.size() / 2];
    const uint64_t offset = strtoull(line.c_str() + line.find("\"offset\":") + 9, nullptr, 10);
    const std::vector<uint8_t> good = rig.disk();
    rig.disk()[offset + 1000] ^= 1;
    const Ran check = rig.job(JobKind::check);
    REQUIRE_MESSAGE(check.status == 0, check.text());
    CHECK_MESSAGE(check.count("damage", {"\"area\":\"log\"", "damaged at byte"}) >= 1, check.text());
    const Ran dump = rig.job(JobKind::dump_objects);
    CHECK_MESSAGE(dump.count("object") > 30, dump.text());
    CHECK(rig.open() == -EIO);  // the OSD refuses
    rig.close();
    rig.disk() = good;
    CHECK(rig.open() == 0);
}

TEST_CASE("damage of superblock and checkpoints") {
    Made rig(4 << 20);
    const std::vector<uint8_t> good = rig.disk("meta"), good_data = rig.disk();
    rig.disk("meta")[50] ^= 1;
    Ran check = rig.job(JobKind::check);
    CHECK(check.status == -EIO);
    CHECK(check.count("damage", {"\"area\":\"superblock\"", "\"device\":\"meta\""}) == 1);
    rig.disk("meta") = good;
    rig.disk()[50] ^= 1;
    check = rig.job(JobKind::check);
    CHECK(check.status == 0);
    CHECK(check.count("damage", {"\"area\":\"superblock\"", "\"device\":\"data\""}) == 1);
    rig.disk() = good_data;
    rig.disk("meta")[4096 + 30] ^= 1;
    check = rig.job(JobKind::check);
    CHECK(check.count("damage", {"\"area\":\"checkpoint\"", "\"offset\":4096"}) == 1);
    rig.disk("meta")[8192 + 30] ^= 1;
    check = rig.job(JobKind::check);
    CHECK(check.status == 0);
    CHECK(check.count("damage", {"both checkpoints are damaged"}) == 1);
    rig.disk("meta") = good;
    // The copy on the data device is sound, but describes another size: what an OSD refuses, the check names.
    Superblock copy;
    memcpy(&copy, rig.disk().data(), sizeof(copy));
    copy.block_count--;
    copy.crc = 0;
    copy.crc = crc32c(&copy, sizeof(copy));
    memcpy(rig.disk().data(), &copy, sizeof(copy));
    check = rig.job(JobKind::check);
    CHECK(check.status == 0);
    CHECK(check.count("damage", {"\"area\":\"superblock\"", "\"device\":\"data\"", "describe different sizes"}) == 1);
    CHECK(rig.open() == -EIO);
    rig.close();
}

TEST_CASE("a store in use, a foreign device, an empty one") {
    Made rig;
    rig.loop.disks["data"].locked = true;
    Ran check = rig.job(JobKind::check);
    CHECK(check.status == -EBUSY);
    CHECK(check.error.find("in use") != std::string::npos);
    rig.loop.disks["data"].locked = false;
    memcpy(rig.disk().data(), "LABELONE", 8);
    check = rig.job(JobKind::dump_objects);
    CHECK(check.status == -EINVAL);
    CHECK(check.error.find("not a Vitastor store") != std::string::npos);
    memset(rig.disk().data(), 0, rig.disk().size());
    CHECK(rig.job(JobKind::check).status == -ENOENT);
}

TEST_CASE("the superblock of vitastor-disk: there and back, every damaged byte is noticed") {
    const std::string json = "{\"osd_num\":1,\"data_device\":\"/dev/x\"}";
    Result<std::string> encoded = encode_disk_superblock(json);
    REQUIRE(encoded.ok());
    CHECK(encoded.value().size() == 4096);
    CHECK(memcmp(encoded.value().data(), "VITADisk", 8) == 0);
    auto bytes = reinterpret_cast<const uint8_t*>(encoded.value().data());
    Result<std::string> back = decode_disk_superblock(bytes, 4096);
    REQUIRE(back.ok());
    CHECK(back.value() == json);
    for (size_t i = 0; i < 16 + json.size(); i++) {
        std::string bad = encoded.value();
        bad[i] = static_cast<char>(bad[i] ^ 0x10);
        CHECK(!decode_disk_superblock(reinterpret_cast<const uint8_t*>(bad.data()), bad.size()).ok());
    }
    CHECK(!decode_disk_superblock(bytes, 12).ok());
    CHECK(!encode_disk_superblock(std::string(200000, 'x')).ok());
    CHECK(encode_disk_superblock(std::string(5000, 'x')).value().size() == 8192);
}

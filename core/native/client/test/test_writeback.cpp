// SPDX-License-Identifier: GPL-2.0-or-later
// The write-back cache: its bytes alone, one operation after the other, order and errors, and a model with crashes between flushes.
#include <doctest/doctest.h>

#include <random>

#include "fake_cluster.hpp"

using namespace fake;
using client::OpKind;
using client::WriteCache;

namespace {

constexpr uint64_t kSector = 512;

struct CacheWorld : World {
    explicit CacheWorld(std::string mode_in = "all", uint64_t max_bytes = 1 << 20, uint64_t max_ops = 1024, const char* retry_enospc = "1", const char* enable = "1")
        : World(std::move(mode_in)) {
        layers.options["client_retry_enospc"] = retry_enospc;
        if (*enable) layers.options["client_enable_writeback"] = enable;
        layers.file["client_max_buffered_bytes"] = std::to_string(max_bytes);
        layers.file["client_max_buffered_ops"] = std::to_string(max_ops);
        add_osd(1);
        add_osd(2);
        feed();
    }
    client::Image* open_cached(size_t index = 0, bool any = false) {
        client::ImageOptions options;
        options.name = "img";
        options.writeback = true;
        options.any_alignment = any;
        client::Image* image = create(std::move(options));
        return run(OpKind::open, image, 0, 0, {}, index) == 0 ? image : nullptr;
    }
    int writes() { return osds[1]->writes + osds[2]->writes; }
    void forget(client::Image* image) {
        close_image(image);
        std::erase(images, image);
    }
    /// What the OSDs hold, whatever a client has buffered.
    std::vector<uint8_t> stored(uint64_t offset, uint64_t length) {
        client::ImageOptions options;
        options.name = "img";
        options.read_only = true;
        client::Image* image = create(std::move(options));
        REQUIRE(run(OpKind::open, image, 0, 0, {}) == 0);
        auto data = read(image, offset, length);
        forget(image);
        return data;
    }
};

std::shared_ptr<WriteCache::Data> filled(WriteCache& cache, uint64_t size, uint8_t value) {
    auto data = cache.make_data(size);
    memset(data->bytes.get(), value, size);
    return data;
}

/// 0xee where nothing lies over it.
std::vector<uint8_t> view_of(const WriteCache& cache, uint64_t offset, uint64_t length) {
    std::vector<uint8_t> out(length, 0xee);
    std::vector<WriteCache::Piece> pieces;
    cache.collect(offset, length, pieces);
    for (const auto& piece : pieces) memcpy(&out[piece.offset - offset], piece.data->bytes.get() + piece.data_offset, piece.length);
    return out;
}

}  // namespace

TEST_CASE("bytes of the cache: random writes, runs that end well and badly, against an array") {
    for (uint32_t seed = 1; seed <= 20; seed++) {
        std::mt19937 random(seed);
        constexpr uint64_t kSize = 64 << 10, kObject = 16 << 10;
        WriteCache cache;
        std::vector<uint8_t> model(kSize, 0xee);       // what a read over the cache shows
        std::vector<uint8_t> below(kSize, 0xee);       // what was written out
        std::vector<WriteCache::Run> under_way;
        uint64_t cut = 0;
        for (int step = 0; step < 2000; step++) {
            const uint32_t what = random() % 8;
            if (what < 4) {
                const uint64_t length = 1 + random() % (random() % 4 ? 600 : 20000), offset = random() % (kSize - length);
                const auto value = static_cast<uint8_t>(random() % 200);
                cache.put(offset, filled(cache, length, value), 1);
                memset(&model[offset], value, length);
                if (random() % 16 == 0) cut = cache.last_seq();
            } else if (what < 6) {
                WriteCache::Run run;
                const uint64_t begin = random() % kSize, end = begin + random() % kSize;
                if (cache.take(random() % 2 ? UINT64_MAX : cut, begin, end, kObject, run)) {
                    REQUIRE(run.offset / kObject == (run.offset + run.length - 1) / kObject);
                    uint64_t at = run.offset;
                    for (const auto& piece : run.pieces) {
                        REQUIRE(piece.offset == at);
                        at += piece.length;
                    }
                    REQUIRE(at == run.offset + run.length);
                    for (const auto& other : under_way)
                        REQUIRE((other.offset >= at || other.offset + other.length <= run.offset));
                    under_way.push_back(std::move(run));
                }
            } else if (!under_way.empty()) {
                const size_t index = random() % under_way.size();
                WriteCache::Run run = std::move(under_way[index]);
                under_way.erase(under_way.begin() + static_cast<ptrdiff_t>(index));
                const bool ok = random() % 3 > 0;
                if (ok)
                    for (const auto& piece : run.pieces)
                        memcpy(&below[piece.offset], piece.data->bytes.get() + piece.data_offset, piece.length);
                cache.ended(run, ok);
            }
            const uint64_t offset = random() % kSize, length = 1 + random() % (kSize - offset);
            auto shown = view_of(cache, offset, length);
            for (uint64_t i = 0; i < length; i++)
                if (shown[i] == 0xee) shown[i] = below[offset + i];
            REQUIRE(std::equal(shown.begin(), shown.end(), model.begin() + static_cast<ptrdiff_t>(offset)));
        }
        for (auto& run : under_way) cache.ended(run, false);
        under_way.clear();
        WriteCache::Run run;
        while (cache.take(UINT64_MAX, 0, UINT64_MAX, kObject, run)) {
            for (const auto& piece : run.pieces) memcpy(&below[piece.offset], piece.data->bytes.get() + piece.data_offset, piece.length);
            cache.ended(run, true);
        }
        run = {};
        CHECK(below == model);
        CHECK(cache.empty());
        CHECK(cache.bytes() == 0);
        CHECK(cache.buffers() == 0);
        CHECK(cache.bytes_taken() == 0);
        CHECK(cache.pieces_taken() == 0);
    }
}

TEST_CASE("what is written over while a flush is under way is still written out by it") {
    WriteCache cache;
    cache.put(0, filled(cache, 8192, 1), 1);
    const uint64_t cut = cache.last_seq();
    cache.put(4096, filled(cache, 8192, 2), 1);
    cache.put(65536, filled(cache, 4096, 3), 1);  // and what is new is not
    CHECK(cache.pending(cut, 0, 8192));
    uint64_t bytes = 0;
    for (WriteCache::Run run; cache.take(cut, 0, UINT64_MAX, 1 << 20, run); cache.ended(run, true)) {
        CHECK(run.offset + run.length <= 12288);
        for (const auto& piece : run.pieces)
            for (uint64_t i = 0; i < piece.length; i++)
                if (piece.data->bytes[piece.data_offset + i] == (piece.offset + i < 4096 ? 1 : 2)) bytes++;
    }
    CHECK(bytes == 12288);
    CHECK_FALSE(cache.pending(cut, 0, UINT64_MAX));
    CHECK(cache.bytes() == 4096);
    // The same when it is written over more than once, in pieces.
    cache.put(131072, filled(cache, 8192, 4), 1);
    const uint64_t second = cache.last_seq();
    cache.put(131072, filled(cache, 4096, 5), 1);
    cache.put(131072, filled(cache, 4096, 6), 1);
    WriteCache::Run run;
    REQUIRE(cache.take(second, 131072, 135168, 1 << 20, run));
    CHECK(run.offset == 131072);
    CHECK(run.pieces[0].data->bytes[0] == 6);
    cache.ended(run, true);
}

TEST_CASE("a shrink drops what lies behind the end, unless the writer knew a newer map") {
    WriteCache cache;
    cache.put(0, filled(cache, 8192, 1), 5);
    cache.cut_off(4096, 4);
    CHECK(view_of(cache, 0, 8192)[8191] == 1);
    cache.cut_off(4096, 6);
    CHECK(view_of(cache, 0, 8192)[4095] == 1);
    CHECK(view_of(cache, 0, 8192)[4096] == 0xee);
}

TEST_CASE("off by default: without the setting, and without the owner's leave") {
    for (const bool setting : {false, true}) {
        CacheWorld world("all", 1 << 20, 1024, "1", setting ? "1" : "no");
        client::Image* image = setting ? world.open() : world.open_cached();
        REQUIRE(image);
        auto data = pattern(kGranule, 1);
        CHECK(world.write(image, 0, data) == kGranule);
        CHECK(world.writes() == 1);
    }
}

TEST_CASE("switched on and off for the cluster while images are open") {
    CacheWorld world("all", 1 << 20, 1000, "1", "");
    client::Image* image = world.open_cached();
    REQUIRE(image);
    auto data = pattern(kGranule, 1);
    CHECK_FALSE(image->writes_back);
    CHECK(world.write(image, 0, data) == kGranule);
    CHECK(world.writes() == 1);
    world.put("/config/global", R"({"client_enable_writeback":true})");
    REQUIRE(world.until([&] { return image->writes_back.load(); }));
    CHECK(world.write(image, kGranule, data) == kGranule);
    CHECK(world.writes() == 1);
    world.put("/config/global", R"({"client_enable_writeback":"maybe"})");
    REQUIRE(world.until([&] { return !image->writes_back; }));
    CHECK(world.logger.text.find("client_enable_writeback") != std::string::npos);
    CHECK(world.read(image, kGranule, kGranule) == data);
    CHECK(world.write(image, 2 * kGranule, data) == kGranule);
    CHECK(world.writes() == 2);
    CHECK(world.flush(image) == 0);
    CHECK(world.writes() == 3);
}

TEST_CASE("buffered writes are read back, merged and written out by a flush") {
    for (const char* mode : {"all", "none"}) {
        CacheWorld world(mode);
        client::Image* image = world.open_cached();
        REQUIRE(image);
        auto before = pattern(16 * kGranule, 50);
        REQUIRE(world.run(OpKind::write, image, 0, before.size(), {{before.data(), before.size()}}) == static_cast<int64_t>(before.size()));
        REQUIRE(world.flush(image) == 0);
        CHECK(world.writes() == 1);
        auto expected = before;
        for (uint64_t i : {3, 1, 2, 2, 9}) {
            auto data = pattern(kGranule, static_cast<uint8_t>(i + world.writes()));
            memcpy(&expected[i * kGranule], data.data(), kGranule);
            CHECK(world.write(image, i * kGranule, data) == kGranule);
        }
        CHECK(world.writes() == 1);
        const int reads = world.osds[1]->reads;
        CHECK(world.read(image, kGranule, 3 * kGranule) == std::vector<uint8_t>(&expected[kGranule], &expected[4 * kGranule]));
        CHECK(world.osds[1]->reads == reads);
        CHECK(world.read(image, 0, expected.size()) == expected);
        CHECK(world.osds[1]->reads == reads + 1);
        CHECK(world.stored(0, expected.size()) == before);
        CHECK(world.flush(image) == 0);
        CHECK(world.writes() == 3);  // granules 1 to 3 together, and 9
        CHECK(world.stored(0, expected.size()) == expected);
        if (mode == std::string("none")) CHECK(image->unsynced.empty());
        CHECK(image->cache->empty());
        // A second handle in another context sees what the first has buffered.
        auto more = pattern(kGranule, 99);
        CHECK(world.write(image, 5 * kGranule, more) == kGranule);
        client::Image* other = world.open("img", 1);
        REQUIRE(other);
        CHECK(world.read(other, 5 * kGranule, kGranule, 1) == more);
        CHECK(world.flush(other, 1) == 0);
        CHECK(image->cache->empty());
        CHECK(world.stored(5 * kGranule, kGranule) == more);
    }
}

TEST_CASE("discards, bitmaps, direct writes and compare-and-set come after what was buffered before them") {
    CacheWorld world;
    client::Image* image = world.open_cached();
    client::Image* direct = world.open();
    REQUIRE(image);
    REQUIRE(direct);
    auto data = pattern(kGranule, 7), other = pattern(kGranule, 8), third = pattern(kGranule, 9);
    const std::vector<uint8_t> zeros(kGranule);
    REQUIRE(world.write(image, 0, data) == kGranule);
    REQUIRE(world.write(image, kGranule, data) == kGranule);
    CHECK(world.run(OpKind::discard, image, 0, kGranule, {}) == kGranule);
    CHECK(world.read(image, 0, kGranule) == zeros);
    CHECK(world.flush(image) == 0);
    CHECK(world.read(image, 0, 2 * kGranule) == [&] {
        auto both = zeros;
        both.insert(both.end(), data.begin(), data.end());
        return both;
    }());
    REQUIRE(world.write(image, 4 * kGranule, data) == kGranule);
    uint8_t bits = 0;
    CHECK(world.run(OpKind::read_bitmap, image, 0, 8 * kGranule, {{&bits, 1}}) == 8);
    CHECK((bits & 0x10) != 0);
    REQUIRE(world.write(image, 0, data) == kGranule);
    REQUIRE(world.write(direct, 0, other) == kGranule);
    CHECK(world.read(image, 0, kGranule) == other);
    CHECK(world.flush(image) == 0);
    CHECK(world.stored(0, kGranule) == other);
    // A version that was read before something buffered went out does not count any more.
    uint64_t version = 0;
    std::vector<uint8_t> seen(kGranule);
    REQUIRE(world.run(OpKind::read, image, 0, kGranule, {{seen.data(), kGranule}}, 0, 0, &version) == kGranule);
    REQUIRE(world.write(image, kGranule, other) == kGranule);
    CHECK(world.run(OpKind::compare_write, image, 0, kGranule, {{third.data(), kGranule}}, 0, version) == -EINTR);
    CHECK(image->cache->empty());
    REQUIRE(world.run(OpKind::read, image, 0, kGranule, {{seen.data(), kGranule}}, 0, 0, &version) == kGranule);
    CHECK(world.run(OpKind::compare_write, image, 0, kGranule, {{third.data(), kGranule}}, 0, version) == kGranule);
    CHECK(world.read(image, 0, kGranule) == third);
    REQUIRE(world.write(image, 2 * kGranule, other) == kGranule);
    CHECK(world.run(OpKind::remove, image, 0, 0, {}, 0, UINT64_MAX) == 0);
    CHECK(world.read(image, 2 * kGranule, kGranule) == zeros);
    CHECK(image->cache->empty());
}

TEST_CASE("a newer write of a range waits until the older one has landed") {
    CacheWorld world;
    client::Image* image = world.open_cached();
    REQUIRE(image);
    auto first = pattern(kGranule, 1), second = pattern(kGranule, 2);
    REQUIRE(world.write(image, 0, first) == kGranule);
    world.osds[1]->fault = [](net::Request& request) { return request.opcode == wire::Opcode::write ? 1 : 0; };
    Done one, two;
    world.start(OpKind::flush, image, 0, 0, {}, one);
    REQUIRE(world.until([&] { return world.osds[1]->held() == 1; }));
    REQUIRE(world.write(image, 0, second) == kGranule);
    CHECK(world.read(image, 0, kGranule) == second);
    world.start(OpKind::flush, image, 0, 0, {}, two);
    auto elsewhere = pattern(kGranule, 3);
    REQUIRE(world.write(image, 4 * kGranule, elsewhere) == kGranule);
    CHECK(world.osds[1]->held() == 1);
    CHECK_FALSE(one.done);
    world.osds[1]->fault = nullptr;
    world.osds[1]->release_held();
    REQUIRE(world.until([&] { return one.done && two.done; }));
    CHECK(one.result == 0);
    CHECK(two.result == 0);
    CHECK(world.stored(0, kGranule) == second);
}

TEST_CASE("errors of writing out come with the flush, nothing is lost, and a later flush tries again") {
    CacheWorld world("all", 8 * kGranule, 1024, "0");
    client::Image* image = world.open_cached();
    REQUIRE(image);
    world.osds[1]->fault = [](net::Request& request) { return request.opcode == wire::Opcode::write ? -ENOSPC : 0; };
    auto data = pattern(kGranule, 1);
    REQUIRE(world.write(image, 0, data) == kGranule);
    CHECK(world.flush(image) == -ENOSPC);
    CHECK(world.flush(image) == -ENOSPC);
    CHECK(world.read(image, 0, kGranule) == data);
    // A full cache that cannot be written out takes no more.
    int64_t result = kGranule;
    for (uint64_t i = 1; i < 100 && result > 0; i++) result = world.write(image, i * kGranule, data);
    CHECK(result == -ENOSPC);
    CHECK(image->cache->bytes() <= 16 * kGranule);
    world.osds[1]->fault = nullptr;
    CHECK(world.flush(image) == 0);
    CHECK(world.stored(0, kGranule) == data);
    CHECK(image->cache->empty());
}

TEST_CASE("memory is bounded: writes wait for room, and what is full is written out by itself") {
    CacheWorld world("all", 16 * kGranule, 1000);
    client::Image* image = world.open_cached();
    REQUIRE(image);
    for (auto& [number, osd] : world.osds)
        osd->fault = [](net::Request& request) { return request.opcode == wire::Opcode::write ? 1 : 0; };
    auto data = pattern(kGranule, 1);
    std::vector<Done> done(100);
    for (size_t i = 0; i < done.size(); i++) world.start(OpKind::write, image, i * 2 * kGranule, kGranule, {{data.data(), kGranule}}, done[i]);
    const auto count = [&] { return std::count_if(done.begin(), done.end(), [](const Done& d) { return d.done; }); };
    REQUIRE(world.until([&] { return world.osds[1]->held() > 0; }));
    REQUIRE(world.until([&] { return count() == 32; }));
    CHECK(image->cache->bytes() == 32 * kGranule);
    Done flush;
    world.start(OpKind::flush, image, 0, 0, {}, flush);
    for (auto& [number, osd] : world.osds) {
        osd->fault = nullptr;
        osd->release_held();
    }
    REQUIRE(world.until([&] { return count() == 100; }));
    for (const Done& d : done) CHECK(d.result == kGranule);
    REQUIRE(world.until([&] { return flush.done; }));
    CHECK(world.flush(image) == 0);
    // By number as well, and a write of more than half of it passes by.
    world.put("/config/global", R"({"client_max_buffered_ops":2})");
    REQUIRE(world.until([&] { return world.contexts[0]->map()->global_config->count("client_max_buffered_ops") > 0; }));
    const int before = world.writes();
    for (uint64_t i = 0; i < 50; i++) REQUIRE(world.write(image, i * 2 * kGranule, data) == kGranule);
    CHECK(image->cache->buffers() <= 4);
    CHECK(world.writes() > before);
    auto large = pattern(kBlock, 3);
    CHECK(world.run(OpKind::write, image, 0, kBlock, {{large.data(), kBlock}}) == kBlock);
    CHECK(world.stored(0, kBlock) == large);
}

TEST_CASE("a shrink under buffered writes: nothing is written behind the new end") {
    CacheWorld world;
    client::Image* image = world.open_cached();
    REQUIRE(image);
    auto data = pattern(kGranule, 1);
    REQUIRE(world.write(image, 0, data) == kGranule);
    REQUIRE(world.write(image, 64 * kBlock, data) == kGranule);
    world.put("/config/inode/1/1", R"({"name":"img","size":1048576})");
    REQUIRE(world.until([&] { return image->size_bytes == 1048576; }));
    CHECK(world.flush(image) == 0);
    CHECK(world.writes() == 1);
    // What lies behind the end is not kept in memory either.
    REQUIRE(world.write(image, 64 * kBlock, data) == kGranule);
    CHECK(image->cache->empty());
}

TEST_CASE("a snapshot under buffered writes: they go to the layer on top") {
    CacheWorld world;
    client::Image* image = world.open_cached();
    REQUIRE(image);
    auto old = pattern(kGranule, 1), fresh = pattern(kGranule, 2);
    REQUIRE(world.write(image, 0, old) == kGranule);
    REQUIRE(world.flush(image) == 0);
    REQUIRE(world.write(image, 0, fresh) == kGranule);
    world.put("/config/inode/1/1", R"({"name":"img@0","size":1073741824,"readonly":true})");
    world.put("/config/inode/1/2", R"({"name":"img","size":1073741824,"parent_id":1})");
    REQUIRE(world.until([&] { return image->inode == full_inode(1, 2); }));
    CHECK(world.read(image, 0, kGranule) == fresh);
    CHECK(world.flush(image) == 0);
    const auto& objects = world.osds[1]->objects;
    REQUIRE(objects.count({full_inode(1, 2), 0}) == 1);
    CHECK(memcmp(objects.at({full_inode(1, 2), 0}).data.data(), fresh.data(), kGranule) == 0);
    CHECK(memcmp(objects.at({full_inode(1, 1), 0}).data.data(), old.data(), kGranule) == 0);
}

TEST_CASE("closing with something buffered and unwritten ends every operation once") {
    CacheWorld world("all", 4 * kGranule);
    client::Image* image = world.open_cached();
    REQUIRE(image);
    int refused = 0;
    for (auto& [number, osd] : world.osds)
        osd->fault = [&](net::Request& request) {
            refused += request.opcode == wire::Opcode::write;
            return request.opcode == wire::Opcode::write ? -EPIPE : 0;
        };
    auto data = pattern(kGranule, 1);
    std::vector<Done> done(20);
    Done flush;
    for (size_t i = 0; i < done.size(); i++) world.start(OpKind::write, image, i * kGranule, kGranule, {{data.data(), kGranule}}, done[i]);
    world.start(OpKind::flush, image, 0, 0, {}, flush);
    REQUIRE(world.until([&] { return refused > 0; }));
    for (auto& context : world.contexts) context->close();
    for (const Done& d : done) CHECK(d.runs == 1);
    CHECK(done.front().result == kGranule);
    CHECK(done.back().result == -ECANCELED);
    CHECK(flush.runs == 1);
    CHECK(flush.result == -ECANCELED);
}

namespace {

/// Of each sector: what was durable at the last flush, and everything written since. Values are numbers of writes; 0: zeroes.
struct Model {
    static constexpr uint64_t kSize = 6 * kBlock;
    std::vector<std::vector<uint32_t>> values = std::vector<std::vector<uint32_t>>(kSize / kSector, {0});
    uint32_t number = 0;

    static void fill(uint8_t* sector, uint32_t value) {
        for (uint64_t i = 0; i < kSector; i += 4) memcpy(sector + i, &value, 4);
    }
    std::vector<uint8_t> data(uint64_t offset, uint64_t length) const {
        std::vector<uint8_t> out(length);
        for (uint64_t at = 0; at < length; at += kSector) fill(&out[at], values[(offset + at) / kSector].back());
        return out;
    }
    void written(uint64_t offset, uint64_t length, uint32_t value) {
        for (uint64_t at = 0; at < length; at += kSector) values[(offset + at) / kSector].push_back(value);
    }
    void flushed() {
        for (auto& sector : values) sector = {sector.back()};
    }
    /// After a crash: each sector is one of them, and stays it.
    bool settle(const std::vector<uint8_t>& seen) {
        for (size_t i = 0; i < values.size(); i++) {
            bool known = false;
            for (uint32_t value : values[i]) {
                std::vector<uint8_t> sector(kSector);
                fill(sector.data(), value);
                if (memcmp(sector.data(), &seen[i * kSector], kSector)) continue;
                values[i] = {value};
                known = true;
                break;
            }
            if (!known) return false;
        }
        return true;
    }
};

}  // namespace

TEST_CASE("random operations through two contexts against a model, with kills between flushes") {
    for (const char* mode : {"all", "none"}) {
        for (uint32_t seed = 1; seed <= 6; seed++) {
            CAPTURE(seed);
            CacheWorld world(mode, 24 * kGranule, 40);
            const bool any = seed % 2;
            const uint64_t unit = any ? kSector : kGranule;
            world.layers.options["client_max_writeback_iodepth"] = std::to_string(1 + seed % 5);
            std::mt19937 random(seed);
            Model model;
            client::Image* image = world.open_cached(0, any);
            REQUIRE(image);
            for (int step = 0; step < 400; step++) {
                const size_t index = random() % 2;
                const uint64_t length = unit * (1 + random() % (random() % 3 ? 20 : 200) % (40 * kGranule / unit));
                const uint64_t offset = random() % (Model::kSize - length) / unit * unit;
                const uint32_t what = random() % 64;
                if (what < 34) {
                    // Several at a time, one behind the other; the OSDs answer as they like.
                    struct Write {
                        Done done;
                        std::vector<uint8_t> bytes;
                    };
                    std::vector<std::unique_ptr<Write>> writes;
                    for (uint64_t at = offset; at < offset + length && writes.size() < 6;) {
                        const uint64_t size = std::min<uint64_t>(offset + length - at, unit * (1 + random() % 12));
                        auto write = std::make_unique<Write>();
                        write->bytes.resize(size);
                        model.written(at, size, ++model.number);
                        for (uint64_t i = 0; i < size; i += kSector) Model::fill(&write->bytes[i], model.number);
                        world.start(OpKind::write, image, at, size, {{write->bytes.data(), size}}, write->done, index);
                        at += size;
                        writes.push_back(std::move(write));
                    }
                    REQUIRE(world.until([&] { return std::all_of(writes.begin(), writes.end(), [](auto& w) { return w->done.done; }); }));
                    for (auto& write : writes) REQUIRE(write->done.result == static_cast<int64_t>(write->bytes.size()));
                } else if (what < 54) {
                    REQUIRE(world.read(image, offset, length, index) == model.data(offset, length));
                } else if (what < 57) {
                    REQUIRE(world.run(OpKind::discard, image, offset, length, {}, index) == static_cast<int64_t>(length));
                    model.written(offset, length, 0);
                } else if (what < 61) {
                    REQUIRE(world.flush(image, index) == 0);
                    model.flushed();
                } else if (what == 61) {
                    world.osds[1 + random() % 2]->restart();
                } else if (what == 62) {
                    // A flush beside writes covers those that had ended.
                    Done flush;
                    world.start(OpKind::flush, image, 0, 0, {}, flush, index);
                    model.flushed();
                    std::vector<uint8_t> bytes(unit);
                    model.written(offset, unit, ++model.number);
                    for (uint64_t i = 0; i < unit; i += kSector) Model::fill(&bytes[i], model.number);
                    REQUIRE(world.run(OpKind::write, image, offset, unit, {{bytes.data(), unit}}, 1 - index) == static_cast<int64_t>(unit));
                    REQUIRE(world.until([&] { return flush.done; }));
                    REQUIRE(flush.result == 0);
                } else {
                    // The client is killed: its contexts end, what it had in memory is gone.
                    for (auto& context : world.contexts) context->close();
                    world.forget(image);
                    world.contexts.clear();
                    world.context(1);
                    image = world.open_cached(0, any);
                    REQUIRE(image);
                    CHECK(image->cache->empty());
                    const auto seen = world.read(image, 0, Model::kSize);
                    REQUIRE(seen.size() == Model::kSize);
                    REQUIRE(model.settle(seen));
                }
            }
            REQUIRE(world.flush(image) == 0);
            CHECK(world.stored(0, Model::kSize) == model.data(0, Model::kSize));
            CHECK(image->cache->bytes() == 0);
        }
    }
}

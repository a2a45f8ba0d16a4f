// SPDX-License-Identifier: GPL-2.0-or-later
// The index alone: what it costs in memory at every moment of growing, and checksums of granules in any order.
// VITASTOR_OBJECTS=16000000 bin/store_test -tc='index:*' measures a large one.
#include <doctest/doctest.h>
#include <malloc.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "fake_disk.hpp"
#include "rig.hpp"
#include "store/index.hpp"

using namespace vitastor;
using namespace vitastor::store;
using vitastor::test::Random;

namespace {

Geometry geometry_of(uint32_t block_size, uint32_t granularity, bool checksums = true) {
    StoreOptions options;
    options.block_size = block_size;
    options.bitmap_granularity = granularity;
    options.checksums = checksums;
    Geometry geometry = check_geometry(options).value();
    geometry.block_count = kNoBlock - 1;
    return geometry;
}

struct NoSink final : BlockSink {
    void release_block(uint32_t) override {}
    void use_spare(const Redirect&, uint32_t) override {}
    void release_spare(uint32_t, uint32_t, uint32_t) override {}
};

/// An index fed with entries, and how much it may take.
struct Filler {
    Geometry geometry;
    Index index;
    NoSink sink;
    uint64_t granules = 0;
    uint64_t allocated_before;
    uint64_t fixed_bytes;  ///< what the empty index takes
    double worst = 0;  ///< bytes per object beyond its checksums, with 1000 objects and more
    int64_t above = INT64_MIN;  ///< bytes at most, beyond 63 an object and the checksums
    uint64_t above_at = 0;      ///< objects
    uint64_t last_above = 0;    ///< the largest number of objects with more than 63 for each

    explicit Filler(const Geometry& wanted)
        : geometry(wanted), index(wanted), allocated_before(in_use()), fixed_bytes(index.memory_bytes()) {}

    static uint64_t in_use() {
#ifdef __SANITIZE_ADDRESS__
        return 0;
#else
        const struct mallinfo2 info = mallinfo2();
        return info.uordblks + info.hblkhd;
#endif
    }
    static ObjectId object(uint64_t number) { return {full_inode(1, 1 + number % 10), number / 10 * 131072}; }

    void write(uint64_t number, Version version, uint32_t first, uint32_t count, bool fresh, bool stable = true) {
        std::vector<uint8_t> bytes(sizeof(EntryHeader) + (fresh ? 4 : 0) + (geometry.checksums ? 4 * count : 0));
        EntryHeader header{};
        header.size = static_cast<uint32_t>(bytes.size());
        header.type = EntryType::write;
        header.flags = static_cast<uint8_t>((stable ? kEntryStable : 0) | (fresh ? kEntryCreate | kEntryBlock : 0));
        header.count = static_cast<uint16_t>(count);
        header.first = first;
        header.inode = object(number).inode;
        header.stripe = object(number).stripe;
        header.version = version;
        memcpy(bytes.data(), &header, sizeof(header));
        uint8_t* out = bytes.data() + sizeof(header);
        const auto block = static_cast<uint32_t>(number);
        if (fresh) memcpy(out, &block, 4), out += 4;
        for (uint32_t i = 0; geometry.checksums && i < count; i++, out += 4) {
            const uint32_t crc = value(number, version, first + i);
            memcpy(out, &crc, 4);
        }
        apply(bytes);
    }
    void remove(uint64_t number) {
        EntryHeader header{};
        header.size = sizeof(header);
        header.type = EntryType::del;
        header.inode = object(number).inode;
        header.stripe = object(number).stripe;
        header.version = UINT64_MAX;
        std::vector<uint8_t> bytes(sizeof(header));
        memcpy(bytes.data(), &header, sizeof(header));
        apply(bytes);
    }
    void apply(const std::vector<uint8_t>& bytes) {
        EntryView entry;
        const bool good = decode_entry(geometry, bytes, entry) && index.apply(entry, kNoSlot, sink);
        if (!good) FAIL("an entry was not taken");
    }
    static uint32_t value(uint64_t number, Version version, uint32_t granule) {
        return static_cast<uint32_t>(ObjectIdHash()({number, version * 65536 + granule}));
    }
    /// The bar of the store less 1 byte for groups of the cleaner.
    void check_memory() {
        const uint64_t objects = index.object_count();
        const auto bytes = static_cast<int64_t>(index.memory_bytes() - fixed_bytes) - static_cast<int64_t>(4 * granules);
        if (objects >= 1000) worst = std::max(worst, static_cast<double>(bytes) / static_cast<double>(objects));
        if (bytes > static_cast<int64_t>(63 * objects)) last_above = objects;
        if (bytes - static_cast<int64_t>(63 * objects) <= above) return;
        above = bytes - static_cast<int64_t>(63 * objects);
        above_at = objects;
    }
    bool within() const { return above <= 0; }
    std::string told() const {
        return std::to_string(worst) + " bytes an object besides checksums (from 1000 objects on), at most " + std::to_string(above) +
               " more than 63 an object (with " + std::to_string(above_at) + " objects), never more with over " + std::to_string(last_above);
    }
};

/// Bytes of memory that the process really has.
uint64_t resident() {
    FILE* file = fopen("/proc/self/statm", "r");
    unsigned long long size = 0, pages = 0;
    if (file && fscanf(file, "%llu %llu", &size, &pages) != 2) pages = 0;
    if (file) fclose(file);
    return pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

uint64_t object_limit() {
    const char* text = getenv("VITASTOR_OBJECTS");
    return text ? strtoull(text, nullptr, 10) : 1000000;
}

}  // namespace

TEST_CASE("index: an empty one takes what is named, whatever its blocks are") {
    static_assert(Index::kFixedBytes <= 16384);
    for (const uint32_t block : {32768u, 131072u, 4u << 20, 128u << 20})
        CHECK(Index(geometry_of(block, 4096)).memory_bytes() <= Index::kFixedBytes);
}

TEST_CASE("index: at most 64 bytes an object and 4 a checksum more than an empty one takes, at every count") {
    for (const uint32_t granules : {1u, 32u}) {
        for (const uint64_t count : {uint64_t{1}, uint64_t{1000}, object_limit()}) {
            malloc_trim(0);
            [[maybe_unused]] const uint64_t resident_before = resident();
            Filler filler(geometry_of(131072, 4096));
            CHECK(filler.fixed_bytes <= Index::kFixedBytes);
            for (uint64_t i = 0; i < count; i++) {
                filler.write(i, 1, 0, granules, true);
                filler.granules += granules;
                if (i < 20000 || i % 97 == 0) filler.check_memory();
            }
            filler.check_memory();
            CHECK(filler.within());
            CHECK(filler.index.object_count() == count);
#ifndef __SANITIZE_ADDRESS__
            // Small ones are in malloc's memory, large ones in pages of their own, all of them there.
            const bool is_large = count >= 500000;
            const auto real = static_cast<double>(is_large ? resident() - resident_before : Filler::in_use() - filler.allocated_before);
            const auto told = static_cast<double>(filler.index.memory_bytes() - filler.fixed_bytes);
            const double slack = is_large ? 2 << 20 : 32768;
            CHECK(told > real * 0.995 - slack);
            CHECK(told < real * 1.005 + slack);
#endif
            MESSAGE(count << " objects of " << granules << " granules: " << filler.index.memory_bytes() << " bytes, " << filler.told());
        }
    }
}

/// Each length has a last block of its own that is partly used: some 36 KB together, which 3 bytes an object make up for later.
TEST_CASE("index: objects of all 32 lengths at once, also when they are deleted and made again") {
    constexpr uint64_t kObjects = 60000;
    for (const bool grows : {false, true}) {  // each object in one step, or granule by granule before the next one
        Filler filler(geometry_of(131072, 4096));
        Random random(grows ? 3 : 5);
        for (uint64_t i = 0; i < kObjects; i++) {
            const auto granules = static_cast<uint32_t>(i < 32 ? i + 1 : 1 + random.below(32));
            if (!grows) filler.write(i, 1, 0, granules, true);
            filler.granules += grows ? 0 : granules;
            for (uint32_t granule = 0; grows && granule < granules; granule++) {
                filler.write(i, 1 + granule, granule, 1, granule == 0);
                filler.granules++;
                filler.check_memory();
            }
            filler.check_memory();
        }
        CHECK(filler.above <= 36 << 10);
        CHECK(filler.last_above < 50000);
        MESSAGE(filler.told());
        for (uint64_t i = kObjects; i-- > 1;) {  // what remains is in the room of the first
            filler.granules -= filler.index.granule_count(filler.index.find(Filler::object(i)));
            filler.remove(i);
        }
        CHECK(filler.index.object_count() == 1);
        const uint64_t lists = filler.index.list_bytes();
        for (uint64_t i = 1; i < 50; i++) {
            filler.write(i, 1, 0, 32, true);
            filler.remove(i);
        }
        CHECK(filler.index.list_bytes() == lists);
    }
}

TEST_CASE("index: a store takes at most 64 bytes an object and 4 a checksum more than an empty one, from the first object on") {
    test::Rig rig(1);
    rig.options.disable_data_fsync = true;
    rig.make_disks(48 << 20);
    REQUIRE(rig.open() == 0);
    const uint64_t empty = rig.store->stats().memory_bytes;
    int64_t above = INT64_MIN;
    uint64_t granules = 0;
    for (uint64_t number = 0; number < 1000; number++) {
        const auto count = static_cast<uint32_t>(1 + number % rig.granules());
        auto op = rig.write(test::object_id(1 + number % 5, number / 5, rig.options.block_size), 1, 0, count, 7);
        rig.run(*op);
        REQUIRE(op->result == op->len);
        granules += count;
        const StoreStats stats = rig.store->stats();
        REQUIRE(stats.object_count == number + 1);
        above = std::max(above, static_cast<int64_t>(stats.memory_bytes - empty) - static_cast<int64_t>(64 * (number + 1) + 4 * granules));
    }
    CHECK(above <= 0);
    MESSAGE("an empty store takes " << empty << " bytes; at most " << above << " above the bar");
}

TEST_CASE("index: objects that grow granule by granule need no more on the way") {
    constexpr uint64_t kObjects = 20000;
    Filler filler(geometry_of(131072, 4096));
    std::vector<uint32_t> order(kObjects);
    for (uint32_t i = 0; i < kObjects; i++) order[i] = i;
    Random random(7);
    for (uint32_t step = 0; step < 32; step++) {
        for (uint64_t i = kObjects - 1; i > 0; i--) std::swap(order[i], order[random.below(i + 1)]);
        for (uint64_t i = 0; i < kObjects; i++) {
            // A granule in the middle, between those that are there: 0, 16, 8, 24, 4, ...
            uint32_t granule = 0;
            for (uint32_t bit = 0; bit < 5; bit++) granule |= (step >> bit & 1) << (4 - bit);
            filler.write(order[i], step + 1, granule, 1, step == 0);
            filler.granules++;
            if (i % 97 == 0) filler.check_memory();
        }
    }
    CHECK(filler.within());
    MESSAGE(filler.told());
    uint64_t wrong = 0;
    for (uint64_t number = 0; number < kObjects; number++) {
        const uint32_t head = filler.index.find(Filler::object(number));
        for (uint32_t step = 0; step < 32; step++) {
            uint32_t granule = 0;
            for (uint32_t bit = 0; bit < 5; bit++) granule |= (step >> bit & 1) << (4 - bit);
            wrong += filler.index.crc(head, granule) != Filler::value(number, step + 1, granule);
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("index: checksums follow writes, versions, roll backs and full entries") {
    for (const auto& [block, granule] : std::vector<std::pair<uint32_t, uint32_t>>{{4096, 512}, {131072, 4096}, {1 << 20, 4096}}) {
        Filler filler(geometry_of(block, granule));
        Index& index = filler.index;
        const uint32_t granules = filler.geometry.granules;
        Random random(block);
        using Model = std::map<uint32_t, uint32_t>;
        std::map<uint64_t, std::vector<Model>> objects;  // versions, oldest first; the first one is stable
        std::map<uint64_t, Version> versions;
        uint64_t wrong = 0;
        const auto simple = [&](uint64_t number, EntryType type, Version version) {
            EntryHeader header{};
            header.size = sizeof(header);
            header.type = type;
            header.inode = Filler::object(number).inode;
            header.stripe = Filler::object(number).stripe;
            header.version = version;
            std::vector<uint8_t> bytes(sizeof(header));
            memcpy(bytes.data(), &header, sizeof(header));
            filler.apply(bytes);
        };
        for (int step = 0; step < 20000; step++) {
            const uint64_t number = random.below(40);
            auto& object = objects[number];
            const uint64_t kind = random.below(10);
            if (kind < 6) {
                const bool stable = random.chance(60) && object.size() <= 1;
                const uint32_t first = static_cast<uint32_t>(random.below(granules));
                const uint32_t count = random.chance(50) ? 1 : 1 + static_cast<uint32_t>(random.below(granules - first));
                const Version version = ++versions[number];
                filler.write(number, version, first, count, object.empty(), stable || object.empty());
                Model next = object.empty() ? Model() : object.back();
                for (uint32_t i = 0; i < count; i++) next[first + i] = Filler::value(number, version, first + i);
                if (object.empty() || stable) object.assign(1, next);
                else object.push_back(next);
            } else if (!object.empty() && kind < 7) {
                simple(number, EntryType::del, versions[number]);
                object.clear();
            } else if (!object.empty() && kind < 8) {
                simple(number, EntryType::stabilize, versions[number]);
                object.erase(object.begin(), object.end() - 1);
            } else if (object.size() > 1 && kind < 9) {
                simple(number, EntryType::rollback, index.at(index.find(Filler::object(number))).version - 1);
                object.pop_back();
            } else if (!object.empty()) {
                std::vector<uint8_t> full;
                index.encode_full(index.find(Filler::object(number)), full);
                if (random.chance(50)) simple(number, EntryType::del, versions[number]);
                filler.apply(full);
            }
            uint32_t slot = index.find(Filler::object(number));
            for (auto model = object.rbegin(); model != object.rend() && slot != kNoSlot; ++model, slot = index.at(slot).older) {
                wrong += index.granule_count(slot) != model->size();
                for (const auto& [place, crc] : *model) wrong += !index.is_allocated(slot, place) || index.crc(slot, place) != crc;
            }
            wrong += slot != kNoSlot;
        }
        CHECK(wrong == 0);
        for (const auto& [number, object] : objects)
            if (!object.empty()) simple(number, EntryType::del, UINT64_MAX);
        CHECK(index.version_count() == 0);
        uint64_t blocks = 0;
        index.inodes().for_each([&](InodeNum, uint64_t count) { blocks += count; });
        CHECK(blocks == 0);
    }
}

TEST_CASE("index: classes of checksum arrays waste at most an eighth") {
    uint32_t previous = 0;
    for (uint32_t count = 1; count <= kMaxGranules; count++) {
        const uint32_t kind = CrcArrays::class_of(count);
        const uint32_t length = CrcArrays::length_of(kind);
        if (length < count || (count <= 32 && length != count) || (length - count) * 8 > count || kind < previous ||
            kind > previous + 1)
            FAIL("count " << count << " class " << kind << " length " << length);
        previous = kind;
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
// Checksums out of memory: found again after every kind of change, bounded memory, and what rot in the log does then.
#include <doctest/doctest.h>

#include <cstring>
#include <map>

#include "base/crc32c.hpp"
#include "rig.hpp"
#include "store/store_format.hpp"

using namespace vitastor;
using namespace vitastor::test;

namespace {

constexpr uint32_t kBlock = 4096;  // 8 granules of 512 bytes

struct ListRig : Rig {
    explicit ListRig(int64_t cache) : Rig(1) {
        options.block_size = kBlock;
        options.bitmap_granularity = 512;
        options.checksums_in_memory = cache < 0;
        options.checksum_cache_bytes = static_cast<uint64_t>(std::max<int64_t>(cache, 0));
        make_disks(24 << 20);
        REQUIRE(open() == 0);
    }
    int64_t put(uint64_t number, Version version, uint32_t first, uint32_t count, uint32_t tag) {
        auto op = write(object_id(1, number, kBlock), version, first, count, tag);
        run(*op);
        return op->result;
    }
    /// The tag of a granule, or a negative errno.
    int64_t get(uint64_t number, uint32_t granule) {
        auto op = read(object_id(1, number, kBlock), kNewestVersion, granule, 1);
        run(*op);
        return op->result < 0 ? op->result : int64_t{read_granule(op->data, 512)};
    }
    std::vector<uint8_t>& disk() { return loop.disks["data"].current; }
    /// Byte offset of the newest page of the log in which a whole list of the object begins.
    uint64_t page_of(const ObjectId& object) {
        uint64_t newest = 0, place = 0;
        for (uint64_t at = 16384; at + 4096 <= disk().size(); at += 4096) {
            PageHeader header;
            memcpy(&header, disk().data() + at, sizeof(header));
            if (header.magic != kPageMagic || header.write_sequence < newest || header.first_entry == kNoEntry) continue;
            for (uint32_t position = header.first_entry; position + sizeof(EntryHeader) <= header.used;) {
                EntryHeader entry;
                memcpy(&entry, disk().data() + at + sizeof(header) + position, sizeof(entry));
                const bool whole = entry.type == EntryType::full || (entry.type == EntryType::write && entry.count == 8);
                if (whole && ObjectId{entry.inode, entry.stripe} == object) newest = header.write_sequence, place = at;
                position += entry.size;
            }
        }
        return place;
    }
};

}  // namespace

TEST_CASE("checksums out of memory: any cache, restarts with either setting, the same data") {
    for (const int64_t cache : {0, 3000, 100000}) {
        CAPTURE(cache);
        ListRig rig(cache);
        std::map<uint64_t, uint32_t> tags;
        Random random(5);
        for (uint32_t step = 1; step <= 4000; step++) {
            const uint64_t number = random.below(300);
            const auto first = static_cast<uint32_t>(random.below(8));
            const bool whole = random.chance(20);
            REQUIRE(rig.put(number, step, whole ? 0 : first, whole ? 8 : 1, step * 16) > 0);
            for (uint32_t granule = whole ? 0 : first; granule < (whole ? 8 : first + 1); granule++)
                tags[number * 8 + granule] = step * 16 + (granule - (whole ? 0 : first));
            if (step % 1000 == 0) {
                rig.options.checksums_in_memory = step == 2000;  // what one leaves, the other takes
                REQUIRE(rig.reopen() == 0);
            }
        }
        for (const auto& [place, tag] : tags) REQUIRE(rig.get(place / 8, place % 8) == tag);
        CHECK(rig.store->stats().checksum_reads > 0);
        CHECK(rig.store->stats().checksum_errors == 0);
        // Rot of data is found as ever.
        for (uint64_t at = 0; at < rig.disk().size(); at += 512)
            if (read_granule(rig.disk().data() + at, 512) == tags.begin()->second) rig.disk()[at + 99] ^= 4;
        CHECK(rig.get(tags.begin()->first / 8, tags.begin()->first % 8) == -EDOM);
    }
}

TEST_CASE("checksums out of memory: memory stays within the cache") {
    const auto bytes = [](int64_t cache) {
        ListRig rig(cache);
        for (uint64_t number = 0; number < 4000; number++) REQUIRE(rig.put(number, 1, 0, 8, 16) > 0);
        for (uint64_t number = 0; number < 4000; number++) REQUIRE(rig.put(number * 7 % 4000, 2, 3, 1, 32) > 0);
        for (uint64_t number = 0; number < 4000; number++) REQUIRE(rig.get(number, 3) == 32);
        const uint64_t running = rig.store->stats().memory_bytes;
        REQUIRE(rig.reopen() == 0);
        CHECK(rig.store->stats().memory_bytes <= running + 4096);
        return running;
    };
    const uint64_t all = bytes(-1), some = bytes(20000), none = bytes(0);
    CHECK(all - none > 4000 * 30);  // of 32 bytes of checksums and 4 for their owner
    CHECK(some < none + 20000 + 4096);
}

TEST_CASE("checksums out of memory: a page of the log rots, its objects answer EDOM until they are written, the cleaner goes on") {
    ListRig rig(0);
    for (uint64_t number = 0; number < 300; number++) REQUIRE(rig.put(number, 1, 0, 8, 16) > 0);
    REQUIRE(rig.get(17, 4) == 20);
    const uint64_t page = rig.page_of(object_id(1, 17, kBlock));
    REQUIRE(page > 0);
    rig.disk()[page + 300] ^= 16;
    for (uint64_t number = 100; number < 200; number++) REQUIRE(rig.get(number, 1) >= -EDOM);  // others take its place in memory
    CHECK(rig.get(17, 4) == -EDOM);
    CHECK(rig.logger.all.find("the checksums of object") != std::string::npos);
    uint64_t lost = 0;
    for (uint64_t number = 0; number < 300; number++) {
        const int64_t value = rig.get(number, 2);
        CHECK((value == 18 || value == -EDOM));
        lost += value == -EDOM;
    }
    CHECK(lost > 1);
    CHECK(lost < 100);
    CHECK(rig.put(17, 2, 0, 8, 64) > 0);
    CHECK(rig.get(17, 4) == 68);
    // The log goes round: every object is written anew, the lost lists too. After that a start finds nothing wrong.
    for (Version version = 3; version < 400; version++)
        for (uint64_t number = 200; number < 300; number++) REQUIRE(rig.put(number, version, 0, 8, 16) > 0);
    REQUIRE_MESSAGE(rig.reopen() == 0, rig.store->error());
    CHECK(rig.get(17, 4) == 68);
    uint64_t still = 0;
    for (uint64_t number = 0; number < 200; number++) still += rig.get(number, 2) == -EDOM;
    CHECK(still > 0);
    CHECK(still < lost);
}

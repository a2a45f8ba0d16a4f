// SPDX-License-Identifier: GPL-2.0-or-later
// Plans carried out on an object in memory, against a plain array; and that no plan reads more chunks than linear algebra asks for.
#include <doctest/doctest.h>

#include <algorithm>

#include "erasure/test/memory_stripe.hpp"

using namespace vitastor;
using namespace vitastor::erasure;
using namespace vitastor::erasure::test;

namespace {

std::unique_ptr<Codec> codec_of(const StripeShape& shape) {
    auto made = Codec::create(shape.data, shape.parity);
    REQUIRE(made.ok());
    return std::move(made.value());
}

RoleSet from_bits(uint32_t bits) {
    RoleSet set;
    for (uint32_t role = 0; role < 32; role++) {
        if (bits >> role & 1) set.add(role);
    }
    return set;
}

void random_range(const StripeShape& shape, Random& random, uint64_t& offset, uint32_t& len) {
    const uint64_t granules = shape.span_bytes() / shape.granularity;
    uint64_t begin = random() % granules, end = begin + 1;
    switch (random() % 4) {
        case 0: break;
        case 1: end = begin + 1 + random() % (granules - begin); break;
        case 2: end = std::min(granules, begin + 1 + random() % 4); break;
        default:  // on borders of chunks
            begin -= begin % (shape.chunk_bytes / shape.granularity);
            end = std::min(granules, begin + shape.chunk_bytes / shape.granularity * (1 + random() % shape.data));
    }
    offset = begin * shape.granularity;
    len = static_cast<uint32_t>((end - begin) * shape.granularity);
}

/// Loses chunks, writes, moves and repairs, reads: one random life of an object.
void live(const StripeShape& shape, Codec& codec, uint64_t seed, uint32_t steps) {
    Random random(seed);
    MemoryStripe stripe(shape, codec, random);
    Plan read_plan, write_plan;
    bool absent = true;
    for (uint32_t step = 0; step < steps && stripe.error.empty(); step++) {
        // OSDs come and go; k good chunks stay.
        RoleSet up = RoleSet::range(0, shape.roles());
        for (uint32_t i = static_cast<uint32_t>(random() % (shape.parity + 1)); i > 0; i--) {
            const RoleSet fewer = up - RoleSet::of(static_cast<uint32_t>(random() % shape.roles()));
            if ((fewer & stripe.good).count() >= shape.data) up = fewer;
        }
        const RoleSet readable = up & stripe.good;
        const uint32_t own = random() % 4 ? static_cast<uint32_t>(random() % shape.roles()) : kRolesMax;
        uint64_t offset = 0;
        uint32_t len = 0;
        random_range(shape, random, offset, len);
        if (absent || random() % 3) {
            WriteRequest request{offset, len, readable, up, {}, own, absent && random() % 2 == 0};
            if (random() % 4 == 0) {  // moved: readable where it was, missing where it shall be
                up.for_each([&](uint32_t role) {
                    if (random() % 3 == 0) request.rebuild.add(role);
                });
                if (random() % 2 == 0) request.offset = request.len = 0;  // recovery
            }
            request.bitmaps_known = !request.absent && random() % 2 == 0;
            if (random() % 2) request.takes_difference = from_bits(static_cast<uint32_t>(random()));
            stripe.write(request, write_plan);
            absent = false;
        } else {
            if (random() % 8 == 0) offset = len = 0;
            stripe.read({offset, len, readable, own}, read_plan);
        }
    }
    REQUIRE_MESSAGE(stripe.error.empty(), stripe.error, "; ", shape.data, "+", shape.parity, ", seed ", seed);
}

/// Rank of rows of a matrix with `width` columns.
uint32_t rank_of(std::vector<Bytes> rows, uint32_t width) {
    uint32_t rank = 0;
    for (uint32_t column = 0; column < width && rank < rows.size(); column++) {
        size_t pivot = rank;
        while (pivot < rows.size() && rows[pivot][column] == 0) pivot++;
        if (pivot == rows.size()) continue;
        std::swap(rows[rank], rows[pivot]);
        for (size_t r = rank + 1; r < rows.size(); r++) {
            const uint8_t factor = gf_mul(rows[r][column], gf_inverse(rows[rank][column]));
            for (uint32_t x = 0; factor && x < width; x++) rows[r][x] ^= gf_mul(factor, rows[rank][x]);
        }
        rank++;
    }
    return rank;
}

/// Fewest chunks whose old content determines the new parity `parity`, if `written` data chunks are overwritten and `copies` are
/// needed as they were.
uint32_t fewest_reads(const Codec& codec, const RoleSet& readable, const RoleSet& written, const RoleSet& parity, const RoleSet& copies) {
    const uint32_t data = codec.data(), roles = data + codec.parity();
    auto row_of = [&](uint32_t role) {
        Bytes row(data);
        if (role < data) row[role] = 1;
        else std::copy_n(codec.matrix().begin() + (role - data) * data, data, row.begin());
        return row;
    };
    std::vector<Bytes> wanted;
    parity.for_each([&](uint32_t role) {
        Bytes row = row_of(role);
        written.for_each([&](uint32_t w) { row[w] = 0; });
        wanted.push_back(row);
    });
    copies.for_each([&](uint32_t role) { wanted.push_back(row_of(role)); });
    uint32_t best = UINT32_MAX;
    for (uint32_t bits = 0; bits < 1u << roles; bits++) {
        const RoleSet set = from_bits(bits);
        if (!readable.contains(set) || set.count() >= best) continue;
        std::vector<Bytes> rows;
        set.for_each([&](uint32_t role) { rows.push_back(row_of(role)); });
        const uint32_t known = rank_of(rows, data);
        for (const Bytes& row : wanted) rows.push_back(row);
        if (rank_of(rows, data) == known) best = set.count();
    }
    return best;
}

constexpr uint32_t kChunk = 8192, kGranule = 512;

}  // namespace

TEST_CASE("sets of roles") {
    const RoleSet set = RoleSet::range(60, 70) | RoleSet::of(255);
    CHECK(set.count() == 11);
    CHECK(set.next(0) == 60);
    CHECK(set.next(64) == 64);
    CHECK(set.next(70) == 255);
    CHECK(set.next(256) == kRolesMax);
    CHECK(!set.has(256));
    CHECK((set - RoleSet::range(0, 256)).empty());
    CHECK(set.contains(RoleSet::of(69)));
    CHECK(!set.contains(RoleSet::of(70)));
}

TEST_CASE("what a plan looks like: 4 KiB in 4+2") {
    const StripeShape shape{4, 2, 131072, 4096};
    const RoleSet all = RoleSet::range(0, 6);
    Plan plan;
    REQUIRE(plan_read(shape, {131072 + 8192, 4096, all, kRolesMax}, plan) == 0);
    CHECK(plan.reads == std::vector<ChunkRange>{{1, 8192, 4096}});
    CHECK(plan.scratch_bytes == 0);
    CHECK(plan.steps.empty());

    SUBCASE("a write reads three chunks either way; the rest of the row needs fewer requests") {
        REQUIRE(plan_write(shape, {131072 + 8192, 4096, all, all, {}, kRolesMax, false}, plan) == 0);
        CHECK(plan.reads == std::vector<ChunkRange>{{0, 8192, 4096}, {1, 0, 0}, {2, 8192, 4096}, {3, 8192, 4096}});
        CHECK(plan.stores == std::vector<ChunkRange>{{0, 0, 0}, {1, 8192, 4096}, {2, 0, 0}, {3, 0, 0}, {4, 8192, 4096}, {5, 8192, 4096}});
        REQUIRE(plan.steps.size() == 1);
        CHECK(plan.steps[0].kind == StepKind::encode);
    }
    SUBCASE("unless two of the others lie here or nowhere: one parity chunk is gone, so differences read two") {
        const RoleSet alive = all - RoleSet::of(5);
        REQUIRE(plan_write(shape, {131072 + 8192, 4096, alive, alive, {}, kRolesMax, false}, plan) == 0);
        CHECK(plan.chunks_read() == 2);
        REQUIRE(plan.steps.size() == 1);
        CHECK(plan.steps[0].kind == StepKind::differ);
    }
    SUBCASE("another data chunk is gone: differences need nothing of it but its bitmap") {
        const RoleSet alive = all - RoleSet::of(3);
        REQUIRE(plan_write(shape, {131072 + 8192, 4096, alive, alive, {}, kRolesMax, false}, plan) == 0);
        CHECK(plan.chunks_read() == 3);
        CHECK(plan.steps[0].kind == StepKind::differ);
        CHECK(plan.bitmaps_lost == RoleSet::of(3));
    }
    SUBCASE("bitmaps are known and parity takes differences: the written chunk alone is read") {
        WriteRequest request{131072 + 8192, 4096, all, all, {}, 1, false};
        request.bitmaps_known = true;
        request.takes_difference = shape.parity_roles();
        REQUIRE(plan_write(shape, request, plan) == 0);
        CHECK(plan.reads == std::vector<ChunkRange>{{1, 8192, 4096}});
        CHECK(plan.stores == std::vector<ChunkRange>{{0, 0, 0}, {1, 8192, 4096}, {2, 0, 0}, {3, 0, 0}, {4, 8192, 4096}, {5, 8192, 4096}});
        CHECK(plan.differences == shape.parity_roles());
        request.own = 5;  // a parity chunk here: read, and written whole
        REQUIRE(plan_write(shape, request, plan) == 0);
        CHECK(plan.reads == std::vector<ChunkRange>{{1, 8192, 4096}, {5, 8192, 4096}});
        CHECK(plan.differences == RoleSet::of(4));
        request.rebuild = RoleSet::of(4);  // no difference to what is not there
        REQUIRE(plan_write(shape, request, plan) == 0);
        CHECK(plan.differences.empty());
    }
    SUBCASE("bitmaps are known, the rest of the row lies here: nothing comes from others") {
        const StripeShape small{2, 1, 131072, 4096};
        const RoleSet three = RoleSet::range(0, 3);
        WriteRequest request{131072 + 8192, 4096, three, three, {}, 0, false};
        request.bitmaps_known = true;
        request.takes_difference = small.parity_roles();
        REQUIRE(plan_write(small, request, plan) == 0);
        CHECK(plan.reads == std::vector<ChunkRange>{{0, 8192, 4096}});
        CHECK(plan.differences.empty());
        request.offset = 8192;
        REQUIRE(plan_write(small, request, plan) == 0);
        CHECK(plan.reads == std::vector<ChunkRange>{{0, 8192, 4096}});
        CHECK(plan.differences == RoleSet::of(2));
    }
    SUBCASE("a whole object: nothing is read but the version, from here") {
        REQUIRE(plan_write(shape, {0, 524288, all, all, {}, 2, false}, plan) == 0);
        CHECK(plan.reads == std::vector<ChunkRange>{{2, 0, 0}});
    }
    SUBCASE("an object that does not exist: nothing at all") {
        REQUIRE(plan_write(shape, {4096, 4096, {}, all, {}, 2, true}, plan) == 0);
        CHECK(plan.reads.empty());
        CHECK(plan.stores.size() == 6);
    }
    SUBCASE("recovery of one chunk reads k of them, of a moved one only itself") {
        const RoleSet alive = all - RoleSet::of(0);
        REQUIRE(plan_write(shape, {0, 0, alive, all, {}, 4, false}, plan) == 0);
        CHECK(plan.chunks_read() == 4);
        CHECK(plan.stores[0] == ChunkRange{0, 0, 131072});
        CHECK(plan.stores[1] == ChunkRange{1, 0, 0});
        REQUIRE(plan_write(shape, {0, 0, all, all, RoleSet::of(0), 4, false}, plan) == 0);
        CHECK(plan.chunks_read() == 1);
        CHECK(plan.steps.empty());
    }
    SUBCASE("a lost chunk is rebuilt from the own one and others") {
        REQUIRE(plan_read(shape, {131072 + 8192, 4096, all - RoleSet::of(1), 5}, plan) == 0);
        CHECK(plan.reads == std::vector<ChunkRange>{{0, 8192, 4096}, {2, 8192, 4096}, {3, 8192, 4096}, {5, 8192, 4096}});
    }
    SUBCASE("only what is lost is rebuilt: a long read around a lost tail") {
        // Chunk 0 from its last granule, chunk 1 its first: both small ranges, far apart in the chunk.
        REQUIRE(plan_read(shape, {131072 - 4096, 8192, all - RoleSet::of(0), kRolesMax}, plan) == 0);
        uint64_t bytes = 0;
        for (const ChunkRange& read : plan.reads) bytes += read.len;
        CHECK(bytes == 5 * 4096);
    }
}

TEST_CASE("impossible requests are refused, incomplete objects are -EIO") {
    const StripeShape shape{2, 1, kChunk, kGranule};
    const RoleSet all = RoleSet::range(0, 3);
    Plan plan;
    for (auto [offset, len] : {std::pair<uint64_t, uint32_t>{0, 2 * kChunk + kGranule}, {2 * kChunk, kGranule}, {100, 4096},
                               {0, 100}, {~uint64_t{0} - 4095, 4096}, {uint64_t{1} << 40, 0}}) {
        CHECK(plan_read(shape, {offset, len, all, kRolesMax}, plan) == -EINVAL);
        CHECK(plan_write(shape, {offset, len, all, all, {}, kRolesMax, false}, plan) == -EINVAL);
    }
    const RoleSet one = RoleSet::of(1);
    CHECK(plan_read(shape, {0, kGranule, one, 1}, plan) == -EIO);
    CHECK(plan_read(shape, {kChunk, kGranule, one, 1}, plan) == 0);  // what is there is there
    CHECK(plan_read(shape, {0, 0, one, 1}, plan) == -EIO);
    CHECK(plan_write(shape, {0, kGranule, one, all, {}, 1, false}, plan) == -EIO);
    // A write of all that is missing heals.
    REQUIRE(plan_write(shape, {0, kChunk, one, all, {}, 1, false}, plan) == 0);
    CHECK(plan.stores == std::vector<ChunkRange>{{0, 0, kChunk}, {1, 0, 0}, {2, 0, kChunk}});
    REQUIRE(plan_write(shape, {0, 2 * kChunk, {}, all, {}, 1, false}, plan) == 0);
    CHECK(plan.reads.empty());
}

TEST_CASE("every pattern of losses: reads and writes of all kinds, small codes") {
    Random random(11);
    for (uint32_t data = 1; data <= 4; data++) {
        for (uint32_t parity = 1; parity <= 3; parity++) {
            const StripeShape shape{data, parity, kChunk, kGranule};
            auto codec = codec_of(shape);
            const RoleSet all = RoleSet::range(0, shape.roles());
            Plan plan;
            MemoryStripe full(shape, *codec, random);
            full.write({0, static_cast<uint32_t>(shape.span_bytes()), all, all, {}, 0, false}, plan);
            for (uint32_t bits = 0; bits < 1u << shape.roles(); bits++) {
                const RoleSet alive = from_bits(bits);
                if (alive.count() < data) continue;
                for (int round = 0; round < 6; round++) {
                    uint64_t offset = 0;
                    uint32_t len = 0;
                    random_range(shape, random, offset, len);
                    full.read({offset, len, alive, static_cast<uint32_t>(random() % shape.roles())}, plan);
                    MemoryStripe degraded(full);
                    degraded.write({offset, len, alive, alive, {}, kRolesMax, false}, plan);      // stays degraded
                    MemoryStripe repaired(full);
                    repaired.write({offset, len, alive, all, {}, kRolesMax, false}, plan);        // is recovered by the write
                    MemoryStripe recovered(full);
                    recovered.write({0, 0, alive, all, {}, kRolesMax, false}, plan);
                    for (const MemoryStripe* stripe : {&full, &degraded, &repaired, &recovered}) {
                        REQUIRE_MESSAGE(stripe->error.empty(), stripe->error, "; ", data, "+", parity, " alive ", bits, " at ", offset, "+", len);
                    }
                }
            }
        }
    }
}

TEST_CASE("thousands of random lives") {
    Random random(12);
    const std::pair<uint32_t, uint32_t> codes[] = {{1, 1}, {2, 1}, {2, 2}, {3, 1}, {3, 2}, {4, 2}, {5, 3}, {8, 3}};
    for (auto [data, parity] : codes) {
        const StripeShape shape{data, parity, kChunk, kGranule};
        auto codec = codec_of(shape);
        for (uint64_t seed = 0; seed < 260; seed++) live(shape, *codec, random(), 24);
    }
    const StripeShape wide{20, 6, kChunk, kGranule};
    auto codec = codec_of(wide);
    for (uint64_t seed = 0; seed < 40; seed++) live(wide, *codec, random(), 20);
}

TEST_CASE("no write within one row reads more chunks than it must") {
    for (auto [data, parity] : {std::pair{2u, 1u}, {2u, 2u}, {3u, 1u}, {3u, 2u}, {4u, 1u}, {4u, 2u}, {5u, 2u}, {4u, 3u}}) {
        const StripeShape shape{data, parity, kChunk, kGranule};
        auto codec = codec_of(shape);
        Plan plan;
        for (uint32_t bits = 0; bits < 1u << shape.roles(); bits++) {
            const RoleSet alive = from_bits(bits);
            if (alive.count() < data) continue;
            for (uint32_t first = 0; first < data; first++) {
                for (uint32_t last = first; last < data; last++) {
                    // Part of one chunk, or some chunks wholly: one segment.
                    const bool part = first == last;
                    const uint64_t offset = uint64_t{first} * kChunk + (part ? kGranule : 0);
                    const uint32_t len = part ? kGranule : (last - first + 1) * kChunk;
                    REQUIRE(plan_write(shape, {offset, len, alive, alive, {}, kRolesMax, false}, plan) == 0);
                    const uint32_t must = fewest_reads(*codec, alive, RoleSet::range(first, last + 1), alive & shape.parity_roles(), {});
                    CHECK_MESSAGE(plan.chunks_read() == must, data, "+", parity, " alive ", bits, " writes ", first, "-", last);
                }
            }
            // Recovery of everything that is lost.
            REQUIRE(plan_write(shape, {0, 0, alive, RoleSet::range(0, shape.roles()), {}, kRolesMax, false}, plan) == 0);
            const RoleSet lost = RoleSet::range(0, shape.roles()) - alive;
            const uint32_t must = fewest_reads(*codec, alive, {}, lost & shape.parity_roles(), lost & shape.data_roles());
            CHECK_MESSAGE(plan.chunks_read() == must, data, "+", parity, " alive ", bits, " recovery");
        }
    }
}

TEST_CASE("a parity bitmap that a foreign primary has spoiled is right after any write") {
    const StripeShape shape{4, 2, kChunk, kGranule};
    auto codec = codec_of(shape);
    Random random(13);
    const RoleSet all = RoleSet::range(0, 6);
    MemoryStripe stripe(shape, *codec, random);
    Plan plan;
    stripe.write({0, kChunk, all, all, {}, 0, false}, plan);
    for (uint32_t role = 4; role < 6; role++) std::fill(stripe.bitmaps[role].begin(), stripe.bitmaps[role].end(), uint8_t{0});
    stripe.write({kChunk + kGranule, kGranule, all, all, {}, 0, false}, plan);  // checks all bitmaps
    CHECK_MESSAGE(stripe.error.empty(), stripe.error);
}

TEST_CASE("bitmaps of the protocol's example") {
    const StripeShape shape{2, 1, 131072, 4096};
    auto codec = codec_of(shape);
    Random random(14);
    const RoleSet all = RoleSet::range(0, 3);
    MemoryStripe stripe(shape, *codec, random);
    Plan plan;
    stripe.write({4096, 4096, {}, all, {}, 0, true}, plan);
    stripe.write({131072 + 8192, 4096, all, all, {}, 0, false}, plan);
    CHECK_MESSAGE(stripe.error.empty(), stripe.error);
    CHECK(stripe.bitmaps[0] == Bytes{2, 0, 0, 0});
    CHECK(stripe.bitmaps[1] == Bytes{4, 0, 0, 0});
    CHECK(stripe.bitmaps[2] == Bytes{6, 0, 0, 0});
}

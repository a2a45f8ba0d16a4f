// SPDX-License-Identifier: GPL-2.0-or-later
// Wrong chunks are found where the code can find them, and never guessed where it cannot.
#include <doctest/doctest.h>

#include <random>
#include <string>

#include "erasure/scrub_search.hpp"

using namespace vitastor;
using namespace vitastor::erasure;

namespace {

using Bytes = std::vector<uint8_t>;
using Random = std::mt19937_64;

struct Object {
    std::unique_ptr<Codec> codec;
    std::vector<Bytes> chunks;
    uint32_t roles() const { return codec->data() + codec->parity(); }

    Object(uint32_t data, uint32_t parity, size_t length, Random& random) : chunks(data + parity, Bytes(length)) {
        auto made = Codec::create(data, parity);
        REQUIRE(made.ok());
        codec = std::move(made.value());
        std::vector<iovec> iov;
        for (Bytes& chunk : chunks) iov.push_back({chunk.data(), length});
        std::vector<Pieces> in, out;
        for (uint32_t role = 0; role < data + parity; role++) (role < data ? in : out).push_back(Pieces(&iov[role], 1));
        for (uint32_t role = 0; role < data; role++) {
            for (uint8_t& byte : chunks[role]) byte = static_cast<uint8_t>(random());
        }
        codec->combine(codec->data_roles(), in, codec->parity_roles(), out, length);
    }

    /// One byte is enough.
    void spoil(uint32_t role, Random& random) {
        Bytes& chunk = chunks[role];
        chunk[random() % chunk.size()] ^= static_cast<uint8_t>(1 + random() % 255);
    }

    ScrubVerdict search(const RoleSet& available, RoleSet& corrupted, Random& random, uint64_t subsets_max = 100) {
        std::vector<const uint8_t*> at;
        available.for_each([&](uint32_t role) { at.push_back(chunks[role].data()); });
        ScrubSearch search;
        search.start(*codec, available, at, chunks[0].size(), subsets_max);
        while (!search.step(1 + random() % 30000)) {
        }
        corrupted = search.corrupted();
        return search.verdict();
    }
};

}  // namespace

TEST_CASE("scrub: every single and double corruption in small codes") {
    Random random(21);
    for (auto [data, parity] : {std::pair{2u, 1u}, {3u, 1u}, {2u, 2u}, {4u, 2u}, {2u, 3u}, {3u, 3u}, {3u, 4u}}) {
        const uint32_t roles = data + parity;
        for (uint32_t first = 0; first <= roles; first++) {
            for (uint32_t second = first; second <= roles; second++) {
                Object object(data, parity, 9000, random);
                RoleSet spoiled;
                for (uint32_t role : {first, second}) {
                    if (role == roles || spoiled.has(role)) continue;
                    object.spoil(role, random);
                    spoiled.add(role);
                }
                RoleSet corrupted;
                const ScrubVerdict verdict = object.search(RoleSet::range(0, roles), corrupted, random);
                const std::string what = std::to_string(data) + "+" + std::to_string(parity) + " spoiled " + std::to_string(first) + ", " + std::to_string(second);
                if (spoiled.empty()) {
                    CHECK_MESSAGE(verdict == ScrubVerdict::consistent, what);
                } else if (2 * spoiled.count() <= parity) {  // what a code of this distance can find
                    CHECK_MESSAGE(verdict == ScrubVerdict::corrupted, what);
                    CHECK_MESSAGE(corrupted == spoiled, what);
                } else if (parity == 1) {  // wrong, but who knows which
                    CHECK_MESSAGE(verdict == ScrubVerdict::inconsistent, what);
                } else {
                    CHECK_MESSAGE(verdict != ScrubVerdict::consistent, what);
                    if (verdict == ScrubVerdict::corrupted) CHECK_MESSAGE(corrupted == spoiled, what);
                }
            }
        }
    }
}

TEST_CASE("scrub: with k chunks nothing can be checked, with one more a wrong one is noticed") {
    Random random(22);
    Object object(4, 2, 4096, random);
    object.spoil(1, random);
    RoleSet corrupted;
    CHECK(object.search(RoleSet::range(0, 4), corrupted, random) == ScrubVerdict::unknown);
    CHECK(object.search(RoleSet::range(0, 5), corrupted, random) == ScrubVerdict::inconsistent);
    CHECK(object.search(RoleSet::range(0, 6) - RoleSet::of(1), corrupted, random) == ScrubVerdict::consistent);
    CHECK(object.search(RoleSet::range(0, 6), corrupted, random) == ScrubVerdict::corrupted);
    CHECK(corrupted == RoleSet::of(1));
}

TEST_CASE("scrub: beyond the limit only the first k chunks are tried") {
    Random random(23);
    RoleSet corrupted;
    {
        Object object(4, 2, 5000, random);
        object.spoil(5, random);
        CHECK(object.search(RoleSet::range(0, 6), corrupted, random, 14) == ScrubVerdict::corrupted);
        CHECK(corrupted == RoleSet::of(5));
    }
    Object object(4, 2, 5000, random);
    object.spoil(0, random);
    CHECK(object.search(RoleSet::range(0, 6), corrupted, random, 14) == ScrubVerdict::inconsistent);
    CHECK(object.search(RoleSet::range(0, 6), corrupted, random, 15) == ScrubVerdict::corrupted);
    CHECK(corrupted == RoleSet::of(0));
    Object wide(200, 56, 100, random);
    CHECK(wide.search(RoleSet::range(0, 256), corrupted, random, ~uint64_t{0}) == ScrubVerdict::consistent);
}

TEST_CASE("scrub: of two equally good explanations none is believed, of a better one it is") {
    Random random(24);
    Object one(2, 3, 4096, random), other(2, 3, 4096, random);
    // Both share data chunk 0; all else differs.
    other.chunks[0] = one.chunks[0];
    std::vector<iovec> iov;
    for (Bytes& chunk : other.chunks) iov.push_back({chunk.data(), chunk.size()});
    std::vector<Pieces> in, out;
    for (uint32_t role = 0; role < 5; role++) (role < 2 ? in : out).push_back(Pieces(&iov[role], 1));
    other.codec->combine(RoleSet::range(0, 2), in, RoleSet::range(2, 5), out, 4096);
    Object mixed(2, 3, 4096, random);
    mixed.chunks = {one.chunks[0], one.chunks[1], one.chunks[2], other.chunks[3], other.chunks[4]};
    RoleSet corrupted;
    CHECK(mixed.search(RoleSet::range(0, 5), corrupted, random) == ScrubVerdict::inconsistent);
    mixed.chunks[4] = one.chunks[4];
    CHECK(mixed.search(RoleSet::range(0, 5), corrupted, random) == ScrubVerdict::corrupted);
    CHECK(corrupted == RoleSet::of(3));
}

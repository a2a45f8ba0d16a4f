// SPDX-License-Identifier: GPL-2.0-or-later
// The code against its definition: reference values of the specification, the scalar reference, every pattern of losses.
#include <doctest/doctest.h>
#include <sys/mman.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "erasure/codec.hpp"
#include "erasure/field.hpp"

using namespace vitastor;
using namespace vitastor::erasure;

namespace {

using Bytes = std::vector<uint8_t>;
using Random = std::mt19937_64;

std::unique_ptr<Codec> codec_of(uint32_t data, uint32_t parity, Codec::Options options = {}) {
    auto made = Codec::create(data, parity, options);
    REQUIRE_MESSAGE(made.ok(), made.status().message());
    return std::move(made.value());
}

void fill(Random& random, Bytes& bytes) {
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
}

/// One buffer a role, and its pieces: whole, or cut at random places.
struct Chunks {
    std::vector<Bytes> bytes;
    std::vector<std::vector<iovec>> iov;
    Chunks(size_t count, size_t length) : bytes(count, Bytes(length)), iov(count) {}
    void cut(Random* random) {
        for (size_t i = 0; i < bytes.size(); i++) {
            iov[i].clear();
            size_t at = 0;
            while (at < bytes[i].size()) {
                size_t length = bytes[i].size() - at;
                if (random && length > 1) length = 1 + (*random)() % length;
                iov[i].push_back({bytes[i].data() + at, length});
                if (random && (*random)() % 8 == 0) iov[i].push_back({bytes[i].data(), 0});
                at += length;
            }
        }
    }
    std::vector<Pieces> pieces(const RoleSet& roles) const {
        std::vector<Pieces> result;
        roles.for_each([&](uint32_t role) { result.push_back(iov[role]); });
        return result;
    }
};

/// All chunks of random data by the scalar reference.
Chunks reference_chunks(const Codec& codec, size_t length, Random& random) {
    Chunks chunks(codec.data() + codec.parity(), length);
    std::vector<const uint8_t*> in;
    for (uint32_t i = 0; i < codec.data(); i++) {
        fill(random, chunks.bytes[i]);
        in.push_back(chunks.bytes[i].data());
    }
    for (uint32_t j = 0; j < codec.parity(); j++) {
        combine_reference(codec.matrix().data() + j * codec.data(), in.data(), codec.data(), chunks.bytes[codec.data() + j].data(), length);
    }
    chunks.cut(nullptr);
    return chunks;
}

/// Rebuilds `lost` from the first k of the others and compares.
bool rebuilds(Codec& codec, const Chunks& good, const RoleSet& sources, const RoleSet& lost, size_t length) {
    Chunks out(good.bytes.size(), length);
    out.cut(nullptr);
    codec.combine(sources, good.pieces(sources), lost, out.pieces(lost), length);
    bool equal = true;
    lost.for_each([&](uint32_t role) { equal = equal && out.bytes[role] == good.bytes[role]; });
    return equal;
}

RoleSet first_of(const RoleSet& set, uint32_t count) {
    RoleSet result;
    set.for_each([&](uint32_t role) {
        if (result.count() < count) result.add(role);
    });
    return result;
}

std::string hex(const std::vector<uint8_t>& bytes) {
    std::string text;
    for (uint8_t byte : bytes) {
        const char* digits = "0123456789abcdef";
        text += digits[byte >> 4];
        text += digits[byte & 15];
    }
    return text;
}

}  // namespace

TEST_CASE("the field: inverse, distributive law, the polynomial") {
    CHECK(gf_mul(0x80, 2) == 0x1d);
    for (uint32_t a = 1; a < 256; a++) {
        CHECK(gf_mul(static_cast<uint8_t>(a), gf_inverse(static_cast<uint8_t>(a))) == 1);
        for (uint32_t b = 0; b < 256; b++) {
            uint8_t slow = 0;  // multiplication as it is learnt at school
            for (uint32_t bit = 0, value = a; bit < 8; bit++) {
                if (b >> bit & 1) slow ^= static_cast<uint8_t>(value);
                value = value << 1 ^ (value & 0x80 ? 0x11d : 0);
            }
            REQUIRE(gf_mul(static_cast<uint8_t>(a), static_cast<uint8_t>(b)) == slow);
        }
    }
}

TEST_CASE("matrices of the specification") {
    struct Row {
        uint32_t data, parity;
        const char* matrix;
    };
    const Row rows[] = {
        {2, 1, "0101"},
        {2, 2, "0101" "018f"},
        {3, 2, "010101" "01f5f4"},
        {4, 2, "01010101" "01468fc8"},
        {4, 3, "01010101" "01d95cac" "01468fc8"},
        {5, 3, "0101010101" "019c7ba6f4" "01a652f5a7"},
        {6, 2, "010101010101" "017bf58ff48e"},
        {6, 3, "010101010101" "01e197ac52c8" "017bf58ff48e"},
        {8, 3, "0101010101010101" "0137274954b5e1d9" "01ac46eb8f22c865"},
        {8, 4, "0101010101010101" "0137274954b5e1d9" "0127d9a15c3cac5a" "01ac46eb8f22c865"},
    };
    for (const Row& row : rows) {
        CHECK_MESSAGE(hex(parity_matrix(row.data, row.parity)) == row.matrix, row.data, "+", row.parity);
        CHECK(hex(codec_of(row.data, row.parity)->matrix()) == row.matrix);
    }
}

TEST_CASE("vectors of the specification") {
    auto encode = [](Bytes data, uint32_t parity) {
        auto codec = codec_of(static_cast<uint32_t>(data.size()), parity);
        Chunks chunks(data.size() + parity, 1);
        for (size_t i = 0; i < data.size(); i++) chunks.bytes[i][0] = data[i];
        chunks.cut(nullptr);
        codec->combine(codec->data_roles(), chunks.pieces(codec->data_roles()), codec->parity_roles(), chunks.pieces(codec->parity_roles()), 1);
        Bytes out;
        for (uint32_t j = 0; j < parity; j++) out.push_back(chunks.bytes[data.size() + j][0]);
        return out;
    };
    CHECK(encode({0x53, 0xca}, 2) == Bytes{0x99, 0xfc});
    CHECK(encode({0x01, 0x02, 0x80}, 2) == Bytes{0x83, 0x7d});
    CHECK(encode({0x02, 0x04}, 1) == Bytes{0x06});  // bitmaps, wire-protocol 13.7
}

TEST_CASE("impossible shapes are refused") {
    for (auto [data, parity] : {std::pair{0u, 1u}, {1u, 0u}, {200u, 57u}, {4294967295u, 2u}, {2u, 4294967295u}}) {
        auto made = Codec::create(data, parity);
        CHECK(!made.ok());
        CHECK(made.status().code() == -EINVAL);
    }
    CHECK(Codec::create(1, 1).ok());
    CHECK(Codec::create(200, 56).ok());
}

TEST_CASE("one parity chunk is plain xor") {
    Random random(1);
    for (uint32_t data : {1u, 2u, 3u, 7u, 20u, 255u}) {
        auto codec = codec_of(data, 1);
        Chunks chunks = reference_chunks(*codec, 333, random);
        for (size_t x = 0; x < 333; x++) {
            uint8_t sum = 0;
            for (uint32_t i = 0; i < data; i++) sum ^= chunks.bytes[i][x];
            REQUIRE(sum == chunks.bytes[data][x]);
        }
        for (uint32_t lost = 0; lost <= data; lost++) {
            CHECK(rebuilds(*codec, chunks, RoleSet::range(0, data + 1) - RoleSet::of(lost), RoleSet::of(lost), 333));
        }
    }
}

TEST_CASE("every pattern of losses, every choice of sources: k <= 6, m <= 3") {
    Random random(2);
    uint64_t patterns = 0;
    for (uint32_t data = 1; data <= 6; data++) {
        for (uint32_t parity = 1; parity <= 3; parity++) {
            auto codec = codec_of(data, parity);
            const uint32_t roles = data + parity;
            Chunks chunks = reference_chunks(*codec, 75, random);
            for (uint32_t sources = 0; sources < 1u << roles; sources++) {
                RoleSet set;
                for (uint32_t role = 0; role < roles; role++) {
                    if (sources >> role & 1) set.add(role);
                }
                if (set.count() != data) continue;
                // All others at once, and each alone.
                const RoleSet others = RoleSet::range(0, roles) - set;
                REQUIRE_MESSAGE(rebuilds(*codec, chunks, set, others, 75), data, "+", parity, " sources ", sources);
                others.for_each([&](uint32_t role) { REQUIRE(rebuilds(*codec, chunks, set, RoleSet::of(role), 75)); });
                patterns += 1 + others.count();
            }
        }
    }
    CHECK(patterns > 1000);
}

TEST_CASE("random losses: k <= 20, m <= 6, lengths and cuts of any kind") {
    Random random(3);
    for (uint32_t data = 1; data <= 20; data++) {
        for (uint32_t parity = 1; parity <= 6; parity++) {
            auto codec = codec_of(data, parity);
            for (int round = 0; round < 4; round++) {
                const size_t length = 1 + random() % 700;
                Chunks chunks = reference_chunks(*codec, length, random);
                const Chunks expected = chunks;
                chunks.cut(&random);
                // Encoding, into cut buffers.
                Chunks out(data + parity, length);
                out.cut(&random);
                codec->combine(codec->data_roles(), chunks.pieces(codec->data_roles()), codec->parity_roles(),
                               out.pieces(codec->parity_roles()), length);
                for (uint32_t j = data; j < data + parity; j++) REQUIRE(out.bytes[j] == expected.bytes[j]);
                RoleSet alive = RoleSet::range(0, data + parity);
                const uint32_t losses = static_cast<uint32_t>(random() % (parity + 1));
                while (alive.count() > data + parity - losses) alive.remove(static_cast<uint32_t>(random() % (data + parity)));
                const RoleSet lost = RoleSet::range(0, data + parity) - alive;
                REQUIRE(rebuilds(*codec, chunks, first_of(alive, data), lost, length));
            }
        }
    }
}

TEST_CASE("the widest codes") {
    Random random(4);
    for (auto [data, parity] : {std::pair{200u, 56u}, {254u, 2u}, {2u, 254u}, {1u, 255u}, {128u, 128u}}) {
        auto codec = codec_of(data, parity);
        Chunks chunks = reference_chunks(*codec, 70, random);
        const uint32_t lost = std::min(data, parity);
        CHECK(rebuilds(*codec, chunks, RoleSet::range(lost, lost + data), RoleSet::range(0, lost), 70));
    }
}

TEST_CASE("parity by differences equals parity computed anew") {
    Random random(5);
    for (auto [data, parity] : {std::pair{2u, 1u}, {2u, 2u}, {4u, 2u}, {8u, 3u}, {20u, 6u}, {5u, 5u}}) {
        auto codec = codec_of(data, parity);
        for (int round = 0; round < 20; round++) {
            const size_t length = 1 + random() % 500;
            Chunks chunks = reference_chunks(*codec, length, random);
            const uint32_t role = static_cast<uint32_t>(random() % data);
            RoleSet some;  // of the parity chunks: the others are lost
            for (uint32_t j = data; j < data + parity; j++) {
                if (random() % 3) some.add(j);
            }
            Chunks fresh(1, length);
            fill(random, fresh.bytes[0]);
            fresh.cut(&random);
            const Bytes old = chunks.bytes[role];
            chunks.cut(&random);
            Codec::xor_into(chunks.iov[role], fresh.iov[0], length);
            for (size_t x = 0; x < length; x++) REQUIRE(chunks.bytes[role][x] == (old[x] ^ fresh.bytes[0][x]));
            codec->update(role, chunks.iov[role], some, chunks.pieces(some), length);
            chunks.bytes[role] = fresh.bytes[0];
            chunks.cut(nullptr);
            Chunks out(data + parity, length);
            out.cut(nullptr);
            codec->combine(codec->data_roles(), chunks.pieces(codec->data_roles()), codec->parity_roles(), out.pieces(codec->parity_roles()), length);
            some.for_each([&](uint32_t j) { REQUIRE(out.bytes[j] == chunks.bytes[j]); });
        }
    }
}

TEST_CASE("missing inputs count as zeroes, at any length") {
    auto codec = codec_of(3, 2);
    Random random(6);
    for (size_t length : {size_t{1}, size_t{4096}, size_t{4097}, size_t{20000}}) {
        Chunks chunks(5, length);
        fill(random, chunks.bytes[1]);
        chunks.cut(nullptr);
        Chunks out(5, length);
        out.cut(nullptr);
        codec->combine(codec->data_roles(), chunks.pieces(codec->data_roles()), codec->parity_roles(), chunks.pieces(codec->parity_roles()), length);
        const iovec none{nullptr, length};
        std::vector<Pieces> in{Pieces(&none, 1), chunks.iov[1], Pieces(&none, 1)};
        codec->combine(codec->data_roles(), in, codec->parity_roles(), out.pieces(codec->parity_roles()), length);
        CHECK(out.bytes[3] == chunks.bytes[3]);
        CHECK(out.bytes[4] == chunks.bytes[4]);
        codec->update(0, Pieces(&none, 1), codec->parity_roles(), out.pieces(codec->parity_roles()), length);
        CHECK(out.bytes[4] == chunks.bytes[4]);
    }
}

TEST_CASE("the cache of decoding tables is bounded and forgets the oldest") {
    Random random(7);
    auto codec = codec_of(8, 4, {.cache_bytes_max = 8192});
    Chunks chunks = reference_chunks(*codec, 40, random);
    for (int round = 0; round < 500; round++) {
        RoleSet alive = RoleSet::range(0, 12);
        while (alive.count() > 8) alive.remove(static_cast<uint32_t>(random() % 12));
        REQUIRE(rebuilds(*codec, chunks, alive, RoleSet::range(0, 12) - alive, 40));
        REQUIRE(codec->cache_bytes() <= 8192);
    }
    CHECK(codec->cache_entries() > 1);
    auto tiny = codec_of(8, 4, {.cache_bytes_max = 1});
    CHECK(rebuilds(*tiny, chunks, RoleSet::range(4, 12), RoleSet::range(0, 4), 40));
    CHECK(rebuilds(*tiny, chunks, RoleSet::range(3, 11), RoleSet::range(0, 3), 40));
    CHECK(tiny->cache_entries() == 1);
}

namespace {
void wrong_encode(int len, int k, int rows, unsigned char* tables, unsigned char** in, unsigned char** out) {
    isal_kernel().encode(len, k, rows, tables, in, out);
    out[rows - 1][len - 1] ^= 1;
}
void wrong_update(int len, int k, int rows, int column, unsigned char* tables, unsigned char* in, unsigned char** out) {
    isal_kernel().update(len, k, rows, column, tables, in, out);
    if (column == k - 1) out[0][0] ^= 0x80;
}
}  // namespace

TEST_CASE("a library that computes wrong bytes is refused") {
    const Kernel bad_encode{isal_kernel().init_tables, wrong_encode, isal_kernel().update};
    const Kernel bad_update{isal_kernel().init_tables, isal_kernel().encode, wrong_update};
    for (const Kernel* kernel : {&bad_encode, &bad_update}) {
        auto made = Codec::create(4, 2, {.kernel = kernel});
        REQUIRE(!made.ok());
        CHECK(made.status().code() == -ENOTRECOVERABLE);
        CHECK(made.status().message().find("libisal") != std::string::npos);
    }
}

namespace {
/// As libisal 2.31 with AVX-512 and GFNI does at the first of five outputs.
void reading_encode(int len, int k, int rows, unsigned char* tables, unsigned char** in, unsigned char** out) {
    for (int row = 0; row < rows; row++) {
        for (int i = 0; i < 48; i++) static_cast<void>(static_cast<volatile unsigned char*>(out[row])[i]);
    }
    isal_kernel().encode(len, k, rows, tables, in, out);
}
}  // namespace

TEST_CASE("a library that reads behind short outputs") {
    constexpr size_t kPage = 4096, kRows = 5;
    auto* area = static_cast<uint8_t*>(mmap(nullptr, 2 * kRows * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(area != MAP_FAILED);
    for (size_t row = 0; row < kRows; row++) REQUIRE(mprotect(area + 2 * row * kPage, kPage, PROT_READ | PROT_WRITE) == 0);
    const Kernel reading{isal_kernel().init_tables, reading_encode, isal_kernel().update};
    auto codec = codec_of(4, kRows, {.kernel = &reading});
    Random random(5);
    for (size_t length = 1; length <= 130; length++) {
        Chunks chunks = reference_chunks(*codec, length, random);
        iovec iov[kRows];
        Pieces out[kRows];
        for (size_t row = 0; row < kRows; row++) {
            iov[row] = {area + (2 * row + 1) * kPage - length, length};
            out[row] = {&iov[row], 1};
        }
        codec->combine(codec->data_roles(), chunks.pieces(codec->data_roles()), codec->parity_roles(), out, length);
        for (size_t row = 0; row < kRows; row++) {
            REQUIRE(std::memcmp(iov[row].iov_base, chunks.bytes[codec->data() + row].data(), length) == 0);
        }
    }
    munmap(area, 2 * kRows * kPage);
}

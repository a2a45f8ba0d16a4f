// SPDX-License-Identifier: GPL-2.0-or-later
#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "base/assert.hpp"
#include "base/buffer.hpp"
#include "base/crc32c.hpp"
#include "base/ids.hpp"
#include "base/list.hpp"
#include "base/log.hpp"
#include "base/result.hpp"

using namespace vitastor;

namespace {

// Bit by bit from the polynomial, as RFC 3720 defines it: an independent witness.
uint32_t slow_crc32c(const uint8_t* data, size_t size) {
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

struct Lines : Logger {
    std::vector<std::string> lines;
    void write(LogLevel, const std::string& text) override { lines.push_back(text); }
};

struct Item : ListNode {
    explicit Item(int n) : number(n) {}
    int number;
};

}  // namespace

TEST_CASE("crc32c is the one of RFC 3720") {
    CHECK(crc32c("123456789", 9) == 0xe3069283u);
    CHECK(crc32c("", 0) == 0);
    std::vector<uint8_t> zeroes(32, 0), ones(32, 0xff);
    CHECK(crc32c(zeroes.data(), 32) == 0x8a9136aau);
    CHECK(crc32c(ones.data(), 32) == 0x62a8ab43u);
}

TEST_CASE("crc32c equals the bitwise definition at every length and offset, and chains") {
    std::vector<uint8_t> bytes(5000);
    uint32_t x = 1;
    for (auto& b : bytes) b = static_cast<uint8_t>((x = x * 1664525 + 1013904223) >> 24);
    for (size_t offset : {0u, 1u, 7u}) {
        for (size_t size : {1u, 3u, 8u, 15u, 64u, 255u, 1024u, 4096u, 4099u}) {
            CHECK(crc32c(bytes.data() + offset, size) == slow_crc32c(bytes.data() + offset, size));
        }
    }
    uint32_t first = crc32c(bytes.data(), 1234);
    CHECK(crc32c(bytes.data() + 1234, 3766, first) == crc32c(bytes.data(), 5000));
}

TEST_CASE("buffers are aligned, sized, recycled, and bounded by keep_bytes") {
    BufferPool pool(64 << 10);
    const uint8_t* where = nullptr;
    {
        Buffer a = pool.allocate(1);
        where = a.data();
        CHECK(a.size() == 1);
        CHECK(a.capacity() == 4096);
        CHECK(reinterpret_cast<uintptr_t>(a.data()) % 4096 == 0);
        Buffer b = pool.allocate(4097);
        CHECK(b.capacity() == 8192);
        CHECK(reinterpret_cast<uintptr_t>(b.data()) % 4096 == 0);
        CHECK(pool.used_bytes() == 12288);
        Buffer moved = std::move(a);
        CHECK_FALSE(a);
        CHECK(moved.data() == where);
    }
    CHECK(pool.used_bytes() == 0);
    CHECK(pool.free_bytes() == 12288);
    Buffer again = pool.allocate(4096);
    CHECK(again.data() == where);
    memset(again.data(), 1, again.capacity());
    Buffer big = pool.allocate(1 << 20);
    big.release();
    CHECK_FALSE(big);
    CHECK(pool.free_bytes() == 8192);  // the megabyte went back to the machine
    Buffer biggest = pool.allocate((128u << 20) + (64u << 10));
    CHECK(biggest.capacity() == (128u << 20) + (64u << 10));
    Buffer just_over = pool.allocate((64u << 20) + 1);
    CHECK(just_over.capacity() == 128u << 20);
}

TEST_CASE("free buffers go back largest first, and count together with used ones") {
    BufferPool pool(512 << 10);
    std::vector<Buffer> small, large;
    for (int i = 0; i < 16; i++) small.push_back(pool.allocate(4096));
    for (int i = 0; i < 4; i++) large.push_back(pool.allocate(128 << 10));
    CHECK(pool.used_bytes() == (64 << 10) + (512 << 10));
    large.clear();
    CHECK(pool.free_bytes() == 3 * (128 << 10));  // with the small ones, a fourth would be too much
    small.clear();
    CHECK(pool.free_bytes() == (64 << 10) + 3 * (128 << 10));
    Buffer huge = pool.allocate(400 << 10);
    huge.release();
    CHECK(pool.free_bytes() == (64 << 10) + 3 * (128 << 10));
    for (int i = 0; i < 8; i++) large.push_back(pool.allocate(64 << 10));
    for (Buffer& buffer : large) buffer.release();
    CHECK(pool.free_bytes() <= 512 << 10);
    CHECK(pool.used_bytes() == 0);
}

TEST_CASE("list keeps order and lets elements leave by themselves") {
    List<Item> list;
    Item a(1), b(2), c(3);
    list.push_back(&a);
    list.push_back(&b);
    list.push_front(&c);
    CHECK(list.front()->number == 3);
    a.unlink();
    CHECK(list.next(list.front())->number == 2);
    CHECK(list.next(&b) == nullptr);
    CHECK(list.pop_front() == &c);
    CHECK(list.pop_front() == &b);
    CHECK(list.pop_front() == nullptr);
}

TEST_CASE("log formats only what is wanted, also long lines") {
    Lines lines;
    log(lines, LogLevel::debug, "%s", "unwanted");
    log(lines, LogLevel::warning, "osd %d", 7);
    std::string longer(2000, 'x');
    log(lines, LogLevel::error, "<%s>", longer.c_str());
    REQUIRE(lines.lines.size() == 2);
    CHECK(lines.lines[0] == "osd 7");
    CHECK(lines.lines[1] == "<" + longer + ">");
}

TEST_CASE("probes count by text, in order of first hit") {
    std::string same = "base test b";
    VITASTOR_PROBE("base test a");
    VITASTOR_PROBE("base test b");
    VITASTOR_PROBE(same.c_str());
    std::map<std::string, unsigned long> counts;
    visit_probes(
        [](void* arg, const char* name, unsigned long count) {
            (*static_cast<std::map<std::string, unsigned long>*>(arg))[name] = count;
        },
        &counts);
    CHECK(counts["base test a"] == 1);
    CHECK(counts["base test b"] == 2);
}

TEST_CASE("results and ids") {
    Result<int> good(5);
    CHECK(good.ok());
    CHECK(good.value() == 5);
    Result<int> bad(Status(-ENOENT, "no image"));
    CHECK_FALSE(bad.ok());
    CHECK(bad.status().code() == -ENOENT);
    CHECK(bad.status().message() == "no image");
    CHECK(full_inode(3, 7) == 0x0003000000000007ull);
    CHECK(pool_of(full_inode(65535, 1)) == 65535);
    CHECK(ObjectId{1, 2} < ObjectId{1, 3});
}

TEST_CASE("buffers beyond the size classes are made and given back, not kept") {
    BufferPool pool(size_t{1} << 30);
    Buffer huge = pool.allocate((size_t{200} << 20) + 1);
    CHECK(huge.size() == (size_t{200} << 20) + 1);
    CHECK(pool.used_bytes() == huge.capacity());
    huge.data()[huge.size() - 1] = 1;
    huge.release();
    CHECK(pool.used_bytes() == 0);
    CHECK(pool.free_bytes() == 0);
}

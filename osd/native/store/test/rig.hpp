// SPDX-License-Identifier: GPL-2.0-or-later
// A store on fake disks, operations with their own buffers, and the oracle that says what each of them must answer.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "fake_disk.hpp"
#include "store/store.hpp"

namespace vitastor::test {

using namespace vitastor::store;

class TestLogger final : public Logger {
public:
    void write(LogLevel level, const std::string& text) override {
        if (level == LogLevel::error) errors++;
        if (level == LogLevel::warning) warnings++;
        last = text;
        if (level == LogLevel::error) all += text + "\n";
        if (print) fprintf(stderr, "log %d: %s\n", static_cast<int>(level), text.c_str());
    }
    bool print = false;
    int errors = 0, warnings = 0;
    std::string last;
    std::string all;  ///< errors
};

/// Contents of a granule: a tag, 0 = a hole or zeroes.
void fill_granule(uint8_t* data, uint32_t size, uint32_t tag);
/// The tag, or UINT32_MAX if the bytes are no granule that fill_granule() makes.
uint32_t read_granule(const uint8_t* data, uint32_t size);

struct OracleVersion {
    Version version = 0;
    bool stable = false;
    bool tombstone = false;  ///< alone; without data, and no operation finds it
    std::vector<uint32_t> granules;
    std::vector<uint8_t> bitmap;
    bool operator==(const OracleVersion&) const = default;
};
using OracleObject = std::vector<OracleVersion>;  ///< oldest first; empty: not there

/// An operation with buffers. Results stay readable after it is done.
struct TestOp : Operation {
    std::vector<uint8_t> storage;
    uint8_t* data = nullptr;  ///< 4096-aligned unless skewed
    iovec pieces[3];
    std::vector<uint8_t> bits;
    std::vector<uint32_t> tags;  ///< of a write, by granule
    Version wanted = 0;          ///< version as submitted
    bool done = false;
    uint64_t sequence = 0;       ///< order of completion
    void (*then)(TestOp* self) = nullptr;
    void* arg = nullptr;
};

struct Oracle {
    uint32_t granules = 0;
    /// What the object becomes, and the result that the operation must give.
    int64_t apply(OracleObject& object, const TestOp& op) const;
    /// What a power failure in the middle of a write that stabilises the version before it may leave. false: no such state.
    bool apply_first_half(OracleObject& object, const TestOp& op) const;
};

class Rig {
public:
    explicit Rig(uint64_t seed);
    ~Rig();
    FakeLoop loop;
    TestLogger logger;
    StoreOptions options;
    std::unique_ptr<Store> store;

    /// Adds disks as the options name them. Volatile unless fsync is disabled.
    void make_disks(uint64_t data_size, uint64_t meta_size = 0);
    int open();
    void close();
    /// The empty, closed store gets the smallest log that is accepted: the cleaner has work after a few operations.
    void make_log_small();
    /// The log of the empty, closed store begins at the last but one place of its circle.
    void move_log_to_end();
    /// close() or crash, then open() again.
    int reopen();
    void run(TestOp& op);  ///< to its end
    void start(TestOp& op);
    int64_t forget(PoolId pool, PgNum pg, Version version);  ///< tombstones, to the end
    Listing list(PoolId pool, PgNum pg, int64_t* result = nullptr, uint32_t stable_limit = 0);

    std::unique_ptr<TestOp> write(const ObjectId& object, Version version, uint32_t first, uint32_t count, uint32_t tag,
                                  bool stable = true) const;
    std::unique_ptr<TestOp> read(const ObjectId& object, Version version, uint32_t first, uint32_t count) const;
    std::unique_ptr<TestOp> simple(StoreOp kind, const ObjectId& object, Version version) const;
    /// All versions of one object as the store tells them, through read, or its tombstone. EDOM anywhere: *broken = true.
    OracleObject inspect(const ObjectId& object, bool* broken);
    uint32_t granules() const { return options.block_size / options.bitmap_granularity; }
    std::string describe(const OracleObject& object) const;

private:
    uint8_t* meta_bytes();
    void keep_changes();
    std::unique_ptr<TestOp> with_buffer(uint32_t bytes) const;
};

inline ObjectId object_id(uint64_t inode, uint64_t number, uint32_t block_size) {
    return {full_inode(1, inode), number * block_size};
}

}  // namespace vitastor::test

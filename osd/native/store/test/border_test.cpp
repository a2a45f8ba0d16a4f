// SPDX-License-Identifier: GPL-2.0-or-later
// Whatever a peer sends in a request, the store answers: every field at its borders, in every combination, nothing aborts.
#include <doctest/doctest.h>

#include <cstring>
#include <set>

#include "rig.hpp"

using namespace vitastor;
using namespace vitastor::test;

namespace {

constexpr StoreOp kOps[] = {StoreOp::read,      StoreOp::read_bitmap, StoreOp::write,    StoreOp::write_stable,
                            StoreOp::stabilize, StoreOp::rollback,    StoreOp::del,      StoreOp::sync};
const std::set<int64_t> kErrors{-ENOENT, -EEXIST, -ENOSPC, -EDOM, -EIO, -EINVAL, -EROFS, -EBUSY};

struct Answers {
    uint64_t total = 0, good = 0;
    void check(const TestOp& op) {
        total++;
        REQUIRE(op.done);
        if (op.result >= 0) {
            good++;
            const bool transfers = op.op == StoreOp::read || op.op == StoreOp::write || op.op == StoreOp::write_stable;
            REQUIRE(op.result == (transfers ? op.len : 0));
        } else {
            REQUIRE_MESSAGE(kErrors.count(op.result), op.result);
        }
    }
};

struct Opened : Rig {
    explicit Opened(bool readonly = false) : Rig(1) {
        options.disable_data_fsync = true;
        make_disks(8 << 20);
        REQUIRE(open() == 0);
        store->set_pool_pgs(1, 4, 1 << 20);
        auto stable = write({full_inode(1, 1), 0}, 5, 0, 8, 100);
        run(*stable);
        auto unstable = write({full_inode(1, 1), 0}, 7, 1, 2, 200, false);
        run(*unstable);
        REQUIRE(unstable->result == unstable->len);
        if (!readonly) return;
        close();
        options.readonly = true;
        REQUIRE(open() == 0);
    }
    std::vector<uint8_t> memory = std::vector<uint8_t>(2 * 32768 + 4096, 0x5a);
    std::vector<uint8_t> bitmap = std::vector<uint8_t>(4096, 0x77);

    void one(Answers& answers, StoreOp kind, const ObjectId& object, Version version, uint32_t offset, uint32_t len, bool with_bitmap) {
        TestOp op;
        op.op = kind;
        op.object = object;
        op.version = version;
        op.offset = offset;
        op.len = len;
        // The network layer gives as much memory as a request announces; what is beyond a block is refused before it is touched.
        op.pieces[0] = {memory.data(), len};
        op.iov = op.pieces;
        op.iov_count = len ? 1 : 0;
        op.bitmap = with_bitmap ? bitmap.data() : nullptr;
        run(op);
        answers.check(op);
    }
    /// Still alive, and what was there is there.
    void works() {
        auto read = this->read({full_inode(1, 1), 0}, 5, 0, 8);
        run(*read);
        CHECK((read->result == read->len || read->result == -ENOENT));
        CHECK(store->stats().free_blocks <= store->stats().total_blocks);
        for (PgNum pg = 1; pg <= 4; pg++) list(1, pg);
    }
};

const std::vector<Version> kVersions{0, 1, 4, 5, 6, 7, 8, 1ull << 32, (1ull << 63) - 1, 1ull << 63, kNewestVersion - 1, kNewestVersion};
const std::vector<uint32_t> kPlaces{0, 1, 511, 512, 4095, 4096, 8192, 28672, 32767, 32768, 36864, 1u << 31, UINT32_MAX - 4095, UINT32_MAX};

}  // namespace

TEST_CASE("borders: every operation, offset, length and bitmap is answered") {
    for (bool readonly : {false, true}) {
        Opened rig(readonly);
        Answers answers;
        for (StoreOp kind : kOps)
            for (uint32_t offset : kPlaces)
                for (uint32_t len : kPlaces)
                    for (bool with_bitmap : {false, true})
                        for (Version version : {Version{0}, Version{6}, kNewestVersion})
                            rig.one(answers, kind, {full_inode(1, 1), offset % 3 * 32768}, version, offset, len, with_bitmap);
        MESSAGE(answers.total << " requests, " << answers.good << " of them done");
        rig.works();
        REQUIRE(rig.reopen() == 0);
        rig.works();
    }
}

TEST_CASE("borders: every version on objects with one, several and no versions") {
    for (uint32_t turn = 0; turn < kVersions.size(); turn++) {
        Opened rig;
        Answers answers;
        for (StoreOp first : kOps)
            for (StoreOp second : kOps)
                for (Version version : kVersions) {
                    const ObjectId object{full_inode(1, 1), version % 4 * 32768};
                    rig.one(answers, first, object, kVersions[turn], 4096, 4096, true);
                    rig.one(answers, second, object, version, 0, 32768, false);
                }
        rig.works();
        REQUIRE(rig.reopen() == 0);
        rig.works();
    }
}

TEST_CASE("borders: every object id") {
    Opened rig;
    Answers answers;
    const std::vector<uint64_t> numbers{0, 1, 15, 16, 4095, 1ull << 31, 1ull << 32, (1ull << 48) - 1, 1ull << 48, 1ull << 63, UINT64_MAX - 1, UINT64_MAX};
    for (int round = 0; round < 2; round++) {
        for (uint64_t inode : numbers)
            for (uint64_t stripe : numbers)
                for (StoreOp kind : kOps) rig.one(answers, kind, {inode, stripe}, static_cast<Version>(round * 3 + 1), 0, 4096, true);
        REQUIRE(rig.reopen() == 0);
        rig.works();
    }
    MESSAGE(answers.total << " requests, " << answers.good << " of them done");
    for (PoolId pool : {PoolId{0}, PoolId{1}, PoolId{0xffff}})
        for (PgNum pg : {PgNum{0}, PgNum{1}, PgNum{4}, PgNum{5}, PgNum{UINT32_MAX}})
            for (uint32_t limit : {0u, 1u, UINT32_MAX}) {
                int64_t result = 1;
                rig.list(pool, pg, &result, limit);
                CHECK(result <= 0);
            }
}

TEST_CASE("borders: many unstable versions of one object end in an error, not in more") {
    Opened rig;
    const ObjectId object{full_inode(1, 9), 0};
    Version version = 1;
    int64_t result = 0;
    for (; version < 1000 && result >= 0; version++) {
        auto op = rig.write(object, version, static_cast<uint32_t>(version % 8), 1, 10, false);
        rig.run(*op);
        result = op->result;
    }
    CHECK(result == -ENOSPC);
    auto back = rig.simple(StoreOp::rollback, object, 0);
    rig.run(*back);
    CHECK(back->result == 0);
    auto again = rig.write(object, 1, 0, 8, 10);
    rig.run(*again);
    CHECK(again->result == again->len);
    rig.works();
    REQUIRE(rig.reopen() == 0);
    rig.works();
}

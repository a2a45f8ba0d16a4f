// SPDX-License-Identifier: GPL-2.0-or-later
#include "pg/access.hpp"

#include <doctest/doctest.h>

#include <cerrno>

using namespace vitastor;
using namespace vitastor::pg;

TEST_CASE("locks: holder, takeover by the same OSD, release with the connection") {
    LockTable locks;
    OsdNum holder = 0;
    CHECK(locks.lock({1, 1}, {2, 10, 0x2}, &holder) == 0);
    CHECK(locks.lock({1, 1}, {3, 11, 0x2}, &holder) == -EBUSY);
    CHECK(holder == 2);
    CHECK(locks.lock({1, 1}, {2, 12, 0x8}, &holder) == 0);
    CHECK(locks.find({1, 1})->state == 0x8);
    locks.release_connection(10);
    CHECK(locks.find({1, 1}) != nullptr);
    locks.unlock({1, 1}, 3);
    CHECK(locks.any_in_pool(1));
    CHECK(!locks.any_in_pool(2));
    locks.release_connection(12);
    CHECK(locks.find({1, 1}) == nullptr);
}

TEST_CASE("list fence") {
    ListFence fence;
    CHECK(fence.allows({1, 1}, 5));
    fence.listed({1, 1}, 5);
    CHECK(fence.allows({1, 1}, 5));
    CHECK(!fence.allows({1, 1}, 4));
    CHECK(!fence.allows({1, 1}, 0));
    CHECK(fence.allows({1, 2}, 4));
    fence.listed({1, 1}, 4);
    CHECK(fence.allows({1, 1}, 4));
    CHECK(!fence.allows({1, 1}, 5));
    fence.reset_pool(1);
    CHECK(!fence.allows({1, 1}, 4));
    CHECK(!fence.allows({1, 7}, 4));
    CHECK(fence.allows({2, 1}, 4));
    fence.listed({1, 7}, 4);
    CHECK(fence.allows({1, 7}, 4));
}

TEST_CASE("access rule 9.1") {
    PgLock lock{2, 10, 8};
    CHECK(lock_allows({LockMode::localize_only, false, false, true, nullptr, 0}));
    CHECK(!lock_allows({LockMode::localize_only, false, true, false, nullptr, 2}));
    CHECK(lock_allows({LockMode::localize_only, false, true, false, &lock, 2}));
    CHECK(!lock_allows({LockMode::localize_only, false, true, false, &lock, 3}));
    CHECK(!lock_allows({LockMode::required, false, false, true, &lock, 2}));
    CHECK(!lock_allows({LockMode::required, false, false, false, nullptr, 0}));
    CHECK(lock_allows({LockMode::required, true, false, false, nullptr, 0}));
    CHECK(lock_allows({LockMode::never, false, true, true, nullptr, 0}));
}

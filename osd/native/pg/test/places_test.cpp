// SPDX-License-Identifier: GPL-2.0-or-later
#include "pg/places.hpp"

#include <doctest/doctest.h>

using namespace vitastor;
using namespace vitastor::pg;
namespace os = wire::object_state;

namespace {
constexpr uint32_t kOut = wire::DescribeItem::kOutdated, kBad = wire::DescribeItem::kCorrupted,
                   kDiffer = wire::DescribeItem::kInconsistent;

uint32_t state(const Scheme& scheme, std::vector<OsdNum> current, std::vector<Location> places) {
    return state_of_places(scheme, current, places);
}
}  // namespace

TEST_CASE("state of a replicated object from its copies") {
    const Scheme scheme{SchemeKind::replicated, 2, 1, 0};
    CHECK(state(scheme, {1, 2}, {{0, 0, 1}, {0, 0, 2}}) == 0);
    CHECK(state(scheme, {1, 0}, {{0, 0, 1}}) == 0);
    CHECK(state(scheme, {1, 2}, {{0, 0, 1}}) == os::degraded);
    CHECK(state(scheme, {1, 2}, {{0, 0, 1}, {0, kOut, 2}}) == os::degraded);
    CHECK(state(scheme, {1, 2}, {{0, 0, 1}, {0, kBad, 2}}) == (os::degraded | os::corrupted));
    CHECK(state(scheme, {1, 2}, {{0, kBad, 1}, {0, kBad, 2}}) == (os::incomplete | os::corrupted));
    CHECK(state(scheme, {1, 2}, {{0, kDiffer, 1}, {0, kDiffer, 2}}) == os::inconsistent);
    CHECK(state(scheme, {1, 2}, {{0, 0, 1}, {0, 0, 3}}) == os::misplaced);
    CHECK(state(scheme, {1, 2}, {{0, 0, 1}, {0, 0, 2}, {0, kOut, 3}}) == os::misplaced);
    CHECK(state(scheme, {1, 2}, {{0, 0, 1}, {0, 0, 2}, {0, kBad, 3}}) == (os::misplaced | os::corrupted));
    CHECK(state(scheme, {1, 2}, {}) == os::incomplete);
}

TEST_CASE("state of an erasure-coded object from its chunks") {
    const Scheme scheme{SchemeKind::ec, 3, 2, 1};
    CHECK(state(scheme, {1, 2, 3}, {{0, 0, 1}, {1, 0, 2}, {2, 0, 3}}) == 0);
    CHECK(state(scheme, {1, 2, 0}, {{0, 0, 1}, {1, 0, 2}}) == 0);
    CHECK(state(scheme, {1, 2, 3}, {{0, 0, 1}, {1, kBad, 2}, {2, 0, 3}}) == (os::degraded | os::corrupted));
    CHECK(state(scheme, {1, 2, 3}, {{0, kBad, 1}, {1, kBad, 2}, {2, 0, 3}}) == (os::incomplete | os::corrupted));
    CHECK(state(scheme, {1, 2, 3}, {{0, 0, 2}, {1, 0, 1}, {2, 0, 3}}) == os::misplaced);
    CHECK(state(scheme, {1, 2, 3}, {{0, 0, 1}, {0, 0, 4}, {1, 0, 2}, {2, 0, 3}}) == os::misplaced);
}

TEST_CASE("the most frequent content is right, a tie decides nothing") {
    CHECK(majority(std::vector<int>{7, 7}) == 7);
    CHECK(majority(std::vector<int>{1, 2}) == -1);
    CHECK(majority(std::vector<int>{1, 2, 1}) == 1);
    CHECK(majority(std::vector<int>{1, 2, 3}) == -1);
    CHECK(majority(std::vector<int>{1, 1, 2, 2}) == -1);
    CHECK(majority(std::vector<int>{1, 2, 2, 3}) == 2);
    CHECK(majority(std::vector<int>{1, 1, 2, 2, 3}) == -1);
    CHECK(majority(std::vector<int>{}) == -1);
}

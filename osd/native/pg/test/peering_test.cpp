// SPDX-License-Identifier: GPL-2.0-or-later
#include "pg/peering.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>

using namespace vitastor;
using namespace vitastor::pg;

namespace {
namespace os = wire::object_state;
constexpr uint32_t kOld = wire::DescribeItem::kOutdated;
const Scheme kTwo{SchemeKind::replicated, 2, 1, 0};
const Scheme kThree{SchemeKind::replicated, 3, 1, 0};
const Scheme kEc21{SchemeKind::ec, 3, 2, 1};

struct Case {
    const char* name;
    Scheme scheme;
    std::vector<OsdNum> current;
    std::vector<ListedEntry> entries;  // role, osd, version, stable
    uint32_t state;
    Version target;
    std::vector<Location> locations;  // role, flags, osd
    std::vector<FlushAction> flush;
};

const ObjectId kObject{full_inode(1, 1), 0x20000};
ObjectVersion ov(uint32_t role, Version v) { return {{kObject.inode, kObject.stripe | role}, v}; }

const Case kCases[] = {
    {"clean", kTwo, {1, 2}, {{0, 1, 5, true}, {0, 2, 5, true}}, 0, 5, {{0, 0, 1}, {0, 0, 2}}, {}},
    {"one copy missing", kTwo, {1, 2}, {{0, 1, 5, true}}, os::degraded, 5, {{0, 0, 1}}, {}},
    {"all on the reduced set is not degraded", kTwo, {1, 0}, {{0, 1, 5, true}}, 0, 5, {{0, 0, 1}}, {}},
    {"an old copy on the current holder", kTwo, {1, 2}, {{0, 1, 0x10001, true}, {0, 2, 2, true}}, os::degraded,
     0x10001, {{0, 0, 1}}, {}},
    {"moved", kTwo, {1, 3}, {{0, 1, 5, true}, {0, 2, 5, true}}, os::misplaced, 5, {{0, 0, 1}, {0, 0, 2}}, {}},
    {"moved away whole", kTwo, {3, 4}, {{0, 1, 5, true}, {0, 2, 5, true}}, os::misplaced, 5,
     {{0, 0, 1}, {0, 0, 2}}, {}},
    {"superfluous", kTwo, {1, 2}, {{0, 1, 5, true}, {0, 2, 5, true}, {0, 3, 5, true}}, os::misplaced, 5,
     {{0, 0, 1}, {0, 0, 2}, {0, 0, 3}}, {}},
    {"old garbage elsewhere", kTwo, {1, 2}, {{0, 1, 5, true}, {0, 2, 5, true}, {0, 3, 4, true}}, os::misplaced, 5,
     {{0, 0, 1}, {0, 0, 2}, {0, kOld, 3}}, {}},
    {"three copies, one old outside, one missing", kThree, {1, 2, 4}, {{0, 1, 5, true}, {0, 2, 5, true}, {0, 3, 4, true}},
     os::degraded, 5, {{0, 0, 1}, {0, 0, 2}, {0, kOld, 3}}, {}},
    {"replicated unstable does not count", kTwo, {1, 2}, {{0, 1, 5, true}, {0, 2, 5, true}, {0, 1, 6, false}, {0, 2, 6, false}},
     0, 5, {{0, 0, 1}, {0, 0, 2}},
     {{FlushKind::rollback, 1, ov(0, 5)}, {FlushKind::rollback, 2, ov(0, 5)}}},
    // EC 2+1: what was planted on 3.0.8 (semantics 8).
    {"v+1 on one role is rolled back", kEc21, {1, 2, 3},
     {{0, 1, 1, true}, {1, 2, 1, true}, {2, 3, 1, true}, {0, 1, 2, false}}, 0, 1,
     {{0, 0, 1}, {1, 0, 2}, {2, 0, 3}}, {{FlushKind::rollback, 1, ov(0, 1)}}},
    {"v+1 on two roles is rolled forward", kEc21, {1, 2, 3},
     {{0, 1, 1, true}, {1, 2, 1, true}, {2, 3, 1, true}, {0, 1, 2, false}, {1, 2, 2, false}}, os::degraded, 2,
     {{0, 0, 1}, {1, 0, 2}}, {{FlushKind::stabilize, 1, ov(0, 2)}, {FlushKind::stabilize, 2, ov(1, 2)}}},
    {"v+1 on two, v+2 on one of them", kEc21, {1, 2, 3},
     {{0, 1, 1, true}, {1, 2, 1, true}, {2, 3, 1, true}, {0, 1, 2, false}, {1, 2, 2, false}, {0, 1, 3, false}},
     os::degraded, 2, {{0, 0, 1}, {1, 0, 2}},
     {{FlushKind::rollback, 1, ov(0, 2)}, {FlushKind::stabilize, 1, ov(0, 2)}, {FlushKind::stabilize, 2, ov(1, 2)}}},
    {"a new object with one unstable chunk vanishes", kEc21, {1, 2, 3}, {{1, 2, 1, false}}, 0, 0, {},
     {{FlushKind::rollback, 2, ov(1, 0)}}},
    {"EC stable on one OSD counts, but cannot be read", kEc21, {1, 2, 3}, {{0, 1, 7, true}}, os::incomplete, 7,
     {{0, 0, 1}}, {}},
    {"EC chunk on the wrong OSD", kEc21, {1, 2, 4}, {{0, 1, 7, true}, {1, 2, 7, true}, {2, 3, 7, true}}, os::misplaced, 7,
     {{0, 0, 1}, {1, 0, 2}, {2, 0, 3}}, {}},
};
}  // namespace

TEST_CASE("object states, table of semantics 8") {
    for (const Case& c : kCases) {
        CAPTURE(c.name);
        for (int turn = 0; turn < 4; turn++) {
            std::vector<ListedEntry> entries = c.entries;
            std::shuffle(entries.begin(), entries.end(), std::mt19937(static_cast<unsigned>(turn)));
            Verdict verdict;
            judge_object(c.scheme, c.current, kObject, entries, {}, verdict);
            CHECK(!verdict.invalid);
            CHECK(verdict.state == c.state);
            CHECK(verdict.target == c.target);
            CHECK(verdict.exists == (c.target != 0));
            CHECK(verdict.locations == c.locations);
            CHECK(verdict.flush == c.flush);
        }
    }
}

namespace {
struct BuriedCase {
    const char* name;
    Scheme scheme;
    std::vector<OsdNum> current;
    std::vector<ListedEntry> entries, tombstones;
    OsdNum self;
    bool everywhere;
    Version target;  ///< 0: deleted
    std::vector<FlushAction> flush;
};
FlushAction buried(OsdNum osd, uint32_t role, Version version) { return {FlushKind::bury, osd, ov(role, version)}; }

const BuriedCase kBuried[] = {
    {"a copy older than the delete", kTwo, {1, 2}, {{0, 2, 5}}, {{0, 1, 0x10006}}, 1, false, 0, {buried(2, 0, 0x10006)}},
    {"a copy of the very version", kTwo, {1, 2}, {{0, 2, 6}}, {{0, 1, 6}}, 1, false, 0, {buried(2, 0, 6)}},
    {"the copy was created again", kTwo, {1, 2}, {{0, 2, 7}}, {{0, 1, 6}}, 1, true, 7, {}},
    {"nothing but the memory of it", kTwo, {1, 2}, {}, {{0, 1, 6}}, 1, false, 0, {}},
    {"the primary has to know", kTwo, {1, 2}, {}, {{0, 2, 6}}, 1, false, 0, {buried(1, 0, 6)}},
    {"all have to know while somebody is away", kThree, {1, 2, 0}, {}, {{0, 1, 6}}, 1, true, 0, {buried(2, 0, 6)}},
    {"an older memory is renewed", kThree, {1, 2, 0}, {}, {{0, 1, 6}, {0, 2, 5}}, 1, true, 0, {buried(2, 0, 6)}},
    {"a primary outside the set", kTwo, {1, 2}, {{0, 1, 5}}, {{0, 2, 6}}, 4, false, 0, {buried(1, 0, 6), buried(4, 0, 6)}},
    {"a copy outside the set", kTwo, {1, 2}, {{0, 3, 5}}, {{0, 1, 6}, {0, 2, 6}}, 1, true, 0, {buried(3, 0, 6)}},
    {"no copy, no tombstone of a later one: an old copy stays beside a new one", kTwo, {1, 2}, {{0, 1, 8}, {0, 2, 4}}, {{0, 3, 6}}, 1,
     false, 8, {}},
    {"EC: enough chunks are left, and yet it is deleted", kEc21, {1, 2, 3}, {{1, 2, 5}, {2, 3, 5}}, {{0, 1, 6}}, 1, false, 0,
     {buried(2, 1, 6), buried(3, 2, 6)}},
    {"EC: one chunk is left", kEc21, {1, 2, 3}, {{1, 2, 5}}, {{0, 1, 6}, {2, 3, 6}}, 1, false, 0, {buried(2, 1, 6)}},
    {"EC: a creation that did not get far goes too", kEc21, {1, 2, 3}, {{1, 2, 7, false}}, {{0, 1, 6}, {2, 3, 6}}, 1, false, 0,
     {buried(1, 0, 7), buried(2, 1, 7)}},
    {"EC: created again", kEc21, {1, 2, 3}, {{1, 2, 7, false}, {2, 3, 7, false}}, {{0, 1, 6}}, 1, true, 7,
     {{FlushKind::stabilize, 2, ov(1, 7)}, {FlushKind::stabilize, 3, ov(2, 7)}}},
};
}  // namespace

TEST_CASE("what tombstones cover") {
    for (const BuriedCase& c : kBuried) {
        CAPTURE(c.name);
        std::vector<FlushAction> wanted = c.flush;
        auto order = [](const FlushAction& a, const FlushAction& b) {
            return std::pair(a.osd, a.what.object.stripe) < std::pair(b.osd, b.what.object.stripe);
        };
        Verdict verdict;
        judge_object(c.scheme, c.current, kObject, c.entries, {c.tombstones, c.self, c.everywhere}, verdict);
        std::sort(verdict.flush.begin(), verdict.flush.end(), order);
        std::sort(wanted.begin(), wanted.end(), order);
        CHECK(!verdict.invalid);
        CHECK(verdict.exists == (c.target != 0));
        CHECK(verdict.target == c.target);
        CHECK(verdict.flush == wanted);
        if (!verdict.exists) CHECK(verdict.locations.empty());
    }
}

TEST_CASE("merge with tombstones: believed or passed over") {
    for (bool believe : {true, false}) {
        CAPTURE(believe);
        ObjectTable objects;
        PeeringMerge merge(kTwo, {1, 2}, objects);
        if (believe) merge.believe_tombstones(1, false);
        store::Listing first, second;
        for (uint64_t i = 0; i < 3000; i++) {
            ObjectId object{full_inode(1, 1), i * 0x20000};
            second.stable.push_back({object, 4});
            if (i % 3 == 0) first.tombstones.push_back({object, 0x30005});
            else first.stable.push_back({object, 4});
        }
        merge.add_listing(1, std::move(first));
        merge.add_listing(2, std::move(second));
        while (!merge.step(100)) {
        }
        CHECK(merge.tombstones() == (believe ? 1000 : 0));
        CHECK(merge.flush().size() == (believe ? 1000 : 0));
        CHECK(merge.max_epoch() == (believe ? 3 : 0));
        CHECK(objects.counts().objects == (believe ? 2000 : 3000));
        CHECK(objects.counts().degraded == (believe ? 0 : 1000));
    }
}

TEST_CASE("an impossible role makes the PG invalid") {
    Verdict verdict;
    judge_object(kTwo, std::vector<OsdNum>{1, 2}, kObject, std::vector<ListedEntry>{{1, 1, 5, true}}, {}, verdict);
    CHECK(verdict.invalid);
    judge_object(kEc21, std::vector<OsdNum>{1, 2, 3}, kObject, std::vector<ListedEntry>{{3, 1, 5, true}}, {}, verdict);
    CHECK(verdict.invalid);
}

TEST_CASE("merge of unsorted listings in small steps") {
    const uint64_t count = 10000;
    auto listing = [&](auto keep, Version version, unsigned seed) {
        store::Listing result;
        for (uint64_t i = 0; i < count; i++) {
            if (keep(i)) result.stable.push_back({{full_inode(1, 1 + i % 3), i * 0x20000}, version});
        }
        std::shuffle(result.stable.begin(), result.stable.end(), std::mt19937(seed));
        return result;
    };
    ObjectTable objects;
    PeeringMerge merge(kTwo, {1, 2}, objects);
    merge.add_listing(1, listing([](uint64_t) { return true; }, 0x30001, 1));
    merge.add_listing(2, listing([](uint64_t i) { return i % 10 != 0; }, 0x30001, 2));
    merge.add_listing(3, listing([](uint64_t i) { return i % 10 == 1; }, 0x10001, 3));
    size_t steps = 0;
    while (!merge.step(100)) steps++;
    CHECK(steps > 100);
    CHECK(!merge.invalid());
    CHECK(merge.max_epoch() == 3);
    CHECK(merge.flush().empty());
    CHECK(objects.counts().objects == count);
    CHECK(objects.counts().degraded == count / 10);
    CHECK(objects.counts().misplaced == count / 10);
    CHECK(objects.counts().clean() == count * 8 / 10);
    CHECK(objects.flags() == (wire::pg_state::has_degraded | wire::pg_state::has_misplaced));
    UncleanObject* found = objects.find({full_inode(1, 1 + 11 % 3), 11 * 0x20000});
    REQUIRE(found != nullptr);
    CHECK(found->target == 0x30001);
    CHECK(found->set->where == std::vector<Location>{{0, 0, 1}, {0, 0, 2}, {0, kOld, 3}});
    CHECK(found->set->users == count / 10);
}

TEST_CASE("object table keeps counts right") {
    ObjectTable objects;
    ObjectId a{1, 0}, b{1, 0x20000};
    objects.add_clean(2);
    std::vector<Location> one{{0, 0, 1}};
    objects.set_unclean(a, os::degraded, one, 5);
    CHECK(objects.counts().objects == 2);
    CHECK(objects.counts().degraded == 1);
    objects.set_unclean(a, os::misplaced, one, 6);
    CHECK(objects.counts().degraded == 0);
    CHECK(objects.counts().misplaced == 1);
    CHECK(objects.flags() == wire::pg_state::has_misplaced);
    objects.set_clean(a);
    objects.set_clean(a);
    CHECK(objects.counts().clean() == 2);
    objects.set_unclean(b, os::corrupted | os::degraded, one, 6);
    objects.erase_unclean(b);
    CHECK(objects.counts().objects == 1);
    CHECK(objects.flags() == 0);
    objects.remove_clean();
    objects.remove_clean();
    CHECK(objects.counts().objects == 0);
}

// SPDX-License-Identifier: GPL-2.0-or-later
// The books of the cleaner against a log in numbers: whatever grows, shrinks or restarts, as long as operations stop where they
// are told to, every group can be written again and the log never runs over; and when all have been, operations may go on.
#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "fake_disk.hpp"
#include "store/log_groups.hpp"

using namespace vitastor::store;
using vitastor::test::Random;

namespace {

constexpr uint64_t kReserve = 20;  // the last operation, and the part of a step that goes beyond a round; the store has 64 pages for it

/// A log of `pages`, whose start is always at the front group (as if every step moved it at once).
struct NumberLog {
    explicit NumberLog(uint64_t seed) : random(seed), pages(60 + random.below(400)), slots(1 + static_cast<uint32_t>(random.below(8))) {
        groups.reset(slots);
        limit = pages * kPagePayload * 4 / 10;
    }
    Random random;
    uint64_t pages;
    uint32_t slots;
    LogGroups groups;
    uint64_t end = 0, limit = 0;
    std::vector<uint64_t> weights;  ///< of slots, at most
    std::vector<uint64_t> sizes;    ///< what an entry takes now
    std::vector<LogMark> needed;    ///< of slots, exactly: what a restart would find
    uint64_t most_used = 0;

    LogMark mark() const { return {end, end + 1, 0}; }
    uint64_t live() const {
        uint64_t sum = 0;
        for (uint64_t weight : weights) sum += weight;
        return sum;
    }
    bool may_append() const { return groups.room(pages, end, live(), 0) >= 0; }
    uint64_t used() const { return groups.empty() ? 0 : end - groups.front_mark().slot; }

    void create() {
        const uint64_t weight = 40 + random.below(200);
        if (live() + weight > limit) return;
        groups.cover(weights.size() + 1, mark());
        needed.push_back(mark());
        weights.push_back(weight);
        sizes.push_back(weight / 2 + random.below(weight / 2 + 1));
        groups.change(static_cast<uint32_t>(weights.size() - 1), static_cast<int64_t>(weight));
        end += random.below(3) == 0;
    }
    void change() {
        if (weights.empty()) return;
        const auto slot = static_cast<uint32_t>(random.below(weights.size()));
        const uint64_t weight = random.chance(40) ? 40 : 40 + random.below(random.chance(5) ? 3000 : 200);
        if (live() - weights[slot] + weight > limit) return;
        groups.change(slot, static_cast<int64_t>(weight) - static_cast<int64_t>(weights[slot]));
        weights[slot] = weight;
        sizes[slot] = weight / 2 + random.below(weight / 2 + 1);
        end += random.below(2);
    }
    /// One step as the cleaner takes it. The room for it must be there.
    void step() {
        const LogMark at = mark();
        uint64_t bytes = 0;
        for (uint64_t i = 0; i < groups.size() && (i == 0 || bytes < LogGroups::kStepBytes); i++) {
            const uint64_t first = uint64_t{groups.front()} * slots;
            uint64_t weight = 0, logged = 0;
            for (uint64_t slot = first; slot < std::min<uint64_t>(first + slots, weights.size()); slot++) {
                weight += weights[slot];
                logged += sizes[slot];
                needed[slot] = at;
            }
            bytes += logged;
            groups.rewrite(at, weight, logged);
        }
        end += Geometry::pages_for(bytes) + (bytes && random.chance(10));
    }
    void restart() {
        const LogMark at = mark();
        groups.reset(slots);
        for (uint64_t first = 0; first < weights.size(); first += slots) {
            LogMark mark = at;
            uint64_t weight = 0, logged = 0;
            for (uint64_t slot = first; slot < std::min<uint64_t>(first + slots, weights.size()); slot++) {
                weight += weights[slot];
                logged += sizes[slot];
                if (needed[slot].slot < mark.slot) mark = needed[slot];
            }
            groups.load(mark, weight, logged);
        }
        groups.end_loading();
    }
};

}  // namespace

TEST_CASE("log groups: the cleaner never needs more room than is kept, and always gains") {
    uint64_t fullest = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        NumberLog log(seed);
        CAPTURE(seed);
        for (int i = 0; i < 4000; i++) {
            if (log.random.below(1500) == 0) log.restart();
            if (log.may_append()) {
                if (log.random.chance(30)) log.create();
                else log.change();
            } else {
                // Nobody appends: after all groups have been written again at the latest, there is room.
                uint64_t steps = 0;
                for (; !log.may_append() && steps <= 2 * log.groups.size() + 2; steps++) {
                    const uint64_t tail = log.groups.front_mark().slot;
                    log.step();
                    REQUIRE(log.end - tail <= log.pages + kReserve);  // while the step is written, its start is still where it was
                }
                REQUIRE(log.may_append());
                // Go on until the log is well below its limit, or sometimes not.
                while (log.random.chance(70) && log.used() > log.pages / 2) {
                    const uint64_t tail = log.groups.front_mark().slot;
                    log.step();
                    REQUIRE(log.end - tail <= log.pages + kReserve);
                }
            }
            if (!log.groups.empty()) fullest = std::max(fullest, log.used() * 100 / log.pages);
        }
    }
    CHECK(fullest >= 85);  // and it may be filled nearly to its end
}

TEST_CASE("log groups: groups that lie in order need one step and what has grown, not a whole round") {
    LogGroups groups;
    groups.reset(64);
    const uint64_t pages = 20000, group_bytes = 64 * 192, count = 2000;
    const uint64_t live = count * group_bytes;
    uint64_t end = 0;
    for (uint64_t i = 0; i < count; i++) {
        groups.cover((i + 1) * 64, LogMark{end, end + 1, 0});
        groups.change(static_cast<uint32_t>(i * 64), group_bytes);
        end += 3;
    }
    // Nothing has been written again yet: a whole round is kept free.
    CHECK(groups.room(pages, end, live, 0) < static_cast<int64_t>(pages - end - Geometry::pages_for(live)));
    for (uint64_t i = 0; i < count; i++) {
        groups.rewrite(LogMark{end, end + 1, 0}, group_bytes, group_bytes);
        end += 4;
    }
    const uint64_t tail = groups.front_mark().slot;
    const int64_t room = groups.room(pages, end, live, 0);
    CHECK(room > static_cast<int64_t>(pages - (end - tail) - Geometry::pages_for(live) / 16 - 45));
    groups.change(7, 400000);  // one object has got many versions: so much more is kept free, and so much a step may take
    CHECK(groups.room(pages, end, live + 400000, 0) < room - 190);
    groups.change(7, -400000);
    CHECK(groups.room(pages, end, live, 0) < room - 90);  // until two rounds have shown that no group is so large any more
    CHECK(groups.weight_at(7) == group_bytes);
    CHECK(groups.weight_at(64 * count) == 0);
}

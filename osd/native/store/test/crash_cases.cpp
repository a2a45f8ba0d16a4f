// SPDX-License-Identifier: GPL-2.0-or-later
#include "crash_cases.hpp"

namespace vitastor::test {

namespace {

constexpr wire::ImmediateCommit kModes[] = {wire::ImmediateCommit::all, wire::ImmediateCommit::small, wire::ImmediateCommit::none};

/// What can be done to one object; granules of eight.
Steps letters(uint32_t object) {
    return {
        {Step::write_stable, object, 2, 1, 1, true},     // creates, announced, or in place
        {Step::write_stable, object, 1, 3, 1, false},    // several granules
        {Step::write_stable, object, 0, 8, 1, false},    // the whole block
        {Step::write_unstable, object, 2, 1, 1, false},
        {Step::write_unstable, object, 3, 3, 1, true},
        {Step::write_settling, object, 2, 2, 1, false},
        {Step::stabilize, object, 0, 0, -1, false},
        {Step::rollback, object, 0, 0, 0, false},        // to the oldest version
        {Step::del, object, 0, 0, 1, true},
    };
}

/// An object that was written whole, and one with a stable and an unstable version.
const Steps kPrepared{{Step::write_stable, 0, 0, 8, 1, true},    {Step::write_stable, 1, 0, 5, 1, false},
                      {Step::write_unstable, 1, 1, 2, 1, false}, {Step::sync, 0, 0, 0, 1, false}};

Steps random_steps(Random& random, uint32_t count, uint32_t objects, uint32_t granules) {
    Steps steps;
    for (uint32_t i = 0; i < count; i++) {
        Step step;
        step.object = static_cast<uint32_t>(random.below(objects));
        step.first = static_cast<uint32_t>(random.below(granules));
        step.count = random.chance(50) ? 1 : 1 + static_cast<uint32_t>(random.below(granules - step.first));
        if (random.chance(15)) step.first = 0, step.count = granules;
        step.flag = random.chance(40);
        const uint64_t kind = random.below(20);
        if (kind < 7) step.kind = Step::write_fitting;
        else if (kind < 11) step.kind = kind < 9 ? Step::write_settling : Step::write_unstable;
        else if (kind < 14) step.kind = Step::stabilize;
        else if (kind < 15) step.kind = Step::rollback;
        else if (kind < 17) step.kind = random.chance(50) ? Step::bury : Step::del;
        else if (kind < 18) step.kind = Step::sync;
        else step.kind = random.chance(50) ? Step::read : Step::idle;
        if (step.kind == Step::stabilize || step.kind == Step::rollback)
            step.version = random.chance(50) ? -1 : static_cast<int32_t>(random.below(3));
        steps.push_back(step);
    }
    return steps;
}

/// Four entries of whole blocks fill a page.
void make_entries_big(CrashShape& shape) {
    shape.block_size = 131072;
    shape.granularity = 512;
    shape.objects = 4;
}

}  // namespace

Steps alphabet() {
    Steps all = letters(0), second = letters(1);
    all.insert(all.end(), second.begin(), second.end());
    all.push_back({Step::bury, 0, 0, 0, 1, false});
    all.push_back({Step::sync, 0, 0, 0, 1, false});
    all.push_back({Step::idle, 0, 0, 0, 1, false});
    return all;
}

std::vector<CrashShape> short_shapes() {
    std::vector<CrashShape> all;
    for (auto mode : kModes)
        for (bool fsync : {true, false})
            for (bool checksums : {true, false})
                for (bool prepared : {false, true}) {
                    CrashShape shape;
                    shape.mode = mode;
                    shape.fsync = fsync;
                    shape.checksums = checksums;
                    if (prepared) shape.prepare = kPrepared;
                    shape.dirty = fsync == checksums;
                    shape.near_wrap = prepared;
                    shape.discard = prepared && checksums;
                    if (prepared && mode != wire::ImmediateCommit::small) shape.sums_cache = 0;
                    all.push_back(shape);
                }
    return all;
}

Steps sequence(const Steps& from, uint64_t number, uint32_t length) {
    Steps steps;
    for (uint32_t i = 0; i < length; i++) {
        steps.push_back(from[number % from.size()]);
        number /= from.size();
    }
    return steps;
}

CrashCase long_case(uint64_t seed) {
    Random random(seed);
    CrashShape shape;
    shape.mode = kModes[random.below(3)];
    shape.fsync = random.chance(60);
    shape.checksums = random.chance(70);
    shape.block_size = random.chance(30) ? 65536 : 32768;
    shape.granularity = random.chance(20) ? shape.block_size / 8 : 4096;
    shape.atomic_write_size = random.chance(20) ? 512 : random.chance(20) ? 16384 : 4096;
    shape.separate_meta = random.chance(30);
    shape.dirty = random.chance(50);
    shape.near_wrap = random.chance(50);
    shape.objects = 1 + static_cast<uint32_t>(random.below(4));
    shape.discard = random.chance(30);
    if (Random(seed + 77).chance(40)) shape.sums_cache = static_cast<int>(seed % 3 * 300);
    const bool big_entries = random.chance(25);
    if (big_entries) make_entries_big(shape);
    Steps steps = random_steps(random, 8 + static_cast<uint32_t>(random.below(30)), shape.objects, shape.block_size / shape.granularity);
    if (big_entries && random.chance(50))  // announced writes, whole blocks and syncs side by side
        for (Step& step : steps) {
            const uint64_t form = random.below(10);
            step = {form < 4 ? Step::write_fitting : form < 8 ? Step::write_stable : Step::sync, step.object, form < 4 ? step.first : 0,
                    form < 4 ? 1u : 256u, 1, false};
        }
    const uint32_t depth = random.chance(30) ? 1 : 1 + static_cast<uint32_t>(random.below(10));
    return {shape, steps, depth, seed, {2, 2}};
}

CrashCase compaction_case(uint64_t turn, uint32_t samples) {
    Random random(turn + 1);
    CrashShape shape;
    make_entries_big(shape);
    shape.mode = kModes[turn % 3];
    shape.fsync = turn / 3 % 2;
    shape.small_log = true;
    shape.near_wrap = turn % 4 == 3;
    shape.dirty = turn % 4 == 1;
    shape.separate_meta = turn % 5 == 4;
    if (turn % 2) shape.sums_cache = static_cast<int>(turn % 3 * 1000);
    const uint64_t before = 36 + random.below(30);  // somewhere here the cleaner begins
    for (uint64_t i = 0; i < before; i++)
        shape.prepare.push_back({Step::write_stable, static_cast<uint32_t>(i % 4), 0, 256 - static_cast<uint32_t>(i % 3), 1, false});
    Steps steps = random_steps(random, 24, shape.objects, 256);
    for (Step& step : steps)
        if (step.kind == Step::read) step = {Step::write_fitting, step.object, 0, 250, 1, false};
    return {shape, steps, 1 + static_cast<uint32_t>(random.below(4)), turn + 1, {2, samples}};
}

CrashCase unflushed_case(uint64_t seed) {
    Random random(seed);
    CrashShape shape;
    make_entries_big(shape);
    shape.mode = wire::ImmediateCommit::none;
    shape.separate_meta = random.chance(30);
    for (uint32_t object = 0; object < 4; object++) shape.prepare.push_back({Step::write_stable, object, 0, 256, 1, false});
    shape.prepare.push_back({Step::sync, 0, 0, 0, 1, false});
    Steps steps;
    for (int round = 0; round < 2; round++) {
        steps.push_back({Step::write_stable, 0, static_cast<uint32_t>(random.below(256)), 1, 1, false});
        for (uint32_t i = 0; i < 4; i++) steps.push_back({Step::write_stable, 1 + i % 3, 0, 256, 1, false});
        steps.push_back({Step::sync, 0, 0, 0, 1, false});
    }
    return {shape, steps, 4 + static_cast<uint32_t>(random.below(6)), seed, {2, 6}};
}

CrashCase repeated_case(uint64_t seed) {
    Random random(seed);
    CrashShape shape;
    make_entries_big(shape);
    shape.objects = 8;
    shape.mode = kModes[seed % 2];
    shape.fsync = random.chance(30);
    shape.small_log = true;
    const uint64_t before = 30 + random.below(36);
    for (uint64_t i = 0; i < before; i++) shape.prepare.push_back({Step::write_stable, static_cast<uint32_t>(i % 8), 0, 256, 1, false});
    Steps steps;
    for (int i = 0; i < 24; i++) {  // one granule decides over many: the entry is nearly as long as that of a whole block
        const auto first = static_cast<uint32_t>(random.below(30));
        steps.push_back({Step::write_stable, static_cast<uint32_t>(random.below(8)), first, 100 + static_cast<uint32_t>(random.below(120)), 1, false});
    }
    return {shape, steps, 8, seed, {2, 6}};
}

}  // namespace vitastor::test

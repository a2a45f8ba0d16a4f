// SPDX-License-Identifier: GPL-2.0-or-later
// Crash points: short sequences of operations, all of them, and a power failure at every single I/O of each.
//   VITASTOR_LONG=1 bin/store_crash_test       everything; VITASTOR_PERCENT=n: of the sequences of three
//   VITASTOR_SEED=n, VITASTOR_SEEDS=n          of the long random sequences
//   VITASTOR_CRASH='...' bin/store_crash_test  one failure again, as it was printed
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "crash_run.hpp"

using namespace vitastor;
using namespace vitastor::test;

namespace {

uint64_t setting(const char* name, uint64_t otherwise) {
    const char* text = getenv(name);
    return text ? strtoull(text, nullptr, 10) : otherwise;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kThinned = 10;  // sanitizers look at the code, not at every state
#else
constexpr uint64_t kThinned = 1;
#endif

bool is_long() { return getenv("VITASTOR_LONG") != nullptr; }

/// What can be done to one object; granules of eight.
Steps letters(uint32_t object) {
    return {
        {Step::write_stable, object, 2, 1, 1, true},     // creates, announced, or in place
        {Step::write_stable, object, 1, 3, 1, false},    // several granules
        {Step::write_stable, object, 0, 8, 1, false},    // the whole block
        {Step::write_unstable, object, 2, 1, 1, false},
        {Step::write_unstable, object, 3, 3, 1, true},
        {Step::stabilize, object, 0, 0, -1, false},
        {Step::rollback, object, 0, 0, 0, false},        // to the oldest version
        {Step::del, object, 0, 0, 1, true},
    };
}

/// All operations, on two objects, and the one that belongs to none.
Steps alphabet() {
    Steps all = letters(0), second = letters(1);
    all.insert(all.end(), second.begin(), second.end());
    all.push_back({Step::bury, 0, 0, 0, 1, false});
    all.push_back({Step::sync, 0, 0, 0, 1, false});
    all.push_back({Step::idle, 0, 0, 0, 1, false});
    return all;
}

/// An object that was written whole, and one with a stable and an unstable version.
const Steps kPrepared{{Step::write_stable, 0, 0, 8, 1, true},    {Step::write_stable, 1, 0, 5, 1, false},
                      {Step::write_unstable, 1, 1, 2, 1, false}, {Step::sync, 0, 0, 0, 1, false}};

std::vector<CrashShape> shapes() {
    std::vector<CrashShape> all;
    for (auto mode : {wire::ImmediateCommit::all, wire::ImmediateCommit::small, wire::ImmediateCommit::none})
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

/// The sequence with a number below size^length.
Steps sequence(const Steps& from, uint64_t number, uint32_t length) {
    Steps steps;
    for (uint32_t i = 0; i < length; i++) {
        steps.push_back(from[number % from.size()]);
        number /= from.size();
    }
    return steps;
}

std::string repeat_line(const CrashShape& shape, const Steps& steps, uint32_t depth, uint64_t seed, const CrashLimits& limits) {
    return "VITASTOR_CRASH='" + std::to_string(depth) + " " + std::to_string(seed) + " " + std::to_string(limits.exhaustive_units) + " " +
           std::to_string(limits.samples) + " | " + shape.text() + " | " + to_text(steps) + "' bin/store_crash_test -tc='one failure again'";
}

/// Runs one sequence; a failure is cut down, printed, and ends the test.
bool run_one(CrashRun& run, const CrashShape& shape, const Steps& steps, uint32_t depth, uint64_t seed, const CrashLimits& limits) {
    std::string problem = run.run(steps, depth, seed, limits);
    if (problem.empty()) return true;
    Steps fewer = steps;
    if (steps.size() > 1)
        fewer = shrink(steps, 60, [&](const Steps& tried) {
            CrashRun again(shape);
            std::string found = again.run(tried, depth, seed, limits);
            if (found.empty()) return false;
            problem = found;
            return true;
        });
    std::string text = problem + "\n  " + shape.text() + "\n";
    for (const Step& step : fewer) text += "    " + describe(step, shape.granularity) + "\n";
    MESSAGE(text << "  repeat: " << repeat_line(shape, fewer, depth, seed, limits));
    CHECK(problem.empty());
    return false;
}

}  // namespace

TEST_CASE("every sequence of one and two operations, a power failure at every I/O") {
    const Steps all = alphabet();
    const CrashLimits limits{is_long() ? 6u : 3u, is_long() ? 8u : 2u};
    CrashCount total;
    bool good = true;
    for (const CrashShape& shape : shapes()) {
        CrashRun run(shape);
        for (uint32_t length = 1; length <= 2 && good; length++) {
            uint64_t count = 1;
            for (uint32_t i = 0; i < length; i++) count *= all.size();
            for (uint64_t number = 0; number < count && good; number++) {
                if (!is_long() && length == 2 && (number + total.sequences) % kThinned) continue;
                const Steps steps = sequence(all, number, length);
                if (shape.prepare.empty() && steps[0].object == 1) continue;  // the same with the objects exchanged
                for (uint32_t depth = 1; depth <= length && good; depth++)
                    good = run_one(run, shape, steps, depth, number + 1, limits);
            }
        }
        total.add(run.count);
        if (!good) break;
    }
    MESSAGE(total.text());
}

TEST_CASE("sequences of three operations, a power failure at every I/O") {
    const Steps all = alphabet();
    const CrashLimits limits{is_long() ? 5u : 3u, is_long() ? 4u : 2u};
    const uint64_t count = all.size() * all.size() * all.size();
    const uint64_t wanted = is_long() ? count * setting("VITASTOR_PERCENT", 100) / 100 : 60 / kThinned;  // of each shape
    CrashCount total;
    bool good = true;
    uint64_t turn = 0;
    for (const CrashShape& shape : shapes()) {
        CrashRun run(shape);
        Random random(++turn);
        for (uint64_t number = 0; number < count && good; number++) {
            if (random.below(count) >= wanted) continue;
            const Steps steps = sequence(all, number, 3);
            if (shape.prepare.empty() && steps[0].object == 1) continue;
            for (uint32_t depth : {1u, 3u})
                if (good) good = run_one(run, shape, steps, depth, number + 1, limits);
        }
        total.add(run.count);
        if (!good) break;
    }
    MESSAGE(total.text());
}

namespace {

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
        else if (kind < 11) step.kind = Step::write_unstable;
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

}  // namespace

TEST_CASE("long random sequences, a power failure at every I/O") {
    const uint64_t count = setting("VITASTOR_SEEDS", is_long() ? 4000 : 60 / kThinned);
    const uint64_t first = setting("VITASTOR_SEED", 1);
    CrashCount total;
    for (uint64_t seed = first; seed < first + count; seed++) {
        Random random(seed);
        CrashShape shape;
        constexpr wire::ImmediateCommit kModes[] = {wire::ImmediateCommit::all, wire::ImmediateCommit::small, wire::ImmediateCommit::none};
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
        if (big_entries) {  // four entries fill a page
            shape.block_size = 131072;
            shape.granularity = 512;
            shape.objects = 4;
        }
        CrashRun run(shape);
        Steps steps = random_steps(random, 8 + static_cast<uint32_t>(random.below(30)), shape.objects, shape.block_size / shape.granularity);
        if (big_entries && random.chance(50))  // announced writes, whole blocks and syncs side by side
            for (Step& step : steps) {
                const uint64_t form = random.below(10);
                step = {form < 4 ? Step::write_fitting : form < 8 ? Step::write_stable : Step::sync, step.object, form < 4 ? step.first : 0,
                        form < 4 ? 1u : 256u, 1, false};
            }
        const uint32_t depth = random.chance(30) ? 1 : 1 + static_cast<uint32_t>(random.below(10));
        const bool good = run_one(run, shape, steps, depth, seed, {2, 2});
        total.add(run.count);
        if (!good) break;
    }
    MESSAGE(total.text());
}

TEST_CASE("a power failure at every I/O while the log is being compacted") {
    const uint64_t count = setting("VITASTOR_SEEDS", is_long() ? 60 : 1);
    CrashCount total;
    double moved = 0;
    bool good = true;
    for (uint64_t turn = 0; turn < count * 24 && good; turn += is_long() ? 1 : 1 + kThinned / 3) {
        Random random(turn + 1);
        CrashShape shape;  // few entries fill a page
        constexpr wire::ImmediateCommit kModes[] = {wire::ImmediateCommit::all, wire::ImmediateCommit::small, wire::ImmediateCommit::none};
        shape.mode = kModes[turn % 3];
        shape.fsync = turn / 3 % 2;
        shape.block_size = 131072;
        shape.granularity = 512;
        shape.small_log = true;
        shape.near_wrap = turn % 4 == 3;
        shape.dirty = turn % 4 == 1;
        shape.separate_meta = turn % 5 == 4;
        shape.objects = 4;
        if (turn % 2) shape.sums_cache = static_cast<int>(turn % 3 * 1000);
        const uint64_t before = 36 + random.below(30);  // somewhere here the cleaner begins
        for (uint64_t i = 0; i < before; i++)
            shape.prepare.push_back({Step::write_stable, static_cast<uint32_t>(i % 4), 0, 256 - static_cast<uint32_t>(i % 3), 1, false});
        CrashRun run(shape);
        Steps steps = random_steps(random, 24, shape.objects, 256);
        for (Step& step : steps)
            if (step.kind == Step::read) step = {Step::write_fitting, step.object, 0, 250, 1, false};
        good = run_one(run, shape, steps, 1 + static_cast<uint32_t>(random.below(4)), turn + 1, {2, 1});
        total.add(run.count);
        moved += run.log_rounds > 0;
    }
    CHECK((!good || moved >= 1));
    MESSAGE(total.text() << "; the start of the log moved in " << moved << " of the sequences");
}

TEST_CASE("one failure again") {
    const char* text = getenv("VITASTOR_CRASH");
    if (!text) return;
    unsigned depth = 1, units = 0, samples = 0;
    unsigned long long seed = 1;
    REQUIRE(sscanf(text, "%u %llu %u %u", &depth, &seed, &units, &samples) == 4);
    const std::string line = text;
    const size_t first = line.find(" | "), second = line.find(" | ", first + 3);
    REQUIRE(second != std::string::npos);
    CrashShape shape;
    Steps steps;
    REQUIRE(CrashShape::parse(line.substr(first + 3, second - first - 3), shape));
    REQUIRE(from_text(line.substr(second + 3), steps));
    CrashRun run(shape);
    const std::string problem = run.run(steps, depth, seed, {units, samples});
    for (const Step& step : steps) MESSAGE(describe(step, shape.granularity));
    MESSAGE(run.count.text());
    CHECK_MESSAGE(problem.empty(), problem);
}

// SPDX-License-Identifier: GPL-2.0-or-later
// Crash points: short sequences of operations, all of them, and a power failure at every single I/O of each.
//   VITASTOR_LONG=1 bin/store_crash_test       everything; VITASTOR_PERCENT=n: of the sequences of three; VITASTOR_SHARD=i/n: a part of them
//   VITASTOR_SEED=n, VITASTOR_SEEDS=n          of the long random sequences
//   VITASTOR_CRASH='...' bin/store_crash_test  one failure again, as it was printed
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "crash_cases.hpp"

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

std::string repeat_line(const CrashCase& each) {
    return "VITASTOR_CRASH='" + std::to_string(each.depth) + " " + std::to_string(each.seed) + " " + std::to_string(each.limits.exhaustive_units) +
           " " + std::to_string(each.limits.samples) + " | " + each.shape.text() + " | " + to_text(each.steps) + "' bin/store_crash_test -tc='one failure again'";
}

/// Runs one sequence; a failure is cut down, printed, and ends the test.
bool run_one(CrashRun& run, const CrashCase& each) {
    std::string problem = run.run(each.steps, each.depth, each.seed, each.limits);
    if (problem.empty()) return true;
    CrashCase fewer = each;
    if (each.steps.size() > 1)
        fewer.steps = shrink(each.steps, 60, [&](const Steps& tried) {
            CrashRun again(each.shape);
            std::string found = again.run(tried, each.depth, each.seed, each.limits);
            if (found.empty()) return false;
            problem = found;
            return true;
        });
    std::string text = problem + "\n  " + each.shape.text() + "\n";
    for (const Step& step : fewer.steps) text += "    " + describe(step, each.shape.granularity) + "\n";
    MESSAGE(text << "  repeat: " << repeat_line(fewer));
    CHECK(problem.empty());
    return false;
}

}  // namespace

TEST_CASE("every sequence of one and two operations, a power failure at every I/O") {
    const Steps all = alphabet();
    const CrashLimits limits{is_long() ? 6u : 3u, is_long() ? 8u : 2u};
    CrashCount total;
    bool good = true;
    for (const CrashShape& shape : short_shapes()) {
        CrashRun run(shape);
        for (uint32_t length = 1; length <= 2 && good; length++) {
            uint64_t count = 1;
            for (uint32_t i = 0; i < length; i++) count *= all.size();
            for (uint64_t number = 0; number < count && good; number++) {
                if (!is_long() && length == 2 && (number + total.sequences) % kThinned) continue;
                const Steps steps = sequence(all, number, length);
                if (shape.prepare.empty() && steps[0].object == 1) continue;  // the same with the objects exchanged
                for (uint32_t depth = 1; depth <= length && good; depth++)
                    good = run_one(run, {shape, steps, depth, number + 1, limits});
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
    unsigned shard = 0, shards = 1;
    if (const char* text = getenv("VITASTOR_SHARD")) REQUIRE((sscanf(text, "%u/%u", &shard, &shards) == 2 && shards > 0));
    const uint64_t wanted = is_long() ? count * setting("VITASTOR_PERCENT", 100) / 100 : 60 / kThinned;  // of each shape
    CrashCount total;
    bool good = true;
    uint64_t turn = 0;
    for (const CrashShape& shape : short_shapes()) {
        CrashRun run(shape);
        Random random(++turn);
        for (uint64_t number = 0; number < count && good; number++) {
            if (random.below(count) >= wanted || number % shards != shard) continue;
            const Steps steps = sequence(all, number, 3);
            if (shape.prepare.empty() && steps[0].object == 1) continue;
            for (uint32_t depth : {1u, 3u})
                if (good) good = run_one(run, {shape, steps, depth, number + 1, limits});
        }
        total.add(run.count);
        if (!good) break;
    }
    MESSAGE(total.text());
}

TEST_CASE("long random sequences, a power failure at every I/O") {
    const uint64_t count = setting("VITASTOR_SEEDS", is_long() ? 4000 : 60 / kThinned);
    const uint64_t first = setting("VITASTOR_SEED", 1);
    CrashCount total;
    for (uint64_t seed = first; seed < first + count; seed++) {
        const CrashCase each = long_case(seed);
        CrashRun run(each.shape);
        const bool good = run_one(run, each);
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
        const CrashCase each = compaction_case(turn, 1);
        CrashRun run(each.shape);
        good = run_one(run, each);
        total.add(run.count);
        moved += run.log_rounds > 0;
    }
    CHECK((!good || moved >= 1));
    MESSAGE(total.text() << "; the start of the log moved in " << moved << " of the sequences");
}

TEST_CASE("announced writes in a volatile cache, and announced writes that the cleaner repeats") {
    const uint64_t count = setting("VITASTOR_SEEDS", is_long() ? 400 : 6 / kThinned + 1);
    CrashCount total;
    bool good = true;
    for (uint64_t seed = 1; seed <= count && good; seed++)
        for (const CrashCase& each : {unflushed_case(seed), repeated_case(seed)}) {
            CrashRun run(each.shape);
            good = good && run_one(run, each);
            total.add(run.count);
        }
    MESSAGE(total.text());
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

// SPDX-License-Identifier: GPL-2.0-or-later
// Random histories against the oracle, and every crash point of short ones. A failure is cut down and printed with the line that repeats it.
//   VITASTOR_SEED=n bin/store_model_test          from that seed on
//   VITASTOR_SEEDS=n bin/store_model_test         that many seeds
//   VITASTOR_HISTORY='...' bin/store_model_test   one failure again
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <map>

#include "base/assert.hpp"
#include "history.hpp"

using namespace vitastor::test;

namespace {

uint64_t setting(const char* name, uint64_t otherwise) {
    const char* text = getenv(name);
    return text ? strtoull(text, nullptr, 10) : otherwise;
}

struct Seeds {
    uint64_t first, count;
    Seeds(uint64_t offset, uint64_t usual_count) {
        const uint64_t one = setting("VITASTOR_SEED", 0);
        first = one ? one : offset + 1;
        count = std::max<uint64_t>(usual_count * setting("VITASTOR_SEEDS", one ? 1 : 120) / 120, 1);
    }
};

bool report(const HistoryResult& result, const HistoryShape& shape) {
    if (getenv("VITASTOR_TRACE")) fprintf(stderr, "%s\n", shape.text().c_str());
    if (result.problem.empty()) return true;
    MESSAGE(explain(shape, result.problem));
    CHECK(result.problem.empty());
    return false;
}

void histories(HistoryShape (*shape_of)(uint64_t seed), const Seeds& seeds) {
    uint64_t operations = 0, ios = 0, crashes = 0, done = 0;
    double rounds = 0;
    for (uint64_t i = 0; i < seeds.count; i++) {
        const HistoryShape shape = shape_of(seeds.first + i);
        const HistoryResult result = run_history(shape);
        operations += result.operations;
        ios += result.ios;
        crashes += result.crashes;
        rounds += result.log_rounds;
        done++;
        if (!report(result, shape)) break;
    }
    MESSAGE(done << " histories, " << operations << " operations, " << ios << " I/Os, " << crashes << " power failures, the logs went round "
                 << rounds << " times");
}

}  // namespace

TEST_CASE("random histories") { histories(HistoryShape::random, Seeds(0, 120)); }

TEST_CASE("random histories in areas at the borders of buffers and segments") { histories(HistoryShape::at_border, Seeds(500000, 60)); }

TEST_CASE("histories reach every way that a write can take") {
    if (setting("VITASTOR_SEED", 0) || setting("VITASTOR_SEEDS", 120) < 60) return;  // too few of them ran before
    std::map<std::string, unsigned long> hits;
    vitastor::visit_probes([](void* arg, const char* name, unsigned long count) {
        (*static_cast<std::map<std::string, unsigned long>*>(arg))[name] = count;
    }, &hits);
    for (const char* name : {"overwrite goes home", "home is free but not durably", "no spare room: the block is rewritten",
                             "announced write of several granules", "announced write taken back in replay", "a granule decides over others at home",
                             "a granule decides over others in a spare block", "write with a deciding granule taken back in replay", "write waits for spare granules",
                             "mover works while the store is idle", "mover leaves an object in use",
                             "mover leaves a granule whose home is in use", "write waits for a spare block to become free"})
        CHECK_MESSAGE(hits[name] > 0, name);
}

TEST_CASE("a power failure at a random I/O of long histories") {
    const Seeds seeds(100000, 120);
    uint64_t crashes = 0;
    for (uint64_t i = 0; i < seeds.count; i++) {
        HistoryShape shape = HistoryShape::random(seeds.first + i);
        const HistoryResult whole = run_history(shape);
        if (!report(whole, shape)) break;
        Random random(shape.seed);
        bool good = true;
        for (int k = 0; k < 5 && good; k++) {
            shape.crash_at = random.below(whole.ios + 1);
            const HistoryResult result = run_history(shape);
            crashes += result.crashes;
            good = report(result, shape);
        }
        if (!good) break;
    }
    MESSAGE(seeds.count << " histories, " << crashes << " power failures");
}

TEST_CASE("the log goes round, also with power failures") {
    const Seeds seeds(300000, 4);
    double rounds = 0;
    uint64_t crashes = 0;
    for (uint64_t i = 0; i < seeds.count; i++) {
        HistoryShape shape = HistoryShape::random(seeds.first + i);
        shape.steps = 30000;
        shape.depth = i % 3 == 0 ? 1 : 4;
        shape.objects = 10;
        shape.fsync = i % 2;
        shape.restarts = i % 2 == 0;
        const HistoryResult whole = run_history(shape);
        rounds += whole.log_rounds;
        bool good = report(whole, shape);
        Random random(shape.seed);
        for (int k = 0; k < 2 && good; k++) {
            shape.crash_at = whole.ios / 2 + random.below(whole.ios / 2);
            const HistoryResult result = run_history(shape);
            crashes += result.crashes;
            good = report(result, shape);
        }
        if (!good) break;
    }
    CHECK((seeds.count < 4 || rounds > 1));
    MESSAGE(seeds.count << " histories of 30000 operations, " << crashes << " power failures, the logs went round " << rounds << " times");
}

TEST_CASE("a power failure at every I/O of short histories") {
    const Seeds seeds(200000, 30);
    uint64_t crashes = 0;
    for (uint64_t i = 0; i < seeds.count; i++) {
        HistoryShape shape = HistoryShape::random(seeds.first + i);
        shape.steps = 12;
        shape.objects = 2;
        shape.restarts = false;
        shape.ballast = 0;
        const uint64_t ios = run_history(shape).ios;
        bool good = true;
        for (shape.crash_at = 0; shape.crash_at <= ios && good; shape.crash_at++) {
            const HistoryResult result = run_history(shape);
            crashes += result.crashes;
            good = report(result, shape);
        }
        if (!good) break;
    }
    MESSAGE(crashes << " power failures");
}

TEST_CASE("one history again") {
    const char* text = getenv("VITASTOR_HISTORY");
    if (!text) return;
    HistoryShape shape;
    Steps steps;
    REQUIRE(parse_history(text, shape, steps));
    const HistoryResult result = run_history(shape, steps);
    const std::string text_of_it = result.problem.empty() ? "" : explain(shape, result.problem, &steps);
    CHECK_MESSAGE(result.problem.empty(), text_of_it);
}

// SPDX-License-Identifier: GPL-2.0-or-later
// Random histories against the oracle, and every crash point of short ones.
// One seed again:   VITASTOR_SEED=n bin/store_model_test        more:   VITASTOR_SEEDS=n bin/store_model_test
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "history.hpp"

using namespace vitastor::test;

namespace {

uint64_t setting(const char* name, uint64_t otherwise) {
    const char* text = getenv(name);
    return text ? strtoull(text, nullptr, 10) : otherwise;
}

bool report(const HistoryResult& result, const HistoryShape& shape, const char* test) {
    if (result.problem.empty()) return true;
    MESSAGE(result.problem << "\n  repeat: VITASTOR_SEED=" << shape.seed << " bin/store_model_test -tc='" << std::string(test) << "'");
    CHECK(result.problem.empty());
    return false;
}

}  // namespace

TEST_CASE("random histories") {
    const uint64_t one = setting("VITASTOR_SEED", 0);
    const uint64_t count = one ? 1 : setting("VITASTOR_SEEDS", 120);
    uint64_t operations = 0, ios = 0;
    for (uint64_t i = 0; i < count; i++) {
        const HistoryShape shape = HistoryShape::random(one ? one : i + 1);
        const HistoryResult result = run_history(shape);
        operations += result.operations;
        ios += result.ios;
        if (!report(result, shape, "random histories")) break;
    }
    MESSAGE(count << " histories, " << operations << " operations, " << ios << " I/Os");
}

TEST_CASE("a power failure at a random I/O of long histories") {
    const uint64_t one = setting("VITASTOR_SEED", 0);
    const uint64_t count = one ? 1 : setting("VITASTOR_SEEDS", 120);
    uint64_t crashes = 0;
    for (uint64_t i = 0; i < count; i++) {
        HistoryShape shape = HistoryShape::random(one ? one : 100000 + i);
        if (getenv("VITASTOR_TRACE")) fprintf(stderr, "%s\n", shape.text().c_str());
        const HistoryResult whole = run_history(shape);
        if (!report(whole, shape, "a power failure at a random I/O of long histories")) break;
        Random random(shape.seed);
        bool good = true;
        for (int k = 0; k < 5 && good; k++) {
            shape.crash_at = random.below(whole.ios + 1);
            if (getenv("VITASTOR_TRACE")) fprintf(stderr, "%s\n", shape.text().c_str());
            const HistoryResult result = run_history(shape);
            crashes += result.crashed;
            good = report(result, shape, "a power failure at a random I/O of long histories");
        }
        if (!good) break;
    }
    MESSAGE(crashes << " crashes");
}

TEST_CASE("the log goes round, also with power failures") {
    const uint64_t one = setting("VITASTOR_SEED", 0);
    const uint64_t count = one ? 1 : setting("VITASTOR_SEEDS", 120) / 30;
    double rounds = 0;
    uint64_t crashes = 0;
    for (uint64_t i = 0; i < count; i++) {
        HistoryShape shape = HistoryShape::random(one ? one : 300000 + i);
        shape.steps = 30000;
        shape.depth = i % 3 == 0 ? 1 : 4;
        shape.objects = 10;
        shape.fsync = i % 2;
        const HistoryResult whole = run_history(shape);
        rounds += whole.log_rounds;
        bool good = report(whole, shape, "the log goes round, also with power failures");
        Random random(shape.seed);
        for (int k = 0; k < 2 && good; k++) {
            shape.crash_at = whole.ios / 2 + random.below(whole.ios / 2);
            const HistoryResult result = run_history(shape);
            crashes += result.crashed;
            good = report(result, shape, "the log goes round, also with power failures");
        }
        if (!good) break;
    }
    CHECK((one || rounds > 1));
    MESSAGE(crashes << " crashes, the logs went round " << rounds << " times");
}

TEST_CASE("a power failure at every I/O of short histories") {
    const uint64_t one = setting("VITASTOR_SEED", 0);
    const uint64_t count = one ? 1 : setting("VITASTOR_SEEDS", 120) / 4;
    uint64_t crashes = 0;
    for (uint64_t i = 0; i < count; i++) {
        HistoryShape shape = HistoryShape::random(one ? one : 200000 + i);
        shape.steps = 12;
        shape.objects = 2;
        shape.restarts = false;
        shape.ballast = 0;
        const uint64_t ios = run_history(shape).ios;
        bool good = true;
        for (shape.crash_at = 0; shape.crash_at <= ios && good; shape.crash_at++) {
            if (getenv("VITASTOR_TRACE")) fprintf(stderr, "%s\n", shape.text().c_str());
            const HistoryResult result = run_history(shape);
            crashes += result.crashed;
            good = report(result, shape, "a power failure at every I/O of short histories");
        }
        if (!good) break;
    }
    MESSAGE(crashes << " crashes");
}

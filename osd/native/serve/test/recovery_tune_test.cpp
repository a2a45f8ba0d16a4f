// SPDX-License-Identifier: GPL-2.0-or-later
#include "serve/recovery_tune.hpp"

#include <doctest/doctest.h>

using namespace vitastor::serve;

namespace {
constexpr uint64_t kSecond = 1'000'000;

/// Seconds of the same load, one after the other. Recovery of `objects` a second takes 500 us each.
struct Run {
    RecoveryTuneSettings settings;
    RecoveryTuner tuner;
    RecoveryTuner::Totals totals;
    uint64_t depth = 1;
    uint64_t seconds(int count, double client_load, uint64_t objects) {
        for (int i = 0; i < count; i++) {
            totals.client_us += static_cast<uint64_t>(client_load * kSecond);
            totals.recovered += objects;
            totals.recovery_us += objects * 500;
            tuner.sample(settings, totals, kSecond, depth);
        }
        return tuner.pace_us();
    }
};
}  // namespace

TEST_CASE("the load that recovery may have falls with that of the clients") {
    RecoveryTuneSettings s;
    CHECK(RecoveryTuner::target(s, 0) == 1);
    CHECK(RecoveryTuner::target(s, 0.01) == 1);
    CHECK(RecoveryTuner::target(s, 0.5) == doctest::Approx(0.1));
    CHECK(RecoveryTuner::target(s, 100) == doctest::Approx(0.1));
    CHECK(RecoveryTuner::target(s, 0.255) == doctest::Approx(0.55));
    s.client_util_high = 0;  // nonsense does not divide by zero
    CHECK(RecoveryTuner::target(s, 0.02) == doctest::Approx(0.1));
}

TEST_CASE("idle clients: nothing holds recovery back; busy ones: a tenth of one object at work") {
    Run run;
    CHECK(run.seconds(3, 0, 1000) == 0);
    CHECK(run.seconds(1, 40, 1000) == 5000);
    CHECK(run.seconds(12, 0.255, 1000) == doctest::Approx(909).epsilon(0.01));
    CHECK(run.seconds(10, 0, 1000) == 0);
}

TEST_CASE("a deeper queue does not make recovery stronger than its load allows") {
    Run run;
    run.depth = 4;
    CHECK(run.seconds(10, 0, 1000) == 500);
    run.settings.util_high = 4;
    CHECK(run.seconds(1, 0, 1000) == 0);
}

TEST_CASE("clients that have become busy are heard at once, before the first object was recovered too") {
    Run run;
    CHECK(run.seconds(10, 0, 0) == 0);
    CHECK(run.seconds(1, 2, 0) == 10000);
    CHECK(run.seconds(1, 2, 100) == 5000);
}

TEST_CASE("too large results are ignored, small ones count as none, off is off") {
    Run run;
    CHECK(run.seconds(1, 2, 1000) == 5000);
    run.settings.sleep_cutoff_us = 1000;
    CHECK(run.seconds(5, 3, 900) == 5000);
    run.settings.sleep_cutoff_us = 10'000'000;
    run.settings.sleep_min_us = 10000;
    CHECK(run.seconds(1, 3, 900) == 0);
    run.settings.sleep_min_us = 10;
    CHECK(run.seconds(1, 3, 900) > 0);
    run.settings.interval_s = 0;
    CHECK(run.seconds(1, 3, 900) == 0);
}

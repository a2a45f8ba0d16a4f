// SPDX-License-Identifier: GPL-2.0-or-later
// How fast recovery may go beside the clients. Load is a number of operations at work on average: their time added up, divided by
// the time that has passed. Low load of clients: recovery gets a high load; high load: a low one; linear between. From the time that
// one object takes follows how far apart the starts of two objects must be. Source: configuration 6 (recovery_tune_*), semantics 9.1.
#pragma once

#include <cstdint>
#include <deque>

namespace vitastor::serve {

struct RecoveryTuneSettings {
    uint64_t interval_s = 1;  ///< 0 = off
    double util_low = 0.1, util_high = 1;
    double client_util_low = 0, client_util_high = 0.5;
    uint64_t samples = 10;  ///< averaged
    uint64_t sleep_min_us = 10, sleep_cutoff_us = 10'000'000;
    bool operator==(const RecoveryTuneSettings&) const = default;
};

class RecoveryTuner {
public:
    /// Counters that only grow: time that client operations (recovery operations) took here, and how many objects were recovered.
    struct Totals {
        uint64_t client_us = 0, recovery_us = 0, recovered = 0;
    };
    /// Once an interval. depth: objects recovered at once.
    void sample(const RecoveryTuneSettings& settings, const Totals& totals, uint64_t elapsed_us, uint64_t depth);
    /// Microseconds from the start of one object to the start of the next; 0: the depth alone limits.
    uint64_t pace_us() const { return pace_us_; }
    /// Load that recovery may have beside this load of clients.
    static double target(const RecoveryTuneSettings& settings, double client_load);

private:
    struct Window {
        uint64_t client_us, recovery_us, recovered, elapsed_us;
    };
    std::deque<Window> windows_;
    Totals before_;
    uint64_t object_us_ = 1000;  ///< time of one object; a guess until some were recovered
    uint64_t pace_us_ = 0;
};

}  // namespace vitastor::serve

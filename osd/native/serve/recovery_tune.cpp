// SPDX-License-Identifier: GPL-2.0-or-later
#include "serve/recovery_tune.hpp"

#include <algorithm>

namespace vitastor::serve {

double RecoveryTuner::target(const RecoveryTuneSettings& settings, double client_load) {
    const double low = std::max(settings.client_util_low, 0.01);
    const double high = std::max(settings.client_util_high, low);
    const double least = std::max(settings.util_low, 0.01), most = std::max(settings.util_high, 0.01);
    if (client_load <= low) return most;
    if (client_load >= high) return least;
    return most + (least - most) * (client_load - low) / (high - low);
}

void RecoveryTuner::sample(const RecoveryTuneSettings& settings, const Totals& totals, uint64_t elapsed_us, uint64_t depth) {
    const Window now{totals.client_us - before_.client_us, totals.recovery_us - before_.recovery_us,
                     totals.recovered - before_.recovered, elapsed_us};
    before_ = totals;
    if (settings.interval_s == 0 || elapsed_us == 0) {
        windows_.clear();
        pace_us_ = 0;
        return;
    }
    windows_.push_back(now);
    while (windows_.size() > std::max<uint64_t>(settings.samples, 1)) windows_.pop_front();
    Window sum{};
    for (const Window& one : windows_) {
        sum.client_us += one.client_us;
        sum.recovery_us += one.recovery_us;
        sum.recovered += one.recovered;
        sum.elapsed_us += one.elapsed_us;
    }
    if (sum.recovered > 0) object_us_ = std::max<uint64_t>(sum.recovery_us / sum.recovered, 1);
    // Clients that have just become busy must not wait for the average.
    const double load = std::max(static_cast<double>(sum.client_us) / static_cast<double>(sum.elapsed_us),
                                 static_cast<double>(now.client_us) / static_cast<double>(now.elapsed_us));
    const double pace = static_cast<double>(object_us_) / target(settings, load);
    const double sleep = pace * static_cast<double>(depth) - static_cast<double>(object_us_);
    if (sleep > static_cast<double>(settings.sleep_cutoff_us)) return;
    pace_us_ = sleep < static_cast<double>(settings.sleep_min_us) ? 0 : static_cast<uint64_t>(pace);
}

}  // namespace vitastor::serve

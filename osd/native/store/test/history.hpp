// SPDX-License-Identifier: GPL-2.0-or-later
// Random histories against the oracle: operations of all kinds at some depth, closes, kills and power failures in between.
#pragma once

#include <map>
#include <string>

#include "rig.hpp"

namespace vitastor::test {

struct HistoryShape {
    uint64_t seed = 1;
    uint32_t steps = 200;        ///< operations
    uint32_t depth = 8;          ///< in flight at most
    uint32_t objects = 6;
    uint64_t crash_at = UINT64_MAX;  ///< I/O at which the power fails; afterwards the store is opened and compared
    bool restarts = true;        ///< close and reopen now and then
    bool replicated_only = false;
    uint32_t ballast = 0;        ///< objects written first and left alone, so that the cleaner has work
    // options
    uint32_t block_size = 32768;
    uint32_t granularity = 4096;
    wire::ImmediateCommit mode = wire::ImmediateCommit::all;
    bool fsync = true;
    bool checksums = true;
    bool separate_meta = false;
    uint32_t atomic_write_size = 4096;
    uint32_t write_depth = 128;
    uint64_t disk_size = 5 << 20;
    static HistoryShape random(uint64_t seed);
    std::string text() const;
};

struct HistoryResult {
    std::string problem;  ///< empty: everything as it must be
    uint64_t ios = 0;     ///< I/Os of the whole history
    uint64_t operations = 0;
    bool crashed = false;
    double log_rounds = 0;  ///< how often the start of the log went round
};

/// Runs one history. Same shape, same result.
HistoryResult run_history(const HistoryShape& shape);

}  // namespace vitastor::test

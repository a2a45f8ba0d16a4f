// SPDX-License-Identifier: GPL-2.0-or-later
// Random histories of a store: operations in flight together, restarts, power failures; judged by the oracle. From one seed, or from
// the line that a failure printed.
#pragma once

#include <cstdint>
#include <string>

#include "steps.hpp"

namespace vitastor::test {

struct HistoryShape {
    uint64_t seed = 1;
    uint32_t steps = 200;        ///< operations
    uint32_t depth = 8;          ///< in flight at most
    uint32_t objects = 6;
    uint64_t crash_at = UINT64_MAX;  ///< I/O at which the power fails; afterwards the store is opened and compared, and the history ends
    bool restarts = true;        ///< close and reopen, and power failures, now and then
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
    uint64_t meta_size = 6 << 20;  ///< with separate_meta
    bool small_log = false;        ///< the smallest log that is accepted
    bool near_wrap = false;        ///< it begins at the end of its circle
    bool discard = false;          ///< freed blocks are given back to the device
    int sums_cache = -1;           ///< bytes of memory for checksums; -1: all of them are in memory
    static HistoryShape random(uint64_t seed);
    /// Areas at the borders of buffers and segments: exactly n blocks and n ± 1, pages of the log around multiples of its batches.
    static HistoryShape at_border(uint64_t seed);
    std::string text() const;
    static bool parse(const std::string& text, HistoryShape& shape);
    Steps generate() const;
};

struct HistoryResult {
    std::string problem;  ///< empty: everything as it must be
    uint64_t ios = 0;     ///< I/Os of the whole history
    uint64_t operations = 0;
    uint64_t steps_done = 0;
    uint64_t crashes = 0;
    double log_rounds = 0;  ///< how often the start of the log went round
};

/// Runs one history. Same arguments, same result.
HistoryResult run_history(const HistoryShape& shape, const Steps& steps);
inline HistoryResult run_history(const HistoryShape& shape) { return run_history(shape, shape.generate()); }

/// A failed history cut down to what makes it fail, as text for people, with the command that repeats it.
/// given: its steps, if they are not those that the shape generates.
std::string explain(HistoryShape shape, const std::string& problem, const Steps* given = nullptr);
/// From what explain() has printed behind VITASTOR_HISTORY=; without steps, those that the shape generates. false: not such a text.
bool parse_history(const std::string& text, HistoryShape& shape, Steps& steps);

}  // namespace vitastor::test

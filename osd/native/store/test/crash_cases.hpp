// SPDX-License-Identifier: GPL-2.0-or-later
// Which sequences of operations the crash tests run, on which shapes of a store.
#pragma once

#include "crash_run.hpp"

namespace vitastor::test {

struct CrashCase {
    CrashShape shape;
    Steps steps;
    uint32_t depth = 1;
    uint64_t seed = 1;
    CrashLimits limits;
};

/// All operations, on two objects, and those that belong to none.
Steps alphabet();
/// Modes, caches and checksums, each with an empty store and one with two objects.
std::vector<CrashShape> short_shapes();
/// The sequence with a number below size^length.
Steps sequence(const Steps& from, uint64_t number, uint32_t length);

/// 8 to 37 operations on up to four objects, in any shape.
CrashCase long_case(uint64_t seed);
/// The smallest log, in which the cleaner has work.
CrashCase compaction_case(uint64_t turn, uint32_t samples);
/// An announced write is answered while its data is in a volatile cache, and the log begins its next page.
CrashCase unflushed_case(uint64_t seed);
/// Announced writes with long entries are on their way while the cleaner writes their objects again.
CrashCase repeated_case(uint64_t seed);

}  // namespace vitastor::test

// SPDX-License-Identifier: GPL-2.0-or-later
// A test of the crash tests: each fault of store/planted.hpp is built in, and one of them must notice it.
//   VITASTOR_FAULT=n bin/store_planted_test      one of them, with what is noticed
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "checkpoint_room.hpp"
#include "crash_cases.hpp"
#include "store/planted.hpp"

using namespace vitastor::test;
using vitastor::store::planted::Fault;

namespace vitastor::store::planted {
Fault active = Fault::none;
}

namespace {

/// What runs with the fault until it is noticed.
enum class Arena { pairs, long_ones, compaction, unflushed, used_again, repeated, log_alone };

struct Expected {
    Fault fault;
    std::string name;
    Arena arena;
    uint64_t attempts;  ///< sequences; about ten times what it takes
};

const Expected kFaults[] = {
    {Fault::no_data_flush, "data is not flushed before its entry", Arena::pairs, 400},
    {Fault::no_log_flush, "the log is not flushed", Arena::pairs, 400},
    {Fault::page_over_newest, "a page is written over its newest copy", Arena::long_ones, 60},
    {Fault::numbers_again, "write numbers are used again", Arena::used_again, 60},
    {Fault::complete_page_ahead, "complete_page passes announced writes", Arena::unflushed, 60},
    {Fault::forgets_unflushed, "complete_page passes what is not flushed", Arena::unflushed, 60},
    {Fault::one_checkpoint, "one checkpoint instead of two", Arena::pairs, 400},
    {Fault::room_before_checkpoint, "room is used before the checkpoint is durable", Arena::log_alone, 10},
    {Fault::tail_before_commit, "the start of the log moves before the commit", Arena::compaction, 24},
    {Fault::cleaner_hurries, "the cleaner does not wait for entries in flight", Arena::repeated, 60},
    {Fault::blocks_at_once, "blocks are used again at once", Arena::long_ones, 60},
    {Fault::in_place, "data over granules in use", Arena::pairs, 400},
    {Fault::data_before_entry, "announced data before its entry", Arena::pairs, 400},
    {Fault::small_window, "replay misses the second copy of a page", Arena::long_ones, 60},
    {Fault::nothing_taken_back, "no announced write is taken back", Arena::pairs, 400},
    {Fault::taken_back_unsaid, "what is taken back is not logged", Arena::long_ones, 60},
    {Fault::first_decides, "the wrong granule decides", Arena::long_ones, 60},
    {Fault::redirects_kept, "a write with a deciding granule is taken back by halves", Arena::pairs, 400},
};

/// What the fault does to a sequence. The store is made without it, but for the one that leaves its mark there.
std::string run_with(Fault fault, const CrashCase& each) {
    if (fault == Fault::one_checkpoint) vitastor::store::planted::active = fault;
    CrashRun run(each.shape);
    vitastor::store::planted::active = fault;
    std::string problem = run.run(each.steps, each.depth, each.seed, each.limits);
    vitastor::store::planted::active = Fault::none;
    return problem;
}

std::string try_once(Fault fault, Arena arena, uint64_t number) {
    switch (arena) {
        case Arena::pairs: {
            const std::vector<CrashShape> shapes = short_shapes();
            Random random(number);
            const Steps all = alphabet();
            const CrashShape& shape = shapes[number % shapes.size()];
            return run_with(fault, {shape, sequence(all, random.below(all.size() * all.size()), 2), 1 + static_cast<uint32_t>(number / shapes.size() % 2),
                                    number + 1, {3, 2}});
        }
        case Arena::long_ones: return run_with(fault, long_case(number));
        case Arena::compaction: return run_with(fault, compaction_case(number, 3));
        case Arena::unflushed: return run_with(fault, unflushed_case(number));
        case Arena::used_again: {  // batches of several pages, and what comes after the recovery
            CrashCase each = unflushed_case(number);
            each.limits.thorough_percent = 60;
            return run_with(fault, each);
        }
        case Arena::repeated: return run_with(fault, repeated_case(number));
        case Arena::log_alone: {
            vitastor::store::planted::active = fault;
            std::string problem = use_room_under_checkpoint(number);
            vitastor::store::planted::active = Fault::none;
            return problem;
        }
    }
    return {};
}

}  // namespace

TEST_CASE("each planted fault is noticed") {
    const char* one = getenv("VITASTOR_FAULT");
    for (const Expected& expected : kFaults) {
        if (one && static_cast<uint64_t>(expected.fault) != strtoull(one, nullptr, 10)) continue;
        const uint64_t limit = getenv("VITASTOR_ATTEMPTS") ? strtoull(getenv("VITASTOR_ATTEMPTS"), nullptr, 10) : expected.attempts;
        std::string problem;
        uint64_t attempts = 0;
        while (problem.empty() && attempts < limit) problem = try_once(expected.fault, expected.arena, ++attempts);
        CHECK_MESSAGE(!problem.empty(), "not noticed in " << attempts << " sequences: " << expected.name);
        if (!problem.empty()) MESSAGE(expected.name << ": noticed in sequence " << attempts);
        if (one && !problem.empty()) MESSAGE(problem.substr(0, 600));
    }
}

TEST_CASE("nothing is planted, nothing is noticed") {
    for (uint64_t number = 1; number <= 5; number++)
        for (const Arena arena : {Arena::pairs, Arena::long_ones, Arena::compaction, Arena::unflushed, Arena::repeated, Arena::log_alone})
            CHECK(try_once(Fault::none, arena, number) == "");
}

// SPDX-License-Identifier: GPL-2.0-or-later
// Faults that store_planted_test builds in, one at a time, to see that the crash tests notice them (test/planted_test.cpp; what each is
// caught by: docs/reliability.md). Sources that name one are compiled a second time for that test, with VITASTOR_PLANTED; everywhere
// else the macro is false and nothing is left of it.
#pragma once

#include <cstdint>

namespace vitastor::store::planted {

enum class Fault : uint32_t {
    none,
    no_data_flush,           ///< data is not flushed before the entries that refer to it
    no_log_flush,            ///< a batch counts as durable when it was written
    page_over_newest,        ///< a page that is not full is written again over its newest durable copy
    numbers_again,           ///< write numbers go on after the last one that replay has accepted
    complete_page_ahead,     ///< pages do not say that announced writes are under way
    forgets_unflushed,       ///< nor that some are finished but in a volatile cache
    one_checkpoint,          ///< always in the same place
    room_before_checkpoint,  ///< the room before a new start of the log is used before the checkpoint is durable
    tail_before_commit,      ///< the start of the log moves before what was written again is durable
    cleaner_hurries,         ///< the cleaner writes objects as they are although an entry of theirs is on its way
    blocks_at_once,          ///< blocks are used again before the entry that gives them up is durable
    in_place,                ///< data goes over granules in use, before its entry
    data_before_entry,       ///< announced data is not held back until its entry is durable
    small_window,            ///< replay does not look for the second copy of a page
    nothing_taken_back,      ///< replay takes announced writes for done
    taken_back_unsaid,       ///< what replay takes back is not written to the log
    first_decides,           ///< replay looks at the first granule of a write with a deciding granule
    redirects_kept,          ///< replay takes such a write back, but not where its granules lie
};

#ifdef VITASTOR_PLANTED
extern Fault active;
#define VITASTOR_FAULT(name) (::vitastor::store::planted::active == ::vitastor::store::planted::Fault::name)
#else
#define VITASTOR_FAULT(name) false
#endif

}  // namespace vitastor::store::planted

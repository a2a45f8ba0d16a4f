// SPDX-License-Identifier: GPL-2.0-or-later
// Operations as data: what a test did can be cut down to what makes it fail, printed, and run again from one line.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "rig.hpp"

namespace vitastor::test {

/// One operation, or something that happens to the store. As text: kind object ":" first "+" count "@" version ["b"].
struct Step {
    enum Kind : char {
        write_stable = 'w',
        write_unstable = 'u',
        write_settling = 'U',  ///< unstable, and the newest version becomes stable with it
        write_fitting = 'a',  ///< unstable if the object has unstable versions, else stable
        del = 'd',
        bury = 'D',  ///< delete that leaves a tombstone
        stabilize = 's',
        rollback = 'r',
        sync = 'y',
        read = 'R',
        forget = 'F',   ///< histories: all tombstones go
        idle = 'I',     ///< everything ends, and then nothing is asked for: the mover works
        restart = 'X',  ///< close and open
        crash = 'K',    ///< the power fails after `count` more I/Os
    };
    char kind = sync;
    uint32_t object = 0;
    uint32_t first = 0, count = 0;  ///< granules
    /// Writes: added to the newest version ever used. Others: -1 the newest one, -2 one beyond it, n ≥ 0 the n-th oldest.
    int32_t version = 1;
    bool flag = false;  ///< write: with an external bitmap; delete: numbers start again from 1
    bool operator==(const Step&) const = default;
};
using Steps = std::vector<Step>;

std::string to_text(const Steps& steps);
/// false: not what to_text() makes.
bool from_text(const std::string& text, Steps& steps);
/// A line for people.
std::string describe(const Step& step, uint32_t granularity);

/// The operation that a step means for an object: `now` are its versions, last_version the newest number ever given to it (is kept up).
/// unstable: a write that is on its way makes it so. tag: of the first granule. Null for what is no operation.
std::unique_ptr<TestOp> make_operation(const Rig& rig, const Step& step, const ObjectId& id, const OracleObject& now, bool unstable,
                                       Version& last_version, uint32_t tag);

/// Leaves steps out as long as `fails` still says true; at most `attempts` calls.
Steps shrink(Steps steps, uint32_t attempts, const std::function<bool(const Steps&)>& fails);

}  // namespace vitastor::test

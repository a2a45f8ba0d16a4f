// SPDX-License-Identifier: GPL-2.0-or-later
// The log alone, without a store around it that keeps a reserve: its last room is asked for while its start is being moved.
#pragma once

#include <cstdint>
#include <string>

namespace vitastor::test {

/// What is wrong, or nothing: places before the new start are written to only when the checkpoint that says it is durable.
std::string use_room_under_checkpoint(uint64_t seed);

}  // namespace vitastor::test

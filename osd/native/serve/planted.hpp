// SPDX-License-Identifier: GPL-2.0-or-later
// Faults that the simulator builds in, to see that it notices them (sim/src/planted.ts names the same ones). No configuration and no
// command of control reaches them: only engine::Engine::plant(), which the OSD's own addon does not have.
#pragma once

#include <cstdint>

namespace vitastor::serve::planted {

inline constexpr uint32_t kNoListFence = 1;   ///< a secondary takes writes from whoever sends them
inline constexpr uint32_t kStaleList = 2;     ///< peering believes the first listing that it ever got from an OSD
inline constexpr uint32_t kNoTombstone = 4;   ///< deletes leave no tombstone
inline constexpr uint32_t kBelowUnstable = 8; ///< the holder of a chunk answers with the version below an unstable one

}  // namespace vitastor::serve::planted

// SPDX-License-Identifier: GPL-2.0-or-later
// Life of one PG under its primary: one enum, one transition function. Source: semantics 7.1.
#pragma once

#include <cstdint>
#include <optional>

#include "wire/messages.hpp"

namespace vitastor::pg {

/// Exactly one of these holds; flags (has_degraded, …) are kept apart and mean something with `active` only.
enum class Phase : uint8_t {
    offline,     ///< not led here
    starting,    ///< the state key is ours, nothing was done yet
    peering,     ///< asks all peers what they hold
    incomplete,  ///< cannot serve: see the reason
    active,      ///< serves clients
    repeering,   ///< membership changed; running operations end, then peering
    stopping,    ///< running operations end, locks are given back, then offline
};
inline constexpr unsigned kPhaseCount = 7;

enum class PhaseEvent : uint8_t {
    start,        ///< control gave us the PG
    peer,         ///< begin (again) to ask the peers
    refuse,       ///< a condition of semantics 7.3 fails, or an object is invalid
    activate,     ///< peering is complete
    disturb,      ///< a connection was lost or won, an address vanished
    stop,         ///< control takes the PG away
    drained,      ///< no operation runs any more
};
inline constexpr unsigned kPhaseEventCount = 7;

/// The table of legal moves; nullopt: this event must not happen in this phase.
std::optional<Phase> next_phase(Phase phase, PhaseEvent event);

/// wire::pg_state bit of a phase.
uint32_t phase_bit(Phase phase);
const char* phase_name(Phase phase);

/// What is announced: flags only together with active (has_invalid also with incomplete).
uint32_t announced_state(Phase phase, uint32_t flags);

/// Exactly {active} or {active, left_on_dead}: local reads may be served. Source: wire-protocol 9.9.
constexpr bool allows_local_reads(uint32_t state) {
    return (state & ~wire::pg_state::left_on_dead) == wire::pg_state::active;
}

}  // namespace vitastor::pg

// SPDX-License-Identifier: GPL-2.0-or-later
#include "pg/states.hpp"

namespace vitastor::pg {

namespace {
using P = Phase;
constexpr std::optional<Phase> no = std::nullopt;

// Rows: phase. Columns: start, peer, refuse, activate, disturb, stop, drained.
constexpr std::optional<Phase> kMoves[kPhaseCount][kPhaseEventCount] = {
    /* offline    */ {P::starting, no, no, no, no, no, no},
    /* starting   */ {no, P::peering, no, no, P::starting, P::stopping, no},
    /* peering    */ {no, P::peering, P::incomplete, P::active, P::peering, P::stopping, no},
    /* incomplete */ {no, P::peering, P::incomplete, no, P::incomplete, P::stopping, no},
    /* active     */ {no, no, no, no, P::repeering, P::stopping, no},
    /* repeering  */ {no, no, no, no, P::repeering, P::stopping, P::peering},
    /* stopping   */ {no, no, no, no, P::stopping, P::stopping, P::offline},
};

constexpr uint32_t kBits[kPhaseCount] = {wire::pg_state::offline, wire::pg_state::starting, wire::pg_state::peering,
                                         wire::pg_state::incomplete, wire::pg_state::active,
                                         wire::pg_state::repeering, wire::pg_state::stopping};
constexpr const char* kNames[kPhaseCount] = {"offline", "starting",  "peering", "incomplete",
                                             "active",  "repeering", "stopping"};
}  // namespace

std::optional<Phase> next_phase(Phase phase, PhaseEvent event) {
    return kMoves[static_cast<unsigned>(phase)][static_cast<unsigned>(event)];
}

uint32_t phase_bit(Phase phase) { return kBits[static_cast<unsigned>(phase)]; }

const char* phase_name(Phase phase) { return kNames[static_cast<unsigned>(phase)]; }

uint32_t announced_state(Phase phase, uint32_t flags) {
    if (phase == Phase::active) return wire::pg_state::active | flags;
    if (phase == Phase::incomplete) return wire::pg_state::incomplete | (flags & wire::pg_state::has_invalid);
    return phase_bit(phase);
}

}  // namespace vitastor::pg

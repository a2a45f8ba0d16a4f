// SPDX-License-Identifier: GPL-2.0-or-later
// Whom we talk to: judgement of a SHOW_CONFIG reply. Pure functions. Source: wire-protocol 6.3.
#pragma once

#include <string>

#include "net/peers.hpp"

namespace vitastor::net {

/// Verdict on a peer. refused: the sentence that says why, naming both values; empty = accepted. warning: said once, accepted.
struct HandshakeVerdict {
    std::string refused;
    std::string warning;
};

/// `wanted`: the OSD we meant to reach. Applies the checks of clients, and as an OSD those of layouts too (3.0.8 applies only the
/// latter as an OSD; we apply both).
HandshakeVerdict judge_config(const wire::ConfigReplyJson& peer, OsdNum wanted, const PeerOptions& own);

}  // namespace vitastor::net

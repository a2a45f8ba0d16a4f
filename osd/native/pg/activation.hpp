// SPDX-License-Identifier: GPL-2.0-or-later
// May this PG become active with the OSDs that are reachable now? Pure logic. Source: semantics 7.3.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "pg/scheme.hpp"

namespace vitastor::pg {

struct Membership {
    std::vector<OsdNum> target_set;  ///< pg_size entries, 0 = empty slot
    std::vector<OsdNum> all_peers;   ///< of the history
    std::vector<std::vector<OsdNum>> history_sets;
};

/// What is known of the world at this moment. Sorted vectors of OSD numbers, this OSD included.
struct Reachability {
    std::vector<OsdNum> up;         ///< have a state key in etcd
    std::vector<OsdNum> connected;  ///< answered SHOW_CONFIG, and the connection lives
    std::vector<OsdNum> trying;     ///< first connection attempt not decided yet
    bool allow_net_split = false;
};

enum class Readiness : uint8_t {
    ready,
    wait,   ///< a connection attempt is under way: decide when it has ended
    never,  ///< incomplete until something changes
};

struct Activation {
    Readiness readiness = Readiness::never;
    std::string reason;                ///< for people, when not ready
    std::vector<OsdNum> universe;      ///< target set, all_peers and history sets; sorted, without 0
    std::vector<OsdNum> current_set;   ///< target set with unreachable OSDs replaced by 0
    std::vector<OsdNum> dead;          ///< of the universe, not connected; sorted
    uint32_t cursize = 0;
};

std::vector<OsdNum> universe_of(const Membership& membership);
Activation check_activation(const Scheme& scheme, const Membership& membership, const Reachability& world);

}  // namespace vitastor::pg

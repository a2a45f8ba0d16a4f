// SPDX-License-Identifier: GPL-2.0-or-later
#include "pg/activation.hpp"

#include <algorithm>

namespace vitastor::pg {

namespace {
bool contains(const std::vector<OsdNum>& sorted, OsdNum osd) {
    return std::binary_search(sorted.begin(), sorted.end(), osd);
}

std::string set_text(const std::vector<OsdNum>& osds) {
    std::string text = "[";
    for (OsdNum osd : osds) text += (text.size() > 1 ? "," : "") + std::to_string(osd);
    return text + "]";
}
}  // namespace

std::vector<OsdNum> universe_of(const Membership& membership) {
    std::vector<OsdNum> all(membership.target_set);
    all.insert(all.end(), membership.all_peers.begin(), membership.all_peers.end());
    for (const auto& set : membership.history_sets) all.insert(all.end(), set.begin(), set.end());
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    if (!all.empty() && all.front() == 0) all.erase(all.begin());
    return all;
}

Activation check_activation(const Scheme& scheme, const Membership& membership, const Reachability& world) {
    Activation result;
    result.universe = universe_of(membership);
    bool waiting = false;
    for (OsdNum osd : result.universe) {
        if (contains(world.connected, osd)) continue;
        result.dead.push_back(osd);
        if (!contains(world.up, osd)) continue;
        if (contains(world.trying, osd)) {
            waiting = true;
        } else if (!world.allow_net_split && result.reason.empty()) {
            result.reason = "OSD " + std::to_string(osd) + " is up in etcd, but cannot be reached from here";
        }
    }
    for (OsdNum osd : membership.target_set) {
        result.current_set.push_back(osd != 0 && contains(world.connected, osd) ? osd : 0);
        if (result.current_set.back()) result.cursize++;
    }
    if (result.reason.empty() && result.cursize < scheme.pg_minsize) {
        result.reason = "only " + std::to_string(result.cursize) + " of " + set_text(membership.target_set) +
                        " can be reached, pg_minsize is " + std::to_string(scheme.pg_minsize);
    }
    for (const auto& set : membership.history_sets) {
        uint32_t members = 0, alive = 0;
        for (OsdNum osd : set) {
            members += osd != 0;
            alive += osd != 0 && contains(world.connected, osd);
        }
        if (result.reason.empty() && members >= scheme.data_chunks() && alive < scheme.data_chunks()) {
            result.reason = "writes may have gone to " + set_text(set) + " alone, of which " + std::to_string(alive) +
                            " can be reached and " + std::to_string(scheme.data_chunks()) + " must be";
        }
    }
    if (waiting) {
        result.readiness = Readiness::wait;
    } else {
        result.readiness = result.reason.empty() ? Readiness::ready : Readiness::never;
    }
    return result;
}

}  // namespace vitastor::pg

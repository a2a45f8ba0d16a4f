// SPDX-License-Identifier: GPL-2.0-or-later
#include "pg/places.hpp"

#include <algorithm>
#include <map>
#include <set>

namespace vitastor::pg {

uint32_t state_of_places(const Scheme& scheme, std::span<const OsdNum> current_set, std::span<const Location> places) {
    std::set<uint64_t> good;  // replicated: OSDs, else roles
    uint32_t state = 0;
    bool elsewhere = false;
    for (const Location& place : places) {
        if (place.flags & wire::DescribeItem::kCorrupted) state |= wire::object_state::corrupted;
        if (place.flags & wire::DescribeItem::kInconsistent) state |= wire::object_state::inconsistent;
        if (place.good()) good.insert(scheme.replicated() ? place.osd : place.role);
        bool at_home = scheme.replicated()
                           ? std::find(current_set.begin(), current_set.end(), place.osd) != current_set.end()
                           : place.role < current_set.size() && current_set[place.role] == place.osd;
        elsewhere |= !at_home || (place.flags & wire::DescribeItem::kOutdated);
    }
    const size_t present = current_set.size() - static_cast<size_t>(std::count(current_set.begin(), current_set.end(), 0u));
    if (good.size() < scheme.data_chunks()) {
        state |= wire::object_state::incomplete;
    } else if (good.size() < present) {
        state |= wire::object_state::degraded;
    } else if (elsewhere) {
        state |= wire::object_state::misplaced;
    }
    return state;
}

int majority(std::span<const int> classes) {
    std::map<int, size_t> count;
    for (int one : classes) count[one]++;
    int best = -1;
    size_t most = 0;
    for (auto [one, times] : count) {
        if (times == most) best = -1;
        if (times > most) {
            most = times;
            best = one;
        }
    }
    return best;
}

}  // namespace vitastor::pg

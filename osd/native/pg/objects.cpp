// SPDX-License-Identifier: GPL-2.0-or-later
#include "pg/objects.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace vitastor::pg {

LocationSet* ObjectTable::intern(uint32_t state, std::span<const Location> where) {
    SetKey key(state, std::vector<Location>(where.begin(), where.end()));
    std::sort(key.second.begin(), key.second.end());
    auto it = sets_.find(key);
    if (it == sets_.end()) {
        it = sets_.emplace(std::move(key), LocationSet{}).first;
        it->second.state = state;
        it->second.where = it->first.second;
    }
    it->second.users++;
    return &it->second;
}

void ObjectTable::drop(LocationSet* set) {
    if (--set->users == 0) sets_.erase(SetKey(set->state, set->where));
}

void ObjectTable::count(uint32_t state, int64_t delta) {
    auto add = [&](uint32_t bit, uint64_t& counter) {
        if (state & bit) counter += static_cast<uint64_t>(delta);
    };
    counts_.unclean += static_cast<uint64_t>(delta);
    add(wire::object_state::misplaced, counts_.misplaced);
    add(wire::object_state::degraded, counts_.degraded);
    add(wire::object_state::incomplete, counts_.incomplete);
    add(wire::object_state::corrupted, counts_.corrupted);
    add(wire::object_state::inconsistent, counts_.inconsistent);
}

void ObjectTable::set_unclean(const ObjectId& object, uint32_t state, std::span<const Location> where,
                              Version target) {
    VITASTOR_ASSERT(state != 0);
    LocationSet* set = intern(state, where);
    UncleanObject& entry = unclean_[object];
    if (entry.set) {
        count(entry.set->state, -1);
        drop(entry.set);
    }
    entry.set = set;
    entry.target = target;
    entry.awaits_sync = false;
    count(state, 1);
}

void ObjectTable::set_awaits_sync(const ObjectId& object) {
    if (UncleanObject* entry = find(object)) entry->awaits_sync = true;
}

void ObjectTable::add_unclean(const ObjectId& object, uint32_t state, std::span<const Location> where,
                              Version target) {
    VITASTOR_ASSERT(state != 0);
    auto it = unclean_.try_emplace(unclean_.end(), object);
    VITASTOR_ASSERT(it->second.set == nullptr);
    it->second = {intern(state, where), target, false};
    counts_.objects++;
    count(state, 1);
}

void ObjectTable::set_clean(const ObjectId& object) {
    auto it = unclean_.find(object);
    if (it == unclean_.end()) return;
    count(it->second.set->state, -1);
    drop(it->second.set);
    unclean_.erase(it);
}

void ObjectTable::erase_unclean(const ObjectId& object) {
    auto it = unclean_.find(object);
    if (it == unclean_.end()) return;
    set_clean(object);
    counts_.objects--;
}

void ObjectTable::clear() {
    unclean_.clear();
    sets_.clear();
    counts_ = {};
}

bool ObjectTable::clear_some(size_t budget) {
    for (; budget > 0 && !unclean_.empty(); budget--) unclean_.erase(unclean_.begin());
    if (!unclean_.empty()) return false;
    clear();
    return true;
}

std::vector<std::vector<OsdNum>> ObjectTable::sole_holders(size_t limit) const {
    std::vector<std::vector<OsdNum>> result;
    for (const auto& [key, set] : sets_) {
        if (!(set.state & wire::object_state::degraded) || result.size() >= limit) continue;
        std::vector<OsdNum> good;
        for (const Location& place : set.where) {
            if (place.good()) good.push_back(place.osd);
        }
        std::sort(good.begin(), good.end());
        good.erase(std::unique(good.begin(), good.end()), good.end());
        if (!good.empty() && std::find(result.begin(), result.end(), good) == result.end()) result.push_back(good);
    }
    return result;
}

uint32_t ObjectTable::flags() const {
    uint32_t flags = 0;
    if (counts_.misplaced) flags |= wire::pg_state::has_misplaced;
    if (counts_.degraded) flags |= wire::pg_state::has_degraded;
    if (counts_.incomplete) flags |= wire::pg_state::has_incomplete;
    if (counts_.corrupted) flags |= wire::pg_state::has_corrupted;
    if (counts_.inconsistent) flags |= wire::pg_state::has_inconsistent;
    return flags;
}

}  // namespace vitastor::pg

// SPDX-License-Identifier: GPL-2.0-or-later
// What a primary remembers of the objects of one PG: how many there are, and where the unclean ones lie.
// Clean objects cost nothing here. Equal location sets are kept once.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/ids.hpp"
#include "wire/messages.hpp"

namespace vitastor::pg {

/// One copy (role 0) or chunk. flags: wire::DescribeItem::k… bits.
struct Location {
    uint32_t role = 0;
    uint32_t flags = 0;
    OsdNum osd = 0;
    /// Holds the version that counts, as far as known. An inconsistent copy may be right.
    bool good() const {
        return (flags & (wire::DescribeItem::kOutdated | wire::DescribeItem::kCorrupted)) == 0;
    }
    auto operator<=>(const Location&) const = default;
};

/// Where all objects lie that share it.
struct LocationSet {
    uint32_t state = 0;  ///< wire::object_state bits, never 0
    std::vector<Location> where;
    uint64_t users = 0;
};

struct UncleanObject {
    LocationSet* set = nullptr;
    Version target = 0;  ///< version that counts
    /// Every place of the current set has it, and a SYNC that is still to come takes away what lies elsewhere: nothing to recover.
    bool awaits_sync = false;
};

struct ObjectCounts {
    uint64_t objects = 0, misplaced = 0, degraded = 0, incomplete = 0, corrupted = 0, inconsistent = 0, unclean = 0;
    uint64_t clean() const { return objects - unclean; }
};

/// Ring thread of the engine. Pointers to UncleanObject stay valid until that object is set or cleared.
class ObjectTable {
public:
    ObjectTable() = default;
    ObjectTable(const ObjectTable&) = delete;
    ObjectTable& operator=(const ObjectTable&) = delete;

    /// One more (or one less) object, clean.
    void add_clean(uint64_t count = 1) { counts_.objects += count; }
    void remove_clean() {
        if (counts_.objects > counts_.unclean) counts_.objects--;
    }
    /// Makes a counted object unclean, or changes what is known of an unclean one. state != 0; where is sorted inside. It does not await a SYNC.
    void set_unclean(const ObjectId& object, uint32_t state, std::span<const Location> where, Version target);
    /// Same for an object that is not counted yet (peering: in ascending order, then in constant time).
    void add_unclean(const ObjectId& object, uint32_t state, std::span<const Location> where, Version target);
    /// Recovery has nothing to do with it until a SYNC. No effect if it is clean.
    void set_awaits_sync(const ObjectId& object);
    /// The object is clean now. No effect if it was.
    void set_clean(const ObjectId& object);
    /// The unclean object exists no more.
    void erase_unclean(const ObjectId& object);
    UncleanObject* find(const ObjectId& object) {
        if (unclean_.empty()) return nullptr;
        auto it = unclean_.find(object);
        return it == unclean_.end() ? nullptr : &it->second;
    }
    const std::map<ObjectId, UncleanObject>& unclean() const { return unclean_; }
    const ObjectCounts& counts() const { return counts_; }
    void clear();
    /// The same in pieces, for many objects: true when nothing is left. Until then nothing else may be called but counts().
    bool clear_some(size_t budget);
    /// has_* flags of the PG that follow from the counts.
    uint32_t flags() const;
    /// Sets of OSDs that hold all good copies of some degraded object; sorted, each once, at most `limit`.
    std::vector<std::vector<OsdNum>> sole_holders(size_t limit) const;
    /// About; for the memory statistics.
    uint64_t memory_bytes() const { return unclean_.size() * 88 + sets_.size() * 160; }

private:
    using SetKey = std::pair<uint32_t, std::vector<Location>>;
    LocationSet* intern(uint32_t state, std::span<const Location> where);
    void count(uint32_t state, int64_t delta);
    void drop(LocationSet* set);

    std::map<ObjectId, UncleanObject> unclean_;
    std::map<SetKey, LocationSet> sets_;
    ObjectCounts counts_;
};

}  // namespace vitastor::pg

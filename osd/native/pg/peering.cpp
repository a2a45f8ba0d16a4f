// SPDX-License-Identifier: GPL-2.0-or-later
#include "pg/peering.hpp"

#include <algorithm>
#include <tuple>

#include "base/assert.hpp"

namespace vitastor::pg {

namespace {

constexpr size_t kRunLength = 2048;  ///< entries sorted at a time: well under 1 ms

/// Entries of one (role, OSD), newest first.
struct Chunk {
    uint32_t role;
    OsdNum osd;
    std::span<const ListedEntry> entries;
    Version newest() const { return entries.front().version; }
    bool has(Version version) const {
        return std::any_of(entries.begin(), entries.end(), [&](const auto& e) { return e.version == version; });
    }
    Version newest_up_to(Version limit) const {
        for (const auto& e : entries) {
            if (e.version <= limit) return e.version;
        }
        return 0;
    }
    Version newest_stable() const {
        for (const auto& e : entries) {
            if (e.stable) return e.version;
        }
        return 0;
    }
};

size_t count_roles(std::vector<uint32_t>& roles) {
    std::sort(roles.begin(), roles.end());
    return static_cast<size_t>(std::unique(roles.begin(), roles.end()) - roles.begin());
}

/// Rule 2.
Version find_target(const Scheme& scheme, std::span<const ListedEntry> newest_first) {
    std::vector<uint32_t> roles;
    for (size_t i = 0; i < newest_first.size();) {
        Version version = newest_first[i].version;
        bool stable = false;
        roles.clear();
        for (; i < newest_first.size() && newest_first[i].version == version; i++) {
            stable |= newest_first[i].stable;
            roles.push_back(newest_first[i].role);
        }
        if (stable || (!scheme.replicated() && count_roles(roles) >= scheme.data_chunks())) return version;
    }
    return 0;
}

bool is_current_holder(const Scheme& scheme, std::span<const OsdNum> current_set, uint32_t role, OsdNum osd) {
    if (scheme.replicated()) return std::find(current_set.begin(), current_set.end(), osd) != current_set.end();
    return role < current_set.size() && current_set[role] == osd;
}

/// The object was deleted: whatever is left of it goes, and those who must remember do so from the same version on.
void bury(const Scheme& scheme, std::span<const OsdNum> current_set, const ObjectId& object,
          std::span<const ListedEntry> entries, const Deletes& deletes, Version version, std::vector<FlushAction>& flush) {
    struct Place {
        uint32_t role;
        OsdNum osd;
        auto operator<=>(const Place&) const = default;
    };
    std::vector<Place> places;
    for (const auto& entry : entries) places.push_back({entry.role, entry.osd});
    auto remind = [&](uint32_t role, OsdNum osd) {
        bool knows = std::any_of(deletes.tombstones.begin(), deletes.tombstones.end(), [&](const auto& t) {
            return t.osd == osd && t.role == role && t.version >= version;
        });
        if (osd && !knows) places.push_back({role, osd});
    };
    bool self_has_role = false;
    for (uint32_t i = 0; i < current_set.size(); i++) {
        const uint32_t role = scheme.replicated() ? 0 : i;
        self_has_role |= current_set[i] == deletes.self;
        if (deletes.everywhere || current_set[i] == deletes.self) remind(role, current_set[i]);
    }
    if (!self_has_role) remind(0, deletes.self);
    std::sort(places.begin(), places.end());
    places.erase(std::unique(places.begin(), places.end()), places.end());
    for (const Place& place : places) {
        flush.push_back({FlushKind::bury, place.osd, {{object.inode, object.stripe | place.role}, version}});
    }
}

}  // namespace

bool moves_forward(std::span<const FlushAction> flush) {
    return std::any_of(flush.begin(), flush.end(), [](const FlushAction& action) { return action.kind == FlushKind::stabilize; });
}

void judge_object(const Scheme& scheme, std::span<const OsdNum> current_set, const ObjectId& object,
                  std::span<const ListedEntry> entries, const Deletes& deletes, Verdict& out) {
    out.invalid = out.exists = false;
    out.state = 0;
    out.target = out.newest = 0;
    out.locations.clear();
    out.flush.clear();
    std::vector<ListedEntry> sorted(entries.begin(), entries.end());
    uint32_t roles_max = scheme.replicated() ? 1 : scheme.pg_size;
    Version deleted = 0;
    for (std::span<const ListedEntry> list : {entries, deletes.tombstones}) {
        for (const auto& entry : list) {
            if (entry.role >= roles_max) {
                out.invalid = true;
                return;
            }
        }
    }
    for (const auto& tombstone : deletes.tombstones) deleted = std::max(deleted, tombstone.version);
    std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
        return std::tuple(b.version, a.role, a.osd) < std::tuple(a.version, b.role, b.osd);
    });
    out.newest = sorted.empty() ? 0 : sorted.front().version;
    out.target = find_target(scheme, sorted);
    if (deleted && deleted >= out.target) {
        // What is newer than the tombstone and does not count was never acknowledged: it goes with the rest.
        out.target = 0;
        return bury(scheme, current_set, object, entries, deletes, std::max(deleted, out.newest), out.flush);
    }
    std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
        return std::tuple(a.role, a.osd) < std::tuple(b.role, b.osd);
    });
    std::vector<Chunk> chunks;
    for (size_t i = 0; i < sorted.size();) {
        size_t first = i;
        while (i < sorted.size() && sorted[i].role == sorted[first].role && sorted[i].osd == sorted[first].osd) i++;
        chunks.push_back({sorted[first].role, sorted[first].osd, {&sorted[first], i - first}});
    }
    for (const Chunk& chunk : chunks) {  // rule 3
        ObjectVersion what{{object.inode, object.stripe | chunk.role}, 0};
        Version kept = chunk.newest();
        if (kept > out.target) {
            kept = chunk.newest_up_to(out.target);
            what.version = kept;
            out.flush.push_back({FlushKind::rollback, chunk.osd, what});
        }
        if (chunk.newest_stable() < kept) {
            what.version = kept;
            out.flush.push_back({FlushKind::stabilize, chunk.osd, what});
        }
    }
    if (out.target == 0) return;  // rule 4
    out.exists = true;

    uint32_t cursize = static_cast<uint32_t>(
        std::count_if(current_set.begin(), current_set.end(), [](OsdNum osd) { return osd != 0; }));
    std::vector<uint32_t> roles;
    uint32_t copies = 0;
    bool misplaced = false, outdated = false;
    for (const Chunk& chunk : chunks) {
        if (chunk.has(out.target)) {
            copies++;
            roles.push_back(chunk.role);
            misplaced |= !is_current_holder(scheme, current_set, chunk.role, chunk.osd);
            out.locations.push_back({chunk.role, 0, chunk.osd});
        }
    }
    for (const Chunk& chunk : chunks) {  // rule 6
        bool holds_target = std::any_of(out.locations.begin(), out.locations.end(), [&](const Location& l) {
            return l.good() && l.osd == chunk.osd && (scheme.replicated() || l.role == chunk.role);
        });
        if (!holds_target && chunk.newest_up_to(out.target) != 0 &&
            !is_current_holder(scheme, current_set, chunk.role, chunk.osd)) {
            outdated = true;
            out.locations.push_back({chunk.role, wire::DescribeItem::kOutdated, chunk.osd});
        }
    }
    uint32_t role_count = static_cast<uint32_t>(count_roles(roles));
    if (!scheme.replicated() && role_count < scheme.data_chunks()) {
        out.state = wire::object_state::incomplete;
    } else if ((scheme.replicated() ? copies : role_count) < cursize) {
        out.state = wire::object_state::degraded;
    } else if (misplaced || outdated) {
        out.state = wire::object_state::misplaced;
    }
}

PeeringMerge::PeeringMerge(const Scheme& scheme, std::vector<OsdNum> current_set, ObjectTable& objects)
    : scheme_(scheme), current_set_(std::move(current_set)), objects_(objects) {}

void PeeringMerge::believe_tombstones(OsdNum self, bool everywhere) {
    VITASTOR_ASSERT(!heap_ready_);
    believe_ = true;
    deletes_.self = self;
    deletes_.everywhere = everywhere;
}

void PeeringMerge::add_listing(OsdNum osd, store::Listing&& listing) {
    VITASTOR_ASSERT(!heap_ready_);
    if (!listing.stable.empty()) sources_.push_back({osd, Kind::stable, std::move(listing.stable)});
    if (!listing.unstable.empty()) sources_.push_back({osd, Kind::unstable, std::move(listing.unstable)});
    if (believe_ && !listing.tombstones.empty()) {
        tombstone_count_ += listing.tombstones.size();
        sources_.push_back({osd, Kind::tombstone, std::move(listing.tombstones)});
    }
}

bool PeeringMerge::sort_some(size_t budget) {
    for (Source& source : sources_) {
        while (source.sorted < source.entries.size()) {
            if (budget == 0) return false;
            size_t n = std::min(kRunLength, source.entries.size() - source.sorted);
            ObjectVersion* first = source.entries.data() + source.sorted;
            std::sort(first, first + n);
            heap_.push_back({first, first + n, source.osd, source.kind});
            source.sorted += n;
            budget -= std::min(budget, n);
        }
    }
    return true;
}

/// Order of the heap: the smallest object on top.
bool PeeringMerge::later(const Run& a, const Run& b) { return b.at->object < a.at->object; }

void PeeringMerge::judge_group() {
    if (entries_.empty() && tombstones_.empty()) return;
    deletes_.tombstones = tombstones_;
    judge_object(scheme_, current_set_, group_, entries_, deletes_, verdict_);
    entries_.clear();
    tombstones_.clear();
    if (verdict_.invalid) {
        if (!invalid_) {
            invalid_text_ = "object " + std::to_string(group_.inode) + ":" + std::to_string(group_.stripe) +
                            " has a chunk number that the pool's scheme does not have";
        }
        invalid_ = true;
        return;
    }
    flush_.insert(flush_.end(), verdict_.flush.begin(), verdict_.flush.end());
    if (!verdict_.exists) return;
    if (verdict_.state == 0) {
        objects_.add_clean();
    } else {
        objects_.add_unclean(group_, verdict_.state, verdict_.locations, verdict_.target);
    }
}

bool PeeringMerge::step(size_t budget) {
    if (!heap_ready_) {
        if (!sort_some(budget)) return false;
        std::make_heap(heap_.begin(), heap_.end(), later);
        heap_ready_ = true;
    }
    for (size_t done = 0; done < budget; done++) {
        if (heap_.empty()) {
            judge_group();
            // One at a time: giving 24 MB back to the kernel takes 2 ms.
            if (!sources_.empty()) sources_.pop_back();
            return sources_.empty();
        }
        std::pop_heap(heap_.begin(), heap_.end(), later);
        Run& run = heap_.back();
        const ObjectVersion& entry = *run.at;
        ObjectId object{entry.object.inode, entry.object.stripe & ~kRoleMask};
        if (object != group_) {
            judge_group();
            group_ = object;
        }
        std::vector<ListedEntry>& kept = run.kind == Kind::tombstone ? tombstones_ : entries_;
        kept.push_back({static_cast<uint32_t>(entry.object.stripe & kRoleMask), run.osd, entry.version,
                        run.kind == Kind::stable});
        max_epoch_ = std::max(max_epoch_, entry.version >> 16);
        if (++run.at == run.end) {
            heap_.pop_back();
        } else {
            std::push_heap(heap_.begin(), heap_.end(), later);
        }
    }
    return false;
}

}  // namespace vitastor::pg

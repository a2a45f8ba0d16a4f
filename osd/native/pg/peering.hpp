// SPDX-License-Identifier: GPL-2.0-or-later
// What the listings of all peers mean: for each object the version that counts, where it lies, and what must be flushed.
// Pure logic, no I/O. Source: semantics 8.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "pg/objects.hpp"
#include "pg/scheme.hpp"
#include "store/store.hpp"

namespace vitastor::pg {

/// One version of one copy or chunk, as listed by an OSD.
struct ListedEntry {
    uint32_t role = 0;
    OsdNum osd = 0;
    Version version = 0;
    bool stable = true;
};

enum class FlushKind : uint8_t { stabilize, rollback, bury };
/// To do before the object may be written: stabilise up to `what.version`, roll everything newer back, or delete what is there
/// and leave a tombstone of that version.
struct FlushAction {
    FlushKind kind{};
    OsdNum osd = 0;
    ObjectVersion what;  ///< with role bits
    bool operator==(const FlushAction&) const = default;
};

/// Does it make versions stable? What was stable before is gone then.
bool moves_forward(std::span<const FlushAction> flush);

/// What is known of deletes of an object (safety 6, docs/adr/0046).
struct Deletes {
    /// Tombstones as listed; `stable` means nothing.
    std::span<const ListedEntry> tombstones;
    /// The leading OSD: keeps a tombstone whatever its role is, so that it creates the object above it.
    OsdNum self = 0;
    /// Somebody who may hold a copy is away: all of the current set must remember.
    bool everywhere = false;
};

struct Verdict {
    bool invalid = false;  ///< an impossible role: the PG refuses to work
    bool exists = false;   ///< false: only rollbacks, or what a tombstone covers, remain
    uint32_t state = 0;    ///< wire::object_state bits; 0 = clean
    Version target = 0;    ///< version that counts
    Version newest = 0;    ///< newest version seen anywhere
    std::vector<Location> locations;  ///< good copies, then outdated ones; sorted; without corrupted marks
    std::vector<FlushAction> flush;
};

/// Judges one object. object: without role bits; entries: of this object, any order, at least one or a tombstone. `out` is
/// overwritten. A tombstone covers all versions up to its own: versions of an object never fall below one that is remembered
/// anywhere (docs/adr/0046).
void judge_object(const Scheme& scheme, std::span<const OsdNum> current_set, const ObjectId& object,
                  std::span<const ListedEntry> entries, const Deletes& deletes, Verdict& out);

/// Merges listings in slices and fills an ObjectTable. Use: add all listings, then step() until it returns true.
class PeeringMerge {
public:
    PeeringMerge(const Scheme& scheme, std::vector<OsdNum> current_set, ObjectTable& objects);
    /// Before the first step: listed tombstones are believed. self, everywhere: as in Deletes. Without it they are passed over.
    void believe_tombstones(OsdNum self, bool everywhere);
    /// Takes over the listing of one OSD. Memory stays that of the listings: they are sorted in place.
    void add_listing(OsdNum osd, store::Listing&& listing);
    /// Handles at most about `budget` entries. true: finished.
    bool step(size_t budget);

    // ---- results, once finished
    bool invalid() const { return invalid_; }
    const std::string& invalid_text() const { return invalid_text_; }
    uint64_t max_epoch() const { return max_epoch_; }
    /// Listed and believed; 0: nobody remembers a delete.
    uint64_t tombstones() const { return tombstone_count_; }
    std::vector<FlushAction>& flush() { return flush_; }

private:
    enum class Kind : uint8_t { stable, unstable, tombstone };
    struct Run {
        const ObjectVersion* at;
        const ObjectVersion* end;
        OsdNum osd;
        Kind kind;
    };
    struct Source {
        OsdNum osd;
        Kind kind;
        std::vector<ObjectVersion> entries;
        size_t sorted = 0;
    };
    static bool later(const Run& a, const Run& b);
    void judge_group();
    bool sort_some(size_t budget);

    Scheme scheme_;
    std::vector<OsdNum> current_set_;
    ObjectTable& objects_;
    std::vector<Source> sources_;
    std::vector<Run> heap_;
    bool heap_ready_ = false;
    ObjectId group_;
    std::vector<ListedEntry> entries_;
    std::vector<ListedEntry> tombstones_;  ///< of the same object
    bool believe_ = false;
    Deletes deletes_;
    uint64_t tombstone_count_ = 0;
    Verdict verdict_;
    bool invalid_ = false;
    std::string invalid_text_;
    uint64_t max_epoch_ = 0;
    std::vector<FlushAction> flush_;
};

}  // namespace vitastor::pg

// SPDX-License-Identifier: GPL-2.0-or-later
// Which objects damaged metadata touches, as far as that can be told: watches a replay that goes on behind damage.
//
// An object is touched when one of its entries stands on a page that is lost (what can still be read of it names the objects), or
// when the log changes it without having said what it is. Its full entry or its deletion, later in the log, clears it. What is
// touched in the end has to be left out: it may be missing, old or wrong.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "store/replay.hpp"

namespace vitastor::store {

class Salvage final : public ReplayObserver {
public:
    Salvage(const Geometry& geometry, const std::string& path, Logger& logger);

    // ---- while the replay runs
    void on_entry(const EntryView& entry, uint64_t page, bool applied) override;
    bool on_damage(uint64_t offset, const std::string& text) override;
    void on_lost(std::span<const uint8_t> page) override;
    void on_cut_entry(std::span<const uint8_t> start) override;

    // ---- afterwards
    uint64_t damages() const { return damages_; }
    /// Something that was lost could not be read: more objects may be touched than are known.
    bool names_are_missing() const { return names_are_missing_; }
    const std::set<ObjectId>& touched() const { return touched_; }
    /// A block has two owners: none of them can be trusted.
    void touch(const ObjectId& object) { touched_.insert(object); }
    /// Objects that the log changes and does not know become touched. Call once, after the replay.
    void settle();
    /// Names the touched objects in the log. verb: what becomes of them.
    void report(const char* verb) const;

private:
    const Geometry& geometry_;
    std::string path_;
    Logger& logger_;
    uint64_t damages_ = 0;
    bool names_are_missing_ = false;
    std::set<ObjectId> touched_;
    std::set<ObjectId> unknown_;  ///< changed by the log, not there so far
};

}  // namespace vitastor::store

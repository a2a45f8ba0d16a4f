// SPDX-License-Identifier: GPL-2.0-or-later
// Resize: another size of the data area, another place or size of the metadata log. For an open store with nothing in flight,
// which is closed afterwards (vitastor-disk does it for stopped OSDs).
//
// Promise: interrupted at any point, the store opens as before or as after. First, blocks that will not be there are copied to others
// and ordinary entries say so; then a new log with every object is written to a place that nothing uses; then one write of
// one superblock page switches over. Blocks never move for the sake of the log's new place alone: their numbers change.
#pragma once

#include <string>
#include <unordered_map>

#include "store/blockstore.hpp"

namespace vitastor::store {

struct NewPlaces {
    uint64_t data_size = 0;   ///< bytes of the data area from data_offset on; must exist on the device
    std::string meta_device;  ///< empty: in one area with the data
    uint64_t meta_offset = 0;
    uint64_t meta_size = 0;   ///< bytes; 0: as before, or to the end of a new device. In one area: bytes of the log at least
    bool force = false;       ///< although something else begins at the new place of the metadata
};

class Relayout {
public:
    /// store: open, not read-only, without operations in flight; nothing else is asked of it until the end.
    Relayout(Blockstore& store, const NewPlaces& places) : store_(store), places_(places) {}

    ~Relayout();

    /// Decides what is to be done; changes nothing. 0, or an errno with error().
    runtime::Task<int> plan();
    /// Does it, after plan() has succeeded. 0: the store is as planned, durably. Afterwards only close().
    runtime::Task<int> run();

    const std::string& error() const { return error_; }
    bool changes_anything() const { return changes_; }
    bool moves_log() const { return moves_log_; }
    uint64_t blocks_to_move() const { return blocks_to_move_; }
    const Geometry& before() const { return store_.geometry_; }
    const Geometry& after() const { return after_; }

private:
    struct Range {
        uint64_t start, end;
        bool overlaps(const Range& other) const { return start < other.end && other.start < end; }
    };

    int refuse(int code, std::string text);
    int open_new_meta();
    runtime::Task<int> check_new_meta();
    int plan_places();
    bool plan_in_place();
    bool plan_log_at_end();
    bool plan_log_at_start();
    int plan_separate();
    uint64_t first_fit(uint64_t least) const;
    Range log_range(const Geometry& geometry) const;
    bool stays(uint32_t block) const;
    uint32_t renumbered(uint32_t block) const;
    runtime::Task<int> count_moves();
    runtime::Task<int> clear_range();
    runtime::Task<void> quiet();
    runtime::Task<int> copy_block(uint32_t from, uint32_t to);
    runtime::Task<int> write_log();
    runtime::Task<int> switch_over();

    Blockstore& store_;
    NewPlaces places_;
    std::string error_;
    Geometry after_;
    StoreOptions options_;  ///< of the store afterwards
    bool was_shared_ = false, is_shared_ = false, same_meta_ = false;
    bool changes_ = false, moves_log_ = false;
    uint64_t blocks_to_move_ = 0;
    std::unique_ptr<Device> new_meta_;  ///< if it is another device than before
    uint64_t meta_bytes_ = 0;           ///< of the new metadata area
    uint64_t uuid_ = 0;
    bool is_holding_ = false;
    std::unordered_map<uint32_t, uint32_t> moved_;  ///< blocks that had to go, and where they are
};

}  // namespace vitastor::store

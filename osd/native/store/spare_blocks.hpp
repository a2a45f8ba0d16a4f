// SPDX-License-Identifier: GPL-2.0-or-later
// Spare blocks: blocks of the allocator that belong to the store itself and take runs of granules that do not live at home.
//
// A spare block is filled from its start to its end and never twice; what is freed in it stays unused until all of it is free
// and nothing is on its way into it: then the block goes back to the allocator. Several blocks are open at a time, so that a run
// which does not fit into one may fit into another. Each granule knows its owner, for the mover. Numbers only: no I/O here.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "store/store_format.hpp"

namespace vitastor::store {

class SpareBlocks {
public:
    static constexpr uint32_t kNoOwner = UINT32_MAX;

    void reset(uint32_t granules_per_block);

    /// A run of `count` granules of an open block, which is on its way until settle(); none: open another block first.
    std::optional<SparePlace> take(uint32_t count);
    /// A block just allocated becomes the emptiest open one.
    void open(uint32_t block);
    /// The data of a run from take() has arrived or has failed; what nobody owns by now is lost room.
    void settle(const SparePlace& place, uint32_t count);

    /// The granules belong to the object at slot `owner` (several versions of it may share them: said again, no change).
    void use(uint32_t block, uint32_t place, uint32_t count, uint32_t owner);
    /// No version uses the granules. position: of the log entry that says so.
    void release(uint32_t block, uint32_t place, uint32_t count, uint64_t position);
    /// While loading: a closed block, if it is not there yet.
    void load(uint32_t block);
    bool contains(uint32_t block) const { return blocks_.contains(block); }
    /// Owner of one granule, kNoOwner if it is free. The block must be there.
    uint32_t owner(uint32_t block, uint32_t place) const { return blocks_.at(block).owners[place]; }

    struct Empty {
        uint32_t block;
        uint64_t position;  ///< the block may be used again when the log is durable up to here
    };
    /// A block that has become empty, once; it is no spare block any more.
    std::optional<Empty> take_empty();

    /// The block with the fewest granules in use that is not excluded from this pass of the mover, or kNoBlock. One that it has
    /// just had comes again a few turns later: what was in use may be free then. open_too: also those that are still being
    /// filled; they are closed.
    uint32_t victim(uint64_t pass, bool open_too);
    /// Nothing of it can be moved now.
    void exclude(uint32_t block, uint64_t pass);
    /// Owners of the granules in use of a block, each once.
    std::vector<uint32_t> owners(uint32_t block) const;

    uint64_t count() const { return blocks_.size(); }
    uint64_t live_granules() const { return live_; }
    uint64_t memory_bytes() const { return blocks_.size() * (sizeof(Block) + 64 + 4 * uint64_t{granules_}); }

private:
    struct Block {
        uint32_t filled = 0;
        uint32_t live = 0;
        uint32_t on_way = 0;
        bool is_open = false;
        uint64_t excluded = 0;  ///< from this pass
        uint64_t rests_until = 0;
        uint64_t position = 0;
        std::vector<uint32_t> owners;
    };
    static constexpr size_t kMaxOpen = 8;
    static constexpr uint64_t kRestTurns = 16;
    void close(uint32_t block);
    void check_empty(uint32_t number, const Block& block);

    uint32_t granules_ = 0;
    uint64_t live_ = 0;
    uint64_t turn_ = 0;  ///< victims so far
    std::map<uint32_t, Block> blocks_;
    std::vector<uint32_t> open_;  ///< at most kMaxOpen
    std::vector<Empty> empty_;
};

}  // namespace vitastor::store

// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/spare_blocks.hpp"

#include <algorithm>
#include <tuple>

#include "base/assert.hpp"

namespace vitastor::store {

void SpareBlocks::reset(uint32_t granules_per_block) {
    granules_ = granules_per_block;
    live_ = 0;
    blocks_.clear();
    open_.clear();
    empty_.clear();
}

std::optional<SparePlace> SpareBlocks::take(uint32_t count) {
    Block* best = nullptr;
    uint32_t number = kNoBlock;
    for (uint32_t candidate : open_) {
        Block& block = blocks_.at(candidate);
        if (granules_ - block.filled < count || (best && block.filled <= best->filled)) continue;
        best = &block;
        number = candidate;
    }
    if (!best) return std::nullopt;
    const SparePlace place{number, static_cast<uint16_t>(best->filled), 0};
    best->filled += count;
    best->on_way += count;
    if (best->filled == granules_) close(number);
    return place;
}

void SpareBlocks::open(uint32_t number) {
    if (open_.size() == kMaxOpen) {
        const auto fullest = std::max_element(open_.begin(), open_.end(), [this](uint32_t a, uint32_t b) {
            return blocks_.at(a).filled < blocks_.at(b).filled;
        });
        close(*fullest);
    }
    const auto [place, fresh] = blocks_.try_emplace(number);
    VITASTOR_ASSERT(fresh);
    place->second.owners.assign(granules_, kNoOwner);
    place->second.is_open = true;
    open_.push_back(number);
}

void SpareBlocks::close(uint32_t number) {
    blocks_.at(number).is_open = false;
    std::erase(open_, number);
}

void SpareBlocks::settle(const SparePlace& place, uint32_t count) {
    Block& block = blocks_.at(place.block);
    VITASTOR_ASSERT(block.on_way >= count);
    block.on_way -= count;
    check_empty(place.block, block);
}

void SpareBlocks::load(uint32_t number) {
    const auto [place, fresh] = blocks_.try_emplace(number);
    if (!fresh) return;
    place->second.owners.assign(granules_, kNoOwner);
    place->second.filled = granules_;
}

void SpareBlocks::use(uint32_t number, uint32_t place, uint32_t count, uint32_t owner) {
    Block& block = blocks_.at(number);
    VITASTOR_ASSERT(place + count <= granules_);
    for (uint32_t i = place; i < place + count; i++) {
        if (block.owners[i] == owner) continue;
        VITASTOR_ASSERT(block.owners[i] == kNoOwner);
        block.owners[i] = owner;
        block.live++;
        live_++;
    }
}

void SpareBlocks::release(uint32_t number, uint32_t place, uint32_t count, uint64_t position) {
    Block& block = blocks_.at(number);
    VITASTOR_ASSERT(place + count <= granules_);
    for (uint32_t i = place; i < place + count; i++) {
        VITASTOR_ASSERT(block.owners[i] != kNoOwner);
        block.owners[i] = kNoOwner;
        block.live--;
        live_--;
    }
    block.position = std::max(block.position, position);
    check_empty(number, block);
}

void SpareBlocks::check_empty(uint32_t number, const Block& block) {
    if (block.live || block.on_way) return;
    empty_.push_back({number, block.position});
    std::erase(open_, number);
    blocks_.erase(number);
}

std::optional<SpareBlocks::Empty> SpareBlocks::take_empty() {
    if (empty_.empty()) return std::nullopt;
    const Empty found = empty_.back();
    empty_.pop_back();
    return found;
}

uint32_t SpareBlocks::victim(uint64_t pass, bool open_too) {
    turn_++;
    const auto rank = [this](const Block& block) {  // small ones first: rested, closed, little in it
        return std::tuple(block.rests_until > turn_, block.is_open, block.live);
    };
    uint32_t found = kNoBlock;
    const Block* best = nullptr;
    for (const auto& [number, block] : blocks_) {
        if (block.excluded == pass || !block.live || (block.is_open && !open_too)) continue;
        if (best && rank(*best) <= rank(block)) continue;
        best = &block;
        found = number;
    }
    if (found == kNoBlock) return found;
    blocks_.at(found).rests_until = turn_ + kRestTurns;
    if (blocks_.at(found).is_open) close(found);
    return found;
}

void SpareBlocks::exclude(uint32_t number, uint64_t pass) {
    const auto place = blocks_.find(number);
    if (place != blocks_.end()) place->second.excluded = pass;
}

std::vector<uint32_t> SpareBlocks::owners(uint32_t number) const {
    std::vector<uint32_t> result;
    const auto place = blocks_.find(number);
    if (place == blocks_.end()) return result;
    for (uint32_t owner : place->second.owners)
        if (owner != kNoOwner) result.push_back(owner);
    std::sort(result.begin(), result.end());
    result.erase(std::unique(result.begin(), result.end()), result.end());
    return result;
}

}  // namespace vitastor::store

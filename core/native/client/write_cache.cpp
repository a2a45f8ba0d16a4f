// SPDX-License-Identifier: GPL-2.0-or-later
#include "client/write_cache.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace vitastor::client {

WriteCache::Data::Data(std::shared_ptr<Usage> usage, uint64_t size_in)
    : bytes(new uint8_t[size_in]), size(size_in), usage_(std::move(usage)) {
    usage_->bytes.fetch_add(size, std::memory_order_relaxed);
    usage_->buffers.fetch_add(1, std::memory_order_relaxed);
}

WriteCache::Data::~Data() {
    usage_->bytes.fetch_sub(size, std::memory_order_relaxed);
    usage_->buffers.fetch_sub(1, std::memory_order_relaxed);
}

/// The extent that lies over `offset` ends there, and another begins.
void WriteCache::split_at(uint64_t offset) {
    auto after = dirty_.lower_bound(offset);
    if (after == dirty_.begin()) return;
    auto found = std::prev(after);
    Extent& left = found->second;
    if (found->first + left.length <= offset) return;
    const uint64_t size = offset - found->first;
    Extent right = left;
    right.length -= size;
    right.data_offset += size;
    left.length = size;
    dirty_.emplace_hint(after, offset, std::move(right));
}

void WriteCache::erase_range(uint64_t begin, uint64_t end) {
    split_at(begin);
    split_at(end);
    dirty_.erase(dirty_.lower_bound(begin), dirty_.lower_bound(end));
}

bool WriteCache::overlaps_run(uint64_t begin, uint64_t end) const {
    auto after = runs_.lower_bound(end);
    return after != runs_.begin() && std::prev(after)->second.offset + std::prev(after)->second.length > begin;
}

void WriteCache::put(uint64_t offset, std::shared_ptr<Data> data, uint64_t generation) {
    const std::lock_guard lock(mutex_);
    generation_ = std::max(generation_, generation);
    const uint64_t length = data->size;
    uint64_t seq = seq_.fetch_add(1, std::memory_order_acq_rel) + 1;
    // A flush that waits for what is written over here waits for this instead: else it would leave neither on the OSDs.
    split_at(offset);
    for (auto old = dirty_.lower_bound(offset); old != dirty_.end() && old->first < offset + length; ++old) seq = std::min(seq, old->second.seq);
    erase_range(offset, offset + length);
    dirty_.emplace(offset, Extent{length, std::move(data), 0, seq});
    recount();
}

WriteCache::Coverage WriteCache::collect(uint64_t offset, uint64_t length, std::vector<Piece>& out) const {
    const uint64_t end = offset + length;
    auto add = [&](Piece piece) {
        const uint64_t from = std::max(offset, piece.offset), to = std::min(end, piece.offset + piece.length);
        if (from >= to) return;
        piece.data_offset += from - piece.offset;
        piece.offset = from;
        piece.length = to - from;
        out.push_back(std::move(piece));
    };
    {
        const std::lock_guard lock(mutex_);
        auto run = runs_.upper_bound(offset);
        if (run != runs_.begin()) --run;
        for (; run != runs_.end() && run->first < end; ++run)
            for (const Piece& piece : run->second.pieces) add(piece);
        auto extent = dirty_.upper_bound(offset);
        if (extent != dirty_.begin()) --extent;
        for (; extent != dirty_.end() && extent->first < end; ++extent)
            add({extent->first, extent->second.length, extent->second.data, extent->second.data_offset, extent->second.seq});
    }
    if (out.empty()) return Coverage::none;
    std::vector<std::pair<uint64_t, uint64_t>> ranges;
    ranges.reserve(out.size());
    for (const Piece& piece : out) ranges.emplace_back(piece.offset, piece.offset + piece.length);
    std::sort(ranges.begin(), ranges.end());
    uint64_t covered = offset;
    for (const auto& [from, to] : ranges) {
        if (from > covered) return Coverage::some;
        covered = std::max(covered, to);
    }
    return covered >= end ? Coverage::all : Coverage::some;
}

bool WriteCache::take(uint64_t cut, uint64_t begin, uint64_t end, uint64_t object_size, Run& out) {
    const std::lock_guard lock(mutex_);
    if (dirty_.empty()) return false;
    auto fits = [&](Extents::iterator item) {
        return item->second.seq <= cut && item->first < end && item->first + item->second.length > begin &&
               !overlaps_run(item->first, item->first + item->second.length);
    };
    auto found = dirty_.lower_bound(cursor_);
    size_t left = dirty_.size();
    for (; left; left--) {
        if (found == dirty_.end()) found = dirty_.begin();
        if (fits(found)) break;
        ++found;
    }
    if (!left) return false;
    // One that lies over several objects is taken by objects.
    const uint64_t wanted = std::max(found->first, begin) / object_size * object_size;
    split_at(wanted);
    split_at(wanted + object_size);
    found = dirty_.lower_bound(std::max(found->first, wanted));
    auto joins = [&](Extents::iterator left_one, Extents::iterator right_one) {
        return left_one->first + left_one->second.length == right_one->first;
    };
    // What touches it inside the object.
    auto first = found;
    while (first != dirty_.begin()) {
        const auto before = std::prev(first);
        if (first->first == wanted || !joins(before, first)) break;
        if (overlaps_run(before->first, before->first + before->second.length)) break;
        first = before;
    }
    out.offset = first->first;
    out.length = 0;
    out.pieces.clear();
    auto last = first;
    for (; last != dirty_.end() && last->first == out.offset + out.length; ++last) {
        if (last->first >= wanted + object_size) break;
        if (last->first + last->second.length > wanted + object_size) split_at(wanted + object_size);
        if (overlaps_run(last->first, last->first + last->second.length)) break;
        Extent& extent = last->second;
        out.pieces.push_back({last->first, extent.length, extent.data, extent.data_offset, extent.seq});
        out.length += extent.length;
    }
    VITASTOR_ASSERT(out.length > 0);
    dirty_.erase(first, last);
    cursor_ = out.offset + out.length;
    runs_.emplace(out.offset, out);
    count_taken(out, 1);
    recount();
    return true;
}

void WriteCache::count_taken(const Run& run, uint64_t sign) {
    taken_.store(runs_.size(), std::memory_order_relaxed);
    bytes_taken_.fetch_add(sign * run.length, std::memory_order_relaxed);
    pieces_taken_.fetch_add(sign * run.pieces.size(), std::memory_order_relaxed);
}

void WriteCache::ended(const Run& run, bool ok) {
    const std::lock_guard lock(mutex_);
    const size_t known = runs_.erase(run.offset);
    VITASTOR_ASSERT(known == 1);
    count_taken(run, UINT64_MAX);
    if (!ok) {
        for (const Piece& piece : run.pieces) {
            // Into the gaps between newer bytes.
            const uint64_t end = piece.offset + piece.length;
            for (uint64_t at = piece.offset; at < end;) {
                auto next = dirty_.upper_bound(at);
                if (next != dirty_.begin()) {
                    const auto before = std::prev(next);
                    if (before->first + before->second.length > at) {
                        at = before->first + before->second.length;
                        continue;
                    }
                }
                const uint64_t to = next == dirty_.end() ? end : std::min(end, next->first);
                dirty_.emplace(at, Extent{to - at, piece.data, piece.data_offset + (at - piece.offset), piece.seq});
                at = to;
            }
        }
    }
    recount();
}

bool WriteCache::pending(uint64_t cut, uint64_t begin, uint64_t end) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [offset, run] : runs_) {
        if (offset >= end) break;
        for (const Piece& piece : run.pieces)
            if (piece.seq <= cut && piece.offset < end && piece.offset + piece.length > begin) return true;
    }
    for (const auto& [offset, extent] : dirty_) {
        if (offset >= end) break;
        if (extent.seq <= cut && offset + extent.length > begin) return true;
    }
    return false;
}

void WriteCache::cut_off(uint64_t size, uint64_t generation) {
    const std::lock_guard lock(mutex_);
    if (dirty_.empty() || generation < generation_) return;
    erase_range(size, UINT64_MAX);
    recount();
}

}  // namespace vitastor::client

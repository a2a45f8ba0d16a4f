// SPDX-License-Identifier: GPL-2.0-or-later
#include "client/unsynced.hpp"

#include <utility>

#include "base/assert.hpp"

namespace vitastor::client {

bool Unsynced::over_limit(uint64_t max_bytes, uint64_t max_ops) const {
    return bytes_.load(std::memory_order_relaxed) > max_bytes || ops_.load(std::memory_order_relaxed) > max_ops;
}

bool Unsynced::needs_replay(const Object& object, Route route) {
    auto stale = [&](const Range& range) { return range.osd != route.osd || range.epoch < route.epoch; };
    if (object.removed && stale(object.removal)) return true;
    for (auto& [offset, range] : object.ranges)
        if (stale(range)) return true;
    return false;
}

bool Unsynced::covers(const Object& object, uint64_t cut) {
    if (object.removed && object.removal.user_seq <= cut) return true;
    for (auto& [offset, range] : object.ranges)
        if (range.user_seq <= cut) return true;
    return false;
}

Unsynced::Verdict Unsynced::begin(ObjectId id, Route route, bool write) {
    std::lock_guard lock(mutex_);
    auto found = objects_.find(id);
    if (found == objects_.end()) {
        if (!write) return Verdict::go;
        found = objects_.try_emplace(id).first;
        object_count_.fetch_add(1, std::memory_order_release);
    }
    Object& object = found->second;
    if (object.replayer || (object.writes_in_flight && needs_replay(object, route))) {
        waited_ = true;
        return Verdict::wait;
    }
    if (needs_replay(object, route)) return Verdict::replay;
    if (write) object.writes_in_flight++;
    return Verdict::go;
}

void Unsynced::drop_range(const Range& range) {
    bytes_.fetch_sub(range.length, std::memory_order_relaxed);
    ops_.fetch_sub(1, std::memory_order_relaxed);
}

void Unsynced::cut_out(Object& object, uint32_t offset, uint32_t length) {
    uint32_t end = offset + length;
    auto it = object.ranges.upper_bound(offset);
    if (it != object.ranges.begin()) --it;
    while (it != object.ranges.end() && it->first < end) {
        uint32_t start = it->first;
        Range range = it->second;
        uint32_t range_end = start + range.length;
        if (range_end <= offset) {
            ++it;
            continue;
        }
        drop_range(range);
        it = object.ranges.erase(it);
        auto keep = [&](uint32_t from, uint32_t to) {
            Range piece = range;
            piece.data_offset += from - start;
            piece.length = to - from;
            bytes_.fetch_add(piece.length, std::memory_order_relaxed);
            ops_.fetch_add(1, std::memory_order_relaxed);
            object.ranges.emplace(from, std::move(piece));
        };
        if (start < offset) keep(start, offset);
        if (range_end > end) keep(end, range_end);
    }
}

void Unsynced::erase_if_clean(std::unordered_map<ObjectId, Object, ObjectIdHash>::iterator found) {
    Object& object = found->second;
    if (object.ranges.empty() && !object.removed && !object.writes_in_flight && !object.replayer) {
        objects_.erase(found);
        object_count_.fetch_sub(1, std::memory_order_release);
    }
}

bool Unsynced::end_write(ObjectId id, bool record, bool forget, uint32_t offset, uint32_t length,
    std::shared_ptr<WrittenData> data, bool removed, OsdNum osd, uint64_t acked_epoch) {
    std::lock_guard lock(mutex_);
    auto found = objects_.find(id);
    VITASTOR_ASSERT(found != objects_.end());
    Object& object = found->second;
    VITASTOR_ASSERT(object.writes_in_flight > 0);
    object.writes_in_flight--;
    if (record || forget) {
        if (removed) {
            for (auto& [at, range] : object.ranges) drop_range(range);
            object.ranges.clear();
            object.removed = false;
        } else {
            cut_out(object, offset, length);
        }
    }
    if (record) {
        Range range;
        range.osd = osd;
        range.epoch = acked_epoch;
        range.user_seq = range.ack_seq = next_seq();
        if (removed) {
            object.removed = true;
            object.removal = std::move(range);
        } else {
            range.length = length;
            range.data = std::move(data);
            bytes_.fetch_add(length, std::memory_order_relaxed);
            ops_.fetch_add(1, std::memory_order_relaxed);
            object.ranges.emplace(offset, std::move(range));
        }
    }
    erase_if_clean(found);
    return std::exchange(waited_, false);
}

bool Unsynced::claim(ObjectId id, Context* context, std::vector<ReplayItem>& items) {
    std::lock_guard lock(mutex_);
    auto found = objects_.find(id);
    if (found == objects_.end()) return false;
    Object& object = found->second;
    if (object.replayer || object.writes_in_flight || (object.ranges.empty() && !object.removed)) return false;
    object.replayer = context;
    if (object.removed) items.push_back({0, true, object.removal});
    for (auto& [offset, range] : object.ranges) items.push_back({offset, false, range});
    return true;
}

void Unsynced::replayed(ObjectId id, uint32_t offset, bool removed, uint64_t user_seq, OsdNum osd, uint64_t acked_epoch) {
    std::lock_guard lock(mutex_);
    auto found = objects_.find(id);
    if (found == objects_.end()) return;
    Range* range = nullptr;
    if (removed) {
        if (found->second.removed) range = &found->second.removal;
    } else {
        auto at = found->second.ranges.find(offset);
        if (at != found->second.ranges.end()) range = &at->second;
    }
    // A SYNC may have dropped it meanwhile.
    if (!range || range->user_seq != user_seq) return;
    range->osd = osd;
    range->epoch = acked_epoch;
    range->ack_seq = next_seq();
}

void Unsynced::release(ObjectId id) {
    std::lock_guard lock(mutex_);
    auto found = objects_.find(id);
    if (found == objects_.end()) return;
    found->second.replayer = nullptr;
    erase_if_clean(found);
}

void Unsynced::synced(OsdNum osd, uint64_t epoch, uint64_t sync_seq) {
    std::lock_guard lock(mutex_);
    auto durable = [&](const Range& range) {
        return range.osd == osd && range.epoch >= epoch && range.ack_seq < sync_seq;
    };
    for (auto it = objects_.begin(); it != objects_.end();) {
        Object& object = it->second;
        if (object.removed && durable(object.removal)) object.removed = false;
        for (auto range = object.ranges.begin(); range != object.ranges.end();) {
            if (!durable(range->second)) {
                ++range;
                continue;
            }
            drop_range(range->second);
            range = object.ranges.erase(range);
        }
        auto here = it++;
        erase_if_clean(here);
    }
}

}  // namespace vitastor::client

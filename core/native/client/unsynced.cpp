// SPDX-License-Identifier: GPL-2.0-or-later
#include "client/unsynced.hpp"

#include <algorithm>
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

Unsynced::Verdict Unsynced::begin(ObjectId id, Route route, bool write, bool removes) {
    std::lock_guard lock(mutex_);
    auto found = objects_.find(id);
    if (found == objects_.end()) {
        if (!write) return Verdict::go;
        found = objects_.try_emplace(id).first;
        object_count_.fetch_add(1, std::memory_order_release);
    }
    Object& object = found->second;
    if (removes && object.paused && object.writes_in_flight == 0) {
        VITASTOR_PROBE("a deletion passes what waits for room to be sent again");
        object.writes_in_flight++;
        return Verdict::go;
    }
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

void Unsynced::add_range(Object& object, uint32_t offset, uint32_t end, const Range& whole, uint32_t whole_offset) {
    Range piece = whole;
    piece.data_offset += offset - whole_offset;
    piece.length = end - offset;
    bytes_.fetch_add(piece.length, std::memory_order_relaxed);
    ops_.fetch_add(1, std::memory_order_relaxed);
    object.ranges.emplace(offset, std::move(piece));
}

/// What lies in [offset, end) and for which is_older(range) holds is no more.
template <class IsOlder>
void Unsynced::cut_out(Object& object, uint32_t offset, uint32_t end, IsOlder is_older) {
    auto it = object.ranges.upper_bound(offset);
    if (it != object.ranges.begin()) --it;
    while (it != object.ranges.end() && it->first < end) {
        uint32_t start = it->first;
        Range range = it->second;
        uint32_t range_end = start + range.length;
        if (range_end <= offset || !is_older(range)) {
            ++it;
            continue;
        }
        drop_range(range);
        it = object.ranges.erase(it);
        if (start < offset) add_range(object, start, offset, range, start);
        if (range_end > end) add_range(object, end, range_end, range, start);
    }
}

void Unsynced::erase_if_clean(std::unordered_map<ObjectId, Object, ObjectIdHash>::iterator found) {
    Object& object = found->second;
    if (object.ranges.empty() && !object.removed && !object.writes_in_flight && !object.replayer) {
        objects_.erase(found);
        object_count_.fetch_sub(1, std::memory_order_release);
    }
}

bool Unsynced::end_write(ObjectId id, WriteEnd&& write) {
    std::lock_guard lock(mutex_);
    auto found = objects_.find(id);
    VITASTOR_ASSERT(found != objects_.end());
    Object& object = found->second;
    VITASTOR_ASSERT(object.writes_in_flight > 0);
    object.writes_in_flight--;
    const uint32_t end = write.offset + write.length;
    auto all = [](const Range&) { return true; };
    if (write.kind == WriteEnd::Kind::compared) {
        // A write that was under way at the same time may be the newer one: then it is all that a crash leaves of these bytes.
        auto is_older = [&](const Range& range) {
            if (range.user_seq <= write.start_seq) return true;
            return range.version < write.version;
        };
        cut_out(object, write.removed ? 0 : write.offset, write.removed ? UINT32_MAX : end, is_older);
        if (object.writes_in_flight && !write.removed) object.compared.push_back({write.offset, end, write.version, next_seq()});
    } else if (write.kind == WriteEnd::Kind::written) {
        Range range;
        range.length = write.length;
        range.data = std::move(write.data);
        range.osd = write.osd;
        range.epoch = write.epoch;
        range.version = write.version;
        range.user_seq = range.ack_seq = next_seq();
        if (write.removed) {
            for (auto& [at, old] : object.ranges) drop_range(old);
            object.ranges.clear();
            object.removed = true;
            object.removal = std::move(range);
        } else {
            std::vector<std::pair<uint32_t, uint32_t>> pieces = {{write.offset, end}}, left;
            for (const Compared& other : object.compared) {
                if (!write.version || write.version > other.version || write.start_seq >= other.end_seq) continue;
                VITASTOR_PROBE("a compare-and-set overtook a write");
                for (auto [from, to] : std::exchange(pieces, {})) {
                    if (from < other.offset) left.push_back({from, std::min(to, other.offset)});
                    if (to > other.end) left.push_back({std::max(from, other.end), to});
                }
                pieces.swap(left);
            }
            for (auto [from, to] : pieces) {
                cut_out(object, from, to, all);
                add_range(object, from, to, range, write.offset);
            }
        }
    }
    if (!object.writes_in_flight) object.compared.clear();
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
    list_items(object, items);
    return true;
}

void Unsynced::list_items(Object& object, std::vector<ReplayItem>& items) {
    if (object.removed) items.push_back({0, true, object.removal});
    for (auto& [offset, range] : object.ranges) items.push_back({offset, false, range});
    if (!object.removed) return;
    // The deletion takes with it what lies behind it: whoever has acknowledged that, it is nowhere until it has been sent again.
    object.removal.osd = 0;
    for (auto& [offset, range] : object.ranges) range.osd = 0;
}

void Unsynced::pause(ObjectId id) {
    std::lock_guard lock(mutex_);
    auto found = objects_.find(id);
    VITASTOR_ASSERT(found != objects_.end() && found->second.replayer);
    found->second.paused = true;
}

Unsynced::Verdict Unsynced::resume(ObjectId id, Route route, std::vector<ReplayItem>& items) {
    std::lock_guard lock(mutex_);
    auto found = objects_.find(id);
    VITASTOR_ASSERT(found != objects_.end() && found->second.paused);
    Object& object = found->second;
    if (object.writes_in_flight) return Verdict::wait;
    object.paused = false;
    if (!needs_replay(object, route)) return Verdict::go;
    list_items(object, items);
    return Verdict::replay;
}

void Unsynced::replayed(ObjectId id, uint32_t offset, bool removed, uint64_t user_seq, OsdNum osd, uint64_t acked_epoch,
    Version version) {
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
    range->version = version;
}

void Unsynced::release(ObjectId id) {
    std::lock_guard lock(mutex_);
    auto found = objects_.find(id);
    if (found == objects_.end()) return;
    found->second.replayer = nullptr;
    found->second.paused = false;
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
        // Where the deletion has to be sent again, so has everything behind it.
        for (auto range = object.ranges.begin(); range != object.ranges.end();) {
            if (object.removed || !durable(range->second)) {
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

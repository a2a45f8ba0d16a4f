// SPDX-License-Identifier: GPL-2.0-or-later
// Acknowledged and not yet synced writes of one image (pool modes small and none): what a flush must cover and what must be
// sent again when an OSD may have lost it. Belongs to the image, shared by all contexts (safety.md 9), one lock.
// Source: semantics 4.4.
//
// Each range remembers the OSD that acknowledged it and the epoch when it was sent. Epochs count established connections of the
// whole process: a connection that is younger than the range may lead to a restarted OSD that has lost it, so before the first
// operation on the object (or the SYNC) through such a connection the range is sent again. The same when the primary has changed.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/ids.hpp"

namespace vitastor::client {

class Context;

/// Where an object's operations go now, as one context sees it. osd 0: nowhere at the moment.
struct Route {
    OsdNum osd = 0;
    uint64_t epoch = 0;  ///< of the connection; UINT64_MAX: not connected
};

/// A private copy of written data, shared by the ranges that it was split into. data nullptr: zeroes.
struct WrittenData {
    std::unique_ptr<uint8_t[]> bytes;
};

class Unsynced {
public:
    struct Range {
        uint32_t length = 0;
        std::shared_ptr<WrittenData> data;
        uint32_t data_offset = 0;
        OsdNum osd = 0;  ///< 0: none has it now
        uint64_t epoch = 0;
        uint64_t user_seq = 0;  ///< when the caller's write was acknowledged
        uint64_t ack_seq = 0;   ///< when it was acknowledged last (replay)
        Version version = 0;    ///< that it got then; 0: not known
    };
    struct ReplayItem {
        uint32_t offset = 0;  ///< inside the object
        bool remove = false;
        Range range;
    };
    enum class Verdict { go, wait, replay };

    bool empty() const { return object_count_.load(std::memory_order_acquire) == 0; }
    uint64_t last_seq() const { return seq_.load(std::memory_order_acquire); }
    bool over_limit(uint64_t max_bytes, uint64_t max_ops) const;

    /// Read or write of the object along the route. go for a write (`write`): it counts as in flight until end_write().
    /// wait: a replay or a write is in flight, try again after notify. replay: the caller should start one.
    /// A deletion of the whole object (`removes`) need not wait for a replay that is paused: it makes it superfluous.
    Verdict begin(ObjectId object, Route route, bool write, bool removes = false);
    /// What became of a write that begin() has let go.
    struct WriteEnd {
        enum class Kind {
            failed,
            written,   ///< to be kept until a SYNC covers it
            compared,  ///< compare-and-set, durable by a SYNC of its own: drops what it covers and is older
        } kind = Kind::failed;
        bool removed = false;  ///< it was a deletion of the whole object
        uint32_t offset = 0, length = 0;
        std::shared_ptr<WrittenData> data;
        OsdNum osd = 0;
        uint64_t epoch = 0;      ///< of the process when it was sent
        uint64_t start_seq = 0;  ///< last_seq() when it was sent
        Version version = 0;     ///< of the reply; 0: not known
    };
    /// True: contexts wait for the object, wake them.
    bool end_write(ObjectId object, WriteEnd&& end);

    /// Claims the object for a replay by this context. False: somebody else has it, writes are in flight, or nothing is left.
    bool claim(ObjectId object, Context* context, std::vector<ReplayItem>& items);
    /// One item is acknowledged by osd.
    void replayed(ObjectId object, uint32_t offset, bool removed, uint64_t user_seq, OsdNum osd, uint64_t acked_epoch,
        Version version);
    void release(ObjectId object);
    /// The replay waits for room; none of it is in flight. The object stays claimed, but a deletion may pass.
    void pause(ObjectId object);
    /// The end of a pause. wait: a deletion is in flight, pause again. replay: items are what is left to be sent. go: nothing is.
    Verdict resume(ObjectId object, Route route, std::vector<ReplayItem>& items);

    /// For a flush up to `cut`: asks where each object with such ranges goes.
    /// ready: OSDs whose SYNC would cover them; to_replay: objects to be sent again first. True: nothing up to cut is left.
    struct SyncPlan {
        std::set<OsdNum> ready;
        std::vector<ObjectId> to_replay;
        bool must_wait = false;  ///< someone else's replay, or no route at the moment
    };
    template <class RouteOf>
    bool plan_sync(uint64_t cut, RouteOf route_of, SyncPlan& plan) {
        std::lock_guard lock(mutex_);
        bool done = true;
        for (auto& [id, object] : objects_) {
            if (!covers(object, cut)) continue;
            done = false;
            if (object.replayer) {
                plan.must_wait = true;
                continue;
            }
            Route route = route_of(id);
            if (!route.osd || route.epoch == UINT64_MAX) plan.must_wait = true;
            else if (needs_replay(object, route)) plan.to_replay.push_back(id);
            else plan.ready.insert(route.osd);
        }
        return done;
    }
    /// Objects that this context should send again although nobody asks for them (connection lost, primary changed).
    template <class RouteOf>
    std::vector<ObjectId> stale_objects(RouteOf route_of) {
        std::lock_guard lock(mutex_);
        std::vector<ObjectId> list;
        for (auto& [id, object] : objects_) {
            if (object.replayer || (object.ranges.empty() && !object.removed)) continue;
            Route route = route_of(id);
            if (route.osd && route.epoch != UINT64_MAX && needs_replay(object, route)) list.push_back(id);
        }
        return list;
    }
    /// A number for a SYNC that is about to be sent: it covers what was acknowledged before.
    uint64_t next_seq() { return seq_.fetch_add(1) + 1; }
    /// The SYNC with that number has succeeded on osd over a connection of that epoch.
    void synced(OsdNum osd, uint64_t epoch, uint64_t sync_seq);

private:
    /// A compare-and-set that ended while other writes were in flight: one of those may be older, and be told of later.
    struct Compared {
        uint32_t offset, end;
        Version version;
        uint64_t end_seq;
    };
    struct Object {
        std::map<uint32_t, Range> ranges;
        bool removed = false;  ///< before the ranges: the object was deleted
        Range removal;
        uint32_t writes_in_flight = 0;
        Context* replayer = nullptr;
        bool paused = false;  ///< the replayer waits for room
        std::vector<Compared> compared;  ///< only while writes are in flight
    };
    static void list_items(Object& object, std::vector<ReplayItem>& items);
    static bool needs_replay(const Object& object, Route route);
    static bool covers(const Object& object, uint64_t cut);
    template <class IsOlder>
    void cut_out(Object& object, uint32_t offset, uint32_t end, IsOlder is_older);
    void add_range(Object& object, uint32_t offset, uint32_t end, const Range& whole, uint32_t whole_offset);
    void drop_range(const Range& range);
    void erase_if_clean(std::unordered_map<ObjectId, Object, ObjectIdHash>::iterator found);

    std::mutex mutex_;  // guards objects_, waited_ and the sums
    bool waited_ = false;
    std::unordered_map<ObjectId, Object, ObjectIdHash> objects_;
    std::atomic<uint64_t> object_count_{0};
    std::atomic<uint64_t> seq_{0};
    std::atomic<uint64_t> bytes_{0}, ops_{0};
};

}  // namespace vitastor::client

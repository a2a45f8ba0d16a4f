// SPDX-License-Identifier: GPL-2.0-or-later
#include "history.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <set>

namespace vitastor::test {

using wire::ImmediateCommit;

namespace {

struct Tracked {
    OracleObject now;                    ///< after every operation that was answered
    std::vector<OracleObject> possible;  ///< states that a crash may bring back, the newest last (== now)
    std::vector<OracleObject> maybe;     ///< with an operation that was not answered
    std::deque<TestOp*> flying;
    Version last_version = 0;
};

class History {
public:
    History(const HistoryShape& shape, const Steps& steps) : shape_(shape), steps_(steps), rig_(shape.seed), random_(shape.seed) {
        rig_.logger.print = getenv("VITASTOR_TRACE") != nullptr;
        rig_.options.block_size = shape.block_size;
        rig_.options.bitmap_granularity = shape.granularity;
        rig_.options.immediate_commit = shape.mode;
        rig_.options.disable_data_fsync = rig_.options.disable_meta_fsync = !shape.fsync;
        rig_.options.checksums = shape.checksums;
        rig_.options.checksums_in_memory = shape.sums_cache < 0;
        rig_.options.checksum_cache_bytes = static_cast<uint64_t>(std::max(shape.sums_cache, 0));
        rig_.options.atomic_write_size = shape.atomic_write_size;
        rig_.options.max_write_iodepth = shape.write_depth;
        oracle_.granules = rig_.granules();
        rig_.make_disks(shape.disk_size, shape.separate_meta ? shape.meta_size : 0);
        if (shape.discard) {
            rig_.options.discard_freed = DiscardFreed::on;
            rig_.options.min_discard_size = shape.block_size << shape.seed % 3;
            for (auto& [path, disk] : rig_.loop.disks) disk.can_discard = true;
        }
        for (auto& [path, disk] : rig_.loop.disks) disk.atomic_unit = std::max(4096u, shape.atomic_write_size);
        if (shape.atomic_write_size < 4096)
            for (auto& [path, disk] : rig_.loop.disks) disk.small_sectors_below = UINT64_MAX;
    }

    HistoryResult run() {
        if (shape_.small_log || shape_.near_wrap) {
            if (rig_.open() < 0) return finish();
            rig_.close();
            if (shape_.small_log) rig_.make_log_small();
            if (shape_.near_wrap) rig_.move_log_to_end();
        }
        rig_.loop.crash_at = shape_.crash_at;
        if (!open("first")) return finish();
        for (uint32_t i = 0; i < shape_.ballast && problem_.empty(); i++) write_ballast(i);
        if (shape_.ballast && problem_.empty()) {
            auto sync = rig_.simple(StoreOp::sync, {}, 0);
            rig_.run(*sync);
            if (sync->result == 0 && !rig_.loop.crashed) ballast_done_ = shape_.ballast;
        }
        for (const Step& step : steps_) {
            result_.steps_done++;
            while (flying_ >= shape_.depth) rig_.loop.run_once(0);
            if (rig_.loop.crashed && shape_.crash_at == UINT64_MAX) {
                settle();
                if (problem_.empty()) recover();
            }
            if (!problem_.empty() || rig_.loop.crashed) break;
            if (step.kind == Step::restart) {
                settle();
                if (!problem_.empty() || rig_.loop.crashed) continue;
                rig_.close();
                if (rig_.loop.crashed) continue;
                for (auto& [id, object] : objects_) synced(object);
                rig_.loop.crash_at = shape_.crash_at;
                if (!open("second")) break;
                compare_all("after a restart");
            } else if (step.kind == Step::forget) {
                settle();
                if (problem_.empty() && !rig_.loop.crashed) forget();
            } else if (step.kind == Step::idle) {
                settle();
                rig_.loop.drain();
            } else if (step.kind == Step::crash) {
                if (shape_.crash_at == UINT64_MAX) rig_.loop.crash_at = rig_.loop.io_count + step.count;
            } else {
                submit(step);
            }
        }
        settle();
        if (problem_.empty() && (rig_.loop.crashed || rig_.loop.crash_at != UINT64_MAX)) {
            if (!rig_.loop.crashed) rig_.loop.crash();
            recover();
            if (problem_.empty()) {  // a second time: recovery itself must have left a store that opens
                rig_.loop.crash();
                recover();
            }
        } else if (problem_.empty()) {
            compare_all("at the end");
        }
        return finish();
    }

private:
    /// All tombstones of both PGs go, with the next sync for good.
    void forget() {
        for (PgNum pg = 1; pg <= 2; pg++) {
            const int64_t forgotten = rig_.forget(1, pg, kNewestVersion);
            if (forgotten < 0 && !rig_.loop.crashed) fail("forgetting tombstones answered " + std::to_string(forgotten));
        }
        for (auto& [id, object] : objects_) {
            if (object.now.empty() || !object.now.back().tombstone) continue;
            if (rig_.loop.crashed) {
                object.maybe.push_back({});
            } else {
                object.now.clear();
                object.possible.push_back({});
            }
        }
    }

    HistoryResult finish() {
        settle();
        if (problem_.empty() && rig_.store && !rig_.loop.crashed && opened_) {
            // Blocks: what is allocated is exactly what versions refer to; checked through deletes.
            for (auto& [id, object] : objects_) {
                auto op = rig_.simple(StoreOp::del, id, object.last_version + 1);
                rig_.run(*op);
                if (op->result != 0 && !rig_.loop.crashed) fail("final delete answered " + std::to_string(op->result));
            }
            forget();
            auto sync = rig_.simple(StoreOp::sync, {}, 0);
            rig_.run(*sync);
            const StoreStats stats = rig_.store->stats();
            uint64_t kept = 0;  // ballast that is there
            for (const auto& space : rig_.store->space_by_inode()) kept += space.bytes / shape_.block_size;
            if (!rig_.loop.crashed && stats.tombstone_count) fail(std::to_string(stats.tombstone_count) + " tombstones are left");
            if (problem_.empty() && !rig_.loop.crashed && stats.free_blocks + kept != stats.total_blocks)
                fail("blocks are lost: " + std::to_string(stats.free_blocks) + " of " + std::to_string(stats.total_blocks) +
                     " free after deleting everything");
        }
        result_.ios = rig_.loop.io_count;
        const FakeDisk& disk = rig_.loop.disks[shape_.separate_meta ? "meta" : "data"];
        uint64_t log_pages = 0, tail[2] = {};
        memcpy(&log_pages, disk.current.data() + 80, 8);
        for (int i = 0; i < 2; i++) memcpy(&tail[i], disk.current.data() + 4096 * (i + 1) + 32, 8);
        const uint64_t start = shape_.near_wrap ? log_pages - 2 : 0;
        if (log_pages) result_.log_rounds = static_cast<double>(std::max({tail[0], tail[1], start}) - start) / static_cast<double>(log_pages);
        result_.problem = problem_;
        return result_;
    }

    void fail(const std::string& text) {
        if (problem_.empty()) problem_ = shape_.text() + ": " + text + " (I/O " + std::to_string(rig_.loop.io_count) + ")";
    }

    bool open(const char* which) {
        const int status = rig_.open();
        opened_ = status == 0;
        if (status == 0) {
            const StoreStats stats = rig_.store->stats();
            if (stats.log_sequence < reported_.log_sequence || (reported_.uuid && stats.uuid != reported_.uuid))
                fail("the log ends with write " + std::to_string(stats.log_sequence) + ", write " +
                     std::to_string(reported_.log_sequence) + " was durable");
            if (shape_.atomic_write_size < 4096)
                for (auto& [path, disk] : rig_.loop.disks) disk.small_sectors_below = UINT64_MAX;
            rig_.store->set_pool_pgs(1, 2, shape_.block_size);
            return true;
        }
        if (!rig_.loop.crashed) fail(std::string(which) + " open failed: " + rig_.store->error());
        return false;
    }

    void recover() {
        result_.crashes++;
        for (int attempt = 0;; attempt++) {
            rig_.close();
            rig_.loop.restart();
            if (random_.chance(40) && attempt < 3) rig_.loop.crash_at = rig_.loop.io_count + random_.below(8);
            if (open("recovery")) break;
            if (!rig_.loop.crashed) return;
        }
        rig_.loop.crash_at = UINT64_MAX;
        if (rig_.loop.crashed) {
            recover();
            return;
        }
        compare_all("after a crash");
        for (uint32_t i = 0; i < ballast_done_ && problem_.empty(); i++) {
            auto op = rig_.read(object_id(9, i, shape_.block_size), kNewestVersion, 0, rig_.granules());
            rig_.run(*op);
            if (op->result != op->len || read_granule(op->data, shape_.granularity) != 5000 + i)
                fail("ballast object " + std::to_string(i) + " is lost: " + std::to_string(op->result));
        }
    }

    void write_ballast(uint32_t number) {
        auto op = rig_.write(object_id(9, number, shape_.block_size), 1, 0, 1, 5000 + number);
        rig_.run(*op);
        if (op->result == op->len) {
            if (shape_.mode == ImmediateCommit::all || shape_.mode == ImmediateCommit::small) ballast_done_ = number + 1;
        } else if (op->result == -ENOSPC) {
            shape_.ballast = number;
        } else if (!rig_.loop.crashed) {
            fail("ballast write answered " + std::to_string(op->result));
        }
    }

    static void synced(Tracked& object) { object.possible.assign(1, object.now); }

    bool durable_at_once(const TestOp& op) const {
        if (!changed_) return false;  // a refusal, or nothing to do: says nothing about what was before
        if (shape_.mode == ImmediateCommit::all) return true;
        if (op.op == StoreOp::stabilize || op.op == StoreOp::rollback) return op.result == 0;
        if (shape_.mode == ImmediateCommit::none) return false;
        return op.result >= 0 && op.len < shape_.block_size;
    }

    void submit(const Step& step) {
        const uint32_t number = step.object % shape_.objects;
        const ObjectId id = object_id(1 + number % 2, number, shape_.block_size);
        Tracked& object = objects_[id];
        if (object.possible.empty()) object.possible.resize(1);
        std::unique_ptr<TestOp> plain = make_operation(rig_, step, id, object.now, flown_unstable(object), object.last_version, next_tag_);
        if (!plain) return;
        next_tag_ += rig_.granules() + 1;
        TestOp* op = plain.release();
        op->arg = this;
        op->then = [](TestOp* self) { static_cast<History*>(self->arg)->completed(self); };
        flying_++;
        result_.operations++;
        if (op->op == StoreOp::sync) {
            // It covers what is complete now.
            for (auto& [other, state] : objects_) sync_marks_[op].push_back({other, state.possible.size(), generation_[other]});
        } else {
            object.flying.push_back(op);
        }
        rig_.start(*op);
    }

    static bool flown_unstable(const Tracked& object) {
        for (const TestOp* op : object.flying)
            if (op->op == StoreOp::write) return true;
        return !object.now.empty() && !object.now.back().stable;
    }

    void completed(TestOp* op) {
        flying_--;
        if (!rig_.loop.crashed) reported_ = rig_.store->stats();
        std::unique_ptr<TestOp> owner(op);
        if (op->op == StoreOp::sync) {
            auto marks = std::move(sync_marks_[op]);
            sync_marks_.erase(op);
            if (op->result == 0) {
                for (auto& mark : marks) {
                    Tracked& object = objects_[mark.id];
                    if (generation_[mark.id] != mark.generation) continue;  // durable by other means meanwhile
                    object.possible.erase(object.possible.begin(), object.possible.begin() + static_cast<ptrdiff_t>(mark.count - 1));
                    generation_[mark.id]++;
                }
            } else if (!rig_.loop.crashed) {
                fail("sync answered " + std::to_string(op->result));
            }
            return;
        }
        Tracked& object = objects_[op->object];
        if (object.flying.empty() || object.flying.front() != op) {
            // Reads run side by side: only modifications must come in order.
            auto place = std::find(object.flying.begin(), object.flying.end(), op);
            for (auto before = object.flying.begin(); before != place; ++before)
                if ((*before)->op != StoreOp::read || op->op != StoreOp::read) fail("operations of an object out of order");
            object.flying.erase(place);
        } else {
            object.flying.pop_front();
        }
        if (op->op == StoreOp::read) {
            check_read(object.now, *op);
            return;
        }
        if (rig_.loop.crashed && op->result < 0) {
            // Not answered: it is there whole or not at all.
            if (object.maybe.empty()) {
                OracleObject next = object.now, half = object.now;
                if (oracle_.apply_first_half(half, *op)) object.maybe.push_back(half);
                if (oracle_.apply(next, *op) >= 0) object.maybe.push_back(next);
            }
            return;
        }
        OracleObject next = object.now;
        const int64_t expected = oracle_.apply(next, *op);
        if (op->result == -ENOSPC && expected >= 0) return;
        if (op->result != expected) {
            fail("operation " + std::to_string(static_cast<int>(op->op)) + " version " + std::to_string(op->wanted) +
                 " answered " + std::to_string(op->result) + ", expected " + std::to_string(expected) + "; object" +
                 rig_.describe(object.now));
            return;
        }
        changed_ = !(next == object.now);
        if (OracleObject half = object.now; oracle_.apply_first_half(half, *op)) object.possible.push_back(half);
        object.now = next;
        if (changed_) object.possible.push_back(next);
        if (durable_at_once(*op)) {
            synced(object);
            generation_[op->object]++;
        }
        if (op->result == -EEXIST && op->version != object.now.back().version) fail("EEXIST names a wrong version");
    }

    void check_read(const OracleObject& object, const TestOp& op) {
        if (rig_.loop.crashed && op.result < 0) return;
        const OracleVersion* found = nullptr;
        for (const auto& version : object)
            if (!version.tombstone && version.version <= op.wanted) found = &version;
        if (!found) {
            if (op.result != -ENOENT) fail("read of a missing version answered " + std::to_string(op.result));
            return;
        }
        if (op.result != op.len || op.version != found->version || op.bits != found->bitmap) {
            fail("read answered " + std::to_string(op.result) + " version " + std::to_string(op.version) + ", expected version " +
                 std::to_string(found->version) + "; object" + rig_.describe(object));
            return;
        }
        for (uint32_t i = 0; i < op.len / shape_.granularity; i++)
            if (read_granule(op.data + i * shape_.granularity, shape_.granularity) !=
                found->granules[op.offset / shape_.granularity + i])
                fail("read gave wrong data; object" + rig_.describe(object));
    }

    void settle() {
        while (flying_ > 0) rig_.loop.run_once(0);
    }

    /// Every object is in one of the states that it may be in; that becomes its state.
    void compare_all(const char* when) {
        std::map<ObjectId, std::vector<std::pair<Version, bool>>> listed;
        for (PgNum pg = 1; pg <= 2; pg++) {
            int64_t result = 0;
            const Listing listing = rig_.list(1, pg, &result);
            if (result) fail("listing answered " + std::to_string(result));
            for (const auto& entry : listing.unstable) listed[entry.object].push_back({entry.version, false});
            for (const auto& entry : listing.stable) listed[entry.object].push_back({entry.version, true});
            for (const auto& entry : listing.tombstones) listed[entry.object].push_back({entry.version, true});
        }
        for (auto& [id, object] : objects_) {
            bool broken = false;
            OracleObject found = rig_.inspect(id, &broken);
            if (rig_.loop.crashed) return;
            auto versions = listed[id];
            std::sort(versions.begin(), versions.end());
            if (versions.size() != found.size())
                fail(std::string(when) + " listing and reads differ: " + std::to_string(versions.size()) + " and" +
                     rig_.describe(found));
            for (size_t i = 0; i < found.size() && i < versions.size(); i++) found[i].stable = versions[i].second;
            if (broken) {
                fail(std::string(when) + " object " + std::to_string(id.stripe / shape_.block_size) + " is unreadable; was" +
                     rig_.describe(object.now));
                return;
            }
            if (!allowed(object, found)) {
                std::string text = std::string(when) + " object " + std::to_string(id.inode & 0xff) + ":" +
                                   std::to_string(id.stripe / shape_.block_size) + " is" + rig_.describe(found) + "; allowed:";
                for (const auto& state : object.possible) text += " {" + rig_.describe(state) + "}";
                for (const auto& state : object.maybe) text += " maybe {" + rig_.describe(state) + "}";
                fail(text);
                return;
            }
            object.now = found;
            object.maybe.clear();
            object.possible.assign(1, found);
            generation_[id]++;
        }
    }

    bool allowed(const Tracked& object, const OracleObject& found) const {
        for (const auto& state : object.possible)
            if (state == found) return true;
        for (const auto& state : object.maybe)
            if (state == found) return true;
        if (object.possible.size() + object.maybe.size() <= 2 && object.possible.size() <= 1) return false;
        // Several writes that were not synced yet: each granule may be as after any of them.
        std::vector<const OracleObject*> states;
        for (const auto& state : object.possible) states.push_back(&state);
        for (const auto& state : object.maybe) states.push_back(&state);
        for (const auto* base : states) {
            if (base->size() != found.size()) continue;
            bool fits = true;
            for (size_t i = 0; i < found.size() && fits; i++) {
                fits = found[i].version == (*base)[i].version && found[i].tombstone == (*base)[i].tombstone && found[i].stable == (*base)[i].stable &&
                       found[i].bitmap == (*base)[i].bitmap;
                for (size_t g = 0; g < found[i].granules.size() && fits; g++) {
                    bool any = false;
                    for (const auto* state : states)
                        for (const auto& version : *state) any = any || version.granules[g] == found[i].granules[g];
                    fits = any;
                }
            }
            if (fits) return true;
        }
        return false;
    }

    struct SyncMark {
        ObjectId id;
        size_t count;
        uint64_t generation;
    };

    HistoryShape shape_;
    const Steps& steps_;
    Rig rig_;
    Random random_;
    Oracle oracle_;
    std::map<ObjectId, Tracked> objects_;
    std::map<ObjectId, uint64_t> generation_;
    std::map<TestOp*, std::vector<SyncMark>> sync_marks_;
    uint32_t flying_ = 0;
    StoreStats reported_;  ///< the newest while it ran
    uint32_t next_tag_ = 1;
    uint32_t ballast_done_ = 0;
    bool changed_ = false;
    bool opened_ = false;
    std::string problem_;
    HistoryResult result_;
};

}  // namespace

HistoryResult run_history(const HistoryShape& shape, const Steps& steps) { return History(shape, steps).run(); }

}  // namespace vitastor::test

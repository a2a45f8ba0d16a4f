// SPDX-License-Identifier: GPL-2.0-or-later
#include "crash_run.hpp"

#include <algorithm>
#include <cstring>

#include "store/store_format.hpp"

namespace vitastor::test {

using wire::ImmediateCommit;

std::string CrashShape::text() const {
    char out[256];
    snprintf(out, sizeof(out), "mode=%d fsync=%d checksums=%d block=%u granule=%u atomic=%u separate=%d dirty=%d wrap=%d small=%d objects=%u discard=%d sums=%d",
             static_cast<int>(mode), fsync, checksums, block_size, granularity, atomic_write_size, separate_meta, dirty, near_wrap,
             small_log, objects, discard, sums_cache);
    return std::string(out) + (prepare.empty() ? "" : " prepare=" + to_text(prepare));
}

bool CrashShape::parse(const std::string& text, CrashShape& shape) {
    int numbers[8];
    const int read = sscanf(text.c_str(), "mode=%d fsync=%d checksums=%d block=%u granule=%u atomic=%u separate=%d dirty=%d wrap=%d small=%d objects=%u discard=%d sums=%d",
                            &numbers[0], &numbers[1], &numbers[2], &shape.block_size, &shape.granularity, &shape.atomic_write_size,
                            &numbers[3], &numbers[4], &numbers[5], &numbers[6], &shape.objects, &numbers[7], &shape.sums_cache);
    if (read < 12) return false;
    shape.mode = static_cast<ImmediateCommit>(numbers[0]);
    shape.fsync = numbers[1];
    shape.checksums = numbers[2];
    shape.separate_meta = numbers[3];
    shape.dirty = numbers[4];
    shape.near_wrap = numbers[5];
    shape.small_log = numbers[6];
    shape.discard = numbers[7];
    const size_t at = text.find(" prepare=");
    return at == std::string::npos || from_text(text.substr(at + 9), shape.prepare);
}

void CrashCount::add(const CrashCount& other) {
    sequences += other.sequences;
    points += other.points;
    sampled += other.sampled;
    images += other.images;
    second_images += other.second_images;
    refused += other.refused;
}

std::string CrashCount::text() const {
    return std::to_string(sequences) + " sequences, " + std::to_string(points) + " crash points (" + std::to_string(sampled) +
           " with sampled choices), " + std::to_string(images) + " different disks opened, " + std::to_string(second_images) +
           " of a second crash";
}

// ---------------------------------------------------------------- the start

CrashRun::CrashRun(const CrashShape& shape) : shape_(shape), runner_(1), trial_(2), second_(3) {
    for (Rig* rig : {&runner_, &trial_, &second_}) prepare_rig(*rig);
    oracle_.granules = runner_.granules();
    make_base();
    images_ = std::make_unique<CrashImages>(trial_.loop.disks, base_);
    const std::string meta = shape_.separate_meta ? "meta" : "data";
    uint64_t log_pages;
    memcpy(&log_pages, base_[meta].data() + offsetof(Superblock, log_pages), sizeof(log_pages));
    images_->ruin = {meta, kPageSize, (4 + log_pages) * kPageSize};
}

CrashRun::~CrashRun() = default;

void CrashRun::prepare_rig(Rig& rig) const {
    rig.options.block_size = shape_.block_size;
    rig.options.bitmap_granularity = shape_.granularity;
    rig.options.immediate_commit = shape_.mode;
    rig.options.checksums = shape_.checksums;
    rig.options.checksums_in_memory = shape_.sums_cache < 0;
    rig.options.checksum_cache_bytes = static_cast<uint64_t>(std::max(shape_.sums_cache, 0));
    rig.options.atomic_write_size = shape_.atomic_write_size;
    rig.options.disable_data_fsync = rig.options.disable_meta_fsync = !shape_.fsync;
    const uint64_t data = uint64_t{shape_.block_size} * 24;
    const uint64_t log = (shape_.granularity < 4096 ? 5 : 4) << 20;
    rig.make_disks(shape_.separate_meta ? data + (1 << 20) : data + log, shape_.separate_meta ? log : 0);
    // A crash is made from the trace, the disks of the rig itself need no cache.
    if (shape_.discard) {
        rig.options.discard_freed = DiscardFreed::on;
        rig.options.min_discard_size = shape_.block_size;
    }
    for (auto& [name, disk] : rig.loop.disks) {
        disk.is_volatile = false;
        disk.can_discard = shape_.discard;
        disk.atomic_unit = std::max(4096u, shape_.atomic_write_size);
    }
}

int CrashRun::open(Rig& rig) const {
    const int status = rig.open();
    if (status < 0) return status;
    if (shape_.atomic_write_size < 4096)
        for (auto& [path, disk] : rig.loop.disks) disk.small_sectors_below = UINT64_MAX;
    rig.store->set_pool_pgs(1, 2, shape_.block_size);
    return 0;
}

void CrashRun::make_base() {
    if (shape_.dirty) {
        Random noise(99);
        for (auto& [name, disk] : runner_.loop.disks)
            for (uint64_t at = 16384; at < disk.current.size(); at += 8) {
                const uint64_t word = noise.next();
                memcpy(disk.current.data() + at, &word, 8);
            }
    }
    VITASTOR_ASSERT(open(runner_) == 0);
    runner_.close();
    if (shape_.small_log) runner_.make_log_small();
    if (shape_.near_wrap) runner_.move_log_to_end();
    VITASTOR_ASSERT(open(runner_) == 0);
    base_objects_.assign(shape_.objects, {});
    for (Tracked& object : base_objects_) object.possible.resize(1);
    for (const Step& step : shape_.prepare) {
        Tracked& object = base_objects_[step.object % shape_.objects];
        auto op = make_operation(runner_, step, id(step.object % shape_.objects), object.now,
                                 !object.now.empty() && !object.now.back().stable, object.last_version, next_tag_);
        next_tag_ += oracle_.granules + 1;
        runner_.run(*op);
        if (step.kind == Step::sync || step.kind == Step::read) continue;
        const int64_t expected = oracle_.apply(object.now, *op);
        VITASTOR_ASSERT(op->result == expected);
    }
    for (Tracked& object : base_objects_) object.possible.assign(1, object.now);
    runner_.close();
    for (auto& [name, disk] : runner_.loop.disks) base_[name] = disk.current;
}

// ---------------------------------------------------------------- one sequence

void CrashRun::fail(const std::string& text) {
    if (problem_.empty()) problem_ = text;
}

bool CrashRun::durable_at_once(const TestOp& op, bool changed) const {
    if (shape_.mode == ImmediateCommit::all || op.op == StoreOp::stabilize) return true;
    if (op.op == StoreOp::rollback) return changed;
    if (shape_.mode == ImmediateCommit::none) return false;
    return op.len < shape_.block_size;
}

void CrashRun::take_snapshot() {
    Snapshot snapshot;
    for (const Tracked& object : objects_) {
        std::vector<OracleObject> states = object.possible;
        OracleObject state = object.now;  // what is in flight may be there, in its order
        for (const TestOp* op : object.flying) {
            OracleObject half = state;
            if (oracle_.apply_first_half(half, *op)) states.push_back(std::move(half));
            if (oracle_.apply(state, *op) >= 0) states.push_back(state);
        }
        snapshot.push_back(std::move(states));
    }
    trace_.push_back({DiskEvent::Kind::mark, snapshots_.size(), {}, 0, {}, 0});
    snapshots_.push_back(std::move(snapshot));
}

void CrashRun::completed(TestOp* op) {
    flying_--;
    std::unique_ptr<TestOp> owner(op);
    if (op->op == StoreOp::sync) {
        if (op->result != 0) fail("sync answered " + std::to_string(op->result));
        for (uint32_t i = 0; i < objects_.size(); i++) {
            Tracked& object = objects_[i];
            const uint64_t packed = op->tags[i];  // how many states were complete when it was submitted
            if (object.durable_count != op->bits[i]) continue;
            object.possible.erase(object.possible.begin(), object.possible.begin() + static_cast<ptrdiff_t>(packed - 1));
            object.durable_count++;
        }
        take_snapshot();
        return;
    }
    Tracked* found = nullptr;
    for (uint32_t i = 0; i < objects_.size(); i++)
        if (id(i) == op->object) found = &objects_[i];
    Tracked& object = *found;
    if (op->op == StoreOp::read) {
        const OracleVersion* version = nullptr;
        for (const auto& each : object.now)
            if (!each.tombstone && each.version <= op->wanted) version = &each;
        bool good = version ? op->result == op->len && op->version == version->version : op->result == -ENOENT;
        for (uint32_t i = 0; version && good && i < op->len / shape_.granularity; i++)
            good = read_granule(op->data + i * shape_.granularity, shape_.granularity) == version->granules[op->offset / shape_.granularity + i];
        if (!good) fail("read answered " + std::to_string(op->result) + "; object" + runner_.describe(object.now));
        return;
    }
    if (object.flying.empty() || object.flying.front() != op) fail("operations of an object out of order");
    std::erase(object.flying, op);
    OracleObject next = object.now;
    const int64_t expected = oracle_.apply(next, *op);
    if (op->result == -ENOSPC && expected >= 0) {
        count.refused++;
        take_snapshot();
        return;
    }
    if (op->result != expected) {
        fail("operation " + std::to_string(static_cast<int>(op->op)) + " answered " + std::to_string(op->result) + ", expected " +
             std::to_string(expected) + "; object" + runner_.describe(object.now));
        return;
    }
    const bool changed = !(next == object.now);
    if (OracleObject half = object.now; oracle_.apply_first_half(half, *op)) object.possible.push_back(std::move(half));
    object.now = next;
    object.possible.push_back(std::move(next));
    if (op->result >= 0 && durable_at_once(*op, changed)) {
        object.possible.erase(object.possible.begin(), object.possible.end() - 1);
        object.durable_count++;
    }
    take_snapshot();
}

std::string CrashRun::execute(const Steps& steps, uint32_t depth) {
    problem_.clear();
    objects_ = base_objects_;
    snapshots_.clear();
    trace_.clear();
    runner_.loop.trace = nullptr;
    if (open(runner_) < 0) return "the store does not open: " + runner_.store->error();
    runner_.loop.trace = &trace_;
    take_snapshot();
    for (const Step& step : steps) {
        while (flying_ >= depth) runner_.loop.run_once(0);
        if (!problem_.empty()) break;
        if (step.kind == Step::idle) {
            while (flying_ > 0 || !runner_.loop.idle()) runner_.loop.run_once(0);
            continue;
        }
        const uint32_t number = step.object % shape_.objects;
        Tracked& object = objects_[number];
        const bool unstable = object.flying.empty() ? !object.now.empty() && !object.now.back().stable
                                                    : object.flying.back()->op == StoreOp::write;
        std::unique_ptr<TestOp> owner = make_operation(runner_, step, id(number), object.now, unstable, object.last_version, next_tag_);
        if (!owner) continue;
        next_tag_ += oracle_.granules + 1;
        TestOp* op = owner.release();
        op->arg = this;
        op->then = [](TestOp* self) { static_cast<CrashRun*>(self->arg)->completed(self); };
        op->wanted = op->version;
        flying_++;
        if (op->op == StoreOp::sync) {
            op->bits.clear();
            for (const Tracked& each : objects_) {
                op->tags.push_back(static_cast<uint32_t>(each.possible.size()));
                op->bits.push_back(static_cast<uint8_t>(each.durable_count));
            }
        } else if (op->op != StoreOp::read) {
            object.flying.push_back(op);
            take_snapshot();
        }
        runner_.start(*op);
    }
    while (flying_ > 0) runner_.loop.run_once(0);
    for (int i = 0; i < 500 && shape_.discard && !runner_.loop.idle(); i++) runner_.loop.run_once(0);  // its timer
    uint64_t start = 0, log_pages = 1, tail[2] = {};
    if (problem_.empty()) {
        runner_.close();
        for (Tracked& object : objects_) object.possible.assign(1, object.now);  // closing keeps everything
        take_snapshot();
        const uint8_t* meta = runner_.loop.disks[shape_.separate_meta ? "meta" : "data"].current.data();
        const uint8_t* before = base_[shape_.separate_meta ? "meta" : "data"].data();
        memcpy(&log_pages, meta + 80, 8);
        for (int i = 0; i < 2; i++) memcpy(&tail[i], meta + kPageSize * (i + 1) + 32, 8);
        for (int i = 0; i < 2; i++) {
            uint64_t old;
            memcpy(&old, before + kPageSize * (i + 1) + 32, 8);
            start = std::max(start, old);
        }
        log_rounds = static_cast<double>(std::max(tail[0], tail[1]) - start) / static_cast<double>(log_pages);
    } else {
        runner_.close();
    }
    runner_.loop.trace = nullptr;
    return problem_;
}

std::string CrashRun::run(const Steps& steps, uint32_t depth, uint64_t seed, const CrashLimits& limits) {
    count.sequences++;
    runner_.loop.reseed(seed);
    random_ = Random(seed ^ 0xc4a5);
    next_tag_ = 100000;
    std::string problem = execute(steps, depth);
    for (const DiskEvent& event : trace_)
        if (event.kind == DiskEvent::Kind::write_issued)
            memcpy(runner_.loop.disks[event.disk].current.data() + event.offset, base_[event.disk].data() + event.offset, event.length);
    if (problem.empty()) problem = explore(*images_, trial_, trace_, limits, nullptr);
    count.points = images_->points + (second_images_ ? second_images_->points : 0);
    count.sampled = images_->sampled + (second_images_ ? second_images_->sampled : 0);
    count.second_images = second_images_ ? second_images_->images : 0;
    count.images = images_->images + count.second_images;
    return problem;
}

// ---------------------------------------------------------------- after the power failure

std::string CrashRun::explore(CrashImages& images, Rig& rig, const std::vector<DiskEvent>& trace, const CrashLimits& limits,
                              const Snapshot* promised) {
    std::string problem;
    images.walk(trace, shape_.fsync, limits, random_, [&](uint64_t mark) {
        const Snapshot& allowed = promised ? *promised : snapshots_[mark];
        rig.loop.reseed(random_.next());
        std::vector<DiskEvent> opening, later;
        rig.loop.trace = &opening;
        const int status = open(rig);
        rig.loop.trace = &later;
        if (status < 0) problem = "the store does not open: " + rig.store->error();
        else problem = check(rig, allowed, random_.chance(limits.thorough_percent));
        rig.close();
        rig.loop.trace = nullptr;
        images.touch(opening);
        images.touch(later);
        if (!problem.empty()) problem = images.where() + ": " + problem;
        const bool wrote = std::any_of(opening.begin(), opening.end(), [](const DiskEvent& event) {
            return event.kind == DiskEvent::Kind::write_issued;
        });
        if (problem.empty() && wrote && !promised) {  // and the power fails again while the store recovers
            DiskBytes start;
            images.copy_image(start);
            if (second_images_) second_images_->set_start(start);
            else second_images_ = std::make_unique<CrashImages>(second_.loop.disks, std::move(start));
            second_images_->ruin = images_->ruin;
            problem = explore(*second_images_, second_, opening, limits, &allowed);
            if (!problem.empty()) problem = images.where() + ", and then in the recovery: " + problem;
        }
        return problem.empty();
    });
    return problem;
}

/// The store is open after a power failure. Empty: all is as it was promised. thorough: it can also be used, and opened again.
std::string CrashRun::check(Rig& rig, const Snapshot& allowed, bool thorough) {
    std::vector<OracleObject> found;
    std::string problem = read_state(rig, found);
    if (!problem.empty()) return problem;
    for (uint32_t i = 0; i < shape_.objects; i++) {
        if (is_allowed(allowed[i], found[i])) continue;
        problem = "object " + std::to_string(i) + " is" + rig.describe(found[i]) + "; allowed:";
        for (const auto& state : allowed[i]) problem += " {" + rig.describe(state) + "}";
        return problem;
    }
    if (!thorough) return {};
    std::vector<OracleObject> again;
    rig.close();
    if (open(rig) < 0) return "opened once, but not again: " + rig.store->error();
    problem = read_state(rig, again);
    if (!problem.empty()) return "opened again: " + problem;
    if (again != found) return "opened again, it shows something else";
    return random_.chance(50) ? use(rig, found) : use_once(rig, found);
}

/// One operation, and open again: pages that the power failure left behind the end of the log must not be taken for what follows it.
std::string CrashRun::use_once(Rig& rig, std::vector<OracleObject>& found) {
    const auto number = static_cast<uint32_t>(random_.below(shape_.objects));
    OracleObject& object = found[number];
    Version last = object.empty() ? 0 : object.back().version;
    const Step step{Step::write_unstable, number, 3, 2, 1, false};
    auto op = make_operation(rig, step, id(number), object, true, last, 60000);
    rig.run(*op);
    const int64_t expected = oracle_.apply(object, *op);
    if (op->result != expected)
        return "after recovery, " + describe(step, shape_.granularity) + " answered " + std::to_string(op->result) + ", expected " +
               std::to_string(expected);
    rig.close();
    if (open(rig) < 0) return "used once after recovery, it does not open: " + rig.store->error();
    std::vector<OracleObject> seen;
    const std::string problem = read_state(rig, seen);
    if (!problem.empty()) return "used once after recovery: " + problem;
    return seen == found ? "" : "after recovery, one write changed something else or was not kept: object " + std::to_string(number) + " is" +
                                    rig.describe(seen[number]) + ", expected" + rig.describe(object);
}

/// All versions of all objects, from listings and reads; and the free blocks add up.
std::string CrashRun::read_state(Rig& rig, std::vector<OracleObject>& found) {
    std::map<ObjectId, std::vector<std::pair<Version, bool>>> listed;
    for (PgNum pg = 1; pg <= 2; pg++) {
        int64_t result = 0;
        const Listing listing = rig.list(1, pg, &result);
        if (result) return "listing answered " + std::to_string(result);
        for (const auto& entry : listing.unstable) listed[entry.object].push_back({entry.version, false});
        for (const auto& entry : listing.stable) listed[entry.object].push_back({entry.version, true});
        for (const auto& entry : listing.tombstones) listed[entry.object].push_back({entry.version, true});
    }
    found.clear();
    for (uint32_t i = 0; i < shape_.objects; i++) {
        bool broken = false;
        OracleObject object = rig.inspect(id(i), &broken);
        if (broken) return "object " + std::to_string(i) + " cannot be read";
        auto versions = std::move(listed[id(i)]);
        listed.erase(id(i));
        std::sort(versions.begin(), versions.end());
        if (versions.size() != object.size())
            return "object " + std::to_string(i) + ": " + std::to_string(versions.size()) + " versions listed, read" + rig.describe(object);
        for (size_t k = 0; k < object.size(); k++) {
            if (versions[k].first != object[k].version) return "object " + std::to_string(i) + ": listed and read versions differ";
            object[k].stable = versions[k].second;
        }
        found.push_back(std::move(object));
    }
    if (!listed.empty()) return "an object is listed that was never written";
    const StoreStats stats = rig.store->stats();
    uint64_t used = 0;
    for (const auto& space : rig.store->space_by_inode()) used += space.bytes / shape_.block_size;
    if (stats.free_blocks + used + stats.spare_blocks != stats.total_blocks)
        return std::to_string(used) + " blocks used, " + std::to_string(stats.spare_blocks) + " spare, " + std::to_string(stats.free_blocks) + " free, of " + std::to_string(stats.total_blocks);
    return {};
}

/// Writes to, stabilises and deletes what is there; nothing may be left over.
std::string CrashRun::use(Rig& rig, std::vector<OracleObject>& found) {
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < shape_.objects; i++) {
            OracleObject& object = found[i];
            Version last = object.empty() ? 0 : object.back().version;
            Steps steps{{Step::write_unstable, i, 3, 2, 1, false}, {Step::stabilize, i, 0, 0, -1, false},
                        {Step::write_stable, i, 1, 1, 1, true},    {Step::write_stable, i, 0, 4, 1, false}};
            for (const Step& step : steps) {
                auto op = make_operation(rig, step, id(i), object, true, last, 50000 + i * 100);
                rig.run(*op);
                const int64_t expected = oracle_.apply(object, *op);
                if (op->result != expected)
                    return "after recovery, " + describe(step, shape_.granularity) + " answered " + std::to_string(op->result) +
                           ", expected " + std::to_string(expected);
            }
        }
        if (round == 1) break;
        std::vector<OracleObject> seen;
        std::string problem = read_state(rig, seen);
        if (!problem.empty()) return "used after recovery: " + problem;
        if (seen != found) return "after recovery, writes were not kept";
        rig.close();
        if (open(rig) < 0) return "used after recovery, it does not open: " + rig.store->error();
    }
    for (uint32_t i = 0; i < shape_.objects; i++) {
        auto op = rig.simple(StoreOp::del, id(i), found[i].back().version + 1);
        rig.run(*op);
        if (op->result != 0) return "after recovery, delete answered " + std::to_string(op->result);
    }
    auto sync = rig.simple(StoreOp::sync, {}, 0);
    rig.run(*sync);
    const StoreStats stats = rig.store->stats();
    if (stats.free_blocks != stats.total_blocks)
        return "everything deleted, but only " + std::to_string(stats.free_blocks) + " of " + std::to_string(stats.total_blocks) + " blocks are free";
    return {};
}

/// One of the states; or, where nothing was synced (mode none), each granule as after any of the writes.
bool CrashRun::is_allowed(const std::vector<OracleObject>& states, const OracleObject& found) const {
    for (const auto& state : states)
        if (state == found) return true;
    if (shape_.mode != ImmediateCommit::none || states.size() < 2) return false;
    for (const auto& base : states) {
        bool fits = base.size() == found.size();
        for (size_t i = 0; i < found.size() && fits; i++) {
            fits = found[i].version == base[i].version && found[i].tombstone == base[i].tombstone && found[i].stable == base[i].stable && found[i].bitmap == base[i].bitmap;
            for (size_t g = 0; g < found[i].granules.size() && fits; g++) {
                fits = false;
                for (const auto& state : states)
                    for (const auto& version : state) fits = fits || version.granules[g] == found[i].granules[g];
            }
        }
        if (fits) return true;
    }
    return false;
}

}  // namespace vitastor::test

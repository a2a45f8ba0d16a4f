// SPDX-License-Identifier: GPL-2.0-or-later
// What a history is made of: sizes and options from a seed, its steps, and both as text.
#include <algorithm>

#include "history.hpp"
#include "store/geometry.hpp"

namespace vitastor::test {

using wire::ImmediateCommit;

namespace {

constexpr ImmediateCommit kModes[] = {ImmediateCommit::all, ImmediateCommit::small, ImmediateCommit::none};

/// The smallest area with that many blocks; of the data or (data given) of the metadata for it.
uint64_t smallest_area(const HistoryShape& shape, uint64_t blocks, uint64_t data_bytes) {
    StoreOptions options;
    options.data_device = "data";
    if (shape.separate_meta) options.meta_device = "meta";
    options.block_size = shape.block_size;
    options.bitmap_granularity = shape.granularity;
    options.checksums = shape.checksums;
    const auto enough = [&](uint64_t pages) {
        Geometry geometry = check_geometry(options).value();
        const uint64_t bytes = pages * 4096;
        return lay_out(geometry, options, data_bytes ? data_bytes : bytes, data_bytes ? bytes : uint64_t{1} << 40).ok() &&
               geometry.block_count >= blocks;
    };
    uint64_t low = 1, high = uint64_t{1} << 20;
    while (low < high) {
        const uint64_t middle = (low + high) / 2;
        if (enough(middle)) high = middle;
        else low = middle + 1;
    }
    return low * 4096;
}

}  // namespace

HistoryShape HistoryShape::random(uint64_t seed) {
    Random random(seed ^ 0x5eed);
    HistoryShape shape;
    shape.seed = seed;
    shape.steps = 20 + static_cast<uint32_t>(random.below(400));
    shape.depth = 1 + static_cast<uint32_t>(random.below(random.chance(50) ? 4 : 40));
    shape.objects = 1 + static_cast<uint32_t>(random.below(12));
    shape.replicated_only = random.chance(40);
    constexpr uint32_t kBlocks[] = {32768, 131072, 65536, 4096};
    shape.block_size = kBlocks[random.below(4)];
    shape.granularity = shape.block_size == 4096 ? 512 : random.chance(20) ? shape.block_size / 8 : 4096;
    shape.mode = kModes[random.below(3)];
    shape.fsync = random.chance(60);
    shape.checksums = random.chance(75);
    shape.separate_meta = random.chance(25);
    shape.atomic_write_size = random.chance(20) ? 512 : random.chance(15) ? 16384 : 4096;
    shape.write_depth = random.chance(30) ? 1 + static_cast<uint32_t>(random.below(4)) : 128;
    shape.ballast = random.chance(20) ? 200 : 0;
    shape.disk_size = 5 << 20;
    if (shape.separate_meta || shape.block_size > 65536) shape.disk_size = 8 << 20;
    shape.small_log = shape.ballast == 0 && random.chance(20);
    if (shape.small_log && random.chance(70)) {  // few entries fill a page: the cleaner goes round
        shape.block_size = 65536 << random.below(2);
        shape.granularity = 512;
        shape.disk_size = 9 << 20;
        shape.steps += 400;
    }
    shape.near_wrap = random.chance(30);
    shape.discard = random.chance(40);
    Random cache(seed ^ 0x5a5);
    if (cache.chance(35)) shape.sums_cache = cache.chance(50) ? 0 : static_cast<int>(cache.below(6000));
    return shape;
}

HistoryShape HistoryShape::at_border(uint64_t seed) {
    HistoryShape shape = random(seed);
    Random random(seed ^ 0xb04de4);
    shape.ballast = 0;
    shape.small_log = false;
    if (random.chance(30)) {  // few entries fill a batch of pages
        shape.block_size = 131072;
        shape.granularity = 512;
    }
    // Blocks: the fewest, and around the 64 slots of a group and the 64 bits of a word of the allocator.
    constexpr uint64_t kCounts[] = {8, 9, 63, 64, 65, 127, 128, 129};
    uint64_t blocks = kCounts[random.below(shape.block_size > 65536 ? 5 : 8)];
    if (shape.block_size == 4096 && random.chance(30)) blocks = 8192 + random.below(3);  // a slab of the index is full
    shape.disk_size = smallest_area(shape, blocks, 0);
    if (shape.separate_meta) {
        shape.meta_size = smallest_area(shape, blocks, shape.disk_size);
        const uint64_t pages = (shape.meta_size - kLogStart) / 4096;
        if (random.chance(60)) shape.meta_size += ((pages + 127) / 64 * 64 - 1 + random.below(3) - pages) * 4096;  // around a batch
    }
    if (random.chance(40)) shape.disk_size += 4096;
    else if (random.chance(20) && blocks > 8) shape.disk_size -= 4096;
    if (blocks > 8000) {
        shape.ballast = 8188;
        shape.mode = ImmediateCommit::small;
        shape.fsync = false;
    }
    shape.objects = static_cast<uint32_t>(std::min<uint64_t>(blocks + 2, 8 + random.below(64)));
    return shape;
}

std::string HistoryShape::text() const {
    char text[512];
    snprintf(text, sizeof(text),
             "seed=%llu steps=%u depth=%u objects=%u crash_at=%lld restarts=%d replicated=%d ballast=%u block=%u granule=%u mode=%d "
             "fsync=%d checksums=%d separate=%d atomic=%u write_depth=%u disk=%llu meta=%llu small=%d wrap=%d discard=%d sums=%d",
             static_cast<unsigned long long>(seed), steps, depth, objects, static_cast<long long>(crash_at), restarts,
             replicated_only, ballast, block_size, granularity, static_cast<int>(mode), fsync, checksums, separate_meta,
             atomic_write_size, write_depth, static_cast<unsigned long long>(disk_size), static_cast<unsigned long long>(meta_size),
             small_log, near_wrap, discard, sums_cache);
    return text;
}

bool HistoryShape::parse(const std::string& text, HistoryShape& shape) {
    unsigned long long seed, disk, meta;
    long long crash;
    int flags[9];
    const int read = sscanf(
        text.c_str(),
        "seed=%llu steps=%u depth=%u objects=%u crash_at=%lld restarts=%d replicated=%d ballast=%u block=%u granule=%u mode=%d "
        "fsync=%d checksums=%d separate=%d atomic=%u write_depth=%u disk=%llu meta=%llu small=%d wrap=%d discard=%d sums=%d",
        &seed, &shape.steps, &shape.depth, &shape.objects, &crash, &flags[0], &flags[1], &shape.ballast, &shape.block_size,
        &shape.granularity, &flags[2], &flags[3], &flags[4], &flags[5], &shape.atomic_write_size, &shape.write_depth, &disk, &meta,
        &flags[6], &flags[7], &flags[8], &shape.sums_cache);
    if (read < 21) return false;
    shape.seed = seed;
    shape.crash_at = static_cast<uint64_t>(crash);
    shape.restarts = flags[0];
    shape.replicated_only = flags[1];
    shape.mode = static_cast<ImmediateCommit>(flags[2]);
    shape.fsync = flags[3];
    shape.checksums = flags[4];
    shape.separate_meta = flags[5];
    shape.disk_size = disk;
    shape.meta_size = meta;
    shape.small_log = flags[6];
    shape.near_wrap = flags[7];
    shape.discard = flags[8];
    return true;
}

Steps HistoryShape::generate() const {
    Random random(seed);
    const uint32_t granules = block_size / granularity;
    Steps all;
    for (uint32_t i = 0; i < steps; i++) {
        Step step;
        step.object = static_cast<uint32_t>(random.below(objects));
        if (restarts && random.chance(1)) {
            step.kind = random.chance(50) ? Step::restart : Step::crash;
            step.count = random.chance(50) ? 0 : static_cast<uint32_t>(random.below(20));
            all.push_back(step);
            continue;
        }
        if (random.chance(1)) {
            step.kind = Step::forget;
            all.push_back(step);
            continue;
        }
        if (random.chance(2)) {
            step.kind = Step::idle;
            all.push_back(step);
            continue;
        }
        const uint64_t kind = random.below(100);
        step.first = static_cast<uint32_t>(random.below(granules));
        if (kind < 60) {
            const uint64_t form = random.below(10);
            step.count = 1;
            if (form == 0) step.count = 0;
            else if (form == 1) step.first = 0, step.count = granules;
            else if (form < 5) step.count = 1 + static_cast<uint32_t>(random.below(granules - step.first));
            step.version = 1 + static_cast<int32_t>(random.below(3));
            if (random.chance(5)) step.version -= 4;  // often not newer
            if (random.chance(3)) step.version += 65536;
            step.kind = replicated_only ? Step::write_stable : kind < 25 ? Step::write_fitting : Step::write_unstable;
            if (step.kind == Step::write_unstable && random.chance(50)) step.kind = Step::write_settling;
            if (kind == 24) step.kind = Step::write_stable;  // over an unstable one: refused
            step.flag = random.chance(60);
        } else if (kind < 68) {
            step.kind = kind < 64 ? Step::bury : Step::del;
            step.flag = random.chance(50);
        } else if (kind < 83) {
            step.kind = kind < 78 ? Step::stabilize : Step::rollback;
            step.version = random.chance(10) ? -2 : random.chance(30) ? -1 : static_cast<int32_t>(random.below(6));
        } else if (kind < 87) {
            step.kind = Step::sync;
        } else {
            step.kind = Step::read;
            step.count = 1 + static_cast<uint32_t>(random.below(granules - step.first));
            step.version = random.chance(60) ? -1 : static_cast<int32_t>(random.below(6));
        }
        all.push_back(step);
    }
    return all;
}

bool parse_history(const std::string& text, HistoryShape& shape, Steps& steps) {
    const size_t at = text.find(" | ");
    if (!HistoryShape::parse(text.substr(0, at), shape)) return false;
    if (at != std::string::npos) return from_text(text.substr(at + 3), steps);
    steps = shape.generate();
    return true;
}

std::string explain(HistoryShape shape, const std::string& problem, const Steps* given) {
    std::string found = problem;
    uint64_t reached = 0;
    const auto fails = [&](const HistoryShape& tried, const Steps& steps) {
        const HistoryResult result = run_history(tried, steps);
        if (!result.problem.empty()) {
            found = result.problem;
            reached = result.steps_done;
        }
        return !result.problem.empty();
    };
    Steps steps = given ? *given : shape.generate();
    if (shape.crash_at != UINT64_MAX) {  // as a step, so that steps can be left out before it
        HistoryShape tried = shape;
        Steps with = steps;
        tried.crash_at = UINT64_MAX;
        with.insert(with.begin(), Step{Step::crash, 0, 0, static_cast<uint32_t>(shape.crash_at), 0, false});
        if (fails(tried, with)) {
            shape = tried;
            steps = with;
        }
    }
    // Nothing after the failure matters. It is noticed late, often by a restart: first whole parts are left out, then single steps.
    if (fails(shape, steps)) steps.resize(std::min<size_t>(steps.size(), reached));
    const auto simpler = [&](auto change) {
        HistoryShape tried = shape;
        change(tried);
        if (fails(tried, steps)) shape = tried;
    };
    steps = shrink(steps, 1500, [&](const Steps& tried) { return fails(shape, tried); });
    simpler([](HistoryShape& tried) { tried.depth = 1; });
    simpler([](HistoryShape& tried) { tried.ballast = 0; });
    simpler([](HistoryShape& tried) { tried.write_depth = 128; });
    simpler([](HistoryShape& tried) { tried.separate_meta = false; });
    simpler([](HistoryShape& tried) { tried.near_wrap = tried.small_log = false; });
    simpler([](HistoryShape& tried) { tried.fsync = false; });
    simpler([](HistoryShape& tried) { tried.discard = false; });
    simpler([](HistoryShape& tried) { tried.sums_cache = -1; });
    simpler([](HistoryShape& tried) { tried.mode = ImmediateCommit::all; });
    simpler([](HistoryShape& tried) { tried.atomic_write_size = 4096; });
    steps = shrink(steps, 300, [&](const Steps& tried) { return fails(shape, tried); });
    std::string text = found + "\n  " + std::to_string(steps.size()) + " steps are enough, " + std::to_string(shape.depth) + " at a time:\n";
    for (const Step& step : steps) text += "    " + describe(step, shape.granularity) + "\n";
    return text + "  repeat: VITASTOR_HISTORY='" + shape.text() + " | " + to_text(steps) +
           "' bin/store_model_test -tc='one history again'";
}

}  // namespace vitastor::test

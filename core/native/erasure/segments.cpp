// SPDX-License-Identifier: GPL-2.0-or-later
#include "erasure/segments.hpp"

#include <algorithm>
#include <tuple>

namespace vitastor::erasure {

namespace {
constexpr uint64_t kScratchAlign = 4096;

/// Calls visit(role, begin, end) for each run of adjacent segments in which a role is a member.
template <class Visit>
void visit_runs(const Segments& segments, const SegmentRoles& roles, Visit visit) {
    RoleSet any;
    for (uint32_t s = 0; s < segments.count; s++) any |= roles[s];
    any.for_each([&](uint32_t role) {
        for (uint32_t s = 0; s < segments.count; s++) {
            if (!roles[s].has(role)) continue;
            const uint32_t begin = segments.list[s].begin;
            while (s + 1 < segments.count && roles[s + 1].has(role)) s++;
            visit(role, begin, segments.list[s].end);
        }
    });
}
}  // namespace

uint32_t Plan::chunks_read() const {
    return static_cast<uint32_t>(std::count_if(reads.begin(), reads.end(), [](const ChunkRange& read) { return read.len > 0; }));
}

ChunkRange touched_range(const StripeShape& shape, uint64_t offset, uint32_t len, uint32_t role) {
    const uint64_t start = uint64_t{role} * shape.chunk_bytes;
    const uint64_t begin = std::max(offset, start);
    const uint64_t end = std::min(offset + len, start + shape.chunk_bytes);
    if (role >= shape.data || begin >= end) return {role, 0, 0};
    return {role, static_cast<uint32_t>(begin - start), static_cast<uint32_t>(end - begin)};
}

Segments Segments::cut(const StripeShape& shape, uint64_t offset, uint32_t len, bool whole) {
    Segments result;
    std::array<uint32_t, 4> cuts{0, 0, shape.chunk_bytes, shape.chunk_bytes};
    uint32_t first = 0, last = 0;
    if (len > 0) {
        first = static_cast<uint32_t>(offset / shape.chunk_bytes);
        last = static_cast<uint32_t>((offset + len - 1) / shape.chunk_bytes);
        const ChunkRange head = touched_range(shape, offset, len, first), tail = touched_range(shape, offset, len, last);
        const bool one = first == last;
        cuts = {one && !whole ? head.offset : 0, head.offset, tail.offset + tail.len,
                one && !whole ? tail.offset + tail.len : shape.chunk_bytes};
        std::sort(cuts.begin(), cuts.end());
    } else if (!whole) {
        return result;
    }
    for (size_t i = 0; i + 1 < cuts.size(); i++) {
        if (cuts[i] == cuts[i + 1]) continue;
        Segment& segment = result.list[result.count++];
        segment = {cuts[i], cuts[i + 1], {}};
        for (uint32_t role = first; len > 0 && role <= last; role++) {
            const ChunkRange range = touched_range(shape, offset, len, role);
            if (range.offset <= segment.begin && segment.end <= range.offset + range.len) segment.touched.add(role);
        }
    }
    return result;
}

bool valid_range(const StripeShape& shape, uint64_t offset, uint32_t len) {
    const uint64_t span = shape.span_bytes();
    return offset <= span && len <= span - offset && offset % shape.granularity == 0 && len % shape.granularity == 0;
}

void reset_plan(Plan& plan, const StripeShape& shape, uint64_t offset, uint32_t len, bool is_write) {
    plan.shape = shape;
    plan.offset = offset;
    plan.len = len;
    plan.is_write = is_write;
    plan.reads.clear();
    plan.places.clear();
    plan.steps.clear();
    plan.stores.clear();
    plan.scratch_bytes = 0;
    plan.bitmaps_lost = {};
    plan.bitmap_sources = {};
    plan.bitmaps_known = {};
    plan.differences = {};
}

RoleSet pick_roles(const RoleSet& readable, uint32_t count, std::initializer_list<RoleSet> preferences) {
    RoleSet picked;
    uint32_t left = count;
    for (const RoleSet& preferred : preferences) {
        ((preferred & readable) - picked).for_each([&](uint32_t role) {
            if (left == 0) return;
            picked.add(role);
            left--;
        });
    }
    (readable - picked).for_each([&](uint32_t role) {
        if (left == 0) return;
        picked.add(role);
        left--;
    });
    return picked;
}

void add_reads(Plan& plan, const Segments& segments, const SegmentRoles& roles) {
    visit_runs(segments, roles, [&plan](uint32_t role, uint32_t begin, uint32_t end) {
        plan.reads.push_back({role, begin, end - begin});
    });
}

void add_scratch(Plan& plan, const Segments& segments, const SegmentRoles& roles) {
    visit_runs(segments, roles, [&plan](uint32_t role, uint32_t begin, uint32_t end) {
        plan.places.push_back({role, begin, end - begin, Holds::scratch, plan.scratch_bytes});
        plan.scratch_bytes += (end - begin + kScratchAlign - 1) / kScratchAlign * kScratchAlign;
    });
}

void add_client(Plan& plan, Holds holds) {
    if (plan.len == 0) return;
    uint64_t at = 0;
    for (uint32_t role = static_cast<uint32_t>(plan.offset / plan.shape.chunk_bytes); at < plan.len; role++) {
        const ChunkRange range = touched_range(plan.shape, plan.offset, plan.len, role);
        plan.places.push_back({role, range.offset, range.len, holds, at});
        at += range.len;
    }
}

void add_bitmap_reads(Plan& plan, const RoleSet& roles) {
    (roles - roles_read(plan)).for_each([&plan](uint32_t role) { plan.reads.push_back({role, 0, 0}); });
}

RoleSet roles_read(const Plan& plan) {
    RoleSet result;
    for (const ChunkRange& read : plan.reads) result.add(read.role);
    return result;
}

void finish_plan(Plan& plan) {
    std::sort(plan.reads.begin(), plan.reads.end(), [](const ChunkRange& a, const ChunkRange& b) {
        return std::tie(a.role, a.offset) < std::tie(b.role, b.offset);
    });
    std::sort(plan.places.begin(), plan.places.end(), [](const Place& a, const Place& b) {
        return std::tie(a.role, a.offset, a.at) < std::tie(b.role, b.offset, b.at);
    });
}

}  // namespace vitastor::erasure

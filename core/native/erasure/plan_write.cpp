// SPDX-License-Identifier: GPL-2.0-or-later
// Writes. New parity needs what the unwritten data chunks add to it. There are three ways to know that, and no cheaper one: read
// the unwritten data chunks (rest), read the old content of the written ones and of the parity (differences), or read any k
// chunks, which is everything (whole). Segments choose for themselves, the sum decides. Where the holders of the parity can add a
// difference themselves, their chunks need not be read (added).
#include <algorithm>
#include <array>
#include <cerrno>
#include <tuple>

#include "erasure/segments.hpp"

namespace vitastor::erasure {

namespace {

enum class Way : uint8_t { nothing, rest, differences, added, whole };

struct Option {
    Way way = Way::nothing;
    RoleSet reads;
};

/// What one segment needs, and how it may get it.
struct Part {
    RoleSet parity;  ///< to compute
    RoleSet copies;  ///< data chunks not written here whose old content is needed
    std::array<Option, 4> options;
    uint32_t count = 0;
};

/// Fewest chunks read, then fewest bytes, then fewest from other OSDs, then fewest requests.
using Cost = std::tuple<uint32_t, uint64_t, uint32_t, uint32_t>;

struct Planner {
    const StripeShape& shape;
    const WriteRequest& request;
    Plan& plan;
    RoleSet readable, writable, rebuild, own, adders;
    Segments segments;
    std::array<Part, kSegmentsMax> parts;

    bool list_options(const Segment& segment, Part& part) {
        if (part.parity.empty() && part.copies.empty()) {
            part.options[part.count++] = {Way::nothing, {}};
            return true;
        }
        const RoleSet untouched = shape.data_roles() - segment.touched;
        if (request.absent) {
            part.options[part.count++] = {Way::rest, {}};
            return true;
        }
        if (!part.parity.empty() && readable.contains(untouched)) part.options[part.count++] = {Way::rest, untouched};
        RoleSet changed = part.copies | part.parity;
        if (!part.parity.empty()) changed |= segment.touched;
        if (readable.contains(changed)) part.options[part.count++] = {Way::differences, changed};
        // One chunk written: what the parity's holders get is of one piece.
        if (!adders.empty() && segments.count == 1 && segment.touched.count() == 1) {
            const RoleSet needed = segment.touched | part.copies | (part.parity - adders);
            if (readable.contains(needed)) part.options[part.count++] = {Way::added, needed};
        }
        if (readable.count() >= shape.data) {
            part.options[part.count++] = {Way::whole, pick_roles(readable, shape.data, {untouched, own, shape.data_roles()})};
        }
        return part.count > 0;
    }

    Cost cost_of(const std::array<uint32_t, kSegmentsMax>& choice, const RoleSet& bitmaps) const {
        uint32_t chunks = 0, remote = 0;
        uint64_t bytes = 0;
        RoleSet before, any;
        for (uint32_t s = 0; s < segments.count; s++) {
            const RoleSet& reads = parts[s].options[choice[s]].reads;
            chunks += (reads - before).count();
            remote += (reads - before - own).count();
            bytes += uint64_t{reads.count()} * segments.list[s].len();
            before = reads;
            any |= reads;
        }
        return {chunks, bytes, remote, (bitmaps - any).count()};
    }

    /// At most 27 combinations, one segment: at most 4.
    std::array<uint32_t, kSegmentsMax> choose(const RoleSet& bitmaps) const {
        std::array<uint32_t, kSegmentsMax> choice{}, best{};
        Cost best_cost{};
        for (bool first = true;; first = false) {
            const Cost cost = cost_of(choice, bitmaps);
            if (first || cost < best_cost) {
                best = choice;
                best_cost = cost;
            }
            uint32_t s = 0;
            while (s < segments.count && ++choice[s] == parts[s].count) choice[s++] = 0;
            if (s >= segments.count) return best;
        }
    }

    /// scratch: chunks that the segment keeps there.
    void add_steps(const Segment& segment, const Part& part, const Option& option, RoleSet& scratch) {
        const RoleSet untouched = shape.data_roles() - segment.touched;
        auto add = [&](StepKind kind, const RoleSet& inputs, const RoleSet& outputs) {
            if (!outputs.empty()) plan.steps.push_back({kind, segment.begin, segment.len(), inputs, outputs});
        };
        scratch = option.reads | part.parity;
        if (option.way == Way::rest) {
            add(StepKind::encode, shape.data_roles(), part.parity);
        } else if (option.way == Way::differences) {
            if (!segment.touched.empty()) add(StepKind::differ, segment.touched, part.parity);
        } else if (option.way == Way::added) {
            plan.differences = part.parity & adders;
            add(StepKind::differ, segment.touched, part.parity);
        } else if (option.way == Way::whole) {
            const bool encode = !part.parity.empty() && !segment.touched.empty();
            const RoleSet needed = encode ? untouched : part.copies | part.parity;
            add(StepKind::rebuild, option.reads, needed - option.reads);
            scratch |= needed;
            if (encode) add(StepKind::encode, shape.data_roles(), part.parity);
        }
    }

    /// Data chunks whose old bitmap the new ones depend on: all that are not written as a whole.
    bool plan_bitmaps(RoleSet& bitmaps) {
        if (request.absent) return true;
        if (request.bitmaps_known) {
            plan.bitmaps_known = shape.data_roles();
            return true;
        }
        bitmaps = shape.data_roles();
        for (uint32_t role = 0; role < shape.data; role++) {
            if (touched_range(shape, request.offset, request.len, role).len == shape.chunk_bytes) bitmaps.remove(role);
        }
        plan.bitmaps_lost = bitmaps - readable;
        bitmaps = bitmaps & readable;
        if (plan.bitmaps_lost.empty()) return true;
        if (readable.count() < shape.data) return false;
        plan.bitmap_sources = pick_roles(readable, shape.data, {bitmaps, own, shape.data_roles()});
        bitmaps |= plan.bitmap_sources;
        return true;
    }

    void add_stores(uint32_t first, uint32_t last) {
        writable.for_each([&](uint32_t role) {
            if (rebuild.has(role)) return plan.stores.push_back({role, 0, shape.chunk_bytes});
            if (role < shape.data) return plan.stores.push_back(touched_range(shape, request.offset, request.len, role));
            plan.stores.push_back({role, first, last - first});
        });
    }

    int run() {
        reset_plan(plan, shape, request.offset, request.len, true);
        const RoleSet all = RoleSet::range(0, shape.roles());
        writable = request.writable & all;
        if (!request.absent) {
            readable = request.readable & all;
            rebuild = writable & (request.rebuild | (all - readable));
        }
        own = request.own < shape.roles() ? RoleSet::of(request.own) : RoleSet();
        if (rebuild.empty() && !request.absent) adders = (request.takes_difference & shape.parity_roles() & writable) - own;
        segments = Segments::cut(shape, request.offset, request.len, !rebuild.empty());
        // A parity chunk is written in one piece, from the first to the last byte that changes.
        uint32_t first = 0, last = 0;
        for (uint32_t s = 0; s < segments.count; s++) {
            if (segments.list[s].touched.empty()) continue;
            if (last == 0) first = segments.list[s].begin;
            last = segments.list[s].end;
        }
        RoleSet bitmaps;
        if (!plan_bitmaps(bitmaps)) return -EIO;
        for (uint32_t s = 0; s < segments.count; s++) {
            const Segment& segment = segments.list[s];
            const bool changes = segment.begin >= first && segment.end <= last;
            parts[s].parity = shape.parity_roles() & (changes ? writable : rebuild);
            parts[s].copies = (shape.data_roles() & rebuild) - segment.touched;
            if (!list_options(segment, parts[s])) return -EIO;
        }
        const std::array<uint32_t, kSegmentsMax> choice = segments.count ? choose(bitmaps) : std::array<uint32_t, kSegmentsMax>{};
        SegmentRoles reads, scratch;
        for (uint32_t s = 0; s < segments.count; s++) {
            const Option& option = parts[s].options[choice[s]];
            reads[s] = option.reads;
            add_steps(segments.list[s], parts[s], option, scratch[s]);
        }
        add_client(plan, Holds::payload);
        add_scratch(plan, segments, scratch);
        add_reads(plan, segments, reads);
        add_bitmap_reads(plan, bitmaps);
        // Somebody must tell the version.
        if (plan.reads.empty() && !readable.empty() && !request.bitmaps_known) add_bitmap_reads(plan, pick_roles(readable, 1, {own}));
        add_stores(first, last);
        finish_plan(plan);
        return 0;
    }
};

}  // namespace

int plan_write(const StripeShape& shape, const WriteRequest& request, Plan& plan) {
    if (!valid_range(shape, request.offset, request.len)) return -EINVAL;
    Planner planner{shape, request, plan, {}, {}, {}, {}, {}, {}, {}};
    return planner.run();
}

}  // namespace vitastor::erasure

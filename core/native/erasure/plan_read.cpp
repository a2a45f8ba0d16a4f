// SPDX-License-Identifier: GPL-2.0-or-later
// Reads: chunks touched; where one is lost, k chunks of the range that is missing, those first that are read anyway.
#include <cerrno>

#include "erasure/segments.hpp"

namespace vitastor::erasure {

int plan_read(const StripeShape& shape, const ReadRequest& request, Plan& plan) {
    if (!valid_range(shape, request.offset, request.len)) return -EINVAL;
    reset_plan(plan, shape, request.offset, request.len, false);
    const RoleSet readable = request.readable & RoleSet::range(0, shape.roles());
    const RoleSet own = request.own < shape.roles() ? RoleSet::of(request.own) : RoleSet();
    const bool enough = readable.count() >= shape.data;
    if (request.len == 0) {
        plan.bitmaps_lost = shape.data_roles() - readable;
        if (!plan.bitmaps_lost.empty()) {
            if (!enough) return -EIO;
            plan.bitmap_sources = pick_roles(readable, shape.data, {shape.data_roles(), own});
        }
        add_bitmap_reads(plan, (shape.data_roles() & readable) | plan.bitmap_sources);
        finish_plan(plan);
        return 0;
    }
    const Segments segments = Segments::cut(shape, request.offset, request.len, false);
    SegmentRoles reads, scratch;
    RoleSet extras;  // read for rebuilding only; the same ones in each segment, if possible
    for (uint32_t s = 0; s < segments.count; s++) {
        const Segment& segment = segments.list[s];
        reads[s] = segment.touched & readable;
        const RoleSet lost = segment.touched - readable;
        if (lost.empty()) continue;
        if (!enough) return -EIO;
        RoleSet touched_elsewhere;
        for (uint32_t t = 0; t < segments.count; t++) touched_elsewhere |= segments.list[t].touched;
        const RoleSet sources = pick_roles(readable, shape.data, {reads[s], extras, touched_elsewhere, own});
        scratch[s] = sources - reads[s];
        extras |= scratch[s];
        reads[s] |= sources;
        plan.bitmaps_lost |= lost;
        plan.bitmap_sources = sources;
        plan.steps.push_back({StepKind::rebuild, segment.begin, segment.len(), sources, lost});
    }
    add_client(plan, Holds::reply);
    add_scratch(plan, segments, scratch);
    add_reads(plan, segments, reads);
    finish_plan(plan);
    return 0;
}

}  // namespace vitastor::erasure

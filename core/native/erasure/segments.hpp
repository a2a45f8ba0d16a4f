// SPDX-License-Identifier: GPL-2.0-or-later
// The chunks of an object, one below the other, cut where a request begins and ends: within a segment every chunk is covered
// wholly or not at all. Shared by the planners.
#pragma once

#include <array>
#include <initializer_list>

#include "erasure/stripe_plan.hpp"

namespace vitastor::erasure {

/// A contiguous request ends and begins in at most two places, so three segments are enough.
inline constexpr uint32_t kSegmentsMax = 3;

struct Segment {
    uint32_t begin = 0, end = 0;  ///< in the chunk
    RoleSet touched;              ///< data chunks that the request covers here
    uint32_t len() const { return end - begin; }
};

struct Segments {
    std::array<Segment, kSegmentsMax> list;
    uint32_t count = 0;
    /// Adjacent, ascending. whole: from 0 to the end of the chunk; else from the first to the last byte touched.
    static Segments cut(const StripeShape& shape, uint64_t offset, uint32_t len, bool whole);
};

/// One set of roles a segment.
using SegmentRoles = std::array<RoleSet, kSegmentsMax>;

bool valid_range(const StripeShape& shape, uint64_t offset, uint32_t len);
void reset_plan(Plan& plan, const StripeShape& shape, uint64_t offset, uint32_t len, bool is_write);
/// Up to `count` roles of `readable`, first those of the first preference, and so on.
RoleSet pick_roles(const RoleSet& readable, uint32_t count, std::initializer_list<RoleSet> preferences);
/// One read a run of adjacent segments.
void add_reads(Plan& plan, const Segments& segments, const SegmentRoles& roles);
/// One place a run of adjacent segments, in the scratch memory.
void add_scratch(Plan& plan, const Segments& segments, const SegmentRoles& roles);
/// The request's own bytes, in the client's buffer.
void add_client(Plan& plan, Holds holds);
/// Zero-length reads of those of `roles` that are not read yet.
void add_bitmap_reads(Plan& plan, const RoleSet& roles);
RoleSet roles_read(const Plan& plan);
/// Sorts what the others have added.
void finish_plan(Plan& plan);

}  // namespace vitastor::erasure

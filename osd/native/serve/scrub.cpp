// SPDX-License-Identifier: GPL-2.0-or-later
// SCRUB of one object: every copy or chunk that should count is read whole and compared. Runs in the object's queue like a write, so
// that they cannot differ for another reason. What is wrong is marked, and recovery rewrites it. Source: semantics 12.2-12.5.
#include <algorithm>
#include <cinttypes>
#include <cstring>

#include "erasure/scrub_search.hpp"
#include "pg/places.hpp"
#include "serve/answer.hpp"

namespace vitastor::serve {

namespace {
constexpr size_t kSearchSlice = 256 << 10;  ///< bytes of chunks between two yields
constexpr uint32_t kVerdicts = wire::DescribeItem::kCorrupted | wire::DescribeItem::kInconsistent;
}  // namespace

/// What is known of the object now: clean, or unclean at these places. An object without places does not exist.
void Osd::set_places(Pg& pg, const ObjectId& object, std::span<const pg::Location> where, Version target) {
    if (where.empty()) {
        if (pg.objects.find(object)) {
            pg.objects.erase_unclean(object);
        } else {
            pg.objects.remove_clean();
        }
        return update_state(pg);
    }
    uint32_t state = pg::state_of_places(pg.pool->info.scheme, pg.activation.current_set, where);
    if (state == 0) {
        pg.objects.set_clean(object);
    } else {
        pg.objects.set_unclean(object, state, where, target);
    }
    update_state(pg);
    if (state & (wire::object_state::degraded | wire::object_state::misplaced)) wake_recovery();
}

/// Replicated: the most frequent content is right. Flags the others, or all where nobody can tell.
void Osd::judge_copies(std::vector<ScrubCopy>& copies) {
    std::vector<int> classes;
    for (size_t i = 0; i < copies.size(); i++) {
        size_t same = 0;
        while (same < i && std::memcmp(copies[same].data.data(), copies[i].data.data(), block_size_) != 0) same++;
        classes.push_back(static_cast<int>(same));
    }
    if (std::all_of(classes.begin(), classes.end(), [](int one) { return one == 0; })) return;
    int best = settings_.scrub_find_best ? pg::majority(classes) : -1;
    for (size_t i = 0; i < copies.size(); i++) {
        if (best < 0) copies[i].place.flags |= wire::DescribeItem::kInconsistent;
        if (best >= 0 && classes[i] != best) copies[i].place.flags |= wire::DescribeItem::kCorrupted;
    }
}

/// Erasure-coded: the largest set of chunks that some k of them explain is right. Flags the others, or all where nobody can tell.
runtime::Task<> Osd::judge_chunks(Pool& pool, std::vector<ScrubCopy>& chunks) {
    std::sort(chunks.begin(), chunks.end(), [](const ScrubCopy& a, const ScrubCopy& b) { return a.place.role < b.place.role; });
    std::shared_ptr<erasure::Codec> codec = pool.codec;  // the pool may go away between two slices
    erasure::RoleSet available;
    std::vector<const uint8_t*> data;
    std::vector<size_t> first_of(erasure::kRolesMax);
    for (size_t i = 0; i < chunks.size(); i++) {
        if (available.has(chunks[i].place.role)) continue;
        available.add(chunks[i].place.role);
        first_of[chunks[i].place.role] = i;
        data.push_back(chunks[i].data.data());
    }
    erasure::ScrubSearch search;
    search.start(*codec, available, data, block_size_, settings_.scrub_ec_max_bruteforce);
    while (!search.step(kSearchSlice)) {
        Slices::Turn slice(background_);
        co_await slice;
    }
    erasure::ScrubVerdict verdict = search.verdict();
    if (verdict == erasure::ScrubVerdict::corrupted && !settings_.scrub_find_best) verdict = erasure::ScrubVerdict::inconsistent;
    for (size_t i = 0; i < chunks.size(); i++) {
        pg::Location& place = chunks[i].place;
        const size_t first = first_of[place.role];
        if (verdict == erasure::ScrubVerdict::inconsistent) {
            place.flags |= wire::DescribeItem::kInconsistent;
        } else if (verdict == erasure::ScrubVerdict::corrupted && search.corrupted().has(place.role)) {
            place.flags |= wire::DescribeItem::kCorrupted;
        } else if (i != first && std::memcmp(chunks[first].data.data(), chunks[i].data.data(), block_size_) != 0) {
            // One chunk twice (it is being moved). Without a check of the first nobody can tell.
            place.flags |= verdict == erasure::ScrubVerdict::unknown ? wire::DescribeItem::kInconsistent
                                                                     : wire::DescribeItem::kCorrupted;
        }
    }
}

/// Reads the places one after the other. 0, or an error that ends the attempt.
runtime::Task<int64_t> Osd::read_for_scrub(Op* op, Version* target, std::vector<ScrubCopy>* copies,
                                           std::vector<pg::Location>* others) {
    Pg& pg = *op->pg;
    std::vector<uint8_t> bitmap(bitmap_bytes_);
    const std::vector<pg::Location> where = locations_of(pg, op->object);
    const bool known = *target != 0;
    for (pg::Location place : where) {
        if (place.flags & wire::DescribeItem::kOutdated) {
            others->push_back(place);
            continue;
        }
        place.flags &= ~kVerdicts;
        const ObjectId chunk{op->object.inode, op->object.stripe | place.role};
        ScrubCopy copy{place, loop_.buffers().allocate(block_size_), 0};
        LayerRead read{op->pool, &pg, chunk, 0, block_size_, copy.data.data(), bitmap.data(), wire::sub_flags::recovery};
        runtime::Task<int64_t> attempt = read_copy(read, place.osd, *target ? *target : kNewestVersion);
        const int64_t got = co_await attempt;
        if (!pg.active() || got == -EPIPE) co_return -EPIPE;
        if (got == -ENOENT) {
            log(logger_, LogLevel::warning, "scrub of %" PRIx64 ":%" PRIx64 ": not found on OSD %" PRIu64, op->object.inode,
                op->object.stripe, place.osd);
        } else if (got < 0) {
            place.flags |= wire::DescribeItem::kCorrupted;
            others->push_back(place);
            log(logger_, LogLevel::warning, "scrub of %" PRIx64 ":%" PRIx64 ": cannot be read on OSD %" PRIu64 " (%s)",
                op->object.inode, op->object.stripe, place.osd, strerror(static_cast<int>(-got)));
        } else {
            copy.version = read.version;
            copies->push_back(std::move(copy));
        }
    }
    for (const ScrubCopy& copy : *copies) {
        if (!known) *target = std::max(*target, copy.version);
    }
    std::erase_if(*copies, [&](ScrubCopy& copy) {
        if (copy.version == *target) return false;
        log(logger_, LogLevel::warning, "scrub of %" PRIx64 ":%" PRIx64 ": OSD %" PRIu64 " has an old version", op->object.inode,
            op->object.stripe, copy.place.osd);
        copy.place.flags |= wire::DescribeItem::kOutdated;
        others->push_back(copy.place);
        return true;
    });
    co_return 0;
}

runtime::Task<> Osd::scrub_object(Op* op) {
    Pg& pg = *op->pg;
    const uint64_t start = loop_.now_ns();
    int64_t result = pg.active() ? 0 : -EPIPE;
    uint64_t bytes = 0;
    if (result == 0) {
        pg::UncleanObject* unclean = pg.objects.find(op->object);
        const bool was_unclean = unclean != nullptr;
        Version target = was_unclean ? unclean->target : 0;
        const std::vector<pg::Location> before = locations_of(pg, op->object);
        const bool replicated = op->pool->info.scheme.replicated();
        for (size_t i = 0; target == 0 && i < before.size(); i++) {  // clean: the own copy knows
            if (before[i].osd != osd_num_) continue;
            std::vector<uint8_t> bitmap(bitmap_bytes_);
            target = store_.peek({op->object.inode, op->object.stripe | before[i].role}, kNewestVersion, bitmap.data());
            if (target == 0 && replicated) result = -ENOENT;
        }
        std::vector<ScrubCopy> copies;
        std::vector<pg::Location> where;  // first those that are not compared
        if (result == 0) {
            runtime::Task<int64_t> reading = read_for_scrub(op, &target, &copies, &where);
            result = co_await reading;
        }
        if (result == 0 && !was_unclean && copies.empty() && where.empty()) result = -ENOENT;
        if (result == 0) {
            bytes = copies.size() * uint64_t{block_size_};
            if (replicated) {
                judge_copies(copies);
            } else {
                runtime::Task<> judging = judge_chunks(*op->pool, copies);
                co_await judging;
                if (!pg.active()) result = -EPIPE;
            }
        }
        if (result == 0) {
            for (ScrubCopy& copy : copies) where.push_back(copy.place);
            copies.clear();
            std::sort(where.begin(), where.end());
            std::vector<pg::Location> known = before;
            std::sort(known.begin(), known.end());
            if (where != known) {
                const uint32_t state = pg::state_of_places(op->pool->info.scheme, pg.activation.current_set, where);
                log(logger_, LogLevel::warning, "scrub of %" PRIx64 ":%" PRIx64 ": %s", op->object.inode, op->object.stripe,
                    state & wire::object_state::inconsistent ? "copies differ, and nobody can tell which one is right: see vitastor-cli describe"
                    : state & wire::object_state::incomplete ? "no good copy is left"
                    : state                                  ? "bad or missing copies are to be repaired from good ones"
                                                             : "all copies are good again");
                set_places(pg, op->object, where, target);
            }
        }
    }
    leave_queue(op);
    if (!op->request) {
        op_stats_[static_cast<size_t>(wire::Opcode::scrub)].add((loop_.now_ns() - start) / 1000, bytes);
        scrub_ended(op, result);
        co_return;
    }
    answer(op, result);
}

}  // namespace vitastor::serve

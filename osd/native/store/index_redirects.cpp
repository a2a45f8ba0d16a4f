// SPDX-License-Identifier: GPL-2.0-or-later
// Granules that live in spare blocks, as the index sees them: versions inherit redirects and give them up like blocks.
#include <algorithm>

#include "base/assert.hpp"
#include "store/index.hpp"

namespace vitastor::store {

std::span<const Redirect> Index::redirects(uint32_t slot) const {
    if (!at(slot).is_redirected) return {};
    return redirects_.of(slot);
}

bool Index::is_at_home(uint32_t slot, uint32_t granule) const {
    if (!is_allocated(slot, granule)) return false;
    for (const Redirect& run : redirects(slot))
        if (granule >= run.first && granule < run.end()) return false;
    return true;
}

bool Index::is_home_used(uint32_t head, uint32_t block, uint32_t first, uint32_t count) const {
    for (uint32_t slot = head; slot != kNoSlot; slot = at(slot).older) {
        if (at(slot).block != block) continue;
        const std::span<const Redirect> runs = redirects(slot);
        size_t next = 0;
        for (uint32_t granule = first; granule < first + count; granule++) {
            if (!is_allocated(slot, granule)) continue;
            while (next < runs.size() && runs[next].end() <= granule) next++;
            if (next == runs.size() || runs[next].first > granule) return true;
        }
    }
    return false;
}

uint64_t Index::redirect_position(uint32_t head) const {
    uint64_t position = 0;
    for (uint32_t slot = head; slot != kNoSlot; slot = at(slot).older)
        if (at(slot).is_redirected) position = std::max(position, redirects_.position(slot));
    return position;
}

void Index::set_redirects(uint32_t slot, std::span<const Redirect> runs) {
    redirects_.set(slot, runs);
    at(slot).is_redirected = runs.empty() ? 0 : 1;
}

void Index::copy_redirects(uint32_t to, uint32_t from) {
    if (!at(from).is_redirected && !at(to).is_redirected) return;
    redirects_.copy(to, from);
    at(to).is_redirected = at(from).is_redirected;
}

/// Granules that no version but `except` has there are free. cut: in order, not in the table of a version that the sink changes.
/// An object of many small overwrites has a run for nearly every granule, and its versions have nearly all of them in common.
void Index::release_redirects(uint32_t head, uint32_t except, std::span<const Redirect> cut, BlockSink& sink) {
    others_.clear();
    for (uint32_t slot = head; slot != kNoSlot; slot = at(slot).older)
        if (slot != except && at(slot).is_redirected) others_.push_back({redirects_.of(slot), 0});
    for (const Redirect& run : cut) {
        bool is_shared = false;  // by a version that has the very same run
        for (OtherRuns& other : others_) {
            while (other.next < other.runs.size() && other.runs[other.next].end() <= run.first) other.next++;
            if (other.next == other.runs.size()) continue;
            const Redirect& same = other.runs[other.next];
            is_shared |= same.first == run.first && same.count == run.count && same.block == run.block && same.place == run.place;
        }
        for (uint32_t i = 0; i < run.count && !is_shared; i++) {
            const uint32_t granule = uint32_t{run.first} + i;
            const bool has_user = std::any_of(others_.begin(), others_.end(), [&](const OtherRuns& other) {
                for (size_t k = other.next; k < other.runs.size() && other.runs[k].first <= granule; k++) {
                    const Redirect& have = other.runs[k];
                    if (granule < have.end()) return have.block == run.block && have.place + (granule - have.first) == run.place + i;
                }
                return false;
            });
            if (!has_user) sink.release_spare(run.block, run.place + i, 1);
        }
    }
}

/// The range of `run` is a run of the version already: that one is given up. false: nothing has changed.
bool Index::replace_redirect(uint32_t head, uint32_t slot, const Redirect& run, BlockSink& sink) {
    if (!at(slot).is_redirected) return false;
    Redirect old = run;
    if (!redirects_.replace(slot, old)) return false;
    release_redirects(head, slot, {&old, 1}, sink);
    sink.use_spare(run, head);
    return true;
}

void Index::cut_redirects(uint32_t head, uint32_t slot, uint32_t first, uint32_t end, BlockSink& sink) {
    if (!at(slot).is_redirected) return;
    if (first == 0 && end >= geometry_.granules) {  // the version goes
        release_redirects(head, slot, redirects_.of(slot), sink);
        return set_redirects(slot, {});
    }
    std::vector<Redirect>&kept = kept_, &cut = cut_;
    kept.clear();
    cut.clear();
    for (const Redirect& run : redirects_.of(slot)) {
        const uint32_t from = std::max<uint32_t>(run.first, first), to = std::min(run.end(), end);
        if (from >= to) {
            kept.push_back(run);
            continue;
        }
        const auto part = [&run](uint32_t start, uint32_t stop) {
            return Redirect{run.block, static_cast<uint16_t>(start), static_cast<uint16_t>(stop - start),
                            static_cast<uint16_t>(run.place + (start - run.first)), 0};
        };
        if (run.first < from) kept.push_back(part(run.first, from));
        if (to < run.end()) kept.push_back(part(to, run.end()));
        cut.push_back(part(from, to));
    }
    if (cut.empty()) return;
    const uint64_t position = redirects_.position(slot);
    set_redirects(slot, kept);
    redirects_.set_position(slot, position);
    release_redirects(head, slot, cut, sink);
}

/// The range of the version has no redirect yet.
void Index::add_redirect(uint32_t head, uint32_t slot, const Redirect& run, BlockSink& sink) {
    const std::span<const Redirect> runs = redirects(slot);
    std::vector<Redirect>& next = kept_;
    next.assign(runs.begin(), runs.end());
    const auto place = std::lower_bound(next.begin(), next.end(), run.first, [](const Redirect& other, uint32_t first) {
        return other.first < first;
    });
    next.insert(place, run);
    const uint64_t position = redirects_.position(slot);
    set_redirects(slot, next);
    redirects_.set_position(slot, position);
    sink.use_spare(run, head);
}

/// Redirects in a full entry are the whole truth about a version.
void Index::load_redirects(uint32_t head, const uint8_t* in, uint32_t count, BlockSink& sink) {
    if (count == 0 && !at(head).is_redirected) return;
    std::vector<Redirect> runs(count);
    if (count) memcpy(runs.data(), in, count * sizeof(Redirect));
    set_redirects(head, runs);
    for (const Redirect& run : runs) sink.use_spare(run, head);
}

/// Granules that have been copied home, in every version that had them at that place.
bool Index::apply_moved(const EntryView& entry, BlockSink& sink) {
    const uint32_t head = find(entry.object());
    if (head == kNoSlot) return false;
    for (uint16_t i = 0; i < entry.header.count; i++) {
        Redirect moved;
        memcpy(&moved, entry.redirects + i * sizeof(moved), sizeof(moved));
        for (uint32_t slot = head; slot != kNoSlot; slot = at(slot).older) {
            std::vector<std::pair<uint32_t, uint32_t>> parts;  // of this version, as first and end
            for (const Redirect& run : redirects(slot)) {
                if (run.block != moved.block || run.place + moved.first != moved.place + run.first) continue;
                const uint32_t from = std::max(run.first, moved.first), to = std::min(run.end(), moved.end());
                if (from < to) parts.push_back({from, to});
            }
            for (const auto& [from, to] : parts) cut_redirects(head, slot, from, to, sink);
        }
    }
    return true;
}

}  // namespace vitastor::store

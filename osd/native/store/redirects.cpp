// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/redirects.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/assert.hpp"

namespace vitastor::store {

namespace {
constexpr uint32_t kEmpty = UINT32_MAX;
constexpr size_t kSmallestTable = 64;
}  // namespace

Redirects::~Redirects() {
    for (Row& row : rows_)
        if (row.slot != kEmpty && row.size > 1) delete[] row.many;
}

Redirects::Row* Redirects::find(uint32_t slot) const {
    if (rows_.empty()) return nullptr;
    for (size_t i = home(slot); rows_[i].slot != kEmpty; i = (i + 1) & (rows_.size() - 1))
        if (rows_[i].slot == slot) return &rows_[i];
    return nullptr;
}

std::span<const Redirect> Redirects::of(uint32_t slot) const {
    const Row* row = find(slot);
    if (!row) return {};
    return {row->size > 1 ? row->many : &row->one, row->size};
}

uint64_t Redirects::position(uint32_t slot) const {
    const Row* row = find(slot);
    return row ? row->position : 0;
}

void Redirects::set_position(uint32_t slot, uint64_t position) {
    if (Row* row = find(slot)) row->position = position;
}

void Redirects::grow() {
    std::vector<Row> old;
    old.swap(rows_);
    Row empty{};
    empty.slot = kEmpty;
    rows_.assign(old.empty() ? kSmallestTable : old.size() * 2, empty);
    for (const Row& row : old) {
        if (row.slot == kEmpty) continue;
        size_t i = home(row.slot);
        while (rows_[i].slot != kEmpty) i = (i + 1) & (rows_.size() - 1);
        rows_[i] = row;
    }
}

Redirects::Row& Redirects::insert(uint32_t slot) {
    if ((used_ + 1) * 4 > rows_.size() * 3) grow();
    size_t i = home(slot);
    while (rows_[i].slot != kEmpty) i = (i + 1) & (rows_.size() - 1);
    used_++;
    Row& row = rows_[i];
    row = Row{};
    row.slot = slot;
    return row;
}

/// Rows behind the freed one that are not in their place move up.
void Redirects::erase(Row& row) {
    const size_t mask = rows_.size() - 1;
    size_t hole = static_cast<size_t>(&row - rows_.data());
    for (size_t i = (hole + 1) & mask; rows_[i].slot != kEmpty; i = (i + 1) & mask) {
        if (((i - home(rows_[i].slot)) & mask) < ((i - hole) & mask)) continue;
        rows_[hole] = rows_[i];
        hole = i;
    }
    rows_[hole].slot = kEmpty;
    used_--;
}

/// Room for so many runs; what was in it is lost where the room changes.
void Redirects::resize(Row& row, size_t size) {
    run_count_ += size;
    run_count_ -= row.size;
    const size_t old_room = row.size > 1 ? std::bit_ceil(row.size) : 0;
    const size_t new_room = size > 1 ? std::bit_ceil(size) : 0;
    if (old_room != new_room) {
        if (old_room) delete[] row.many;
        heap_runs_ += new_room;
        heap_runs_ -= old_room;
        if (new_room) row.many = new Redirect[new_room];
    }
    row.size = static_cast<uint32_t>(size);
}

void Redirects::set(uint32_t slot, std::span<const Redirect> runs) {
    Row* row = find(slot);
    if (!row && runs.empty()) return;
    if (!row) row = &insert(slot);
    resize(*row, runs.size());
    if (runs.empty()) {
        erase(*row);
        return;
    }
    memcpy(runs.size() > 1 ? row->many : &row->one, runs.data(), runs.size() * sizeof(Redirect));
}

void Redirects::copy(uint32_t to, uint32_t from) {
    if (!find(from)) return set(to, {});
    if (!find(to)) insert(to);
    Row &target = *find(to), &source = *find(from);  // the table may have grown
    resize(target, source.size);
    memcpy(target.size > 1 ? target.many : &target.one, source.size > 1 ? source.many : &source.one, source.size * sizeof(Redirect));
    target.position = source.position;
}

bool Redirects::replace(uint32_t slot, Redirect& run) {
    Row* row = find(slot);
    if (!row) return false;
    Redirect* runs = row->size > 1 ? row->many : &row->one;
    Redirect* place = std::lower_bound(runs, runs + row->size, run.first, [](const Redirect& other, uint32_t first) {
        return other.first < first;
    });
    if (place == runs + row->size || place->first != run.first || place->count != run.count) return false;
    std::swap(*place, run);
    return true;
}

uint64_t Redirects::memory_bytes() const {
    return rows_.size() * sizeof(Row) + heap_runs_ * sizeof(Redirect);
}

}  // namespace vitastor::store

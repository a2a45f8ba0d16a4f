// SPDX-License-Identifier: GPL-2.0-or-later
// Reads: one transfer from the first to the last granule in use, and one for each run in spare blocks, all at a time; holes
// cleared, every granule checked.
#include <cstring>

#include "store/blockstore.hpp"
#include "store/iov.hpp"

namespace vitastor::store {

using runtime::Task;

namespace {

constexpr int kMaxBuffers = 16;          // of one operation; more are copied
constexpr uint32_t kMaxReads = 64;       // of one operation at a time
constexpr uint32_t kMaxGaps = 4;         // that one transfer passes over
constexpr uint64_t kGapBytes = 64 << 10; // each at most

}  // namespace

Task<void> Blockstore::run_read(ActiveObject& active, Operation& operation) {
    const uint32_t head = index_->find(operation.object);
    const uint32_t slot = head == kNoSlot ? kNoSlot : index_->find_version(head, operation.version);
    int64_t result = 0;
    if (slot == kNoSlot) {
        operation.version = 0;
        if (operation.bitmap) memset(operation.bitmap, 0, geometry_.bitmap_bytes);
        result = operation.op == StoreOp::read ? -ENOENT : 0;
    } else {
        operation.version = index_->at(slot).version;
        if (operation.bitmap) memcpy(operation.bitmap, index_->bitmap(slot), geometry_.bitmap_bytes);
        if (operation.op == StoreOp::read && operation.len) {
            Task<int64_t> reading = read_data(operation, slot);
            result = co_await reading;
        }
    }
    finish(&active, operation, result);
}

Task<int64_t> Blockstore::read_data(Operation& operation, uint32_t slot) {
    const uint32_t granularity = geometry_.granularity;
    const uint32_t first = operation.offset / granularity;
    const uint32_t end = first + operation.len / granularity;
    uint32_t from = first, to = end;
    while (from < end && !index_->is_allocated(slot, from)) from++;
    while (to > from && !index_->is_allocated(slot, to - 1)) to--;
    if (from == to) {
        clear_range(operation.iov, operation.iov_count, 0, operation.len);
        co_return operation.len;
    }
    Reads sums;
    if (index_->is_swapped(slot)) {
        sums.running = 1;
        runtime::spawn(fetch_beside(slot, sums));
    } else if (lists_) {
        if (ChecksumLists::Item* item = lists_->find(slot)) item->used = true;
    }
    int status;
    if (operation.iov_count <= kMaxBuffers && iov_aligned(operation.iov, operation.iov_count, logical_block_)) {
        Task<int> reading = read_granules(slot, from, to, operation.iov, operation.iov_count, first);
        status = co_await reading;
    } else {
        const uint64_t skip = uint64_t{from - first} * granularity;
        const uint64_t length = uint64_t{to - from} * granularity;
        Buffer copy = loop_.buffers().allocate(length);
        iovec iov{copy.data(), length};
        Task<int> reading = read_granules(slot, from, to, &iov, 1, from);
        status = co_await reading;
        if (status == 0) scatter(copy.data(), operation.iov, operation.iov_count, skip, length);
    }
    while (sums.running > 0) {
        runtime::WaitList::Waiter waiter = sums.done.wait();
        co_await waiter;
    }
    if (status < 0) co_return status;
    co_return check_data(operation, slot);
}

/// Granules [first, end) of a version into buffers that begin with granule `base`. What is not in use may hold anything then.
/// At most kMaxBuffers buffers, aligned.
Task<int> Blockstore::read_granules(uint32_t slot, uint32_t first, uint32_t end, const iovec* iov, int count, uint32_t base) {
    const uint64_t granularity = geometry_.granularity;
    bool is_plain = true;
    uint64_t offset = block_offset(index_->at(slot).block) + first * granularity;
    for (const Redirect& run : index_->redirects(slot)) {
        if (run.first >= end) break;
        if (run.end() <= first) continue;
        is_plain = run.first <= first && end <= run.end();
        if (is_plain) offset = block_offset(run.block) + (run.place + (first - run.first)) * granularity;
        break;
    }
    if (is_plain) {  // the usual case: one transfer, nothing else
        const uint64_t length = (end - first) * granularity;
        iovec parts[kMaxBuffers];
        int part_count = 0;
        visit_range(iov, count, (first - base) * granularity, length, [&](uint8_t* data, uint64_t bytes) {
            parts[part_count++] = {data, bytes};
        });
        Task<int> reading = data_->read(parts, part_count, offset);
        const int status = co_await reading;
        if (status < 0) log_read_error(offset, length, status);
        co_return status;
    }
    Reads reads;
    std::vector<Piece> pieces;
    find_pieces(slot, first, end, pieces);
    if (!gap_buffer_.data()) gap_buffer_ = loop_.buffers().allocate(kGapBytes);
    for (const Piece& piece : pieces) {
        while (reads.running >= kMaxReads) {
            runtime::WaitList::Waiter waiter = reads.done.wait();
            co_await waiter;
        }
        reads.running++;
        runtime::spawn(read_piece(slot, piece, iov, count, base, reads));
    }
    while (reads.running > 0) {
        runtime::WaitList::Waiter waiter = reads.done.wait();
        co_await waiter;
    }
    co_return reads.status;
}

void Blockstore::log_read_error(uint64_t offset, uint64_t length, int status) const {
    log(logger_, LogLevel::error, "%s: cannot read %llu bytes at %llu: %s", options_.data_device.c_str(),
        static_cast<unsigned long long>(length), static_cast<unsigned long long>(offset), strerror(-status));
}

/// Runs of granules in use that can be read at once. A read of the home block passes over holes, and over a few granules that
/// live elsewhere.
void Blockstore::find_pieces(uint32_t slot, uint32_t first, uint32_t end, std::vector<Piece>& pieces) const {
    const std::span<const Redirect> runs = index_->redirects(slot);
    const uint32_t granularity = geometry_.granularity;
    const uint64_t home = block_offset(index_->at(slot).block);
    size_t next = 0, open = SIZE_MAX;  // open: the newest piece at home
    uint32_t gaps = 0, gap_granules = 0;
    for (uint32_t granule = first; granule < end;) {
        while (next < runs.size() && runs[next].end() <= granule) next++;
        if (next < runs.size() && runs[next].first <= granule) {
            const uint32_t stop = std::min(end, runs[next].end());
            const uint64_t offset = block_offset(runs[next].block) + uint64_t{runs[next].place + granule - runs[next].first} * granularity;
            if (!pieces.empty() && !pieces.back().is_home && pieces.back().end == granule &&
                pieces.back().offset + uint64_t{granule - pieces.back().first} * granularity == offset)
                pieces.back().end = stop;
            else
                pieces.push_back({offset, granule, stop, false});
            gaps++;
            gap_granules = std::max(gap_granules, stop - granule);
            granule = stop;
            continue;
        }
        if (index_->is_allocated(slot, granule)) {
            const bool joins = open != SIZE_MAX && gaps <= kMaxGaps && uint64_t{gap_granules} * granularity <= kGapBytes;
            if (!joins) {
                open = pieces.size();
                pieces.push_back({home + uint64_t{granule} * granularity, granule, granule, true});
                gaps = gap_granules = 0;
            }
            pieces[open].end = granule + 1;
        }
        granule++;
    }
}

/// One transfer. Its status, if it is an error, goes to reads.status.
Task<void> Blockstore::read_piece(uint32_t slot, Piece piece, const iovec* iov, int count, uint32_t base, Reads& reads) {
    const uint64_t granularity = geometry_.granularity;
    iovec parts[kMaxBuffers + 2 * kMaxGaps + 2];
    int part_count = 0;
    const auto add = [&](uint32_t from, uint32_t to) {
        visit_range(iov, count, (from - base) * granularity, (to - from) * granularity, [&](uint8_t* data, uint64_t bytes) {
            parts[part_count++] = {data, bytes};
        });
    };
    uint32_t position = piece.first;
    if (piece.is_home) {
        for (const Redirect& run : index_->redirects(slot)) {
            const uint32_t from = std::max<uint32_t>(run.first, position), to = std::min(run.end(), piece.end);
            if (from >= to) continue;
            if (from > position) add(position, from);
            parts[part_count++] = {gap_buffer_.data(), (to - from) * granularity};
            position = to;
        }
    }
    if (position < piece.end) add(position, piece.end);
    Task<int> reading = data_->read(parts, part_count, piece.offset);
    const int status = co_await reading;
    if (status < 0) {
        reads.status = status;
        log_read_error(piece.offset, (piece.end - piece.first) * granularity, status);
    }
    reads.running--;
    reads.done.notify_all();
}

/// Clears the holes and compares checksums. The length, or -EDOM.
int64_t Blockstore::check_data(Operation& operation, uint32_t slot) {
    const uint32_t granularity = geometry_.granularity;
    const uint32_t first = operation.offset / granularity;
    const uint32_t count = operation.len / granularity;
    int64_t result = operation.len;
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t place = uint64_t{i} * granularity;
        if (!index_->is_allocated(slot, first + i)) {
            clear_range(operation.iov, operation.iov_count, place, granularity);
        } else if (geometry_.checksums && crc_range(operation.iov, operation.iov_count, place, granularity) !=
                                              index_->crc(slot, first + i)) {
            checksum_errors_++;
            result = -EDOM;
            log(logger_, LogLevel::error, "%s: wrong checksum of object %llx:%llx version %llu at offset %llu",
                options_.data_device.c_str(), static_cast<unsigned long long>(operation.object.inode),
                static_cast<unsigned long long>(operation.object.stripe),
                static_cast<unsigned long long>(operation.version),
                static_cast<unsigned long long>(uint64_t{first + i} * granularity));
        }
    }
    return result;
}

}  // namespace vitastor::store

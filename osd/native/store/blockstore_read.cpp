// SPDX-License-Identifier: GPL-2.0-or-later
// Reads: one transfer from the first to the last granule in use, holes cleared, every granule checked.
#include <cstring>

#include "store/blockstore.hpp"
#include "store/iov.hpp"

namespace vitastor::store {

using runtime::Task;

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
    const uint64_t skip = uint64_t{from - first} * granularity;
    const uint64_t length = uint64_t{to - from} * granularity;
    const uint64_t offset = block_offset(index_->at(slot).block) + uint64_t{from} * granularity;
    constexpr int kMaxPieces = 16;
    int status;
    if (operation.iov_count <= kMaxPieces && iov_aligned(operation.iov, operation.iov_count, logical_block_)) {
        iovec pieces[kMaxPieces];
        int count = 0;
        visit_range(operation.iov, operation.iov_count, skip, length, [&](uint8_t* data, uint64_t bytes) {
            pieces[count++] = {data, bytes};
        });
        Task<int> reading = data_->read(pieces, count, offset);
        status = co_await reading;
    } else {
        Buffer copy = loop_.buffers().allocate(length);
        iovec iov{copy.data(), length};
        Task<int> reading = data_->read(&iov, 1, offset);
        status = co_await reading;
        if (status == 0) scatter(copy.data(), operation.iov, operation.iov_count, skip, length);
    }
    if (status < 0) {
        log(logger_, LogLevel::error, "%s: cannot read %llu bytes at %llu: %s", options_.data_device.c_str(),
            static_cast<unsigned long long>(length), static_cast<unsigned long long>(offset), strerror(-status));
        co_return status;
    }
    co_return check_data(operation, slot);
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

// SPDX-License-Identifier: GPL-2.0-or-later
// Modifications: where data goes, in which order data and log entry become durable, and when the index follows.
#include <bit>
#include <cstring>

#include "store/blockstore.hpp"
#include "store/iov.hpp"

namespace vitastor::store {

using runtime::Task;
using wire::ImmediateCommit;

namespace {

constexpr uint64_t kCopyBytes = 1 << 20;   // of a block at a time
constexpr uint32_t kMaxVersions = 250;     // of one object
constexpr int kMaxPieces = 64;             // of one device write

}  // namespace

Task<void> Blockstore::run_modification(ActiveObject& active, Operation& operation) {
    Task<int> admission = admit();
    int64_t result = co_await admission;
    if (result == 0) {
        switch (operation.op) {
            case StoreOp::del: {
                Task<int64_t> work = remove(active, operation);
                result = co_await work;
                break;
            }
            case StoreOp::stabilize: {
                Task<int64_t> work = stabilize(active, operation);
                result = co_await work;
                break;
            }
            case StoreOp::rollback: {
                Task<int64_t> work = roll_back(active, operation);
                result = co_await work;
                break;
            }
            default: {
                Task<int64_t> work = write(active, operation);
                result = co_await work;
                break;
            }
        }
    }
    if (log_->error() && !failure_logged_) {
        failure_logged_ = true;
        log(logger_, LogLevel::error, "%s: writing metadata failed: %s. Every further write is refused; restart the OSD "
                                      "or replace the device", meta_path().c_str(), strerror(-log_->error()));
    }
    release_token();
    if (const uint64_t delay_ns = result > 0 && throttle_.enabled() ? hold_back_ns(operation) : 0) {
        Pause pause(loop_, delay_ns);
        co_await pause;
    }
    finish(&active, operation, result);
}

/// How long the answer to a small write is held back (throttle.hpp); 0 where metadata is not on a faster device.
uint64_t Blockstore::hold_back_ns(const Operation& operation) {
    if (!separate_meta_ || operation.len >= geometry_.block_size) return 0;
    const uint64_t cost_ns = throttle_.cost_ns(operation.object, operation.offset, operation.len);
    if (options_.immediate_commit == ImmediateCommit::none && data_->is_volatile())
        throttle_.add_backlog(cost_ns, data_->next_flush());
    const uint64_t delay_ns = throttle_.delay_ns(loop_.now_ns(), cost_ns, throttle_.fill(data_->flushes_finished()));
    throttled_writes_ += delay_ns > 0;
    throttled_us_ += delay_ns / 1000;
    return delay_ns;
}

// ---------------------------------------------------------------- writes

Task<int64_t> Blockstore::write(ActiveObject& active, Operation& operation) {
    const bool stable = operation.op == StoreOp::write_stable;
    WritePlan plan;
    plan.head = index_->find(operation.object);
    plan.first = operation.offset / geometry_.granularity;
    plan.count = operation.len / geometry_.granularity;
    if (plan.head != kNoSlot) {
        const Slot& head = index_->at(plan.head);
        if (operation.version <= head.version) {
            operation.version = head.version;
            co_return -EEXIST;
        }
        if (stable && !head.is_stable) co_return -EINVAL;
        uint32_t versions = 1;
        for (uint32_t older = head.older; older != kNoSlot; older = index_->at(older).older) versions++;
        if (!stable && versions >= kMaxVersions) co_return -ENOSPC;
        plan.block = head.block;
    }
    const bool adds_version = plan.head == kNoSlot || !stable;
    if (adds_version && live_bytes() + version_cost() > geometry_.live_limit_bytes()) co_return -ENOSPC;
    if (adds_version) new_versions_++;
    plan.placement = place(plan, stable);
    int64_t result = 0;
    if (plan.placement == Placement::fresh || plan.placement == Placement::copied) {
        plan.is_overwrite = stable && plan.block != kNoBlock;
        Task<uint32_t> allocation = allocate_block(plan.is_overwrite);
        plan.block = co_await allocation;
        if (plan.block == kNoBlock) result = log_->error() ? -EIO : -ENOSPC;
    }
    if (result == 0) {
        Task<int64_t> work = write_planned(active, operation, plan);
        result = co_await work;
    }
    if (adds_version) new_versions_--;
    if (result >= 0) client_bytes_written_ += operation.len;
    co_return result;
}

Blockstore::Placement Blockstore::place(const WritePlan& plan, bool stable) const {
    if (plan.count == 0) return Placement::none;
    if (plan.head == kNoSlot || plan.block == kNoBlock) return Placement::fresh;
    uint32_t used_inside = 0, used = 0;
    for (uint32_t i = 0; i < plan.count; i++) used_inside += index_->is_allocated(plan.head, plan.first + i);
    if (used_inside == 0) return Placement::in_place;
    if (plan.count == 1 && stable && index_->at(plan.head).older == kNoSlot &&
        geometry_.granularity <= options_.atomic_write_size)
        return Placement::announced;
    const uint8_t* bits = index_->allocated(plan.head);
    for (uint32_t i = 0; i < geometry_.bitmap_bytes; i++) used += static_cast<uint32_t>(std::popcount(bits[i]));
    return used == used_inside ? Placement::fresh : Placement::copied;
}

Task<int64_t> Blockstore::write_planned(ActiveObject& active, Operation& operation, WritePlan& plan) {
    if (plan.head == kNoSlot) {
        active.reserved = index_->reserve(operation.object);
        if (active.reserved == kNoSlot) co_return -ENOSPC;
        cover_slots();
    }
    encode_write(active, operation, plan);
    if (plan.placement == Placement::announced) {
        Task<int64_t> work = announced_write(active, operation, plan);
        const int64_t result = co_await work;
        co_return result;
    }
    const bool new_block = plan.placement == Placement::fresh || plan.placement == Placement::copied;
    int status = 0;
    if (plan.count) {
        Task<int> work = plan.placement == Placement::copied ? copy_block(operation, plan) : write_data(operation, plan);
        status = co_await work;
        log_->note_data_written();
    }
    if (status == 0) {
        const bool durable = options_.immediate_commit == ImmediateCommit::all ||
                             (options_.immediate_commit == ImmediateCommit::small && operation.len < geometry_.block_size);
        Task<int> logging = log_and_apply(active, durable);
        status = co_await logging;
        // After an error of the log the block stays taken: the entry may be on disk.
    } else if (new_block) {
        blocks_.free(plan.block);
    }
    if (new_block) end_overwrite(plan);
    if (active.reserved != kNoSlot) {
        if (status < 0) index_->unreserve(active.reserved);
        active.reserved = kNoSlot;
    }
    co_return status < 0 ? status : int64_t{operation.len};
}

void Blockstore::encode_write(ActiveObject& active, const Operation& operation, const WritePlan& plan) {
    EntryHeader header{};
    header.type = EntryType::write;
    header.count = static_cast<uint16_t>(plan.count);
    header.first = plan.count ? plan.first : 0;
    header.inode = operation.object.inode;
    header.stripe = operation.object.stripe;
    header.version = operation.version;
    if (operation.op == StoreOp::write_stable) header.flags |= kEntryStable;
    if (plan.head == kNoSlot) header.flags |= kEntryCreate;
    if (plan.placement == Placement::announced) header.flags |= kEntryIntent;
    if (plan.placement == Placement::fresh || plan.placement == Placement::copied) header.flags |= kEntryBlock;
    if (operation.bitmap && (plan.head == kNoSlot ||
                             memcmp(operation.bitmap, index_->bitmap(plan.head), geometry_.bitmap_bytes) != 0))
        header.flags |= kEntryBitmap;
    const bool crcs = geometry_.checksums || plan.placement == Placement::announced;
    header.size = static_cast<uint32_t>(sizeof(header) + (header.flags & kEntryBlock ? 4 : 0) +
                                        (header.flags & kEntryBitmap ? geometry_.bitmap_bytes : 0) +
                                        (crcs ? 4 * size_t{plan.count} : 0));
    active.entry.resize(header.size);
    uint8_t* out = active.entry.data();
    memcpy(out, &header, sizeof(header));
    out += sizeof(header);
    if (header.flags & kEntryBlock) {
        memcpy(out, &plan.block, 4);
        out += 4;
    }
    if (header.flags & kEntryBitmap) {
        memcpy(out, operation.bitmap, geometry_.bitmap_bytes);
        out += geometry_.bitmap_bytes;
    }
    for (uint32_t i = 0; crcs && i < plan.count; i++) {
        const uint32_t crc = crc_range(operation.iov, operation.iov_count, uint64_t{i} * geometry_.granularity,
                                       geometry_.granularity);
        memcpy(out, &crc, 4);
        out += 4;
    }
}

Task<int> Blockstore::write_data(const Operation& operation, const WritePlan& plan) {
    const uint64_t offset = block_offset(plan.block) + operation.offset;
    if (operation.iov_count <= kMaxPieces && iov_aligned(operation.iov, operation.iov_count, logical_block_)) {
        Task<int> writing = data_->write(operation.iov, operation.iov_count, offset);
        const int status = co_await writing;
        co_return status;
    }
    Buffer copy = loop_.buffers().allocate(std::min<uint64_t>(operation.len, kCopyBytes));
    for (uint64_t done = 0; done < operation.len;) {
        const uint64_t length = std::min<uint64_t>(operation.len - done, kCopyBytes);
        gather(copy.data(), operation.iov, operation.iov_count, done, length);
        iovec iov{copy.data(), length};
        Task<int> writing = data_->write(&iov, 1, offset + done);
        const int status = co_await writing;
        if (status < 0) co_return status;
        done += length;
    }
    co_return 0;
}

/// The used part of the old block with the new data over it. Old checksums go along: rot is found by the next reader.
Task<int> Blockstore::copy_block(const Operation& operation, const WritePlan& plan) {
    const uint32_t granularity = geometry_.granularity;
    const uint64_t write_start = operation.offset, write_end = operation.offset + uint64_t{operation.len};
    uint32_t from = 0, to = geometry_.granules;
    while (from < plan.first && !index_->is_allocated(plan.head, from)) from++;
    while (to > plan.first + plan.count && !index_->is_allocated(plan.head, to - 1)) to--;
    const uint64_t start = uint64_t{from} * granularity, end = uint64_t{to} * granularity;
    const uint64_t old_offset = block_offset(index_->at(plan.head).block), new_offset = block_offset(plan.block);
    Buffer buffer = loop_.buffers().allocate(std::min(end - start, kCopyBytes));
    for (uint64_t position = start; position < end;) {
        const uint64_t length = std::min(end - position, kCopyBytes);
        iovec iov{buffer.data(), length};
        const uint64_t cover_start = std::max(position, write_start), cover_end = std::min(position + length, write_end);
        const bool covered = cover_start == position && cover_end == position + length;
        if (!covered) {
            Task<int> reading = data_->read(&iov, 1, old_offset + position);
            const int status = co_await reading;
            if (status < 0) co_return status;
        }
        if (cover_start < cover_end)
            gather(buffer.data() + (cover_start - position), operation.iov, operation.iov_count, cover_start - write_start,
                   cover_end - cover_start);
        Task<int> writing = data_->write(&iov, 1, new_offset + position);
        const int status = co_await writing;
        if (status < 0) co_return status;
        position += length;
    }
    co_return 0;
}

/// Over one granule that is in use: the entry with the new checksum is durable before the data is touched (safety.md 4).
Task<int64_t> Blockstore::announced_write(ActiveObject& active, Operation& operation, const WritePlan& plan) {
    LogIntent intent;
    log_->begin_intent(intent);
    log_->append(active.entry);
    active.entry_appended = true;
    const uint64_t position = log_->appended();
    Task<int> committing = log_->commit();
    int status = co_await committing;
    if (status < 0) {
        active.entry_appended = false;
        intent.unlink();
        co_return -EIO;
    }
    Task<int> writing = write_data(operation, plan);
    status = co_await writing;
    active.entry_appended = false;
    if (status < 0) {
        VITASTOR_PROBE("data of an announced write failed");
        clean_buffer_.clear();
        index_->encode_full(plan.head, clean_buffer_);
        log_->append(clean_buffer_);
        log_->end_intent(intent);
        Task<int> undoing = log_->commit();
        const int undone = co_await undoing;
        co_return undone < 0 ? -EIO : status;
    }
    log_->note_data_written();
    if (options_.immediate_commit != ImmediateCommit::none) {
        active.entry_appended = true;
        Task<int> flushing = data_->flush();
        status = co_await flushing;
        active.entry_appended = false;
        if (status < 0) {
            log_->fail(status);
            intent.unlink();
            co_return -EIO;
        }
    }
    log_->end_intent(intent);
    apply_entry(active, position);
    co_return operation.len;
}

// ---------------------------------------------------------------- log, then index

Task<int> Blockstore::log_and_apply(ActiveObject& active, bool durable) {
    log_->append(active.entry);
    const uint64_t position = log_->appended();
    if (durable) {
        active.entry_appended = true;
        Task<int> committing = log_->commit();
        const int status = co_await committing;
        active.entry_appended = false;
        if (status < 0) co_return -EIO;
    }
    apply_entry(active, position);
    co_return 0;
}

void Blockstore::apply_entry(ActiveObject& active, uint64_t position) {
    EntryView entry;
    const bool valid = decode_entry(geometry_, active.entry, entry);
    VITASTOR_ASSERT(valid);
    release_position_ = position;
    const bool applied = index_->apply(entry, active.reserved, *this);
    VITASTOR_ASSERT(applied);
    active.reserved = kNoSlot;
    cover_slots();
}

/// From the index: no version uses the block. It may be used again once the entry that says so is durable.
void Blockstore::release_block(uint32_t block) {
    if (release_position_ <= log_->durable()) {
        give_back(block);
        block_waiters_.notify_all();
    } else {
        pending_free_.push_back({release_position_, block});
    }
}

void Blockstore::give_back(uint32_t block) {
    blocks_.free(block);
    if (discarder_) discarder_->on_free(block);
}

Task<uint32_t> Blockstore::allocate_block(bool is_overwrite) {
    for (;;) {
        if (blocks_.free_count() > (is_overwrite ? 0 : overwrite_reserve_)) {
            if (is_overwrite) overwrites_in_flight_++;
            co_return blocks_.allocate();
        }
        if (!pending_free_.empty()) {
            Task<int> committing = log_->commit();
            const int status = co_await committing;
            if (status < 0) co_return kNoBlock;
        } else if (discarder_ && discarder_->held_blocks() > 0) {
            VITASTOR_PROBE("write waits for a block under discard");
            runtime::WaitList::Waiter waiter = block_waiters_.wait();
            co_await waiter;
        } else if (is_overwrite && overwrites_in_flight_ > 0) {
            VITASTOR_PROBE("overwrite waits for a block");
            runtime::WaitList::Waiter waiter = block_waiters_.wait();
            co_await waiter;
        } else {
            co_return kNoBlock;
        }
    }
}

void Blockstore::end_overwrite(const WritePlan& plan) {
    if (!plan.is_overwrite) return;
    overwrites_in_flight_--;
    block_waiters_.notify_all();
}

// ---------------------------------------------------------------- the others

void Blockstore::encode_simple(ActiveObject& active, EntryType type, Version version) {
    EntryHeader header{};
    header.size = sizeof(header);
    header.type = type;
    header.inode = active.object.inode;
    header.stripe = active.object.stripe;
    header.version = version;
    active.entry.resize(sizeof(header));
    memcpy(active.entry.data(), &header, sizeof(header));
}

Task<int64_t> Blockstore::remove(ActiveObject& active, Operation& operation) {
    if (index_->find(operation.object) == kNoSlot) co_return 0;
    encode_simple(active, EntryType::del, operation.version);
    Task<int> logging = log_and_apply(active, options_.immediate_commit != ImmediateCommit::none);
    const int status = co_await logging;
    co_return status;
}

Task<int64_t> Blockstore::stabilize(ActiveObject& active, Operation& operation) {
    const uint32_t head = index_->find(operation.object);
    if (head == kNoSlot || operation.version > index_->at(head).version) co_return -ENOENT;
    const uint32_t slot = index_->find_version(head, operation.version);
    if (slot == kNoSlot || index_->at(slot).is_stable) {
        // Nothing to change, but what it stabilises has to be durable.
        Task<int> committing = log_->commit();
        const int status = co_await committing;
        co_return status < 0 ? -EIO : 0;
    }
    encode_simple(active, EntryType::stabilize, operation.version);
    Task<int> logging = log_and_apply(active, true);
    const int status = co_await logging;
    co_return status;
}

Task<int64_t> Blockstore::roll_back(ActiveObject& active, Operation& operation) {
    const uint32_t head = index_->find(operation.object);
    if (head == kNoSlot) co_return 0;
    if (index_->has_stable_after(head, operation.version)) co_return -EBUSY;
    if (index_->at(head).version <= operation.version) co_return 0;
    encode_simple(active, EntryType::rollback, operation.version);
    Task<int> logging = log_and_apply(active, true);
    const int status = co_await logging;
    co_return status;
}

Task<void> Blockstore::run_sync(Operation& operation) {
    int status = 0;
    if (!options_.readonly) {
        Task<int> committing = log_->commit();
        status = co_await committing;
    }
    finish(nullptr, operation, status < 0 ? -EIO : 0);
}

}  // namespace vitastor::store

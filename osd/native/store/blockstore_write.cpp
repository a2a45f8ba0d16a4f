// SPDX-License-Identifier: GPL-2.0-or-later
// Modifications: in which order data and log entry become durable, and when the index follows. Where data goes: placement.cpp.
#include <cstring>

#include "store/blockstore.hpp"
#include "store/iov.hpp"
#include "store/planted.hpp"

namespace vitastor::store {

using runtime::Task;
using wire::ImmediateCommit;

namespace {

constexpr uint64_t kCopyBytes = 1 << 20;   // of an unaligned buffer at a time
constexpr uint32_t kMaxVersions = 250;     // of one object
constexpr int kMaxPieces = 64;             // of one device write
constexpr int kPartPieces = 16;            // of a part of one; more are copied

}  // namespace

Task<void> Blockstore::run_modification(ActiveObject& active, Operation& operation) {
    int64_t result = 0;
    if (admits_now()) {
        writes_in_flight_++;
    } else {
        Task<int> admission = admit();
        result = co_await admission;
    }
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
    if (frozen_group_ != kNoGroup) settled_waiters_.notify_all();
    release_token();
    watch_idle();
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
    const uint64_t delay_ns = throttle_.delay_ns(loop_.now_ns(), cost_ns, std::max(throttle_.fill(data_->flushes_finished()), spare_fill()));
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
    } else if (const Version deleted = tombstone(operation.object); operation.version <= deleted) {
        operation.version = deleted;
        co_return -EEXIST;
    }
    const bool adds_version = plan.head == kNoSlot || !stable;
    if (adds_version) {
        const size_t inherited = plan.head == kNoSlot ? 0 : index_->redirects(plan.head).size_bytes();
        const uint64_t beside = plan.head == kNoSlot ? 0 : groups_.weight_at(plan.head);
        if (!geometry_.log_takes(live_bytes() + version_cost() + inherited, beside + version_cost() + inherited)) co_return -ENOSPC;
        new_versions_++;
    }
    plan.placement = place(plan, stable);
    const bool replaces_list = stable && plan.placement == Placement::fresh;
    if (plan.head != kNoSlot && index_->is_swapped(plan.head) && !replaces_list) {
        Task<void> fetching = fetch_list(plan.head);
        co_await fetching;
    }
    int64_t result = 0;
    active.was_moved = false;
    while (needs_room(plan)) {
        if (take_spare_now(plan)) break;
        Task<int> finding = find_room(active, plan, stable);
        result = co_await finding;
        if (result != -EAGAIN) break;
        active.was_moved = false;
        result = 0;
        plan.placement = place(plan, stable);
    }
    if (result == 0) {
        Task<int64_t> work = write_planned(active, operation, plan);
        result = co_await work;
    }
    if (adds_version) new_versions_--;
    if (result >= 0) client_bytes_written_ += operation.len;
    co_return result;
}

Task<int64_t> Blockstore::write_planned(ActiveObject& active, Operation& operation, WritePlan& plan) {
    if (plan.head == kNoSlot && index_->find_any(operation.object) == kNoSlot) {  // a tombstone gives its slot
        active.reserved = index_->reserve(operation.object);
        if (active.reserved == kNoSlot) co_return -ENOSPC;
        cover_slots();
    }
    encode_write(active, operation, plan);
    if (plan.placement == Placement::announced || plan.placement == Placement::decided) {
        Task<int64_t> work = announced_write(active, operation, plan);
        const int64_t result = co_await work;
        settle_spare(plan);
        co_return result;
    }
    int status = 0;
    if (plan.count) {
        Task<int> work = plan.placement == Placement::rewritten ? rewrite_block(operation, plan) : write_data(operation, plan);
        status = co_await work;
        log_->note_data_written();
    }
    if (status == 0) {
        const bool durable = options_.immediate_commit == ImmediateCommit::all ||
                             (options_.immediate_commit == ImmediateCommit::small && operation.len < geometry_.block_size);
        Task<int> logging = log_and_apply(active, durable);
        status = co_await logging;
        // After an error of the log the block stays taken: the entry may be on disk.
    } else if (plan.is_new_block()) {
        blocks_.free(plan.block);
    }
    if (plan.is_new_block()) end_overwrite(plan);
    settle_spare(plan);
    if (active.reserved != kNoSlot) {
        if (status < 0) index_->unreserve(active.reserved);
        active.reserved = kNoSlot;
    }
    co_return status < 0 ? status : int64_t{operation.len};
}

void Blockstore::settle_spare(const WritePlan& plan) {
    if (!plan.uses_spare()) return;
    spare_.settle(plan.spare, plan.spare_count());
    give_back_empty_spare();
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
    if (plan.placement == Placement::announced || plan.placement == Placement::decided) header.flags |= kEntryIntent;
    if (plan.placement == Placement::decided) header.decider = 1 + plan.decider - plan.first;
    if (plan.is_new_block()) header.flags |= kEntryBlock;
    if (plan.uses_spare()) header.flags |= kEntrySpare;
    if (operation.bitmap && (plan.head == kNoSlot ||
                             memcmp(operation.bitmap, index_->bitmap(plan.head), geometry_.bitmap_bytes) != 0))
        header.flags |= kEntryBitmap;
    const bool crcs = geometry_.checksums || (header.flags & kEntryIntent);
    header.size = static_cast<uint32_t>(sizeof(header) + (header.flags & kEntryBlock ? 4 : 0) +
                                        (header.flags & kEntrySpare ? sizeof(SparePlace) : 0) +
                                        (header.flags & kEntryBitmap ? geometry_.bitmap_bytes : 0) +
                                        (crcs ? 4 * size_t{plan.count} : 0));
    const bool settles = operation.op == StoreOp::write && plan.head != kNoSlot && !index_->at(plan.head).is_stable &&
                         index_->at(plan.head).version == operation.settles;
    if (settles) encode_simple(active, EntryType::stabilize, operation.settles);
    const size_t before = settles ? active.entry.size() : 0;
    active.entry.resize(before + header.size);
    uint8_t* out = active.entry.data() + before;
    memcpy(out, &header, sizeof(header));
    out += sizeof(header);
    if (header.flags & kEntryBlock) {
        memcpy(out, &plan.block, 4);
        out += 4;
    }
    if (header.flags & kEntrySpare) {
        memcpy(out, &plan.spare, sizeof(SparePlace));
        out += sizeof(SparePlace);
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
    const uint64_t offset = plan.placement == Placement::spare
                                ? block_offset(plan.spare.block) + uint64_t{plan.spare.place} * geometry_.granularity
                                : block_offset(plan.block) + operation.offset;
    if (operation.iov_count <= kMaxPieces && iov_aligned(operation.iov, operation.iov_count, logical_block_)) {
        return data_->write(operation.iov, operation.iov_count, offset);
    }
    return write_copied(operation, offset);
}

/// From memory that the device does not take.
Task<int> Blockstore::write_copied(const Operation& operation, uint64_t offset) {
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

/// Some granules of the operation, first counted from its start, to a place of the data device.
Task<int> Blockstore::write_part(const Operation& operation, uint32_t first, uint32_t count, uint64_t offset) {
    const uint64_t from = uint64_t{first} * geometry_.granularity, bytes = uint64_t{count} * geometry_.granularity;
    iovec pieces[kPartPieces];
    int used = 0;
    visit_range(operation.iov, operation.iov_count, from, bytes, [&](uint8_t* data, uint64_t length) {
        if (used < kPartPieces) pieces[used] = {data, length};
        used++;
    });
    Buffer copy;
    if (used > kPartPieces || !iov_aligned(pieces, used, logical_block_)) {
        copy = loop_.buffers().allocate(bytes);
        gather(copy.data(), operation.iov, operation.iov_count, from, bytes);
        pieces[0] = {copy.data(), bytes};
        used = 1;
    }
    Task<int> writing = data_->write(pieces, used, offset);
    const int status = co_await writing;
    co_return status;
}

/// Everything but the deciding granule, to where nobody reads.
Task<int> Blockstore::write_rest(const Operation& operation, const WritePlan& plan) {
    const uint32_t before = plan.decider - plan.first, behind = plan.count - 1 - before;
    const auto place = [&](uint32_t first) {
        return plan.rest_to_spare ? block_offset(plan.spare.block) + uint64_t{plan.spare.place} * geometry_.granularity
                                  : block_offset(plan.block) + (uint64_t{plan.first} + first) * geometry_.granularity;
    };
    int status = 0;
    if (before) {
        Task<int> writing = write_part(operation, 0, before, place(0));
        status = co_await writing;
    }
    if (behind && status == 0) {
        Task<int> writing = write_part(operation, before + 1, behind, place(before + 1));
        status = co_await writing;
    }
    log_->note_data_written();
    co_return status;
}

/// Over granules that are in use: the entry with the new checksums is durable before the data is touched (safety.md 4).
Task<int64_t> Blockstore::announced_write(ActiveObject& active, Operation& operation, const WritePlan& plan) {
    const bool is_decided = plan.placement == Placement::decided;
    if (is_decided) {
        Task<int> resting = write_rest(operation, plan);
        const int rested = co_await resting;
        if (rested < 0) co_return rested;
    }
    if (VITASTOR_FAULT(data_before_entry)) {
        Task<int> early = write_data(operation, plan);
        co_await early;
    }
    if (frozen_group_ != kNoGroup) {
        Task<void> waiting = wait_for_cleaner(active);
        co_await waiting;
    }
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
    const uint32_t number = plan.decider - plan.first;
    Task<int> writing = is_decided ? write_part(operation, number, 1, block_offset(plan.block) + uint64_t{plan.decider} * geometry_.granularity)
                                   : write_data(operation, plan);
    status = co_await writing;
    if (status < 0) {
        VITASTOR_PROBE("data of an announced write failed");
        clean_buffer_.clear();
        index_->encode_full(plan.head, clean_buffer_);
        log_->append(clean_buffer_);
        Task<int> undoing = log_->commit();  // until then a restart must look at the granule
        const int undone = co_await undoing;
        active.entry_appended = false;
        log_->end_intent(intent);
        co_return undone < 0 ? -EIO : status;
    }
    log_->note_data_written();
    if (options_.immediate_commit != ImmediateCommit::none) {
        Task<int> flushing = data_->flush();
        status = co_await flushing;
        if (status < 0) {
            active.entry_appended = false;
            log_->fail(status);
            intent.unlink();
            co_return -EIO;
        }
    }
    active.entry_appended = false;
    log_->end_intent(intent);
    apply_entry(active, position);
    co_return operation.len;
}

// ---------------------------------------------------------------- log, then index

Task<int> Blockstore::log_and_apply(ActiveObject& active, bool durable) {
    if (frozen_group_ != kNoGroup) {
        Task<void> waiting = wait_for_cleaner(active);
        co_await waiting;
    }
    log_->append(active.entry);
    const uint64_t position = log_->appended();
    if (durable) {
        active.entry_appended = true;
        if (!log_->error()) {
            MetaLog::Waiter waiter = log_->wait_durable();
            co_await waiter;
        }
        active.entry_appended = false;
        if (log_->error()) co_return -EIO;
    }
    apply_entry(active, position);
    co_return 0;
}

void Blockstore::apply_entry(ActiveObject& active, uint64_t position) {
    EntryView entry;
    release_position_ = position;
    for (std::span<const uint8_t> bytes = active.entry; !bytes.empty(); bytes = bytes.subspan(entry.header.size)) {
        uint32_t size;
        memcpy(&size, bytes.data(), sizeof(size));
        const bool valid = decode_entry(geometry_, bytes.first(size), entry);
        VITASTOR_ASSERT(valid);
        const bool applied = apply_to_index(entry, active.reserved);
        VITASTOR_ASSERT(applied);
    }
    const bool changes_list = entry.header.type == EntryType::write || entry.header.type == EntryType::rollback;
    if (lists_ && changes_list) note_list(index_->find(active.object), entry, position);
    if (entry.has(kEntrySpare)) index_->set_redirect_position(index_->applied_slot(), position);
    active.reserved = kNoSlot;
    give_back_empty_spare();
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
    if (operation.tombstone) {
        Task<int64_t> work = bury(active, operation);
        const int64_t result = co_await work;
        co_return result;
    }
    if (index_->find(operation.object) == kNoSlot) co_return 0;
    encode_simple(active, EntryType::del, operation.version);
    Task<int> logging = log_and_apply(active, options_.immediate_commit != ImmediateCommit::none);
    const int status = co_await logging;
    co_return status;
}

/// Deletes and leaves a tombstone, which is never older than what it covers.
Task<int64_t> Blockstore::bury(ActiveObject& active, Operation& operation) {
    if (operation.version == kNewestVersion) co_return -EINVAL;  // nothing could ever be created above it
    const uint32_t slot = index_->find_any(operation.object);
    if (slot != kNoSlot && operation.version < index_->at(slot).version) operation.version = index_->at(slot).version;
    if (operation.version == 0) co_return 0;
    const bool is_new = slot == kNoSlot || index_->at(slot).state != SlotState::tombstone;
    if (!is_new && operation.version == index_->at(slot).version) co_return 0;
    if (is_new && index_->tombstone_count() + new_tombstones_ >= options_.max_tombstones) co_return -ENOSPC;
    if (slot == kNoSlot && !geometry_.log_takes(live_bytes() + version_cost(), 0)) co_return -ENOSPC;
    if (is_new) new_tombstones_++;
    Task<int> enabling = enable(kTombstones);
    int status = co_await enabling;
    if (status == 0 && slot == kNoSlot) {
        active.reserved = index_->reserve(operation.object);
        if (active.reserved == kNoSlot) status = -ENOSPC;
        cover_slots();
    }
    if (status == 0) {
        encode_simple(active, EntryType::tombstone, operation.version);
        Task<int> logging = log_and_apply(active, options_.immediate_commit != ImmediateCommit::none);
        status = co_await logging;
    }
    if (active.reserved != kNoSlot) {
        index_->unreserve(active.reserved);
        active.reserved = kNoSlot;
    }
    if (is_new) new_tombstones_--;
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

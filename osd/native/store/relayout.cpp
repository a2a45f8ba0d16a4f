// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/relayout.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vitastor::store {

using runtime::Task;

namespace {

constexpr uint64_t kCommitBytes = 1 << 20;  // of the new log at a time
constexpr uint64_t kCopyBytes = 1 << 20;
constexpr uint32_t kSlice = 4000;           // slots looked at in one turn
using Number = unsigned long long;

uint64_t align_down(uint64_t value, uint64_t unit) { return value / unit * unit; }

}  // namespace

Relayout::~Relayout() {
    if (is_holding_) store_.end_activity();
}

int Relayout::refuse(int code, std::string text) {
    error_ = std::move(text);
    return code;
}

// ---------------------------------------------------------------- the plan

Task<int> Relayout::plan() {
    if (store_.state_ != Blockstore::State::open || store_.options_.readonly)
        co_return refuse(-EROFS, store_.options_.data_device + ": the store is not open for writing");
    while (store_.activity_ > 0) {
        runtime::WaitList::Waiter waiter = store_.idle_waiters_.wait();
        co_await waiter;
    }
    store_.begin_activity();  // the mover does not take the store for idle
    is_holding_ = true;
    was_shared_ = store_.options_.meta_device.empty();
    is_shared_ = places_.meta_device.empty();
    same_meta_ = was_shared_ == is_shared_ &&
                 (is_shared_ || (places_.meta_device == store_.options_.meta_device && places_.meta_offset == store_.options_.meta_offset));
    options_ = store_.options_;
    options_.data_size = places_.data_size;
    options_.meta_device = places_.meta_device;
    options_.meta_offset = places_.meta_offset;
    options_.meta_size = places_.meta_size;
    int status = open_new_meta();
    if (status < 0) co_return status;
    if (new_meta_) {
        Task<int> checking = check_new_meta();
        status = co_await checking;
        if (status < 0) co_return status;
    }
    status = plan_places();
    if (status < 0) co_return status;
    const Geometry& before = store_.geometry_;
    changes_ = moves_log_ || after_.block_count != before.block_count;
    Task<int> counting = count_moves();
    status = co_await counting;
    co_return status;
}

int Relayout::open_new_meta() {
    if (is_shared_) return 0;
    if (same_meta_) {
        meta_bytes_ = places_.meta_size ? places_.meta_size : store_.meta_bytes_;
        return 0;
    }
    if (places_.meta_device == store_.options_.data_device || places_.meta_device == store_.options_.meta_device)
        return refuse(-EINVAL, places_.meta_device + ": the metadata can move to another device, or into one area with the data; "
                                                     "not to another place of a device that the store uses already");
    runtime::FileOptions file;
    file.io = store_.options_.meta_io;
    Result<runtime::File> handle = store_.loop_.open_file(places_.meta_device, file);
    if (!handle.ok())
        return refuse(handle.status().code(), handle.status().message().empty()
                                                  ? places_.meta_device + ": cannot open: " + strerror(-handle.status().code())
                                                  : handle.status().message());
    new_meta_ = std::make_unique<Device>(store_.loop_, handle.value(), true);
    const uint64_t total = store_.loop_.file_info(handle.value()).size_bytes;
    if (places_.meta_offset % kPageSize || places_.meta_offset >= total || places_.meta_size > total - places_.meta_offset)
        return refuse(-EINVAL, places_.meta_device + ": the area at " + std::to_string(places_.meta_offset) + " of " +
                                   std::to_string(places_.meta_size) + " bytes does not lie inside its " + std::to_string(total) +
                                   " bytes (offsets are multiples of 4096)");
    meta_bytes_ = places_.meta_size ? places_.meta_size : total - places_.meta_offset;
    return 0;
}

/// Zeroes, or what an interrupted resize of this OSD has left; anything else there is somebody's.
Task<int> Relayout::check_new_meta() {
    Buffer page = store_.loop_.buffers().allocate(kPageSize);
    iovec iov{page.data(), kPageSize};
    Task<int> reading = new_meta_->read(&iov, 1, places_.meta_offset);
    const int status = co_await reading;
    if (status < 0) co_return refuse(status, places_.meta_device + ": cannot read: " + strerror(-status));
    Superblock super;
    memcpy(&super, page.data(), sizeof(super));
    const bool ours = memcmp(super.magic, kSuperMagic, sizeof(super.magic)) == 0 && super.osd_num == store_.options_.osd_num;
    const bool zero = std::all_of(page.data(), page.data() + kPageSize, [](uint8_t byte) { return byte == 0; });
    if (ours || zero || places_.force) co_return 0;
    co_return refuse(-EEXIST, places_.meta_device + ": something else begins at byte " + std::to_string(places_.meta_offset) +
                                  "; clear its first 4096 bytes if it may be overwritten");
}

/// The smallest start of the data area (from data_offset on) that keeps blocks where they are.
uint64_t Relayout::first_fit(uint64_t least) const {
    const uint64_t size = after_.block_size;
    const uint64_t phase = (store_.geometry_.data_offset - options_.data_offset) % size;
    return least + (phase + size - least % size) % size;
}

/// On the device of the metadata.
Relayout::Range Relayout::log_range(const Geometry& geometry) const {
    return {geometry.log_offset, geometry.log_offset + geometry.log_pages * kPageSize};
}

int Relayout::plan_places() {
    after_ = store_.geometry_;
    const uint64_t least = uint64_t{kMinBlocks} * after_.block_size;
    if (places_.data_size < first_fit(kLogStart) + least)
        return refuse(-ENOSPC, options_.data_device + ": a data area of " + std::to_string(places_.data_size) + " bytes is too small");
    if (plan_in_place()) return 0;
    moves_log_ = true;
    if (!is_shared_) return plan_separate();
    const bool log_is_at_start = was_shared_ && store_.geometry_.log_offset == store_.geometry_.meta_area + kLogStart;
    if (log_is_at_start ? plan_log_at_end() || plan_log_at_start() : plan_log_at_start() || plan_log_at_end()) return 0;
    return refuse(-ENOSPC, options_.data_device + ": in " + std::to_string(places_.data_size) +
                               " bytes there is no place for a second metadata log beside the present one; choose a larger area, or "
                               "move the metadata to another device first");
}

/// The log stays if it is large enough and not in the way.
bool Relayout::plan_in_place() {
    if (!same_meta_) return false;
    const Geometry& before = store_.geometry_;
    const uint64_t start = before.data_offset - options_.data_offset;
    uint64_t end = places_.data_size;
    if (is_shared_ && before.log_offset > before.data_offset) {
        const Range log = log_range(before);
        if (log.end - options_.data_offset > end) return false;
        end = log.start - options_.data_offset;
    }
    const uint64_t blocks = end > start ? std::min<uint64_t>((end - start) / before.block_size, kNoBlock - 1) : 0;
    if (blocks < kMinBlocks) return false;
    // A shared area that grows behind a log at its end is not used by staying; a log that is asked to be larger must move.
    if (is_shared_ && before.log_offset > before.data_offset && places_.data_size >= before.block_size + log_range(before).end - options_.data_offset)
        return false;
    if (is_shared_ && places_.meta_size > before.log_pages * kPageSize) return false;
    if (!is_shared_ && before.log_offset + before.log_pages * kPageSize > before.meta_area + meta_bytes_) return false;
    // Asked for a larger one, it can only begin anew behind itself.
    if (!is_shared_ && places_.meta_size && before.meta_area + meta_bytes_ > 2 * log_range(before).end - before.log_offset) return false;
    Geometry grown = before;
    grown.block_count = blocks;
    const uint64_t live = blocks * (sizeof(EntryHeader) + before.version_bytes) + grown.redirect_bytes_max();
    if (blocks > before.block_count && live > before.live_limit_bytes()) return false;
    after_.block_count = blocks;
    return true;
}

bool Relayout::plan_log_at_end() {
    const uint64_t area = options_.data_offset, size = places_.data_size;
    const uint64_t start = first_fit(kLogStart);
    uint64_t blocks = std::min<uint64_t>((size - start) / after_.block_size, kNoBlock - 1);
    uint64_t log_bytes = 0;
    for (;;) {  // a few rounds: each takes off what the log of the previous count needs
        log_bytes = std::max(after_.log_pages_needed(blocks) * kPageSize, align_down(places_.meta_size, kPageSize));
        const uint64_t room = size > start + log_bytes ? align_down(size - log_bytes, kPageSize) - start : 0;
        const uint64_t fit = room / after_.block_size;
        if (fit >= blocks) break;
        blocks = fit;
        if (blocks < kMinBlocks) return false;
    }
    after_.meta_area = area;
    after_.data_offset = area + start;
    after_.block_count = blocks;
    after_.log_pages = log_bytes / kPageSize;
    after_.log_offset = area + align_down(size - log_bytes, kPageSize);
    after_.incompatible |= kLogElsewhere;
    return !was_shared_ || !log_range(after_).overlaps(log_range(store_.geometry_));
}

bool Relayout::plan_log_at_start() {
    const uint64_t area = options_.data_offset, size = places_.data_size;
    uint64_t blocks = std::min<uint64_t>(size / after_.block_size, kNoBlock - 1);
    for (;;) {
        const uint64_t log_bytes = std::max(after_.log_pages_needed(blocks) * kPageSize, align_down(places_.meta_size, kPageSize));
        const uint64_t start = first_fit(kLogStart + log_bytes);
        const uint64_t fit = size > start ? (size - start) / after_.block_size : 0;
        if (fit >= blocks) {
            after_.data_offset = area + start;
            after_.log_pages = log_bytes / kPageSize;
            break;
        }
        blocks = fit;
        if (blocks < kMinBlocks) return false;
    }
    after_.meta_area = area;
    after_.block_count = blocks;
    after_.log_offset = area + kLogStart;
    after_.incompatible &= ~kLogElsewhere;
    return !was_shared_ || !log_range(after_).overlaps(log_range(store_.geometry_));
}

int Relayout::plan_separate() {
    const uint64_t start = first_fit(kPageSize);  // page 0 is the copy of the superblock
    after_.block_count = std::min<uint64_t>((places_.data_size - start) / after_.block_size, kNoBlock - 1);
    after_.data_offset = options_.data_offset + start;
    after_.meta_area = places_.meta_offset;
    const uint64_t needed = after_.log_pages_needed(after_.block_count);
    Range room{places_.meta_offset + kLogStart, places_.meta_offset + meta_bytes_};
    if (same_meta_) {  // before or behind the present one
        const Range present = log_range(store_.geometry_);
        const uint64_t ahead = present.start - room.start, behind = room.end > present.end ? room.end - present.end : 0;
        if (ahead >= behind) room.end = present.start;
        else room.start = present.end;
    }
    const uint64_t pages = room.end > room.start ? (room.end - room.start) / kPageSize : 0;
    if (pages < needed) {
        char text[300];
        snprintf(text, sizeof(text), ": the metadata log of %llu blocks of %u bytes takes %llu bytes, and there are %llu%s",
                 Number(after_.block_count), after_.block_size, Number(needed * kPageSize + kLogStart), Number(pages * kPageSize + kLogStart),
                 same_meta_ ? " beside the present one; move the metadata to another device and back" : "");
        return refuse(-ENOSPC, places_.meta_device + text);
    }
    after_.log_offset = room.start;
    after_.log_pages = pages;
    if (after_.log_offset == after_.meta_area + kLogStart) after_.incompatible &= ~kLogElsewhere;
    else after_.incompatible |= kLogElsewhere;
    return 0;
}

/// True if the block, numbered as before, lies in the data area afterwards.
bool Relayout::stays(uint32_t block) const {
    const uint64_t place = store_.block_offset(block);
    return place >= after_.data_offset && place + after_.block_size <= after_.data_offset + after_.block_count * after_.block_size;
}

uint32_t Relayout::renumbered(uint32_t block) const {
    return static_cast<uint32_t>((store_.block_offset(block) - after_.data_offset) / after_.block_size);
}

Task<int> Relayout::count_moves() {
    uint64_t free_blocks = 0;
    BlockAllocator& blocks = store_.blocks_;
    for (uint64_t i = 0; i < store_.geometry_.block_count; i++) {
        if (i % (kSlice * 16) == kSlice * 16 - 1) {
            NextTurn turn(store_.loop_);
            co_await turn;
        }
        const auto block = static_cast<uint32_t>(i);
        const bool is_free = blocks.take(block);
        if (is_free) blocks.free(block);
        if (is_free && stays(block)) free_blocks++;
        if (!is_free && !stays(block)) blocks_to_move_++;
    }
    if (blocks_to_move_ <= free_blocks) co_return 0;
    char text[300];
    snprintf(text, sizeof(text), ": %llu blocks in use lie outside the new area, and inside only %llu blocks are free; choose a larger "
             "area, or take data off this OSD first", Number(blocks_to_move_), Number(free_blocks));
    co_return refuse(-ENOSPC, options_.data_device + text);
}

// ---------------------------------------------------------------- moving blocks

Task<int> Relayout::run() {
    if (!changes_) co_return 0;
    Task<int> clearing = clear_range();
    int status = co_await clearing;
    Task<void> quieting = quiet();
    co_await quieting;
    if (status == 0 && moves_log_) {
        uuid_ = store_.loop_.random_u64() | 1;
        Task<int> writing = write_log();
        status = co_await writing;
    }
    if (status == 0) {
        Task<int> switching = switch_over();
        status = co_await switching;
    }
    if (status < 0 && error_.empty()) error_ = options_.data_device + ": the resize has failed: " + strerror(-status);
    co_return status;
}

/// Nothing lies any more where blocks will not be: copies first, then an entry for each object that had something there. The index
/// stays as it is, moved_ says the rest; so the cleaner must not work, and the log must take all entries without it. A log that
/// stays must not even name blocks that will not be there: then everything is logged again, and the log starts from there.
Task<int> Relayout::clear_range() {
    Task<int> admission = store_.admit();  // room for one round of the cleaner
    int status = co_await admission;
    store_.release_token();
    Task<void> quieting = quiet();
    co_await quieting;
    if (status == 0) status = store_.log_->error();
    BlockAllocator& blocks = store_.blocks_;
    std::vector<uint32_t> leaving;
    for (uint64_t i = 0; i < store_.geometry_.block_count; i++) {
        const auto block = static_cast<uint32_t>(i);
        if (!stays(block) && !blocks.take(block)) leaving.push_back(block);
    }
    for (uint32_t block : leaving) {
        if (status < 0) co_return status;
        const uint32_t to = blocks.allocate();
        if (to == kNoBlock) co_return -ENOSPC;
        moved_.emplace(block, to);
        Task<int> copying = copy_block(block, to);
        status = co_await copying;
    }
    const bool renews_log = !moves_log_ && after_.block_count < store_.geometry_.block_count;
    if (status < 0 || (leaving.empty() && !renews_log)) co_return status;
    store_.log_->note_data_written();
    Task<int> flushing = store_.log_->commit();
    status = co_await flushing;
    if (renews_log) store_.log_->begin_page();
    const LogMark mark = store_.log_->mark();
    Index& index = *store_.index_;
    std::vector<uint8_t> bytes;
    for (uint32_t slot = 0; slot < index.slot_count() && status == 0; slot++) {
        if (slot % kSlice == kSlice - 1) {
            NextTurn turn(store_.loop_);
            co_await turn;
        }
        if (!index.is_linked(slot)) continue;
        bytes.clear();
        index.encode_full(slot, bytes);
        bool leaves = false;
        map_blocks(store_.geometry_, bytes, [&](uint32_t block) {
            const auto place = moved_.find(block);
            leaves = leaves || place != moved_.end();
            return place == moved_.end() ? block : place->second;
        });
        if (!leaves && !renews_log) continue;
        store_.log_->append(bytes);
        if (store_.log_->appended() - store_.log_->durable() < kCommitBytes) continue;
        Task<int> committing = store_.log_->commit();
        status = co_await committing;
    }
    if (status == 0) {
        store_.log_->note_data_written();
        Task<int> committing = store_.log_->commit();
        status = co_await committing;
    }
    if (status < 0 || !renews_log) co_return status;
    Task<int> renewing = store_.log_->set_tail(mark);
    status = co_await renewing;
    co_return status;
}

/// Nothing works on the present log any more but us.
Task<void> Relayout::quiet() {
    store_.log_->on_batch = nullptr;
    do {
        NextTurn turn(store_.loop_);
        co_await turn;
    } while (store_.cleaning_ || store_.naming_end_ || !store_.log_->is_idle());
    store_.loop_.disarm(store_.quiet_timer_);
}

Task<int> Relayout::copy_block(uint32_t from, uint32_t to) {
    const uint64_t size = after_.block_size;
    Buffer buffer = store_.loop_.buffers().allocate(std::min(size, kCopyBytes));
    for (uint64_t position = 0; position < size; position += kCopyBytes) {
        iovec iov{buffer.data(), std::min(size - position, kCopyBytes)};
        Task<int> reading = store_.data_->read(&iov, 1, store_.block_offset(from) + position);
        int status = co_await reading;
        if (status < 0) co_return status;
        Task<int> writing = store_.data_->write(&iov, 1, store_.block_offset(to) + position);
        status = co_await writing;
        if (status < 0) co_return status;
    }
    co_return 0;
}

// ---------------------------------------------------------------- the new log, and the switch

Task<int> Relayout::write_log() {
    Device& meta = new_meta_ ? *new_meta_ : is_shared_ ? *store_.data_ : *store_.meta_;
    store_.is_relaid_ = true;
    MetaLog log(meta, *store_.data_, after_, uuid_);
    // In the present area: the checkpoint that does not count, so that the one that counts stays.
    log.start(LogMark{}, LogMark{}, 0, same_meta_ ? store_.log_->checkpoint_sequence() : 0);
    Index& index = *store_.index_;
    log.note_objects(index.linked_count());
    std::vector<uint8_t> bytes;
    int status = 0;
    for (uint32_t slot = 0; slot < index.slot_count() && status == 0; slot++) {
        if (!index.is_linked(slot)) continue;
        bytes.clear();
        index.encode_full(slot, bytes);
        map_blocks(store_.geometry_, bytes, [this](uint32_t block) {
            const auto place = moved_.find(block);
            return renumbered(place == moved_.end() ? block : place->second);
        });
        log.append(bytes);
        if (log.appended() - log.durable() < kCommitBytes) continue;
        Task<int> committing = log.commit();
        status = co_await committing;
    }
    if (status == 0) {
        Task<int> committing = log.commit();
        status = co_await committing;
    }
    if (status == 0) {
        Task<int> checkpoint = log.set_tail(LogMark{});
        status = co_await checkpoint;
    }
    do {
        NextTurn turn(store_.loop_);
        co_await turn;
    } while (!log.is_idle());
    co_return status;
}

Task<int> Relayout::switch_over() {
    const uint64_t uuid = moves_log_ ? uuid_ : store_.uuid_;
    Device& data = *store_.data_;
    Device& meta = new_meta_ ? *new_meta_ : is_shared_ ? data : *store_.meta_;
    std::vector<uint8_t> page(kPageSize);
    int status = 0;
    if (is_shared_) {  // one page says it all
        encode_superblock(page.data(), after_, options_, uuid);
        Task<int> writing = data.write_page(options_.data_offset, page.data());
        status = co_await writing;
    } else if (new_meta_) {  // the page on the data device decides which metadata count
        encode_superblock(page.data(), after_, options_, uuid);
        Task<int> preparing = meta.write_page(options_.meta_offset, page.data());
        status = co_await preparing;
        if (status == 0) {
            Task<int> writing = data.write_page(options_.data_offset, page.data());
            status = co_await writing;
        }
    } else {  // the page on the metadata device decides; it allows for an old copy until that has followed
        encode_superblock(page.data(), after_, options_, uuid, store_.uuid_);
        Task<int> writing = meta.write_page(options_.meta_offset, page.data());
        status = co_await writing;
        encode_superblock(page.data(), after_, options_, uuid);
        if (status == 0) {
            Task<int> copying = data.write_page(options_.data_offset, page.data());
            status = co_await copying;
        }
        if (status == 0) {
            Task<int> ending = meta.write_page(options_.meta_offset, page.data());
            status = co_await ending;
        }
    }
    if (status == 0 && !was_shared_ && (is_shared_ || new_meta_)) {  // what is left behind is no store any more
        std::fill(page.begin(), page.end(), 0);
        Task<int> clearing = store_.meta_->write_page(store_.options_.meta_offset, page.data());
        status = co_await clearing;
    }
    co_return status;
}

}  // namespace vitastor::store

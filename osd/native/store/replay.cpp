// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/replay.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/crc32c.hpp"
#include "store/list_reader.hpp"
#include "store/planted.hpp"

namespace vitastor::store {

using runtime::Task;

namespace {

constexpr uint64_t kChunkPages = 64;  // read at a time; a few hundred microseconds of work
/// A page is at most two places behind the one before it.
constexpr uint64_t kWindow = 4;
/// How far behind the end pages are looked for that must not be there. A batch has 64 pages.
constexpr uint64_t kCheckPages = 256;
constexpr size_t kMaxEntry = 256 << 20;
constexpr uint64_t kMarks = 65536;
constexpr uint64_t kProgressPages = 65536;

using Number = unsigned long long;

}  // namespace

Replay::Replay(Device& meta, Device& data, Index& index, uint64_t uuid, const std::string& path, Logger& logger)
    : meta_(meta), data_(data), index_(index), geometry_(index.geometry()), uuid_(uuid), path_(path), logger_(logger), queue_(index) {
    chunk_ = meta.loop().buffers().allocate(kChunkPages * kPageSize);
}

int Replay::damage(uint64_t slot, const char* what) {
    const uint64_t offset = geometry_.log_offset + slot % geometry_.log_pages * kPageSize;
    char text[512];
    snprintf(text, sizeof(text), "the metadata log is damaged at byte %llu of the device: %s", Number(offset), what);
    return damage_at(offset, text);
}

int Replay::damage_at(uint64_t offset, std::string text) {
    if (observer && observer->on_damage(offset, text)) return 0;
    error_ = path_ + ": " + std::move(text) + ". Nothing was changed. If other copies of the data exist, replace this OSD";
    return -EIO;
}

Task<int> Replay::load_checkpoint() {
    iovec iov{chunk_.data(), 2 * kPageSize};
    const uint64_t start = geometry_.meta_area + kPageSize;
    Task<int> reading = meta_.read(&iov, 1, start);
    const int status = co_await reading;
    if (status < 0) {
        error_ = path_ + ": cannot read the checkpoints: " + strerror(-status);
        co_return status;
    }
    bool found = false;
    for (int i = 0; i < 2; i++) {
        Checkpoint checkpoint;
        memcpy(&checkpoint, chunk_.data() + i * kPageSize, sizeof(checkpoint));
        const uint32_t crc = checkpoint.crc;
        checkpoint.crc = 0;
        if (memcmp(checkpoint.magic, kCheckpointMagic, sizeof(checkpoint.magic)) != 0 ||
            crc32c(&checkpoint, sizeof(checkpoint)) != crc) {
            const uint8_t* page = chunk_.data() + i * kPageSize;
            if (observer && std::any_of(page, page + kPageSize, [](uint8_t byte) { return byte != 0; }))
                observer->on_damage(start + static_cast<uint64_t>(i) * kPageSize,
                                    "one of the two checkpoints is damaged or half written (the other one counts)");
            continue;
        }
        if (checkpoint.uuid != uuid_) continue;  // of an interrupted resize
        if (found && checkpoint.sequence < checkpoint_sequence) continue;
        found = true;
        checkpoint_sequence = checkpoint.sequence;
        tail = LogMark{checkpoint.tail_slot, checkpoint.tail_page, checkpoint.tail_previous};
        promised = checkpoint.durable;
    }
    if (found) co_return 0;
    if (observer) {
        Task<int> finding = find_start();
        const int start_status = co_await finding;
        co_return start_status;
    }
    const uint8_t* pages = chunk_.data();
    if (std::all_of(pages, pages + 2 * kPageSize, [](uint8_t byte) { return byte == 0; })) {
        error_ = path_ + ": there is no metadata log behind the superblock. Nothing was changed. Check that data_device and "
                         "meta_device (and their offsets) are not exchanged";
        co_return -EINVAL;
    }
    error_ = path_ + ": both checkpoints of the metadata log are damaged. Nothing was changed. If other copies of the data "
                     "exist, replace this OSD";
    co_return -EIO;
}

/// The page at an absolute place, or null after a read error (error_ is set). Valid until the next call.
Task<const uint8_t*> Replay::page_at(uint64_t slot) {
    const uint64_t physical = slot % geometry_.log_pages;
    if (physical < chunk_start_ || physical >= chunk_start_ + chunk_pages_) {
        chunk_pages_ = std::min(kChunkPages, geometry_.log_pages - physical);
        chunk_start_ = physical;
        iovec iov{chunk_.data(), chunk_pages_ * kPageSize};
        Task<int> reading = meta_.read(&iov, 1, geometry_.log_offset + physical * kPageSize);
        const int status = co_await reading;
        if (status < 0 && observer) {
            Task<void> salvaging = read_singly();
            co_await salvaging;
        } else if (status < 0) {
            char text[256];
            snprintf(text, sizeof(text), "%s: cannot read the metadata log at byte %llu: %s", path_.c_str(),
                     Number(geometry_.log_offset + physical * kPageSize), strerror(-status));
            error_ = text;
            co_return nullptr;
        }
    }
    co_return chunk_.data() + (physical - chunk_start_) * kPageSize;
}

/// The pages of the chunk one by one; those that cannot be read become zeroes.
Task<void> Replay::read_singly() {
    for (uint64_t i = 0; i < chunk_pages_; i++) {
        iovec iov{chunk_.data() + i * kPageSize, kPageSize};
        const uint64_t offset = geometry_.log_offset + (chunk_start_ + i) * kPageSize;
        Task<int> reading = meta_.read(&iov, 1, offset);
        const int status = co_await reading;
        if (status == 0) continue;
        memset(iov.iov_base, 0, kPageSize);
        observer->on_damage(offset, "the metadata log cannot be read at byte " + std::to_string(offset) + " of the device: " +
                                        strerror(-status));
        observer->on_lost({chunk_.data() + i * kPageSize, kPageSize});  // it may have been the newest of all
    }
}

bool Replay::is_page(const uint8_t* page) const {
    return is_log_page(page, uuid_);
}

/// Places in use hold pages from tail.page on, those behind the end older ones or none. Some twenty reads.
Task<uint64_t> Replay::look_ahead() {
    uint64_t used = 0, free = geometry_.log_pages, objects = 0;
    while (free - used > 1) {
        const uint64_t middle = used + (free - used) / 2;
        const uint64_t physical = (tail.slot + middle) % geometry_.log_pages;
        const uint64_t count = std::min(kWindow, geometry_.log_pages - physical);  // the place itself may have been left out
        iovec iov{chunk_.data(), count * kPageSize};
        Task<int> reading = meta_.read(&iov, 1, geometry_.log_offset + physical * kPageSize);
        const int status = co_await reading;
        if (status < 0) co_return 0;
        bool is_used = false;
        for (uint64_t i = 0; i < count; i++) {
            const uint8_t* page = chunk_.data() + i * kPageSize;
            PageHeader header;
            memcpy(&header, page, sizeof(header));
            if (header.page < tail.page || header.page - tail.page > middle + i || !is_page(page)) continue;
            is_used = true;
            objects = header.objects;
        }
        (is_used ? used : free) = middle;
    }
    // No object without an entry.
    co_return objects <= (free + kWindow) * (kPagePayload / sizeof(EntryHeader)) ? objects : 0;
}

Task<int> Replay::run() {
    index_.begin_loading();
    Task<int> loading = load_checkpoint();
    int status = co_await loading;
    if (status < 0) co_return status;
    if (!observer) {  // with one, on a damaged store, each page is read once and in order
        Task<uint64_t> looking = look_ahead();
        expected = co_await looking;
        while (!index_.expect(expected)) {
            NextTurn turn(meta_.loop());
            co_await turn;
        }
    }
    LogMark next = tail;
    for (;;) {
        Task<int> reading = read_chain(next);
        status = co_await reading;
        if (status < 0) co_return status;
        Task<int> checking = check_end(end.slot);
        status = co_await checking;
        if (status < 0) co_return status;
        if (status == 0 && start_was_lost_) {
            Task<int> looking = look_behind_end();
            status = co_await looking;
            if (status < 0) co_return status;
            break;
        }
        if (status == 0) break;
        Task<bool> finding = find_next(next);
        const bool found = co_await finding;
        if (!found) {
            Task<int> showing = show_lost_end();
            status = co_await showing;
            if (status < 0) co_return status;
            break;
        }
        observer->on_cut_entry(carry_);
        carry_.clear();  // the rest of this entry is lost
        // The damaged copy of a page may stand before an older copy of it that could be read.
        const uint64_t before = std::min<uint64_t>(kWindow, end.slot - tail.slot);
        Task<int> showing = show_lost(end.slot - before, next.slot);
        status = co_await showing;
        if (status < 0) co_return status;
    }
    max_sequence = std::max(max_sequence, promised);
    if (start_was_lost_) raise_tail();
    Task<void> completing = complete_lists();
    co_await completing;
    Task<int> verifying = verify();
    status = co_await verifying;
    co_return status;
}

Task<int> Replay::read_chain(LogMark from) {
    std::vector<uint8_t> current(kPageSize);
    PageHeader header{};
    bool have = false;
    int status = 0;
    uint64_t expected_page = from.page;
    uint64_t expected_previous = from.previous;
    uint64_t current_slot = from.slot, copy_slot = from.slot;
    uint64_t last_slot = from.slot;  // the last place that holds a copy of the current page
    const uint64_t window = VITASTOR_FAULT(small_window) ? 1 : kWindow;
    for (uint64_t slot = from.slot; slot < last_slot + window && slot < tail.slot + geometry_.log_pages; slot++) {
        Task<const uint8_t*> reading = page_at(slot);
        const uint8_t* page = co_await reading;
        if (!page) co_return -EIO;
        if (!is_page(page)) continue;
        PageHeader next;
        memcpy(&next, page, sizeof(next));
        if (have && next.page == header.page + 1 && next.previous == header.write_sequence) {
            queue_.push(current, current_slot, copy_slot);
            status = process_queue(false);
            if (status < 0) co_return status;
            expected_page = next.page;
            expected_previous = next.previous;
            current_slot = slot;
            have = false;
        }
        if (next.page != expected_page || next.previous != expected_previous) continue;
        last_slot = slot;
        if (have && next.write_sequence <= header.write_sequence) continue;
        header = next;
        memcpy(current.data(), page, kPageSize);
        copy_slot = slot;
        have = true;
        if ((slot - tail.slot) % kProgressPages == kProgressPages - 1) {
            const std::string of = expected ? " of about " + std::to_string(expected) : "";
            log(logger_, LogLevel::info, "%s: loaded %llu pages of the metadata log, %llu%s objects so far", path_.c_str(),
                Number(slot - tail.slot + 1), Number(index_.linked_count()), of.c_str());
        }
    }
    if (have) queue_.push(current, current_slot, copy_slot);
    status = process_queue(true);
    if (status < 0) co_return status;
    if (have) {
        end = LogMark{last_slot + 1, header.page + 1, header.write_sequence};
    } else {
        end = from;
    }
    max_sequence = std::max(max_sequence, end.previous);
    co_return 0;
}

/// What a crash may leave behind the end was on its way; a page that names a later write as durable means lost pages.
/// 0: that is the end; 1: pages are lost, and the observer wants to go on.
Task<int> Replay::check_end(uint64_t slot) {
    const uint64_t left = geometry_.log_pages - (slot - tail.slot);
    const uint64_t limit = observer ? left : std::min(kCheckPages, left);
    for (uint64_t i = 0; i < limit; i++) {
        Task<const uint8_t*> reading = page_at(slot + i);
        const uint8_t* page = co_await reading;
        if (!page) co_return -EIO;
        if (!is_page(page)) continue;
        PageHeader header;
        memcpy(&header, page, sizeof(header));
        max_sequence = std::max(max_sequence, header.write_sequence);
        if (header.write_sequence > end.previous && header.durable > end.previous) {
            const int status = damage(slot, "pages that were written before later ones are not readable");
            co_return status < 0 ? status : 1;
        }
    }
    if (promised > end.previous) {
        VITASTOR_PROBE("the end of the log is missing");
        const int status = damage(slot, "the newest pages, which a checkpoint names, are not readable");
        co_return status < 0 ? status : 1;
    }
    co_return 0;
}

Task<bool> Replay::find_next(LogMark& next) {
    for (uint64_t slot = end.slot; slot < tail.slot + geometry_.log_pages; slot++) {
        Task<const uint8_t*> reading = page_at(slot);
        const uint8_t* page = co_await reading;
        if (!page) co_return false;
        if (!is_page(page)) continue;
        PageHeader header;
        memcpy(&header, page, sizeof(header));
        if (header.write_sequence <= end.previous || header.page < end.page) continue;
        next = LogMark{slot, header.page, header.previous};
        co_return true;
    }
    co_return false;
}

Task<int> Replay::show_lost(uint64_t from, uint64_t to) {
    for (uint64_t slot = from; slot < to; slot++) {
        Task<const uint8_t*> reading = page_at(slot);
        const uint8_t* page = co_await reading;
        if (!page) co_return -EIO;
        if (!is_page(page)) observer->on_lost({page, kPageSize});
    }
    co_return 0;
}

/// The same for the newest pages of all, which nothing follows: a few places behind what could be read.
Task<int> Replay::show_lost_end() {
    const uint64_t before = std::min<uint64_t>(kWindow, end.slot - tail.slot);
    uint64_t shown = 0;
    for (uint64_t slot = end.slot - before; slot < std::min(end.slot + kWindow, tail.slot + geometry_.log_pages); slot++) {
        Task<const uint8_t*> reading = page_at(slot);
        const uint8_t* page = co_await reading;
        if (!page) co_return -EIO;
        if (is_page(page) || std::all_of(page, page + kPageSize, [](uint8_t byte) { return byte == 0; })) continue;
        observer->on_lost({page, kPageSize});
        shown++;
    }
    const std::vector<uint8_t> nothing(kPageSize);
    if (!shown) observer->on_lost(nothing);
    observer->on_cut_entry(carry_);
    carry_.clear();
    co_return 0;
}

int Replay::process_queue(bool all) {
    // An observer is told of pages, damage and lost pages in the order in which they lie.
    while (const LoadQueue::Page* page = queue_.pop(all || observer)) {
        const int status = process(page->bytes.data(), page->slot, page->copy);
        if (status < 0) return status;
    }
    return 0;
}

/// slot: the first place of the page; copy: the place of these bytes.
int Replay::process(const uint8_t* page, uint64_t slot, uint64_t copy) {
    PageHeader header;
    memcpy(&header, page, sizeof(header));
    const uint8_t* payload = page + sizeof(header);
    if (marks.empty() || header.page - marks.back().page > geometry_.log_pages / kMarks)
        marks.push_back(LogMark{slot, header.page, header.previous});
    const auto mark = static_cast<uint32_t>(marks.size() - 1);
    if (observer) observer->on_page(geometry_.log_offset + slot % geometry_.log_pages * kPageSize, header);
    if (header.complete_page > complete_page_) {
        complete_page_ = header.complete_page;
        prune();
    }
    uint32_t position = 0;
    const uint32_t first = header.first_entry == kNoEntry ? header.used : header.first_entry;
    if (!carry_.empty()) {
        uint32_t size = 0;
        if (carry_.size() >= sizeof(size)) memcpy(&size, carry_.data(), sizeof(size));
        // An entry cut off by a crash is followed by a page that starts with a new one.
        if (first > 0) {
            carry_.insert(carry_.end(), payload, payload + first);
            if (size == 0) memcpy(&size, carry_.data(), std::min(sizeof(size), carry_.size()));
            if (carry_.size() >= sizeof(EntryHeader) && carry_.size() == size) {
                if (apply(carry_, carry_page_, carry_slot_, carry_mark_) < 0 && damage(slot, "an entry does not make sense") < 0) return -EIO;
                carry_.clear();
            } else if (header.first_entry != kNoEntry || (size && carry_.size() >= size) ||
                       carry_.size() > kMaxEntry) {
                if (damage(slot, "an entry has a wrong length") < 0) return -EIO;
                carry_.clear();
            }
        } else {
            carry_.clear();
        }
    }
    position = first;
    while (position < header.used) {
        const uint32_t left = header.used - position;
        uint32_t size = 0;
        if (left >= sizeof(size)) {
            memcpy(&size, payload + position, sizeof(size));
            if (size < sizeof(EntryHeader)) return damage(slot, "an entry has a wrong length");  // the next page names its first
        }
        if (left < sizeof(size) || size > left) {
            carry_.assign(payload + position, payload + header.used);
            carry_page_ = header.page;
            carry_slot_ = copy;
            carry_mark_ = mark;
            break;
        }
        if (apply({payload + position, size}, header.page, copy, mark) < 0 && damage(slot, "an entry does not make sense") < 0) return -EIO;
        position += size;
    }
    return 0;
}

int Replay::apply(std::span<const uint8_t> bytes, uint64_t page, uint64_t slot, uint32_t mark) {
    EntryView entry;
    if (!decode_entry(geometry_, bytes, entry)) return -EINVAL;
    entries++;
    if (log_only) {
        observer->on_entry(entry, page, false);
        return 0;
    }
    const bool is_write = entry.header.type == EntryType::write;
    uint32_t head = kNoSlot;
    if ((is_write && entry.has(kEntryIntent)) || !pending_.empty()) head = index_.find(entry.object());
    if (head != kNoSlot && index_.at(head).is_pending) {
        // A later entry of the object: it was appended when the announced data had been written, and is durable after it.
        index_.at(head).is_pending = 0;
        for (Pending& pending : pending_) pending.dead = pending.dead || pending.slot == head;
    }
    if (is_write && entry.has(kEntryIntent) && head != kNoSlot) {
        Pending pending{};
        pending.slot = head;
        pending.block = index_.at(head).block;
        pending.first = entry.header.first;
        pending.count = entry.header.count;
        pending.decides = pending.first;
        pending.deciding_count = pending.count;
        if (entry.header.decider) {
            if (index_.at(head).older != kNoSlot) return -EINVAL;
            pending.decides = VITASTOR_FAULT(first_decides) ? pending.first : entry.deciding_granule();
            pending.deciding_count = 1;
            pending.is_decided = true;
            const std::span<const Redirect> runs = index_.redirects(head);
            pending.old_redirects.assign(runs.begin(), runs.end());
            pending.old_allocated.assign(index_.allocated(head), index_.allocated(head) + geometry_.bitmap_bytes);
        }
        for (uint32_t i = 0; i < pending.deciding_count; i++)
            if (!index_.is_at_home(head, pending.decides + i)) return -EINVAL;
        find_old_sums(pending);
        pending.new_crcs.resize(pending.count);
        memcpy(pending.new_crcs.data(), entry.crcs, 4 * size_t{pending.count});
        pending.page = page;
        pending.old_version = index_.at(head).version;
        pending.new_version = entry.header.version;
        pending.old_bitmap.assign(index_.bitmap(head), index_.bitmap(head) + geometry_.bitmap_bytes);
        pending_.push_back(std::move(pending));
        index_.at(head).is_pending = 1;
    }
    const bool applied = index_.apply(entry, kNoSlot, *this);
    if (applied && (entry.header.type == EntryType::full || entry.header.type == EntryType::tombstone ||
                    (is_write && entry.has(kEntryCreate)))) {
        index_.set_note(index_.applied_slot(), mark);
    }
    if (index_.may_swap() && applied && !entry.has(kEntryIntent) && index_.applied_slot() != kNoSlot &&
        index_.is_whole_list(index_.applied_slot(), entry))
        index_.swap_out(index_.applied_slot(), static_cast<uint32_t>(slot % geometry_.log_pages));
    if (observer) observer->on_entry(entry, page, applied);
    return 0;
}

/// The checksums before an announced write, as far as they are in memory.
void Replay::find_old_sums(Pending& pending) {
    pending.old_crcs.assign(pending.count, 0);
    pending.old_known.assign(pending.count, true);
    pending.base_page = 0;
    pending.base_version = 0;
    if (!geometry_.checksums) return;
    const auto& partial = index_.partial_lists();
    const auto found = partial.empty() ? partial.end() : partial.find(pending.slot);
    const bool is_swapped = index_.is_swapped(pending.slot);
    if (is_swapped) {
        pending.base_page = index_.swapped_page(pending.slot);
        pending.base_version = index_.at(pending.slot).version;
    } else if (found != partial.end()) {
        pending.base_page = found->second.page;
        pending.base_version = found->second.version;
    }
    for (uint32_t i = 0; i < pending.count; i++) {
        const uint32_t granule = pending.first + i;
        if (!index_.is_allocated(pending.slot, granule)) continue;
        pending.old_known[i] = !is_swapped && (found == partial.end() || found->second.knows(granule));
        if (pending.old_known[i]) pending.old_crcs[i] = index_.crc(pending.slot, granule);
    }
}

/// Lists of which only changes were met, and old checksums of announced writes, are read where an entry holds them.
Task<void> Replay::complete_lists() {
    if (!index_.may_swap()) co_return;
    ListReader reader(meta_, geometry_, uuid_, kChunkPages);
    SumList list;
    std::vector<std::pair<uint32_t, uint32_t>> order;  // by page
    for (const auto& [slot, partial] : index_.partial_lists()) order.emplace_back(partial.page, slot);
    std::sort(order.begin(), order.end());
    for (const auto& [page, slot] : order) {
        const Version version = index_.partial_lists().at(slot).version;
        const ObjectId object = index_.object(slot);
        Task<int> reading = reader.read(page, object, version, list);
        const int status = co_await reading;
        const uint32_t lost = index_.complete_list(slot, status < 0 ? nullptr : list.bits.data(), list.sums.data());
        if (lost == 0) continue;
        VITASTOR_PROBE("replay loses checksums");
        log(logger_, LogLevel::error, "%s: %u checksums of object %llx:%llx cannot be read from the metadata log: reads will fail with EDOM",
            path_.c_str(), lost, Number(object.inode), Number(object.stripe));
    }
    for (Pending& pending : pending_) {
        if (pending.dead || pending.base_version == 0) continue;
        Task<int> reading = reader.read(pending.base_page, index_.object(pending.slot), pending.base_version, list);
        const int status = co_await reading;
        if (status < 0) continue;  // what is not new is damage then
        for (uint32_t granule = 0, rank = 0; granule < geometry_.granules; granule++) {
            if (!(list.bits[granule / 8] & (1u << (granule % 8)))) continue;
            const uint32_t i = granule - pending.first;
            if (i < pending.count && !pending.old_known[i]) pending.old_crcs[i] = list.sums[rank];
            rank++;
        }
    }
}

void Replay::prune() {
    while (!pending_.empty() && pending_.front().page < complete_page_) pending_.pop_front();
}

/// At most one announced write of each object is in question: see apply().
Task<int> Replay::verify() {
    Buffer buffer;
    for (const Pending& pending : pending_) {
        const Slot& slot = index_.at(pending.slot);
        if (pending.dead || slot.state != SlotState::head || slot.block != pending.block) continue;
        const uint64_t bytes = uint64_t{pending.deciding_count} * geometry_.granularity;
        if (buffer.size() < bytes) buffer = data_.loop().buffers().allocate(std::max<uint64_t>(bytes, kPageSize));
        iovec iov{buffer.data(), bytes};
        const uint64_t offset = geometry_.data_offset + uint64_t{pending.block} * geometry_.block_size +
                                uint64_t{pending.decides} * geometry_.granularity;
        Task<int> reading = data_.read(&iov, 1, offset);
        const int status = co_await reading;
        if (status < 0) {
            log(logger_, LogLevel::error, "%s: cannot read the block of an unfinished write at byte %llu: %s", path_.c_str(),
                Number(offset), strerror(-status));
            damaged_granules += pending.deciding_count;
            continue;
        }
        settle(pending, buffer.data());
    }
    for (const Pending& pending : pending_) index_.at(pending.slot).is_pending = 0;
    std::sort(reverted.begin(), reverted.end());
    reverted.erase(std::unique(reverted.begin(), reverted.end()), reverted.end());
    co_return 0;
}

/// The object as it was before a write with a deciding granule: allocated granules, redirects, checksums.
void Replay::take_back(const Pending& pending) {
    const VersionHeader version{pending.old_version, pending.block, kEntryStable, static_cast<uint16_t>(pending.old_redirects.size())};
    EntryHeader header{};
    header.type = EntryType::full;
    header.count = 1;
    header.inode = index_.object(pending.slot).inode;
    header.stripe = index_.object(pending.slot).stripe;
    header.version = pending.old_version;
    std::vector<uint8_t> bytes(sizeof(header));
    const auto put = [&bytes](const void* data, size_t size) {
        bytes.insert(bytes.end(), static_cast<const uint8_t*>(data), static_cast<const uint8_t*>(data) + size);
    };
    put(&version, sizeof(version));
    put(pending.old_bitmap.data(), pending.old_bitmap.size());
    put(pending.old_allocated.data(), pending.old_allocated.size());
    put(pending.old_redirects.data(), pending.old_redirects.size() * sizeof(Redirect));
    for (uint32_t granule = 0; geometry_.checksums && granule < geometry_.granules; granule++) {
        if (!(pending.old_allocated[granule / 8] & (1u << (granule % 8)))) continue;
        const uint32_t i = granule - pending.first;
        const uint32_t crc = i < pending.count ? pending.old_crcs[i] : index_.crc(pending.slot, granule);
        put(&crc, sizeof(crc));
    }
    header.size = static_cast<uint32_t>(bytes.size());
    memcpy(bytes.data(), &header, sizeof(header));
    EntryView old;
    if (decode_entry(geometry_, bytes, old)) index_.apply(old, kNoSlot, *this);  // else places are wrong, and the start is refused
}

/// data: what the granules hold. All new: the write happened. Else it did not, and what is not as it was before is damage.
void Replay::settle(const Pending& pending, const uint8_t* data) {
    std::vector<uint32_t> damaged;
    uint32_t done = 0, undone = 0;
    for (uint32_t i = 0; i < pending.deciding_count; i++) {
        const uint32_t disk_crc = crc32c(data + uint64_t{i} * geometry_.granularity, geometry_.granularity);
        const uint32_t granule = pending.decides + i, k = granule - pending.first;
        const bool is_new = disk_crc == pending.new_crcs[k];
        if (is_new) done++;
        else undone++;
        if (geometry_.checksums ? disk_crc != pending.old_crcs[k] : is_new) damaged.push_back(granule);
    }
    if (undone == 0 || VITASTOR_FAULT(nothing_taken_back)) return;
    VITASTOR_PROBE("announced write taken back in replay");
    if (pending.is_decided && !VITASTOR_FAULT(redirects_kept)) {
        VITASTOR_PROBE("write with a deciding granule taken back in replay");
        take_back(pending);
    } else {
        if (geometry_.checksums)
            for (uint32_t i = 0; i < pending.count; i++) index_.set_crc(pending.slot, pending.first + i, pending.old_crcs[i]);
        index_.revert(pending.slot, pending.old_version, pending.old_bitmap.data());
    }
    reverted.push_back(pending.slot);
    if (damaged.empty()) return;
    if (done) VITASTOR_PROBE("announced write of several granules is torn");
    const ObjectId object = index_.object(pending.slot);
    for (uint32_t granule : damaged) {
        damaged_granules++;
        log(logger_, LogLevel::error, "%s: granule %u of object %llx:%llx %s%s", path_.c_str(), granule, Number(object.inode),
            Number(object.stripe),
            done ? "was written, others of the same write were not: the device does not write atomic_write_size whole or not at all"
                 : "holds neither its old nor its new data",
            geometry_.checksums ? "; reads of it will fail with EDOM" : "");
        if (observer) observer->on_damaged_granule(object, granule);
    }
}

}  // namespace vitastor::store

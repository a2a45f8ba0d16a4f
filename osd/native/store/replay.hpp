// SPDX-License-Identifier: GPL-2.0-or-later
// Reads the metadata log once from its start to its end and rebuilds the index. Then looks at the data of those in-place
// writes that are not known to be complete: new checksum = it happened, old = it did not, neither = damage (named, kept,
// answered with -EDOM when read).
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "runtime/task.hpp"
#include "store/device.hpp"
#include "store/index.hpp"
#include "store/load_queue.hpp"
#include "store/meta_log.hpp"

namespace vitastor::store {

/// What tools want to know of a replay. Called on the loop's thread, from inside run().
class ReplayObserver {
public:
    /// A page of the log counts. offset: bytes on the metadata device.
    virtual void on_page(uint64_t /*offset*/, const PageHeader& /*header*/) {}
    /// A sound entry, in order. applied: false if its object is not there (its full entry, or its deletion, may come later).
    virtual void on_entry(const EntryView& /*entry*/, uint64_t /*page*/, bool /*applied*/) {}
    /// The metadata are damaged at a byte of their device. True: go on behind the damage. The result is not to be written on.
    virtual bool on_damage(uint64_t /*offset*/, const std::string& /*text*/) { return false; }
    /// A page between the last one that could be read and the one behind the damage; kPageSize bytes as they are on the disk.
    virtual void on_lost(std::span<const uint8_t> /*page*/) {}
    /// An entry whose end was lost: its first bytes.
    virtual void on_cut_entry(std::span<const uint8_t> /*start*/) {}
    /// A granule holds neither what its last write announced nor what was there before.
    virtual void on_damaged_granule(const ObjectId& /*object*/, uint32_t /*granule*/) {}

protected:
    ~ReplayObserver() = default;
};

class Replay final : private BlockSink {
public:
    ReplayObserver* observer = nullptr;  ///< set before run()
    bool log_only = false;               ///< entries go to the observer alone; the index stays empty
    Replay(Device& meta, Device& data, Index& index, uint64_t uuid, const std::string& path, Logger& logger);

    /// 0, or an errno with error().
    runtime::Task<int> run();
    const std::string& error() const { return error_; }

    // ---- results
    LogMark tail;
    LogMark end;  ///< previous: write_sequence of the last page
    uint64_t checkpoint_sequence = 0;
    uint64_t promised = 0;  ///< write_sequence up to which the newest checkpoint says that the log is durable
    /// Writes announced in pages from this one on were looked at; reverted ones stay open until their full entries are durable.
    uint64_t complete_page() const { return complete_page_; }
    uint64_t max_sequence = 0;  ///< newest write found, also behind the end
    std::vector<uint32_t> reverted;  ///< heads whose announced write did not happen: log them in full before anything else
    /// Places in the log, not more than about kMarks. The note of each head and tombstone says from which of them on it is needed.
    SegmentedVector<LogMark> marks;
    uint64_t entries = 0;
    uint64_t expected = 0;  ///< objects and tombstones, as one of the last pages tells; 0: unknown
    uint64_t damaged_granules = 0;

private:
    struct Pending {
        uint32_t base_page;      ///< where old checksums are that were not in memory
        Version base_version;    ///< 0: all were
        std::vector<bool> old_known;
        uint32_t slot;
        uint32_t block;
        uint32_t first, count;
        uint64_t page;
        Version old_version, new_version;
        std::vector<uint8_t> old_bitmap;
        std::vector<uint32_t> old_crcs, new_crcs;
        uint32_t decides, deciding_count;  ///< granules that tell whether it happened: all, or one
        bool is_decided;                   ///< one; then also:
        std::vector<uint8_t> old_allocated;
        std::vector<Redirect> old_redirects;
        bool dead;
    };

    void release_block(uint32_t) override {}  // who owns what is counted at the end
    void use_spare(const Redirect&, uint32_t) override {}
    void release_spare(uint32_t, uint32_t, uint32_t) override {}
    runtime::Task<int> load_checkpoint();
    runtime::Task<int> find_start();
    runtime::Task<int> look_behind_end();
    void raise_tail();
    runtime::Task<const uint8_t*> page_at(uint64_t slot);
    bool is_page(const uint8_t* page) const;
    /// The number of objects that the last pages tell of, found by halving; 0: unknown. A hint: bytes from anywhere may be in it.
    runtime::Task<uint64_t> look_ahead();
    /// Follows the chain of pages from a place on; `end` is where it stops.
    runtime::Task<int> read_chain(LogMark from);
    runtime::Task<int> check_end(uint64_t slot);
    /// The first page behind `end` that is newer than it: where reading goes on after lost pages. False: none.
    runtime::Task<bool> find_next(LogMark& next);
    runtime::Task<int> show_lost(uint64_t from, uint64_t to);
    runtime::Task<int> show_lost_end();
    runtime::Task<void> read_singly();
    /// Those pages of queue_ that have waited long enough.
    int process_queue(bool all);
    int process(const uint8_t* page, uint64_t slot, uint64_t copy);
    int apply(std::span<const uint8_t> bytes, uint64_t page, uint64_t slot, uint32_t mark);
    void find_old_sums(Pending& pending);
    runtime::Task<void> complete_lists();
    void prune();
    runtime::Task<int> verify();
    void settle(const Pending& pending, const uint8_t* data);
    void take_back(const Pending& pending);
    /// 0 if the observer wants to go on.
    int damage(uint64_t slot, const char* what);
    int damage_at(uint64_t offset, std::string text);

    Device& meta_;
    Device& data_;
    Index& index_;
    const Geometry& geometry_;
    uint64_t uuid_;
    std::string path_;
    Logger& logger_;
    std::string error_;
    Buffer chunk_;
    uint64_t chunk_start_ = UINT64_MAX;  ///< physical page of chunk_
    uint64_t chunk_pages_ = 0;
    LoadQueue queue_;  ///< empty but for read_chain()
    std::vector<uint8_t> carry_;  ///< an entry whose end is in a later page
    uint64_t carry_page_ = 0, carry_slot_ = 0;
    uint32_t carry_mark_ = 0;
    std::deque<Pending> pending_;
    uint64_t complete_page_ = 0;
    bool start_was_lost_ = false;  ///< both checkpoints are: the log is read from its oldest page on
};

}  // namespace vitastor::store

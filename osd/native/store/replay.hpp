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
#include "store/meta_log.hpp"

namespace vitastor::store {

class Replay final : private BlockSink {
public:
    Replay(Device& meta, Device& data, Index& index, uint64_t uuid, const std::string& path, Logger& logger);

    /// 0, or an errno with error().
    runtime::Task<int> run();
    const std::string& error() const { return error_; }

    // ---- results
    LogMark tail;
    LogMark end;  ///< previous: write_sequence of the last page
    uint64_t checkpoint_sequence = 0;
    uint64_t max_sequence = 0;  ///< newest write found, also behind the end
    std::vector<uint32_t> reverted;  ///< heads whose announced write did not happen: log them in full before anything else
    /// The place from which each head's entries are needed (position in marks), by slot. Others: 0.
    std::vector<uint32_t> slot_pages;
    std::vector<LogMark> marks;
    uint64_t entries = 0;
    uint64_t damaged_granules = 0;

private:
    struct Pending {
        uint32_t slot;
        uint32_t block;
        uint32_t granule;
        uint32_t old_crc, new_crc;
        uint64_t page;
        Version old_version, new_version;
        std::vector<uint8_t> old_bitmap;
        bool dead;
        bool dropped;
    };

    void release_block(uint32_t) override {}  // who owns what is counted at the end
    runtime::Task<int> load_checkpoint();
    runtime::Task<const uint8_t*> page_at(uint64_t slot);
    bool is_page(const uint8_t* page) const;
    runtime::Task<int> check_end(uint64_t slot);
    int process(const uint8_t* page, uint64_t slot);
    int apply(std::span<const uint8_t> bytes, uint32_t page_index);
    void prune();
    runtime::Task<int> verify();
    void settle(std::vector<Pending*>& chain, uint32_t disk_crc);
    int damage(uint64_t slot, const char* what);

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
    std::vector<uint8_t> carry_;  ///< an entry whose end is in a later page
    uint32_t carry_page_ = 0;
    std::deque<Pending> pending_;
    uint64_t complete_page_ = 0;
};

}  // namespace vitastor::store

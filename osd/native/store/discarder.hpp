// SPDX-License-Identifier: GPL-2.0-or-later
// Gives freed blocks back to the device: it keeps fewer useless copies (SSD), or takes less room (sparse file).
//
// A piece is discarded when all its blocks are free, a while after the last one became free, so that blocks which are used again
// soon are left alone. Blocks become free only when the entry that gave them up is durable. While a piece is being discarded its
// blocks are taken in the allocator: nobody else gets them. One discard at a time. An error ends it for good.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "store/block_allocator.hpp"
#include "store/device.hpp"
#include "store/geometry.hpp"

namespace vitastor::store {

struct DiscardOptions {
    bool freed = false;     ///< what becomes free while the store is open
    bool on_start = false;  ///< what is free when start() is called
    uint64_t min_bytes = 1 << 20;
    uint32_t granularity = 0;
};

class Discarder {
public:
    /// released: notified whenever blocks that were held are free again.
    Discarder(runtime::Loop& loop, Device& data, BlockAllocator& blocks, const Geometry& geometry, const DiscardOptions& options,
              const std::string& path, Logger& logger, runtime::WaitList& released);
    ~Discarder();

    void start();
    void on_free(uint32_t block);
    /// Blocks that are taken only for the discard at work; they will be free soon.
    uint64_t held_blocks() const { return held_; }
    uint64_t discards() const { return discards_; }
    uint64_t discarded_bytes() const { return discarded_bytes_; }
    /// Begins no further discard.
    void stop();
    bool is_idle() const { return !running_; }
    runtime::WaitList ended;  ///< notified at the end of what was at work, just before its last coroutine ends

private:
    runtime::Task<void> run();
    /// Takes the blocks of the next run of free pieces. False: nothing is left.
    bool next(uint64_t* first, uint64_t* count);
    bool take(uint64_t piece, uint64_t* first, uint64_t* count);
    uint64_t piece_count() const { return (geometry_.block_count + piece_blocks_ - 1) / piece_blocks_; }
    bool is_free(uint64_t piece) const;

    runtime::Loop& loop_;
    Device& data_;
    BlockAllocator& blocks_;
    Geometry geometry_;
    bool freed_, on_start_;
    std::string path_;
    Logger& logger_;
    runtime::WaitList& released_;
    uint64_t piece_blocks_;
    std::vector<uint32_t> queue_;  ///< pieces that were free once
    std::vector<uint32_t> batch_;  ///< sorted, from the largest
    uint64_t scanned_ = 0;         ///< on_start: pieces looked at
    struct Alarm : runtime::Timer {
        Discarder* discarder = nullptr;
    } alarm_;
    bool running_ = false;
    bool stopped_ = false;
    uint64_t held_ = 0;
    uint64_t discards_ = 0, discarded_bytes_ = 0;
};

}  // namespace vitastor::store

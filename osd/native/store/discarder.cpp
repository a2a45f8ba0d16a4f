// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/discarder.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>

namespace vitastor::store {

using runtime::Task;

namespace {

constexpr uint64_t kDelayNs = runtime::kNsPerSecond;
constexpr uint64_t kMaxBytes = 64 << 20;  // of one discard; more may hold the device up
constexpr size_t kMaxQueue = 65536;
constexpr uint64_t kScanPieces = 4096;    // looked at in one turn

}  // namespace

Discarder::Discarder(runtime::Loop& loop, Device& data, BlockAllocator& blocks, const Geometry& geometry,
                     const DiscardOptions& options, const std::string& path, Logger& logger, runtime::WaitList& released)
    : loop_(loop), data_(data), blocks_(blocks), geometry_(geometry), freed_(options.freed), on_start_(options.on_start),
      path_(path), logger_(logger), released_(released) {
    uint64_t bytes = std::max<uint64_t>({options.min_bytes, options.granularity, geometry.block_size});
    if (options.granularity) bytes = (bytes + options.granularity - 1) / options.granularity * options.granularity;
    piece_blocks_ = std::min((bytes + geometry.block_size - 1) / geometry.block_size, geometry.block_count);
    alarm_.discarder = this;
    alarm_.on_fire = [](runtime::Timer* self) {
        Discarder& discarder = *static_cast<Alarm*>(self)->discarder;
        if (discarder.running_ || discarder.stopped_) return;
        discarder.running_ = true;
        runtime::spawn(discarder.run());
    };
}

Discarder::~Discarder() {
    VITASTOR_ASSERT(!running_);
    loop_.disarm(alarm_);
}

void Discarder::start() {
    if (on_start_) loop_.arm(alarm_, loop_.now_ns() + kDelayNs);
}

void Discarder::stop() {
    stopped_ = true;
    loop_.disarm(alarm_);
}

void Discarder::on_free(uint32_t block) {
    const uint64_t piece = block / piece_blocks_;
    if (!freed_ || stopped_ || !is_free(piece)) return;
    if (queue_.size() >= kMaxQueue) {
        VITASTOR_PROBE("discard queue is full");  // discard_on_start or vitastor-disk trim finds them
        return;
    }
    queue_.push_back(static_cast<uint32_t>(piece));
    if (!running_ && !alarm_.armed()) loop_.arm(alarm_, loop_.now_ns() + kDelayNs);
}

bool Discarder::is_free(uint64_t piece) const {
    const uint64_t first = piece * piece_blocks_;
    return blocks_.is_free(first, std::min(piece_blocks_, geometry_.block_count - first));
}

bool Discarder::take(uint64_t piece, uint64_t* first, uint64_t* count) {
    const uint64_t begin = piece * piece_blocks_;
    const uint64_t blocks = std::min(piece_blocks_, geometry_.block_count - begin);
    if (*count > 0 && (begin != *first + *count || (*count + blocks) * geometry_.block_size > kMaxBytes)) return false;
    if (*count == 0) *first = begin;
    *count += blocks;
    return true;
}

bool Discarder::next(uint64_t* first, uint64_t* count) {
    *count = 0;
    while (!batch_.empty()) {
        const uint64_t piece = batch_.back();
        if (!is_free(piece)) {
            if (*count > 0) break;
        } else if (!take(piece, first, count)) {
            break;
        }
        batch_.pop_back();
    }
    const uint64_t limit = on_start_ ? std::min(piece_count(), scanned_ + kScanPieces) : 0;
    while (*count == 0 && scanned_ < limit) {
        while (scanned_ < limit && !is_free(scanned_)) scanned_++;
        while (scanned_ < limit && is_free(scanned_) && take(scanned_, first, count)) scanned_++;
    }
    for (uint64_t block = *first; block < *first + *count; block++) {
        const bool taken = blocks_.take(static_cast<uint32_t>(block));
        VITASTOR_ASSERT(taken);
    }
    held_ = *count;
    return *count > 0 || (on_start_ && scanned_ < piece_count());
}

Task<void> Discarder::run() {
    batch_.swap(queue_);
    queue_.clear();
    std::sort(batch_.begin(), batch_.end(), std::greater<uint32_t>());
    batch_.erase(std::unique(batch_.begin(), batch_.end()), batch_.end());
    uint64_t first = 0, count = 0;
    while (!stopped_ && next(&first, &count)) {
        if (count > 0) {
            Task<int> discarding = data_.discard(geometry_.data_offset + first * geometry_.block_size, count * geometry_.block_size);
            const int status = co_await discarding;
            for (uint64_t block = first; block < first + count; block++) blocks_.free(static_cast<uint32_t>(block));
            held_ = 0;
            released_.notify_all();
            if (status < 0) {
                log(logger_, status == -EOPNOTSUPP ? LogLevel::info : LogLevel::warning,
                    "%s: the device refuses to discard (%s): freed blocks are no longer discarded", path_.c_str(), strerror(-status));
                stopped_ = true;
                break;
            }
            discards_++;
            discarded_bytes_ += count * geometry_.block_size;
        }
        NextTurn turn(loop_);
        co_await turn;
    }
    batch_.clear();
    if (scanned_ >= piece_count()) on_start_ = false;
    running_ = false;
    if (!stopped_ && !queue_.empty()) loop_.arm(alarm_, loop_.now_ns() + kDelayNs);
    ended.notify_all();
}

}  // namespace vitastor::store

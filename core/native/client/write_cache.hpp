// SPDX-License-Identifier: GPL-2.0-or-later
// Acknowledged writes of one image that have not been sent yet: bytes by offset, newest on top, and those that are being
// written out right now underneath. Shared by all handles and contexts that a process has on the image; one lock, no I/O of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace vitastor::client {

class WriteCache {
public:
    struct Usage {
        std::atomic<uint64_t> bytes{0}, buffers{0};
    };
    /// A copy of one write. Counted in the image's usage while anybody holds it.
    struct Data {
        Data(std::shared_ptr<Usage> usage, uint64_t size);
        ~Data();
        const std::unique_ptr<uint8_t[]> bytes;
        const uint64_t size;

    private:
        const std::shared_ptr<Usage> usage_;
    };
    struct Piece {
        uint64_t offset = 0;  ///< image bytes
        uint64_t length = 0;
        std::shared_ptr<Data> data;
        uint64_t data_offset = 0;
        uint64_t seq = 0;  ///< of the write, or of an older one that it has replaced: which flushes wait for it
    };
    /// Adjacent pieces inside one object that are written out together.
    struct Run {
        uint64_t offset = 0, length = 0;
        std::vector<Piece> pieces;
    };
    enum class Coverage { none, some, all };

    /// Any thread, like all of this class.
    bool empty() const { return count_.load(std::memory_order_acquire) == 0; }
    uint64_t bytes() const { return usage_->bytes.load(std::memory_order_relaxed); }
    uint64_t buffers() const { return usage_->buffers.load(std::memory_order_relaxed); }
    std::shared_ptr<Data> make_data(uint64_t size) { return std::make_shared<Data>(usage_, size); }

    /// The newest bytes of the range from now on.
    /// generation: of the map that the writer knows.
    void put(uint64_t offset, std::shared_ptr<Data> data, uint64_t generation);
    /// Number of the last write.
    uint64_t last_seq() const { return seq_.load(std::memory_order_acquire); }
    /// What lies over [offset, offset + length), to be copied in this order.
    Coverage collect(uint64_t offset, uint64_t length, std::vector<Piece>& out) const;
    /// Takes something for writing out: of writes up to number `cut`, that overlaps [begin, end). Adjacent newer bytes go along. False: nothing now.
    /// It stays readable until ended().
    bool take(uint64_t cut, uint64_t begin, uint64_t end, uint64_t object_size, Run& out);
    /// ok: it is with the OSDs. Else it is to be written out again, under what is newer.
    void ended(const Run& run, bool ok);
    /// Writes up to number `cut` that overlap [begin, end) are not with the OSDs.
    bool pending(uint64_t cut, uint64_t begin, uint64_t end) const;
    /// Of what take() has handed out: how many, and how much of bytes() and buffers() it is, about.
    size_t runs_taken() const { return taken_.load(std::memory_order_relaxed); }
    uint64_t bytes_taken() const { return bytes_taken_.load(std::memory_order_relaxed); }
    uint64_t pieces_taken() const { return pieces_taken_.load(std::memory_order_relaxed); }
    /// The map of this generation says that the image has become smaller: what lies behind the end is dropped, unless somebody with a newer map has written.
    void cut_off(uint64_t size, uint64_t generation);

    /// Writing out in the background until there is room again.
    std::atomic<bool> draining{false};
    /// Operations of all contexts that wait for this cache.
    std::atomic<uint32_t> waiters{0};

private:
    struct Extent {
        uint64_t length = 0;
        std::shared_ptr<Data> data;
        uint64_t data_offset = 0;
        uint64_t seq = 0;
    };
    using Extents = std::map<uint64_t, Extent>;
    void split_at(uint64_t offset);
    void erase_range(uint64_t begin, uint64_t end);
    bool overlaps_run(uint64_t begin, uint64_t end) const;
    void count_taken(const Run& run, uint64_t sign);
    void recount() { count_.store(dirty_.size() + runs_.size(), std::memory_order_release); }

    const std::shared_ptr<Usage> usage_ = std::make_shared<Usage>();
    std::atomic<uint64_t> seq_{0};
    std::atomic<size_t> count_{0}, taken_{0};
    std::atomic<uint64_t> bytes_taken_{0}, pieces_taken_{0};
    mutable std::mutex mutex_;  // guards what follows
    Extents dirty_;                   ///< by offset, do not overlap
    std::map<uint64_t, Run> runs_;    ///< being written out; by offset, do not overlap
    uint64_t cursor_ = 0;             ///< where the next take() begins to look
    uint64_t generation_ = 0;         ///< newest of a put()
};

}  // namespace vitastor::client

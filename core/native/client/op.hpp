// SPDX-License-Identifier: GPL-2.0-or-later
// One operation of a caller and its parts, one part an object. From pools of the context; addresses are stable.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstdint>

#include "base/ids.hpp"
#include "base/list.hpp"
#include "net/connection.hpp"

namespace vitastor::client {

class Image;
class Context;
struct Op;
struct OsdLink;
struct ReplayState;

enum class OpKind : uint8_t {
    read,
    read_bitmap,    ///< which granules hold data; iov: one piece, the bits from `offset` on
    write,
    compare_write,
    discard,        ///< whole objects are deleted where that is safe, the rest is zeroed
    remove,         ///< one whole object; expected_version UINT64_MAX = unconditional
    flush,
    open,
    layer_read,     ///< internal: a hole of a layer in another pool, or its bitmap
    replay,         ///< internal: unsynced ranges of one object once more
};

/// What a part sends; differs from the kind of its operation for discards and replays.
enum class PartKind : uint8_t { read, bitmap, write, compare_write, zero, remove, compare_remove, sync };

/// Changes nothing.
inline bool is_read(PartKind kind) { return kind == PartKind::read || kind == PartKind::bitmap; }

/// Not in flight: on one of the context's lists through its ListNode.
struct Part : net::Call {
    Op* op = nullptr;
    PartKind kind = PartKind::read;
    PartKind synced_kind = PartKind::read;  ///< sync after a compare-and-set: what it was
    bool tracked = false;        ///< counted in the image's Unsynced as a write in flight
    bool force_primary = false;  ///< a local read has failed
    bool local_read = false;
    bool greeted = false;        ///< sent again behind a hello
    uint16_t limbo_rounds = 0;
    uint64_t offset = 0;         ///< image bytes
    uint32_t length = 0;
    InodeNum inode = 0;          ///< of the last try
    OsdLink* link = nullptr;     ///< of the last try
    uint32_t layers_left = 0;    ///< reads of other layers that this part waits for
    int64_t layer_error = 0;     ///< of one of them
    uint64_t chain_revision = 0; ///< of the last try, see InodeView
    uint64_t link_epoch = 0;     ///< of the connection of the last try
    uint64_t greetings = 0;      ///< of the link when it was sent
    uint64_t send_epoch = 0;     ///< count of connections of the process when it was sent
    uint64_t deadline_ns = 0;    ///< while on a retry list
    uint64_t range_seq = 0;      ///< replay: which range this is
    uint64_t start_seq = 0;      ///< tracked: number of the image's last acknowledgement when it was sent
    uint64_t version = 0;        ///< tracked, of the reply; 0: it names none
    iovec* many_iov = nullptr;   ///< reads with more than kMaxPayloadIov pieces: heap
    int iov_count = 0;
    Buffer bounce;               ///< writes with more than kMaxPayloadIov pieces
    Buffer bitmap_large;
    uint8_t bitmap_small[32];
};

struct Op : ListNode {
    static constexpr int kInlineIov = 4;

    OpKind kind = OpKind::read;
    bool internal = false;
    bool first_busy = false;  ///< `first` is in use
    bool slicing = false;     ///< parts are being made right now
    bool aligned = false;     ///< made by Unaligned: whole granules
    bool admitted = false;    ///< the image's limits let it pass
    bool ahead = false;       ///< not to be answered from what was read ahead
    bool counted = false;     ///< in the image's `writing`
    bool cached = false;      ///< it is beyond the write-back cache
    Context* context = nullptr;
    Image* image = nullptr;
    InodeNum fixed_inode = 0;  ///< internal ones: this inode instead of what the image's name says
    uint64_t offset = 0;
    uint64_t length = 0;
    uint64_t expected_version = 0;
    iovec* iov = nullptr;
    int iov_count = 0;
    iovec inline_iov[kInlineIov];
    void (*done)(Op* op) = nullptr;  ///< runs once, op.result is set; then the op goes back to its pool
    void (*done_fn)(void* arg, int64_t result, uint64_t version) = nullptr;
    void* done_arg = nullptr;
    int64_t result = 0;
    uint64_t version = 0;
    uint32_t parts_left = 0;
    uint64_t next_offset = 0;  ///< parts up to here have been made
    uint64_t end_offset = 0;
    uint64_t sync_cut = 0;  ///< flush: ranges up to this number
    uint64_t give_up_ns = 0;     ///< not 0: once this has passed, parts that would wait or be tried again fail
    Part* parent_part = nullptr;    ///< layer_read: the part that waits for it
    Buffer bounce;                  ///< layer_read over a coarser granularity: the wider range
    uint32_t bitmap_unit = 0;       ///< read_bitmap: bytes a bit
    uint64_t bounce_skip = 0;       ///< bytes of it before what is wanted
    iovec* bounce_target = nullptr; ///< where what is wanted goes; heap
    int bounce_target_count = 0;
    ReplayState* replay = nullptr;  ///< replay: what is left to send; heap
    Part first;             ///< most operations need no other
};

/// Calls visit(uint8_t* bytes, uint64_t done, uint64_t size) for the pieces of the caller's memory that hold `length` bytes of `op`, from `skip` on.
template <class Visit>
void each_piece(const Op& op, uint64_t skip, uint64_t length, Visit visit) {
    uint64_t done = 0;
    for (int i = 0; i < op.iov_count && done < length; i++) {
        const iovec& piece = op.iov[i];
        if (skip >= piece.iov_len) {
            skip -= piece.iov_len;
            continue;
        }
        const uint64_t size = std::min<uint64_t>(length - done, piece.iov_len - skip);
        visit(static_cast<uint8_t*>(piece.iov_base) + skip, done, size);
        done += size;
        skip = 0;
    }
}

/// Keeps what was freed, up to a bound; the rest goes back to the heap.
template <class T, unsigned kKeep>
class Pool {
public:
    ~Pool() {
        while (free_) {
            Node* next = free_->next;
            ::operator delete(free_);
            free_ = next;
        }
    }
    T* take() {
        void* memory = free_;
        if (free_) {
            free_ = free_->next;
            count_--;
        } else {
            memory = ::operator new(sizeof(T));
        }
        return new (memory) T;
    }
    void give(T* item) {
        item->~T();
        if (count_ >= kKeep) return ::operator delete(item);
        auto* node = new (item) Node{free_};
        free_ = node;
        count_++;
    }

private:
    struct Node {
        Node* next;
    };
    Node* free_ = nullptr;
    unsigned count_ = 0;
};

}  // namespace vitastor::client

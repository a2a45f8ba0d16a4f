// SPDX-License-Identifier: GPL-2.0-or-later
// One operation on one erasure-coded object at work: its plan, its sub-operations on chunks, its buffers. Everything is kept from
// use to use, so that a steady load allocates nothing.
#pragma once

#include <coroutine>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/buffer.hpp"
#include "erasure/stripe_plan.hpp"
#include "erasure/stripe_work.hpp"
#include "net/connection.hpp"
#include "pg/objects.hpp"
#include "serve/ec_rows.hpp"
#include "store/store.hpp"

namespace vitastor::serve {

class Osd;
struct EcWork;
struct Pg;

/// One sub-operation on one chunk: at the own store, or at another OSD. Pinned while it is under way.
struct ChunkCall {
    struct Local : store::Operation {
        ChunkCall* chunk = nullptr;
    } local;
    struct Remote : net::Call {
        ChunkCall* chunk = nullptr;
    } remote;
    EcWork* work = nullptr;
    uint32_t role = 0;
    OsdNum osd = 0;
    uint32_t len = 0;  ///< bytes asked for
    size_t first_iov = 0, iov_count = 0;  ///< its bytes, in EcWork::iov
    uint64_t start_ns = 0;
    wire::Opcode opcode{};
    int64_t result = 0;   ///< retval, or a negative errno
    Version version = 0;  ///< reads: the one read
    bool lost = false;    ///< no reply: connection gone or protocol broken
    uint8_t triple[wire::kTripleSize];
};

struct EcWork {
    Osd* osd = nullptr;
    std::shared_ptr<erasure::Codec> codec;
    erasure::StripeShape shape;
    erasure::Plan plan;
    erasure::StripeWork stripe;
    Buffer scratch;                ///< plan.scratch_bytes
    std::vector<uint8_t> bitmaps;  ///< by role
    std::vector<iovec> iov;        ///< pieces of all calls of this round; not touched while one is under way
    std::vector<std::unique_ptr<ChunkCall>> calls;
    size_t used = 0;  ///< of calls
    uint32_t pending = 0;
    std::coroutine_handle<> waiter = nullptr;

    // ---- writes of clean objects whose row is known (RowCache)
    bool known = false;     ///< known_bitmaps are the data chunks' in op->old_version, which every role has
    bool settles = false;   ///< op->old_version becomes stable along with the write
    bool long_way = false;  ///< some chunks did not have it: those are in `bad`, and everything else is read
    bool buried = false;    ///< the object is new, and its tombstone is here
    uint8_t known_bitmaps[RowCache::kBitmapsMax];

    // ---- where the chunks are, by role
    std::vector<OsdNum> holders;  ///< to read from; 0: nowhere
    erasure::RoleSet readable, writable, rebuild;
    uint32_t own = erasure::kRolesMax;  ///< role that is read from the own store
    /// Chunks that turned out to be outdated or unreadable in this operation.
    struct Bad {
        uint32_t role, flag;
        OsdNum osd;
    };
    std::vector<Bad> bad;
    std::vector<pg::Location> targets;  ///< of change_chunks

    uint8_t* bitmap(uint32_t role) { return bitmaps.data() + size_t{role} * shape.bitmap_bytes(); }
    std::span<std::unique_ptr<ChunkCall>> round() { return {calls.data(), used}; }
};

/// co_await until all calls of the round have ended.
struct ChunkCalls {
    EcWork& work;
    bool await_ready() const noexcept { return work.pending == 0; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept { work.waiter = waiter; }
    void await_resume() noexcept {}
};

/// An object with versions that all roles of its PG's current set have and that are not stable yet. In no list: it does not exist.
struct UnstableObject : ListNode {
    ObjectId object;
    Pg* pg = nullptr;
    UnstableObject* next_in_bucket = nullptr;
    Version unsynced = 0;  ///< the newest that waits for a SYNC; 0: none
    Version syncing = 0;   ///< `unsynced` when the SYNC under way began
    Version wanted = 0;    ///< durable on all roles: to be stabilised
    Version sending = 0;   ///< being stabilised; counted in Pg::running
    uint64_t due_ns = 0;   ///< `wanted` is sent by then, if no write takes it along
    uint64_t bytes = 0;    ///< in one chunk, written since it is wanted
    uint64_t unsynced_bytes = 0;
    uint32_t versions = 0; ///< wanted since one was made stable
    bool dropped = false;  ///< the PG re-peers: goes when `sending` is over
    bool awaited = false;  ///< a SYNC waits for it
};

/// What one SEC_STABILIZE tells an OSD.
struct StabilizeBatch {
    OsdNum osd = 0;
    std::vector<ObjectVersion> triples;
    std::vector<uint8_t> bytes;
};

/// What the sub-reads of an operation say together.
enum class ReadVerdict : uint8_t {
    good,    ///< one version everywhere
    absent,  ///< the object does not exist
    again,   ///< EcWork::bad has grown: plan without those
    mixed,   ///< different versions: plan again once, then the PG re-peers
    lost,    ///< a connection is gone
};

}  // namespace vitastor::serve

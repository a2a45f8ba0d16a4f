// SPDX-License-Identifier: GPL-2.0-or-later
// READ of erasure-coded objects by the OSD that holds the chunk (pool option local_reads; docs/adr/0049). Only what can be said
// without asking anybody is answered; everything else is refused with -EAGAIN, "ask the primary now".
//
// Invariant: what is answered is the newest acknowledged state of the chunk. A version is stable only when all chunks of it are
// durable, and acknowledged writes are here: so the newest version, if it is stable, is what the primary would answer, and cannot
// disappear. An unstable one may be acknowledged or may yet be rolled back: only the primary knows.
#include <cstring>

#include "serve/answer.hpp"
#include "serve/planted.hpp"

namespace vitastor::serve {

/// The lock of a PG whose primary says that it is clean, in a pool with local reads; else nullptr. What it said counts only as long as
/// nobody else has listed the PG since it did, and its number means what it meant then.
const pg::PgLock* Osd::clean_lock(const Pool& pool, const ObjectId& object) const {
    if (!pool.info.local_reads || pool.info.pg_count == 0) return nullptr;
    const PgId id{pool.info.id, pool.pg_of(object.stripe)};
    const pg::PgLock* lock = locks_.find(id);
    if (!lock || !pg::allows_local_reads(lock->state)) return nullptr;
    return list_fence_.allows(id, lock->connection) ? lock : nullptr;
}

/// May this OSD, which does not lead the PG, answer for the range?
bool Osd::may_read_here(const Pool& pool, const ObjectId& object, uint32_t offset, uint32_t len) const {
    const pg::PgLock* lock = clean_lock(pool, object);
    if (!lock) return false;
    if (pool.info.scheme.replicated()) return true;
    return pool.codec && len != 0 && lock->holds(offset / block_size_) && (offset + len - 1) / block_size_ == offset / block_size_;
}

/// may_read_here() holds. The version to read; 0: there is no object; kNewestVersion: the primary must be asked.
Version Osd::held_version(const Pool& pool, const ObjectId& chunk) const {
    const store::Store::Newest newest = store_.newest(chunk);
    if (newest.version != 0) {
        if (newest.is_stable) return newest.version;
        if (planted_ & planted::kBelowUnstable) return store_.peek(chunk, newest.version - 1, nullptr);
        VITASTOR_PROBE("read of an unstable chunk left to the primary");
        return kNewestVersion;
    }
    const pg::PgLock* lock = clean_lock(pool, {chunk.inode, chunk.stripe & ~kRoleMask});
    if (lock && !lock->blind_delete && store_.tombstone(chunk) == 0) return 0;
    VITASTOR_PROBE("read of a deleted chunk left to the primary");
    return kNewestVersion;
}

void Osd::read_held_chunk(Op* op) {
    const uint32_t role = op->offset / block_size_;
    const ObjectId chunk{op->object.inode, op->object.stripe | role};
    const Version version = held_version(*op->pool, chunk);
    if (version == kNewestVersion) return answer_read(op, -EAGAIN);
    std::memset(op->bitmap, 0, object_bitmap_bytes(*op->pool));
    if (version == 0) {
        std::memset(op->request->reply_buffer.data(), 0, op->len);
        op->version = 0;
        return answer_read(op, op->len);
    }
    op->old_version = version;
    read_own_chunk(op, role, version, on_held_chunk);
}

void Osd::on_held_chunk(store::Operation* operation) {
    Op* op = static_cast<Op::Local*>(operation)->op;
    const bool good = operation->result == static_cast<int64_t>(op->len) && operation->version == op->old_version;
    // The version was replaced meanwhile, or it cannot be read: the primary finds that out, and repairs it.
    if (!good) VITASTOR_PROBE("read of a bad chunk left to the primary");
    op->version = operation->version;
    op->osd->answer_read(op, good ? operation->result : -EAGAIN);
}

/// One layer of a chain. len, or -EAGAIN; -EPIPE: the lock is gone.
runtime::Task<int64_t> Osd::read_held_layer(LayerRead& read) {
    if (!may_read_here(*read.pool, read.object, read.offset, read.len)) co_return -EPIPE;
    const uint32_t role = read.offset / block_size_;
    LayerRead chunk = read;
    chunk.object.stripe |= role;
    chunk.offset = read.offset % block_size_;
    chunk.bitmap = read.bitmap + size_t{role} * bitmap_bytes_;
    const Version version = held_version(*read.pool, chunk.object);
    if (version == kNewestVersion) co_return -EAGAIN;
    std::memset(read.bitmap, 0, object_bitmap_bytes(*read.pool));
    read.version = version;
    if (version == 0) {
        std::memset(read.data, 0, read.len);
        co_return read.len;
    }
    runtime::Task<int64_t> own = read_copy(chunk, osd_num_, version);
    const int64_t result = co_await own;
    co_return result == static_cast<int64_t>(read.len) && chunk.version == version ? result : -EAGAIN;
}

}  // namespace vitastor::serve

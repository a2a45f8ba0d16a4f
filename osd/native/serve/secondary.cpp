// SPDX-License-Identifier: GPL-2.0-or-later
// Operations of other primaries on the copies and chunks that lie here. Source: wire-protocol 9; safety 2.
#include <algorithm>
#include <cstring>

#include "serve/answer.hpp"
#include "serve/planted.hpp"

namespace vitastor::serve {

using wire::Opcode;

int Osd::check_access(const net::Request& request, const ObjectId& object, uint32_t flags, bool modifies) {
    Pool* pool = find_pool(pool_of(object.inode));
    if (!pool || pool->info.pg_count == 0) return -EPIPE;
    uint32_t role = static_cast<uint32_t>(object.stripe & kRoleMask);
    if (role >= (pool->info.scheme.replicated() ? 1 : pool->info.scheme.pg_size)) return -EINVAL;
    PgId id{pool->info.id, pool->pg_of(object.stripe & ~kRoleMask)};
    if (modifies && request.peer_osd != 0 && !(planted_ & planted::kNoListFence)) {
        ClientState* client = client_of(request.connection);
        if (!client || client->voided || !list_fence_.allows(id, client->serial)) {
            VITASTOR_PROBE("list fence refused a write");
            return -EPIPE;
        }
    }
    pg::AccessQuestion question;
    question.mode = settings_.lock_mode;
    question.ignore_lock = (flags & wire::sub_flags::ignore_lock) != 0;
    // Primaries of 3.0.8 take no locks of erasure-coded pools: there they are for local reads only.
    question.pool_local_reads = pool->info.scheme.replicated() && pool->info.local_reads;
    if (question.mode == pg::LockMode::never || question.ignore_lock) return 0;
    if (question.mode == pg::LockMode::localize_only && !question.pool_local_reads) return 0;
    question.led_here = pool->pgs[id.pg - 1] != nullptr;
    question.lock = locks_.find(id);
    question.asking = request.peer_osd;
    return pg::lock_allows(question) ? 0 : -EPIPE;
}

void Osd::handle_sub_io(Op* op) {
    net::Request& request = *op->request;
    auto message = wire::decode<wire::SubRequest>(wire::ConstHeaderBytes(request.header));
    bool write = op->opcode != Opcode::sec_read;
    op->offset = message.offset;
    op->len = message.len;
    op->object = message.object;
    op->version = message.version;
    op->recovery = (message.flags & wire::sub_flags::recovery) != 0;
    bool bad = message.len > wire::kMaxTransfer || message.offset % granularity_ || message.len % granularity_ ||
               message.offset >= block_size_ || message.len > block_size_ - message.offset;
    if (write) {
        bad |= (message.attr_len != 0 && message.attr_len != bitmap_bytes_) || message.version == 0 ||
               message.version == kNewestVersion;
        bad |= (message.flags & wire::sub_flags::based) && op->opcode != Opcode::sec_write;
        const uint32_t needs_base = wire::sub_flags::difference | wire::sub_flags::settles;
        bad |= (message.flags & needs_base) && !(message.flags & wire::sub_flags::based);
    }
    if (bad) return answer(op, -EINVAL, wire::SubReply{});
    if (int refused = check_access(request, message.object, message.flags, write)) {
        return answer(op, refused, wire::SubReply{});
    }
    op->local.store::Operation::op = op->opcode == Opcode::sec_read          ? store::StoreOp::read
                                     : op->opcode == Opcode::sec_write_stable ? store::StoreOp::write_stable
                                                                              : store::StoreOp::write;
    op->local.object = message.object;
    op->local.version = message.version;
    op->local.offset = message.offset;
    op->local.len = message.len;
    if (write) {
        op->iov = {request.data(), message.len};
        op->local.bitmap = message.attr_len ? request.bitmap() : nullptr;
    } else {
        fill_bitmap_space(op);
        if (message.len) request.reply_buffer = loop_.buffers().allocate(message.len);
        op->iov = {request.reply_buffer.data(), message.len};
        op->local.bitmap = op->bitmap;
    }
    op->local.iov = message.len ? &op->iov : nullptr;
    op->local.iov_count = message.len ? 1 : 0;
    op->local.settles = message.flags & wire::sub_flags::settles ? message.base : 0;
    op->local.on_done = on_sub_io;
    if (write && (message.flags & wire::sub_flags::based)) {
        if (store_.peek(message.object, kNewestVersion, nullptr) != message.base) return answer(op, -ERANGE, wire::SubReply{});
        if (message.len && (message.flags & wire::sub_flags::difference)) {
            op->old_version = message.base;
            return read_for_difference(op);
        }
    }
    store_.submit(op->local);
}

/// The old content of what an op->len long difference changes. The request counts as a write from its arrival on (list fence).
void Osd::read_for_difference(Op* op) {
    op->data = loop_.buffers().allocate(op->len);
    op->iov.iov_base = op->data.data();
    op->local.store::Operation::op = store::StoreOp::read;
    op->local.version = kNewestVersion;
    op->local.bitmap = nullptr;
    op->local.on_done = on_difference_read;
    store_.submit(op->local);
}

void Osd::on_difference_read(store::Operation* operation) {
    Op* op = static_cast<Op::Local*>(operation)->op;
    Osd* self = op->osd;
    net::Request& request = *op->request;
    if (operation->result != static_cast<int64_t>(op->len)) {
        VITASTOR_PROBE("old content unreadable for a difference");
        return self->answer(op, -EDOM, wire::SubReply{});
    }
    if (operation->version != op->old_version) return self->answer(op, -ERANGE, wire::SubReply{});
    const iovec old = op->iov;
    op->iov.iov_base = request.data();
    erasure::Codec::xor_into(erasure::Pieces(&op->iov, 1), erasure::Pieces(&old, 1), op->len);
    op->data.release();
    op->local.store::Operation::op = store::StoreOp::write;
    op->local.version = op->version;
    op->local.bitmap = request.sizes.bitmap_bytes ? request.bitmap() : nullptr;
    op->local.on_done = on_sub_io;
    self->store_.submit(op->local);
}

void Osd::on_sub_io(store::Operation* operation) {
    Op* op = static_cast<Op::Local*>(operation)->op;
    Osd* self = op->osd;
    net::Request& request = *op->request;
    wire::SubReply reply;
    int64_t result = operation->result;
    if (op->opcode == Opcode::sec_delete) {
        if (result == -ENOSPC && op->local.tombstone) {  // no room for it: delete all the same, and say so
            VITASTOR_PROBE("no room for a tombstone");
            op->local.tombstone = false;
            op->version = 0;
            self->note_blind_delete(op->local.object);
            return self->store_.submit(op->local);
        }
        return self->answer(op, result < 0 ? result : 0, wire::SubDeleteReply{op->version});
    }
    if (op->opcode == Opcode::sec_sync) return self->answer(op, result < 0 ? result : 0);
    if (result >= 0) {
        reply.version = op->opcode == Opcode::sec_read ? operation->version : op->version;
        result = op->len;
        if (op->opcode == Opcode::sec_read) {
            reply.attr_len = self->bitmap_bytes_;
            uint8_t* bitmap = request.reply_small;
            if (self->bitmap_bytes_ <= sizeof(request.reply_small)) {
                std::memcpy(bitmap, op->bitmap, self->bitmap_bytes_);
            } else {
                request.buffer = std::move(op->bitmap_big);
                bitmap = request.buffer.data();
            }
            request.reply_count = 0;
            request.reply_iov[request.reply_count++] = {bitmap, self->bitmap_bytes_};
            if (op->len) request.reply_iov[request.reply_count++] = op->iov;
        }
    }
    self->answer(op, result, reply);
}

void Osd::handle_sub_delete(Op* op) {
    auto message = wire::decode<wire::SubDeleteRequest>(wire::ConstHeaderBytes(op->request->header));
    if (int refused = check_access(*op->request, message.object, message.flags, true)) {
        return answer(op, refused, wire::SubDeleteReply{message.version});
    }
    op->version = message.version;
    op->local.store::Operation::op = store::StoreOp::del;
    op->local.tombstone = (message.flags & wire::sub_flags::tombstone) != 0;
    if (!op->local.tombstone) note_blind_delete(message.object);
    op->local.object = message.object;
    op->local.version = message.version;
    op->local.offset = op->local.len = 0;
    op->local.iov = nullptr;
    op->local.iov_count = 0;
    op->local.bitmap = nullptr;
    op->local.on_done = on_sub_io;
    store_.submit(op->local);
}

/// Whoever reads here cannot tell any more whether what is missing was never there or is being deleted everywhere.
void Osd::note_blind_delete(const ObjectId& chunk) {
    const Pool* pool = find_pool(pool_of(chunk.inode));
    if (!pool || pool->info.pg_count == 0) return;
    const uint64_t role = chunk.stripe & kRoleMask;
    locks_.note_blind_delete({pool->info.id, pool->pg_of(chunk.stripe - role)}, static_cast<uint32_t>(role));
}

void Osd::handle_sub_sync(Op* op) {
    op->local.store::Operation::op = store::StoreOp::sync;
    op->local.on_done = on_sub_io;
    store_.submit(op->local);
}

void Osd::handle_lock(Op* op) {
    auto message = wire::decode<wire::LockRequest>(wire::ConstHeaderBytes(op->request->header));
    ClientState* client = client_of(op->request->connection);
    OsdNum asking = op->request->peer_osd;
    bool lock = message.flags == wire::LockRequest::kLock;
    if (asking == 0 || !client || (!lock && message.flags != wire::LockRequest::kUnlock) || message.pg == 0 ||
        message.pg > UINT32_MAX || message.pool > 65536) {
        return answer(op, -EINVAL, wire::LockReply{});
    }
    Pool* pool = find_pool(static_cast<PoolId>(message.pool));
    if (!pool || message.pg > pool->info.pg_count) return answer(op, -ENOENT, wire::LockReply{});
    PgId id{pool->info.id, static_cast<PgNum>(message.pg)};
    if (!lock) {
        locks_.unlock(id, asking);
        return answer(op, 0, wire::LockReply{});
    }
    if (client->voided) return answer(op, -EBUSY, wire::LockReply{asking});
    if (pool->pgs[id.pg - 1]) return answer(op, -EBUSY, wire::LockReply{osd_num_});
    OsdNum holder = 0;
    int result = locks_.lock(id, {asking, client->serial, static_cast<uint32_t>(message.state), message.roles, false}, &holder);
    answer(op, result, wire::LockReply{holder});
}

namespace {
constexpr size_t kFlushBatch = 64;
}

/// SEC_STABILIZE and SEC_ROLLBACK: the first error in order of the list counts; what came before it is applied.
runtime::Task<> Osd::handle_flush(Op* op) {
    auto message = wire::decode<wire::TripleRequest>(wire::ConstHeaderBytes(op->request->header));
    std::span<const uint8_t> payload(op->request->data(), op->request->sizes.data_bytes);
    Result<std::vector<ObjectVersion>> triples = wire::decode_triples(payload);
    if (!triples.ok() || message.len % wire::kTripleSize) {
        answer(op, -EINVAL);
        co_return;
    }
    for (const ObjectVersion& what : triples.value()) {
        if (int refused = check_access(*op->request, what.object, message.flags, true)) {
            answer(op, refused);
            co_return;
        }
    }
    const bool rollback = op->opcode == Opcode::sec_rollback;
    const bool bury = rollback && (message.flags & wire::sub_flags::tombstone);
    const store::StoreOp kind = bury ? store::StoreOp::del : rollback ? store::StoreOp::rollback : store::StoreOp::stabilize;
    runtime::Task<int64_t> changing = change_here(kind, triples.value(), rollback && !bury);
    const int64_t result = co_await changing;
    answer(op, result);
}

/// Stabilises, rolls back, or deletes with tombstones (where there is no room for one, without) what is here. absent_ok: -ENOENT
/// is no error. The first error, or 0.
runtime::Task<int64_t> Osd::change_here(store::StoreOp kind, std::span<const ObjectVersion> list, bool absent_ok) {
    int64_t result = 0;
    for (size_t first = 0; first < list.size() && result == 0; first += kFlushBatch) {
        const size_t count = std::min(kFlushBatch, list.size() - first);
        std::unique_ptr<StoreAwait[]> parts(new StoreAwait[count]);
        for (size_t i = 0; i < count; i++) {
            parts[i].op = kind;
            parts[i].tombstone = kind == store::StoreOp::del;
            parts[i].object = list[first + i].object;
            parts[i].version = list[first + i].version;
            store_.submit(parts[i]);
        }
        for (size_t i = 0; i < count; i++) {
            StoreAwait& part = parts[i];
            int64_t one = co_await part;
            if (one == -ENOSPC && kind == store::StoreOp::del) {
                VITASTOR_PROBE("no room for a tombstone");
                StoreAwait plain;
                plain.op = kind;
                plain.object = list[first + i].object;
                plain.version = list[first + i].version;
                store_.submit(plain);
                one = co_await plain;
            }
            if (absent_ok && one == -ENOENT) one = 0;
            if (result == 0 && one < 0) result = one;
        }
    }
    co_return result;
}

runtime::Task<> Osd::read_bitmaps(Op* op) {
    constexpr size_t kSlice = 2000;
    auto message = wire::decode<wire::TripleRequest>(wire::ConstHeaderBytes(op->request->header));
    std::span<const uint8_t> payload(op->request->data(), op->request->sizes.data_bytes);
    Result<std::vector<ObjectVersion>> triples = wire::decode_triples(payload);
    if (!triples.ok() || message.len % wire::kTripleSize) {
        answer(op, -EINVAL);
        co_return;
    }
    const std::vector<ObjectVersion>& list = triples.value();
    size_t record = 8 + bitmap_bytes_;
    if (list.size() * record > (128u << 20)) {
        answer(op, -EINVAL);
        co_return;
    }
    if (!list.empty()) op->request->reply_buffer = loop_.buffers().allocate(list.size() * record);
    uint8_t* out = op->request->reply_buffer.data();
    for (size_t i = 0; i < list.size(); i++, out += record) {
        if (i % kSlice == kSlice - 1) {
            Slices::Turn slice(slices_);
            co_await slice;
        }
        if (int refused = check_access(*op->request, list[i].object, message.flags, false)) {
            op->request->reply_count = 0;
            answer(op, refused);
            co_return;
        }
        std::memset(out + 8, 0, bitmap_bytes_);
        Version version = store_.peek(list[i].object, list[i].version, out + 8);
        for (int b = 0; b < 8; b++) out[b] = static_cast<uint8_t>(version >> (8 * b));
    }
    if (!list.empty()) {
        op->request->reply_iov[0] = {op->request->reply_buffer.data(), list.size() * record};
        op->request->reply_count = 1;
    }
    answer(op, static_cast<int64_t>(list.size() * record));
}

}  // namespace vitastor::serve

// SPDX-License-Identifier: GPL-2.0-or-later
// Sub-operations on the chunks of erasure-coded objects, shared by reads, writes and recovery: where the chunks lie, rounds of
// calls to the own store and to other OSDs, and what their results mean. Source: semantics 3.2, 3.3; wire-protocol 9.2-9.5, 9.8.
#include <algorithm>
#include <cstring>

#include "serve/answer.hpp"

namespace vitastor::serve {

using erasure::RoleSet;
using erasure::View;
using store::StoreOp;
using wire::Opcode;

EcWork* Osd::new_ec(Pool& pool) {
    EcWork* work = ec_works_.get();
    work->osd = this;
    work->codec = pool.codec;
    work->shape = pool.shape;
    work->used = 0;
    work->pending = 0;
    work->waiter = nullptr;
    work->known = work->settles = work->long_way = work->buried = false;
    work->bad.clear();
    return work;
}

void Osd::free_ec(EcWork* work) {
    VITASTOR_ASSERT(work->pending == 0);
    if (work->scratch) work->scratch.release();
    work->codec.reset();
    ec_works_.put(work);
}

/// Fills holders, readable, writable, rebuild and own from what the PG knows, without the chunks in `bad`.
void Osd::locate_chunks(Pg& pg, const ObjectId& object, EcWork& work) {
    const std::vector<OsdNum>& current = pg.activation.current_set;
    const uint32_t roles = std::min<uint32_t>(work.shape.roles(), static_cast<uint32_t>(current.size()));
    work.holders.assign(work.shape.roles(), 0);
    work.readable = work.writable = work.rebuild = {};
    work.own = erasure::kRolesMax;
    auto is_bad = [&work](uint32_t role, OsdNum osd) {
        return std::any_of(work.bad.begin(), work.bad.end(), [&](const auto& b) { return b.role == role && b.osd == osd; });
    };
    for (uint32_t role = 0; role < roles; role++) {
        if (current[role]) work.writable.add(role);
    }
    if (pg::UncleanObject* unclean = pg.objects.find(object)) {
        for (const pg::Location& place : unclean->set->where) {
            if (place.role >= roles || !place.good() || is_bad(place.role, place.osd)) continue;
            OsdNum& holder = work.holders[place.role];
            const bool better = place.osd == current[place.role] || (place.osd == osd_num_ && holder != current[place.role]);
            if (holder == 0 || better) holder = place.osd;
        }
    } else {
        for (uint32_t role = 0; role < roles; role++) {
            if (!is_bad(role, current[role])) work.holders[role] = current[role];
        }
    }
    for (uint32_t role = 0; role < roles; role++) {
        if (work.holders[role]) work.readable.add(role);
        if (work.writable.has(role) && work.holders[role] != current[role]) work.rebuild.add(role);
        if (work.own == erasure::kRolesMax && work.holders[role] == osd_num_) work.own = role;
    }
}

// ------------------------------------------------------------------ rounds

ChunkCall& Osd::new_chunk(EcWork& work, uint32_t role, OsdNum osd, Opcode opcode) {
    if (work.used == work.calls.size()) work.calls.push_back(std::make_unique<ChunkCall>());
    ChunkCall& chunk = *work.calls[work.used++];
    chunk.work = &work;
    chunk.local.chunk = chunk.remote.chunk = &chunk;
    chunk.role = role;
    chunk.osd = osd;
    chunk.opcode = opcode;
    chunk.len = 0;
    chunk.first_iov = chunk.iov_count = 0;
    chunk.result = 0;
    chunk.version = 0;
    chunk.lost = false;
    net::Call& call = chunk.remote;
    call.payload_count = 0;
    call.bitmap_out = nullptr;
    call.bitmap_capacity = 0;
    call.bitmap_size = 0;
    call.data_out = nullptr;
    call.data_count = 0;
    call.status = 0;
    call.retval = 0;
    call.on_reply = on_remote_chunk;
    return chunk;
}

/// The request is encoded. Without a connection the call has failed at once.
void Osd::send_chunk(ChunkCall& chunk) {
    chunk.start_ns = loop_.now_ns();
    net::Connection* connection = peers_->get(chunk.osd);
    if (!connection) {
        chunk.result = -EPIPE;
        chunk.lost = true;
        return;
    }
    chunk.work->pending++;
    connection->send(chunk.remote);
}

/// `len`, `iov` and `bitmap` of reads and writes are set by the caller.
void Osd::submit_chunk(ChunkCall& chunk, StoreOp op, const ObjectId& object, Version version) {
    chunk.work->pending++;
    chunk.local.op = op;
    chunk.local.object = object;
    chunk.local.version = version;
    chunk.local.on_done = on_local_chunk;
    store_.submit(chunk.local);
}

void Osd::on_local_chunk(store::Operation* operation) {
    ChunkCall& chunk = *static_cast<ChunkCall::Local*>(operation)->chunk;
    chunk.result = operation->result;
    chunk.version = operation->version;
    chunk_done(*chunk.work);
}

void Osd::on_remote_chunk(net::Call* base) {
    ChunkCall& chunk = *static_cast<ChunkCall::Remote*>(base)->chunk;
    Osd* self = chunk.work->osd;
    chunk.lost = base->status != 0;
    chunk.result = base->status ? base->status : base->retval;
    if (chunk.result >= 0 && (chunk.opcode == Opcode::sec_read || chunk.opcode == Opcode::sec_write)) {
        chunk.version = wire::decode<wire::SubReply>(wire::ConstHeaderBytes(base->reply)).version;
    }
    Counters& stats = self->subop_stats_[static_cast<size_t>(chunk.opcode)];
    stats.add((self->loop_.now_ns() - chunk.start_ns) / 1000, chunk.len);
    chunk_done(*chunk.work);
}

void Osd::chunk_done(EcWork& work) {
    if (--work.pending == 0 && work.waiter) std::exchange(work.waiter, nullptr).resume();
}

/// Scratch memory and bitmaps of the plan, once it is made.
void Osd::prepare_buffers(EcWork& work) {
    if (work.scratch.capacity() < work.plan.scratch_bytes) {
        work.scratch.release();
        work.scratch = loop_.buffers().allocate(work.plan.scratch_bytes);
    }
    work.bitmaps.assign(size_t{work.shape.roles()} * work.shape.bitmap_bytes(), 0);
}

// ------------------------------------------------------------------ reads

/// Sends plan.reads at once; co_await ChunkCalls{work} afterwards. client: reply buffer or payload of the plan.
void Osd::read_chunks(EcWork& work, const ObjectId& object, Version version, uint8_t* client, uint32_t flags) {
    prepare_buffers(work);
    work.used = 0;
    work.iov.clear();
    for (const erasure::ChunkRange& read : work.plan.reads) {
        ChunkCall& chunk = new_chunk(work, read.role, work.holders[read.role], Opcode::sec_read);
        chunk.len = read.len;
        chunk.first_iov = work.iov.size();
        if (read.len) append_pieces(work.plan, read.role, read.offset, read.len, View::before, client, work.scratch.data(), work.iov);
        chunk.iov_count = work.iov.size() - chunk.first_iov;
    }
    work.pending++;
    for (size_t i = 0; i < work.used; i++) {
        ChunkCall& chunk = *work.calls[i];
        const ObjectId part{object.inode, object.stripe | chunk.role};
        const iovec* iov = chunk.iov_count ? &work.iov[chunk.first_iov] : nullptr;
        if (chunk.osd == osd_num_ && chunk.len == 0) {
            chunk.version = store_.peek(part, version, work.bitmap(chunk.role));
            chunk.result = chunk.version ? 0 : -ENOENT;
        } else if (chunk.osd == osd_num_) {
            chunk.local.offset = work.plan.reads[i].offset;
            chunk.local.len = chunk.len;
            chunk.local.iov = iov;
            chunk.local.iov_count = static_cast<int>(chunk.iov_count);
            chunk.local.bitmap = work.bitmap(chunk.role);
            submit_chunk(chunk, StoreOp::read, part, version);
        } else {
            wire::SubRequest message;
            message.object = part;
            message.version = version;
            message.offset = work.plan.reads[i].offset;
            message.len = chunk.len;
            message.flags = flags;
            wire::encode_request(wire::HeaderBytes(chunk.remote.request), {0, Opcode::sec_read}, message);
            chunk.remote.bitmap_out = work.bitmap(chunk.role);
            chunk.remote.bitmap_capacity = bitmap_bytes_;
            chunk.remote.data_out = iov;
            chunk.remote.data_count = static_cast<int>(chunk.iov_count);
            send_chunk(chunk);
        }
    }
    chunk_done(work);
}

/// expected: the version that must be there (a write in its first phase, an unclean object); 0: the newest, whatever it is.
/// good: *version is set. Chunks that do not exist have left zeroes.
ReadVerdict Osd::judge_reads(EcWork& work, Version expected, Version* version) {
    const size_t bad_before = work.bad.size();
    bool lost = false, mixed = false, missing = false;
    Version found = 0;
    for (auto& item : work.round()) {
        ChunkCall& chunk = *item;
        const bool own = chunk.osd == osd_num_;
        if (chunk.result == static_cast<int64_t>(chunk.len)) {
            if (!own && chunk.remote.bitmap_size != bitmap_bytes_) std::memset(work.bitmap(chunk.role), 0, bitmap_bytes_);
            mixed |= found != 0 && found != chunk.version;
            found = std::max(found, chunk.version);
        } else if (chunk.lost) {
            lost = true;
        } else if (chunk.result == -ENOENT) {
            missing = true;
            std::memset(work.bitmap(chunk.role), 0, bitmap_bytes_);
            for (size_t i = 0; i < chunk.iov_count; i++) {
                const iovec& piece = work.iov[chunk.first_iov + i];
                std::memset(piece.iov_base, 0, piece.iov_len);
            }
        } else if (own || chunk.result == -EIO || chunk.result == -EDOM) {
            work.bad.push_back({chunk.role, wire::DescribeItem::kCorrupted, chunk.osd});
        } else if (chunk.result == -ERANGE) {
            mixed = true;
        } else {
            lost = true;
            if (peers_->get(chunk.osd)) peers_->reset(chunk.osd, "SEC_READ failed with error " + std::to_string(chunk.result));
        }
    }
    if (lost) return ReadVerdict::lost;
    if (expected == 0 && found == 0 && missing && work.bad.size() == bad_before) return ReadVerdict::absent;
    const bool any = expected != 0 || found != 0;
    for (auto& item : work.round()) {
        const ChunkCall& chunk = *item;
        const bool older = chunk.result == static_cast<int64_t>(chunk.len) && expected != 0 && chunk.version != expected;
        if ((chunk.result == -ENOENT && any) || older) {
            work.bad.push_back({chunk.role, wire::DescribeItem::kOutdated, chunk.osd});
        }
    }
    if (work.bad.size() > bad_before) return ReadVerdict::again;
    if (mixed) return ReadVerdict::mixed;
    *version = found;
    return ReadVerdict::good;
}

// ------------------------------------------------------------------ small changes

/// One sub-operation for each of work.targets, at once; co_await ChunkCalls{work}, then judge_changes.
void Osd::change_chunks(EcWork& work, Opcode opcode, const ObjectId& object, Version version, uint32_t flags) {
    work.used = 0;
    work.iov.clear();
    work.pending++;
    for (const pg::Location& place : work.targets) {
        ChunkCall& chunk = new_chunk(work, place.role, place.osd, opcode);
        const ObjectVersion what{{object.inode, object.stripe | place.role}, version};
        if (place.osd == osd_num_) {
            chunk.local.offset = chunk.local.len = 0;
            chunk.local.iov = nullptr;
            chunk.local.iov_count = 0;
            chunk.local.bitmap = nullptr;
            chunk.local.tombstone = (flags & wire::sub_flags::tombstone) != 0;
            const StoreOp op = opcode == Opcode::sec_stabilize  ? StoreOp::stabilize
                               : opcode == Opcode::sec_rollback && !chunk.local.tombstone ? StoreOp::rollback
                                                                : StoreOp::del;
            submit_chunk(chunk, op, what.object, version);
            continue;
        }
        if (opcode == Opcode::sec_delete) {
            wire::encode_request(wire::HeaderBytes(chunk.remote.request), {0, opcode},
                                 wire::SubDeleteRequest{what.object, version, flags});
        } else {
            wire::encode_triples({chunk.triple, wire::kTripleSize}, {&what, 1});
            wire::encode_request(wire::HeaderBytes(chunk.remote.request), {0, opcode},
                                 wire::TripleRequest{wire::kTripleSize, flags});
            chunk.remote.payload[chunk.remote.payload_count++] = {chunk.triple, wire::kTripleSize};
        }
        send_chunk(chunk);
    }
    chunk_done(work);
}

int64_t Osd::judge_changes(EcWork& work) {
    int64_t result = 0;
    for (auto& item : work.round()) {
        const ChunkCall& chunk = *item;
        if (chunk.result >= 0) continue;
        if (chunk.opcode == Opcode::sec_rollback && chunk.result == -ENOENT) continue;  // nothing is left, which is what was wanted
        if (result == 0) result = chunk.lost ? -EPIPE : chunk.result;
        if (!chunk.lost && chunk.osd != osd_num_ && peers_->get(chunk.osd)) {
            peers_->reset(chunk.osd, std::string(wire::opcode_name(chunk.opcode)) + " failed with error " +
                                         std::to_string(chunk.result));
        }
    }
    return result;
}

}  // namespace vitastor::serve

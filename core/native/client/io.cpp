// SPDX-License-Identifier: GPL-2.0-or-later
// The way of an operation: cut at object borders, sent, answered, tried again, completed. The hot loop: nothing here
// allocates from the heap for requests of up to one object and eight pieces.
#include <algorithm>
#include <cstring>

#include "client/context.hpp"
#include "wire/codec.hpp"

namespace vitastor::client {
namespace {

constexpr uint64_t kMaxZeroWrite = 4u << 20;
constexpr size_t kZeroBytes = wire::kMaxTransfer / net::Call::kMaxPayloadIov;
constexpr uint32_t kMaxPartsPerOp = 256;  ///< made at a time; the rest follows as they end
constexpr uint64_t kNoHoldersNs = runtime::kNsPerSecond;  ///< reads go to the primary after a holder has said that it has no lock
constexpr uint64_t kOpenGraceNs = runtime::kNsPerSecond;  ///< a name that the map does not have may be on its way
constexpr uint16_t kMaxLimboRounds = 320;  ///< with the default interval 16 s
/// Never written to, so that its pages are one page of memory. One copy a process, in .bss.
alignas(4096) uint8_t zeroes[kZeroBytes];

wire::HeaderBytes header_of(Part& part) { return wire::HeaderBytes(part.request, wire::kHeaderSize); }

/// In pools that need flushes: what is unsynced of the image matters to it.
bool is_tracked(const Op& op) { return !op.internal || op.kind == OpKind::layer_read; }

int priority(int error) {
    switch (error) {
    case -EIO: return 5;
    case -ENOSPC: return 4;
    case -ETIMEDOUT: return 3;
    case -EPIPE: return 2;
    default: return 1;
    }
}

}  // namespace

int Context::check_request(const Image& image, uint64_t offset, uint64_t length, const iovec* iov, int iov_count) {
    uint64_t granularity = image.granularity.load(std::memory_order_relaxed);
    uint64_t end = 0;
    if (length > INT64_MAX || (!image.options.any_alignment && (offset % granularity || length % granularity))) return -EINVAL;
    if (__builtin_add_overflow(offset, length, &end) || end > INT64_MAX) return -EINVAL;
    if (!iov && iov_count == 0) return 0;
    if (!iov || iov_count < 0) return -EINVAL;
    uint64_t sum = 0;
    for (int i = 0; i < iov_count; i++)
        if (__builtin_add_overflow(sum, static_cast<uint64_t>(iov[i].iov_len), &sum)) return -EINVAL;
    return sum == length ? 0 : -EINVAL;
}

void Context::set_iov(Op& op, const iovec* iov, int count) {
    op.iov_count = count;
    op.iov = count <= Op::kInlineIov ? op.inline_iov : new iovec[static_cast<size_t>(count)];
    if (count) memcpy(op.iov, iov, sizeof(iovec) * static_cast<size_t>(count));
}

void Context::give_op(Op* op) {
    if (op->iov && op->iov != op->inline_iov) delete[] op->iov;
    delete[] op->bounce_target;
    free_part(op->first);
    ops_.give(op);
}

// ---- starting

void Context::start(Op& op) {
    op.context = this;
    operations_++;
    if (op.kind == OpKind::open) {
        attached_.push_back(op.image);
        // What somebody has just made may not be in a map that was loaded long ago; a first load has it (safety 11).
        if (map_) op.offset = loop_.now_ns() + kOpenGraceNs;
        if (map_ || !trouble_.empty()) finish_open(op);
        else opening_.push_back(&op);
        return;
    }
    if (op.kind == OpKind::flush) return writeback_.concerns(op) ? writeback_.start_flush(op) : start_flush(op);
    if (op.length == 0 && op.kind != OpKind::remove) return finish_later(op, 0);
    // An image exists only after the first map, whichever context opened it; this one may not have it yet.
    if (!map_) adopt_snapshot();
    const InodeView& view = view_of(*op.image);
    if (op.kind == OpKind::read_bitmap) op.bitmap_unit = op.image->granularity.load(std::memory_order_relaxed);
    const bool write = op.kind != OpKind::read && op.kind != OpKind::read_bitmap;
    if (write && view.read_only && !view.limbo) return finish_later(op, -EROFS);
    if (!view.pool || view.removed) return finish_later(op, -ENOENT);
    if (view.limits.any() && !op.admitted && !op.aligned && !op.image->options.unlimited && put_off(op, view)) return;
    if (op.image->options.exclusive && write && !op.counted) {
        op.counted = true;
        op.image->writing.fetch_add(1, std::memory_order_acq_rel);
        op.image->changes.fetch_add(1, std::memory_order_acq_rel);
    }
    if (writeback_.concerns(op) && writeback_.start(op, view)) return;
    if (readahead_.concerns(op) && readahead_.start(op, view)) return;
    if ((op.image->options.any_alignment || op.cached) && op.kind != OpKind::read_bitmap && Unaligned::concerns(op)) {
        if (op.kind == OpKind::compare_write) return finish_later(op, -EINVAL);
        return unaligned_.start(op);
    }
    slice(op, view);
}

void Context::slice(Op& op, const InodeView& view) {
    uint64_t object_size = view.pool->object_size;
    uint64_t offset = op.offset, end = op.offset + op.length;
    if (op.kind == OpKind::remove) {
        PartKind kind = op.expected_version == UINT64_MAX ? PartKind::remove : PartKind::compare_remove;
        dispatch(*add_part(op, kind, offset / object_size * object_size, 0, 0));
        return;
    }
    if (op.kind == OpKind::compare_write &&
        (offset / object_size != (end - 1) / object_size || op.length > wire::kMaxTransfer))
        return finish_later(op, -EINVAL);
    if (offset / object_size == (end - 1) / object_size && op.length <= wire::kMaxTransfer &&
        op.kind != OpKind::discard) {
        PartKind kind = op.kind == OpKind::read          ? PartKind::read
                        : op.kind == OpKind::write       ? PartKind::write
                        : op.kind == OpKind::read_bitmap ? PartKind::bitmap
                                                         : PartKind::compare_write;
        dispatch(*add_part(op, kind, offset, static_cast<uint32_t>(op.length), 0));
        return;
    }
    op.next_offset = offset;
    op.end_offset = end;
    slice_more(op, view);
}

/// Makes and sends the next parts. All of a batch are there before the first is sent: a part may end at once.
void Context::slice_more(Op& op, const InodeView& view) {
    uint64_t object_size = view.pool->object_size;
    uint64_t max_part = op.kind == OpKind::discard ? kMaxZeroWrite : wire::kMaxTransfer;
    bool parent = view.has_parent;
    List<net::Call> parts;
    op.slicing = true;
    while (op.next_offset < op.end_offset && op.parts_left < kMaxPartsPerOp) {
        uint64_t offset = op.next_offset;
        uint64_t object = offset / object_size * object_size;
        uint64_t part_end = std::min(op.end_offset, object + object_size);
        PartKind kind = op.kind == OpKind::read          ? PartKind::read
                        : op.kind == OpKind::read_bitmap ? PartKind::bitmap
                                                         : PartKind::write;
        if (op.kind == OpKind::discard) {
            bool whole = offset == object && part_end == object + object_size;
            // What is larger could not be zeroed at once, where that turns out to be needed.
            kind = whole && !parent && object_size <= wire::kMaxTransfer ? PartKind::remove : PartKind::zero;
        }
        if (kind != PartKind::remove && kind != PartKind::bitmap) part_end = std::min(part_end, offset + max_part);
        parts.push_back(add_part(op, kind, offset, static_cast<uint32_t>(part_end - offset), offset - op.offset));
        op.next_offset = part_end;
    }
    op.parts_left++;  // held: all of them may end before this returns
    while (net::Call* part = parts.pop_front()) dispatch(*static_cast<Part*>(part));
    op.slicing = false;
    if (--op.parts_left == 0) op_done(op);
}

Part* Context::add_part(Op& op, PartKind kind, uint64_t offset, uint32_t length, uint64_t skip) {
    Part* part = op.first_busy ? parts_.take() : &op.first;
    op.first_busy = true;
    op.parts_left++;
    part->force_primary = part->local_read = part->greeted = false;
    part->limbo_rounds = 0;
    part->op = &op;
    part->kind = kind;
    part->offset = offset;
    part->length = length;
    part->on_reply = [](net::Call* call) {
        auto* self = static_cast<Part*>(call);
        self->op->context->on_reply(*self);
    };
    part->iov_count = 0;
    if (op.iov && length && kind != PartKind::bitmap) fill_iov(*part, op, skip);
    return part;
}

/// The pieces of the caller's list that belong to the part. payload serves both directions.
void Context::fill_iov(Part& part, const Op& op, uint64_t skip) {
    int i = 0;
    while (skip >= op.iov[i].iov_len) skip -= op.iov[i++].iov_len;
    int first = i;
    uint64_t left = part.length + skip;
    int count = 0;
    while (left) {
        uint64_t piece = std::min<uint64_t>(left, op.iov[i].iov_len);
        left -= piece;
        i++;
        if (piece) count++;
    }
    iovec* out = part.payload;
    if (count > net::Call::kMaxPayloadIov) out = part.many_iov = new iovec[static_cast<size_t>(count)];
    left = part.length;
    int filled = 0;
    for (i = first; left; i++) {
        uint64_t size = std::min<uint64_t>(left, op.iov[i].iov_len - skip);
        if (size) out[filled++] = {static_cast<uint8_t*>(op.iov[i].iov_base) + skip, size};
        left -= size;
        skip = 0;
    }
    part.iov_count = filled;
}

void Context::free_part(Part& part) {
    if (part.many_iov) {
        delete[] part.many_iov;
        part.many_iov = nullptr;
    }
    part.bounce.release();
    part.bitmap_large.release();
    part.reply_payload.release();
}

// ---- sending

OsdLink* Context::read_link(const PoolView& pool, uint64_t stripe, Part& part) {
    OsdLink* primary = pool.primary_of(stripe);
    auto mode = pool.pool->local_reads;
    part.local_read = false;
    if (mode == cluster::LocalReads::primary || !primary || part.force_primary) return primary;
    // Whether unsynced writes are to be replayed is judged by who acknowledged them; of erasure-coded objects they are not stable either.
    if (!pool.immediate && is_tracked(*part.op) && !part.op->image->unsynced.empty()) return primary;
    size_t index = stripe / pool.pg_stripe_size % pool.primary.size();
    if (!pool.holders.empty()) return holder_link(pool, stripe, index, part);
    const cluster::Pg& pg = pool.pool->pgs[index];
    if (!allows_local_reads(pg)) return primary;
    OsdLink* chosen = nullptr;
    if (mode == cluster::LocalReads::nearest) {
        chosen = pool.nearest[index];
    } else {
        OsdNum osd = pg.osd_set[loop_.random_u64() % pg.osd_set.size()];
        if (osd && map_->osds.count(osd)) chosen = link(osd);
    }
    if (!chosen || chosen == primary) return primary;
    // While the near one is being connected the primary serves, if it can at once.
    if (!connect(chosen) && primary->connection) return primary;
    part.local_read = chosen->connection != nullptr;
    return part.local_read ? chosen : primary;
}

/// Of an erasure-coded pool: the OSD that holds the chunk, if the part lies in one (docs/adr/0049).
OsdLink* Context::holder_link(const PoolView& pool, uint64_t stripe, size_t index, Part& part) {
    OsdLink* primary = pool.primary[index];
    const uint32_t block = pool.pool->block_size;
    const uint64_t inside = part.offset - stripe;
    const uint64_t chunk = inside / block;
    if (part.length == 0 || (inside + part.length - 1) / block != chunk) return primary;
    OsdLink* holder = pool.holders[index * pool.pool->data_chunks() + chunk];
    if (!holder || !connect(holder) || !holder->reads_chunks || loop_.now_ns() < pool.no_holders_until_ns[index]) return primary;
    part.local_read = true;
    return holder;
}

/// A local read was refused: its primary answers it. -EPIPE: the PG is not locked there, and the next read need not try.
void Context::read_at_primary(Part& part, int64_t result) {
    part.force_primary = true;
    PoolView* pool = pool_view(pool_of(part.inode));
    if (result == -EPIPE && pool && !pool->holders.empty()) {
        const uint64_t stripe = part.offset / pool->object_size * pool->object_size;
        pool->no_holders_until_ns[stripe / pool->pg_stripe_size % pool->primary.size()] = loop_.now_ns() + kNoHoldersNs;
    }
    dispatch(part);
}

void Context::dispatch(Part& part) {
    Op& op = *part.op;
    if (part.kind == PartKind::sync) return op.kind == OpKind::replay ? resume_replay(op) : step_flush(op);
    if (closing_ || (op.kind == OpKind::replay && op.image->closed.load(std::memory_order_acquire)))
        return part_failed(part, -ECANCELED);
    InodeView own;
    const InodeView* view = &own;
    if (op.fixed_inode) own = make_view(op.fixed_inode, op.kind == OpKind::replay);
    else view = &view_of(*op.image);
    if (!view->pool || view->pool->primary.empty()) return wait_for_change(part);
    PoolView& pool = *view->pool;
    uint64_t stripe = part.offset / pool.object_size * pool.object_size;
    const bool write = !is_read(part.kind);
    if (write && op.kind != OpKind::replay) {
        if (view->limbo) {
            if (++part.limbo_rounds > kMaxLimboRounds) return part_failed(part, -EROFS);
            return retry_later(part, config_->client_retry_interval_ms, retry_);
        }
        if (view->read_only && !op.image->options.override_read_only) return part_failed(part, -EROFS);
    }
    if (view->removed) return part_failed(part, -ENOENT);
    if (view->broken_chain && !write) return part_failed(part, view->broken_chain);
    if (write && op.kind != OpKind::replay && unaligned_.holds_back(part, view->inode, stripe)) return;
    OsdLink* link = part.kind != PartKind::read ? pool.primary_of(stripe) : read_link(pool, stripe, part);
    if (!link) return wait_for_change(part);
    net::Connection* connection = connect(link);
    if (!connection || (write && link->greeting)) return wait_for_change(part);
    if (part.kind == PartKind::remove && op.kind == OpKind::discard) {
        // A delete that may come back from an OSD that is away is no discard, nor is one that shows what a snapshot made meanwhile has (safety.md 8).
        const cluster::Pg& pg = pool.pool->pgs[stripe / pool.pg_stripe_size % pool.primary.size()];
        if (view->has_parent || (pg.state & (wire::pg_state::left_on_dead | wire::pg_state::degraded))) part.kind = PartKind::zero;
    }
    part.inode = view->inode;
    if (!pool.immediate && is_tracked(op) && !begin_tracked(part, *view, link, write)) return;
    send_part(part, *view, link, connection);
}

void Context::send_part(Part& part, const InodeView& view, OsdLink* link, net::Connection* connection) {
    PoolView& pool = *view.pool;
    part.inode = view.inode;
    part.link = link;
    part.link_epoch = link->epoch;
    part.greetings = link->greetings;
    part.chain_revision = is_read(part.kind) ? view.chain_revision : 0;
    part.send_epoch = shared_.connection_epoch();
    wire::ClientRequest request;
    request.inode = view.inode;
    request.offset = part.offset;
    request.len = part.length;
    wire::RequestHeader header;
    part.data_count = 0;
    part.data_out = nullptr;
    part.bitmap_out = nullptr;
    part.bitmap_capacity = 0;
    switch (part.kind) {
    case PartKind::bitmap:
        request.offset = part.offset / pool.object_size * pool.object_size;
        request.len = 0;
        [[fallthrough]];
    case PartKind::read:
        header.opcode = wire::Opcode::read;
        request.meta_revision = view.meta_revision;
        part.payload_count = 0;
        part.data_out = part.many_iov ? part.many_iov : part.payload;
        part.data_count = part.iov_count;
        part.bitmap_out = part.bitmap_small;
        part.bitmap_capacity = sizeof part.bitmap_small;
        if (pool.bitmap_bytes > sizeof part.bitmap_small) {
            if (part.bitmap_large.capacity() < pool.bitmap_bytes)
                part.bitmap_large = loop_.buffers().allocate(pool.bitmap_bytes);
            part.bitmap_out = part.bitmap_large.data();
            part.bitmap_capacity = pool.bitmap_bytes;
        }
        break;
    case PartKind::compare_write:
        request.version = part.op->expected_version + 1;
        [[fallthrough]];
    case PartKind::write:
        header.opcode = wire::Opcode::write;
        part.payload_count = part.iov_count;
        if (part.many_iov) {
            if (!part.bounce) {
                part.bounce = loop_.buffers().allocate(part.length);
                uint8_t* to = part.bounce.data();
                for (int i = 0; i < part.iov_count; i++) {
                    memcpy(to, part.many_iov[i].iov_base, part.many_iov[i].iov_len);
                    to += part.many_iov[i].iov_len;
                }
            }
            part.payload[0] = {part.bounce.data(), part.length};
            part.payload_count = 1;
        }
        break;
    case PartKind::zero:
        header.opcode = wire::Opcode::write;
        part.payload_count = 0;
        for (uint64_t left = part.length; left;) {
            uint64_t size = std::min<uint64_t>(left, kZeroBytes);
            VITASTOR_ASSERT(part.payload_count < net::Call::kMaxPayloadIov);
            part.payload[part.payload_count++] = {zeroes, size};
            left -= size;
        }
        break;
    case PartKind::compare_remove:
        request.version = part.op->expected_version + 1;
        [[fallthrough]];
    case PartKind::remove:
        header.opcode = wire::Opcode::del;
        request.len = 0;
        part.payload_count = 0;
        break;
    case PartKind::sync: VITASTOR_ASSERT(!"sync parts are sent by sync.cpp");
    }
    wire::encode_request(header_of(part), header, request);
    connection->send(part);
}

// ---- answers

void Context::on_reply(Part& part) {
    Op& op = *part.op;
    if (part.kind == PartKind::sync) return on_sync_reply(part);
    int64_t result = part.status ? -EPIPE : part.retval;
    OsdLink* used = part.link;
    net::Connection* connection = used->epoch == part.link_epoch ? used->connection : nullptr;
    bool removal = part.kind == PartKind::remove || part.kind == PartKind::compare_remove;
    const bool empty = removal || part.kind == PartKind::bitmap;
    bool good = part.status == 0 && part.retval == (empty ? 0 : static_cast<int64_t>(part.length));
    if (good) [[likely]] {
        if (is_read(part.kind)) {
            auto reply = wire::decode<wire::ReadReply>(wire::ConstHeaderBytes(part.reply, wire::kHeaderSize));
            op.version = reply.version;
            if (op.fixed_inode || !op.image->options.skip_parents || part.kind == PartKind::bitmap) {
                InodeView own;
                const InodeView* view = &own;
                if (op.fixed_inode) own = make_view(op.fixed_inode, false);
                else view = &view_of(*op.image);
                if (view->chain_revision != part.chain_revision) {
                    VITASTOR_PROBE("layers changed while they were read by the client");
                    return dispatch(part);
                }
                if (part.kind == PartKind::bitmap) note_bitmap(part, *view);
                if (view->cross_parent && view->pool && continue_read(part, *view)) return;
            }
        } else if (!removal) {
            op.version = part.version =
                wire::decode<wire::WriteReply>(wire::ConstHeaderBytes(part.reply, wire::kHeaderSize)).version;
        } else {
            auto reply = wire::decode<wire::DeleteReply>(wire::ConstHeaderBytes(part.reply, wire::kHeaderSize));
            op.version = part.version = 0;
            const bool again = op.kind == OpKind::replay && part.length > 0 && !make_view(op.fixed_inode, true).has_parent;
            if ((op.kind == OpKind::discard || again) && (reply.flags & wire::DeleteReply::kLeftOnDead)) {
                // The object may come back with an OSD: zeroes are newer than what it has (safety.md 8).
                end_tracked(part, true);
                part.kind = PartKind::zero;
                return dispatch(part);
            }
        }
        if (op.kind == OpKind::replay) note_replayed(part);
        bool compare = part.kind == PartKind::compare_write || part.kind == PartKind::compare_remove;
        if (compare && part.tracked) return after_compare_write(part);
        end_tracked(part, true);
        return part_done(part);
    }
    if (result >= 0) {
        reset_link(used, connection, "it answered with a wrong length");
        end_tracked(part, false);
        return part_failed(part, -EIO);
    }
    end_tracked(part, false);
    if (result == -EAGAIN && !is_read(part.kind)) {
        // Not done. For all that the OSD knows, it may have been sent before another OSD led the PG (docs/adr/0048).
        // Without a connection: it has been given up meanwhile, and the answer was handed over when its request had left.
        if (connection && !std::exchange(part.greeted, true)) {
            VITASTOR_PROBE("sent again behind a hello");
            greet(used, part.greetings);
            return dispatch(part);
        }
        result = -EPIPE;
    }
    if (part.kind == PartKind::compare_write || part.kind == PartKind::compare_remove) {
        if (result == -EINTR) {
            auto bytes = wire::ConstHeaderBytes(part.reply, wire::kHeaderSize);
            op.version = part.kind == PartKind::compare_write ? wire::decode<wire::WriteReply>(bytes).version
                                                              : wire::decode<wire::DeleteReply>(bytes).cas_version();
        }
        // Sent once, never again: whatever happened, the caller looks at the object anew.
        if (result == -EPIPE) {
            if (part.status == 0) reset_link(used, connection, "it does not serve the object now");
            return part_failed(part, -EINTR);
        }
        return part_failed(part, static_cast<int>(result));
    }
    part.greeted = false;
    if (part.local_read && part.status == 0 && (result == -EPIPE || result == -EAGAIN)) {
        VITASTOR_PROBE("local read refused");
        return read_at_primary(part, result);
    }
    bool replay = op.kind == OpKind::replay;
    switch (result) {
    case -EAGAIN:  // a read for a primary that does not lead the PG now: it answered as a holder of chunks
    case -EPIPE:
        if (part.local_read) part.force_primary = true;
        else if (part.status == 0) reset_link(used, connection, "it does not serve the object now");
        return retry_later(part, config_->client_retry_interval_ms, retry_);
    case -EIO:
        if (part.local_read) {  // its own copy is bad: the primary has another, and must know
            part.force_primary = true;
            return retry_later(part, config_->client_retry_interval_ms, retry_);
        }
        if (config_->client_eio_retry_interval_ms == 0 && !replay) return part_failed(part, -EIO);
        return retry_later(part, std::max<uint64_t>(config_->client_eio_retry_interval_ms, 10), retry_slow_, -EIO);
    case -ENOSPC:
        if (!config_->client_retry_enospc || replay) return part_failed(part, -ENOSPC);
        return retry_later(part, std::max<uint64_t>(config_->client_eio_retry_interval_ms, 10), retry_slow_, -ENOSPC);
    case -EINTR:
        return part_failed(part, -EINTR);
    default:
        reset_link(used, connection, "it answered with error " + std::to_string(result));
        if (replay && !op.image->closed.load()) return retry_later(part, 1000, retry_slow_);
        return part_failed(part, static_cast<int>(result));
    }
}

void Context::end_part(Part& part) {
    Op& op = *part.op;
    free_part(part);
    if (&part == &op.first) op.first_busy = false;
    else parts_.give(&part);
}

void Context::part_done(Part& part) {
    Op& op = *part.op;
    end_part(part);
    if (op.next_offset < op.end_offset && !op.slicing) {
        if (op.result < 0 || closing_ || !view_of(*op.image).pool) op.next_offset = op.end_offset;
        else slice_more(op, view_of(*op.image));
    }
    if (--op.parts_left == 0) op_done(op);
}

void Context::part_failed(Part& part, int error) {
    Op& op = *part.op;
    if (op.result >= 0 || priority(error) > priority(static_cast<int>(op.result))) op.result = error;
    part_done(part);
}

void Context::op_done(Op& op) {
    if (op.kind == OpKind::replay && more_replay(op)) return;
    if (op.kind == OpKind::replay && op.result == -ENOSPC) return pause_replay(op);
    if (op.result >= 0)
        op.result = op.kind == OpKind::remove        ? 0
                    : op.kind == OpKind::read_bitmap ? static_cast<int64_t>(op.length / op.bitmap_unit)
                                                     : static_cast<int64_t>(op.length);
    // A part that failed before it was sent ends inside start(): the callback waits for the next turn.
    if (!op.internal && op.result < 0) return finish_later(op, op.result);
    complete(op);
}

void Context::complete(Op& op) {
    operations_--;
    if (op.counted) {
        op.image->changes.fetch_add(1, std::memory_order_acq_rel);
        op.image->writing.fetch_sub(1, std::memory_order_acq_rel);
    }
    if (op.done) {
        op.done(&op);
    } else if (op.done_fn) {
        callbacks_++;
        op.done_fn(op.done_arg, op.result, op.version);
    }
    give_op(&op);
}

void Context::finish_later(Op& op, int64_t result) {
    op.result = result;
    finished_.push_back(&op);
    if (!finisher_.linked()) loop_.defer(finisher_);
}

void Context::run_finished() {
    // Those that are added meanwhile wait for the next turn.
    Op* last = nullptr;
    for (Op* op = finished_.front(); op; op = finished_.next(op)) last = op;
    while (Op* op = finished_.pop_front()) {
        bool end = op == last;
        complete(*op);
        if (end) break;
    }
    if (!finished_.empty() && !finisher_.linked()) loop_.defer(finisher_);
}

// ---- trying again

void Context::wait_for_change(Part& part) {
    if (closing_) return part_failed(part, -ECANCELED);
    if (given_up(*part.op)) return part_failed(part, -ETIMEDOUT);
    waiting_.push_back(&part);
}

void Context::retry_waiting() {
    List<net::Call> now;
    while (net::Call* call = waiting_.pop_front()) now.push_back(call);
    if (closing_)
        for (RetryList* list : {&retry_, &retry_slow_})
            while (net::Call* call = list->parts.pop_front()) now.push_back(call);
    while (net::Call* call = now.pop_front()) {
        Part& part = *static_cast<Part*>(call);
        dispatch(part);
    }
    List<Op> flushes;
    while (Op* op = parked_flushes_.pop_front()) flushes.push_back(op);
    while (Op* op = flushes.pop_front()) step_flush(*op);
}

void Context::retry_later(Part& part, uint64_t interval_ms, RetryList& list, int error) {
    if (closing_) error = -ECANCELED;
    if (closing_ || given_up(*part.op))
        return part.kind == PartKind::sync ? finish_later(*part.op, error) : part_failed(part, error);
    part.deadline_ns = loop_.now_ns() + interval_ms * runtime::kNsPerMs;
    list.parts.push_back(&part);
    if (!retry_timer_.armed() || retry_timer_.deadline_ns > part.deadline_ns) loop_.arm(retry_timer_, part.deadline_ns);
}

void Context::on_retry_timer() {
    uint64_t now = loop_.now_ns();
    List<net::Call> due;
    for (RetryList* list : {&retry_, &retry_slow_})
        while (net::Call* call = list->parts.front()) {
            if (static_cast<Part*>(call)->deadline_ns > now) break;
            due.push_back(list->parts.pop_front());
        }
    while (net::Call* call = due.pop_front()) {
        Part& part = *static_cast<Part*>(call);
        dispatch(part);
    }
    arm_retry_timer();
}

void Context::arm_retry_timer() {
    uint64_t earliest = runtime::kNever;
    for (RetryList* list : {&retry_, &retry_slow_})
        if (net::Call* call = list->parts.front())
            earliest = std::min(earliest, static_cast<Part*>(call)->deadline_ns);
    if (earliest != runtime::kNever) loop_.arm(retry_timer_, earliest);
}

}  // namespace vitastor::client

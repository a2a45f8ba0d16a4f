// SPDX-License-Identifier: GPL-2.0-or-later
// Reads through parents in other pools: what the same-pool part of the chain leaves open is read from the first ancestor
// elsewhere, straight into the caller's memory. Source: semantics 11.5.
#include <algorithm>
#include <cstring>

#include "client/context.hpp"

namespace vitastor::client {
namespace {

/// The part of `iov` that starts `skip` bytes in and is `length` long.
std::vector<iovec> cut_iov(const iovec* iov, uint64_t skip, uint64_t length) {
    std::vector<iovec> out;
    for (; length; iov++) {
        if (skip >= iov->iov_len) {
            skip -= iov->iov_len;
            continue;
        }
        uint64_t size = std::min<uint64_t>(length, iov->iov_len - skip);
        out.push_back({static_cast<uint8_t*>(iov->iov_base) + skip, size});
        length -= size;
        skip = 0;
    }
    return out;
}

}  // namespace

/// True: other layers are being read, the part ends when they do.
bool Context::continue_read(Part& part, const InodeView& view) {
    if (part.kind == PartKind::bitmap) {
        start_layer_bitmap(part, view.cross_parent);
        return true;
    }
    uint64_t granularity = view.pool->pool->bitmap_granularity;
    uint64_t object = part.offset / view.pool->object_size * view.pool->object_size;
    uint64_t end = part.offset + part.length;
    InodeNum ancestor = view.cross_parent;
    const uint8_t* bitmap = part.bitmap_out;
    auto present = [&](uint64_t offset) {
        uint64_t bit = (offset - object) / granularity;
        return bit / 8 < part.bitmap_size && (bitmap[bit / 8] >> (bit % 8) & 1);
    };
    part.layers_left = 1;  // held until all are started
    for (uint64_t offset = part.offset; offset < end;) {
        if (present(offset)) {
            offset += granularity;
            continue;
        }
        uint64_t start = offset;
        while (offset < end && !present(offset)) offset += granularity;
        start_layer(part, ancestor, start, offset - start);
    }
    return --part.layers_left > 0;
}

void Context::start_layer(Part& part, InodeNum ancestor, uint64_t offset, uint64_t length) {
    VITASTOR_PROBE("read of a layer in another pool");
    Op* op = take_op();
    op->context = this;
    op->kind = OpKind::layer_read;
    op->internal = true;
    op->image = part.op->image;
    op->fixed_inode = ancestor;
    op->parent_part = &part;
    op->done = [](Op* self) { self->context->layer_done(*self); };
    operations_++;
    part.layers_left++;
    auto target = cut_iov(part.many_iov ? part.many_iov : part.payload, offset - part.offset, length);
    InodeView view = make_view(ancestor, false);
    if (!view.pool) return finish_later(*op, -ENOENT);
    uint64_t granularity = view.pool->pool->bitmap_granularity;
    uint64_t from = offset / granularity * granularity;
    uint64_t to = (offset + length + granularity - 1) / granularity * granularity;
    op->offset = from;
    op->length = to - from;
    if (from == offset && op->length == length) {
        set_iov(*op, target.data(), static_cast<int>(target.size()));
    } else {
        op->bounce = loop_.buffers().allocate(op->length);
        op->bounce_skip = offset - from;
        op->bounce_target = new iovec[target.size()];
        op->bounce_target_count = static_cast<int>(target.size());
        std::copy(target.begin(), target.end(), op->bounce_target);
        iovec whole{op->bounce.data(), op->length};
        set_iov(*op, &whole, 1);
    }
    // Parts as of a read; dispatch() looks the ancestor up at each try.
    uint64_t object_size = view.pool->object_size;
    List<net::Call> parts;
    for (uint64_t at = from; at < to;) {
        uint64_t part_end = std::min(std::min(to, (at / object_size + 1) * object_size), at + wire::kMaxTransfer);
        parts.push_back(add_part(*op, PartKind::read, at, static_cast<uint32_t>(part_end - at), at - from));
        at = part_end;
    }
    while (net::Call* call = parts.pop_front()) dispatch(*static_cast<Part*>(call));
}

/// What the OSD says of one object, into the caller's bits; a layer may have another granularity. Bits that it did not send count as data.
void Context::note_bitmap(Part& part, const InodeView& view) {
    const Op& op = *part.op;
    const uint64_t granularity = view.pool ? view.pool->pool->bitmap_granularity : op.bitmap_unit;
    const uint64_t object = view.pool ? part.offset / view.pool->object_size * view.pool->object_size : part.offset;
    auto* out = static_cast<uint8_t*>(op.iov[0].iov_base);
    for (uint64_t offset = part.offset; offset < part.offset + part.length; offset += op.bitmap_unit) {
        bool present = false;
        for (uint64_t at = offset / granularity * granularity; at < offset + op.bitmap_unit && !present; at += granularity) {
            const uint64_t bit = (at - object) / granularity;
            present = !view.pool || bit / 8 >= part.bitmap_size || (part.bitmap_out[bit / 8] >> (bit % 8) & 1);
        }
        const uint64_t bit = (offset - op.offset) / op.bitmap_unit;
        if (present) out[bit / 8] = static_cast<uint8_t>(out[bit / 8] | 1u << (bit % 8));
    }
}

/// The same range of the first ancestor in another pool, into the same bits.
void Context::start_layer_bitmap(Part& part, InodeNum ancestor) {
    VITASTOR_PROBE("bitmap of a layer in another pool");
    const Op& above = *part.op;
    Op* op = take_op();
    op->context = this;
    op->kind = OpKind::layer_read;
    op->internal = true;
    op->image = above.image;
    op->fixed_inode = ancestor;
    op->parent_part = &part;
    op->done = [](Op* self) { self->context->layer_done(*self); };
    op->bitmap_unit = above.bitmap_unit;
    op->offset = above.offset;  // where the bits begin
    set_iov(*op, above.iov, 1);
    operations_++;
    part.layers_left = 1;
    InodeView view = make_view(ancestor, false);
    if (!view.pool) return finish_later(*op, -ENOENT);
    const uint64_t object_size = view.pool->object_size;
    List<net::Call> parts;
    for (uint64_t at = part.offset; at < part.offset + part.length;) {
        const uint64_t end = std::min(part.offset + part.length, (at / object_size + 1) * object_size);
        parts.push_back(add_part(*op, PartKind::bitmap, at, static_cast<uint32_t>(end - at), 0));
        at = end;
    }
    while (net::Call* call = parts.pop_front()) dispatch(*static_cast<Part*>(call));
}

void Context::layer_done(Op& op) {
    Part& part = *op.parent_part;
    if (op.result < 0) part.layer_error = op.result;
    const uint8_t* from = op.bounce ? op.bounce.data() + op.bounce_skip : nullptr;
    for (int i = 0; op.result >= 0 && from && i < op.bounce_target_count; i++) {
        memcpy(op.bounce_target[i].iov_base, from, op.bounce_target[i].iov_len);
        from += op.bounce_target[i].iov_len;
    }
    if (--part.layers_left > 0) return;
    const int64_t error = std::exchange(part.layer_error, 0);
    if (chain_changed(part)) {
        // What was merged elsewhere meanwhile, and deleted, is missing; what is gone needs not be read.
        VITASTOR_PROBE("layers changed while they were read by the client");
        return dispatch(part);
    }
    if (error < 0) part.op->result = error;
    part_done(part);
}

bool Context::chain_changed(const Part& part) {
    const Op& op = *part.op;
    return (op.fixed_inode ? make_view(op.fixed_inode, false) : view_of(*op.image)).chain_revision != part.chain_revision;
}

}  // namespace vitastor::client

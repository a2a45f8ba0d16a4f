// SPDX-License-Identifier: GPL-2.0-or-later
// Flush, replay and forced SYNC in pools that do not make every acknowledged write durable. Source: semantics 4.3, 4.4.
#include <algorithm>
#include <cstring>

#include "client/context.hpp"

namespace vitastor::client {

/// What an operation of kind replay still has to send.
struct ReplayState {
    ObjectId object;
    std::vector<Unsynced::ReplayItem> items;
    size_t next = 0;
};

namespace {

ObjectId object_of(const Part& part, const PoolView& pool) {
    return {part.inode, part.offset / pool.object_size * pool.object_size};
}

/// A copy of what the part has written.
std::shared_ptr<WrittenData> copy_written(const Part& part) {
    if (part.kind != PartKind::write) return nullptr;
    auto data = std::make_shared<WrittenData>();
    data->bytes.reset(new uint8_t[part.length]);
    uint8_t* to = data->bytes.get();
    for (int i = 0; i < part.payload_count; i++) {
        memcpy(to, part.payload[i].iov_base, part.payload[i].iov_len);
        to += part.payload[i].iov_len;
    }
    return data;
}

}  // namespace

Route Context::route_of(ObjectId object) {
    PoolView* pool = pool_view(pool_of(object.inode));
    OsdLink* link = pool ? pool->primary_of(object.stripe) : nullptr;
    if (!link) return {};
    return {link->osd, connect(link) ? link->epoch : UINT64_MAX};
}

/// False: the part has been put aside.
bool Context::begin_tracked(Part& part, const InodeView& view, OsdLink* link, bool write) {
    Image& image = *part.op->image;
    if (!write) return image.unsynced.empty() || may_read(part, view, link);
    // A deletion keeps no data, and may be what makes the room that a replay, and so the SYNC, waits for.
    const bool keeps_data = part.kind != PartKind::remove && part.kind != PartKind::compare_remove;
    if (keeps_data && image.unsynced.over_limit(2 * config_->client_max_dirty_bytes, 2ull * config_->client_max_dirty_ops)) {
        VITASTOR_PROBE("writes wait for a forced sync");
        waiting_.push_back(&part);
        maybe_force_sync(image);
        return false;
    }
    ObjectId object = object_of(part, *view.pool);
    part.start_seq = image.unsynced.last_seq();
    switch (image.unsynced.begin(object, {link->osd, link->epoch}, true, part.kind == PartKind::remove)) {
    case Unsynced::Verdict::go:
        part.tracked = true;
        return true;
    case Unsynced::Verdict::wait:
        waiting_.push_back(&part);
        return false;
    case Unsynced::Verdict::replay:
        waiting_.push_back(&part);
        start_replay(image, object);
        return false;
    }
    return true;
}

/// What is unsynced of the layers below counts too: a snapshot may have been made since it was written. False: the part has been put aside.
bool Context::may_read(Part& part, const InodeView& view, OsdLink* link) {
    Image& image = *part.op->image;
    ObjectId object = object_of(part, *view.pool);
    for (unsigned depth = 0; depth < kMaxChain; depth++) {
        switch (image.unsynced.begin(object, {link->osd, link->epoch}, false)) {
        case Unsynced::Verdict::go: break;
        case Unsynced::Verdict::wait:
            waiting_.push_back(&part);
            return false;
        case Unsynced::Verdict::replay:
            if (object.inode != view.inode) VITASTOR_PROBE("a read waits for unsynced writes of a layer below");
            waiting_.push_back(&part);
            start_replay(image, object);
            return false;
        }
        if (!view.has_parent) return true;
        const auto layer = map_->inodes->find(object.inode);
        if (layer == map_->inodes->end() || !layer->second.parent || pool_of(layer->second.parent) != pool_of(view.inode)) return true;
        object.inode = layer->second.parent;
    }
    return true;
}

void Context::end_tracked(Part& part, bool ok) {
    if (!part.tracked) return;
    part.tracked = false;
    Image& image = *part.op->image;
    PoolView& pool = *pools_.at(pool_of(part.inode));
    ObjectId object{part.inode, part.offset / pool.object_size * pool.object_size};
    const bool compare = part.op->kind == OpKind::compare_write || part.kind == PartKind::compare_remove;
    Unsynced::WriteEnd end;
    if (ok) end.kind = compare ? Unsynced::WriteEnd::Kind::compared : Unsynced::WriteEnd::Kind::written;
    end.removed = part.kind == PartKind::remove || part.kind == PartKind::compare_remove;
    end.offset = static_cast<uint32_t>(part.offset - object.stripe);
    end.length = part.length;
    if (ok && !compare && !end.removed) end.data = copy_written(part);
    end.osd = part.link->osd;
    end.epoch = part.send_epoch;
    end.start_seq = part.start_seq;
    end.version = part.version;
    if (image.unsynced.end_write(object, std::move(end))) shared_.wake_contexts();
    if (ok && !compare) maybe_force_sync(image);
}

// ---- replay

void Context::replay_stale(Image& image) {
    if (closing_ || image.unsynced.empty() || image.closed.load(std::memory_order_acquire)) return;
    for (ObjectId object : image.unsynced.stale_objects([&](ObjectId id) { return route_of(id); }))
        start_replay(image, object);
}

void Context::start_replay(Image& image, ObjectId object) {
    auto state = std::make_unique<ReplayState>();
    if (closing_ || !image.unsynced.claim(object, this, state->items)) return;
    VITASTOR_PROBE("unsynced writes are sent again");
    state->object = object;
    Op* op = take_op();
    op->context = this;
    op->kind = OpKind::replay;
    op->internal = true;
    op->image = &image;
    op->fixed_inode = object.inode;
    op->replay = state.release();
    op->done = [](Op* self) { self->context->replay_done(*self); };
    operations_++;
    image.ref();
    continue_replay(*op);
}

/// A deletion goes alone and first; the ranges, which do not overlap, together.
void Context::continue_replay(Op& op) {
    ReplayState& state = *op.replay;
    List<net::Call> parts;
    while (state.next < state.items.size()) {
        auto& item = state.items[state.next++];
        PartKind kind = item.remove ? PartKind::remove : item.range.data ? PartKind::write : PartKind::zero;
        Part* part = add_part(op, kind, state.object.stripe + item.offset, item.range.length, 0);
        part->range_seq = item.range.user_seq;
        if (kind == PartKind::write) {
            part->payload[0] = {item.range.data->bytes.get() + item.range.data_offset, item.range.length};
            part->iov_count = 1;
        }
        parts.push_back(part);
        if (item.remove) break;
    }
    while (net::Call* call = parts.pop_front()) dispatch(*static_cast<Part*>(call));
}

bool Context::more_replay(Op& op) {
    if (op.result < 0 || op.replay->next >= op.replay->items.size()) return false;
    continue_replay(op);
    return true;
}

/// Nobody knows when there will be room: until then a deletion of the object, which makes it, may pass.
void Context::pause_replay(Op& op) {
    op.result = 0;
    op.image->unsynced.pause(op.replay->object);
    shared_.wake_contexts();
    if (!rechecker_.linked()) loop_.defer(rechecker_);
    wait_for_room(op);
}

void Context::wait_for_room(Op& op) {
    op.first.op = &op;
    op.first.kind = PartKind::sync;  // as in a flush: what dispatch() gets after the pause is the operation
    retry_later(op.first, std::max<uint64_t>(config_->client_eio_retry_interval_ms, 10), retry_slow_, -ENOSPC);
}

void Context::resume_replay(Op& op) {
    Image& image = *op.image;
    if (closing_ || image.closed.load(std::memory_order_acquire)) return finish_later(op, -ECANCELED);
    ReplayState& state = *op.replay;
    state.items.clear();
    state.next = 0;
    switch (image.unsynced.resume(state.object, route_of(state.object), state.items)) {
    case Unsynced::Verdict::wait: return wait_for_room(op);
    case Unsynced::Verdict::go: return finish_later(op, 0);
    case Unsynced::Verdict::replay: return continue_replay(op);
    }
}

void Context::note_replayed(Part& part) {
    const ReplayState& state = *part.op->replay;
    const ObjectId object = state.object;
    const bool removed = state.items[state.next - 1].remove;  // goes alone; perhaps as zeroes in the end
    part.op->image->unsynced.replayed(object, static_cast<uint32_t>(part.offset - object.stripe),
        removed, part.range_seq, part.link->osd, part.send_epoch, part.version);
}

void Context::replay_done(Op& op) {
    Image& image = *op.image;
    ObjectId object = op.replay->object;
    delete std::exchange(op.replay, nullptr);
    image.unsynced.release(object);
    image.unref();
    shared_.wake_contexts();
    if (!rechecker_.linked()) loop_.defer(rechecker_);
}

// ---- flush

void Context::start_flush(Op& op) {
    if (op.image->unsynced.empty()) return finish_later(op, 0);
    op.sync_cut = op.image->unsynced.last_seq();
    step_flush(op);
}

void Context::step_flush(Op& op) {
    Image& image = *op.image;
    if (closing_ || (op.internal && image.closed.load(std::memory_order_acquire))) return finish_later(op, -ECANCELED);
    if (given_up(op)) return finish_later(op, -ETIMEDOUT);
    Unsynced::SyncPlan plan;
    if (image.unsynced.plan_sync(op.sync_cut, [&](ObjectId id) { return route_of(id); }, plan))
        return finish_later(op, 0);
    for (ObjectId object : plan.to_replay) start_replay(image, object);
    if (plan.must_wait || !plan.to_replay.empty()) return parked_flushes_.push_back(&op);
    uint64_t sequence = image.unsynced.next_seq();
    std::vector<std::pair<Part*, OsdLink*>> parts;
    for (OsdNum osd : plan.ready) parts.push_back({add_part(op, PartKind::sync, 0, 0, 0), link(osd)});
    for (auto [part, link] : parts) send_sync(*part, link, sequence);
}

void Context::send_sync(Part& part, OsdLink* link, uint64_t sequence) {
    part.link = link;
    part.link_epoch = link->epoch;
    part.range_seq = sequence;
    part.payload_count = part.data_count = 0;
    part.data_out = nullptr;
    part.bitmap_out = nullptr;
    part.bitmap_capacity = 0;
    wire::RequestHeader header;
    header.opcode = wire::Opcode::sync;
    wire::encode_request(wire::HeaderBytes(part.request, wire::kHeaderSize), header);
    link->connection->send(part);
}

/// A compare-and-set in such a pool counts when it is durable: SYNC over the same connection.
void Context::after_compare_write(Part& part) {
    OsdLink* link = part.link;
    if (!link->connection || link->epoch != part.link_epoch) {
        end_tracked(part, false);
        return part_failed(part, -EINTR);
    }
    part.synced_kind = std::exchange(part.kind, PartKind::sync);
    send_sync(part, link, part.op->image->unsynced.next_seq());
}

void Context::on_sync_reply(Part& part) {
    Op& op = *part.op;
    int result = part.status ? -EPIPE : static_cast<int>(part.retval);
    if (op.kind != OpKind::flush) {
        part.kind = part.synced_kind;
        // Older writes are durable with it. None may be sent again: the object's deletion would take the new bytes with it, which are not kept.
        if (result == 0) op.image->unsynced.synced(part.link->osd, part.link_epoch, part.range_seq);
        end_tracked(part, result == 0);
        return result == 0 ? part_done(part) : part_failed(part, -EINTR);
    }
    if (result == 0) {
        op.image->unsynced.synced(part.link->osd, part.link_epoch, part.range_seq);
    } else if (result == -EPIPE || result == -EIO || result == -ENOSPC) {
        if (part.status == 0 && result == -EPIPE && part.link->epoch == part.link_epoch)
            reset_link(part.link, part.link->connection, "it refuses a SYNC now");
        op.version = 1;  // to be repeated after a pause
    } else {
        op.result = result;
    }
    end_part(part);
    if (--op.parts_left) return;
    bool pause = std::exchange(op.version, 0) != 0;
    if (op.result < 0) return finish_later(op, op.result);
    if (pause) return retry_later(op.first, config_->client_retry_interval_ms, retry_);
    step_flush(op);
}

void Context::maybe_force_sync(Image& image) {
    if (closing_ || !image.unsynced.over_limit(config_->client_max_dirty_bytes, config_->client_max_dirty_ops)) return;
    if (image.slot >= views_.size() || views_[image.slot].serial != image.serial) return;
    View& view = views_[image.slot];
    if (view.forced_sync) return;
    VITASTOR_PROBE("forced sync");
    view.forced_sync = true;
    image.ref();
    Op* op = take_op();
    op->context = this;
    op->kind = OpKind::flush;
    op->internal = true;
    op->image = &image;
    op->done = [](Op* self) {
        Context& context = *self->context;
        Image& done_image = *self->image;
        if (done_image.slot < context.views_.size() && context.views_[done_image.slot].serial == done_image.serial)
            context.views_[done_image.slot].forced_sync = false;
        done_image.unref();
        context.shared_.wake_contexts();
        if (!context.rechecker_.linked()) context.loop_.defer(context.rechecker_);
    };
    operations_++;
    start_flush(*op);
}

}  // namespace vitastor::client

// SPDX-License-Identifier: GPL-2.0-or-later
#include "client/writeback.hpp"

#include <algorithm>
#include <cstring>

#include "client/context.hpp"

namespace vitastor::client {
namespace {

void overlay(const Op& op, const std::vector<WriteCache::Piece>& pieces) {
    for (const WriteCache::Piece& piece : pieces) {
        const uint8_t* from = piece.data->bytes.get() + piece.data_offset;
        each_piece(op, piece.offset - op.offset, piece.length,
            [&](uint8_t* to, uint64_t at, uint64_t size) { memcpy(to, from + at, size); });
    }
}

}  // namespace

/// One write to the OSDs. The image is referenced, its cache lives as long.
struct Writeback::WriteOut {
    Writeback* owner;
    Image* image;
    WriteCache::Run run;
};

struct Writeback::PartialRead {
    Context* context;
    Op* whole;
    std::vector<WriteCache::Piece> pieces;
};

Writeback::Writeback(Context& context) : context_(context) {
    timer_.owner = this;
    timer_.on_fire = [](runtime::Timer* timer) { static_cast<GiveUpTimer*>(timer)->owner->on_timer(); };
}

Writeback::~Writeback() { VITASTOR_ASSERT(waiters_.empty()); }

void Writeback::take_settings() {
    const cluster::ClusterMap* map = context_.map();
    if (map && map->global_config == known_etcd_) return;
    cluster::ConfigLayers layers = context_.shared().layers;
    if (map && map->global_config) {
        known_etcd_ = map->global_config;
        layers.etcd = *known_etcd_;
    }
    settings_ = resolve_cache_settings(layers, context_.logger());
}

bool Writeback::start(Op& op, const InodeView& view) {
    switch (op.kind) {
    case OpKind::read: return start_read(op);
    case OpKind::write: return start_write(op, view);
    // The order of a journal and its commit mark is kept for those who write the mark like this.
    case OpKind::compare_write: return behind(op, 0, UINT64_MAX);
    case OpKind::remove: {
        const uint64_t object = op.offset / view.pool->object_size * view.pool->object_size;
        return behind(op, object, object + view.pool->object_size);
    }
    case OpKind::discard:
    case OpKind::read_bitmap: return behind(op, op.offset, op.offset + op.length);
    default: return false;
    }
}

bool Writeback::start_read(Op& op) {
    auto partial = std::make_unique<PartialRead>();
    switch (op.image->cache->collect(op.offset, op.length, partial->pieces)) {
    case WriteCache::Coverage::none: return false;
    case WriteCache::Coverage::all:
        VITASTOR_PROBE("read from the write-back cache");
        overlay(op, partial->pieces);
        context_.finish_later(op, static_cast<int64_t>(op.length));
        return true;
    case WriteCache::Coverage::some: break;
    }
    VITASTOR_PROBE("read partly from the write-back cache");
    Op* below = context_.take_op();
    below->kind = OpKind::read;
    below->image = op.image;
    below->offset = op.offset;
    below->length = op.length;
    below->give_up_ns = op.give_up_ns;
    below->cached = below->admitted = true;
    Context::set_iov(*below, op.iov, op.iov_count);
    partial->context = &context_;
    partial->whole = &op;
    below->done_arg = partial.release();
    below->done = [](Op* self) {
        const std::unique_ptr<PartialRead> done(static_cast<PartialRead*>(self->done_arg));
        if (self->result >= 0) overlay(*done->whole, done->pieces);
        done->whole->version = self->version;
        done->context->finish_later(*done->whole, self->result);
    };
    context_.start(*below);
    return true;
}

/// What is too long for the cache, or lies behind the image's end, goes to the OSDs at once.
bool Writeback::start_write(Op& op, const InodeView& view) {
    const bool fits = op.length <= settings_.max_buffered_bytes / 2 && (!view.known || op.offset + op.length <= view.size);
    if (!fits || !writes_back(*op.image) || context_.closing())
        return behind(op, op.offset, op.offset + op.length);
    if (!has_room(*op.image, op.length) || std::any_of(waiters_.begin(), waiters_.end(), [&](const Waiter& waiter) {
            return waiter.room && waiter.op->image->cache == op.image->cache;
        })) {
        VITASTOR_PROBE("a write waits for room in the write-back cache");
        wait_for(op, 0, 0, 0, true);
    } else {
        buffer(op);
    }
    drain(*op.image);
    return true;
}

bool Writeback::has_room(const Image& image, uint64_t length) const {
    return image.cache->bytes() + length <= 2 * settings_.max_buffered_bytes &&
           image.cache->buffers() < 2 * settings_.max_buffered_ops;
}

void Writeback::buffer(Op& op) {
    auto data = op.image->cache->make_data(op.length);
    each_piece(op, 0, op.length, [&](uint8_t* from, uint64_t at, uint64_t size) { memcpy(data->bytes.get() + at, from, size); });
    op.image->cache->put(op.offset, std::move(data), context_.map()->generation);
    context_.finish_later(op, static_cast<int64_t>(op.length));
}

/// False: nothing is in its way.
bool Writeback::behind(Op& op, uint64_t begin, uint64_t end) {
    const uint64_t cut = op.image->cache->last_seq();
    if (!op.image->cache->pending(cut, begin, end)) return false;
    VITASTOR_PROBE("an operation waits for buffered writes");
    wait_for(op, cut, begin, end, false);
    advance(*op.image);
    return true;
}

void Writeback::start_flush(Op& op) {
    if (behind(op, 0, UINT64_MAX)) return;
    op.cached = true;
    context_.restart(op);
}

void Writeback::wait_for(Op& op, uint64_t cut, uint64_t begin, uint64_t end, bool room) {
    op.image->cache->waiters.fetch_add(1, std::memory_order_relaxed);
    waiters_.push_back({&op, cut, begin, end, room});
    if (!op.give_up_ns || (timer_.armed() && timer_.deadline_ns <= op.give_up_ns)) return;
    context_.loop().arm(timer_, op.give_up_ns);
}

/// Goes on, or ends with an error.
void Writeback::end_waiter(std::list<Waiter>::iterator item, int error) {
    const Waiter waiter = *item;
    waiters_.erase(item);
    waiter.op->image->cache->waiters.fetch_sub(1, std::memory_order_relaxed);
    if (error) return context_.finish_later(*waiter.op, error);
    if (waiter.room) return buffer(*waiter.op);
    waiter.op->cached = true;
    context_.restart(*waiter.op);
}

bool Writeback::ready(const Waiter& waiter) const {
    if (waiter.room) return has_room(*waiter.op->image, waiter.op->length);
    return !waiter.op->image->cache->pending(waiter.cut, waiter.begin, waiter.end);
}

/// Sends what the image's waiters need, and lets those go on that have it.
void Writeback::advance(Image& image) {
    bool no_room = false;  // what waits for room goes on in its order
    for (auto item = waiters_.begin(); item != waiters_.end();) {
        const auto next = std::next(item);
        if (item->op->image->cache != image.cache || (item->room && no_room)) {
            item = next;
            continue;
        }
        if (!item->room)
            while (write_out(image, item->cut, item->begin, item->end)) {}
        if (context_.closing()) end_waiter(item, -ECANCELED);
        else if (ready(*item)) end_waiter(item, 0);
        else no_room |= item->room;
        item = next;
    }
    drain(image);
}

/// In the background, until half of what may be buffered is left.
void Writeback::drain(Image& image) {
    WriteCache& cache = *image.cache;
    const uint64_t bytes = cache.bytes(), buffers = cache.buffers();
    if (bytes > settings_.max_buffered_bytes || buffers > settings_.max_buffered_ops) cache.draining = true;
    if (!cache.draining) return;
    if (bytes <= settings_.max_buffered_bytes / 2 && buffers <= settings_.max_buffered_ops / 2) {
        cache.draining = false;
        return;
    }
    const auto left = [](uint64_t all, uint64_t taken) { return all > taken ? all - taken : 0; };
    while (left(cache.bytes(), cache.bytes_taken()) > settings_.max_buffered_bytes / 2 ||
           left(cache.buffers(), cache.pieces_taken()) > settings_.max_buffered_ops / 2)
        if (!write_out(image, UINT64_MAX, 0, UINT64_MAX)) break;
}

/// False: nothing to be sent now.
bool Writeback::write_out(Image& image, uint64_t cut, uint64_t begin, uint64_t end) {
    if (context_.closing() || image.cache->runs_taken() >= settings_.max_writeback_iodepth) return false;
    const InodeView& view = context_.inode_view(image);
    const uint64_t object_size = view.pool ? view.pool->object_size : image.object_size.load(std::memory_order_relaxed);
    auto out = std::make_unique<WriteOut>();
    if (!image.cache->take(cut, begin, end, object_size, out->run)) return false;
    VITASTOR_PROBE("buffered writes are written out");
    out->owner = this;
    out->image = &image;
    image.ref();
    std::vector<iovec> iov;
    iov.reserve(out->run.pieces.size());
    for (const WriteCache::Piece& piece : out->run.pieces)
        iov.push_back({piece.data->bytes.get() + piece.data_offset, piece.length});
    Op* op = context_.take_op();
    op->kind = OpKind::write;
    op->image = &image;
    op->offset = out->run.offset;
    op->length = out->run.length;
    op->cached = op->admitted = true;
    Context::set_iov(*op, iov.data(), static_cast<int>(iov.size()));
    op->done_arg = out.release();
    op->done = [](Op* self) {
        const std::unique_ptr<WriteOut> done(static_cast<WriteOut*>(self->done_arg));
        done->owner->written(*done, self->result);
    };
    context_.start(*op);
    return true;
}

void Writeback::written(WriteOut& out, int64_t result) {
    Image& image = *out.image;
    image.cache->ended(out.run, result >= 0);
    if (result < 0) {
        // It stays in memory. Whoever waits for it is told; the next flush tries again.
        image.cache->draining = false;
        if (result != -ECANCELED)
            log(context_.logger(), LogLevel::error, "%llu buffered bytes at offset %llu of image %s could not be written: %s; a flush tries again",
                static_cast<unsigned long long>(out.run.length), static_cast<unsigned long long>(out.run.offset), image.options.name.c_str(),
                strerror(static_cast<int>(-result)));
        for (auto item = waiters_.begin(); item != waiters_.end();) {
            const auto next = std::next(item);
            const bool meant = item->op->image->cache == image.cache && (item->room || (item->begin < out.run.offset + out.run.length && item->end > out.run.offset));
            if (meant) end_waiter(item, static_cast<int>(result));
            item = next;
        }
    }
    uint32_t own = 0;
    for (const Waiter& waiter : waiters_) own += waiter.op->image->cache == image.cache;
    if (image.cache->waiters.load(std::memory_order_relaxed) > own) context_.shared().wake_contexts();
    if (result >= 0) advance(image);
    image.unref();
}

void Writeback::on_change() {
    std::vector<Image*> images;
    for (const Waiter& waiter : waiters_) {
        if (std::find(images.begin(), images.end(), waiter.op->image) != images.end()) continue;
        waiter.op->image->ref();
        images.push_back(waiter.op->image);
    }
    for (Image* image : images) {
        advance(*image);
        image->unref();
    }
    if (context_.closing()) context_.loop().disarm(timer_);
}

void Writeback::on_timer() {
    const uint64_t now_ns = context_.loop().now_ns();
    uint64_t next_ns = runtime::kNever;
    for (auto item = waiters_.begin(); item != waiters_.end();) {
        const auto next = std::next(item);
        const uint64_t limit_ns = item->op->give_up_ns;
        if (limit_ns && limit_ns <= now_ns) end_waiter(item, -ETIMEDOUT);
        else if (limit_ns) next_ns = std::min(next_ns, limit_ns);
        item = next;
    }
    if (next_ns != runtime::kNever) context_.loop().arm(timer_, next_ns);
}

}  // namespace vitastor::client

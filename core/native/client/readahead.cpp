// SPDX-License-Identifier: GPL-2.0-or-later
#include "client/readahead.hpp"

#include <algorithm>
#include <cstring>

#include "client/context.hpp"

namespace vitastor::client {
namespace {

constexpr uint64_t kMaxAgeNs = runtime::kNsPerSecond;  ///< a map may be late: what was read longer ago is not shown

}  // namespace

/// False: others might write, or something is being written here.
bool Readahead::key_of(Image& image, Key& out) {
    const cluster::ClusterMap* map = context_.map();
    out.inode = context_.inode_view(image).inode;
    out.revision = 0;
    InodeNum inode = out.inode;
    bool frozen = true;
    for (unsigned depth = 0; inode; depth++) {
        const auto found = map->inodes->find(inode);
        if (found == map->inodes->end() || depth >= kMaxChain) return false;
        frozen &= found->second.readonly && !found->second.deleted;
        out.revision = std::max(out.revision, found->second.mod_revision);
        inode = found->second.parent;
    }
    out.changes = image.changes.load(std::memory_order_acquire);
    return frozen || (image.options.exclusive && image.writing.load(std::memory_order_acquire) == 0);
}

/// nullptr: all are busy with other readers.
Readahead::Stream* Readahead::stream_of(const Op& op) {
    auto found = std::find_if(streams_.begin(), streams_.end(), [&](const Stream& stream) {
        return stream.serial == op.image->serial && stream.next == op.offset;
    });
    if (found != streams_.end()) {
        found->run++;
    } else if (streams_.size() < kMaxStreams) {
        streams_.emplace_back();
        found = std::prev(streams_.end());
    } else {
        // Not one that somebody waits for; a reader that jumps begins anew in its own place.
        found = std::prev(streams_.end());
        while (found != streams_.begin() && !found->waiting.empty()) --found;
        if (!found->waiting.empty()) return nullptr;
        drop(*found);
        found->run = 0;
    }
    found->serial = op.image->serial;
    found->next = op.offset + op.length;
    streams_.splice(streams_.begin(), streams_, found);
    return &*found;
}

bool Readahead::start(Op& op, const InodeView& view) {
    Key key;
    if (!view.known || !view.pool || !key_of(*op.image, key)) return false;
    Stream* found = stream_of(op);
    if (!found) return false;
    Stream& stream = *found;
    // What lies behind all readers.
    while (stream.waiting.empty() && !stream.chunks.empty() && stream.chunks.front()->offset + stream.chunks.front()->length <= op.offset) {
        bytes_ -= stream.chunks.front()->length;
        stream.chunks.pop_front();
    }
    const Answer answered = answer(stream, op, key);
    if (answered == Answer::no) drop(stream);
    if (stream.run >= kSequential) read_more(stream, *op.image, view, key);
    if (answered == Answer::later) stream.waiting.push_back(&op);
    if (answered == Answer::yes) context_.finish_later(op, static_cast<int64_t>(op.length));
    return answered != Answer::no;
}

/// yes: the bytes have been copied.
Readahead::Answer Readahead::answer(Stream& stream, const Op& op, const Key& key) {
    const uint64_t oldest_ns = context_.loop().now_ns() > kMaxAgeNs ? context_.loop().now_ns() - kMaxAgeNs : 0;
    uint64_t at = op.offset;
    const uint64_t end = op.offset + op.length;
    bool all = true;
    for (const auto& chunk : stream.chunks) {
        if (chunk->offset + chunk->length <= at) continue;
        if (at >= end || chunk->offset > at) break;
        if (chunk->state == State::bad || chunk->key != key || chunk->begun_ns < oldest_ns) return Answer::no;
        all &= chunk->state == State::ready;
        at = chunk->offset + chunk->length;
    }
    if (at < end) return Answer::no;
    if (!all) return Answer::later;
    VITASTOR_PROBE("answered from what was read ahead");
    const iovec* piece = op.iov;
    uint64_t skip = 0;
    at = op.offset;
    for (const auto& chunk : stream.chunks) {
        while (at < end && at >= chunk->offset && at < chunk->offset + chunk->length) {
            while (skip == piece->iov_len) {
                piece++;
                skip = 0;
            }
            const uint64_t size = std::min({end - at, chunk->offset + chunk->length - at, static_cast<uint64_t>(piece->iov_len) - skip});
            memcpy(static_cast<uint8_t*>(piece->iov_base) + skip, chunk->data.data() + (at - chunk->offset), size);
            at += size;
            skip += size;
        }
    }
    return Answer::yes;
}

void Readahead::read_more(Stream& stream, Image& image, const InodeView& view, const Key& key) {
    if (context_.closing()) return;
    const uint64_t granularity = view.pool->pool->bitmap_granularity, object_size = view.pool->object_size;
    const uint64_t size = view.size / granularity * granularity;
    const uint64_t part = std::max(granularity, window_bytes_ / 4 / granularity * granularity);
    uint64_t at = stream.chunks.empty() ? stream.next / granularity * granularity : stream.chunks.back()->offset + stream.chunks.back()->length;
    const uint64_t first = stream.chunks.empty() ? at : stream.chunks.front()->offset;
    while (at < size && at < stream.next + window_bytes_ && at < first + 2 * window_bytes_) {
        auto chunk = std::make_shared<Chunk>();
        chunk->offset = at;
        chunk->length = std::min({part, size - at, (at / object_size + 1) * object_size - at});
        chunk->data = context_.loop().buffers().allocate(chunk->length);
        chunk->key = key;
        chunk->begun_ns = context_.loop().now_ns();
        chunk->owner = this;
        bytes_ += chunk->length;
        stream.chunks.push_back(chunk);
        at += chunk->length;
        Op* op = context_.take_op();
        op->kind = OpKind::read;
        op->image = &image;
        op->offset = chunk->offset;
        op->length = chunk->length;
        op->ahead = op->cached = op->admitted = true;
        const iovec iov{chunk->data.data(), chunk->length};
        Context::set_iov(*op, &iov, 1);
        image.ref();
        op->done_arg = new std::shared_ptr<Chunk>(std::move(chunk));
        op->done = [](Op* self) {
            const std::unique_ptr<std::shared_ptr<Chunk>> holder(static_cast<std::shared_ptr<Chunk>*>(self->done_arg));
            Chunk& read = **holder;
            read.state = self->result < 0 ? State::bad : State::ready;
            read.owner->finished(read);
            self->image->unref();
        };
        context_.start(*op);
    }
}

/// Whoever has waited for it looks again; those that find nothing go on without.
void Readahead::finished(Chunk& chunk) {
    for (Stream& stream : streams_) {
        if (stream.waiting.empty()) continue;
        const bool own = std::any_of(stream.chunks.begin(), stream.chunks.end(), [&](const auto& other) { return other.get() == &chunk; });
        if (!own) continue;
        std::vector<Op*> waiting = std::move(stream.waiting);
        stream.waiting.clear();
        for (Op* op : waiting) {
            Key key;
            const Answer answered = key_of(*op->image, key) ? answer(stream, *op, key) : Answer::no;
            if (answered == Answer::later) {
                stream.waiting.push_back(op);
            } else if (answered == Answer::yes) {
                context_.finish_later(*op, static_cast<int64_t>(op->length));
            } else {
                op->ahead = true;
                context_.restart(*op);
            }
        }
        return;
    }
}

/// Reads that wait for its chunks go on without.
void Readahead::drop(Stream& stream) {
    for (const auto& chunk : stream.chunks) bytes_ -= chunk->length;
    stream.chunks.clear();
    std::vector<Op*> waiting = std::move(stream.waiting);
    stream.waiting.clear();
    for (Op* op : waiting) {
        op->ahead = true;
        context_.restart(*op);
    }
}

void Readahead::forget(const Image& image) {
    for (Stream& stream : streams_)
        if (stream.serial == image.serial) drop(stream);
}

}  // namespace vitastor::client

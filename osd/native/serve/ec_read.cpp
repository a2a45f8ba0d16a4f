// SPDX-License-Identifier: GPL-2.0-or-later
// READ of erasure-coded objects: the chunks touched, or where one is lost any k of which it is rebuilt. Readers do not wait for a
// write: they take the version before it until all chunks of the new one are there. Source: semantics 3.3, 9.5; safety 5.
#include <cinttypes>
#include <cstring>

#include "serve/answer.hpp"

namespace vitastor::serve {

using erasure::ReadRequest;

namespace {
constexpr size_t kComputeSlice = 256 << 10;  ///< bytes between two yields
constexpr int kTurnsMax = 3 * erasure::kRolesMax;  ///< each turn but those beside a write loses a chunk
}

/// The common case without a coroutine: one chunk of a clean object, straight into the reply. false: take the long way.
bool Osd::start_ec_read(Op* op) {
    Pg& pg = *op->pg;
    if (op->len == 0 || pg.gate || pg.objects.find(op->object)) return false;
    const uint32_t role = op->offset / block_size_;
    const OsdNum osd = pg.activation.current_set[role];
    if (osd == 0 || role != (op->offset + op->len - 1) / block_size_) return false;
    Version version = kNewestVersion;
    if (ObjectQueue* queue = find_queue(op->object); queue && queue->overridden) version = queue->read_version;
    if (version == 0) return false;
    std::memset(op->bitmap, 0, object_bitmap_bytes(*op->pool));
    if (osd != osd_num_) {
        net::Connection* connection = peers_->get(osd);
        if (!connection) return false;
        op->old_version = version;
        op->pending = 0;
        op->on_parts = [](Op* done) { done->osd->on_chunk_read(done); };
        op->iov = {op->request->reply_buffer.data(), op->len};
        SubCall* call = new_call(op, osd, wire::Opcode::sec_read);
        wire::SubRequest message;
        message.object = {op->object.inode, op->object.stripe | role};
        message.version = version;
        message.offset = op->offset % block_size_;
        message.len = op->len;
        wire::encode_request(wire::HeaderBytes(call->request), {0, wire::Opcode::sec_read}, message);
        call->bitmap_out = op->bitmap + size_t{role} * bitmap_bytes_;
        call->bitmap_capacity = bitmap_bytes_;
        call->data_out = &op->iov;
        call->data_count = 1;
        call->bitmap_size = 0;
        send_call(call, connection);
        return true;
    }
    read_own_chunk(op, role, version, on_local_read);
    return true;
}

/// The range of a READ lies in one chunk, which is here: into the reply's buffer and bitmap.
void Osd::read_own_chunk(Op* op, uint32_t role, Version version, void (*on_done)(store::Operation*)) {
    op->local.store::Operation::op = store::StoreOp::read;
    op->local.object = {op->object.inode, op->object.stripe | role};
    op->local.version = version;
    op->local.offset = op->offset % block_size_;
    op->local.len = op->len;
    op->iov = {op->request->reply_buffer.data(), op->len};
    op->local.iov = &op->iov;
    op->local.iov_count = 1;
    op->local.bitmap = op->bitmap + size_t{role} * bitmap_bytes_;
    op->local.on_done = on_done;
    store_.submit(op->local);
}

/// The one chunk has come from another OSD. Whatever is not as usual takes the long way.
void Osd::on_chunk_read(Op* op) {
    const SubCall& call = *op->calls;
    const int64_t result = call.result;
    const bool whole_bitmap = call.bitmap_size == bitmap_bytes_;
    Version version = 0;
    if (result >= 0) version = wire::decode<wire::SubReply>(wire::ConstHeaderBytes(call.reply)).version;
    free_calls(op);
    const Version asked = std::exchange(op->old_version, 0);
    const bool newest = asked == kNewestVersion;
    if (result == static_cast<int64_t>(op->len) && whole_bitmap && (newest || version == asked)) {
        op->version = version;
        return answer_read(op, result);
    }
    if (result == -ENOENT && newest) {
        std::memset(op->request->reply_buffer.data(), 0, op->len);
        std::memset(op->bitmap, 0, object_bitmap_bytes(*op->pool));
        op->version = 0;
        return answer_read(op, op->len);
    }
    runtime::spawn(read_slow(op));
}

runtime::Task<int64_t> Osd::read_ec(LayerRead& read) {
    Pg& pg = *read.pg;
    EcWork* work = new_ec(*read.pool);
    const uint32_t bitmap_size = object_bitmap_bytes(*read.pool);
    int64_t result = 0;
    bool mixed_before = false, absent = false, stale = false;
    for (int turn = 0;; turn++) {
        if (!pg.active() || turn == kTurnsMax) {
            result = -EPIPE;
            break;
        }
        Version version = kNewestVersion, expected = 0;
        pg::UncleanObject* unclean = pg.objects.find(read.object);
        if (ObjectQueue* queue = find_queue(read.object); queue && queue->overridden) {
            version = expected = queue->read_version;
            absent = version == 0;
        } else if (unclean) {
            version = expected = unclean->target;
        }
        if (absent) break;
        locate_chunks(pg, read.object, *work);
        result = plan_read(work->shape, ReadRequest{read.offset, read.len, work->readable, work->own}, work->plan);
        if (result < 0) break;
        const uint32_t changes = changes_of(read.object);
        const size_t bad_before = work->bad.size();
        read_chunks(*work, read.object, version, read.data, read.flags);
        ChunkCalls calls{*work};
        co_await calls;
        const ReadVerdict verdict = judge_reads(*work, expected, &read.version);
        if (verdict == ReadVerdict::good) {
            // What was found bad is remembered only if nobody has changed the object since, or is about to.
            if (!stale && changes_of(read.object) == changes && pg.active() && !find_queue(read.object)) {
                for (const EcWork::Bad& bad : work->bad) mark_copy(pg, read.object, bad.role, bad.osd, bad.flag, read.version);
            }
            work->stripe.start(*work->codec, work->plan, read.data, work->scratch.data());
            while (!work->stripe.step(kComputeSlice)) {
                Slices::Turn turn(slices_);
                co_await turn;
            }
            work->stripe.finish_bitmaps(work->bitmaps.data());
            std::memcpy(read.bitmap, work->bitmaps.data(), bitmap_size);
            result = read.len;
            break;
        }
        if (verdict == ReadVerdict::absent) {
            absent = true;
            break;
        }
        if (verdict == ReadVerdict::lost) {
            result = -EPIPE;
            break;
        }
        if (changes_of(read.object) != changes) {  // a write came between: what is missing now was there before
            stale = true;
            std::erase_if(work->bad, [](const auto& bad) { return bad.flag == wire::DescribeItem::kOutdated; });
            continue;
        }
        if (verdict == ReadVerdict::again) {
            VITASTOR_PROBE("chunk unreadable");
            for (size_t i = bad_before; i < work->bad.size(); i++) {
                const EcWork::Bad& bad = work->bad[i];
                log(logger_, LogLevel::warning, "object %" PRIx64 ":%" PRIx64 ": chunk %u on OSD %" PRIu64 " is %s: reading without it",
                    read.object.inode, read.object.stripe, bad.role, bad.osd,
                    bad.flag == wire::DescribeItem::kOutdated ? "missing or outdated" : "unreadable");
            }
            continue;
        }
        if (mixed_before) {
            VITASTOR_PROBE("chunks of different versions");
            if (pg.active()) disturb(pg);
            result = -EPIPE;
            break;
        }
        mixed_before = true;
    }
    if (absent) {
        if (read.len) std::memset(read.data, 0, read.len);
        std::memset(read.bitmap, 0, bitmap_size);
        read.version = 0;
        result = read.len;
    }
    free_ec(work);
    co_return result;
}

}  // namespace vitastor::serve

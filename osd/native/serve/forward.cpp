// SPDX-License-Identifier: GPL-2.0-or-later
// A local read (semantics 7.5) whose own copy is bad: the PG's primary answers it from a good one, and is told to look at the object,
// which finds the bad copy and repairs it. A client of 3.0.8 with local_reads=nearest would ask here again and again.
#include <cinttypes>

#include "serve/answer.hpp"

namespace vitastor::serve {

using wire::Opcode;

namespace {
constexpr size_t kScrubsMax = 64;  ///< asked for at a time
}

runtime::Task<> Osd::forward_read(Op* op) {
    const PgId id{op->pool->info.id, op->pool->pg_of(op->object.stripe)};
    const pg::PgLock* lock = locks_.find(id);
    const OsdNum primary = lock ? lock->osd : 0;
    net::Connection* connection = primary ? peers_->get(primary) : nullptr;
    if (!connection) {
        if (primary && forward_to_.insert(primary).second) update_wanted();
        answer_read(op, -EPIPE);  // the client tries again soon
        co_return;
    }
    VITASTOR_PROBE("local read forwarded to the primary");
    CallAwait call;
    wire::encode_request(wire::HeaderBytes(call.request), {0, Opcode::read}, op->message);
    iovec iov{op->request->reply_buffer.data(), op->len};
    call.bitmap_out = op->bitmap;
    call.bitmap_capacity = object_bitmap_bytes(*op->pool);
    if (op->len) {
        call.data_out = &iov;
        call.data_count = 1;
    }
    connection->send(call);
    int64_t result = co_await call;
    if (call.status || result > op->len) result = -EPIPE;
    if (result >= 0) {
        op->version = wire::decode<wire::ReadReply>(wire::ConstHeaderBytes(call.reply)).version;
        if (call.bitmap_size != call.bitmap_capacity) result = -EIO;
    }
    const ObjectId object = op->object;
    answer_read(op, result);
    if (scrubs_asked_.size() < kScrubsMax && scrubs_asked_.insert(object).second) runtime::spawn(ask_for_scrub(object, primary));
}

runtime::Task<> Osd::ask_for_scrub(ObjectId object, OsdNum primary) {
    busy_++;
    log(logger_, LogLevel::warning, "object %" PRIx64 ":%" PRIx64 ": the copy here cannot be read: OSD %" PRIu64 ", its primary, is asked to repair it",
        object.inode, object.stripe, primary);
    if (net::Connection* connection = peers_->get(primary)) {
        CallAwait call;
        wire::ClientRequest message;
        message.inode = object.inode;
        message.offset = object.stripe;
        wire::encode_request(wire::HeaderBytes(call.request), {0, Opcode::scrub}, message);
        connection->send(call);
        const int64_t result = co_await call;
        if (result < 0) {
            log(logger_, LogLevel::warning, "object %" PRIx64 ":%" PRIx64 ": OSD %" PRIu64 " does not scrub it now (error %d)", object.inode,
                object.stripe, primary, static_cast<int>(-result));
        }
    }
    scrubs_asked_.erase(object);
    busy_--;
}

}  // namespace vitastor::serve

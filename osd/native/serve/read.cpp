// SPDX-License-Identifier: GPL-2.0-or-later
// READ: from the own copy when the object is clean (callbacks, no allocation), else wherever a good copy lies; chains of
// layers; local reads of lock holders. Source: semantics 3.3, 7.5, 11; wire-protocol 8.2; safety 5.
#include <algorithm>
#include <cstring>

#include "pg/places.hpp"
#include "serve/answer.hpp"

namespace vitastor::serve {

using wire::Opcode;
using runtime::kNsPerMs;

namespace {
constexpr uint64_t kReplacedPauseNs = kNsPerMs;
}

void Osd::handle_read(Op* op) {
    if (!route(op, false)) return;
    if (!op->pg) {
        // A client of 3.0.8 comes here only with an old map, and would give -EAGAIN to its user.
        const ClientState* client = op->pool->codec ? client_of(op->request->connection) : nullptr;
        const bool understands = !op->pool->codec || (client && client->session);
        if (!understands || !may_read_here(*op->pool, op->object, op->offset, op->len)) return answer(op, -EPIPE);
    }
    fill_bitmap_space(op);
    if (op->len) op->request->reply_buffer = loop_.buffers().allocate(op->len);
    if (op->pg && needs_history(*op->pg)) return wait_history(op);
    route_read(op);
}

void Osd::route_read(Op* op) {
    if (op->message.meta_revision) {
        auto it = inodes_.find(op->message.inode);
        if (it == inodes_.end() || it->second.mod_revision != op->message.meta_revision) return answer(op, -EPIPE);
        if (parent_in_pool(op->message.inode)) return runtime::spawn(read_chain(op));
    }
    start_read(op);
}

/// Plain read. Waits for an overlapping write first.
void Osd::start_read(Op* op) {
    if (op->pg) {
        ObjectQueue* queue = nullptr;
        if (overlaps_write(op->object, op->offset, op->len, &queue)) {
            op->reader.wake = [](ReadWaiter* self) {
                Op* waiting = static_cast<Op::Reader*>(self)->op;
                waiting->osd->start_read(waiting);
            };
            return queue->readers.push_back(&op->reader);
        }
        if (op->pool->codec) {
            if (!start_ec_read(op)) runtime::spawn(read_slow(op));
            return;
        }
        if (!op->pg->self_in_set || op->pg->gate || op->pg->objects.find(op->object)) return runtime::spawn(read_slow(op));
    } else if (op->pool->codec) {
        return read_held_chunk(op);
    }
    if (op->len == 0) {
        op->version = store_.peek(op->object, kNewestVersion, op->bitmap);
        if (op->version == 0) std::memset(op->bitmap, 0, bitmap_bytes_);
        return answer_read(op, 0);
    }
    op->local.op = op;
    op->local.store::Operation::op = store::StoreOp::read;
    op->local.object = op->object;
    op->local.version = kNewestVersion;
    op->local.offset = op->offset;
    op->local.len = op->len;
    op->iov = {op->request->reply_buffer.data(), op->len};
    op->local.iov = &op->iov;
    op->local.iov_count = 1;
    op->local.bitmap = op->bitmap;
    op->local.on_done = on_local_read;
    store_.submit(op->local);
}

void Osd::on_local_read(store::Operation* operation) {
    Op* op = static_cast<Op::Local*>(operation)->op;
    Osd* self = op->osd;
    if (operation->result == -ENOENT) {
        std::memset(op->request->reply_buffer.data(), 0, op->len);
        std::memset(op->bitmap, 0, self->object_bitmap_bytes(*op->pool));
        op->version = 0;
        return self->answer_read(op, op->len);
    }
    if (operation->result < 0) {
        if (!op->pg) return runtime::spawn(self->forward_read(op));
        VITASTOR_PROBE("own copy unreadable");
        if (!op->pool->codec) {
            self->mark_copy(*op->pg, op->object, 0, self->osd_num_, wire::DescribeItem::kCorrupted,
                            self->store_.peek(op->object, kNewestVersion, op->bitmap));
        }
        return runtime::spawn(self->read_slow(op));
    }
    op->version = operation->version;
    self->answer_read(op, op->len);
}

/// What a PG that is not clean shows may lie on its present OSDs alone. They must stand in the history before anything is
/// shown, or a value once returned could disappear when the PG goes on without them (safety 5).
bool Osd::needs_history(Pg& pg) {
    return pg.epoch > pg.confirmed_epoch && pg.state() != wire::pg_state::active && need_epoch(pg, pg.epoch);
}

void Osd::answer_read(Op* op, int64_t result) {
    if (op->pg && result >= 0) {
        // A write that the read waited for, or that ran beside it, may have failed: what it left on some copies is not shown.
        if (!op->pg->active()) {
            VITASTOR_PROBE("a read ended after its PG");
            result = -EPIPE;
        } else if (needs_history(*op->pg)) {
            VITASTOR_PROBE("a read has to wait for the history when it is done");
            return wait_history(op);  // starts again
        }
    }
    net::Request& request = *op->request;
    wire::ReadReply reply;
    request.reply_count = 0;
    if (result >= 0) {
        reply.bitmap_len = object_bitmap_bytes(*op->pool);
        reply.version = op->version;
        uint8_t* bitmap = request.reply_small;
        if (reply.bitmap_len <= sizeof(request.reply_small)) {
            std::memcpy(bitmap, op->bitmap, reply.bitmap_len);
        } else {
            request.buffer = std::move(op->bitmap_big);
            bitmap = request.buffer.data();
        }
        request.reply_iov[request.reply_count++] = {bitmap, reply.bitmap_len};
        if (result > 0) {
            request.reply_iov[request.reply_count++] = {request.reply_buffer.data(), static_cast<size_t>(result)};
        }
    }
    answer(op, result, reply);
}

// ------------------------------------------------------------------ the long way

std::vector<pg::Location> Osd::locations_of(Pg& pg, const ObjectId& object) {
    if (pg::UncleanObject* unclean = pg.objects.find(object)) return unclean->set->where;
    std::vector<pg::Location> where;
    const auto& current = pg.activation.current_set;
    for (uint32_t role = 0; role < current.size(); role++) {
        if (current[role]) where.push_back({pg.pool->codec ? role : 0, 0, current[role]});
    }
    return where;
}

/// One copy or chunk turned out to be outdated or unreadable: the object is unclean from now on.
void Osd::mark_copy(Pg& pg, const ObjectId& object, uint32_t role, OsdNum osd, uint32_t flag, Version target) {
    std::vector<pg::Location> where = locations_of(pg, object);
    bool known = false;
    for (pg::Location& location : where) {
        if (location.osd != osd || location.role != role) continue;
        location.flags |= flag;
        known = true;
    }
    if (!known) where.push_back({role, flag, osd});
    uint32_t state = pg::state_of_places(pg.pool->info.scheme, pg.activation.current_set, where);
    if (state == 0) state = wire::object_state::misplaced;  // the mark has to stay until the object is rewritten
    pg::UncleanObject* unclean = pg.objects.find(object);
    pg.objects.set_unclean(object, state, where, unclean ? unclean->target : target);
    update_state(pg);
    wake_recovery();
}

runtime::Task<int64_t> Osd::read_copy(LayerRead& read, OsdNum osd, Version version) {
    iovec iov{read.data, read.len};
    if (osd == osd_num_) {
        if (read.len == 0) {
            read.version = store_.peek(read.object, version, read.bitmap);
            co_return read.version ? 0 : -ENOENT;
        }
        StoreAwait op;
        op.op = store::StoreOp::read;
        op.object = read.object;
        op.version = version;
        op.offset = read.offset;
        op.len = read.len;
        op.iov = &iov;
        op.iov_count = 1;
        op.bitmap = read.bitmap;
        store_.submit(op);
        int64_t result = co_await op;
        read.version = op.version;
        co_return result;
    }
    net::Connection* connection = peers_->get(osd);
    if (!connection) co_return -EPIPE;
    CallAwait call;
    wire::SubRequest message;
    message.object = read.object;
    message.version = version;
    message.offset = read.offset;
    message.len = read.len;
    message.flags = read.flags;
    wire::encode_request(wire::HeaderBytes(call.request), {0, Opcode::sec_read}, message);
    call.bitmap_out = read.bitmap;
    call.bitmap_capacity = bitmap_bytes_;
    if (read.len) {
        call.data_out = &iov;
        call.data_count = 1;
    }
    uint64_t start = loop_.now_ns();
    connection->send(call);
    int64_t result = co_await call;
    subop_stats_[static_cast<size_t>(Opcode::sec_read)].add((loop_.now_ns() - start) / 1000, read.len);
    if (result >= 0) {
        auto reply = wire::decode<wire::SubReply>(wire::ConstHeaderBytes(call.reply));
        read.version = reply.version;
        if (call.bitmap_size != bitmap_bytes_) std::memset(read.bitmap, 0, bitmap_bytes_);
    } else if (call.status == 0 && result != -ENOENT && result != -EIO && result != -EDOM && result != -ERANGE) {
        // Wire-protocol 9.8: anything else costs the connection.
        if (peers_->get(osd)) peers_->reset(osd, "SEC_READ failed with error " + std::to_string(result));
        co_return -EPIPE;
    }
    co_return result;
}

runtime::Task<int64_t> Osd::read_object(LayerRead& read) {
    if (!read.pg && read.pool->codec) {
        runtime::Task<int64_t> chunk = read_held_layer(read);
        const int64_t result = co_await chunk;
        co_return result;
    }
    if (!read.pg) {  // lock holder: own copy or nothing
        runtime::Task<int64_t> own = read_copy(read, osd_num_, kNewestVersion);
        int64_t result = co_await own;
        if (result == -ENOENT) {
            if (read.len) std::memset(read.data, 0, read.len);
            std::memset(read.bitmap, 0, bitmap_bytes_);
            read.version = 0;
            co_return read.len;
        }
        co_return result < 0 ? -EIO : result;
    }
    if (read.pool->codec) {
        runtime::Task<int64_t> chunks = read_ec(read);
        const int64_t result = co_await chunks;
        co_return result;
    }
    Pg& pg = *read.pg;
    std::set<OsdNum> tried;
    for (;;) {
        if (!pg.active()) co_return -EPIPE;
        const pg::UncleanObject* before = pg.objects.find(read.object);
        const bool unclean = before != nullptr;
        const Version target = unclean ? before->target : kNewestVersion;
        std::vector<pg::Location> where = locations_of(pg, read.object);
        OsdNum choice = 0;
        for (const pg::Location& location : where) {
            if (!location.good() || tried.contains(location.osd)) continue;
            if (choice == 0 || location.osd == osd_num_) choice = location.osd;
        }
        if (choice == 0) co_return -EIO;
        tried.insert(choice);
        runtime::Task<int64_t> attempt = read_copy(read, choice, target);
        int64_t result = co_await attempt;
        if (result == -ENOENT && !unclean) {
            if (read.len) std::memset(read.data, 0, read.len);
            std::memset(read.bitmap, 0, bitmap_bytes_);
            read.version = 0;
            co_return read.len;
        }
        if (result == static_cast<int64_t>(read.len)) co_return result;
        if (result == -EPIPE) co_return -EPIPE;  // the PG re-peers
        if (!pg.active()) co_return -EPIPE;
        // A write to another part, or recovery, may have replaced the version that was asked for: no copy is bad then.
        const pg::UncleanObject* now = pg.objects.find(read.object);
        const bool replaced = unclean ? !now || now->target != target : now != nullptr;
        if (replaced || (read.of_client && result == -ENOENT && find_queue(read.object))) {
            VITASTOR_PROBE("a version was replaced while it was read");
            Pause pause(loop_, kReplacedPauseNs);
            co_await pause;
            if (read.of_client) {
                runtime::Task<> overlap = wait_overlap(read.object, read.offset, read.len);
                co_await overlap;
            }
            tried.clear();
            continue;
        }
        VITASTOR_PROBE("copy unreadable");
        log(logger_, LogLevel::warning, "object %llx:%llx: the copy on OSD %llu cannot be read (%s): trying another",
            static_cast<unsigned long long>(read.object.inode), static_cast<unsigned long long>(read.object.stripe),
            static_cast<unsigned long long>(choice), strerror(static_cast<int>(-result)));
        uint32_t flag = result == -ENOENT ? wire::DescribeItem::kOutdated : wire::DescribeItem::kCorrupted;
        const Version known = unclean ? target : store_.peek(read.object, kNewestVersion, read.bitmap);
        if (known) mark_copy(pg, read.object, 0, choice, flag, known);  // else the version that counts is not known here
    }
}

runtime::Task<> Osd::read_slow(Op* op) {
    runtime::Task<> overlap = wait_overlap(op->object, op->offset, op->len);
    co_await overlap;
    if (op->pg->gate) {
        runtime::WaitList::Waiter gate = op->pg->gate_waiters.wait();
        co_await gate;
    }
    LayerRead read{op->pool, op->pg, op->object, op->offset, op->len, op->request->reply_buffer.data(), op->bitmap, 0};
    read.of_client = true;
    runtime::Task<int64_t> attempt = read_object(read);
    int64_t result = co_await attempt;
    op->version = read.version;
    answer_read(op, result);
}

namespace {
bool bit(const uint8_t* bitmap, uint32_t i) { return bitmap[i / 8] >> (i % 8) & 1; }
void set_bit(uint8_t* bitmap, uint32_t i) { bitmap[i / 8] = static_cast<uint8_t>(bitmap[i / 8] | 1u << (i % 8)); }
constexpr int kMaxLayers = 4096;
}  // namespace

/// 0: none in this pool.
InodeNum Osd::parent_in_pool(InodeNum inode) const {
    auto it = inodes_.find(inode);
    return it != inodes_.end() && pool_of(it->second.parent) == pool_of(inode) ? it->second.parent : 0;
}

/// Each granule from the nearest layer where it is present. All layers of the pool share the PG. Source: semantics 11.
runtime::Task<> Osd::read_chain(Op* op) {
    const uint64_t inodes_serial = inodes_serial_;
    std::vector<InodeNum> walked;
    const uint32_t unit = granularity_, bitmap_bytes = object_bitmap_bytes(*op->pool);
    const uint32_t first = op->len ? op->offset / unit : 0;
    const uint32_t end = op->len ? (op->offset + op->len) / unit : bitmap_bytes * 8;
    std::vector<uint8_t> covered(bitmap_bytes), layer_bitmap(bitmap_bytes);
    Buffer layer_data;
    uint8_t* result_data = op->request->reply_buffer.data();
    if (op->len) std::memset(result_data, 0, op->len);
    int64_t result = op->len;
    uint32_t missing = end - first;
    InodeNum inode = op->message.inode;
    Version top_version = 0;
    for (int depth = 0; missing > 0; depth++) {
        if (depth >= kMaxLayers) {
            result = -EINVAL;  // the parents form a loop
            break;
        }
        walked.push_back(inode);
        ObjectId object{inode, op->object.stripe};
        bool top = depth == 0;
        if (op->pg) {
            runtime::Task<> overlap = wait_overlap(object, op->offset, op->len);
            co_await overlap;
        }
        if (op->pg && op->pg->gate) {
            runtime::WaitList::Waiter gate = op->pg->gate_waiters.wait();
            co_await gate;
        }
        if (!op->pg && !may_read_here(*op->pool, object, op->offset, op->len)) {  // the copy here may be gone by now
            result = -EPIPE;
            break;
        }
        // A layer that adds nothing needs no I/O: its bitmap is in memory when the own copy counts.
        bool own = !op->pool->codec && (!op->pg || (op->pg->active() && op->pg->self_in_set && !op->pg->objects.find(object)));
        Version version = 0;
        bool useful = true;
        if (own) {
            version = store_.peek(object, kNewestVersion, layer_bitmap.data());
            if (version == 0) std::fill(layer_bitmap.begin(), layer_bitmap.end(), 0);
            useful = false;
            for (uint32_t i = first; i < end && !useful; i++) useful = bit(layer_bitmap.data(), i) && !bit(covered.data(), i);
        }
        if (useful && !(own && op->len == 0)) {
            if (op->len && !layer_data) layer_data = loop_.buffers().allocate(op->len);
            LayerRead read{op->pool, op->pg, object, op->offset, op->len, layer_data.data(), layer_bitmap.data(), 0};
            read.of_client = op->pg != nullptr;
            runtime::Task<int64_t> attempt = read_object(read);
            result = co_await attempt;
            if (result < 0) break;
            version = read.version;
        }
        if (top) top_version = version;
        if (useful) {
            for (uint32_t i = first; i < end; i++) {
                if (!bit(layer_bitmap.data(), i) || bit(covered.data(), i)) continue;
                set_bit(covered.data(), i);
                missing--;
                if (op->len) {
                    size_t at = static_cast<size_t>(i - first) * unit;
                    std::memcpy(result_data + at, layer_data.data() + at, unit);
                }
            }
        }
        InodeNum parent = parent_in_pool(inode);
        if (parent == 0) break;
        if (parent == op->message.inode) {
            result = -EINVAL;
            break;
        }
        inode = parent;
    }
    if (inodes_serial != inodes_serial_ && result >= 0) {
        // A layer may have been taken out and deleted while the read waited at it: what it held lies elsewhere now.
        bool same = true;
        for (size_t i = 0; same && i + 1 < walked.size(); i++) same = parent_in_pool(walked[i]) == walked[i + 1];
        if (missing > 0) same = same && inodes_.contains(walked.back()) && parent_in_pool(walked.back()) == 0;
        if (!same) {
            VITASTOR_PROBE("the layers changed while they were read");
            co_return route_read(op);
        }
    }
    if (result == -EIO && !op->pg) {
        runtime::Task<> forwarding = forward_read(op);
        co_await forwarding;
        co_return;
    }
    std::memcpy(op->bitmap, covered.data(), bitmap_bytes);
    op->version = top_version;
    if (result >= 0) result = op->len;
    answer_read(op, result);
}

}  // namespace vitastor::serve

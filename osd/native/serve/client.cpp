// SPDX-License-Identifier: GPL-2.0-or-later
// What READ, WRITE, DELETE and SCRUB have in common: checks, the PG, and the queue of each object.
#include <cstring>

#include "serve/answer.hpp"

namespace vitastor::serve {

using wire::Opcode;

bool Osd::route(Op* op, bool needs_primary) {
    op->message = wire::decode<wire::ClientRequest>(wire::ConstHeaderBytes(op->request->header));
    const wire::ClientRequest& message = op->message;
    Pool* pool = find_pool(pool_of(message.inode));
    if (!pool || pool->info.pg_count == 0) {
        answer(op, -EPIPE);
        return false;
    }
    op->pool = pool;
    uint64_t span = pool->object_span();
    uint64_t stripe = message.offset / span * span;
    uint64_t inside = message.offset - stripe;
    uint32_t unit = pool->info.bitmap_granularity;
    if (message.len > wire::kMaxTransfer || message.offset % unit || message.len % unit || inside + message.len > span) {
        answer(op, -EINVAL);
        return false;
    }
    op->object = {message.inode, stripe};
    op->offset = static_cast<uint32_t>(inside);
    op->len = message.len;
    Pg* pg = pool->pgs[pool->pg_of(stripe) - 1];
    if (pg && pg->active()) {
        if (is_modification(op->opcode)) {
            const ClientState* client = client_of(op->request->connection);
            if (!client || client->heard < (client->session ? pg->client_floor : pg->sessionless_floor)) {
                // Our clients say hello again and send it behind that; others connect anew.
                VITASTOR_PROBE("a request that may be late is refused");
                answer(op, client && client->session ? -EAGAIN : -EPIPE);
                return false;
            }
        }
        attach_pg(op, pg);
    } else if (needs_primary) {
        answer(op, -EPIPE);
        return false;
    }
    return true;
}

ObjectQueue* Osd::find_queue(const ObjectId& object) {
    ObjectQueue* queue = queues_[ObjectIdHash{}(object) % queues_.size()];
    while (queue && queue->object != object) queue = queue->next_in_bucket;
    return queue;
}

bool Osd::enter_queue(Op* op) {
    ObjectQueue* queue = find_queue(op->object);
    if (queue) {
        op->queue = queue;
        queue->waiting.push_back(&op->queue_node);
        return false;
    }
    queue = queue_pool_.get();
    queue->object = op->object;
    queue->overridden = false;
    ObjectQueue** bucket = &queues_[ObjectIdHash{}(op->object) % queues_.size()];
    queue->next_in_bucket = *bucket;
    *bucket = queue;
    queue->active = op;
    op->queue = queue;
    return true;
}

void Osd::leave_queue(Op* op) {
    ObjectQueue* queue = op->queue;
    if (!queue) return;
    VITASTOR_ASSERT(queue->active == op);
    op->queue = nullptr;
    queue->active = nullptr;
    queue->overridden = false;
    if (queue->advancing) return;  // the loop below goes on
    queue->advancing = true;
    for (;;) {
        // Readers first: they see the state between two modifications.
        List<ReadWaiter> readers;
        while (ReadWaiter* reader = queue->readers.pop_front()) readers.push_back(reader);
        while (ReadWaiter* reader = readers.pop_front()) reader->wake(reader);
        ObjectQueue::Node* next = queue->waiting.pop_front();
        if (!next) break;
        queue->active = next->op;
        start_modification(next->op);
        if (queue->active) {
            queue->advancing = false;
            return;
        }
    }
    queue->advancing = false;
    VITASTOR_ASSERT(queue->readers.empty() && queue->waiting.empty());
    ObjectQueue** link = &queues_[ObjectIdHash{}(queue->object) % queues_.size()];
    while (*link != queue) link = &(*link)->next_in_bucket;
    *link = queue->next_in_bucket;
    queue_pool_.put(queue);
}

/// Called when it is op's turn (again: after its history was confirmed).
void Osd::start_modification(Op* op) {
    if (op->opcode == Opcode::read) return route_read(op);
    if (op->opcode == Opcode::del) return runtime::spawn(remove_object(op));
    if (op->opcode == Opcode::scrub) return runtime::spawn(scrub_object(op));
    start_write(op);
}

bool Osd::overlaps_write(const ObjectId& object, uint32_t offset, uint32_t len, ObjectQueue** found) {
    ObjectQueue* queue = find_queue(object);
    if (!queue || !queue->active) return false;
    Op* active = queue->active;
    *found = queue;
    if (active->opcode == Opcode::scrub) return false;
    if (active->opcode == Opcode::write && active->pool->codec) return false;  // readers take the old version
    if (active->opcode != Opcode::write || len == 0 || active->recovery) return true;
    return active->offset < offset + len && offset < active->offset + active->len;
}

runtime::Task<> Osd::wait_overlap(ObjectId object, uint32_t offset, uint32_t len) {
    struct Waiter : ReadWaiter {
        Signal signal;
    };
    ObjectQueue* queue = nullptr;
    while (overlaps_write(object, offset, len, &queue)) {
        Waiter waiter;
        waiter.wake = [](ReadWaiter* self) { static_cast<Waiter*>(self)->signal.set(); };
        queue->readers.push_back(&waiter);
        co_await waiter.signal;
    }
}

}  // namespace vitastor::serve

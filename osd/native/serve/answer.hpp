// SPDX-License-Identifier: GPL-2.0-or-later
// Answers with fields (the template half of Osd::answer), and waiting for parts. Included by the .cpp files of this folder only.
#pragma once

#include "serve/osd.hpp"

namespace vitastor::serve {

template <class Message>
void Osd::answer(Op* op, int64_t retval, const Message& message) {
    wire::encode_reply(wire::HeaderBytes(op->request->reply), {op->request->id, op->request->opcode, retval}, message);
    complete(op, retval);
}

/// Waits for the parts of an operation from a coroutine: set op->on_parts = Parts::done before they start.
struct Parts {
    Op* op;
    bool await_ready() const noexcept { return op->pending == 0; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept { op->waiter = waiter; }
    void await_resume() noexcept {}
    static void done(Op* op) {
        if (op->waiter) std::exchange(op->waiter, nullptr).resume();
    }
};

/// A listing of everything in one PG, as peering asks for it; the list fence is about these.
inline wire::ListRequest list_of_pg(const PoolInfo& pool, const PgId& pg) {
    wire::ListRequest list;
    list.list_pg = pg.pg;
    list.pg_count = pool.pg_count;
    list.pg_stripe_size = pool.pg_stripe_size;
    list.min_inode = full_inode(pg.pool, 0);
    list.max_inode = full_inode(pg.pool, (1ull << kPoolShift) - 1);
    return list;
}

/// Wire-protocol 9.8: errors of SEC_WRITE after which the connection is kept.
inline bool keeps_connection(int64_t error) { return error == -ENOSPC || error == -EDOM || error == -ERANGE; }

}  // namespace vitastor::serve

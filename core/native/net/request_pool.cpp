// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/request_pool.hpp"

#include "base/assert.hpp"

namespace vitastor::net {

RequestPool::~RequestPool() {
    VITASTOR_ASSERT(live_count_ == 0);
    trim(0);
}

Request* RequestPool::get() {
    Request* request = free_;
    if (request) {
        free_ = request->next_live;
        free_count_--;
    } else {
        request = new Request;
        request->pool = this;
    }
    request->sizes = {};
    request->user = nullptr;
    request->reply_count = 0;
    request->on_finished = nullptr;
    request->prev_live = nullptr;
    request->next_live = live_;
    if (live_)
        live_->prev_live = request;
    live_ = request;
    if (++live_count_ > most_live_)
        most_live_ = live_count_;
    return request;
}

void RequestPool::put(Request* request) {
    auto* pool = static_cast<RequestPool*>(request->pool);
    VITASTOR_VERIFY(!request->linked());
    request->buffer.release();
    request->reply_buffer.release();
    request->connection = nullptr;
    if (request->prev_live)
        request->prev_live->next_live = request->next_live;
    else
        pool->live_ = request->next_live;
    if (request->next_live)
        request->next_live->prev_live = request->prev_live;
    pool->live_count_--;
    if (pool->abandoned_) {
        delete request;
        if (pool->live_count_ == 0)
            delete pool;
        return;
    }
    request->next_live = pool->free_;
    pool->free_ = request;
    pool->free_count_++;
}

void RequestPool::detach_all() {
    for (Request* request = live_; request; request = request->next_live)
        request->connection = nullptr;
}

void RequestPool::abandon() {
    abandoned_ = true;
    trim(0);
    if (live_count_ == 0)
        delete this;
}

void RequestPool::trim(uint32_t keep) {
    most_live_ = live_count_;
    while (free_count_ > keep) {
        Request* request = free_;
        free_ = request->next_live;
        free_count_--;
        delete request;
    }
}

}  // namespace vitastor::net

// SPDX-License-Identifier: GPL-2.0-or-later
// Requests of one connection: recycled, listed while alive, and able to outlive the connection until the last is answered.
#pragma once

#include "net/connection.hpp"

namespace vitastor::net {

class RequestPool {
public:
    static constexpr uint32_t kIdleKeep = 16;  ///< free requests that an idle connection keeps

    /// Must be destroyed through abandon().
    RequestPool() = default;
    RequestPool(const RequestPool&) = delete;
    RequestPool& operator=(const RequestPool&) = delete;

    /// All fields of the answer and of the handler are reset; header, opcode, id and sizes are the caller's to set.
    Request* get();
    /// Releases its buffers and takes it back; the pool may be gone afterwards if it was abandoned.
    static void put(Request* request);
    /// The connection is dying: its requests get connection == nullptr.
    void detach_all();
    /// The connection is gone: the pool deletes itself when the last request is back.
    void abandon();

    uint32_t live() const { return live_count_; }
    uint32_t free_count() const { return free_count_; }
    uint32_t most_live() const { return most_live_; }
    size_t memory_bytes() const { return sizeof(*this) + (size_t{live_count_} + free_count_) * sizeof(Request); }
    /// Forgets the maximum; frees what is beyond `keep`.
    void trim(uint32_t keep);

private:
    ~RequestPool();
    Request* free_ = nullptr;
    Request* live_ = nullptr;
    uint32_t free_count_ = 0;
    uint32_t live_count_ = 0;
    uint32_t most_live_ = 0;
    bool abandoned_ = false;
};

}  // namespace vitastor::net

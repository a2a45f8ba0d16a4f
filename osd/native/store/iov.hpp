// SPDX-License-Identifier: GPL-2.0-or-later
// Byte ranges of scattered buffers: cut, copied, cleared, checksummed. Ranges must lie inside the buffers.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/crc32c.hpp"

namespace vitastor::store {

/// Calls visit(pointer, bytes) for each piece of [offset, offset + length).
template <class Visit>
void visit_range(const iovec* iov, int count, uint64_t offset, uint64_t length, Visit visit) {
    for (int i = 0; i < count && length > 0; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        const uint64_t here = std::min<uint64_t>(length, iov[i].iov_len - offset);
        visit(static_cast<uint8_t*>(iov[i].iov_base) + offset, here);
        length -= here;
        offset = 0;
    }
}

inline uint64_t iov_bytes(const iovec* iov, int count) {
    uint64_t total = 0;
    for (int i = 0; i < count; i++) total += iov[i].iov_len;
    return total;
}

/// Every piece can be given to a device opened for direct I/O.
inline bool iov_aligned(const iovec* iov, int count, uint32_t logical_block) {
    for (int i = 0; i < count; i++)
        if (reinterpret_cast<uintptr_t>(iov[i].iov_base) % 4096 || iov[i].iov_len % logical_block) return false;
    return true;
}

inline uint32_t crc_range(const iovec* iov, int count, uint64_t offset, uint64_t length) {
    uint32_t crc = 0;
    visit_range(iov, count, offset, length, [&crc](uint8_t* data, uint64_t bytes) { crc = crc32c(data, bytes, crc); });
    return crc;
}

inline void clear_range(const iovec* iov, int count, uint64_t offset, uint64_t length) {
    visit_range(iov, count, offset, length, [](uint8_t* data, uint64_t bytes) { memset(data, 0, bytes); });
}

inline void gather(uint8_t* to, const iovec* iov, int count, uint64_t offset, uint64_t length) {
    visit_range(iov, count, offset, length, [&to](uint8_t* data, uint64_t bytes) {
        memcpy(to, data, bytes);
        to += bytes;
    });
}

inline void scatter(const uint8_t* from, const iovec* iov, int count, uint64_t offset, uint64_t length) {
    visit_range(iov, count, offset, length, [&from](uint8_t* data, uint64_t bytes) {
        memcpy(data, from, bytes);
        from += bytes;
    });
}

}  // namespace vitastor::store

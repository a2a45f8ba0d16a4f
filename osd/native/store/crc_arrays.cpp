// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/crc_arrays.hpp"

namespace vitastor::store {

uint32_t CrcArrays::allocate(uint32_t kind, uint32_t owner) {
    if (pools_.size() <= kind) pools_.resize(kind + 1);
    if (!pools_[kind]) pools_[kind] = std::make_unique<Pool>(length_of(kind));
    Pool& pool = *pools_[kind];
    VITASTOR_ASSERT(pool.count != UINT32_MAX);
    if (pool.count == pool.segments.capacity()) pool.segments.grow();
    const uint32_t position = pool.count++;
    set_owner(kind, position, owner);
    return position;
}

uint32_t CrcArrays::release(uint32_t kind, uint32_t position) {
    Pool& pool = *pools_[kind];
    const uint32_t last = --pool.count;
    uint32_t owner = kNoOwner;
    if (position != last) {
        const uint32_t* from = at(kind, last);
        memcpy(at(kind, position) - 1, from - 1, (1 + size_t{length_of(kind)}) * 4);
        owner = from[-1];
    }
    pool.segments.shrink(pool.count);
    return owner;
}

uint64_t CrcArrays::memory_bytes() const {

    uint64_t bytes = pools_.capacity() * sizeof(pools_[0]);
    for (const auto& pool : pools_)
        if (pool) bytes += sizeof(Pool) + pool->segments.memory_bytes();
    return bytes;
}

}  // namespace vitastor::store

// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/crc_arrays.hpp"

#include <new>

namespace vitastor::store {

CrcArrays::~CrcArrays() {
    for (Pool* pool : pools_) {
        if (!pool) continue;
        auto* place = reinterpret_cast<uint8_t*>(pool);
        pool->~Pool();
        if (room_->contains(place)) room_->give_back(place, sizeof(Pool));
        else free(place);
    }
}

CrcArrays::Pool& CrcArrays::pool(uint32_t kind) {
    if (!pools_[kind]) {
        void* place = room_->take(sizeof(Pool));
        if (!place) place = malloc(sizeof(Pool));
        VITASTOR_ASSERT(place);
        pools_[kind] = new (place) Pool(length_of(kind), room_);
    }
    return *pools_[kind];
}

uint32_t CrcArrays::allocate(uint32_t kind, uint32_t owner) {
    Pool& pool = this->pool(kind);
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
    for (const Pool* pool : pools_) {
        if (!pool) continue;
        bytes += pool->segments.memory_bytes();
        if (!room_->contains(reinterpret_cast<const uint8_t*>(pool))) bytes += sizeof(Pool) + 2 * sizeof(size_t);  // malloc's own
    }
    return bytes;
}

}  // namespace vitastor::store

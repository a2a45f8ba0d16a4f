// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/buffer.hpp"

#include <bit>
#include <cstdlib>

#include "base/assert.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define VITASTOR_POISON(address, size) __asan_poison_memory_region(address, size)
#define VITASTOR_UNPOISON(address, size) __asan_unpoison_memory_region(address, size)
#else
#define VITASTOR_POISON(address, size) static_cast<void>(0)
#define VITASTOR_UNPOISON(address, size) static_cast<void>(0)
#endif

namespace vitastor {

namespace {

constexpr size_t kAlignment = 4096;
constexpr unsigned kMinShift = 12;
constexpr size_t kBiggest = (128u << 20) + (64u << 10);
constexpr int kBiggestClass = 16;  ///< 128 MiB + 64 KiB: the largest message with its headers

int class_of(size_t size) {
    if (size <= kAlignment) return 0;
    int index = static_cast<int>(std::bit_width(size - 1)) - static_cast<int>(kMinShift);
    return index < kBiggestClass ? index : kBiggestClass;
}

size_t class_capacity(int index) {
    return index == kBiggestClass ? kBiggest : size_t{1} << (kMinShift + static_cast<unsigned>(index));
}

}  // namespace

void Buffer::release() {
    if (data_ != nullptr) pool_->give_back(data_, capacity_);
    data_ = nullptr;
    size_ = capacity_ = 0;
    pool_ = nullptr;
}

BufferPool::BufferPool(size_t keep_bytes) : keep_bytes_(keep_bytes) {
    static_assert(kBiggestClass + 1 == kClassCount);
}

BufferPool::~BufferPool() {
    VITASTOR_ASSERT(used_bytes_ == 0);
    for (FreeBlock*& head : free_) {
        while (head != nullptr) {
            FreeBlock* block = head;
            head = block->next;
            free(block);
        }
    }
}

Buffer BufferPool::allocate(size_t size) {
    VITASTOR_ASSERT(size > 0);
    int index = class_of(size);
    // Beyond the classes (listings of huge PGs): made for the occasion, never kept.
    size_t capacity = size <= kBiggest ? class_capacity(index) : (size + kAlignment - 1) / kAlignment * kAlignment;
    void* data = size <= kBiggest ? free_[index] : nullptr;
    if (data != nullptr) {
        free_[index] = free_[index]->next;
        free_bytes_ -= capacity;
        VITASTOR_UNPOISON(data, capacity);
    } else {
        data = aligned_alloc(kAlignment, capacity);
        VITASTOR_ASSERT(data != nullptr);
    }
    used_bytes_ += capacity;
    Buffer buffer;
    buffer.data_ = static_cast<uint8_t*>(data);
    buffer.size_ = size;
    buffer.capacity_ = capacity;
    buffer.pool_ = this;
    return buffer;
}

void BufferPool::give_back(uint8_t* data, size_t capacity) {
    VITASTOR_ASSERT(used_bytes_ >= capacity);
    used_bytes_ -= capacity;
    if (capacity > kBiggest || free_bytes_ + capacity > keep_bytes_) {
        free(data);
        return;
    }
    int index = class_of(capacity);
    auto* block = reinterpret_cast<FreeBlock*>(data);
    block->next = free_[index];
    free_[index] = block;
    free_bytes_ += capacity;
    VITASTOR_POISON(data + sizeof(FreeBlock), capacity - sizeof(FreeBlock));
}

}  // namespace vitastor

// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/buffer.hpp"

#include <sys/mman.h>

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

/// From here on memory comes from the kernel and goes back there: the heap would hold on to it, in pieces.
constexpr size_t kMapFrom = 64 << 10;

void* get_memory(size_t capacity) {
    if (capacity < kMapFrom) return aligned_alloc(kAlignment, capacity);
    void* data = mmap(nullptr, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return data == MAP_FAILED ? nullptr : data;
}

void return_memory(void* data, size_t capacity) {
    if (capacity < kMapFrom) {
        free(data);
        return;
    }
    VITASTOR_UNPOISON(data, capacity);  // the next owner of these addresses may be anybody
    munmap(data, capacity);
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
    keep_bytes_ = 0;
    shrink();
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
        data = get_memory(capacity);
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
    if (capacity > kBiggest) {
        return_memory(data, capacity);
        return;
    }
    int index = class_of(capacity);
    auto* block = reinterpret_cast<FreeBlock*>(data);
    block->next = free_[index];
    free_[index] = block;
    free_bytes_ += capacity;
    VITASTOR_POISON(data + sizeof(FreeBlock), capacity - sizeof(FreeBlock));
    shrink();
}

/// Largest first: what a passing load of large requests has left must not stay in the way of small ones.
void BufferPool::shrink() {
    for (int index = kClassCount - 1; index >= 0; index--) {
        while (free_[index] != nullptr && used_bytes_ + free_bytes_ > keep_bytes_) {
            FreeBlock* block = free_[index];
            free_[index] = block->next;
            free_bytes_ -= class_capacity(index);
            return_memory(block, class_capacity(index));
        }
    }
}

}  // namespace vitastor

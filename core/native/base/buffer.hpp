// SPDX-License-Identifier: GPL-2.0-or-later
// Payload memory: aligned for O_DIRECT, recycled per thread, never from the general heap on the data path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace vitastor {

class BufferPool;

/// Owns `capacity()` bytes, 4096-aligned, contents unspecified when fresh. Move-only. Must be released on the thread of its pool.
class Buffer {
public:
    Buffer() = default;
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        Buffer(std::move(other)).swap(*this);
        return *this;
    }
    ~Buffer() { release(); }
    uint8_t* data() { return data_; }
    const uint8_t* data() const { return data_; }
    size_t size() const { return size_; }
    size_t capacity() const { return capacity_; }
    /// size ≤ capacity().
    void set_size(size_t size) { size_ = size; }
    explicit operator bool() const { return data_ != nullptr; }
    void release();
    void swap(Buffer& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
        std::swap(pool_, other.pool_);
    }

private:
    friend class BufferPool;
    uint8_t* data_ = nullptr;
    size_t size_ = 0;
    size_t capacity_ = 0;
    BufferPool* pool_ = nullptr;
};

/// Size classes of powers of two from 4 KiB to 128 MiB. Free memory is kept as long as used and free together are at most `keep_bytes`;
/// beyond it, the largest free pieces go back to the machine first.
/// One per thread; not thread-safe. Must outlive its buffers.
class BufferPool {
public:
    explicit BufferPool(size_t keep_bytes);
    ~BufferPool();
    BufferPool(const BufferPool&) = delete;
    BufferPool& operator=(const BufferPool&) = delete;
    /// size: bytes > 0; beyond 128 MiB + 64 KiB it is not kept after release. Aborts only when the machine is out of
    /// memory. size() of the result = size.
    Buffer allocate(size_t size);
    size_t used_bytes() const { return used_bytes_; }
    size_t free_bytes() const { return free_bytes_; }

private:
    friend class Buffer;
    void give_back(uint8_t* data, size_t capacity);
    void shrink();
    static constexpr int kClassCount = 17;
    struct FreeBlock {
        FreeBlock* next;
    };
    FreeBlock* free_[kClassCount] = {};
    size_t keep_bytes_;
    size_t used_bytes_ = 0;
    size_t free_bytes_ = 0;
};

}  // namespace vitastor

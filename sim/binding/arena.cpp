// SPDX-License-Identifier: GPL-2.0-or-later
// Blocks of sizes from 16 bytes to 256 MiB, each size with its own free list, cut from one reserved range of addresses.
#include "arena.hpp"

#include <malloc.h>
#include <sys/mman.h>

#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#ifdef VITASTOR_SIM_ARENA

// What the linker puts in the place of these functions, in this addon only (--wrap).
extern "C" {
void* __real_malloc(size_t size);
void* __real_calloc(size_t count, size_t size);
void* __real_realloc(void* block, size_t size);
void* __real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void* block);
size_t __real_malloc_usable_size(void* block);
void* __real_mmap64(void* address, size_t size, int protection, int flags, int fd, off_t offset);
int __real_munmap(void* address, size_t size);
}

namespace vitastor::sim {
namespace {

constexpr size_t kRoomBytes = size_t{8} << 30;  ///< of addresses
constexpr size_t kKeepBytes = size_t{512} << 20;  ///< memory beyond goes back to the machine with every world
constexpr size_t kPage = 4096;
constexpr size_t kStep = 16;
constexpr size_t kSteps = 64;  ///< up to kSteps * kStep bytes in steps, then in powers of two
constexpr size_t kCutBytes = 64 << 10;  ///< blocks below a page are cut from so much
constexpr size_t kBiggestBytes = size_t{256} << 20;

constexpr size_t class_of(size_t size) {
    if (size <= kStep * kSteps) return size == 0 ? 0 : (size - 1) / kStep;
    return kSteps - std::bit_width(kStep * kSteps) + static_cast<size_t>(std::bit_width(size - 1));
}
constexpr size_t bytes_of(size_t index) {
    return index < kSteps ? (index + 1) * kStep : kStep * kSteps << (index - kSteps + 1);
}
constexpr size_t kClasses = class_of(kBiggestBytes) + 1;
static_assert(bytes_of(class_of(1024)) == 1024 && bytes_of(class_of(1025)) == 2048 && bytes_of(kClasses - 1) == kBiggestBytes);

struct FreeBlock {
    FreeBlock* next;
};

class Arena {
public:
    /// Null: no room.
    void* take(size_t size) {
        const size_t index = class_of(size);
        if (index >= kClasses) return nullptr;
        if (free_[index] == nullptr && !cut(index)) return nullptr;
        FreeBlock* block = free_[index];
        free_[index] = block->next;
        return block;
    }
    void give_back(void* block) {
        const size_t index = class_of_page_[page_of(block)];
        auto* free = static_cast<FreeBlock*>(block);
        free->next = free_[index];
        free_[index] = free;
    }
    size_t size_of(const void* block) const { return bytes_of(class_of_page_[page_of(block)]); }
    bool holds(const void* block) const {
        return room_ != nullptr && reinterpret_cast<uintptr_t>(block) - reinterpret_cast<uintptr_t>(room_) < kRoomBytes;
    }
    void clear() {
        for (FreeBlock*& head : free_) head = nullptr;
        if (used_bytes_ > kKeepBytes) madvise(room_ + kKeepBytes, used_bytes_ - kKeepBytes, MADV_DONTNEED);
        used_bytes_ = 0;
    }

    bool active = false;

private:
    size_t page_of(const void* block) const { return static_cast<size_t>(static_cast<const uint8_t*>(block) - room_) / kPage; }

    bool cut(size_t index) {
        if (room_ == nullptr) {
            void* room = __real_mmap64(nullptr, kRoomBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (room == MAP_FAILED) return false;
            room_ = static_cast<uint8_t*>(room);
        }
        const size_t bytes = bytes_of(index), all = bytes < kPage ? kCutBytes : bytes;
        if (kRoomBytes - used_bytes_ < all) return false;
        uint8_t* from = room_ + used_bytes_;
        memset(class_of_page_ + used_bytes_ / kPage, static_cast<int>(index), all / kPage);
        used_bytes_ += all;
        for (size_t at = all / bytes; at > 0; at--) {
            auto* block = reinterpret_cast<FreeBlock*>(from + (at - 1) * bytes);
            block->next = free_[index];
            free_[index] = block;
        }
        return true;
    }

    uint8_t* room_ = nullptr;
    size_t used_bytes_ = 0;
    FreeBlock* free_[kClasses] = {};
    uint8_t class_of_page_[kRoomBytes / kPage] = {};
};

constinit Arena the_arena;

}  // namespace

MemoryFrom::MemoryFrom(Source source) : before_(std::exchange(the_arena.active, source == arena)) {}
MemoryFrom::~MemoryFrom() { the_arena.active = before_; }

void clear_arena() { the_arena.clear(); }

}  // namespace vitastor::sim

using vitastor::sim::the_arena;

extern "C" {

void* __wrap_malloc(size_t size) {
    void* block = the_arena.active ? the_arena.take(size) : nullptr;
    return block != nullptr ? block : __real_malloc(size);
}

void __wrap_free(void* block) {
    if (the_arena.holds(block)) the_arena.give_back(block);
    else __real_free(block);
}

void* __wrap_calloc(size_t count, size_t size) {
    void* block = the_arena.active && (size == 0 || count <= SIZE_MAX / size) ? the_arena.take(count * size) : nullptr;
    return block != nullptr ? memset(block, 0, count * size) : __real_calloc(count, size);
}

void* __wrap_realloc(void* block, size_t size) {
    if (block == nullptr) return __wrap_malloc(size);
    if (!the_arena.holds(block)) return __real_realloc(block, size);
    const size_t before = the_arena.size_of(block);
    if (size <= before) return block;
    void* bigger = __wrap_malloc(size);
    if (bigger == nullptr) return nullptr;
    memcpy(bigger, block, before);
    the_arena.give_back(block);
    return bigger;
}

void* __wrap_aligned_alloc(size_t alignment, size_t size) {
    // Blocks of a power of two are aligned to themselves, those beyond a page to a page.
    const size_t fitting = std::bit_ceil(size > alignment ? size : alignment);
    void* block = the_arena.active && alignment <= vitastor::sim::kPage ? the_arena.take(fitting) : nullptr;
    return block != nullptr ? block : __real_aligned_alloc(alignment, size);
}

size_t __wrap_malloc_usable_size(void* block) {
    return the_arena.holds(block) ? the_arena.size_of(block) : __real_malloc_usable_size(block);
}

void* __wrap_mmap64(void* address, size_t size, int protection, int flags, int fd, off_t offset) {
    const bool is_memory = address == nullptr && fd < 0 && protection == (PROT_READ | PROT_WRITE) && (flags & MAP_PRIVATE) && (flags & MAP_ANONYMOUS);
    void* block = the_arena.active && is_memory && size >= vitastor::sim::kPage ? the_arena.take(size) : nullptr;
    return block != nullptr ? memset(block, 0, size) : __real_mmap64(address, size, protection, flags, fd, offset);
}

int __wrap_munmap(void* address, size_t size) {
    if (!the_arena.holds(address)) return __real_munmap(address, size);
    the_arena.give_back(address);
    return 0;
}

}  // extern "C"

#else  // the sanitizers want to see every block

namespace vitastor::sim {

MemoryFrom::MemoryFrom(Source) : before_(false) {}
MemoryFrom::~MemoryFrom() = default;
void clear_arena() {}

}  // namespace vitastor::sim

#endif

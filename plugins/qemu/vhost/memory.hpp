// SPDX-License-Identifier: GPL-2.0-or-later
// The guest's memory as the front end has handed it over, and the log of pages that we have written to (live migration).
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <string>
#include <vector>

#include "vhost/protocol.hpp"

#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_acquire(void* at);
extern "C" void __tsan_release(void* at);
#endif

namespace vitastor::vhost {

#if defined(__SANITIZE_THREAD__)
/// Where the guest runs in this process (tests), the sanitizer takes the two mappings of its memory for two memories: who reads what the other side has
/// published there has seen all that stands before it.
inline char sanitizer_sees_guest;
#endif

/// A word that guest and device exchange: what was written before it is there.
inline uint16_t load_shared(const uint8_t* at) {
    const uint16_t value = __atomic_load_n(reinterpret_cast<const uint16_t*>(at), __ATOMIC_ACQUIRE);
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(&sanitizer_sees_guest);
#endif
    return value;
}
inline void store_shared(uint8_t* at, uint16_t value) {
#if defined(__SANITIZE_THREAD__)
    __tsan_release(&sanitizer_sees_guest);
#endif
    __atomic_store_n(reinterpret_cast<uint16_t*>(at), value, __ATOMIC_RELEASE);
}

/// A mapping of a file; unmapped at the end.
class Mapping {
public:
    Mapping() = default;
    Mapping(Mapping&& other) noexcept { swap(other); }
    Mapping& operator=(Mapping&& other) noexcept {
        swap(other);
        return *this;
    }
    ~Mapping();
    /// 0 or a negative errno. `offset` need not be aligned.
    int map(int fd, uint64_t offset, uint64_t bytes);
    uint8_t* data() const { return data_; }
    uint64_t bytes() const { return bytes_; }

private:
    void swap(Mapping& other) {
        std::swap(base_, other.base_);
        std::swap(total_, other.total_);
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
    }
    void* base_ = nullptr;
    uint64_t total_ = 0;
    uint8_t* data_ = nullptr;
    uint64_t bytes_ = 0;
};

/// Changed only while no queue runs; read by all queues.
class Memory {
public:
    static constexpr size_t kRegionsMax = 64;
    /// Takes the place of what was known. 0 or a negative errno; `reason` names what is wrong.
    int set(const std::vector<MemoryRegion>& regions, const std::vector<int>& fds, std::string& reason);
    void clear() { regions_.clear(); }
    /// Appends the pieces of [address, address + length). False: not all of it is the guest's memory.
    bool pieces(uint64_t address, uint64_t length, std::vector<iovec>& out) const;
    /// Contiguous memory at a guest's or the front end's address; nullptr: there is none.
    uint8_t* at_guest(uint64_t address, uint64_t length) const;
    uint8_t* at_user(uint64_t address, uint64_t length) const;
    /// Of an address that at_user() knows; UINT64_MAX: none.
    uint64_t guest_address(const uint8_t* data) const;

    int set_log(int fd, const LogArea& area) { return log_.map(fd, area.offset, area.bytes); }
    void clear_log() { log_ = Mapping(); }
    bool has_log() const { return log_.data() != nullptr; }
    /// Marks the pages as changed. Any thread.
    void mark(uint64_t guest_address, uint64_t length) const;

private:
    struct Region {
        MemoryRegion where;
        Mapping memory;
    };
    std::vector<Region> regions_;
    Mapping log_;
};

}  // namespace vitastor::vhost

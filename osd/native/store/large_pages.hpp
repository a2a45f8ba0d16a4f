// SPDX-License-Identifier: GPL-2.0-or-later
// Memory in pages of 2 MB where the kernel has them (transparent_hugepage "madvise" or "always"), else in ordinary ones.
//
// For what is reached at random: an ordinary page that is not among the few thousand that the processor knows costs a walk through
// the page tables, in a virtual machine through two sets of them, which takes longer than the access, and fetching ahead waits for it too.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace vitastor::store {

class LargePages {
public:
    static constexpr size_t kPage = 2 << 20;

    LargePages() = default;
    LargePages(const LargePages&) = delete;
    LargePages& operator=(const LargePages&) = delete;
    ~LargePages() { unmap(); }

    /// Zeroes, aligned to kPage; physical memory comes with the first access to each page. False: there is no such room.
    bool map(size_t bytes) {
        unmap();
        const size_t all = bytes + kPage;
        void* place = mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (place == MAP_FAILED) return false;
        map_ = static_cast<uint8_t*>(place);
        map_bytes_ = all;
        data_ = map_ + (-reinterpret_cast<uintptr_t>(map_) & (kPage - 1));
        madvise(data_, bytes, MADV_HUGEPAGE);  // only faster
        return true;
    }
    void unmap() {
        if (map_) munmap(map_, map_bytes_);
        map_ = data_ = nullptr;
        map_bytes_ = 0;
    }
    uint8_t* data() const { return data_; }

private:
    uint8_t* map_ = nullptr;
    size_t map_bytes_ = 0;
    uint8_t* data_ = nullptr;
};

}  // namespace vitastor::store

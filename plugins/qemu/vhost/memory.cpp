// SPDX-License-Identifier: GPL-2.0-or-later
#include "vhost/memory.hpp"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vitastor::vhost {
namespace {
constexpr uint64_t kLogPage = 4096;

bool overflows(uint64_t begin, uint64_t length) {
    uint64_t end = 0;
    return __builtin_add_overflow(begin, length, &end);
}
}  // namespace

Mapping::~Mapping() {
    if (base_) ::munmap(base_, total_);
}

int Mapping::map(int fd, uint64_t offset, uint64_t bytes) {
    const uint64_t page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
    const uint64_t skip = offset % page;
    if (bytes == 0 || overflows(offset, bytes) || overflows(bytes, skip)) return -EINVAL;
    struct stat status{};
    // Beyond the end of the file every access would be a SIGBUS.
    if (::fstat(fd, &status) < 0) return -errno;
    if (S_ISREG(status.st_mode) && static_cast<uint64_t>(status.st_size) < offset + bytes) return -EINVAL;
    void* base = ::mmap(nullptr, bytes + skip, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, static_cast<off_t>(offset - skip));
    if (base == MAP_FAILED) return -errno;
    Mapping old;
    swap(old);
    base_ = base;
    total_ = bytes + skip;
    data_ = static_cast<uint8_t*>(base) + skip;
    bytes_ = bytes;
    return 0;
}

int Memory::set(const std::vector<MemoryRegion>& regions, const std::vector<int>& fds, std::string& reason) {
    if (regions.size() > kRegionsMax || regions.size() != fds.size()) {
        reason = "a memory table of " + std::to_string(regions.size()) + " regions with " + std::to_string(fds.size()) + " descriptors";
        return -EINVAL;
    }
    std::vector<Region> fresh(regions.size());
    for (size_t i = 0; i < regions.size(); i++) {
        const MemoryRegion& where = regions[i];
        int error = overflows(where.guest_address, where.bytes) || overflows(where.user_address, where.bytes) ? -EINVAL : 0;
        if (error == 0) error = fresh[i].memory.map(fds[i], where.offset, where.bytes);
        if (error < 0) {
            reason = "memory region " + std::to_string(i) + " of " + std::to_string(where.bytes) + " bytes cannot be mapped: " + std::strerror(-error);
            return error;
        }
        ::madvise(fresh[i].memory.data(), 0, MADV_DONTDUMP);
        fresh[i].where = where;
    }
    std::sort(fresh.begin(), fresh.end(), [](const Region& a, const Region& b) { return a.where.guest_address < b.where.guest_address; });
    for (size_t i = 1; i < fresh.size(); i++) {
        if (fresh[i - 1].where.guest_address + fresh[i - 1].where.bytes <= fresh[i].where.guest_address) continue;
        reason = "regions of the memory table overlap";
        return -EINVAL;
    }
    regions_ = std::move(fresh);
    return 0;
}

bool Memory::pieces(uint64_t address, uint64_t length, std::vector<iovec>& out) const {
    if (overflows(address, length)) return false;
    while (length > 0) {
        const auto after = std::upper_bound(regions_.begin(), regions_.end(), address,
            [](uint64_t wanted, const Region& region) { return wanted < region.where.guest_address; });
        if (after == regions_.begin()) return false;
        const Region& region = *std::prev(after);
        const uint64_t inside = address - region.where.guest_address;
        if (inside >= region.where.bytes) return false;
        const uint64_t size = std::min(length, region.where.bytes - inside);
        out.push_back({region.memory.data() + inside, size});
        address += size;
        length -= size;
    }
    return true;
}

uint8_t* Memory::at_guest(uint64_t address, uint64_t length) const {
    std::vector<iovec> found;
    return length > 0 && pieces(address, length, found) && found.size() == 1 ? static_cast<uint8_t*>(found[0].iov_base) : nullptr;
}

uint8_t* Memory::at_user(uint64_t address, uint64_t length) const {
    if (overflows(address, length)) return nullptr;
    for (const Region& region : regions_) {
        if (address < region.where.user_address || address + length > region.where.user_address + region.where.bytes) continue;
        return region.memory.data() + (address - region.where.user_address);
    }
    return nullptr;
}

uint64_t Memory::guest_address(const uint8_t* data) const {
    for (const Region& region : regions_) {
        if (data < region.memory.data() || data >= region.memory.data() + region.where.bytes) continue;
        return region.where.guest_address + static_cast<uint64_t>(data - region.memory.data());
    }
    return UINT64_MAX;
}

void Memory::mark(uint64_t guest_address, uint64_t length) const {
    if (!log_.data() || length == 0 || overflows(guest_address, length)) return;
    for (uint64_t page = guest_address / kLogPage; page <= (guest_address + length - 1) / kLogPage; page++) {
        if (page / 8 >= log_.bytes()) return;
        __atomic_fetch_or(log_.data() + page / 8, static_cast<uint8_t>(1u << (page % 8)), __ATOMIC_RELAXED);
    }
}

}  // namespace vitastor::vhost

// SPDX-License-Identifier: GPL-2.0-or-later
#include "offline/disk_superblock.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/crc32c.hpp"

namespace vitastor::offline {

using runtime::Task;

Result<std::string> encode_disk_superblock(const std::string& json) {
    if (json.size() > kDiskLimit - kDiskHeader)
        return Status(-EFBIG, "the parameters are " + std::to_string(json.size()) + " bytes long; a superblock holds at most " +
                                  std::to_string(kDiskLimit - kDiskHeader));
    const auto size = static_cast<uint32_t>(kDiskHeader + json.size());
    std::string bytes((size + kDiskPage - 1) / kDiskPage * kDiskPage, '\0');
    memcpy(bytes.data(), kDiskMagic, 8);
    memcpy(bytes.data() + 12, &size, 4);
    memcpy(bytes.data() + kDiskHeader, json.data(), json.size());
    const uint32_t crc = crc32c(bytes.data() + 12, size - 12);
    memcpy(bytes.data() + 8, &crc, 4);
    return bytes;
}

Result<std::string> decode_disk_superblock(const uint8_t* data, size_t size_bytes) {
    if (size_bytes < kDiskHeader || memcmp(data, kDiskMagic, 8) != 0)
        return Status(-ENOENT, "there is no superblock of vitastor-disk");
    uint32_t crc, size;
    memcpy(&crc, data + 8, 4);
    memcpy(&size, data + 12, 4);
    if (size < kDiskHeader || size > kDiskLimit || size > size_bytes)
        return Status(-EINVAL, "the superblock names an impossible size, " + std::to_string(size));
    if (crc32c(data + 12, size - 12) != crc) return Status(-EIO, "the superblock is damaged (checksum does not match)");
    return std::string(reinterpret_cast<const char*>(data) + kDiskHeader, size - kDiskHeader);
}

Task<int> read_disk_superblock(store::Device& device, uint64_t device_bytes, const std::string& path, std::string& json,
                               std::string& error) {
    const uint64_t length = std::min<uint64_t>(device_bytes / kDiskPage * kDiskPage, kDiskLimit);
    if (length < kDiskPage) {
        error = path + ": is too short for a superblock";
        co_return -ENOENT;
    }
    Buffer buffer = device.loop().buffers().allocate(length);
    iovec iov{buffer.data(), length};
    Task<int> reading = device.read(&iov, 1, 0);
    const int status = co_await reading;
    if (status < 0) {
        error = path + ": cannot read the superblock: " + strerror(-status);
        co_return status;
    }
    Result<std::string> decoded = decode_disk_superblock(buffer.data(), length);
    if (!decoded.ok()) {
        error = path + ": " + decoded.status().message();
        co_return decoded.status().code();
    }
    json = decoded.value();
    co_return 0;
}

Task<int> write_disk_superblock(store::Device& device, uint64_t room_bytes, const std::string& path, const std::string& json,
                                std::string& error) {
    Result<std::string> encoded = encode_disk_superblock(json);
    if (!encoded.ok()) {
        error = path + ": " + encoded.status().message();
        co_return encoded.status().code();
    }
    const std::string& bytes = encoded.value();
    if (bytes.size() > room_bytes) {
        error = path + ": the superblock needs " + std::to_string(bytes.size()) + " bytes, and there are " +
                std::to_string(room_bytes) + " before the first area";
        co_return -ENOSPC;
    }
    Buffer buffer = device.loop().buffers().allocate(bytes.size());
    memcpy(buffer.data(), bytes.data(), bytes.size());
    iovec iov{buffer.data(), bytes.size()};
    Task<int> writing = device.write(&iov, 1, 0);
    int status = co_await writing;
    if (status == 0) {
        Task<int> flushing = device.flush();
        status = co_await flushing;
    }
    if (status < 0) error = path + ": cannot write the superblock: " + strerror(-status);
    co_return status;
}

}  // namespace vitastor::offline

// SPDX-License-Identifier: GPL-2.0-or-later
// The superblock of prepared partitions: JSON parameters of an OSD at byte 0 of each of its partitions, before the areas of the
// store (which begin at 4096 or later). Shared with Vitastor 3.0.8; source: tools.md 3.1. What the JSON says is TypeScript's.
//
//   0  8  magic "VITADisk"
//   8  4  CRC-32C of everything behind this field, up to size
//  12  4  size: 16 + length of the JSON, at most 128 KiB
//  16     JSON; zeroes up to a multiple of 4096
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "runtime/task.hpp"
#include "store/device.hpp"

namespace vitastor::offline {

inline constexpr char kDiskMagic[9] = "VITADisk";
inline constexpr uint32_t kDiskHeader = 16;
inline constexpr uint32_t kDiskLimit = 128 << 10;  ///< size field at most
inline constexpr uint32_t kDiskPage = 4096;

/// The bytes on disk, a multiple of 4096 long. Error -EFBIG: the JSON is too long.
Result<std::string> encode_disk_superblock(const std::string& json);

/// The JSON from the first bytes of a device. Errors: -ENOENT (other magic), -EINVAL (size), -EIO (checksum).
Result<std::string> decode_disk_superblock(const uint8_t* data, size_t size_bytes);

/// Reads it from byte 0. 0 or an errno with a message that names `path`.
runtime::Task<int> read_disk_superblock(store::Device& device, uint64_t device_bytes, const std::string& path,
                                        std::string& json, std::string& error);
/// Writes and flushes it. With room_bytes: what lies from there on is not to be touched (-ENOSPC if the JSON is longer).
runtime::Task<int> write_disk_superblock(store::Device& device, uint64_t room_bytes, const std::string& path,
                                         const std::string& json, std::string& error);

}  // namespace vitastor::offline

// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>

namespace vitastor {

/// CRC-32C (Castagnoli) as in RFC 3720: init and final inversion inside; crc32c("123456789") = 0xe3069283.
/// `previous` chains: crc32c(b, crc32c(a)) = crc32c(a ‖ b); 0 for a fresh start.
uint32_t crc32c(const void* data, size_t size_bytes, uint32_t previous = 0);

}  // namespace vitastor

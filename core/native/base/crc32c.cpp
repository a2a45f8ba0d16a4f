// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/crc32c.hpp"

#include <isa-l/crc.h>

#include <climits>

namespace vitastor {

uint32_t crc32c(const void* data, size_t size_bytes, uint32_t previous) {
    // ISA-L neither inverts the initial value nor the result, takes an int, and lacks a const.
    auto* bytes = const_cast<unsigned char*>(static_cast<const unsigned char*>(data));
    uint32_t crc = ~previous;
    while (size_bytes > 0) {
        size_t step = size_bytes < INT_MAX ? size_bytes : INT_MAX;
        crc = crc32_iscsi(bytes, static_cast<int>(step), crc);
        bytes += step;
        size_bytes -= step;
    }
    return ~crc;
}

}  // namespace vitastor

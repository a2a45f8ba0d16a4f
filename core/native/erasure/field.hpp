// SPDX-License-Identifier: GPL-2.0-or-later
// Arithmetic in GF(2^8) with x^8+x^4+x^3+x^2+1 (0x11d), and the matrix of the code: small, scalar, obviously right. What is
// fast (codec.hpp) is checked against it at start and in tests. Source: semantics 14.2, 14.3.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace vitastor::erasure {

namespace field_detail {
struct Tables {
    std::array<uint8_t, 510> exp{};
    std::array<uint16_t, 256> log{};
};
constexpr Tables make_tables() {
    Tables tables;
    uint32_t value = 1;
    for (uint16_t power = 0; power < 255; power++) {
        tables.exp[power] = tables.exp[power + 255u] = static_cast<uint8_t>(value);
        tables.log[value] = power;
        value <<= 1;
        if (value & 0x100) value ^= 0x11d;
    }
    return tables;
}
inline constexpr Tables kTables = make_tables();
}  // namespace field_detail

constexpr uint8_t gf_mul(uint8_t a, uint8_t b) {
    if (a == 0 || b == 0) return 0;
    return field_detail::kTables.exp[static_cast<size_t>(field_detail::kTables.log[a]) + field_detail::kTables.log[b]];
}

/// a != 0.
constexpr uint8_t gf_inverse(uint8_t a) { return field_detail::kTables.exp[255u - field_detail::kTables.log[a]]; }

/// M of semantics 14.3, data·parity bytes, row by row in order of parity role. data, parity ≥ 1, data + parity ≤ 256.
/// About data²·(data + parity) steps: microseconds for usual shapes, tens of milliseconds for 200+56.
std::vector<uint8_t> parity_matrix(uint32_t data, uint32_t parity);

/// Inverts a size×size matrix in place (row by row). false: singular, contents undefined.
bool invert_matrix(std::vector<uint8_t>& matrix, uint32_t size);

/// out[x] = ⊕_i coefficients[i] · in[i][x] for x < length, byte by byte. The reference.
void combine_reference(const uint8_t* coefficients, const uint8_t* const* in, size_t count, uint8_t* out, size_t length);

}  // namespace vitastor::erasure

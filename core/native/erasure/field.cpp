// SPDX-License-Identifier: GPL-2.0-or-later
#include "erasure/field.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "erasure/role_set.hpp"

namespace vitastor::erasure {

std::vector<uint8_t> parity_matrix(uint32_t data, uint32_t parity) {
    VITASTOR_ASSERT(data >= 1);
    VITASTOR_ASSERT(parity >= 1);
    VITASTOR_ASSERT(data + parity <= kRolesMax);
    const uint32_t rows = data + parity;
    std::vector<uint8_t> v(static_cast<size_t>(rows) * data, 0);
    auto at = [&v, data](uint32_t row, uint32_t column) -> uint8_t& { return v[static_cast<size_t>(row) * data + column]; };
    at(0, 0) = 1;
    at(rows - 1, data - 1) = 1;
    for (uint32_t row = 1; row + 1 < rows; row++) {
        uint8_t power = 1;
        for (uint32_t column = 0; column < data; column++) {
            at(row, column) = power;
            power = gf_mul(power, static_cast<uint8_t>(row));
        }
    }
    auto scale_column = [&](uint32_t column, uint8_t factor, uint32_t from_row) {
        for (uint32_t row = from_row; row < rows; row++) at(row, column) = gf_mul(at(row, column), factor);
    };
    for (uint32_t c = 1; c < data; c++) {
        uint32_t pivot = c;
        while (pivot < rows && at(pivot, c) == 0) pivot++;
        VITASTOR_ASSERT(pivot < rows);
        if (pivot != c) {
            for (uint32_t column = 0; column < data; column++) std::swap(at(c, column), at(pivot, column));
        }
        if (at(c, c) != 1) scale_column(c, gf_inverse(at(c, c)), 0);
        for (uint32_t j = 0; j < data; j++) {
            const uint8_t factor = at(c, j);
            if (j == c || factor == 0) continue;
            for (uint32_t row = 0; row < rows; row++) at(row, j) ^= gf_mul(factor, at(row, c));
        }
    }
    for (uint32_t j = 0; j < data; j++) {
        VITASTOR_ASSERT(at(data, j) != 0);
        scale_column(j, gf_inverse(at(data, j)), data);
    }
    for (uint32_t row = data + 1; row < rows; row++) {
        const uint8_t factor = gf_inverse(at(row, 0));
        for (uint32_t j = 0; j < data; j++) at(row, j) = gf_mul(at(row, j), factor);
    }
    return {v.begin() + static_cast<ptrdiff_t>(data) * data, v.end()};
}

bool invert_matrix(std::vector<uint8_t>& matrix, uint32_t size) {
    VITASTOR_ASSERT(matrix.size() == static_cast<size_t>(size) * size);
    std::vector<uint8_t> result(matrix.size(), 0);
    for (uint32_t i = 0; i < size; i++) result[static_cast<size_t>(i) * size + i] = 1;
    auto row_of = [size](std::vector<uint8_t>& m, uint32_t row) { return m.data() + static_cast<size_t>(row) * size; };
    for (uint32_t c = 0; c < size; c++) {
        uint32_t pivot = c;
        while (pivot < size && row_of(matrix, pivot)[c] == 0) pivot++;
        if (pivot == size) return false;
        for (std::vector<uint8_t>* m : {&matrix, &result}) {
            uint8_t* row = row_of(*m, c);
            if (pivot != c) std::swap_ranges(row, row + size, row_of(*m, pivot));
        }
        const uint8_t factor = gf_inverse(row_of(matrix, c)[c]);
        for (std::vector<uint8_t>* m : {&matrix, &result}) {
            for (uint32_t j = 0; j < size; j++) row_of(*m, c)[j] = gf_mul(row_of(*m, c)[j], factor);
        }
        for (uint32_t row = 0; row < size; row++) {
            const uint8_t times = row_of(matrix, row)[c];
            if (row == c || times == 0) continue;
            for (std::vector<uint8_t>* m : {&matrix, &result}) {
                for (uint32_t j = 0; j < size; j++) row_of(*m, row)[j] ^= gf_mul(times, row_of(*m, c)[j]);
            }
        }
    }
    matrix = std::move(result);
    return true;
}

void combine_reference(const uint8_t* coefficients, const uint8_t* const* in, size_t count, uint8_t* out, size_t length) {
    for (size_t x = 0; x < length; x++) {
        uint8_t sum = 0;
        for (size_t i = 0; i < count; i++) sum ^= gf_mul(coefficients[i], in[i][x]);
        out[x] = sum;
    }
}

}  // namespace vitastor::erasure

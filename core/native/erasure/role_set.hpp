// SPDX-License-Identifier: GPL-2.0-or-later
// A set of roles (chunk numbers 0 … 255) of one object: data chunks first, then parity.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/assert.hpp"

namespace vitastor::erasure {

/// pg_size is at most 256. Source: semantics 14.5.
inline constexpr uint32_t kRolesMax = 256;

class RoleSet {
public:
    constexpr RoleSet() = default;
    /// Roles begin … end-1.
    static constexpr RoleSet range(uint32_t begin, uint32_t end) {
        RoleSet set;
        for (uint32_t role = begin; role < end; role++) set.add(role);
        return set;
    }
    static constexpr RoleSet of(uint32_t role) { return range(role, role + 1); }
    constexpr bool has(uint32_t role) const { return role < kRolesMax && (words_[role / 64] >> role % 64 & 1) != 0; }
    constexpr void add(uint32_t role) {
        VITASTOR_ASSERT(role < kRolesMax);
        words_[role / 64] |= uint64_t{1} << role % 64;
    }
    constexpr void remove(uint32_t role) {
        if (role < kRolesMax) words_[role / 64] &= ~(uint64_t{1} << role % 64);
    }
    constexpr uint32_t count() const {
        uint32_t total = 0;
        for (uint64_t word : words_) total += static_cast<uint32_t>(std::popcount(word));
        return total;
    }
    constexpr bool empty() const { return (words_[0] | words_[1] | words_[2] | words_[3]) == 0; }
    constexpr bool contains(const RoleSet& other) const { return (other - *this).empty(); }
    /// Smallest role that is not below `from`; kRolesMax if there is none.
    constexpr uint32_t next(uint32_t from) const {
        for (uint32_t word = from / 64; word < words_.size(); word++) {
            uint64_t left = words_[word];
            if (word == from / 64) left &= ~uint64_t{0} << from % 64;
            if (left) return word * 64 + static_cast<uint32_t>(std::countr_zero(left));
        }
        return kRolesMax;
    }
    /// In ascending order.
    template <class Visit>
    constexpr void for_each(Visit visit) const {
        for (uint32_t role = next(0); role < kRolesMax; role = next(role + 1)) visit(role);
    }
    constexpr RoleSet& operator|=(const RoleSet& other) { return *this = *this | other; }
    friend constexpr RoleSet operator|(RoleSet a, const RoleSet& b) {
        for (size_t i = 0; i < a.words_.size(); i++) a.words_[i] |= b.words_[i];
        return a;
    }
    friend constexpr RoleSet operator&(RoleSet a, const RoleSet& b) {
        for (size_t i = 0; i < a.words_.size(); i++) a.words_[i] &= b.words_[i];
        return a;
    }
    friend constexpr RoleSet operator-(RoleSet a, const RoleSet& b) {
        for (size_t i = 0; i < a.words_.size(); i++) a.words_[i] &= ~b.words_[i];
        return a;
    }
    constexpr bool operator==(const RoleSet&) const = default;
    constexpr const std::array<uint64_t, 4>& words() const { return words_; }

private:
    std::array<uint64_t, 4> words_{};
};

}  // namespace vitastor::erasure

// SPDX-License-Identifier: GPL-2.0-or-later
// The codes of erasure-coded pools: parity from data, any missing chunks from any k others, parity changed by a difference.
// Bytes are those of Vitastor 3.0.8 with either of its libraries. `xor` n+1 is the code with one parity chunk, `jerasure`
// another name of `ec`. ISA-L multiplies; its tables never leave the library's own functions, since their layout changes
// between versions, and every codec proves itself against the scalar reference before it is handed out.
// Source: semantics 14.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/result.hpp"
#include "erasure/role_set.hpp"

namespace vitastor::erasure {

/// Bytes of one chunk, in order, in any number of buffers of any length and alignment. iov_base == nullptr: zeroes (inputs
/// only). Borrowed for the duration of the call.
using Pieces = std::span<const iovec>;

/// The multiplying library. Replaced in tests only, to see that a wrong one is refused.
struct Kernel {
    void (*init_tables)(int k, int rows, unsigned char* coefficients, unsigned char* tables);
    void (*encode)(int len, int k, int rows, unsigned char* tables, unsigned char** in, unsigned char** out);
    void (*update)(int len, int k, int rows, int column, unsigned char* tables, unsigned char* in, unsigned char** out);
};
const Kernel& isal_kernel();

/// One pool's code. One thread (it keeps a cache). Nothing here allocates once the tables of a set of roles are cached.
class Codec {
public:
    struct Options {
        size_t cache_bytes_max = 4u << 20;  ///< tables of decoding and of partial parities; at least one set is kept
        const Kernel* kernel = nullptr;     ///< nullptr: ISA-L
    };
    /// data, parity ≥ 1, data + parity ≤ 256, else -EINVAL. -ENOTRECOVERABLE: the library computes wrong bytes here.
    /// Takes microseconds for usual shapes, tens of milliseconds for the widest: once a pool, not once a request.
    static Result<std::unique_ptr<Codec>> create(uint32_t data, uint32_t parity, const Options& options);
    static Result<std::unique_ptr<Codec>> create(uint32_t data, uint32_t parity) { return create(data, parity, Options{}); }

    uint32_t data() const { return data_; }
    uint32_t parity() const { return parity_; }
    RoleSet data_roles() const { return RoleSet::range(0, data_); }
    RoleSet parity_roles() const { return RoleSet::range(data_, data_ + parity_); }
    /// M of semantics 14.3, row by row.
    const std::vector<uint8_t>& matrix() const { return matrix_; }

    /// Computes the chunks `wanted` from exactly k chunks `sources`; the sets are disjoint. in and out: one entry a role in
    /// ascending order, each at least `length` bytes (more is ignored); out overlaps nothing. Encoding is the case
    /// sources = data_roles(), wanted = parity_roles() or some of them. length 0 and empty `wanted` do nothing.
    void combine(const RoleSet& sources, std::span<const Pieces> in, const RoleSet& wanted, std::span<const Pieces> out,
                 size_t length);

    /// Data chunk `role` changes by `difference` (old ⊕ new): changes the parity chunks `parity` accordingly, in place.
    /// chunks: one entry a role of `parity`, ascending.
    void update(uint32_t role, Pieces difference, const RoleSet& parity, std::span<const Pieces> chunks, size_t length);

    /// to ⊕= from.
    static void xor_into(Pieces to, Pieces from, size_t length);

    size_t cache_bytes() const { return cache_bytes_; }
    size_t cache_entries() const { return programs_.size(); }

private:
    struct Key {
        RoleSet sources, wanted;
        bool operator==(const Key&) const = default;
    };
    struct KeyHash {
        size_t operator()(const Key& key) const;
    };
    /// wanted = coefficients × sources.
    struct Program {
        Key key;
        uint32_t columns = 0, rows = 0;
        bool plain_xor = false;  ///< one row, all ones
        std::vector<uint8_t> coefficients;
        std::vector<uint8_t> tables;
        size_t bytes() const { return sizeof(*this) + coefficients.size() + tables.size(); }
    };

    Codec(uint32_t data, uint32_t parity, const Options& options);
    Program make_program(const Key& key) const;
    Program& find_program(const RoleSet& sources, const RoleSet& wanted);
    void run(Program& program, std::span<const Pieces> in, std::span<const Pieces> out, size_t length) const;
    bool proves_right();
    bool proves_right(const Key& key, size_t length);

    const uint32_t data_, parity_;
    const size_t cache_bytes_max_;
    const Kernel& kernel_;
    std::vector<uint8_t> matrix_;
    Program encode_;
    std::list<Program> programs_;  ///< most recently used first
    std::unordered_map<Key, std::list<Program>::iterator, KeyHash> index_;
    size_t cache_bytes_ = 0;
};

}  // namespace vitastor::erasure

// SPDX-License-Identifier: GPL-2.0-or-later
#include "erasure/codec.hpp"

#include <isa-l/erasure_code.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "erasure/field.hpp"

namespace vitastor::erasure {

namespace {

/// Bytes of tables for one coefficient that ISA-L documents; it may use fewer.
constexpr size_t kTableBytes = 32;
constexpr size_t kRunMax = 1u << 30;  ///< ISA-L counts in int

alignas(64) constexpr uint8_t kZeroes[4096] = {};

/// Walks the pieces of one chunk.
class Cursor {
public:
    void start(Pieces pieces) {
        next_ = pieces.data();
        end_ = next_ + pieces.size();
        left_ = 0;
    }
    /// Bytes that lie in one piece from here on; at least 1.
    size_t run() {
        while (left_ == 0) {
            VITASTOR_ASSERT(next_ != end_);
            at_ = static_cast<uint8_t*>(next_->iov_base);
            left_ = next_->iov_len;
            next_++;
        }
        return at_ ? left_ : std::min(left_, sizeof(kZeroes));
    }
    bool zero() const { return at_ == nullptr; }
    uint8_t* at() const { return at_; }
    /// For inputs. ISA-L does not write there.
    uint8_t* source() const { return at_ ? at_ : const_cast<uint8_t*>(kZeroes); }
    void advance(size_t bytes) {
        left_ -= bytes;
        if (at_) at_ += bytes;
    }

private:
    // Set by start(): clearing hundreds of cursors took longer than encoding 4 KiB.
    const iovec* next_;
    const iovec* end_;
    uint8_t* at_;
    size_t left_;
};

using Lane = uint64_t __attribute__((vector_size(16), aligned(1), may_alias));

/// out = ⊕ in[i]. out may be one of them.
void xor_run(uint8_t* out, uint8_t* const* in, size_t count, size_t length) {
    size_t x = 0;
    for (; x + 64 <= length; x += 64) {
        const Lane* first = reinterpret_cast<const Lane*>(in[0] + x);
        Lane a = first[0], b = first[1], c = first[2], d = first[3];
        for (size_t i = 1; i < count; i++) {
            const Lane* more = reinterpret_cast<const Lane*>(in[i] + x);
            a ^= more[0];
            b ^= more[1];
            c ^= more[2];
            d ^= more[3];
        }
        Lane* to = reinterpret_cast<Lane*>(out + x);
        to[0] = a;
        to[1] = b;
        to[2] = c;
        to[3] = d;
    }
    for (; x < length; x++) {
        uint8_t sum = in[0][x];
        for (size_t i = 1; i < count; i++) sum ^= in[i][x];
        out[x] = sum;
    }
}

/// What is shorter goes through buffers of this size, for two reasons. libisal 2.31 with AVX-512 and GFNI loads 48 bytes at the first
/// of five outputs, however short they are, and drops them: at the end of a page that is a crash. And below its vector width it
/// calls its own gf_mul through the dynamic linker, which finds OpenSSL's function of that name in Node's executable.
constexpr size_t kRunMin = 64;

__attribute__((noinline)) void encode_short(const Kernel& kernel, size_t bytes, size_t columns, size_t rows, uint8_t* tables,
                                            uint8_t** in, uint8_t** out) {
    alignas(64) uint8_t sources[kRolesMax][kRunMin], results[kRolesMax][kRunMin];
    uint8_t *from[kRolesMax], *to[kRolesMax];
    for (size_t i = 0; i < columns; i++) {
        std::memcpy(sources[i], in[i], bytes);
        std::memset(sources[i] + bytes, 0, kRunMin - bytes);
        from[i] = sources[i];
    }
    for (size_t i = 0; i < rows; i++) to[i] = results[i];
    kernel.encode(static_cast<int>(kRunMin), static_cast<int>(columns), static_cast<int>(rows), tables, from, to);
    for (size_t i = 0; i < rows; i++) std::memcpy(out[i], results[i], bytes);
}

__attribute__((noinline)) void update_short(const Kernel& kernel, size_t bytes, size_t columns, size_t rows, size_t column,
                                            uint8_t* tables, const uint8_t* in, uint8_t** out) {
    alignas(64) uint8_t source[kRunMin] = {}, results[kRolesMax][kRunMin];
    uint8_t* to[kRolesMax];
    std::memcpy(source, in, bytes);
    for (size_t i = 0; i < rows; i++) {
        std::memcpy(results[i], out[i], bytes);
        std::memset(results[i] + bytes, 0, kRunMin - bytes);
        to[i] = results[i];
    }
    kernel.update(static_cast<int>(kRunMin), static_cast<int>(columns), static_cast<int>(rows), static_cast<int>(column), tables,
                  source, to);
    for (size_t i = 0; i < rows; i++) std::memcpy(out[i], results[i], bytes);
}

void update_run(const Kernel& kernel, size_t bytes, size_t columns, size_t rows, size_t column, uint8_t* tables, uint8_t* in,
                uint8_t** out) {
    if (bytes < kRunMin) return update_short(kernel, bytes, columns, rows, column, tables, in, out);
    kernel.update(static_cast<int>(bytes), static_cast<int>(columns), static_cast<int>(rows), static_cast<int>(column), tables, in, out);
}

constexpr Kernel kIsal{ec_init_tables, ec_encode_data, ec_encode_data_update};

}  // namespace

const Kernel& isal_kernel() { return kIsal; }

size_t Codec::KeyHash::operator()(const Key& key) const {
    uint64_t hash = 0x9e3779b97f4a7c15;
    for (const RoleSet* set : {&key.sources, &key.wanted}) {
        for (uint64_t word : set->words()) {
            hash = (hash ^ word) * 0xff51afd7ed558ccd;
            hash ^= hash >> 32;
        }
    }
    return hash;
}

Codec::Codec(uint32_t data, uint32_t parity, const Options& options)
    : data_(data),
      parity_(parity),
      cache_bytes_max_(options.cache_bytes_max),
      kernel_(options.kernel ? *options.kernel : kIsal),
      matrix_(parity_matrix(data, parity)),
      encode_(make_program({data_roles(), parity_roles()})) {}

Result<std::unique_ptr<Codec>> Codec::create(uint32_t data, uint32_t parity, const Options& options) {
    if (data < 1 || parity < 1 || data > kRolesMax || parity > kRolesMax || data + parity > kRolesMax) {
        return Status(-EINVAL, "no erasure code with " + std::to_string(data) + " data and " + std::to_string(parity) +
                                   " parity chunks: both must be at least 1, together at most 256");
    }
    std::unique_ptr<Codec> codec(new Codec(data, parity, options));
    if (!codec->proves_right()) {
        return Status(-ENOTRECOVERABLE, "libisal computes wrong bytes for the erasure code " + std::to_string(data) + "+" +
                                            std::to_string(parity) + " on this machine: install another version of it");
    }
    return codec;
}

/// Only the data chunks that are not among the sources are unknown: as many equations as sources that are parity.
Codec::Program Codec::make_program(const Key& key) const {
    Program program;
    program.key = key;
    program.columns = key.sources.count();
    program.rows = key.wanted.count();
    VITASTOR_ASSERT(program.columns == data_);
    const size_t width = program.columns;
    std::vector<uint32_t> column_of(data_ + parity_, 0);
    std::vector<uint32_t> unknown, equations;
    uint32_t column = 0;
    key.sources.for_each([&](uint32_t role) {
        column_of[role] = column++;
        if (role >= data_) equations.push_back(role);
    });
    for (uint32_t role = 0; role < data_; role++) {
        if (!key.sources.has(role)) unknown.push_back(role);
    }
    const uint32_t size = static_cast<uint32_t>(unknown.size());
    VITASTOR_ASSERT(size == equations.size());
    auto coefficient = [this](uint32_t parity_role, uint32_t data_role) {
        return matrix_[static_cast<size_t>(parity_role - data_) * data_ + data_role];
    };
    // unknown = inverse × (parity ⊕ what the known data adds to it)
    std::vector<uint8_t> inverse(static_cast<size_t>(size) * size);
    for (uint32_t e = 0; e < size; e++) {
        for (uint32_t u = 0; u < size; u++) inverse[static_cast<size_t>(e) * size + u] = coefficient(equations[e], unknown[u]);
    }
    const bool regular = invert_matrix(inverse, size);
    VITASTOR_ASSERT(regular);  // every square part of M is: it would be no code otherwise
    std::vector<uint8_t> solved(static_cast<size_t>(size) * width, 0);
    for (uint32_t u = 0; u < size; u++) {
        uint8_t* row = solved.data() + u * width;
        for (uint32_t e = 0; e < size; e++) {
            const uint8_t factor = inverse[static_cast<size_t>(u) * size + e];
            row[column_of[equations[e]]] ^= factor;
            key.sources.for_each([&](uint32_t role) {
                if (role < data_) row[column_of[role]] ^= gf_mul(factor, coefficient(equations[e], role));
            });
        }
    }
    program.coefficients.assign(program.rows * width, 0);
    uint8_t* row = program.coefficients.data();
    key.wanted.for_each([&](uint32_t role) {
        VITASTOR_ASSERT(role < data_ + parity_);
        VITASTOR_ASSERT(!key.sources.has(role));
        for (uint32_t u = 0; u < size; u++) {
            const uint8_t factor = role >= data_ ? coefficient(role, unknown[u]) : static_cast<uint8_t>(unknown[u] == role);
            if (factor == 0) continue;
            for (size_t x = 0; x < width; x++) row[x] ^= gf_mul(factor, solved[u * width + x]);
        }
        if (role >= data_) {
            key.sources.for_each([&](uint32_t source) {
                if (source < data_) row[column_of[source]] ^= coefficient(role, source);
            });
        }
        row += width;
    });
    program.plain_xor = program.rows == 1 && std::all_of(program.coefficients.begin(), program.coefficients.end(),
                                                         [](uint8_t value) { return value == 1; });
    program.tables.resize(program.rows * width * kTableBytes);
    if (program.rows) {
        kernel_.init_tables(static_cast<int>(program.columns), static_cast<int>(program.rows), program.coefficients.data(),
                            program.tables.data());
    }
    return program;
}

Codec::Program& Codec::find_program(const RoleSet& sources, const RoleSet& wanted) {
    if (wanted == encode_.key.wanted && sources == encode_.key.sources) return encode_;
    const Key key{sources, wanted};
    if (auto it = index_.find(key); it != index_.end()) {
        programs_.splice(programs_.begin(), programs_, it->second);
        return programs_.front();
    }
    programs_.push_front(make_program(key));
    index_.emplace(key, programs_.begin());
    cache_bytes_ += programs_.front().bytes();
    while (cache_bytes_ > cache_bytes_max_ && programs_.size() > 1) {
        cache_bytes_ -= programs_.back().bytes();
        index_.erase(programs_.back().key);
        programs_.pop_back();
    }
    return programs_.front();
}

void Codec::combine(const RoleSet& sources, std::span<const Pieces> in, const RoleSet& wanted, std::span<const Pieces> out,
                    size_t length) {
    if (length == 0 || wanted.empty()) return;
    Program& program = find_program(sources, wanted);
    VITASTOR_ASSERT(in.size() == program.columns);
    VITASTOR_ASSERT(out.size() == program.rows);
    run(program, in, out, length);
}

void Codec::run(Program& program, std::span<const Pieces> in, std::span<const Pieces> out, size_t length) const {
    Cursor from[kRolesMax], to[kRolesMax];
    uint8_t* in_at[kRolesMax];
    uint8_t* out_at[kRolesMax];
    for (size_t i = 0; i < in.size(); i++) from[i].start(in[i]);
    for (size_t i = 0; i < out.size(); i++) to[i].start(out[i]);
    while (length > 0) {
        size_t bytes = std::min(length, kRunMax);
        for (size_t i = 0; i < in.size(); i++) {
            bytes = std::min(bytes, from[i].run());
            in_at[i] = from[i].source();
        }
        for (size_t i = 0; i < out.size(); i++) {
            bytes = std::min(bytes, to[i].run());
            out_at[i] = to[i].at();
        }
        if (program.plain_xor) {
            xor_run(out_at[0], in_at, in.size(), bytes);
        } else if (bytes < kRunMin) {
            encode_short(kernel_, bytes, program.columns, program.rows, program.tables.data(), in_at, out_at);
        } else {
            kernel_.encode(static_cast<int>(bytes), static_cast<int>(program.columns), static_cast<int>(program.rows),
                           program.tables.data(), in_at, out_at);
        }
        for (size_t i = 0; i < in.size(); i++) from[i].advance(bytes);
        for (size_t i = 0; i < out.size(); i++) to[i].advance(bytes);
        length -= bytes;
    }
}

void Codec::update(uint32_t role, Pieces difference, const RoleSet& parity, std::span<const Pieces> chunks, size_t length) {
    VITASTOR_ASSERT(role < data_);
    VITASTOR_ASSERT(parity_roles().contains(parity));
    if (length == 0 || parity.empty()) return;
    Program& program = find_program(data_roles(), parity);
    VITASTOR_ASSERT(chunks.size() == program.rows);
    if (program.plain_xor) return xor_into(chunks[0], difference, length);
    Cursor from, to[kRolesMax];
    uint8_t* out_at[kRolesMax];
    from.start(difference);
    for (size_t i = 0; i < chunks.size(); i++) to[i].start(chunks[i]);
    while (length > 0) {
        size_t bytes = std::min({length, kRunMax, from.run()});
        for (size_t i = 0; i < chunks.size(); i++) {
            bytes = std::min(bytes, to[i].run());
            out_at[i] = to[i].at();
        }
        if (!from.zero()) {
            update_run(kernel_, bytes, program.columns, program.rows, role, program.tables.data(), from.at(), out_at);
        }
        from.advance(bytes);
        for (size_t i = 0; i < chunks.size(); i++) to[i].advance(bytes);
        length -= bytes;
    }
}

void Codec::xor_into(Pieces to, Pieces from, size_t length) {
    Cursor target, source;
    target.start(to);
    source.start(from);
    while (length > 0) {
        const size_t bytes = std::min({length, target.run(), source.run()});
        if (!source.zero()) {
            uint8_t* in[2] = {target.at(), source.at()};
            xor_run(target.at(), in, 2, bytes);
        }
        target.advance(bytes);
        source.advance(bytes);
        length -= bytes;
    }
}

// ------------------------------------------------------------------ proof at start

/// Encoding, decoding of the first data chunks from parity, and differences, each with a length that the vector code takes,
/// one with a rest, and one that is too short for it.
bool Codec::proves_right() {
    const uint32_t lost = std::min(data_, parity_);
    const Key decode{RoleSet::range(lost, data_ + lost), RoleSet::range(0, lost)};
    for (size_t length : {size_t{64}, size_t{97}, size_t{5}}) {
        if (!proves_right(encode_.key, length) || !proves_right(decode, length)) return false;
    }
    return true;
}

bool Codec::proves_right(const Key& key, size_t length) {
    Program program = make_program(key);
    program.plain_xor = false;  // the library, not our own loop
    std::vector<std::vector<uint8_t>> in(program.columns), out(program.rows);
    std::vector<iovec> in_iov(program.columns), out_iov(program.rows);
    std::vector<Pieces> in_pieces(program.columns), out_pieces(program.rows);
    std::vector<const uint8_t*> in_at(program.columns);
    uint32_t noise = 12345;
    for (uint32_t i = 0; i < program.columns; i++) {
        in[i].resize(length);
        for (uint8_t& byte : in[i]) byte = static_cast<uint8_t>((noise = noise * 1664525 + 1013904223) >> 24);
        in_at[i] = in[i].data();
        in_iov[i] = {in[i].data(), length};
        in_pieces[i] = {&in_iov[i], 1};
    }
    for (uint32_t i = 0; i < program.rows; i++) {
        out[i].resize(length);
        out_iov[i] = {out[i].data(), length};
        out_pieces[i] = {&out_iov[i], 1};
    }
    run(program, in_pieces, out_pieces, length);
    std::vector<uint8_t> expected(length);
    auto row = [&](uint32_t i) { return program.coefficients.data() + static_cast<size_t>(i) * program.columns; };
    for (uint32_t i = 0; i < program.rows; i++) {
        combine_reference(row(i), in_at.data(), program.columns, expected.data(), length);
        if (out[i] != expected) return false;
    }
    // The same sums, one column after the other.
    std::vector<uint8_t*> out_at(program.rows);
    for (uint32_t i = 0; i < program.rows; i++) {
        std::fill(out[i].begin(), out[i].end(), uint8_t{0});
        out_at[i] = out[i].data();
    }
    for (uint32_t i = 0; i < program.columns; i++) {
        update_run(kernel_, length, program.columns, program.rows, i, program.tables.data(), in[i].data(), out_at.data());
    }
    for (uint32_t i = 0; i < program.rows; i++) {
        combine_reference(row(i), in_at.data(), program.columns, expected.data(), length);
        if (out[i] != expected) return false;
    }
    return true;
}

}  // namespace vitastor::erasure

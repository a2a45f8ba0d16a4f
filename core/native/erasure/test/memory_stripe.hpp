// SPDX-License-Identifier: GPL-2.0-or-later
// One object in memory: k + m chunks with bitmaps, some of them lost, beside a plain array that says what they should hold.
// Executes plans as an OSD would, and checks all it touches.
#pragma once

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "erasure/field.hpp"
#include "erasure/stripe_work.hpp"

namespace vitastor::erasure::test {

using Bytes = std::vector<uint8_t>;
using Random = std::mt19937_64;

struct MemoryStripe {
    StripeShape shape;
    Codec& codec;
    std::vector<Bytes> chunks, bitmaps;
    RoleSet good;  ///< hold the newest version; the others hold garbage
    Bytes model, model_bits;  ///< model_bits: one byte a granule
    std::string error;  ///< empty: all is well
    Random& random;
    uint64_t reads = 0;  ///< chunks read

    MemoryStripe(const StripeShape& the_shape, Codec& the_codec, Random& the_random)
        : shape(the_shape), codec(the_codec), chunks(shape.roles(), Bytes(shape.chunk_bytes)),
          bitmaps(shape.roles(), Bytes(shape.bitmap_bytes())), good(RoleSet::range(0, shape.roles())),
          model(shape.span_bytes()), model_bits(shape.span_bytes() / shape.granularity), random(the_random) {}

    void fail(const std::string& text) {
        if (error.empty()) error = text;
    }

    void spoil(Bytes& bytes) {
        for (size_t at = 0; at < bytes.size(); at += 8) {
            const uint64_t noise = random();
            memcpy(bytes.data() + at, &noise, std::min<size_t>(8, bytes.size() - at));
        }
    }

    Bytes data_bitmap(uint32_t role) const {
        Bytes bits(shape.bitmap_bytes());
        const uint32_t granules = shape.chunk_bytes / shape.granularity;
        for (uint32_t i = 0; i < granules; i++) {
            if (model_bits[role * granules + i]) bits[i / 8] = static_cast<uint8_t>(bits[i / 8] | 1u << i % 8);
        }
        return bits;
    }

    /// All chunks that are good hold what the model and the code say.
    void check_all() {
        std::vector<const uint8_t*> data;
        std::vector<Bytes> bits;
        std::vector<const uint8_t*> bits_at;
        for (uint32_t role = 0; role < shape.data; role++) {
            data.push_back(model.data() + role * shape.chunk_bytes);
            bits.push_back(data_bitmap(role));
        }
        for (const Bytes& one : bits) bits_at.push_back(one.data());
        good.for_each([&](uint32_t role) {
            Bytes expected(shape.chunk_bytes), expected_bits(shape.bitmap_bytes());
            if (role < shape.data) {
                expected.assign(data[role], data[role] + shape.chunk_bytes);
                expected_bits = bits[role];
            } else {
                const uint8_t* row = codec.matrix().data() + (role - shape.data) * shape.data;
                combine_reference(row, data.data(), shape.data, expected.data(), expected.size());
                combine_reference(row, bits_at.data(), shape.data, expected_bits.data(), expected_bits.size());
            }
            if (chunks[role] != expected) fail("chunk " + std::to_string(role) + " differs");
            if (bitmaps[role] != expected_bits) fail("bitmap " + std::to_string(role) + " differs");
        });
    }

    /// Fills the places and bitmaps that the plan's reads bring. lost: may not be read.
    void execute_reads(const Plan& plan, const RoleSet& readable, uint8_t* client, Bytes& scratch, Bytes& bits) {
        scratch.resize(plan.scratch_bytes);
        spoil(scratch);
        bits.resize(shape.roles() * shape.bitmap_bytes());
        spoil(bits);
        plan.bitmaps_known.for_each([&](uint32_t role) {
            const Bytes known = data_bitmap(role);
            memcpy(bits.data() + role * shape.bitmap_bytes(), known.data(), known.size());
        });
        std::vector<iovec> iov;
        for (const ChunkRange& read : plan.reads) {
            if (!readable.has(read.role)) fail("reads role " + std::to_string(read.role) + ", which is lost");
            if (read.offset % shape.granularity || read.len % shape.granularity) fail("reads unaligned");
            if (read.offset + uint64_t{read.len} > shape.chunk_bytes) fail("reads past the chunk");
            reads += read.len > 0;
            iov.clear();
            append_pieces(plan, read.role, read.offset, read.len, View::before, client, scratch.data(), iov);
            uint32_t at = read.offset;
            for (const iovec& piece : iov) {
                if (!piece.iov_base) return fail("a read goes nowhere");
                memcpy(piece.iov_base, chunks[read.role].data() + at, piece.iov_len);
                at += static_cast<uint32_t>(piece.iov_len);
            }
            if (at != read.offset + read.len) fail("a read is longer than its places");
            memcpy(bits.data() + read.role * shape.bitmap_bytes(), bitmaps[read.role].data(), shape.bitmap_bytes());
        }
        StripeWork work;
        work.start(codec, plan, client, scratch.data());
        while (!work.step(1 + random() % 20000)) {
        }
        work.finish_bitmaps(bits.data());
    }

    void read(const ReadRequest& request, Plan& plan) {
        Bytes reply(request.len), scratch, bits;
        spoil(reply);
        const int status = plan_read(shape, request, plan);
        if (status) return fail("plan_read gives " + std::to_string(status));
        execute_reads(plan, request.readable, reply.data(), scratch, bits);
        if (request.len && memcmp(reply.data(), model.data() + request.offset, request.len)) fail("read differs");
        for (uint32_t role = 0; role < shape.data; role++) {
            Bytes expected = data_bitmap(role);
            if (request.len && touched_range(shape, request.offset, request.len, role).len == 0) expected.assign(expected.size(), 0);
            if (memcmp(bits.data() + role * shape.bitmap_bytes(), expected.data(), expected.size())) fail("read: bitmap differs");
        }
    }

    /// Writes random bytes. Roles that are not written become garbage.
    void write(const WriteRequest& request, Plan& plan) {
        Bytes payload(request.len), scratch, bits;
        spoil(payload);
        const Bytes sent = payload;
        const int status = plan_write(shape, request, plan);
        if (status) return fail("plan_write gives " + std::to_string(status));
        execute_reads(plan, request.readable, payload.data(), scratch, bits);
        if (payload != sent) fail("the payload was changed");
        RoleSet stored;
        std::vector<iovec> iov;
        for (const ChunkRange& store : plan.stores) {
            if (stored.has(store.role)) fail("two stores of one role");
            if (store.offset % shape.granularity || store.len % shape.granularity) fail("stores unaligned");
            if (!request.writable.has(store.role)) fail("stores to a role that has nobody");
            stored.add(store.role);
            iov.clear();
            append_pieces(plan, store.role, store.offset, store.len, View::after, payload.data(), scratch.data(), iov);
            uint32_t at = store.offset;
            for (const iovec& piece : iov) {
                if (!piece.iov_base) return fail("a store comes from nowhere");
                const auto* bytes = static_cast<const uint8_t*>(piece.iov_base);
                for (size_t i = 0; i < piece.iov_len; i++) {
                    uint8_t& place = chunks[store.role][at + i];
                    place = static_cast<uint8_t>(plan.differences.has(store.role) ? place ^ bytes[i] : bytes[i]);
                }
                at += static_cast<uint32_t>(piece.iov_len);
            }
            if (at != store.offset + store.len) fail("a store is shorter than it says");
            const uint8_t* bitmap = bits.data() + store.role * shape.bitmap_bytes();
            bitmaps[store.role].assign(bitmap, bitmap + shape.bitmap_bytes());
        }
        if (!request.takes_difference.contains(plan.differences)) fail("a difference goes to a holder that does not take it");
        if (!(stored == request.writable)) fail("a role of the current set got no version");
        if (request.len) memcpy(model.data() + request.offset, sent.data(), request.len);
        for (uint64_t i = request.offset / shape.granularity; i < (request.offset + request.len) / shape.granularity; i++) model_bits[i] = 1;
        good = request.writable;
        for (uint32_t role = 0; role < shape.roles(); role++) {
            if (good.has(role)) continue;
            spoil(chunks[role]);
            spoil(bitmaps[role]);
        }
        check_all();
    }
};

}  // namespace vitastor::erasure::test

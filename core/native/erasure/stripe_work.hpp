// SPDX-License-Identifier: GPL-2.0-or-later
// Carries out the computing part of a plan, in slices, on the caller's buffers. Nothing is copied: chunks are read into, computed in
// and stored from the places of the plan.
#pragma once

#include <sys/uio.h>

#include <vector>

#include "erasure/codec.hpp"
#include "erasure/stripe_plan.hpp"

namespace vitastor::erasure {

enum class View : uint8_t { before, after };  ///< the write; a read has only `before`

/// Appends where bytes [offset, offset+len) of a chunk lie. before: for sub-reads and rebuilding (reply, scratch); after: for encoding
/// and stores (payload where there is one, else scratch). What lies nowhere is zero by plan_write's `absent`: iov_base nullptr.
/// client: reply buffer or payload, plan.len bytes; scratch: plan.scratch_bytes, 4096-aligned.
void append_pieces(const Plan& plan, uint32_t role, uint32_t offset, uint32_t len, View view, const uint8_t* client,
                   uint8_t* scratch, std::vector<iovec>& out);

/// One run through the steps of a plan. Plan, codec and buffers are borrowed until it is done. Loop thread.
class StripeWork {
public:
    /// All reads of the plan are done; sub-reads of chunks that do not exist have left zeroes.
    void start(Codec& codec, const Plan& plan, const uint8_t* client, uint8_t* scratch);
    /// Computes about `budget_bytes` of inputs and outputs, at least one granule. true: finished.
    bool step(size_t budget_bytes);
    /// After start(), before or after the steps. bitmaps: data + parity bitmaps of shape.bitmap_bytes(), by role; those of plan.reads
    /// filled in (zeroes where a chunk does not exist). Reads: afterwards the data bitmaps are what the reply carries (zero for
    /// chunks that the range does not touch). Writes: afterwards all of them are the new ones, parity computed anew.
    /// Source: semantics 14.4, 9.6; wire-protocol 8.2.
    void finish_bitmaps(uint8_t* bitmaps);

private:
    void run(const Step& step, uint32_t offset, uint32_t len);

    Codec* codec_ = nullptr;
    const Plan* plan_ = nullptr;
    const uint8_t* client_ = nullptr;
    uint8_t* scratch_ = nullptr;
    size_t next_step_ = 0;
    uint32_t done_ = 0;  ///< bytes of the next step
    struct Gathered {
        std::vector<iovec> iov;
        std::vector<size_t> starts;
        std::vector<Pieces> pieces;
    };
    void gather(Gathered& to, const RoleSet& roles, uint32_t offset, uint32_t len, View view);
    void combine_bitmaps(const RoleSet& sources, const RoleSet& wanted, uint8_t* bitmaps);
    Gathered in_, out_;
    std::vector<iovec> payload_;
};

}  // namespace vitastor::erasure

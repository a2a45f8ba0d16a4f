// SPDX-License-Identifier: GPL-2.0-or-later
#include "erasure/stripe_work.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace vitastor::erasure {

namespace {

/// Which of two places counts; 0: does not belong to this view.
int rank(Holds holds, View view) {
    switch (holds) {
        case Holds::reply: return view == View::before ? 1 : 0;
        case Holds::payload: return view == View::after ? 2 : 0;
        case Holds::scratch: return 1;
    }
    return 0;
}

}  // namespace

void append_pieces(const Plan& plan, uint32_t role, uint32_t offset, uint32_t len, View view, const uint8_t* client,
                   uint8_t* scratch, std::vector<iovec>& out) {
    auto begin = std::lower_bound(plan.places.begin(), plan.places.end(), role,
                                  [](const Place& place, uint32_t wanted) { return place.role < wanted; });
    const uint32_t end = offset + len;
    while (offset < end) {
        // The best place that covers this byte, up to its end or to where a better one begins.
        const Place* best = nullptr;
        uint32_t until = end;
        for (auto it = begin; it != plan.places.end() && it->role == role; ++it) {
            const int value = rank(it->holds, view);
            if (value == 0 || it->offset + it->len <= offset) continue;
            if (it->offset > offset) {
                if (!best || value > rank(best->holds, view)) until = std::min(until, it->offset);
            } else if (!best || value > rank(best->holds, view)) {
                best = &*it;
            }
        }
        if (best) {
            until = std::min(until, best->offset + best->len);
            uint8_t* base = best->holds == Holds::scratch ? scratch : const_cast<uint8_t*>(client);
            out.push_back({base + best->at + (offset - best->offset), until - offset});
        } else {
            out.push_back({nullptr, until - offset});
        }
        offset = until;
    }
}

void StripeWork::start(Codec& codec, const Plan& plan, const uint8_t* client, uint8_t* scratch) {
    VITASTOR_ASSERT(codec.data() == plan.shape.data);
    VITASTOR_ASSERT(codec.parity() == plan.shape.parity);
    codec_ = &codec;
    plan_ = &plan;
    client_ = client;
    scratch_ = scratch;
    next_step_ = 0;
    done_ = 0;
}

bool StripeWork::step(size_t budget_bytes) {
    while (next_step_ < plan_->steps.size()) {
        const Step& step = plan_->steps[next_step_];
        const uint32_t granularity = plan_->shape.granularity;
        const size_t width = step.inputs.count() + step.outputs.count();
        const size_t slice = std::max<size_t>(budget_bytes / width / granularity, 1) * granularity;
        const uint32_t bytes = static_cast<uint32_t>(std::min<size_t>(slice, step.len - done_));
        run(step, step.offset + done_, bytes);
        done_ += bytes;
        if (done_ == step.len) {
            done_ = 0;
            next_step_++;
        }
        const size_t spent = bytes * width;
        if (spent >= budget_bytes) break;
        budget_bytes -= spent;
    }
    return next_step_ == plan_->steps.size();
}

void StripeWork::gather(Gathered& to, const RoleSet& roles, uint32_t offset, uint32_t len, View view) {
    to.iov.clear();
    to.starts.clear();
    to.pieces.clear();
    roles.for_each([&](uint32_t role) {
        to.starts.push_back(to.iov.size());
        append_pieces(*plan_, role, offset, len, view, client_, scratch_, to.iov);
    });
    to.starts.push_back(to.iov.size());
    for (size_t i = 0; i + 1 < to.starts.size(); i++) {
        to.pieces.push_back(Pieces(to.iov.data() + to.starts[i], to.starts[i + 1] - to.starts[i]));
    }
}

void StripeWork::run(const Step& step, uint32_t offset, uint32_t len) {
    switch (step.kind) {
        case StepKind::rebuild:
            gather(in_, step.inputs, offset, len, View::before);
            gather(out_, step.outputs, offset, len, View::before);
            codec_->combine(step.inputs, in_.pieces, step.outputs, out_.pieces, len);
            return;
        case StepKind::encode:
            gather(in_, step.inputs, offset, len, View::after);
            gather(out_, step.outputs, offset, len, View::after);
            codec_->combine(step.inputs, in_.pieces, step.outputs, out_.pieces, len);
            return;
        case StepKind::differ:
            if (!plan_->differences.empty()) {  // not their old content, which nobody has read
                gather(out_, step.outputs & plan_->differences, offset, len, View::before);
                for (const iovec& piece : out_.iov) memset(piece.iov_base, 0, piece.iov_len);
            }
            gather(out_, step.outputs, offset, len, View::before);
            step.inputs.for_each([&](uint32_t role) {
                gather(in_, RoleSet::of(role), offset, len, View::before);
                payload_.clear();
                append_pieces(*plan_, role, offset, len, View::after, client_, scratch_, payload_);
                Codec::xor_into(in_.pieces[0], payload_, len);
                codec_->update(role, in_.pieces[0], step.outputs, out_.pieces, len);
            });
            return;
    }
}

void StripeWork::combine_bitmaps(const RoleSet& sources, const RoleSet& wanted, uint8_t* bitmaps) {
    const size_t bytes = plan_->shape.bitmap_bytes();
    for (auto [to, roles] : {std::pair{&in_, &sources}, {&out_, &wanted}}) {
        to->iov.clear();
        to->pieces.clear();
        roles->for_each([&](uint32_t role) { to->iov.push_back({bitmaps + role * bytes, bytes}); });
        for (const iovec& iov : to->iov) to->pieces.push_back(Pieces(&iov, 1));
    }
    codec_->combine(sources, in_.pieces, wanted, out_.pieces, bytes);
}

void StripeWork::finish_bitmaps(uint8_t* bitmaps) {
    const Plan& plan = *plan_;
    const StripeShape& shape = plan.shape;
    const size_t bytes = shape.bitmap_bytes();
    if (!plan.bitmaps_lost.empty()) combine_bitmaps(plan.bitmap_sources, plan.bitmaps_lost, bitmaps);
    RoleSet known = plan.bitmaps_lost | plan.bitmaps_known;
    for (const ChunkRange& read : plan.reads) known.add(read.role);
    for (uint32_t role = 0; role < shape.data; role++) {
        const ChunkRange touched = touched_range(shape, plan.offset, plan.len, role);
        uint8_t* bitmap = bitmaps + role * bytes;
        if (!known.has(role) || (!plan.is_write && plan.len > 0 && touched.len == 0)) memset(bitmap, 0, bytes);
        if (!plan.is_write) continue;
        const uint32_t first = touched.offset / shape.granularity, count = touched.len / shape.granularity;
        for (uint32_t i = first; i < first + count; i++) bitmap[i / 8] = static_cast<uint8_t>(bitmap[i / 8] | 1u << i % 8);
    }
    if (plan.is_write) combine_bitmaps(shape.data_roles(), shape.parity_roles(), bitmaps);
}

}  // namespace vitastor::erasure

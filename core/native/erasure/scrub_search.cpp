// SPDX-License-Identifier: GPL-2.0-or-later
#include "erasure/scrub_search.hpp"

#include <algorithm>
#include <cstring>

namespace vitastor::erasure {

namespace {
constexpr size_t kBlock = 4096;

/// Ways to choose `count` of `total`, or `limit` + 1 if there are more than `limit`.
uint64_t ways_to_choose(uint32_t total, uint32_t count, uint64_t limit) {
    count = std::min(count, total - count);
    uint64_t ways = 1;
    for (uint32_t i = 1; i <= count; i++) {
        // Exact in each step, and far from overflow: ways ≤ limit + 1 before it.
        ways = ways * (total - count + i) / i;
        if (ways > limit) return limit + 1;
    }
    return ways;
}
}  // namespace

void ScrubSearch::start(Codec& codec, const RoleSet& available, std::span<const uint8_t* const> chunks, size_t length,
                        uint64_t subsets_max) {
    VITASTOR_ASSERT(chunks.size() == available.count());
    codec_ = &codec;
    available_ = available;
    roles_.clear();
    available.for_each([this](uint32_t role) { roles_.push_back(role); });
    chunks_.assign(chunks.begin(), chunks.end());
    length_ = length;
    best_ = corrupted_ = {};
    ambiguous_ = false;
    verdict_ = ScrubVerdict::unknown;
    done_ = roles_.size() <= codec.data();
    if (done_) return;
    constexpr uint64_t kSubsetsMax = 1u << 20;
    const uint64_t limit = std::clamp<uint64_t>(subsets_max, 1, kSubsetsMax);
    all_subsets_ = ways_to_choose(static_cast<uint32_t>(roles_.size()), codec.data(), limit) <= limit;
    choice_.resize(codec.data());
    for (uint32_t i = 0; i < choice_.size(); i++) choice_[i] = i;
    computed_.resize(kBlock * (roles_.size() - codec.data()));
    at_ = 0;
    subset_ = {};
    for (uint32_t index : choice_) subset_.add(roles_[index]);
    agreeing_ = available_ - subset_;
}

void ScrubSearch::compare_block(size_t bytes) {
    const RoleSet others = available_ - subset_;
    in_iov_.clear();
    out_iov_.clear();
    for (size_t i = 0; i < roles_.size(); i++) {
        if (subset_.has(roles_[i])) in_iov_.push_back({const_cast<uint8_t*>(chunks_[i] + at_), bytes});
        else out_iov_.push_back({computed_.data() + kBlock * out_iov_.size(), bytes});
    }
    in_.clear();
    out_.clear();
    for (const iovec& iov : in_iov_) in_.push_back(Pieces(&iov, 1));
    for (const iovec& iov : out_iov_) out_.push_back(Pieces(&iov, 1));
    codec_->combine(subset_, in_, others, out_, bytes);
    const uint8_t* expected = computed_.data();
    for (size_t i = 0; i < roles_.size(); i++) {
        if (subset_.has(roles_[i])) continue;
        if (std::memcmp(expected, chunks_[i] + at_, bytes) != 0) agreeing_.remove(roles_[i]);
        expected += kBlock;
    }
}

/// The next choice in lexical order.
bool ScrubSearch::next_subset() {
    if (!all_subsets_) return false;
    size_t i = choice_.size();
    while (i > 0 && choice_[i - 1] == roles_.size() - choice_.size() + (i - 1)) i--;
    if (i == 0) return false;
    choice_[i - 1]++;
    for (; i < choice_.size(); i++) choice_[i] = choice_[i - 1] + 1;
    return true;
}

void ScrubSearch::judge_subset() {
    if (agreeing_.empty()) return;  // k chunks explain themselves: that says nothing
    const RoleSet explained = subset_ | agreeing_;
    if (explained.count() > best_.count()) {
        best_ = explained;
        ambiguous_ = false;
    } else if (explained.count() == best_.count() && !(explained == best_)) {
        ambiguous_ = true;
    }
}

void ScrubSearch::finish() {
    done_ = true;
    if (best_ == available_) {
        verdict_ = ScrubVerdict::consistent;
    } else if (best_.empty() || ambiguous_) {
        verdict_ = ScrubVerdict::inconsistent;
    } else {
        verdict_ = ScrubVerdict::corrupted;
        corrupted_ = available_ - best_;
    }
}

bool ScrubSearch::step(size_t budget_bytes) {
    while (!done_ && budget_bytes > 0) {
        const size_t bytes = std::min(kBlock, length_ - at_);
        compare_block(bytes);
        at_ += bytes;
        budget_bytes -= std::min(budget_bytes, bytes * roles_.size());
        if (at_ < length_ && !agreeing_.empty()) continue;
        judge_subset();
        // Nothing can be better than all, and most objects are right.
        if (best_ == available_ || !next_subset()) {
            finish();
            break;
        }
        at_ = 0;
        subset_ = {};
        for (uint32_t index : choice_) subset_.add(roles_[index]);
        agreeing_ = available_ - subset_;
    }
    return done_;
}

}  // namespace vitastor::erasure

// SPDX-License-Identifier: GPL-2.0-or-later
// Which chunks of an object are wrong, when what was read does not fit together: the largest set of chunks that some k of them
// explain is right, the others are corrupted. Source: semantics 12.4.
#pragma once

#include <span>
#include <vector>

#include "erasure/codec.hpp"

namespace vitastor::erasure {

enum class ScrubVerdict : uint8_t {
    unknown,       ///< no more than k chunks: nothing can be checked
    consistent,    ///< all chunks fit together
    corrupted,     ///< those of corrupted() are wrong
    inconsistent,  ///< none, or two different and equally good explanations: a person must decide
};

/// One search, in slices. Codec and chunks are borrowed until it is done. Loop thread.
class ScrubSearch {
public:
    /// available: roles that were read; chunks: one a role of them, ascending, `length` bytes each. subsets_max
    /// (scrub_ec_max_bruteforce): if there are more ways to choose k chunks, only the first is tried. Then a wrong chunk among the
    /// first k leaves the object inconsistent.
    void start(Codec& codec, const RoleSet& available, std::span<const uint8_t* const> chunks, size_t length,
               uint64_t subsets_max);
    /// Works on about `budget_bytes` of chunks. true: finished.
    bool step(size_t budget_bytes);

    // ---- results, once finished
    ScrubVerdict verdict() const { return verdict_; }
    const RoleSet& corrupted() const { return corrupted_; }

private:
    /// Compares one block of the chunks outside of the subset with what the subset says.
    void compare_block(size_t bytes);
    bool next_subset();
    void judge_subset();
    void finish();

    Codec* codec_ = nullptr;
    RoleSet available_;
    std::vector<uint32_t> roles_;  ///< of available_, ascending
    std::vector<const uint8_t*> chunks_;
    size_t length_ = 0;
    bool all_subsets_ = false;
    bool done_ = true;
    std::vector<uint32_t> choice_;  ///< indices into roles_, ascending: the subset that is tried
    RoleSet subset_, agreeing_;     ///< agreeing_: not of the subset, equal so far
    size_t at_ = 0;
    RoleSet best_;
    bool ambiguous_ = false;
    ScrubVerdict verdict_ = ScrubVerdict::unknown;
    RoleSet corrupted_;
    std::vector<uint8_t> computed_;
    std::vector<iovec> in_iov_, out_iov_;
    std::vector<Pieces> in_, out_;
};

}  // namespace vitastor::erasure

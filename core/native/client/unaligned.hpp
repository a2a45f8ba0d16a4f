// SPDX-License-Identifier: GPL-2.0-or-later
// Reads and writes that do not begin or end at a granule (disks with sectors of 512 bytes, files). A part of a granule is read, changed and
// written back by compare-and-set, so that whatever else is written to the object meanwhile, by whomever, is not undone.
// Source: semantics 4.5, 11.2.
#pragma once

#include <map>
#include <utility>

#include "client/op.hpp"
#include "runtime/task.hpp"

namespace vitastor::client {

class Context;

/// Of one context, on its thread.
class Unaligned {
public:
    explicit Unaligned(Context& context) : context_(context) {}
    /// Of a read, write or discard.
    static bool concerns(const Op& op);
    /// Takes it to its end.
    void start(Op& op);
    /// A write to the object has lost too many races: other writes wait until it is done. True: `part` has been put aside.
    bool holds_back(Part& part, InodeNum inode, uint64_t stripe) { return exclusive_ && !part.op->aligned && hold_back(part, inode, stripe); }

private:
    using Key = std::pair<InodeNum, uint64_t>;  ///< inode, stripe
    struct Object {
        runtime::WaitList turn;
        uint32_t users = 0;
        bool busy = false;
        bool exclusive = false;
        List<net::Call> held_back;
    };
    struct Join;

    runtime::Task<> run(Op& op);
    runtime::Task<> read(Op& op);
    runtime::Task<> write(Op& op);
    runtime::Task<> change(Op& op, uint64_t begin, uint64_t end, Join& join);
    runtime::Task<int64_t> change_granule(Op& op, uint64_t begin, uint64_t end);
    runtime::Task<int64_t> try_change(Op& op, InodeNum inode, uint64_t granularity, uint64_t begin, uint64_t end);
    runtime::Task<int64_t> wait_after(Op& op, InodeNum inode, int64_t error, uint32_t* limbo_rounds);
    bool hold_back(Part& part, InodeNum inode, uint64_t stripe);

    Context& context_;
    std::map<Key, Object> objects_;  ///< those with writes of this kind in progress
    uint32_t exclusive_ = 0;
};

}  // namespace vitastor::client

// SPDX-License-Identifier: GPL-2.0-or-later
// Listings of one PG, and the lists of objects by PG, in slices of well under a millisecond.
#include <algorithm>

#include "store/blockstore.hpp"

namespace vitastor::store {

using runtime::Task;

namespace {

constexpr uint32_t kSlice = 1000;

struct Walk {
    Index& index;
    Index::Walker walker;
    explicit Walk(Index& owner) : index(owner) { index.add_walker(walker); }
    Walk(const Walk&) = delete;
    ~Walk() { index.remove_walker(walker); }
};

}  // namespace

void Blockstore::list(ListOperation& operation) {
    begin_activity();
    runtime::spawn(run_list(operation));
}

Task<void> Blockstore::run_list(ListOperation& operation) {
    operation.result = 0;
    operation.listing = {};
    const uint64_t own_generation = first_generation_ + generations_.size();
    generations_.push_back(0);
    generations_.back()++;
    end_generation(own_generation);  // lets empty generations before it pass
    NextTurn turn(loop_);
    co_await turn;
    // Everything submitted before has taken effect.
    while (first_generation_ < own_generation) {
        runtime::WaitList::Waiter waiter = generation_waiters_.wait();
        co_await waiter;
    }
    if (state_ != State::open) {
        operation.result = -EIO;
    } else {
        auto wish = pool_wishes_.find(operation.range.pool);
        while (wish != pool_wishes_.end() && wish->second.rebuilding) {
            runtime::WaitList::Waiter waiter = rebuild_waiters_.wait();
            co_await waiter;
        }
        Task<int> walking = walk(operation);
        operation.result = co_await walking;
    }
    if (operation.result < 0) operation.listing = {};
    operation.on_done(&operation);
    end_activity();
}

Task<int> Blockstore::walk(ListOperation& operation) {
    const ListRange& range = operation.range;
    Index::Pool& pool = index_->pool(range.pool);
    if (!pool.configured) co_return -EAGAIN;
    if (range.pg == 0 || range.pg > pool.pg_count) co_return -EINVAL;
    const ObjectId least{range.min_inode, range.min_stripe}, most{range.max_inode, range.max_stripe};
    const uint64_t generation = pool.generation;
    std::vector<ObjectVersion>& stable = operation.listing.stable;
    const uint64_t expected = index_->object_count() / pool.pg_count;
    stable.reserve(range.stable_limit ? std::min<uint64_t>(range.stable_limit + 1, expected + 64) : expected + expected / 4 + 64);
    Walk walk(*index_);
    walk.walker.position = pool.heads[range.pg - 1];
    uint32_t done = 0;
    while (walk.walker.position != kNoSlot) {
        if (++done % kSlice == 0) {
            NextTurn turn(loop_);
            co_await turn;
            if (pool.generation != generation) co_return -EAGAIN;
            if (walk.walker.position == kNoSlot) break;
        }
        const uint32_t head = walk.walker.position;
        const ObjectId object = index_->object(head);
        walk.walker.position = index_->at(head).pg_next;
        if (object < least || most < object) continue;
        for (uint32_t slot = head; slot != kNoSlot; slot = index_->at(slot).older) {
            const Slot& version = index_->at(slot);
            if (!version.is_stable) {
                operation.listing.unstable.push_back({object, version.version});
                continue;
            }
            stable.push_back({object, version.version});
            if (range.stable_limit) {  // the smallest ones, as a heap with the largest on top
                std::push_heap(stable.begin(), stable.end());
                if (stable.size() > range.stable_limit) {
                    std::pop_heap(stable.begin(), stable.end());
                    stable.pop_back();
                }
            }
            break;
        }
    }
    if (range.stable_limit) {
        for (size_t end = stable.size(); end > 1; end--) {
            std::pop_heap(stable.begin(), stable.begin() + static_cast<ptrdiff_t>(end));
            if (end % kSlice == 0) {
                NextTurn turn(loop_);
                co_await turn;
            }
        }
    }
    co_return 0;
}

// ---------------------------------------------------------------- PGs

void Blockstore::set_pool_pgs(PoolId pool, uint32_t pg_count, uint64_t pg_stripe_size) {
    if (pg_count == 0 || pg_stripe_size == 0) return;
    PoolWish& wish = pool_wishes_[pool];
    wish.pg_count = pg_count;
    wish.stripe_size = pg_stripe_size;
    if (state_ != State::open || wish.rebuilding) return;  // the end of opening, or of the rebuild, looks again
    Index::Pool& current = index_->pool(pool);
    if (current.configured && current.pg_count == pg_count && current.stripe_size == pg_stripe_size) return;
    wish.rebuilding = true;
    begin_activity();
    runtime::spawn(run_rebuild(pool));
}

Task<void> Blockstore::run_rebuild(PoolId id) {
    PoolWish& wish = pool_wishes_[id];
    Index::Pool* pool = &index_->pool(id);
    while (!pool->configured || pool->pg_count != wish.pg_count || pool->stripe_size != wish.stripe_size) {
        index_->set_pool_pgs(id, wish.pg_count, wish.stripe_size);
        while (pool->rebuilding() && !index_->rebuild_step(*pool, kSlice)) {
            NextTurn turn(loop_);
            co_await turn;
        }
    }
    wish.rebuilding = false;
    rebuild_waiters_.notify_all();
    end_activity();
}

}  // namespace vitastor::store

// SPDX-License-Identifier: GPL-2.0-or-later
// Listings of one PG, its tombstones, and the lists of objects by PG, in slices of well under a millisecond.
#include <algorithm>

#include "store/blockstore.hpp"

namespace vitastor::store {

using runtime::Task;

namespace {

constexpr uint32_t kSlice = 1000;

/// co_await slice: the listing goes on when whoever asked for it lets it.
struct NextSlice : runtime::Deferred {
    NextSlice(runtime::Loop& loop, ListOperation& operation) : loop_(loop), operation_(operation) {
        on_run = [](runtime::Deferred* self) { static_cast<NextSlice*>(self)->handle_.resume(); };
    }
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) noexcept {
        handle_ = handle;
        if (operation_.give_way) operation_.give_way(&operation_, *this);
        else loop_.defer(*this);
    }
    void await_resume() noexcept {}

private:
    runtime::Loop& loop_;
    ListOperation& operation_;
    std::coroutine_handle<> handle_;
};

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
            NextSlice slice(loop_, operation);
            co_await slice;
            if (pool.generation != generation) co_return -EAGAIN;
            if (walk.walker.position == kNoSlot) break;
        }
        const uint32_t head = walk.walker.position;
        const ObjectId object = index_->object(head);
        walk.walker.position = index_->at(head).pg_next;
        if (object < least || most < object) continue;
        if (index_->at(head).state == SlotState::tombstone) {
            operation.listing.tombstones.push_back({object, index_->at(head).version});
            continue;
        }
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
                NextSlice slice(loop_, operation);
                co_await slice;
            }
        }
    }
    co_return 0;
}

// ---------------------------------------------------------------- tombstones

void Blockstore::forget_tombstones(PoolId pool, PgNum pg, Version version, runtime::Completion& done) {
    begin_activity();
    runtime::spawn(run_forget(pool, pg, version, done));
}

/// A slice takes the place of one modification, and of the log no more than the smallest one.
Task<void> Blockstore::run_forget(PoolId id, PgNum pg, Version version, runtime::Completion& done) {
    NextTurn turn(loop_);
    co_await turn;
    int64_t result = state_ != State::open ? -EIO : options_.readonly ? -EROFS : 0;
    bool finished = result < 0;
    while (!finished) {
        auto wish = pool_wishes_.find(id);
        while (wish != pool_wishes_.end() && wish->second.rebuilding) {
            runtime::WaitList::Waiter waiter = rebuild_waiters_.wait();
            co_await waiter;
        }
        const Index::Pool& pool = index_->pool(id);
        if (!pool.configured || pg == 0 || pg > pool.pg_count) result = -EINVAL;
        if (result < 0 || index_->tombstone_count() == 0) break;
        const uint64_t generation = pool.generation;
        Walk walk(*index_);
        walk.walker.position = pool.heads[pg - 1];
        while (!finished && pool.generation == generation) {
            Task<int> admission = admit();
            const int admitted = co_await admission;
            if (admitted < 0 || state_ != State::open) result = -EIO;
            finished = result < 0 || (pool.generation == generation && forget_some(walk.walker, version, result));
            release_token();
            NextTurn next(loop_);
            co_await next;
        }
    }
    done.on_done(&done, result);
    end_activity();
}

/// True at the end of the list. Objects with a modification at work are passed over: it decides over their tombstone.
bool Blockstore::forget_some(Index::Walker& walker, Version version, int64_t& forgotten) {
    constexpr uint64_t kBytes = kPagePayload;
    const uint64_t before = log_->appended();
    for (uint32_t steps = 0; steps < kSlice && log_->appended() - before + sizeof(EntryHeader) <= kBytes; steps++) {
        const uint32_t slot = walker.position;
        if (slot == kNoSlot) return true;
        const Slot& record = index_->at(slot);
        walker.position = record.pg_next;
        if (record.state != SlotState::tombstone || record.version > version) continue;
        const ObjectId object = index_->object(slot);
        const ActiveObject* active = find_active(object);
        if (active && active->writing) continue;
        EntryView entry;
        entry.header = {sizeof(EntryHeader), EntryType::del, 0, 0, object.inode, object.stripe, record.version, 0, 0};
        const auto* bytes = reinterpret_cast<const uint8_t*>(&entry.header);
        log_->append({bytes, sizeof(EntryHeader)});
        apply_to_index(entry, kNoSlot);
        forgotten++;
    }
    return walker.position == kNoSlot;
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

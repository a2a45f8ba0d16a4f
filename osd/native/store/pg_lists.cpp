// SPDX-License-Identifier: GPL-2.0-or-later
// Lists of objects by PG, and their walkers.
#include "store/index.hpp"

#include "base/assert.hpp"

namespace vitastor::store {

Index::Pool& Index::pool(PoolId id) {
    if (last_pool_ && last_pool_->id == id) return *last_pool_;
    Pool& pool = pools_[id];
    pool.id = id;
    last_pool_ = &pool;
    return pool;
}

void Index::pg_link(uint32_t slot) {
    Slot& record = at(slot);
    Pool& pool = this->pool(pool_of(inodes_.inode(record.inode)));
    uint32_t& head = pool.heads[pool.pg_index(record.stripe)];
    record.pg_previous = kNoSlot;
    record.pg_next = head;
    if (head != kNoSlot) at(head).pg_previous = slot;
    head = slot;
}

void Index::end_loading(uint32_t from, uint32_t to) {
    is_loading_ = false;
    buckets_.end_loading();
    for (uint32_t slot = from; slot < to; slot++)
        if (is_linked(slot)) pg_link(slot);
}

void Index::pg_unlink(uint32_t slot) {
    Slot& record = at(slot);
    for (Walker* walker = walkers_; walker; walker = walker->next)
        if (walker->position == slot) walker->position = record.pg_next;
    if (record.pg_next != kNoSlot) at(record.pg_next).pg_previous = record.pg_previous;
    if (record.pg_previous != kNoSlot) {
        at(record.pg_previous).pg_next = record.pg_next;
        return;
    }
    Pool& pool = this->pool(pool_of(inodes_.inode(record.inode)));
    uint32_t* head = &pool.heads[pool.pg_index(record.stripe)];
    if (*head != slot) {
        VITASTOR_ASSERT(pool.rebuilding());
        head = &pool.old_heads[static_cast<uint32_t>(record.stripe / pool.old_stripe_size % pool.old_pg_count)];
    }
    VITASTOR_ASSERT(*head == slot);
    *head = record.pg_next;
}

void Index::set_pool_pgs(PoolId id, uint32_t pg_count, uint64_t stripe_size) {
    Pool& pool = this->pool(id);
    VITASTOR_ASSERT(!pool.rebuilding());
    VITASTOR_ASSERT(pg_count > 0 && stripe_size > 0);
    pool.configured = true;
    if (pool.pg_count == pg_count && pool.stripe_size == stripe_size) return;
    pool.generation++;
    pool.old_pg_count = pool.pg_count;
    pool.old_stripe_size = pool.stripe_size;
    pool.old_heads.swap(pool.heads);
    pool.old_position = 0;
    pool.pg_count = pg_count;
    pool.stripe_size = stripe_size;
    pool.heads.assign(pg_count, kNoSlot);
}

bool Index::rebuild_step(Pool& pool, uint32_t limit) {
    while (pool.old_position < pool.old_heads.size()) {
        const uint32_t slot = pool.old_heads[pool.old_position];
        if (slot == kNoSlot) {
            pool.old_position++;
            if (limit-- <= 1) return false;
            continue;
        }
        if (limit-- <= 1) return false;
        const uint32_t next = at(slot).pg_next;
        pool.old_heads[pool.old_position] = next;
        if (next != kNoSlot) at(next).pg_previous = kNoSlot;
        pg_link(slot);
    }
    std::vector<uint32_t>().swap(pool.old_heads);
    return true;
}

void Index::add_walker(Walker& walker) {
    walker.next = walkers_;
    walkers_ = &walker;
}

void Index::remove_walker(Walker& walker) {
    for (Walker** place = &walkers_; *place; place = &(*place)->next) {
        if (*place != &walker) continue;
        *place = walker.next;
        return;
    }
}

}  // namespace vitastor::store

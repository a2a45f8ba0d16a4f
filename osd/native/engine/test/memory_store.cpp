// SPDX-License-Identifier: GPL-2.0-or-later
#include "memory_store.hpp"

#include <algorithm>
#include <cstring>

namespace vitastor::test {

using store::StoreOp;

MemoryStore::MemoryStore(runtime::Loop& loop, const store::StoreOptions& options, MemoryDisk& disk)
    : loop_(loop), options_(options), disk_(disk) {
    turn_.store = this;
    turn_.on_run = [](runtime::Deferred* self) { static_cast<Turn*>(self)->store->run(); };
    poll_.store = this;
    poll_.on_fire = [](runtime::Timer* self) { static_cast<Poll*>(self)->store->run(); };
}

MemoryStore::~MemoryStore() { loop_.disarm(poll_); }

void MemoryStore::kick() {
    if (!turn_.linked()) loop_.defer(turn_);
}

void MemoryStore::open(runtime::Completion& done) {
    done_ = &done;
    kick();
}

void MemoryStore::close(runtime::Completion& done) {
    done_ = &done;
    kick();
}

void MemoryStore::submit(store::Operation& operation) {
    queue_.push_back(&operation);
    kick();
}

void MemoryStore::list(store::ListOperation& operation) {
    lists_.push_back(&operation);
    kick();
}

void MemoryStore::set_pool_pgs(PoolId pool, uint32_t pg_count, uint64_t stripe) { pgs_[pool] = {pg_count, stripe}; }

bool MemoryStore::is_in_pg(const ObjectId& object, PoolId pool, PgNum pg) const {
    auto it = pgs_.find(pool);
    if (it == pgs_.end() || pool_of(object.inode) != pool) return false;
    return (object.stripe & ~kRoleMask) / it->second.second % it->second.first + 1 == pg;
}

void MemoryStore::forget_tombstones(PoolId pool, PgNum pg, Version version, runtime::Completion& done) {
    forgets_.push_back({pool, pg, version, &done});
    kick();
}

Version MemoryStore::tombstone(const ObjectId& object) const {
    auto it = disk_.tombstones.find(object);
    return it == disk_.tombstones.end() ? 0 : it->second;
}

Version MemoryStore::peek(const ObjectId& object, Version version, uint8_t* bitmap) {
    auto it = disk_.objects.find(object);
    if (it == disk_.objects.end()) return 0;
    auto copy = it->second.upper_bound(version);
    if (copy == it->second.begin()) return 0;
    --copy;
    if (bitmap) std::memcpy(bitmap, copy->second.bitmap.data(), bitmap_bytes());
    return copy->first;
}

store::Store::Newest MemoryStore::newest(const ObjectId& object) const {
    auto it = disk_.objects.find(object);
    if (it == disk_.objects.end() || it->second.empty()) return {};
    return {it->second.rbegin()->first, it->second.rbegin()->second.stable};
}

void MemoryStore::run() {
    if (disk_.hold && !done_) {
        if (!poll_.armed()) loop_.arm(poll_, loop_.now_ns() + runtime::kNsPerMs);
        return;
    }
    std::deque<store::Operation*> ready;
    ready.swap(queue_);
    for (store::Operation* op : ready) {
        if (op->op == store::StoreOp::sync && disk_.hold_syncs && !done_) {
            queue_.push_back(op);
            if (!poll_.armed()) loop_.arm(poll_, loop_.now_ns() + runtime::kNsPerMs);
            continue;
        }
        execute(*op);
        op->on_done(op);
    }
    std::deque<store::ListOperation*> lists;
    lists.swap(lists_);
    for (store::ListOperation* op : lists) {
        auto pool = pgs_.find(op->range.pool);
        op->result = pool == pgs_.end() ? -EAGAIN : 0;
        ObjectId from{op->range.min_inode, op->range.min_stripe}, to{op->range.max_inode, op->range.max_stripe};
        for (auto it = disk_.objects.lower_bound(from); it != disk_.objects.end() && it->first <= to && op->result == 0; ++it) {
            if (!is_in_pg(it->first, op->range.pool, op->range.pg)) continue;
            Version stable = 0;
            for (auto& [version, copy] : it->second) {
                if (copy.stable) stable = version;
            }
            if (stable) op->listing.stable.push_back({it->first, stable});
            for (auto& [version, copy] : it->second) {
                if (version > stable) op->listing.unstable.push_back({it->first, version});
            }
        }
        for (auto& [object, version] : disk_.tombstones) {
            if (op->result == 0 && from <= object && object <= to && is_in_pg(object, op->range.pool, op->range.pg))
                op->listing.tombstones.push_back({object, version});
        }
        op->on_done(op);
    }
    std::deque<Forget> forgets;
    forgets.swap(forgets_);
    for (const Forget& forget : forgets) {
        auto pool = pgs_.find(forget.pool);
        const bool known = pool != pgs_.end() && forget.pg >= 1 && forget.pg <= pool->second.first;
        const auto count = static_cast<int64_t>(std::erase_if(disk_.tombstones, [&](const auto& item) {
            return item.second <= forget.version && is_in_pg(item.first, forget.pool, forget.pg);
        }));
        forget.done->on_done(forget.done, known ? count : -EINVAL);
    }
    if (done_ && queue_.empty() && lists_.empty() && forgets_.empty()) {
        runtime::Completion* done = std::exchange(done_, nullptr);
        done->on_done(done, 0);
    }
}

int64_t MemoryStore::write(store::Operation& op) {
    auto& versions = disk_.objects[op.object];
    if (!versions.empty() && op.version <= versions.rbegin()->first) {
        op.version = versions.rbegin()->first;
        return -EEXIST;
    }
    if (const Version deleted = tombstone(op.object); op.version <= deleted) {
        disk_.objects.erase(op.object);  // made above, empty
        op.version = deleted;
        return -EEXIST;
    }
    disk_.tombstones.erase(op.object);
    MemoryDisk::Copy copy;
    if (versions.empty()) {
        copy.data.resize(options_.block_size);
        copy.bitmap.resize(bitmap_bytes());
    } else {
        copy = versions.rbegin()->second;
    }
    uint32_t at = op.offset;
    for (int i = 0; i < op.iov_count; i++) {
        std::memcpy(&copy.data[at], op.iov[i].iov_base, op.iov[i].iov_len);
        at += static_cast<uint32_t>(op.iov[i].iov_len);
    }
    if (op.bitmap) copy.bitmap.assign(op.bitmap, op.bitmap + bitmap_bytes());
    if (!versions.empty() && op.op == StoreOp::write && versions.rbegin()->first == op.settles) {
        for (auto& [version, older] : versions) older.stable = true;
    }
    copy.stable = op.op == StoreOp::write_stable;
    if (copy.stable) versions.clear();
    versions[op.version] = std::move(copy);
    return op.len;
}

void MemoryStore::execute(store::Operation& op) {
    op.result = disk_.fault ? disk_.fault(op) : 0;
    if (op.result < 0) return;
    auto found = disk_.objects.find(op.object);
    switch (op.op) {
        case StoreOp::read: {
            if (found == disk_.objects.end() || found->second.upper_bound(op.version) == found->second.begin()) {
                op.version = 0;
                op.result = -ENOENT;
                return;
            }
            auto copy = std::prev(found->second.upper_bound(op.version));
            op.version = copy->first;
            uint32_t at = op.offset;
            for (int i = 0; i < op.iov_count; i++) {
                std::memcpy(op.iov[i].iov_base, &copy->second.data[at], op.iov[i].iov_len);
                at += static_cast<uint32_t>(op.iov[i].iov_len);
            }
            if (op.bitmap) std::memcpy(op.bitmap, copy->second.bitmap.data(), bitmap_bytes());
            op.result = op.len;
            return;
        }
        case StoreOp::read_bitmap:
            op.version = peek(op.object, op.version, op.bitmap);
            return;
        case StoreOp::write:
        case StoreOp::write_stable:
            op.result = write(op);
            return;
        case StoreOp::del:
            if (op.tombstone) {
                op.version = std::max(op.version, tombstone(op.object));
                if (found != disk_.objects.end()) op.version = std::max(op.version, found->second.rbegin()->first);
                if (op.version) disk_.tombstones[op.object] = op.version;
            }
            if (found != disk_.objects.end()) disk_.objects.erase(found);
            return;
        case StoreOp::stabilize:
            if (found == disk_.objects.end() || !found->second.contains(op.version)) {
                op.result = -ENOENT;
                return;
            }
            for (auto& [version, copy] : found->second) copy.stable |= version <= op.version;
            return;
        case StoreOp::rollback:
            if (found == disk_.objects.end()) return;
            found->second.erase(found->second.upper_bound(op.version), found->second.end());
            if (found->second.empty()) disk_.objects.erase(found);
            return;
        case StoreOp::sync:
            disk_.syncs++;
            return;
    }
}

store::StoreStats MemoryStore::stats() const {
    store::StoreStats stats;
    stats.total_blocks = 1000;
    stats.object_count = disk_.objects.size();
    stats.tombstone_count = disk_.tombstones.size();
    stats.free_blocks = 1000 - std::min<uint64_t>(1000, stats.object_count);
    return stats;
}

std::vector<store::InodeSpace> MemoryStore::space_by_inode() const {
    std::map<InodeNum, uint64_t> sums;
    for (auto& [object, versions] : disk_.objects) sums[object.inode] += options_.block_size;
    std::vector<store::InodeSpace> result;
    for (auto& [inode, bytes] : sums) result.push_back({inode, bytes});
    return result;
}

}  // namespace vitastor::test

// SPDX-License-Identifier: GPL-2.0-or-later
#include "pg/access.hpp"

#include <cerrno>

#include "wire/messages.hpp"

namespace vitastor::pg {

int LockTable::lock(const PgId& pg, const PgLock& wanted, OsdNum* holder) {
    auto [it, fresh] = locks_.try_emplace(pg);
    PgLock& lock = it->second;
    if (!fresh && lock.osd != wanted.osd) {
        *holder = lock.osd;
        return -EBUSY;
    }
    // Peering looks at everything anew.
    const bool goes_on = !fresh && lock.connection == wanted.connection && wanted.state != wire::pg_state::peering;
    const bool blind_delete = goes_on && lock.blind_delete;
    lock = wanted;
    lock.blind_delete = blind_delete;
    return 0;
}

void LockTable::note_blind_delete(const PgId& pg, uint32_t role) {
    auto it = locks_.find(pg);
    if (it != locks_.end() && it->second.holds(role)) it->second.blind_delete = true;
}

void LockTable::unlock(const PgId& pg, OsdNum osd) {
    auto it = locks_.find(pg);
    if (it != locks_.end() && it->second.osd == osd) locks_.erase(it);
}

void LockTable::release_connection(ConnectionSerial connection) {
    std::erase_if(locks_, [&](const auto& item) { return item.second.connection == connection; });
}

const PgLock* LockTable::find(const PgId& pg) const {
    if (locks_.empty()) return nullptr;
    auto it = locks_.find(pg);
    return it == locks_.end() ? nullptr : &it->second;
}

bool LockTable::any_in_pool(PoolId pool) const {
    auto it = locks_.lower_bound(PgId{pool, 0});
    return it != locks_.end() && it->first.pool == pool;
}

void ListFence::listed(const PgId& pg, ConnectionSerial connection) { last_[pg] = connection; }

bool ListFence::allows(const PgId& pg, ConnectionSerial connection) const {
    auto it = last_.find(pg);
    if (it != last_.end()) return it->second == connection;
    return closed_pools_.empty() || !closed_pools_.contains(pg.pool);
}

void ListFence::reset_pool(PoolId pool) {
    std::erase_if(last_, [&](const auto& item) { return item.first.pool == pool; });
    closed_pools_[pool] = true;
}

bool lock_allows(const AccessQuestion& question) {
    if (question.mode == LockMode::never || question.ignore_lock) return true;
    if (question.mode == LockMode::localize_only && !question.pool_local_reads) return true;
    if (question.led_here) return false;
    return question.lock && question.asking != 0 && question.lock->osd == question.asking;
}

}  // namespace vitastor::pg

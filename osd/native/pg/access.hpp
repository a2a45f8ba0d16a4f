// SPDX-License-Identifier: GPL-2.0-or-later
// Who may touch the copies that lie here: PG locks of remote primaries, and the list fence. Pure logic.
// Source: wire-protocol 9.1, 9.9; semantics 7.5; safety 2.
#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>

#include "base/ids.hpp"

namespace vitastor::pg {

/// Number of a connection, never used twice; 0 = this OSD itself.
using ConnectionSerial = uint64_t;

enum class LockMode : uint8_t {
    localize_only,  ///< the default: only pools with local reads need locks
    required,       ///< enable_pg_locks true
    never,          ///< enable_pg_locks false
};

struct PgLock {
    OsdNum osd = 0;
    ConnectionSerial connection = 0;
    uint32_t state = 0;  ///< wire::pg_state bits as the holder announced them
    uint64_t roles = 0;  ///< erasure-coded: chunks of the PG that lie here, as the holder announced them
    bool blind_delete = false;  ///< erasure-coded: a chunk of these was deleted without a tombstone since the PG was peered
    bool holds(uint32_t role) const { return role < 64 && (roles >> role & 1) != 0; }
};

/// Locks that other primaries hold on PGs here.
class LockTable {
public:
    /// 0, or -EBUSY with *holder. The same OSD takes its own lock over (new connection, new state).
    int lock(const PgId& pg, const PgLock& wanted, OsdNum* holder);
    /// No effect when it is not held by osd.
    void unlock(const PgId& pg, OsdNum osd);
    /// The connection closed, or its OSD said hello on another one.
    void release_connection(ConnectionSerial connection);
    const PgLock* find(const PgId& pg) const;
    /// That a chunk is missing here may be a delete that is not done everywhere.
    void note_blind_delete(const PgId& pg, uint32_t role);
    bool any_in_pool(PoolId pool) const;
    size_t size() const { return locks_.size(); }

private:
    std::map<PgId, PgLock> locks_;
};

/// After a whole-pool listing of a PG only the connection that asked may change its objects: bytes of a dead primary
/// may still sit in another socket.
class ListFence {
public:
    /// `connection` has listed the PG (0: we have, as its primary).
    void listed(const PgId& pg, ConnectionSerial connection);
    /// May this connection of an OSD change objects of the PG?
    bool allows(const PgId& pg, ConnectionSerial connection) const;
    /// PG numbers of the pool mean something else now: everybody must list again.
    void reset_pool(PoolId pool);

private:
    std::map<PgId, ConnectionSerial> last_;
    std::map<PoolId, bool> closed_pools_;
};

struct AccessQuestion {
    LockMode mode = LockMode::localize_only;
    bool ignore_lock = false;     ///< request flag
    bool pool_local_reads = false;  ///< replicated with local_reads other than primary
    bool led_here = false;        ///< this OSD leads the PG
    const PgLock* lock = nullptr;
    OsdNum asking = 0;            ///< OSD number that the connection announced
};

/// Steps 3 to 7 of wire-protocol 9.1.
bool lock_allows(const AccessQuestion& question);

}  // namespace vitastor::pg

// SPDX-License-Identifier: GPL-2.0-or-later
// Work on all PGs of a pool through their primaries: waiting for them, and listing an inode's objects. Source: wire-protocol 8.9.
#pragma once

#include <set>
#include <vector>

#include "client/context.hpp"
#include "runtime/task.hpp"

namespace vitastor::client {

/// Which objects of an inode are listed: those that begin in [min_offset, max_offset).
struct ListRange {
    InodeNum inode = 0;       ///< full number
    uint64_t min_offset = 0;  ///< image bytes
    uint64_t max_offset = 0;  ///< 0 = no bound
};

/// Belongs to a coroutine of the context's thread. Before it is destroyed its owner takes a Turn: a change may be what has woken it.
class PgWalk final : public ChangeListener {
public:
    PgWalk(Context& context, PoolId pool);
    ~PgWalk();
    PgWalk(const PgWalk&) = delete;
    PgWalk& operator=(const PgWalk&) = delete;

    /// Waits for the first map. 0, -ENOENT (no such pool), -ETIMEDOUT (no map), -ECANCELED.
    runtime::Task<int> begin();
    PoolView* pool() { return context_.pool_view(pool_); }
    size_t pg_count() const { return pg_count_; }
    /// False once the context closes, or the pool or its PG count has changed.
    bool still_valid();
    /// When whatever starts now is given up (client_wait_up_timeout).
    uint64_t deadline() const;

    /// Runs `visit` for every PG: at most `parallel_osds` at once, one after another on each OSD.
    using Visit = runtime::Task<> (*)(void* arg, PgNum pg);
    runtime::Task<> each_pg(unsigned parallel_osds, Visit visit, void* arg);
    /// Objects in order, each once. False: the PG stayed inactive until the deadline, and is among inactive_pgs.
    runtime::Task<bool> list(PgNum pg, ListRange range, std::vector<ObjectId>* objects);
    /// The connected primary of the PG; nullptr when the time is over or the PGs have changed.
    runtime::Task<OsdLink*> primary_of(PgNum pg, uint64_t deadline_ns);
    /// Before another try.
    runtime::Task<> pause();

    std::set<OsdNum> inactive_osds;  ///< may hold objects and could not be asked
    std::set<PgNum> inactive_pgs;    ///< could not be listed

private:
    void on_change() override { changed_.notify_all(); }
    runtime::Task<> work(Visit visit, void* arg, std::vector<std::vector<PgNum>>* groups, size_t* next);
    runtime::Task<int> list_on(OsdLink* link, PgNum pg, ListRange range, uint64_t flags, bool* as_primary,
        std::vector<ObjectId>* objects);
    runtime::Task<bool> connected(OsdLink* link, uint64_t deadline_ns);
    void wake_at(uint64_t deadline_ns);

    struct WakeTimer : runtime::Timer {
        PgWalk* walk = nullptr;
    };

    Context& context_;
    const PoolId pool_;
    size_t pg_count_ = 0;
    bool changed_count_ = false;
    runtime::WaitList changed_;
    WakeTimer wake_timer_;
};

}  // namespace vitastor::client

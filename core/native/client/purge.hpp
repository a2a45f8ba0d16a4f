// SPDX-License-Identifier: GPL-2.0-or-later
// rm-data: lists an inode's objects on the primary of every PG, deletes them, syncs. Source: semantics 10, wire-protocol 8.9.
#pragma once

#include <string>
#include <vector>

#include "client/pg_walk.hpp"

namespace vitastor::client {

struct PurgeOptions {
    PoolId pool = 0;
    InodeNum inode = 0;  ///< full number
    uint64_t min_offset = 0;
    uint64_t max_offset = 0;  ///< 0 = no bound
    uint32_t iodepth = 32;       ///< deletions in flight per OSD
    uint32_t parallel_osds = 4;
    bool wait_list = false;  ///< list everything before the first deletion
    bool down_ok = false;
    bool cut = false;        ///< the object that min_offset lies in reads as zeroes from there on
    void (*progress_fn)(void* arg, uint64_t done, uint64_t total, uint64_t unlisted_pgs) = nullptr;
    void* progress_arg = nullptr;
};

/// One run; deletes itself after done_fn. On the context's thread.
class Purge {
public:
    /// done_fn: 0, -ENOENT (no such pool), -EAGAIN (the PG count changed), -EIO (something stayed behind), -ECANCELED.
    static void start(Context& context, const PurgeOptions& options,
        void (*done_fn)(void* arg, int result, const char* json), void* done_arg);

private:
    Purge(Context& context, const PurgeOptions& options);
    runtime::Task<> run();
    runtime::Task<> visit(PgNum pg);
    runtime::Task<> delete_pg(PgNum pg);
    runtime::Task<> delete_some(PgNum pg, size_t* next, uint64_t* failed);
    runtime::Task<int> delete_object(PgNum pg, ObjectId object);
    runtime::Task<bool> sync_pg(PgNum pg, uint64_t epoch);
    runtime::Task<int> cut_object();
    void progress();
    std::string json() const;

    struct PgWork {
        std::vector<ObjectId> objects;
        bool listed = false;
    };

    Context& context_;
    PurgeOptions options_;
    PgWalk walk_;
    void (*done_fn_)(void*, int, const char*) = nullptr;
    void* done_arg_ = nullptr;
    std::vector<PgWork> pgs_;
    bool listing_ = false, deleting_ = false;  ///< what visits do in this pass
    uint64_t total_ = 0, removed_ = 0, errors_ = 0;
    size_t unlisted_ = 0;  ///< PGs
};

}  // namespace vitastor::client

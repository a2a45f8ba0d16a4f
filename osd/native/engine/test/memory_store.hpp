// SPDX-License-Identifier: GPL-2.0-or-later
// A store in memory for tests of the engine: obeys store.hpp to the letter, takes orders to fail or to hold operations.
#pragma once

#include <deque>
#include <functional>
#include <map>

#include "store/store.hpp"

namespace vitastor::test {

/// What survives the engine: one "disk".
struct MemoryDisk {
    struct Copy {
        bool stable = true;
        std::vector<uint8_t> data, bitmap;
    };
    std::map<ObjectId, std::map<Version, Copy>> objects;
    std::map<ObjectId, Version> tombstones;
    /// Orders: negative errno for an operation, 0 = go on.
    std::function<int64_t(const store::Operation&)> fault;
    bool hold = false;  ///< operations wait until it is false again
    bool hold_syncs = false;  ///< only these
    uint64_t syncs = 0;
};

class MemoryStore final : public store::Store {
public:
    MemoryStore(runtime::Loop& loop, const store::StoreOptions& options, MemoryDisk& disk);
    ~MemoryStore() override;
    void open(runtime::Completion& done) override;
    const std::string& error() const override { return error_; }
    void submit(store::Operation& operation) override;
    void list(store::ListOperation& operation) override;
    void set_pool_pgs(PoolId pool, uint32_t pg_count, uint64_t pg_stripe_size) override;
    void forget_tombstones(PoolId pool, PgNum pg, Version version, runtime::Completion& done) override;
    Version tombstone(const ObjectId& object) const override;
    Version peek(const ObjectId& object, Version version, uint8_t* bitmap) override;
    Newest newest(const ObjectId& object) const override;
    store::StoreStats stats() const override;
    std::vector<store::InodeSpace> space_by_inode() const override;
    void close(runtime::Completion& done) override;
    const store::StoreOptions& options() const override { return options_; }

private:
    void run();
    void execute(store::Operation& op);
    int64_t write(store::Operation& op);
    void kick();
    bool is_in_pg(const ObjectId& object, PoolId pool, PgNum pg) const;

    runtime::Loop& loop_;
    store::StoreOptions options_;
    MemoryDisk& disk_;
    std::string error_;
    std::deque<store::Operation*> queue_;
    std::deque<store::ListOperation*> lists_;
    struct Forget {
        PoolId pool;
        PgNum pg;
        Version version;
        runtime::Completion* done;
    };
    std::deque<Forget> forgets_;
    std::map<PoolId, std::pair<uint32_t, uint64_t>> pgs_;
    struct Turn : runtime::Deferred {
        MemoryStore* store = nullptr;
    } turn_;
    struct Poll : runtime::Timer {
        MemoryStore* store = nullptr;
    } poll_;
    runtime::Completion* done_ = nullptr;
};

}  // namespace vitastor::test

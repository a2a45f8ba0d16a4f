// SPDX-License-Identifier: GPL-2.0-or-later
// Runs operations on a store once, and then opens the store on every state of the disks that a power failure could have left.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "crash_images.hpp"
#include "steps.hpp"

namespace vitastor::test {

struct CrashShape {
    wire::ImmediateCommit mode = wire::ImmediateCommit::all;
    bool fsync = true;      ///< the disks have a volatile cache
    bool checksums = true;
    uint32_t block_size = 32768;
    uint32_t granularity = 4096;
    uint32_t atomic_write_size = 4096;
    bool separate_meta = false;
    bool dirty = false;     ///< the area was full of old bytes before formatting: every sector of a page can be torn
    bool near_wrap = false; ///< the log begins at the last but one place of its circle
    bool small_log = false; ///< the smallest log that is accepted: the cleaner has work after a few operations
    bool discard = false;   ///< freed blocks are given back to the device
    int sums_cache = -1;    ///< bytes of memory for checksums; -1: all of them are in memory
    uint32_t objects = 2;
    Steps prepare;          ///< done before, one after another, and durable
    std::string text() const;
    static bool parse(const std::string& text, CrashShape& shape);
};

struct CrashCount {
    uint64_t sequences = 0, points = 0, sampled = 0, images = 0, second_images = 0, refused = 0;
    void add(const CrashCount& other);
    std::string text() const;
};

/// For one shape, any number of sequences.
class CrashRun {
public:
    explicit CrashRun(const CrashShape& shape);
    ~CrashRun();
    /// What is wrong, or nothing. depth: operations in flight. Same arguments, same result.
    std::string run(const Steps& steps, uint32_t depth, uint64_t seed, const CrashLimits& limits);
    CrashCount count;
    double log_rounds = 0;  ///< of the last sequence: how far the start of the log has moved, in circles

private:
    struct Tracked {
        OracleObject now;
        std::vector<OracleObject> possible;  ///< what a crash may bring back, the newest last
        std::vector<TestOp*> flying;
        Version last_version = 0;
        uint64_t durable_count = 0;
    };
    /// What each object may be after a power failure, from a mark on.
    using Snapshot = std::vector<std::vector<OracleObject>>;
    struct SyncMark {
        uint64_t durable_count;
        size_t states;
    };

    void make_base();
    std::string execute(const Steps& steps, uint32_t depth);
    void completed(TestOp* op);
    void take_snapshot();
    void fail(const std::string& text);
    bool durable_at_once(const TestOp& op, bool changed) const;
    std::string explore(CrashImages& images, Rig& rig, const std::vector<DiskEvent>& trace, const CrashLimits& limits,
                        const Snapshot* promised);
    std::string check(Rig& rig, const Snapshot& allowed, bool thorough);
    std::string read_state(Rig& rig, std::vector<OracleObject>& found);
    std::string use_once(Rig& rig, std::vector<OracleObject>& found);
    std::string use(Rig& rig, std::vector<OracleObject>& found);
    bool is_allowed(const std::vector<OracleObject>& states, const OracleObject& found) const;
    void prepare_rig(Rig& rig) const;
    int open(Rig& rig) const;
    ObjectId id(uint32_t number) const { return object_id(1 + number % 2, number, shape_.block_size); }

    CrashShape shape_;
    Oracle oracle_;
    Rig runner_;
    Rig trial_;
    Rig second_;
    DiskBytes base_;
    std::vector<Tracked> base_objects_, objects_;
    std::unique_ptr<CrashImages> images_, second_images_;
    std::vector<DiskEvent> trace_;
    std::vector<Snapshot> snapshots_;
    Random random_{1};
    uint32_t flying_ = 0;
    uint32_t next_tag_ = 1;
    std::string problem_;
};

}  // namespace vitastor::test

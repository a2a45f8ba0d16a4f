// SPDX-License-Identifier: GPL-2.0-or-later
// Merge of layers: what others of a chain hold goes into one of them, granule by granule. Source: semantics 11, tools 2.10.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "client/op_call.hpp"
#include "client/pg_walk.hpp"

namespace vitastor::client {

/// Whether writes to the target compare versions, so that somebody else may write to it meanwhile.
enum class MergeCas : uint8_t {
    automatic,  ///< if the target is the topmost layer, and not read-only with others standing on it
    always,
    never,
};

struct MergeOptions {
    std::vector<InodeNum> layers;  ///< full numbers, lowest first; 2 … 4096, all different
    size_t target = 0;             ///< index into layers
    MergeCas cas = MergeCas::automatic;
    uint32_t iodepth = 32;         ///< objects under way per OSD
    uint32_t parallel_osds = 4;
    uint32_t fsync_interval = 128; ///< writes between two flushes, in pools that need them
    void (*progress_fn)(void* arg, uint64_t done, uint64_t total, uint64_t bytes) = nullptr;
    void* progress_arg = nullptr;
};

/// One run; deletes itself after done_fn. On the context's thread.
///
/// Every granule of the target becomes what the view of the topmost layer, over these layers alone, has there: present in a
/// layer above the target: taken from the highest such layer; else present in the target: left alone; else from the highest
/// layer below that has it. A granule that no layer has stays absent. Only presence decides: a written range of zeroes is present.
///
/// At the end everything in the target is durable, whoever has written it: the layers it covers may be deleted. In pools that need flushes
/// that is a SYNC at every primary, over the connection that was there at the beginning, or all is looked at again.
///
/// Layers other than the target must not change meanwhile. May be interrupted at any point and repeated: what was already
/// copied is either present, or copied once more with the same bytes.
class Merge final : public ChangeListener {
public:
    /// done_fn: 0: everything is durable in the target. -EINVAL (options, granularities), -ENOENT (no such pool), -EAGAIN (a PG count has
    /// changed, or others write too often), -ETIMEDOUT (a PG stayed inactive), -EIO, -ENOSPC, -ECANCELED. json: {merged_objects,
    /// total_objects, written_bytes, error}, borrowed; error: '' or a sentence for people.
    static void start(Context& context, MergeOptions options, void (*done_fn)(void* arg, int result, const char* json), void* done_arg);

private:
    struct Layer {
        InodeNum inode = 0;
        Image* image = nullptr;
        uint64_t object_size = 0;
        uint32_t granularity = 0;
        uint32_t bitmap_bytes = 0;
        std::vector<uint64_t> objects;  ///< offsets, in order
    };
    struct Listing {
        Merge* merge = nullptr;
        PgWalk* walk = nullptr;
        Layer* layer = nullptr;
    };
    /// One object of the target while it is being merged.
    struct Work {
        uint64_t start = 0;             ///< image offset
        std::vector<uint16_t> owner;    ///< of each granule: highest layer but the target that has it, or kNobody, kUnknown
        std::vector<uint8_t> present;   ///< bitmap of the target
        std::vector<bool> loaded;       ///< granules of the window whose bytes are in `data`
        Version version = 0;            ///< of the target's object
        Buffer data;                    ///< a window
        uint64_t bytes = 0;             ///< written
        bool has(uint32_t granule) const { return present[granule / 8] >> (granule % 8) & 1; }
    };
    struct Run {
        uint32_t first = 0, end = 0;  ///< granules
    };

    Merge(Context& context, MergeOptions options);
    ~Merge();
    void on_change() override {}
    runtime::Task<> run();
    int prepare();
    using Visit = runtime::Task<> (Merge::*)(PgNum pg);
    runtime::Task<bool> pass();
    runtime::Task<> at_primaries(Visit visit);
    runtime::Task<> note_primary(PgNum pg);
    runtime::Task<> sync_primary(PgNum pg);
    bool others_may_write() const;
    runtime::Task<int> list_layers();
    static runtime::Task<> list_pg(Listing* listing, PgNum pg);
    void plan();
    runtime::Task<> work();
    runtime::Task<int> merge_object(Work* work);
    runtime::Task<int> merge_window(Work* work, uint32_t first, uint32_t end);
    runtime::Task<int> read_presence(Layer* layer, uint64_t offset, std::vector<uint8_t>* bitmap, Version* version);
    runtime::Task<int> find_owners(Work* work);
    runtime::Task<int> load(Work* work, const std::vector<Run>* runs, uint32_t window);
    runtime::Task<int> store(Work* work, const std::vector<Run>* runs, uint32_t window);
    runtime::Task<int> store_comparing(Work* work, const std::vector<Run>* runs, uint32_t window);
    runtime::Task<int> flush();
    bool below_has(const Work& work) const;
    std::vector<Run> runs_of(const Work& work, uint32_t first, uint32_t end) const;
    int fail(int result, std::string text);
    void progress();
    std::string json() const;
    Layer& target() { return layers_[options_.target]; }
    const Layer& target() const { return layers_[options_.target]; }

    Context& context_;
    MergeOptions options_;
    void (*done_fn_)(void*, int, const char*) = nullptr;
    void* done_arg_ = nullptr;
    std::vector<Layer> layers_;
    std::vector<std::unique_ptr<PgWalk>> walks_;  ///< kept to the end
    bool compare_ = false;
    bool target_listed_ = false;  ///< all of the target's objects are known
    bool immediate_ = true;
    Visit visit_ = nullptr;
    std::vector<uint64_t> primaries_;  ///< of the target's pool, of each PG: epoch of the connection when the pass began
    std::vector<uint64_t> synced_;     ///< those that have been asked at its end
    bool unsettled_ = false;
    std::vector<uint64_t> todo_;  ///< objects of the target: offset / object size
    size_t next_ = 0;
    uint64_t merged_ = 0, bytes_ = 0;
    uint64_t writes_ = 0;  ///< since the last flush began
    bool flushing_ = false;
    int result_ = 0;
    std::string error_;
    GiveUpTick tick_;
};

}  // namespace vitastor::client

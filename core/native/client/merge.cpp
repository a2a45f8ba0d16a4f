// SPDX-License-Identifier: GPL-2.0-or-later
#include "client/merge.hpp"

#include <algorithm>
#include <cstring>

#include "runtime/pause.hpp"

namespace vitastor::client {
namespace {

constexpr size_t kMaxLayers = 4096;
constexpr uint16_t kNobody = UINT16_MAX;
constexpr uint16_t kUnknown = UINT16_MAX - 1;  ///< not looked for: the target had it
constexpr uint64_t kWindow = 4u << 20;         ///< bytes of one object that are in memory at once
constexpr uint64_t kMaxMemory = 128u << 20;    ///< of all windows together
constexpr unsigned kMaxCalls = 32;             ///< of one object at once
constexpr uint64_t kMaxAttempts = 1000;             ///< of one window, while others change the object
constexpr uint64_t kMaxPauseMs = 50;
constexpr int kMaxFailures = 16;               ///< of one window, by full or failing disks
constexpr uint64_t kProgressEvery = 64;
constexpr unsigned kMaxPasses = 8;             ///< while OSDs come and go, in pools that need flushes

}  // namespace

Merge::Merge(Context& context, MergeOptions options) : context_(context), options_(std::move(options)), tick_(context) {
    if (!options_.iodepth) options_.iodepth = 32;
    if (!options_.parallel_osds) options_.parallel_osds = 4;
    if (!options_.fsync_interval) options_.fsync_interval = 128;
    options_.iodepth = std::min(options_.iodepth, 4096u);
    options_.parallel_osds = std::min(options_.parallel_osds, 4096u);
    context_.add_listener(this);
}

Merge::~Merge() {
    for (Layer& layer : layers_)
        if (layer.image) close_internally(context_, layer.image);
    context_.remove_listener(this);
}

void Merge::start(Context& context, MergeOptions options,
    void (*done_fn)(void* arg, int result, const char* json), void* done_arg) {
    auto* merge = new Merge(context, std::move(options));
    merge->done_fn_ = done_fn;
    merge->done_arg_ = done_arg;
    runtime::spawn(merge->run());
}

int Merge::fail(int result, std::string text) {
    if (result_) return result_;
    error_ = std::move(text);
    return result_ = result;
}

void Merge::progress() {
    if (options_.progress_fn) options_.progress_fn(options_.progress_arg, merged_, todo_.size(), bytes_);
}

std::string Merge::json() const {
    return "{\"merged_objects\":" + std::to_string(merged_) + ",\"total_objects\":" + std::to_string(todo_.size()) +
           ",\"written_bytes\":" + std::to_string(bytes_) + ",\"error\":\"" + error_ + "\"}";
}

runtime::Task<> Merge::run() {
    const bool counts = options_.layers.size() >= 2 && options_.layers.size() <= kMaxLayers && options_.target < options_.layers.size();
    if (!counts) {
        fail(-EINVAL, "a merge takes 2 to 4096 layers and a target among them");
    } else {
        walks_.push_back(std::make_unique<PgWalk>(context_, pool_of(options_.layers[options_.target])));
        auto beginning = walks_.back()->begin();
        const int begun = co_await beginning;
        if (begun) fail(begun, begun == -ENOENT ? "the pool of the target does not exist" : "");
    }
    if (!result_) prepare();
    for (unsigned round = 0; !result_; round++) {
        auto passing = pass();
        const bool settled = co_await passing;
        if (settled || result_) break;
        VITASTOR_PROBE("merge saw an OSD come back and looked again");
        if (round + 1 == kMaxPasses)
            fail(-EAGAIN, "OSDs were restarted again and again, and may have lost what was not flushed: repeat the command");
    }
    if (context_.closing()) result_ = -ECANCELED;
    // Out of whatever has woken us, before this object goes.
    Turn turn{context_.loop()};
    co_await turn;
    if (!todo_.empty()) progress();
    const std::string text = json();
    context_.count_callback();
    done_fn_(done_arg_, result_, text.c_str());
    delete this;
}

/// False: an OSD has come back meanwhile, and may not have any more what it had when its bitmaps were read.
runtime::Task<bool> Merge::pass() {
    auto listing = list_layers();
    const int listed = co_await listing;
    if (listed) fail(listed, "");
    if (!result_ && !immediate_) {
        auto greeting = at_primaries(&Merge::note_primary);
        co_await greeting;
    }
    if (result_) co_return true;
    plan();
    next_ = 0;
    merged_ = 0;
    progress();
    const uint64_t memory = std::min(target().object_size, kWindow);
    const uint64_t wanted = static_cast<uint64_t>(options_.iodepth) * options_.parallel_osds;
    const auto count = static_cast<unsigned>(std::min({wanted, std::max<uint64_t>(kMaxMemory / memory, 1), todo_.size()}));
    Join join;
    join.add(count);
    for (unsigned i = 0; i < count; i++) runtime::spawn(joined(work(), &join));
    auto all = join.all();
    co_await all;
    if (result_) co_return true;
    auto flushing = flush();
    const int flushed = co_await flushing;
    if (flushed) fail(flushed, "the merged data could not be made durable");
    if (immediate_ || result_) co_return true;
    // What was there already (of an interrupted run, of somebody who writes) has to be durable too: what it covers may be deleted next.
    unsettled_ = false;
    synced_.clear();
    auto syncing = at_primaries(&Merge::sync_primary);
    co_await syncing;
    co_return !unsettled_;
}

runtime::Task<> Merge::at_primaries(Visit visit) {
    PgWalk& walk = *walks_.front();
    primaries_.resize(walk.pg_count());
    visit_ = visit;
    auto walking = walk.each_pg(
        options_.parallel_osds, [](void* arg, PgNum pg) {
            auto* self = static_cast<Merge*>(arg);
            return (self->*self->visit_)(pg);
        }, this);
    co_await walking;
    const std::string pool = "pool " + std::to_string(pool_of(target().inode));
    if (context_.closing()) fail(-ECANCELED, "");
    else if (!walk.still_valid()) fail(-EAGAIN, "the PG count of " + pool + " changed meanwhile: repeat the command");
}

runtime::Task<> Merge::note_primary(PgNum pg) {
    PgWalk& walk = *walks_.front();
    auto finding = walk.primary_of(pg, walk.deadline());
    OsdLink* link = co_await finding;
    if (link) primaries_[pg - 1] = link->epoch;
    else if (walk.still_valid()) fail(-ETIMEDOUT, "PG " + std::to_string(pg) + " of pool " + std::to_string(pool_of(target().inode)) + " is inactive");
}

runtime::Task<> Merge::sync_primary(PgNum pg) {
    OsdLink* link = walks_.front()->still_valid() ? walks_.front()->pool()->primary[pg - 1] : nullptr;
    if (unsettled_ || !link || !link->connection || link->epoch != primaries_[pg - 1]) {
        unsettled_ = true;
        co_return;
    }
    if (std::find(synced_.begin(), synced_.end(), link->epoch) != synced_.end()) co_return;  // it is of all PGs of the OSD
    CallAwait call;
    wire::RequestHeader header;
    header.opcode = wire::Opcode::sync;
    wire::encode_request(call.header(), header);
    const uint64_t epoch = link->epoch;
    link->connection->send(call);
    const int64_t result = co_await call;
    if (result || link->epoch != epoch) unsettled_ = true;
    else synced_.push_back(epoch);
}

/// Geometry of all layers, and what cannot work.
int Merge::prepare() {
    for (InodeNum inode : options_.layers) {
        PoolView* pool = context_.pool_view(pool_of(inode));
        if (!pool) return fail(-ENOENT, "the pool of " + shown(inode) + " does not exist");
        for (const Layer& other : layers_)
            if (other.inode == inode) return fail(-EINVAL, shown(inode) + " is twice among the layers");
        Layer layer;
        layer.inode = inode;
        layer.object_size = pool->object_size;
        layer.granularity = pool->pool->bitmap_granularity;
        layer.bitmap_bytes = pool->bitmap_bytes;
        if (layer.object_size / layer.granularity > layer.bitmap_bytes * 8ull)
            return fail(-EINVAL, "the blocks of pool " + std::to_string(pool_of(inode)) +
                                     " have fewer than 8 granules, whose presence OSDs do not report: its layers cannot be merged");
        layers_.push_back(layer);
    }
    for (const Layer& layer : layers_)
        if (layer.granularity % target().granularity)
            return fail(-EINVAL, "bitmap_granularity of " + shown(target().inode) + " (" + std::to_string(target().granularity) +
                                     ") is coarser than that of " + shown(layer.inode) + " (" + std::to_string(layer.granularity) +
                                     "): merge into a layer of a pool with the finest granularity");
    for (Layer& layer : layers_) {
        ImageOptions options;
        options.inode = layer.inode;
        options.skip_parents = true;
        options.override_read_only = layer.inode == target().inode;
        layer.image = open_internally(context_, std::move(options), layer.granularity);
    }
    immediate_ = context_.pool_view(pool_of(target().inode))->immediate;
    compare_ = options_.cas == MergeCas::always || (options_.cas == MergeCas::automatic && others_may_write());
    return 0;
}

/// Only read-only images that others stand on are left alone for certain: the flag of any other may be taken away at any moment.
bool Merge::others_may_write() const {
    if (options_.target + 1 != layers_.size()) return false;
    auto own = context_.map()->inodes->find(target().inode);
    if (own == context_.map()->inodes->end() || !own->second.readonly) return true;
    for (auto& [number, inode] : *context_.map()->inodes)
        if (inode.parent == target().inode) return false;
    return true;
}

// ---- listing

runtime::Task<> Merge::list_pg(Listing* listing, PgNum pg) {
    if (!listing->walk->inactive_pgs.empty()) co_return;
    std::vector<ObjectId> objects;
    ListRange range;
    range.inode = listing->layer->inode;
    auto listed = listing->walk->list(pg, range, &objects);
    const bool ok = co_await listed;
    if (!ok) co_return;
    for (const ObjectId& object : objects) listing->layer->objects.push_back(object.stripe);
}

runtime::Task<int> Merge::list_layers() {
    for (Layer& layer : layers_) {
        // Of the target it only saves questions about objects that it does not have.
        const bool optional = &layer == &target();
        layer.objects.clear();
        walks_.push_back(std::make_unique<PgWalk>(context_, pool_of(layer.inode)));
        PgWalk& walk = *walks_.back();
        auto beginning = walk.begin();
        const int begun = co_await beginning;
        if (begun) co_return begun;
        Listing listing{this, &walk, &layer};
        auto walking = walk.each_pg(
            options_.parallel_osds, [](void* arg, PgNum pg) { return list_pg(static_cast<Listing*>(arg), pg); }, &listing);
        co_await walking;
        if (context_.closing()) co_return -ECANCELED;
        if (optional) {
            target_listed_ = walk.still_valid() && walk.inactive_pgs.empty() && walk.inactive_osds.empty();
            std::sort(layer.objects.begin(), layer.objects.end());
            continue;
        }
        const std::string pool = "pool " + std::to_string(pool_of(layer.inode));
        if (!walk.still_valid()) co_return fail(-EAGAIN, "the PG count of " + pool + " changed meanwhile: repeat the command");
        if (!walk.inactive_pgs.empty())
            co_return fail(-ETIMEDOUT,
                "PG " + std::to_string(*walk.inactive_pgs.begin()) + " of " + pool + " is inactive: its objects cannot be listed");
        if (!walk.inactive_osds.empty())
            co_return fail(-EIO,
                "OSD " + std::to_string(*walk.inactive_osds.begin()) + " is down and may hold objects of " + shown(layer.inode));
        std::sort(layer.objects.begin(), layer.objects.end());
    }
    co_return 0;
}

/// The target's objects that any other layer reaches into.
void Merge::plan() {
    todo_.clear();
    const uint64_t size = target().object_size;
    for (const Layer& layer : layers_) {
        if (&layer == &target()) continue;
        for (uint64_t offset : layer.objects)
            for (uint64_t at = offset / size; at <= (offset + layer.object_size - 1) / size; at++)
                if (todo_.empty() || todo_.back() != at) todo_.push_back(at);
    }
    std::sort(todo_.begin(), todo_.end());
    todo_.erase(std::unique(todo_.begin(), todo_.end()), todo_.end());
}

// ---- one object

runtime::Task<> Merge::work() {
    Work work;
    while (next_ < todo_.size() && !result_ && !context_.closing()) {
        const uint64_t start = todo_[next_++] * target().object_size;
        work.start = start;
        work.bytes = 0;
        auto merging = merge_object(&work);
        const int result = co_await merging;
        bytes_ += work.bytes;
        if (result) {
            const char* why = result == -ETIMEDOUT ? ": its PG is inactive"
                              : result == -EAGAIN  ? ": others change it all the time"
                              : result == -ENOSPC  ? ": no space left"
                                                   : "";
            fail(result, "the object at " + std::to_string(start) + " could not be merged into " + shown(target().inode) + why);
            co_return;
        }
        if (++merged_ % kProgressEvery == 0) progress();
        if (!immediate_ && writes_ >= options_.fsync_interval && !flushing_) {
            auto flushing = flush();
            const int flushed = co_await flushing;
            if (flushed) fail(flushed, "the merged data could not be made durable");
        }
    }
}

runtime::Task<int> Merge::flush() {
    flushing_ = true;
    writes_ = 0;
    OpCall call;
    call.set(context_, OpKind::flush, target().image, 0);
    call.start();
    const int64_t result = co_await call;
    flushing_ = false;
    co_return static_cast<int>(result);
}

runtime::Task<int> Merge::read_presence(Layer* layer, uint64_t offset, std::vector<uint8_t>* bitmap, Version* version) {
    bitmap->assign(layer->bitmap_bytes, 0);
    OpCall call;
    call.set(context_, OpKind::read_bitmap, layer->image, offset, bitmap->data(), layer->bitmap_bytes);
    call.op().length = layer->object_size;
    call.start();
    const int64_t result = co_await call;
    *version = call.version;
    co_return result < 0 ? static_cast<int>(result) : 0;
}

/// Any object of a layer below the target in the range of the object.
bool Merge::below_has(const Work& work) const {
    for (size_t i = 0; i < options_.target; i++) {
        const Layer& layer = layers_[i];
        auto found = std::lower_bound(layer.objects.begin(), layer.objects.end(), work.start / layer.object_size * layer.object_size);
        if (found != layer.objects.end() && *found < work.start + target().object_size) return true;
    }
    return false;
}

/// Fills work->owner from the top down. Granules that the target has are not looked for below it.
runtime::Task<int> Merge::find_owners(Work* work) {
    const Layer& into = target();
    const auto granules = static_cast<uint32_t>(into.object_size / into.granularity);
    work->owner.assign(granules, kNobody);
    uint32_t open = granules;
    std::vector<uint8_t> bitmap;
    for (size_t index = layers_.size(); index-- > 0 && open;) {
        if (index == options_.target) {
            for (uint32_t g = 0; g < granules; g++) {
                if (work->owner[g] != kNobody || !work->has(g)) continue;
                work->owner[g] = kUnknown;
                open--;
            }
            continue;
        }
        Layer& layer = layers_[index];
        uint64_t offset = work->start / layer.object_size * layer.object_size;
        for (; offset < work->start + into.object_size && open; offset += layer.object_size) {
            if (!std::binary_search(layer.objects.begin(), layer.objects.end(), offset)) continue;
            Version ignored = 0;
            auto reading = read_presence(&layer, offset, &bitmap, &ignored);
            const int result = co_await reading;
            if (result) co_return result;
            const uint64_t end = std::min(offset + layer.object_size, work->start + into.object_size);
            for (uint64_t at = std::max(offset, work->start); at < end; at += into.granularity) {
                const uint64_t bit = (at - offset) / layer.granularity;
                const uint64_t g = (at - work->start) / into.granularity;
                if (work->owner[g] != kNobody || !(bitmap[bit / 8] >> (bit % 8) & 1)) continue;
                work->owner[g] = static_cast<uint16_t>(index);
                open--;
            }
        }
    }
    co_return 0;
}

runtime::Task<int> Merge::merge_object(Work* work) {
    const Layer& into = target();
    const auto granules = static_cast<uint32_t>(into.object_size / into.granularity);
    work->present.assign(into.bitmap_bytes, 0);
    work->version = 0;
    int result = 0;
    // What was not there when it was listed has version 0 and no granules; whoever has made it since makes the comparing write fail.
    const bool absent = target_listed_ && !std::binary_search(into.objects.begin(), into.objects.end(), work->start);
    if (!absent && (compare_ || below_has(*work))) {
        auto reading = read_presence(&target(), work->start, &work->present, &work->version);
        result = co_await reading;
        if (result) co_return result;
    }
    auto finding = find_owners(work);
    result = co_await finding;
    const auto window = static_cast<uint32_t>(std::max<uint64_t>(std::min(kWindow, into.object_size) / into.granularity, 1));
    for (uint32_t first = 0; first < granules && !result; first += window) {
        auto merging = merge_window(work, first, std::min(first + window, granules));
        result = co_await merging;
    }
    co_return result;
}

/// What is to be written of the window.
std::vector<Merge::Run> Merge::runs_of(const Work& work, uint32_t first, uint32_t end) const {
    std::vector<Run> runs;
    for (uint32_t g = first; g < end; g++) {
        const uint16_t owner = work.owner[g];
        if (owner == kNobody || owner == kUnknown || (owner < options_.target && work.has(g))) continue;
        if (!runs.empty() && runs.back().end == g) runs.back().end = g + 1;
        else runs.push_back({g, g + 1});
    }
    return runs;
}

runtime::Task<int> Merge::merge_window(Work* work, uint32_t first, uint32_t end) {
    work->loaded.assign(end - first, false);
    int failures = 0;
    for (uint64_t attempt = 0;; attempt++) {
        const std::vector<Run> runs = runs_of(*work, first, end);
        if (runs.empty()) co_return 0;
        const uint64_t window_bytes = static_cast<uint64_t>(end - first) * target().granularity;
        if (work->data.capacity() < window_bytes) work->data = context_.loop().buffers().allocate(window_bytes);
        auto loading = load(work, &runs, first);
        int result = co_await loading;
        if (result) co_return result;
        auto storing = compare_ ? store_comparing(work, &runs, first) : store(work, &runs, first);
        result = co_await storing;
        writes_ += runs.size();
        // A plain write has been tried again until it was given up; a comparing one is sent once.
        const bool failed = compare_ && (result == -EIO || result == -ENOSPC) && ++failures < kMaxFailures;
        if (result != -EINTR && !failed) co_return result;
        // Somebody else has changed the object, or nobody knows what became of the write: look again.
        VITASTOR_PROBE("merge met another writer");
        if (attempt + 1 >= kMaxAttempts) co_return -EAGAIN;
        const uint64_t wait_ms = failed ? context_.config().client_eio_retry_interval_ms : std::min(attempt, kMaxPauseMs);
        if (wait_ms) {
            runtime::Pause pause(context_.loop(), wait_ms * runtime::kNsPerMs);
            co_await pause;
        }
        if (context_.closing()) co_return -ECANCELED;
        auto reading = read_presence(&target(), work->start, &work->present, &work->version);
        result = co_await reading;
        if (result) co_return result;
        bool vanished = false;
        for (uint32_t g = first; g < end; g++) vanished |= work->owner[g] == kUnknown && !work->has(g);
        if (!vanished) continue;
        auto finding = find_owners(work);
        result = co_await finding;
        if (result) co_return result;
        work->loaded.assign(end - first, false);
    }
}

/// Reads what is not there yet, each piece from the layer that owns it.
runtime::Task<int> Merge::load(Work* work, const std::vector<Run>* runs, uint32_t window) {
    struct Piece {
        Run run;
        uint16_t layer;
    };
    std::vector<Piece> pieces;
    for (const Run& run : *runs)
        for (uint32_t g = run.first; g < run.end; g++) {
            if (work->loaded[g - window]) continue;
            if (!pieces.empty() && pieces.back().run.end == g && pieces.back().layer == work->owner[g]) pieces.back().run.end = g + 1;
            else pieces.push_back({{g, g + 1}, work->owner[g]});
        }
    const uint64_t granularity = target().granularity;
    for (size_t next = 0; next < pieces.size();) {
        const auto count = static_cast<unsigned>(std::min<size_t>(pieces.size() - next, kMaxCalls));
        const std::unique_ptr<OpCall[]> calls(new OpCall[count]);
        // A source of coarser granularity is read in its own granules; what was read too much is thrown away.
        std::vector<Buffer> wider(count);
        std::vector<uint64_t> skips(count, 0);
        Join join;
        join.add(count);
        for (unsigned i = 0; i < count; i++) {
            const Piece& piece = pieces[next + i];
            const Layer& layer = layers_[piece.layer];
            const uint64_t from = work->start + piece.run.first * granularity, to = work->start + piece.run.end * granularity;
            const uint64_t begin = from / layer.granularity * layer.granularity;
            const uint64_t limit = (to + layer.granularity - 1) / layer.granularity * layer.granularity;
            uint8_t* place = work->data.data() + (piece.run.first - window) * granularity;
            if (begin != from || limit != to) {
                wider[i] = context_.loop().buffers().allocate(limit - begin);
                skips[i] = from - begin;
                place = wider[i].data();
            }
            calls[i].set(context_, OpKind::read, layer.image, begin, place, limit - begin);
            calls[i].start(&join);
        }
        auto all = join.all();
        co_await all;
        for (unsigned i = 0; i < count; i++) {
            if (calls[i].result < 0) co_return static_cast<int>(calls[i].result);
            const Run& run = pieces[next + i].run;
            if (wider[i])
                memcpy(work->data.data() + (run.first - window) * granularity, wider[i].data() + skips[i], (run.end - run.first) * granularity);
            for (uint32_t g = run.first; g < run.end; g++) work->loaded[g - window] = true;
        }
        next += count;
    }
    co_return 0;
}

/// Nobody else writes to the target.
runtime::Task<int> Merge::store(Work* work, const std::vector<Run>* runs, uint32_t window) {
    const uint64_t granularity = target().granularity;
    for (size_t next = 0; next < runs->size();) {
        const auto count = static_cast<unsigned>(std::min<size_t>(runs->size() - next, kMaxCalls));
        const std::unique_ptr<OpCall[]> calls(new OpCall[count]);
        Join join;
        join.add(count);
        for (unsigned i = 0; i < count; i++) {
            const Run& run = (*runs)[next + i];
            calls[i].set(context_, OpKind::write, target().image, work->start + run.first * granularity,
                work->data.data() + (run.first - window) * granularity, (run.end - run.first) * granularity);
            calls[i].start(&join);
        }
        auto all = join.all();
        co_await all;
        for (unsigned i = 0; i < count; i++) {
            if (calls[i].result < 0) co_return static_cast<int>(calls[i].result);
            work->bytes += static_cast<uint64_t>(calls[i].result);
        }
        next += count;
    }
    co_return 0;
}

/// Each write only if the object is what it was when its presence was read, or what the write before has made of it.
runtime::Task<int> Merge::store_comparing(Work* work, const std::vector<Run>* runs, uint32_t window) {
    const uint64_t granularity = target().granularity;
    for (const Run& run : *runs) {
        OpCall call;
        call.set(context_, OpKind::compare_write, target().image, work->start + run.first * granularity,
            work->data.data() + (run.first - window) * granularity, (run.end - run.first) * granularity);
        call.op().expected_version = work->version;
        call.start();
        const int64_t result = co_await call;
        if (result < 0) co_return static_cast<int>(result);
        work->version = call.version;
        work->bytes += static_cast<uint64_t>(result);
    }
    co_return 0;
}

}  // namespace vitastor::client

// SPDX-License-Identifier: GPL-2.0-or-later
// C ABI: images and I/O.
#include <algorithm>

#include "client/abi_types.hpp"
#include "client/layer_map.hpp"
#include "client/merge.hpp"
#include "client/purge.hpp"

using namespace vitastor;
using namespace vitastor::client;

namespace vitastor::client {
bool on_own_thread(const vitastor_context* context);
}

namespace {

Image* inner(vitastor_image* image) { return reinterpret_cast<Image*>(image); }

int start_op(OpKind kind, vitastor_image* image, vitastor_context* context, uint64_t offset, uint64_t length,
    const iovec* iov, int iov_count, uint64_t expected_version, vitastor_io_fn done_fn, void* done_arg) {
    if (!image || !context || !inner(image)->inode.load(std::memory_order_relaxed)) return -EINVAL;
    Op* op = context->new_op();
    op->kind = kind;
    op->image = inner(image);
    op->offset = offset;
    op->length = length;
    op->expected_version = expected_version;
    op->done_fn = done_fn;
    op->done_arg = done_arg;
    if (iov_count) Context::set_iov(*op, iov, iov_count);
    context->submit(op);
    return 0;
}

int start_io(OpKind kind, vitastor_image* image, vitastor_context* context, uint64_t offset, uint64_t length,
    const iovec* iov, int iov_count, uint64_t expected_version, vitastor_io_fn done_fn, void* done_arg) {
    if (!image) return -EINVAL;
    if (kind != OpKind::flush && kind != OpKind::remove) {
        if (int error = Context::check_request(*inner(image), offset, length, iov, iov_count)) return error;
    }
    return start_op(kind, image, context, offset, length, iov, iov_count, expected_version, done_fn, done_arg);
}

/// Full inode numbers of a caller; false: too few, too many, or one that is none.
bool take_layers(const uint64_t* layers, size_t count, size_t least, std::vector<InodeNum>& out) {
    if (!layers || count < least || count > 4096) return false;
    out.assign(layers, layers + count);
    return std::all_of(out.begin(), out.end(), [](InodeNum inode) { return pool_of(inode) && inode != full_inode(pool_of(inode), 0); });
}

/// What a tool (Purge, Merge, LayerMap) is started with, on the way to its context's thread.
template <class Tool, class Options, class Done>
struct ToolStart {
    Options options;
    Done done_fn;
    void* done_arg;
    static void run(vitastor_context* context, void* arg) {
        std::unique_ptr<ToolStart> start(static_cast<ToolStart*>(arg));
        Tool::start(*context->context, std::move(start->options), start->done_fn, start->done_arg);
    }
};

template <class Tool, class Options, class Done>
int start_tool(vitastor_context* context, Options options, Done done_fn, void* done_arg) {
    using Start = ToolStart<Tool, Options, Done>;
    auto* start = new Start{std::move(options), done_fn, done_arg};
    if (context->own_thread) {
        vitastor_context::Command command;
        command.run = Start::run;
        command.arg = start;
        context->post(command);
    } else {
        Start::run(context, start);
    }
    return 0;
}

}  // namespace

extern "C" int vitastor_image_open(vitastor_context* context, const vitastor_image_options* given,
    vitastor_image** image, vitastor_io_fn done_fn, void* done_arg) {
    vitastor_image_options options;
    if (!context || !image || !take_options(given, options)) return -EINVAL;
    ImageOptions inner_options;
    if (options.image) {
        if (!options.image[0]) return -EINVAL;
        inner_options.name = options.image;
    } else {
        uint64_t number = options.inode & ((1ull << kPoolShift) - 1);
        uint64_t pool = options.pool ? options.pool : pool_of(options.inode);
        bool twice = pool_of(options.inode) && pool_of(options.inode) != pool;
        if (pool < 1 || pool > 65535 || !number || twice || options.size_bytes % 512) return -EINVAL;
        inner_options.inode = full_inode(static_cast<PoolId>(pool), number);
        inner_options.size_bytes = options.size_bytes;
    }
    inner_options.read_only = options.read_only != 0;
    inner_options.skip_parents = options.skip_parents != 0;
    inner_options.any_alignment = options.any_alignment != 0;
    inner_options.writeback = options.writeback != 0;
    inner_options.exclusive = options.exclusive && !options.read_only;
    inner_options.changed_fn = options.changed_fn;
    inner_options.changed_arg = options.changed_arg;
    Image* fresh = context->cluster->shared->create_image(std::move(inner_options));
    fresh->abi_context = context;
    *image = reinterpret_cast<vitastor_image*>(fresh);
    Op* op = context->new_op();
    op->kind = OpKind::open;
    op->image = fresh;
    op->done_fn = done_fn;
    op->done_arg = done_arg;
    context->submit(op);
    return 0;
}

namespace {

constexpr uint64_t kCloseLimitNs = 30 * runtime::kNsPerSecond;

/// changed_fn does not run any more when this returns.
void close_now(Image* closing) {
    closing->closed.store(true, std::memory_order_release);
    auto* context = static_cast<vitastor_context*>(closing->abi_context);
    if (!context) {
        // Its context is gone already.
    } else if (context->own_thread && !on_own_thread(context)) {
        vitastor_context::Command forget;
        forget.run = [](vitastor_context* self, void* arg) { self->context->forget_image(static_cast<Image*>(arg)); };
        forget.arg = closing;
        uint64_t number = context->post(forget);
        // changed_fn does not run any more when this returns.
        std::unique_lock lock(context->mutex);
        context->changed.wait(lock, [&] { return context->executed >= number; });
    } else {
        context->context->forget_image(closing);
    }
    closing->unref();
}

/// Of one image that is being closed: what it has buffered is sent, and synced.
struct LastFlush {
    Image* image;
    vitastor_context* context;
    bool detached;  ///< nobody waits
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;

    void start() {
        Op* op = context->new_op();
        op->kind = OpKind::flush;
        op->image = image;
        op->done_arg = this;
        op->done = [](Op* self) { static_cast<LastFlush*>(self->done_arg)->end(static_cast<int>(self->result)); };
        vitastor_context::Command command;
        command.run = [](vitastor_context* self, void* arg) {
            auto* op_in = static_cast<Op*>(arg);
            op_in->give_up_ns = self->loop->now_exact_ns() + kCloseLimitNs;
            self->context->start(*op_in);
        };
        command.arg = op;
        if (context->own_thread && !on_own_thread(context)) context->post(command);
        else command.run(context, op);
    }
    void end(int result) {
        if (result < 0)
            log(context->cluster->logger, LogLevel::error, "image %s is closed although %llu bytes that it has buffered could not be written: %s",
                image->options.name.c_str(), static_cast<unsigned long long>(image->cache->bytes()), strerror(-result));
        if (detached) {
            context->context->end_last_flush();
            close_now(image);
            delete this;
            return;
        }
        const std::lock_guard lock(mutex);
        done = true;
        changed.notify_all();
    }
};

/// False: it is closed later, by itself.
bool write_out_before_close(Image* closing) {
    auto* context = static_cast<vitastor_context*>(closing->abi_context);
    if (!context || !closing->options.writeback || closing->cache->empty()) return true;
    if (context->own_thread ? on_own_thread(context) : context->running > 0) {
        auto* flush = new LastFlush{closing, context, true, {}, {}, false};
        context->context->begin_last_flush();
        flush->start();
        return false;
    }
    LastFlush flush{closing, context, false, {}, {}, false};
    flush.start();
    if (context->own_thread) {
        std::unique_lock lock(flush.mutex);
        flush.changed.wait(lock, [&] { return flush.done; });
    } else {
        while (!flush.done) context->loop->run_once(runtime::kNever);
    }
    return true;
}

}  // namespace

extern "C" void vitastor_image_close(vitastor_image* image) {
    if (!image) return;
    Image* closing = inner(image);
    if (!write_out_before_close(closing)) return;
    close_now(closing);
}

extern "C" uint64_t vitastor_image_size(vitastor_image* image) {
    return image ? inner(image)->size_bytes.load(std::memory_order_relaxed) : 0;
}
extern "C" uint64_t vitastor_image_inode(vitastor_image* image) {
    return image ? inner(image)->inode.load(std::memory_order_relaxed) : 0;
}
extern "C" uint32_t vitastor_image_block_size(vitastor_image* image) {
    return image ? inner(image)->object_size.load(std::memory_order_relaxed) : 0;
}
extern "C" int vitastor_image_writeback(vitastor_image* image) {
    return image ? inner(image)->writes_back.load(std::memory_order_relaxed) : 0;
}
extern "C" uint32_t vitastor_image_granularity(vitastor_image* image) {
    return image ? inner(image)->granularity.load(std::memory_order_relaxed) : 0;
}
extern "C" int vitastor_image_read_only(vitastor_image* image) {
    return image ? inner(image)->read_only.load(std::memory_order_relaxed) : 0;
}
extern "C" int vitastor_image_immediate_commit(vitastor_image* image) {
    return image && !inner(image)->options.writeback ? inner(image)->immediate.load(std::memory_order_relaxed) : 0;
}
extern "C" int vitastor_image_has_parent(vitastor_image* image) {
    return image ? inner(image)->has_parent.load(std::memory_order_relaxed) : 0;
}

extern "C" int vitastor_read(vitastor_image* image, vitastor_context* context, uint64_t offset, uint64_t length,
    const iovec* iov, int iov_count, vitastor_io_fn done_fn, void* done_arg) {
    if (length && !iov_count) return -EINVAL;
    return start_io(OpKind::read, image, context, offset, length, iov, iov_count, 0, done_fn, done_arg);
}

extern "C" int vitastor_read_bitmap(vitastor_image* image, vitastor_context* context, uint64_t offset, uint64_t length,
    uint8_t* bitmap, vitastor_io_fn done_fn, void* done_arg) {
    if (!image || (length && !bitmap)) return -EINVAL;
    if (int error = Context::check_request(*inner(image), offset, length, nullptr, 0)) return error;
    const uint64_t granularity = inner(image)->granularity.load(std::memory_order_relaxed);
    if (offset % granularity || length % granularity) return -EINVAL;
    const iovec bits{bitmap, (length / granularity + 7) / 8};
    if (bits.iov_len) memset(bitmap, 0, bits.iov_len);
    return start_op(OpKind::read_bitmap, image, context, offset, length, &bits, bits.iov_len ? 1 : 0, 0, done_fn, done_arg);
}

extern "C" int vitastor_write(vitastor_image* image, vitastor_context* context, uint64_t offset, uint64_t length,
    const iovec* iov, int iov_count, vitastor_io_fn done_fn, void* done_arg) {
    if (length && !iov_count) return -EINVAL;
    return start_io(OpKind::write, image, context, offset, length, iov, iov_count, 0, done_fn, done_arg);
}

extern "C" int vitastor_compare_write(vitastor_image* image, vitastor_context* context, uint64_t offset,
    uint64_t length, const iovec* iov, int iov_count, uint64_t expected_version, vitastor_io_fn done_fn,
    void* done_arg) {
    if (!length || !iov_count || expected_version == UINT64_MAX || !image) return -EINVAL;
    uint64_t object_size = inner(image)->object_size.load(std::memory_order_relaxed);
    if (!object_size || offset / object_size != (offset + length - 1) / object_size) return -EINVAL;
    return start_io(OpKind::compare_write, image, context, offset, length, iov, iov_count, expected_version, done_fn,
        done_arg);
}

extern "C" int vitastor_flush(vitastor_image* image, vitastor_context* context, vitastor_io_fn done_fn, void* done_arg) {
    return start_io(OpKind::flush, image, context, 0, 0, nullptr, 0, 0, done_fn, done_arg);
}

extern "C" int vitastor_discard(vitastor_image* image, vitastor_context* context, uint64_t offset, uint64_t length,
    vitastor_io_fn done_fn, void* done_arg) {
    return start_io(OpKind::discard, image, context, offset, length, nullptr, 0, 0, done_fn, done_arg);
}

extern "C" int vitastor_delete_object(vitastor_image* image, vitastor_context* context, uint64_t offset,
    uint64_t expected_version, vitastor_io_fn done_fn, void* done_arg) {
    return start_io(OpKind::remove, image, context, offset, 0, nullptr, 0, expected_version, done_fn, done_arg);
}

extern "C" int vitastor_purge(vitastor_context* context, const vitastor_purge_options* given,
    void (*done_fn)(void* arg, int result, const char* json), void* done_arg) {
    vitastor_purge_options options;
    if (!context || !done_fn || !take_options(given, options)) return -EINVAL;
    uint64_t number = options.inode & ((1ull << kPoolShift) - 1);
    uint64_t pool = options.pool ? options.pool : pool_of(options.inode);
    if (pool < 1 || pool > 65535 || !number) return -EINVAL;
    PurgeOptions inner_options;
    inner_options.pool = static_cast<PoolId>(pool);
    inner_options.inode = full_inode(static_cast<PoolId>(pool), number);
    inner_options.min_offset = options.min_offset;
    inner_options.max_offset = options.max_offset;
    inner_options.iodepth = options.iodepth;
    inner_options.parallel_osds = options.parallel_osds;
    inner_options.wait_list = options.wait_list != 0;
    inner_options.down_ok = options.down_ok != 0;
    inner_options.cut = options.cut != 0;
    inner_options.progress_fn = options.progress_fn;
    inner_options.progress_arg = options.progress_arg;
    return start_tool<Purge>(context, inner_options, done_fn, done_arg);
}

extern "C" int vitastor_merge(vitastor_context* context, const vitastor_merge_options* given,
    void (*done_fn)(void* arg, int result, const char* json), void* done_arg) {
    vitastor_merge_options options;
    if (!context || !done_fn || !take_options(given, options)) return -EINVAL;
    MergeOptions inner_options;
    if (!take_layers(options.layers, options.layer_count, 2, inner_options.layers)) return -EINVAL;
    if (options.target >= options.layer_count || options.cas < -1 || options.cas > 1) return -EINVAL;
    inner_options.target = options.target;
    inner_options.cas = options.cas > 0 ? MergeCas::always : options.cas < 0 ? MergeCas::never : MergeCas::automatic;
    inner_options.iodepth = options.iodepth;
    inner_options.parallel_osds = options.parallel_osds;
    inner_options.fsync_interval = options.fsync_interval;
    inner_options.progress_fn = options.progress_fn;
    inner_options.progress_arg = options.progress_arg;
    return start_tool<Merge>(context, std::move(inner_options), done_fn, done_arg);
}

extern "C" int vitastor_map_layers(vitastor_context* context, const vitastor_map_options* given,
    void (*done_fn)(void* arg, int result, const vitastor_extent* extents, size_t count, uint64_t next_offset, const char* error),
    void* done_arg) {
    vitastor_map_options options;
    if (!context || !done_fn || !take_options(given, options)) return -EINVAL;
    LayerMapOptions inner_options;
    if (!take_layers(options.layers, options.layer_count, 1, inner_options.layers)) return -EINVAL;
    if (options.max_offset && options.max_offset <= options.min_offset) return -EINVAL;
    inner_options.min_offset = options.min_offset;
    inner_options.max_offset = options.max_offset;
    inner_options.max_extents = options.max_extents;
    inner_options.iodepth = options.iodepth;
    inner_options.parallel_osds = options.parallel_osds;
    inner_options.progress_fn = options.progress_fn;
    inner_options.progress_arg = options.progress_arg;
    return start_tool<LayerMap>(context, std::move(inner_options), done_fn, done_arg);
}

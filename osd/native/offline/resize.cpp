// SPDX-License-Identifier: GPL-2.0-or-later
#include "offline/resize.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vitastor::offline {

using namespace vitastor::store;
using runtime::Task;

namespace {

/// Bytes of a device, or a negative errno.
int64_t device_size(runtime::Loop& loop, const std::string& path, runtime::FileIo io, std::string& error) {
    runtime::FileOptions file;
    file.mode = runtime::FileMode::read_only;
    file.io = io;
    file.lock_exclusive = false;
    Result<runtime::File> handle = loop.open_file(path, file);
    if (!handle.ok()) {
        error = handle.status().message().empty() ? path + ": cannot open: " + strerror(-handle.status().code())
                                                  : handle.status().message();
        return handle.status().code();
    }
    const auto bytes = static_cast<int64_t>(loop.file_info(handle.value()).size_bytes);
    loop.close_file(handle.value());
    return bytes;
}

/// Reads the superblocks of the store at a place: options to open it with.
Task<int> identify(runtime::Loop& loop, const StorePlace& place, Logger& logger, StoreOptions& options, std::string& error) {
    OfflineStore store(loop, place, logger);
    Task<int> opening = store.open();
    const int status = co_await opening;
    options = store.options();
    error = store.error();
    co_return status;
}

std::string plan_line(const Relayout& relayout, const StoreOptions& options, bool done) {
    const Geometry& before = relayout.before();
    const Geometry& after = relayout.after();
    return JsonLine("resize")
        .boolean("done", done)
        .boolean("changed", relayout.changes_anything())
        .boolean("log_moved", relayout.moves_log())
        .number("moved_blocks", relayout.blocks_to_move())
        .number("block_size", after.block_size)
        .number("old_block_count", before.block_count)
        .number("block_count", after.block_count)
        .number("old_log_size", before.log_pages * kPageSize)
        .number("log_size", after.log_pages * kPageSize)
        .number("log_offset", after.log_offset)
        .number("data_offset", after.data_offset)
        .number("osd_num", options.osd_num)
        .take();
}

Task<int> open_and_resize(runtime::Loop& loop, const StoreOptions& options, const NewPlaces& places, ResizeMode mode,
                          const Output& output, Logger& logger, std::string& error) {
    Blockstore store(loop, options, logger);
    runtime::Await opened;
    store.open(opened);
    int status = static_cast<int>(co_await opened);
    if (status < 0) {
        error = store.error();
    } else {
        Relayout relayout(store, places);
        Task<int> planning = relayout.plan();
        status = co_await planning;
        if (status == 0) output(plan_line(relayout, options, false));
        if (status == 0 && mode == ResizeMode::really) {
            Task<int> running = relayout.run();
            status = co_await running;
            if (status == 0) output(plan_line(relayout, options, true));
        }
        if (status < 0) error = relayout.error();
    }
    runtime::Await closed;
    store.close(closed);
    const auto end = static_cast<int>(co_await closed);
    if (status == 0 && end < 0) error = options.data_device + ": cannot close the store: " + strerror(-end);
    co_return status < 0 ? status : end;
}

}  // namespace

Task<int> resize_store(runtime::Loop& loop, const StorePlace& place, NewPlaces places, ResizeMode mode, const Output& output,
                       Logger& logger, std::string& error) {
    const int64_t total = device_size(loop, place.data_device, place.io, error);
    if (total < 0) co_return static_cast<int>(total);
    const auto bytes = static_cast<uint64_t>(total);
    if (places.data_size == 0) places.data_size = place.data_size ? place.data_size : bytes > place.data_offset ? bytes - place.data_offset : 0;
    if (place.data_offset > bytes || places.data_size > bytes - place.data_offset) {
        error = place.data_device + ": is " + std::to_string(bytes) + " bytes long, and the data area would end at " +
                std::to_string(place.data_offset + places.data_size) + "; make the device larger first";
        co_return -ENOSPC;
    }
    if (!places.meta_device.empty()) {
        const int64_t meta_total = device_size(loop, places.meta_device, place.io, error);
        if (meta_total < 0) co_return static_cast<int>(meta_total);
        if (places.meta_offset + places.meta_size > static_cast<uint64_t>(meta_total)) {
            error = places.meta_device + ": is " + std::to_string(meta_total) + " bytes long, and the metadata area would end at " +
                    std::to_string(places.meta_offset + places.meta_size) + "; make the device larger first";
            co_return -ENOSPC;
        }
    }
    StoreOptions options;
    Task<int> identifying = identify(loop, place, logger, options, error);
    int status = co_await identifying;
    if (status < 0) {
        StorePlace after = place;
        after.data_size = places.data_size;
        after.meta_device = places.meta_device;
        after.meta_offset = places.meta_offset;
        after.meta_size = places.meta_size;
        std::string ignored;
        Task<int> again = identify(loop, after, logger, options, ignored);
        const int there = co_await again;
        if (there < 0 || status == -EBUSY) co_return status;
        error.clear();
        output(JsonLine("resize").boolean("done", true).boolean("changed", false).number("osd_num", options.osd_num).take());
        co_return 0;
    }
    // What is not flushed because the OSD needs no flushes is flushed here: it costs nothing to speak of.
    options.create = false;
    if (options.data_size) options.data_size = std::max(options.data_size, places.data_size);  // what is locked
    options.discard_freed = DiscardFreed::off;
    options.discard_on_start = false;
    options.immediate_commit = wire::ImmediateCommit::all;
    Task<int> work = open_and_resize(loop, options, places, mode, output, logger, error);
    status = co_await work;
    co_return status;
}

}  // namespace vitastor::offline

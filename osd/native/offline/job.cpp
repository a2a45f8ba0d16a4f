// SPDX-License-Identifier: GPL-2.0-or-later
#include "offline/job.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "offline/disk_superblock.hpp"

namespace vitastor::offline {

using namespace vitastor::store;
using runtime::Task;

namespace {

/// Opens a device for its superblock. Reading needs no lock: an OSD may be at work.
int open_plain(runtime::Loop& loop, const JobRequest& request, std::unique_ptr<Device>& device, uint64_t* bytes, std::string& error) {
    const std::string& path = request.place.data_device;
    runtime::FileOptions file;
    const bool writes = request.kind == JobKind::write_superblock || request.kind == JobKind::clear_superblock;
    file.mode = writes ? runtime::FileMode::read_write : runtime::FileMode::read_only;
    file.io = request.place.io;
    file.lock_exclusive = writes && !request.force;
    Result<runtime::File> handle = loop.open_file(path, file);
    if (!handle.ok()) {
        const int code = handle.status().code();
        if (code == -EBUSY) error = path + ": the device is in use by another process (locked); stop the OSD first, or use --force";
        else error = handle.status().message().empty() ? path + ": cannot open: " + strerror(-code) : handle.status().message();
        return code;
    }
    device = std::make_unique<Device>(loop, handle.value(), true);
    *bytes = loop.file_info(handle.value()).size_bytes;
    return 0;
}

Task<int> superblock_job(runtime::Loop& loop, const JobRequest& request, const Output& output, std::string& error) {
    std::unique_ptr<Device> device;
    uint64_t bytes = 0;
    int status = open_plain(loop, request, device, &bytes, error);
    if (status < 0) co_return status;
    const std::string& path = request.place.data_device;
    if (request.kind == JobKind::read_superblock) {
        std::string json;
        Task<int> reading = read_disk_superblock(*device, bytes, path, json, error);
        status = co_await reading;
        if (status == 0) output(JsonLine("superblock").string("json", json).take());
        co_return status;
    }
    if (bytes < kPageSize) {
        error = path + ": is too short for a superblock";
        co_return -ENOSPC;
    }
    Buffer page = loop.buffers().allocate(kPageSize);
    iovec iov{page.data(), kPageSize};
    Task<int> reading = device->read(&iov, 1, 0);
    status = co_await reading;
    if (status < 0) {
        error = path + ": cannot read: " + strerror(-status);
        co_return status;
    }
    if (!request.force && memcmp(page.data(), kSuperMagic, sizeof(kSuperMagic)) == 0) {
        error = path + ": a store begins at byte 0, where the superblock would go; its area has to begin at 4096 or later";
        co_return -EEXIST;
    }
    if (request.kind == JobKind::clear_superblock) {
        memset(page.data(), 0, kPageSize);
        Task<int> writing = device->write(&iov, 1, 0);
        status = co_await writing;
        if (status == 0) {
            Task<int> flushing = device->flush();
            status = co_await flushing;
        }
        if (status < 0) error = path + ": cannot write: " + strerror(-status);
        co_return status;
    }
    Task<int> writing = write_disk_superblock(*device, std::min(request.room_bytes, bytes), path, request.json, error);
    status = co_await writing;
    co_return status;
}

int layout_job(runtime::Loop& loop, const JobRequest& request, const Output& output, std::string& error) {
    uint64_t bytes = request.device_bytes;
    if (bytes == 0) {
        std::unique_ptr<Device> device;
        const int status = open_plain(loop, request, device, &bytes, error);
        if (status < 0) return status;
    }
    StoreOptions options;
    options.data_device = request.place.data_device;
    options.data_offset = request.place.data_offset;
    options.block_size = request.block_size;
    options.bitmap_granularity = request.bitmap_granularity;
    options.checksums = request.checksums;
    Result<Geometry> geometry = check_geometry(options);
    Status fits = geometry.ok() ? Status() : geometry.status();
    if (fits.ok()) fits = lay_out(geometry.value(), options, bytes > options.data_offset ? bytes - options.data_offset : 0, 0);
    if (!fits.ok()) {
        error = fits.message();
        return fits.code();
    }
    const Geometry& made = geometry.value();
    output(JsonLine("layout").number("log_offset", made.log_offset).number("log_size", made.log_pages * kPageSize)
               .number("data_offset", made.data_offset).number("block_count", made.block_count)
               .number("data_bytes", made.block_count * made.block_size).take());
    return 0;
}

Task<int> store_job(runtime::Loop& loop, const JobRequest& request, const Output& output, Logger& logger, std::string& error) {
    OfflineStore store(loop, request.place, logger);
    const auto opening_damage = [&output](const char* area, const std::string& path, uint64_t offset, const std::string& text) {
        output(JsonLine("damage").string("area", area).string("device", path).number("offset", offset).string("text", text).take());
    };
    store.on_damage_found = opening_damage;
    Task<int> opening = store.open();
    int status = co_await opening;
    if (status == 0) {
        if (request.kind == JobKind::dump_objects) {
            Task<int> work = dump_objects(store, output);
            status = co_await work;
        } else if (request.kind == JobKind::dump_log) {
            Task<int> work = dump_log(store, request.form, output);
            status = co_await work;
        } else {
            Task<int> work = check_store(store, request.data, output);
            status = co_await work;
        }
    }
    error = store.error();
    co_return status;
}

}  // namespace

Task<int> run_job(runtime::Loop& loop, const JobRequest& request, const Output& output, Logger& logger, std::string& error) {
    if (request.kind == JobKind::layout) co_return layout_job(loop, request, output, error);
    if (request.kind == JobKind::resize) {
        Task<int> resizing = resize_store(loop, request.place, request.places, request.resize, output, logger, error);
        const int resized = co_await resizing;
        co_return resized;
    }
    const bool is_superblock = request.kind == JobKind::read_superblock || request.kind == JobKind::write_superblock ||
                               request.kind == JobKind::clear_superblock;
    Task<int> work = is_superblock ? superblock_job(loop, request, output, error)
                                   : store_job(loop, request, output, logger, error);
    const int status = co_await work;
    co_return status;
}

}  // namespace vitastor::offline

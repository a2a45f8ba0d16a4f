// SPDX-License-Identifier: GPL-2.0-or-later
// Opening the devices: locks, areas, and what has to be flushed for a write to be durable.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "store/blockstore.hpp"

namespace vitastor::store {

using runtime::FileIo;
using Number = unsigned long long;

/// Whether completed writes may be lost in a power failure until a flush. Says so where the settings promise more than the device.
bool Blockstore::needs_flush(const DeviceUse& use, const runtime::FileInfo& info) {
    if (!info.is_direct && use.io != FileIo::cached) {
        std::string text = use.path + ": the file system refuses direct I/O; its cache is used instead";
        if (use.no_fsync && use.io == FileIo::direct) text += ", with flushes, although " + use.name("disable_", "_fsync") + " is set";
        device_warnings_.push_back(text);
    }
    if (options_.readonly || use.io == FileIo::direct_sync) return false;
    if (!use.no_fsync) {
        const bool told = info.is_block_device && info.is_direct && info.write_cache == runtime::WriteCache::none;
        return !told;
    }
    if (!info.is_direct && use.io == FileIo::direct) return true;
    if (use.io == FileIo::cached)
        device_warnings_.push_back(use.path + ": " + use.name("disable_", "_fsync") + " with " + use.name("", "_io") +
                                   "=cached: a crash of the machine loses acknowledged writes that are still in its page cache; "
                                   "set " + use.name("", "_io") + "=direct, or allow fsync");
    else if (info.write_cache == runtime::WriteCache::present)
        device_warnings_.push_back(use.path + ": " + use.name("disable_", "_fsync") + " is set, but the device says that it has a "
                                   "volatile write cache: a power failure may lose acknowledged writes. Turn the cache off "
                                   "(hdparm -W 0, nvme set-feature -f 6 -v 0), or allow fsync; if the cache is protected, tell "
                                   "the kernel (write through > /sys/block/.../queue/write_cache)");
    return false;
}

int Blockstore::open_device(const DeviceUse& use, std::unique_ptr<Device>& device, uint64_t* bytes) {
    runtime::FileOptions file;
    file.mode = options_.readonly ? runtime::FileMode::read_only : runtime::FileMode::read_write;
    file.lock_exclusive = !options_.disable_device_lock;
    file.lock_area = true;
    file.area_offset = use.offset;
    file.area_bytes = use.size;
    file.io = use.io;
    Result<runtime::File> handle = loop_.open_file(use.path, file);
    if (!handle.ok()) {
        const int code = handle.status().code();
        if (code == -EBUSY && options_.disable_device_lock)
            return refuse(code, use.path + ": the device, or this area of it, is in use by another process; give each OSD on it an "
                                           "area of its own (" + use.name("", "_offset") + ", " + use.name("", "_size") +
                                           ") and disable_device_lock");
        if (code == -EBUSY)
            return refuse(code, use.path + ": the device is in use by another process (locked); stop it, or check the name. If "
                                           "several OSDs share the device, give each an area of its own (" +
                                           use.name("", "_offset") + ", " + use.name("", "_size") + ") and disable_device_lock");
        return refuse(code, use.path + ": cannot open: " +
                                (handle.status().message().empty() ? strerror(-code) : handle.status().message()));
    }
    const runtime::FileInfo info = loop_.file_info(handle.value());
    const bool is_volatile = needs_flush(use, info);
    device = std::make_unique<Device>(loop_, handle.value(), is_volatile, use.io == FileIo::direct_sync);
    if (info.is_direct) logical_block_ = std::max(logical_block_, info.logical_block);
    if (use.offset % kPageSize || use.offset >= info.size_bytes || use.size > info.size_bytes - use.offset) {
        if (info.size_bytes == 0) return refuse(-ENOSPC, use.path + ": the file is empty; give it a size first (truncate -s)");
        char text[256];
        snprintf(text, sizeof(text), ": the area at %llu of %llu bytes does not lie inside its %llu bytes (offsets are "
                 "multiples of 4096)", Number(use.offset), Number(use.size), Number(info.size_bytes));
        return refuse(-EINVAL, use.path + text);
    }
    *bytes = use.size ? use.size : info.size_bytes - use.offset;
    if (use.is_data) data_info_ = info;
    return 0;
}

void Blockstore::start_discarder() {
    DiscardOptions options;
    options.freed = options_.discard_freed == DiscardFreed::on ||
                    (options_.discard_freed == DiscardFreed::automatic && data_info_.is_block_device);
    options.on_start = options_.discard_on_start;
    options.min_bytes = options_.min_discard_size;
    options.granularity = options_.discard_granularity;
    if (options_.readonly || (!options.freed && !options.on_start)) return;
    if (!data_info_.can_discard) {
        if (options_.discard_freed == DiscardFreed::on || options.on_start)
            log(logger_, LogLevel::warning, "%s: the device cannot discard; discard_freed and discard_on_start have no effect",
                options_.data_device.c_str());
        return;
    }
    discarder_ = std::make_unique<Discarder>(loop_, *data_, blocks_, geometry_, options, options_.data_device, logger_,
                                             block_waiters_);
    discarder_->start();
}

int Blockstore::open_devices() {
    device_warnings_.clear();
    if (options_.meta_device == options_.data_device && options_.meta_offset == options_.data_offset)
        options_.meta_device.clear();
    DeviceUse data{options_.data_device, true, options_.data_offset, options_.data_size, options_.data_io,
                   options_.disable_data_fsync};
    int status = open_device(data, data_, &data_bytes_);
    if (status < 0) return status;
    meta_ = data_.get();
    if (options_.meta_device.empty()) return 0;
    if (options_.meta_device == options_.data_device) {
        const uint64_t data_end = options_.data_offset + data_bytes_;
        meta_bytes_ = options_.meta_size;
        // One device for both: the same handle, or the lock would be in our own way.
        if (!meta_bytes_ || !options_.data_size ||
            (options_.meta_offset < data_end && options_.data_offset < options_.meta_offset + meta_bytes_))
            return refuse(-EINVAL, options_.data_device + ": metadata and data are on one device; meta_offset, meta_size, "
                                                          "data_offset and data_size must be given and not overlap");
        return 0;
    }
    DeviceUse meta{options_.meta_device, false, options_.meta_offset, options_.meta_size, options_.meta_io,
                   options_.disable_meta_fsync};
    status = open_device(meta, separate_meta_, &meta_bytes_);
    meta_ = separate_meta_.get();
    return status;
}

}  // namespace vitastor::store

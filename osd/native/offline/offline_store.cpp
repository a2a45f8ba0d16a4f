// SPDX-License-Identifier: GPL-2.0-or-later
#include "offline/offline_store.hpp"

#include <bit>
#include <cerrno>
#include <cstring>

#include "base/crc32c.hpp"

namespace vitastor::offline {

using namespace vitastor::store;
using runtime::Task;

std::vector<VersionView> versions_of(const Geometry& geometry, const EntryView& entry) {
    std::vector<VersionView> result;
    const uint8_t* in = entry.versions;
    for (uint16_t i = 0; in && i < entry.header.count; i++) {
        VersionView version{};
        memcpy(&version.header, in, sizeof(version.header));
        version.bitmap = in + sizeof(version.header);
        version.allocated = version.bitmap + geometry.bitmap_bytes;
        version.redirects = version.allocated + geometry.bitmap_bytes;
        in = version.redirects + version.header.redirects * sizeof(Redirect);
        if (geometry.checksums) {
            version.crcs = in;
            for (uint32_t k = 0; k < geometry.bitmap_bytes; k++) in += 4 * std::popcount(version.allocated[k]);
        }
        result.push_back(version);
    }
    return result;
}

int OfflineStore::refuse(int code, std::string text) {
    error_ = std::move(text);
    return code;
}

void OfflineStore::found(const char* area, const std::string& path, uint64_t offset, const std::string& text) {
    if (on_damage_found) on_damage_found(area, path, offset, text);
}

int OfflineStore::open_device(const std::string& path, uint64_t offset, uint64_t size, std::unique_ptr<Device>& device,
                              uint64_t* area_bytes) {
    runtime::FileOptions file;
    file.mode = runtime::FileMode::read_only;
    file.io = place_.io;
    file.lock_exclusive = !place_.is_shared_device;
    file.lock_area = true;
    file.area_offset = offset;
    file.area_bytes = size;
    Result<runtime::File> handle = loop_.open_file(path, file);
    if (!handle.ok()) {
        const int code = handle.status().code();
        if (code == -EBUSY) return refuse(code, path + ": the device is in use by another process (locked); stop the OSD first");
        return refuse(code, handle.status().message().empty() ? path + ": cannot open: " + strerror(-code)
                                                              : handle.status().message());
    }
    device = std::make_unique<Device>(loop_, handle.value(), false);
    const uint64_t total = loop_.file_info(handle.value()).size_bytes;
    if (offset % kPageSize || offset >= total || size > total - offset)
        return refuse(-EINVAL, path + ": the area at " + std::to_string(offset) + " of " + std::to_string(size) +
                                   " bytes does not lie inside its " + std::to_string(total) +
                                   " bytes (offsets are multiples of 4096)");
    *area_bytes = size ? size : total - offset;
    return 0;
}

Task<int> OfflineStore::read_head(Device& device, const std::string& path, uint64_t offset, uint8_t* page) {
    Buffer buffer = loop_.buffers().allocate(kPageSize);
    iovec iov{buffer.data(), kPageSize};
    Task<int> reading = device.read(&iov, 1, offset);
    const int status = co_await reading;
    if (status < 0) co_return refuse(status, path + ": cannot read the superblock: " + strerror(-status));
    memcpy(page, buffer.data(), kPageSize);
    co_return 0;
}

Task<int> OfflineStore::open() {
    if (place_.meta_device == place_.data_device && place_.meta_offset == place_.data_offset) place_.meta_device.clear();
    int status = open_device(place_.data_device, place_.data_offset, place_.data_size, data_, &data_bytes_);
    if (status < 0) co_return status;
    const bool separate = !place_.meta_device.empty();
    const bool one_device = separate && place_.meta_device == place_.data_device;
    if (separate && !one_device) {
        status = open_device(place_.meta_device, place_.meta_offset, place_.meta_size, separate_meta_, &meta_bytes_);
        if (status < 0) co_return status;
    }
    if (one_device) meta_bytes_ = place_.meta_size;
    std::vector<uint8_t> head(kPageSize), copy(kPageSize);
    const uint64_t meta_offset = separate ? place_.meta_offset : place_.data_offset;
    Task<int> reading = read_head(meta(), meta_path(), meta_offset, head.data());
    status = co_await reading;
    if (status < 0) co_return status;
    if (separate) {
        Task<int> reading_copy = read_head(*data_, place_.data_device, place_.data_offset, copy.data());
        status = co_await reading_copy;
        if (status < 0) co_return status;
    }
    Superblock super;
    memcpy(&super, head.data(), sizeof(super));
    if (memcmp(super.magic, kSuperMagic, sizeof(super.magic)) != 0 && head == std::vector<uint8_t>(kPageSize))
        co_return refuse(-ENOENT, meta_path() + ": holds no store at byte " + std::to_string(meta_offset) +
                                      " (all zeroes); check the device and --data_offset or --meta_offset");
    // The store itself says what it was made with; decode_superblock() judges the rest.
    options_.osd_num = super.osd_num;
    options_.block_size = super.block_size;
    options_.bitmap_granularity = super.bitmap_granularity;
    options_.checksums = super.checksums != 0;
    options_.data_device = place_.data_device;
    options_.data_offset = place_.data_offset;
    options_.data_size = place_.data_size;
    options_.meta_device = place_.meta_device;
    options_.meta_offset = place_.meta_offset;
    options_.meta_size = place_.meta_size;
    options_.data_io = options_.meta_io = place_.io;
    options_.disable_device_lock = place_.is_shared_device;
    Result<Geometry> geometry = check_geometry(options_);
    const bool readable = geometry.ok();
    if (!readable) {  // damaged, or something else: let decode_superblock() say which
        options_.block_size = 131072;
        options_.bitmap_granularity = 4096;
        geometry = check_geometry(options_);
    }
    geometry_ = geometry.value();
    Result<SuperblockInfo> info =
        decode_superblock(head.data(), geometry_, options_, meta_path(), separate ? meta_bytes_ : data_bytes_, false);
    if (!info.ok()) {
        if (info.status().code() == -EIO) found("superblock", meta_path(), meta_offset, info.status().message());
        co_return refuse(info.status().code(), info.status().message());
    }
    uuid_ = info.value().uuid;
    if (separate) {
        Geometry again = geometry_;
        Result<SuperblockInfo> copy_info =
            decode_superblock(copy.data(), again, options_, place_.data_device, data_bytes_, true);
        const bool is_store = memcmp(copy.data(), kSuperMagic, sizeof(kSuperMagic)) == 0;
        if (!copy_info.ok() && is_store && copy_info.status().code() != -EIO) {  // sound, and of something else
            co_return refuse(copy_info.status().code(), copy_info.status().message());
        } else if (!copy_info.ok()) {
            found("superblock", place_.data_device, place_.data_offset, copy_info.status().message());
        } else {
            bool is_old = false;
            const Status pair = compare_superblocks({geometry_, info.value(), again, copy_info.value()}, options_, &is_old);
            if (pair.code() == -EIO) found("superblock", place_.data_device, place_.data_offset, pair.message());
            else if (!pair.ok()) co_return refuse(pair.code(), pair.message());
        }
    }
    co_return 0;
}

Task<int> OfflineStore::replay(bool log_only) {
    log_only_ = log_only;
    index_ = std::make_unique<Index>(geometry_);
    Replay replay(meta(), *data_, *index_, uuid_, meta_path(), logger_);
    replay.observer = this;
    replay.log_only = log_only;
    Task<int> running = replay.run();
    const int status = co_await running;
    if (status < 0) co_return refuse(status, replay.error());
    co_return 0;
}

Task<int> OfflineStore::load() {
    Task<int> work = replay(false);
    const int status = co_await work;
    co_return status;
}

Task<int> OfflineStore::scan_log() {
    Task<int> work = replay(true);
    const int status = co_await work;
    co_return status;
}

void OfflineStore::on_page(uint64_t offset, const PageHeader& header) {
    log_pages_read_++;
    if (on_log_page) on_log_page(offset, header);
}

void OfflineStore::on_entry(const EntryView& entry, uint64_t page, bool applied) {
    log_entries_read_++;
    if (on_log_entry) on_log_entry(entry, page);
    if (log_only_) return;
    if (!applied && entry.header.type != EntryType::del) orphans_.insert(entry.object());
    else if (!orphans_.empty()) orphans_.erase(entry.object());
}

bool OfflineStore::on_damage(uint64_t offset, const std::string& text) {
    found(offset < geometry_.meta_area + kLogStart ? "checkpoint" : "log", meta_path(), offset, text);
    return true;
}

void OfflineStore::on_damaged_granule(const ObjectId& object, uint32_t granule) {
    char text[160];
    snprintf(text, sizeof(text), "granule %u of object %llx:%llx holds neither its old nor its new data", granule,
             static_cast<unsigned long long>(object.inode), static_cast<unsigned long long>(object.stripe));
    found("announced write", place_.data_device, 0, text);
}

}  // namespace vitastor::offline

// SPDX-License-Identifier: GPL-2.0-or-later
// A store without its OSD: opened read-only under the device lock, described by its own superblock, loaded as the OSD loads it.
// Everything that is wrong with the metadata is named, and reading goes on where that makes sense.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/log.hpp"
#include "offline/json_line.hpp"
#include "store/device.hpp"
#include "store/geometry.hpp"
#include "store/index.hpp"
#include "store/replay.hpp"

namespace vitastor::offline {

/// Where the areas of a store are. Sizes 0: to the end of the device. meta_device empty: on data_device, in one area.
struct StorePlace {
    std::string data_device;
    uint64_t data_offset = 0, data_size = 0;
    std::string meta_device;
    uint64_t meta_offset = 0, meta_size = 0;
    runtime::FileIo io = runtime::FileIo::direct;
    bool is_shared_device = false;  ///< disable_device_lock: OSDs on other areas of the devices may run
};

/// Takes lines for the reader; one JSON object each. False: nobody wants more.
using Output = std::function<bool(std::string line)>;

/// One version of an object, as a full entry tells it. Points into the entry.
struct VersionView {
    store::VersionHeader header;
    const uint8_t* bitmap;     ///< external
    const uint8_t* allocated;  ///< one bit a granule
    const uint8_t* redirects;  ///< header.redirects of them, unaligned
    const uint8_t* crcs;       ///< of the allocated granules, in order; null without checksums
};
/// The versions of a full entry that decode_entry() has accepted, oldest first.
std::vector<VersionView> versions_of(const store::Geometry& geometry, const store::EntryView& entry);

class OfflineStore final : public store::ReplayObserver {
public:
    OfflineStore(runtime::Loop& loop, const StorePlace& place, Logger& logger) : loop_(loop), place_(place), logger_(logger) {}

    /// Opens and locks the devices (-EBUSY while an OSD runs), reads the superblocks. 0, or an errno with error().
    runtime::Task<int> open();
    /// Reads the metadata log into index(). 0, or an errno with error(): then damage has ended it early.
    runtime::Task<int> load();
    /// Reads the log and hands every entry to on_log_entry; index() stays empty, memory does not grow with the objects.
    runtime::Task<int> scan_log();

    const std::string& error() const { return error_; }
    const store::StoreOptions& options() const { return options_; }
    const store::Geometry& geometry() const { return geometry_; }
    uint64_t uuid() const { return uuid_; }
    store::Index& index() { return *index_; }
    store::Device& data() { return *data_; }
    store::Device& meta() { return separate_meta_ ? *separate_meta_ : *data_; }
    uint64_t data_bytes() const { return data_bytes_; }
    uint64_t meta_bytes() const { return meta_bytes_; }
    const std::string& meta_path() const { return separate_meta_ ? place_.meta_device : place_.data_device; }
    const std::string& data_path() const { return place_.data_device; }
    uint64_t log_pages_read() const { return log_pages_read_; }
    uint64_t log_entries_read() const { return log_entries_read_; }

    // ---- hooks, set before open()
    /// Damage that was found. where: "superblock", "checkpoint", "log", "announced write"...; offset in bytes on `path`.
    std::function<void(const char* area, const std::string& path, uint64_t offset, const std::string& text)> on_damage_found;
    std::function<void(uint64_t offset, const store::PageHeader& header)> on_log_page;
    std::function<void(const store::EntryView& entry, uint64_t page)> on_log_entry;

    /// Objects whose entries were read although what they change was not: known after load() alone.
    const std::unordered_set<ObjectId, ObjectIdHash>& orphans() const { return orphans_; }

    // ---- ReplayObserver
    void on_page(uint64_t offset, const store::PageHeader& header) override;
    void on_entry(const store::EntryView& entry, uint64_t page, bool applied) override;
    bool on_damage(uint64_t offset, const std::string& text) override;
    void on_damaged_granule(const ObjectId& object, uint32_t granule) override;

private:
    int refuse(int code, std::string text);
    int open_device(const std::string& path, uint64_t offset, uint64_t size, std::unique_ptr<store::Device>& device,
                    uint64_t* area_bytes);
    runtime::Task<int> read_head(store::Device& device, const std::string& path, uint64_t offset, uint8_t* page);
    void found(const char* area, const std::string& path, uint64_t offset, const std::string& text);
    runtime::Task<int> replay(bool log_only);

    runtime::Loop& loop_;
    StorePlace place_;
    Logger& logger_;
    std::string error_;
    store::StoreOptions options_;
    store::Geometry geometry_;
    uint64_t uuid_ = 0;
    std::unique_ptr<store::Device> data_, separate_meta_;
    uint64_t data_bytes_ = 0, meta_bytes_ = 0;
    std::unique_ptr<store::Index> index_;
    std::unordered_set<ObjectId, ObjectIdHash> orphans_;
    bool log_only_ = false;
    uint64_t log_pages_read_ = 0, log_entries_read_ = 0;
};

}  // namespace vitastor::offline

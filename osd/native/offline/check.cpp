// SPDX-License-Identifier: GPL-2.0-or-later
// Everything about a store that its own bytes can disprove: superblocks, checkpoints, the log, who owns which block, and with
// checksums every granule of data.
#include <algorithm>
#include <cstring>
#include <map>

#include "base/crc32c.hpp"
#include "offline/report.hpp"
#include "store/block_allocator.hpp"

namespace vitastor::offline {

using namespace vitastor::store;
using runtime::Task;

namespace {

constexpr uint32_t kSlice = 4000;
constexpr uint64_t kReadBytes = 1 << 20;         // of a block at a time
constexpr uint64_t kProgressBytes = 1ull << 30;  // between two progress lines
using Number = unsigned long long;

class Checker {
public:
    Checker(OfflineStore& store, CheckData data, const Output& output) : store_(store), data_(data), output_(output) {}

    Task<int> run() {
        store_.on_damage_found = [this](const char* area, const std::string& path, uint64_t offset, const std::string& text) {
            report(area, path, offset, text);
        };
        wanted_ = output_(describe_store(store_));
        Task<int> loading = store_.load();
        const int status = co_await loading;
        if (status < 0) co_return status;
        for (const ObjectId& object : store_.orphans())
            report_object("object", object, 0, "its metadata are lost: the log changes it, and does not say what it was");
        blocks_.reset(store_.geometry().block_count);
        Index& index = store_.index();
        std::vector<uint8_t> bytes;
        for (uint32_t slot = 0; slot < index.slot_count() && wanted_; slot++) {
            if (slot % kSlice == kSlice - 1) {
                NextTurn turn(store_.data().loop());
                co_await turn;
            }
            if (index.at(slot).state != SlotState::head) continue;
            bytes.clear();
            index.encode_full(slot, bytes);
            EntryView entry;
            if (!decode_entry(store_.geometry(), bytes, entry)) continue;
            objects_++;
            claim_blocks(entry);
            if (data_ == CheckData::no || !store_.geometry().checksums) continue;
            Task<void> checking = check_object(entry);
            co_await checking;
        }
        const uint64_t used = store_.geometry().block_count - blocks_.free_count();
        output_(JsonLine("result")
                    .number("objects", objects_)
                    .number("used_blocks", used)
                    .number("spare_blocks", spare_.size())
                    .number("free_blocks", blocks_.free_count())
                    .number("log_pages", store_.log_pages_read())
                    .number("log_entries", store_.log_entries_read())
                    .number("checked_bytes", checked_bytes_)
                    .number("damages", damages_)
                    .take());
        co_return 0;
    }

private:
    void report(const char* area, const std::string& path, uint64_t offset, const std::string& text) {
        damages_++;
        wanted_ = output_(JsonLine("damage").string("area", area).string("device", path).number("offset", offset)
                              .string("text", text).take()) && wanted_;
    }

    void report_object(const char* area, const ObjectId& object, uint64_t offset, const std::string& text) {
        damages_++;
        JsonLine line("damage");
        line.string("area", area).string("device", store_.data_path()).number("offset", offset)
            .number("pool", pool_of(object.inode))
            .hex_number("inode", object.inode & ((uint64_t{1} << kPoolShift) - 1))
            .hex_number("stripe", object.stripe)
            .string("text", text);
        wanted_ = output_(line.take()) && wanted_;
    }

    uint64_t block_offset(uint32_t block) const {
        return store_.geometry().data_offset + uint64_t{block} * store_.geometry().block_size;
    }

    /// Versions that share a block are neighbours; between objects nothing is shared.
    void claim_blocks(const EntryView& entry) {
        uint32_t previous = kNoBlock;
        for (const VersionView& version : versions_of(store_.geometry(), entry)) {
            claim_spare_granules(entry, version);
            const uint32_t block = version.header.block;
            if (block == kNoBlock || block == previous) continue;
            previous = block;
            if (!blocks_.take(block))
                report_object("block", entry.object(), block_offset(block),
                              "block " + std::to_string(block) + " belongs to another object, too");
        }
    }

    /// Versions of one object may share a granule of a spare block, as the same granule.
    void claim_spare_granules(const EntryView& entry, const VersionView& version) {
        const Geometry& geometry = store_.geometry();
        for (uint32_t i = 0; i < version.header.redirects; i++) {
            const Redirect run = redirect(version, i);
            auto place = spare_.find(run.block);
            if (place == spare_.end()) {
                if (!blocks_.take(run.block)) {
                    report_object("block", entry.object(), block_offset(run.block),
                                  "block " + std::to_string(run.block) + " belongs to another object, and holds granules of this one");
                    continue;
                }
                place = spare_.emplace(run.block, std::vector<Owner>(geometry.granules)).first;
            }
            for (uint32_t k = 0; k < run.count; k++) {
                const Owner owner{entry.object(), uint32_t{run.first} + k, true};
                Owner& now = place->second[run.place + k];
                if (!now.is_set) now = owner;
                else if (now.object != owner.object || now.granule != owner.granule)
                    report_object("block", entry.object(),
                                  block_offset(run.block) + (uint64_t{run.place} + k) * geometry.granularity,
                                  "a granule of spare block " + std::to_string(run.block) + " belongs to something else, too");
            }
        }
    }

    static Redirect redirect(const VersionView& version, uint32_t number) {
        Redirect run;
        memcpy(&run, version.redirects + number * sizeof(run), sizeof(run));
        return run;
    }

    /// Where a granule lives on the data device, and the end of the granules that follow it there (at most `end`).
    uint64_t locate(const VersionView& version, uint32_t granule, uint32_t* end) const {
        const uint64_t granularity = store_.geometry().granularity;
        for (uint32_t i = 0; i < version.header.redirects; i++) {
            const Redirect run = redirect(version, i);
            if (run.first > granule) {
                *end = std::min<uint32_t>(*end, run.first);
                break;
            }
            if (granule >= run.end()) continue;
            *end = std::min(*end, run.end());
            return block_offset(run.block) + (uint64_t{run.place} + granule - run.first) * granularity;
        }
        return block_offset(version.header.block) + granule * granularity;
    }

    Task<void> check_object(const EntryView& entry) {
        const Geometry& geometry = store_.geometry();
        for (const VersionView& version : versions_of(geometry, entry)) {
            if (version.header.block == kNoBlock) continue;
            const uint32_t step = static_cast<uint32_t>(std::max<uint64_t>(kReadBytes / geometry.granularity, 1));
            const uint8_t* crcs = version.crcs;
            for (uint32_t first = 0, end = 0; first < geometry.granules && wanted_; first = end) {
                end = std::min(first + step, geometry.granules);
                const uint64_t start = locate(version, first, &end);
                uint32_t from = first, to = end;
                while (from < to && !allocated(version, from)) from++;
                while (to > from && !allocated(version, to - 1)) to--;
                if (from == to) continue;
                Task<void> checking = check_run(entry, version, from, to, start + uint64_t{from - first} * geometry.granularity, crcs);
                co_await checking;
                for (uint32_t i = from; i < to; i++) crcs += allocated(version, i) ? 4 : 0;
            }
        }
    }

    static bool allocated(const VersionView& version, uint32_t granule) {
        return version.allocated[granule / 8] & (1u << (granule % 8));
    }

    Task<void> check_run(const EntryView& entry, const VersionView& version, uint32_t from, uint32_t to, uint64_t start,
                         const uint8_t* crcs) {
        const Geometry& geometry = store_.geometry();
        const uint64_t length = uint64_t{to - from} * geometry.granularity;
        Buffer buffer = store_.data().loop().buffers().allocate(length);
        iovec iov{buffer.data(), length};
        Task<int> reading = store_.data().read(&iov, 1, start);
        const int status = co_await reading;
        for (uint32_t granule = from; granule < to; granule++) {
            if (!allocated(version, granule)) continue;
            const uint64_t place = uint64_t{granule - from} * geometry.granularity;
            int code = status;
            if (status < 0) {  // which granules?
                iovec one{buffer.data() + place, geometry.granularity};
                Task<int> again = store_.data().read(&one, 1, start + place);
                code = co_await again;
            }
            uint32_t crc;
            memcpy(&crc, crcs, 4);
            crcs += 4;
            if (code < 0) {
                report_granule(entry, version, granule, start + place, strerror(-code));
            } else if (crc32c(buffer.data() + place, geometry.granularity) != crc) {
                report_granule(entry, version, granule, start + place, "the checksum does not match");
            }
        }
        checked_bytes_ += length;
        if (checked_bytes_ / kProgressBytes == progress_) co_return;
        progress_ = checked_bytes_ / kProgressBytes;
        wanted_ = output_(JsonLine("progress").number("checked_bytes", checked_bytes_).number("objects", objects_)
                              .number("of_objects", store_.index().object_count()).take()) && wanted_;
    }

    void report_granule(const EntryView& entry, const VersionView& version, uint32_t granule, uint64_t offset, const char* what) {
        char text[200];
        snprintf(text, sizeof(text), "version %llu, bytes %llu … %llu: %s", Number(version.header.version),
                 Number(uint64_t{granule} * store_.geometry().granularity),
                 Number(uint64_t{granule + 1} * store_.geometry().granularity - 1), what);
        report_object("data", entry.object(), offset, text);
    }

    OfflineStore& store_;
    CheckData data_;
    const Output& output_;
    bool wanted_ = true;
    BlockAllocator blocks_;
    struct Owner {
        ObjectId object;
        uint32_t granule = 0;
        bool is_set = false;
    };
    std::map<uint32_t, std::vector<Owner>> spare_;
    uint64_t objects_ = 0, damages_ = 0, checked_bytes_ = 0, progress_ = 0;
};

}  // namespace

Task<int> check_store(OfflineStore& store, CheckData data, const Output& output) {
    Checker checker(store, data, output);
    Task<int> running = checker.run();
    const int status = co_await running;
    co_return status;
}

}  // namespace vitastor::offline

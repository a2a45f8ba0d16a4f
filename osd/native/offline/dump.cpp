// SPDX-License-Identifier: GPL-2.0-or-later
#include <bit>
#include <cstring>

#include "offline/report.hpp"

namespace vitastor::offline {

using namespace vitastor::store;
using runtime::Task;

namespace {

constexpr uint32_t kSlice = 4000;  // slots looked at in one turn

const char* type_name(EntryType type) {
    switch (type) {
        case EntryType::full: return "full";
        case EntryType::write: return "write";
        case EntryType::del: return "delete";
        case EntryType::stabilize: return "stable";
        case EntryType::rollback: return "rollback";
        case EntryType::tombstone: return "tombstone";
        case EntryType::moved: return "moved";
        default: return "other";
    }
}

void put_object(JsonLine& line, const ObjectId& object) {
    line.number("pool", pool_of(object.inode))
        .hex_number("inode", object.inode & ((uint64_t{1} << kPoolShift) - 1))
        .hex_number("stripe", object.stripe);
}

/// Granules that live in spare blocks.
void put_redirects(JsonLine& line, const Geometry& geometry, const uint8_t* in, uint32_t count) {
    if (count == 0) return;
    line.begin_list("redirects");
    for (uint32_t i = 0; i < count; i++) {
        Redirect run;
        memcpy(&run, in + i * sizeof(run), sizeof(run));
        line.begin_item()
            .number("offset", uint64_t{run.first} * geometry.granularity)
            .number("len", uint64_t{run.count} * geometry.granularity)
            .number("block", run.block)
            .number("location", geometry.data_offset + uint64_t{run.block} * geometry.block_size + uint64_t{run.place} * geometry.granularity)
            .end_item();
    }
    line.end_list();
}

void put_versions(JsonLine& line, const Geometry& geometry, const EntryView& entry) {
    line.begin_list("writes");
    for (const VersionView& version : versions_of(geometry, entry)) {
        uint32_t granules = 0;
        for (uint32_t i = 0; i < geometry.bitmap_bytes; i++) granules += static_cast<uint32_t>(std::popcount(version.allocated[i]));
        line.begin_item().number("version", version.header.version).string("type", "big");
        line.boolean("stable", version.header.flags & kEntryStable);
        if (version.header.block != kNoBlock)
            line.number("block", version.header.block)
                .number("location", geometry.data_offset + uint64_t{version.header.block} * geometry.block_size);
        line.hex("bitmap", {version.allocated, geometry.bitmap_bytes}).hex("ext_bitmap", {version.bitmap, geometry.bitmap_bytes});
        put_redirects(line, geometry, version.redirects, version.header.redirects);
        if (version.crcs) line.hex("block_csums", {version.crcs, 4 * size_t{granules}});
        line.end_item();
    }
    line.end_list();
}

}  // namespace

std::string describe_store(const OfflineStore& store) {
    const Geometry& geometry = store.geometry();
    JsonLine line("store");
    line.number("format", kFormatVersion)
        .number("osd_num", store.options().osd_num)
        .hex_number("uuid", store.uuid())
        .number("meta_block_size", kPageSize)
        .number("data_block_size", geometry.block_size)
        .number("bitmap_granularity", geometry.granularity)
        .string("data_csum_type", geometry.checksums ? "crc32c" : "none")
        .number("csum_block_size", geometry.checksums ? geometry.granularity : 0)
        .string("data_device", store.data_path())
        .number("data_offset", geometry.data_offset)
        .number("block_count", geometry.block_count)
        .string("meta_device", store.meta_path())
        .number("log_offset", geometry.log_offset)
        .number("log_size", geometry.log_pages * kPageSize);
    return line.take();
}

Task<int> dump_objects(OfflineStore& store, const Output& output) {
    uint64_t damages = 0;
    store.on_damage_found = [&](const char* area, const std::string& path, uint64_t offset, const std::string& text) {
        damages++;
        output(JsonLine("damage").string("area", area).string("device", path).number("offset", offset).string("text", text).take());
    };
    Task<int> loading = store.load();
    const int status = co_await loading;
    if (status < 0) co_return status;
    if (!output(describe_store(store))) co_return 0;
    std::vector<uint8_t> bytes;
    uint64_t objects = 0, versions = 0, tombstones = 0;
    Index& index = store.index();
    for (uint32_t slot = 0; slot < index.slot_count(); slot++) {
        if (slot % kSlice == kSlice - 1) {
            NextTurn turn(store.data().loop());
            co_await turn;
        }
        if (!index.is_linked(slot)) continue;
        bytes.clear();
        index.encode_full(slot, bytes);
        EntryView entry;
        if (!decode_entry(store.geometry(), bytes, entry)) continue;
        JsonLine line("object");
        put_object(line, entry.object());
        if (entry.header.type == EntryType::tombstone) {
            line.begin_list("writes").begin_item().number("version", entry.header.version).string("type", "delete");
            line.end_item().end_list();
            tombstones++;
        } else {
            put_versions(line, store.geometry(), entry);
            objects++;
            versions += entry.header.count;
        }
        if (!output(line.take())) co_return 0;
    }
    output(JsonLine("result")
               .number("objects", objects)
               .number("versions", versions)
               .number("tombstones", tombstones)
               .number("damages", damages)
               .take());
    co_return 0;
}

Task<int> dump_log(OfflineStore& store, LogForm form, const Output& output) {
    bool wanted = output(describe_store(store));
    uint64_t damages = 0;
    store.on_damage_found = [&](const char* area, const std::string& path, uint64_t offset, const std::string& text) {
        damages++;
        output(JsonLine("damage").string("area", area).string("device", path).number("offset", offset).string("text", text).take());
    };
    if (form == LogForm::pages) {
        store.on_log_page = [&](uint64_t offset, const PageHeader& header) {
            wanted = wanted && output(JsonLine("page")
                                          .number("page", header.page)
                                          .number("offset", offset)
                                          .number("write_sequence", header.write_sequence)
                                          .number("previous", header.previous)
                                          .number("durable", header.durable)
                                          .number("complete_page", header.complete_page)
                                          .number("used", header.used)
                                          .take());
        };
    } else {
        store.on_log_entry = [&](const EntryView& entry, uint64_t page) {
            if (!wanted) return;
            const EntryHeader& header = entry.header;
            JsonLine line("entry");
            line.number("page", page).string("type", type_name(header.type)).number("size", header.size);
            put_object(line, entry.object());
            line.number("version", header.version);
            if (header.type == EntryType::moved) put_redirects(line, store.geometry(), entry.redirects, header.count);
            if (header.type == EntryType::full) put_versions(line, store.geometry(), entry);
            if (header.type == EntryType::write) {
                const Geometry& geometry = store.geometry();
                line.boolean("stable", entry.has(kEntryStable)).boolean("create", entry.has(kEntryCreate));
                line.boolean("intent", entry.has(kEntryIntent));
                line.number("offset", uint64_t{header.first} * geometry.granularity);
                line.number("len", uint64_t{header.count} * geometry.granularity);
                if (header.decider) line.number("deciding_offset", uint64_t{entry.deciding_granule()} * geometry.granularity);
                if (entry.has(kEntryBlock)) line.number("block", entry.block);
                if (entry.has(kEntrySpare)) {
                    const Redirect run = entry.spare_run();
                    put_redirects(line, geometry, reinterpret_cast<const uint8_t*>(&run), 1);
                }
                if (entry.bitmap) line.hex("ext_bitmap", {entry.bitmap, geometry.bitmap_bytes});
                if (entry.crcs) line.hex("block_csums", {entry.crcs, 4 * size_t{header.count}});
            }
            wanted = output(line.take());
        };
    }
    Task<int> scanning = store.scan_log();
    const int status = co_await scanning;
    if (status < 0) co_return status;
    output(JsonLine("result")
               .number("pages", store.log_pages_read())
               .number("entries", store.log_entries_read())
               .number("damages", damages)
               .take());
    co_return 0;
}

}  // namespace vitastor::offline

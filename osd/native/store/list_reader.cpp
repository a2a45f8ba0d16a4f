// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/list_reader.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/crc32c.hpp"

namespace vitastor::store {

using runtime::Task;

namespace {

constexpr uint64_t kWindow = 4;        // the next page is at most that many places further (docs/formats/store.md 4)
constexpr uint32_t kMaxEntry = 256 << 20;

}  // namespace

bool is_log_page(const uint8_t* page, uint64_t uuid) {
    PageHeader header;
    memcpy(&header, page, sizeof(header));
    return header.magic == kPageMagic && header.uuid == uuid && header.used <= kPagePayload &&
           (header.first_entry == kNoEntry || header.first_entry < header.used) &&
           header.crc == crc32c(page + 8, kPageSize - 8);
}

ListReader::ListReader(Device& meta, const Geometry& geometry, uint64_t uuid, uint32_t pages_at_once)
    : meta_(meta), geometry_(geometry), uuid_(uuid), pages_at_once_(pages_at_once) {
    chunk_ = meta.loop().buffers().allocate(size_t{pages_at_once} * kPageSize);
}

/// Null: it cannot be read (status_) or is no page.
Task<const uint8_t*> ListReader::page_at(uint64_t page) {
    if (page < chunk_start_ || page >= chunk_start_ + chunk_pages_) {
        chunk_start_ = page;
        chunk_pages_ = std::min<uint64_t>(pages_at_once_, geometry_.log_pages - page);
        iovec iov{chunk_.data(), chunk_pages_ * kPageSize};
        reads++;
        Task<int> reading = meta_.read(&iov, 1, geometry_.log_offset + page * kPageSize);
        const int status = co_await reading;
        if (status < 0) {
            status_ = status;
            chunk_pages_ = 0;
            co_return nullptr;
        }
    }
    const uint8_t* data = chunk_.data() + (page - chunk_start_) * kPageSize;
    co_return is_log_page(data, uuid_) ? data : nullptr;
}

/// The list, if the bytes are an entry that holds it.
bool ListReader::take(std::span<const uint8_t> bytes, const ObjectId& object, Version version, SumList& list) const {
    EntryView entry;
    if (!decode_entry(geometry_, bytes, entry) || entry.object() != object || entry.header.version != version) return false;
    const uint8_t* sums;
    const bool is_list = entry.header.type == EntryType::write || (entry.header.type == EntryType::full && entry.header.count == 1);
    if (!is_list) return false;
    list.bits.assign(geometry_.bitmap_bytes, 0);
    uint32_t count = entry.header.count;
    if (entry.header.type == EntryType::full) {
        VersionHeader header;
        memcpy(&header, entry.versions, sizeof(header));
        const uint8_t* bits = entry.versions + sizeof(header) + geometry_.bitmap_bytes;
        list.bits.assign(bits, bits + geometry_.bitmap_bytes);
        sums = bits + geometry_.bitmap_bytes + header.redirects * sizeof(Redirect);
        count = 0;
        for (const uint8_t byte : list.bits) count += static_cast<uint32_t>(std::popcount(byte));
    } else {
        for (uint32_t granule = entry.header.first; granule < entry.header.first + count; granule++)
            list.bits[granule / 8] = static_cast<uint8_t>(list.bits[granule / 8] | (1u << (granule % 8)));
        sums = entry.crcs;
    }
    list.sums.resize(count);
    if (count > 0) memcpy(list.sums.data(), sums, 4 * size_t{count});
    return true;
}

Task<int> ListReader::read(uint32_t page, ObjectId object, Version version, SumList& list) {
    status_ = 0;
    if (page >= geometry_.log_pages) co_return -ENODATA;
    Task<const uint8_t*> reading = page_at(page);
    const uint8_t* data = co_await reading;
    if (!data) co_return status_ < 0 ? status_ : -ENODATA;
    PageHeader header;
    memcpy(&header, data, sizeof(header));
    const uint8_t* payload = data + sizeof(header);
    std::vector<uint8_t> cut;
    bool has_list = false;  // the last one counts: an object that was deleted may have come back with the same version
    for (uint32_t position = header.first_entry; position < header.used;) {  // none: 0xffff
        const uint32_t left = header.used - position;
        uint32_t size = 0;
        if (left >= sizeof(size)) memcpy(&size, payload + position, sizeof(size));
        if (left < sizeof(size) || size > left) {
            EntryHeader start{};
            memcpy(&start, payload + position, std::min<size_t>(left, sizeof(start)));
            if (left < sizeof(start) || ObjectId{start.inode, start.stripe} == object) cut.assign(payload + position, payload + header.used);
            break;
        }
        if (size < sizeof(EntryHeader)) co_return -ENODATA;
        has_list = take({payload + position, size}, object, version, list) || has_list;
        position += size;
    }
    // The last one goes on in the next pages.
    uint64_t place = page;
    while (!cut.empty()) {
        bool found = false;
        for (uint64_t i = 1; i <= kWindow && !found; i++) {
            const uint64_t next = (page + i) % geometry_.log_pages;
            Task<const uint8_t*> going_on = page_at(next);
            data = co_await going_on;
            if (!data) continue;
            PageHeader other;
            memcpy(&other, data, sizeof(other));
            if (other.page != header.page + 1 || other.previous != header.write_sequence) continue;
            header = other;
            place = next;
            found = true;
        }
        if (!found) break;
        page = static_cast<uint32_t>(place);
        const uint32_t more = header.first_entry == kNoEntry ? header.used : header.first_entry;
        cut.insert(cut.end(), data + sizeof(header), data + sizeof(header) + more);
        uint32_t size = 0;
        if (cut.size() >= sizeof(size)) memcpy(&size, cut.data(), sizeof(size));
        if (size > kMaxEntry) break;
        if (size && cut.size() >= size) {
            if (cut.size() == size) has_list = take(cut, object, version, list) || has_list;
            break;
        }
        if (header.first_entry != kNoEntry || more == 0) break;
    }
    if (has_list) co_return 0;
    co_return status_ < 0 ? status_ : -ENODATA;
}

}  // namespace vitastor::store

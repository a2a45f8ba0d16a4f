// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/salvage.hpp"

#include <bit>
#include <cstring>

#include "base/crc32c.hpp"

namespace vitastor::store {

namespace {

constexpr size_t kMaxNamed = 1000;  // objects in the log; beyond, their number
constexpr uint32_t kMaxEntryBytes = 256 << 20;

using Number = unsigned long long;

/// Turns the one bit back that makes the checksum of a page wrong. False: it is not one bit. At this length CRC-32C tells any two
/// bits from one.
bool repair_single_bit(std::vector<uint8_t>& page) {
    constexpr size_t kStart = 8;  // the checksum covers the page from here
    uint32_t stored;
    memcpy(&stored, page.data() + 4, sizeof(stored));
    const uint32_t wrong = stored ^ crc32c(page.data() + kStart, page.size() - kStart);
    if (wrong == 0 || std::popcount(wrong) == 1) return true;  // magic or checksum themselves
    // What a byte changes in the checksum when it is the last one; each byte behind it shifts that on.
    uint32_t effect[256];
    const uint8_t zero = 0;
    for (uint32_t i = 0; i < 256; i++) {
        const auto byte = static_cast<uint8_t>(i);
        effect[i] = crc32c(&byte, 1) ^ crc32c(&zero, 1);
    }
    uint32_t bits[8];
    for (uint32_t bit = 0; bit < 8; bit++) bits[bit] = effect[1u << bit];
    for (size_t place = page.size(); place-- > kStart;) {
        for (uint32_t bit = 0; bit < 8; bit++) {
            if (bits[bit] == wrong) {
                page[place] ^= static_cast<uint8_t>(1u << bit);
                return true;
            }
            bits[bit] = (bits[bit] >> 8) ^ effect[bits[bit] & 0xff];
        }
    }
    return false;
}

}  // namespace

Salvage::Salvage(const Geometry& geometry, const std::string& path, Logger& logger)
    : geometry_(geometry), path_(path), logger_(logger) {}

void Salvage::on_entry(const EntryView& entry, uint64_t, bool applied) {
    const bool complete = entry.header.type == EntryType::full || entry.header.type == EntryType::del ||
                          entry.header.type == EntryType::tombstone ||
                          (entry.header.type == EntryType::write && entry.has(kEntryCreate));
    if (complete) {
        if (!touched_.empty()) touched_.erase(entry.object());
        if (!unknown_.empty()) unknown_.erase(entry.object());
    } else if (!applied) {
        unknown_.insert(entry.object());
    }
}

bool Salvage::on_damage(uint64_t offset, const std::string& text) {
    log(logger_, LogLevel::error, "%s: %s", path_.c_str(), text.c_str());
    if (offset >= geometry_.log_offset) damages_++;  // of two checkpoints one may be half written
    return true;
}

void Salvage::on_cut_entry(std::span<const uint8_t> start) {
    EntryHeader header;
    if (start.size() < sizeof(header)) {
        names_are_missing_ = names_are_missing_ || !start.empty();
        return;
    }
    memcpy(&header, start.data(), sizeof(header));
    touched_.insert({header.inode, header.stripe});
}

void Salvage::on_lost(std::span<const uint8_t> bytes) {
    // One bit: the names are what they were. More: those that can be read may be wrong themselves.
    std::vector<uint8_t> page(bytes.begin(), bytes.end());
    const uint32_t magic = kPageMagic;
    if (!repair_single_bit(page)) names_are_missing_ = true;
    else memcpy(page.data(), &magic, sizeof(magic));
    PageHeader header;
    memcpy(&header, page.data(), sizeof(header));
    if (header.magic != kPageMagic || header.used > kPagePayload ||
        (header.first_entry != kNoEntry && header.first_entry >= header.used)) {
        names_are_missing_ = true;
        return;
    }
    const auto payload = std::span<const uint8_t>(page).subspan(sizeof(header), header.used);
    size_t position = header.first_entry == kNoEntry ? payload.size() : header.first_entry;
    while (position < payload.size()) {
        const std::span<const uint8_t> rest = payload.subspan(position);
        EntryHeader start;
        if (rest.size() < sizeof(start)) break;  // its header goes on in the next page
        memcpy(&start, rest.data(), sizeof(start));
        EntryView entry;
        const bool plausible = start.size <= rest.size() ? decode_entry(geometry_, rest.first(start.size), entry)
                                                         : start.size <= kMaxEntryBytes;
        if (start.size < sizeof(start) || !plausible) {
            names_are_missing_ = true;
            return;
        }
        touched_.insert({start.inode, start.stripe});
        position += start.size;
    }
    names_are_missing_ = names_are_missing_ || (position < payload.size());
}

void Salvage::settle() {
    touched_.insert(unknown_.begin(), unknown_.end());
    unknown_.clear();
}

void Salvage::report(const char* verb) const {
    size_t named = 0;
    for (const ObjectId& object : touched_) {
        if (++named > kMaxNamed) break;
        log(logger_, LogLevel::error, "%s: object %llx:%llx is touched by damaged metadata: %s", path_.c_str(),
            Number(object.inode), Number(object.stripe), verb);
    }
    if (touched_.size() > kMaxNamed)
        log(logger_, LogLevel::error, "%s: and %llu more objects", path_.c_str(), Number(touched_.size() - kMaxNamed));
    if (names_are_missing_)
        log(logger_, LogLevel::error, "%s: some of the damaged metadata cannot be read: further objects, whose names are lost, may be "
                                      "missing or old. If other copies of the data exist, replace this OSD", path_.c_str());
}

}  // namespace vitastor::store

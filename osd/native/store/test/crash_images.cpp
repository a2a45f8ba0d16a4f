// SPDX-License-Identifier: GPL-2.0-or-later
#include "crash_images.hpp"

#include <algorithm>
#include <cstring>

namespace vitastor::test {

namespace {

constexpr uint64_t kPage = 4096;

uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

}  // namespace

CrashImages::CrashImages(std::map<std::string, FakeDisk>& work, DiskBytes start) : work_(work) {
    for (auto& [name, bytes] : start) {
        Disk disk;
        disk.name = name;
        disk.start = bytes;
        disk.durable = std::move(bytes);
        disks_.push_back(std::move(disk));
    }
    for (Disk& disk : disks_) {
        disk.fake = &work_.at(disk.name);
        disk.work = &work_.at(disk.name).current;
        *disk.work = disk.start;
    }
}

void CrashImages::set_start(const DiskBytes& start) {
    for (Disk& disk : disks_) disk.start = disk.durable = *disk.work = start.at(disk.name);
}

CrashImages::Disk& CrashImages::disk_named(const std::string& name) {
    for (Disk& disk : disks_)
        if (disk.name == name) return disk;
    VITASTOR_ASSERT(false);
    return disks_[0];
}

void CrashImages::touch(const std::vector<DiskEvent>& trace) {
    for (const DiskEvent& event : trace)
        if (event.kind == DiskEvent::Kind::write_issued) touch(event.disk, event.offset, event.length);
}

uint64_t CrashImages::cell_hash(const Disk& disk, uint64_t offset, const uint8_t* data, uint64_t size) {
    uint64_t sum = 0;
    for (uint64_t at = 0; at < size; at += 512) {
        uint64_t hash = mix(offset + at + 1) + disk.name.size() * 0x1234567;
        for (uint64_t i = 0; i < 512; i += 8) {
            uint64_t word;
            memcpy(&word, data + at + i, 8);
            hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
            hash ^= hash >> 29;
        }
        sum ^= mix(hash);
    }
    return sum;
}

void CrashImages::make_durable(const Write& write) {
    Disk& disk = disk_named(write.event->disk);
    const uint64_t offset = write.event->offset;
    durable_hash_ ^= cell_hash(disk, offset, disk.durable.data() + offset, write.length);
    memcpy(disk.durable.data() + offset, write.event->data.data(), write.length);
    memcpy(disk.work->data() + offset, write.event->data.data(), write.length);
    durable_hash_ ^= cell_hash(disk, offset, disk.durable.data() + offset, write.length);
    durable_touched_.push_back({&disk, offset, write.length});
}

void CrashImages::walk(const std::vector<DiskEvent>& trace, bool volatile_disks, const CrashLimits& limits, Random& random,
                       const Visit& visit) {
    trace_ = &trace;
    cached_.clear();
    flying_.clear();
    flushes_.clear();
    seen_.clear();
    durable_hash_ = 0;
    snapshot_ = 0;
    bool go = true;
    for (position_ = 0; position_ <= trace.size() && go; position_++) {
        bool changed = true;
        if (position_ > 0) {
            const DiskEvent& event = trace[position_ - 1];
            const auto of_event = [&event](const Write& write) { return write.event->id == event.id; };
            switch (event.kind) {
                case DiskEvent::Kind::write_issued: flying_.push_back({&event, event.length}); break;
                case DiskEvent::Kind::write_done: {
                    const auto place = std::find_if(flying_.begin(), flying_.end(), of_event);
                    VITASTOR_ASSERT(place != flying_.end());
                    Write write = *place;
                    flying_.erase(place);
                    write.length = event.length;
                    if (volatile_disks) cached_.push_back(write);
                    else make_durable(write);
                    break;
                }
                case DiskEvent::Kind::flush_issued:
                    flushes_[event.id] = static_cast<size_t>(
                        std::count_if(cached_.begin(), cached_.end(), [&](const Write& write) { return write.event->disk == event.disk; }));
                    changed = false;
                    break;
                case DiskEvent::Kind::flush_done: {
                    size_t left = flushes_[event.id];
                    for (size_t i = 0; i < cached_.size() && left > 0;) {
                        if (cached_[i].event->disk != event.disk) {
                            i++;
                            continue;
                        }
                        make_durable(cached_[i]);
                        cached_.erase(cached_.begin() + static_cast<ptrdiff_t>(i));
                        left--;
                    }
                    break;
                }
                case DiskEvent::Kind::mark: snapshot_ = event.id; break;
            }
        }
        if (changed) go = visit_point(limits, random, visit);
    }
    for (const Range& range : durable_touched_) {
        memcpy(range.disk->durable.data() + range.offset, range.disk->start.data() + range.offset, range.length);
        memcpy(range.disk->work->data() + range.offset, range.disk->start.data() + range.offset, range.length);
    }
    durable_touched_.clear();
}

std::vector<CrashImages::Unit> CrashImages::uncertain() const {
    std::vector<Unit> units;
    std::map<std::pair<const Disk*, uint64_t>, int> places;
    size_t number = 0;
    for (const std::vector<Write>* list : {&cached_, &flying_}) {
        for (const Write& write : *list) {
            Disk& disk = const_cast<CrashImages*>(this)->disk_named(write.event->disk);
            for (uint64_t at = 0, next = 0; at < write.length; at = next) {
                const uint64_t offset = write.event->offset + at;
                next = std::min<uint64_t>(at + disk.fake->unit_end(offset) - offset, write.length);
                const auto size = static_cast<uint32_t>(next - at);
                const uint8_t* data = write.event->data.data() + at;
                // It does not matter whether a sector arrives that changes nothing.
                if (!places.count({&disk, offset}) && memcmp(disk.durable.data() + offset, data, size) == 0) continue;
                places[{&disk, offset}]++;
                units.push_back({&disk, offset, data, size, number});
            }
            number++;
        }
    }
    return units;
}

bool CrashImages::may_be_ruined(const Unit& unit) const {
    return unit.disk->name == ruin.disk && unit.offset >= ruin.from && unit.offset + unit.size <= ruin.to;
}

/// What is there of a unit that was not lost.
const uint8_t* CrashImages::bytes_of(size_t unit) const {
    static const std::vector<uint8_t> noise = [] {
        std::vector<uint8_t> bytes(65536);
        Random random(4711);
        for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
        return bytes;
    }();
    return fates_[unit] == Fate::ruined ? noise.data() : units_[unit].data;
}

/// Whole writes kept or lost, or each up to some sector, or pages of it, or sectors as it comes.
void CrashImages::draw_fates(Random& random) {
    const size_t writes = units_.back().write + 1;
    const uint64_t form = random.below(10);
    std::vector<size_t> sizes(writes), until(writes), seen(writes);
    for (const Unit& unit : units_) sizes[unit.write]++;
    for (size_t i = 0; i < writes; i++) until[i] = form < 3 ? (random.chance(50) ? sizes[i] : 0) : random.below(sizes[i] + 1);
    const uint32_t percent = 10 + static_cast<uint32_t>(random.below(81));
    bool is_kept = false;
    for (size_t i = 0; i < units_.size(); i++) {
        const Unit& unit = units_[i];
        const bool goes_on = i > 0 && units_[i - 1].write == unit.write && units_[i - 1].offset / kPage == unit.offset / kPage;
        if (form < 5) is_kept = seen[unit.write]++ < until[unit.write];
        else if (form >= 8 || !goes_on) is_kept = random.chance(percent);
        fates_[i] = is_kept ? Fate::kept : Fate::lost;
    }
}

bool CrashImages::visit_point(const CrashLimits& limits, Random& random, const Visit& visit) {
    points++;
    units_ = uncertain();
    fates_.assign(units_.size(), Fate::lost);
    if (units_.size() <= limits.exhaustive_units) {
        for (uint64_t mask = 0; mask < uint64_t{1} << units_.size(); mask++) {
            for (size_t i = 0; i < units_.size(); i++) fates_[i] = mask >> i & 1 ? Fate::kept : Fate::lost;
            if (!try_choice(visit)) return false;
        }
    } else {
        sampled++;
        for (uint32_t sample = 0; sample < limits.samples + 2; sample++) {
            if (sample < 2) fates_.assign(units_.size(), sample ? Fate::kept : Fate::lost);
            else draw_fates(random);
            if (!try_choice(visit)) return false;
        }
    }
    bool is_any = false;
    for (size_t i = 0; i < units_.size(); i++) {
        fates_[i] = random.chance(50) ? Fate::kept : Fate::lost;
        if (!may_be_ruined(units_[i]) || (is_any && random.chance(50))) continue;
        fates_[i] = Fate::ruined;
        is_any = true;
    }
    return !is_any || try_choice(visit);
}

bool CrashImages::try_choice(const Visit& visit) {
    uint64_t hash = durable_hash_;
    for (size_t i = 0; i < units_.size(); i++) {
        if (fates_[i] == Fate::lost) continue;
        const Unit& unit = units_[i];
        uint8_t* place = unit.disk->work->data() + unit.offset;
        hash ^= cell_hash(*unit.disk, unit.offset, place, unit.size);
        memcpy(place, bytes_of(i), unit.size);
        hash ^= cell_hash(*unit.disk, unit.offset, place, unit.size);
        work_touched_.push_back({unit.disk, unit.offset, unit.size});
    }
    bool go = true;
    if (seen_.insert(hash ^ mix(snapshot_ + 77)).second) {
        images++;
        go = visit(snapshot_);
    }
    for (const Range& range : work_touched_)
        memcpy(range.disk->work->data() + range.offset, range.disk->durable.data() + range.offset, range.length);
    work_touched_.clear();
    return go;
}

void CrashImages::copy_image(DiskBytes& out) const {
    for (const Disk& disk : disks_) out[disk.name] = disk.durable;
    for (size_t i = 0; i < units_.size(); i++)
        if (fates_[i] != Fate::lost) memcpy(out[units_[i].disk->name].data() + units_[i].offset, bytes_of(i), units_[i].size);
}

std::string CrashImages::where() const {
    std::string text = "power failure at event " + std::to_string(position_) + " of " + std::to_string(trace_->size());
    if (position_ > 0) {
        const DiskEvent& event = (*trace_)[position_ - 1];
        constexpr const char* kNames[] = {"write issued", "write done", "flush issued", "flush done", "answer or submission"};
        text += std::string(", after ") + kNames[static_cast<size_t>(event.kind)];
        if (event.kind != DiskEvent::Kind::mark)
            text += " " + event.disk + " at " + std::to_string(event.offset) + " length " + std::to_string(event.length);
    }
    if (units_.empty()) return text + ", nothing uncertain";
    text += ", uncertain sectors (+ kept, - lost, ! ruined):";
    for (size_t i = 0; i < units_.size() && i < 40; i++)
        text += std::string(fates_[i] == Fate::kept ? " +" : fates_[i] == Fate::lost ? " -" : " !") + units_[i].disk->name + "@" + std::to_string(units_[i].offset);
    if (units_.size() > 40) text += " ...";
    return text;
}

}  // namespace vitastor::test

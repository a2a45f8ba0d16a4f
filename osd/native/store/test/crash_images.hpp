// SPDX-License-Identifier: GPL-2.0-or-later
// Every state of the disks that a power failure could have left, made from one trace of what happened to them.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <unordered_set>
#include <vector>

#include "fake_disk.hpp"

namespace vitastor::test {

using DiskBytes = std::map<std::string, std::vector<uint8_t>>;

struct CrashLimits {
    uint32_t exhaustive_units = 4;  ///< up to that many uncertain sectors: every choice of them
    uint32_t samples = 4;           ///< more: none, all, and that many random choices
    uint32_t thorough_percent = 8;  ///< of the images: the store is used after the recovery, and opened again
};

/// Where a sector that was being written when the power failed may hold anything afterwards, not only what was there or what was to be.
struct RuinRange {
    std::string disk;
    uint64_t from = 0, to = 0;  ///< bytes
};

/// Walks through traces that begin with the same contents. What is durable at a point of the trace is certain; of every write in flight
/// or in a volatile cache each sector may have arrived or not.
class CrashImages {
public:
    /// work: disks that receive the images; their sizes are those of start.
    CrashImages(std::map<std::string, FakeDisk>& work, DiskBytes start);
    void set_start(const DiskBytes& start);
    RuinRange ruin;

    /// Calls `visit` with each different image in `work` (snapshot: number of the last mark). `visit` may change `work`, and names what
    /// it has changed with touch(). It returns false to stop. volatile_disks: completed writes are durable only after a flush.
    using Visit = std::function<bool(uint64_t snapshot)>;
    void walk(const std::vector<DiskEvent>& trace, bool volatile_disks, const CrashLimits& limits, Random& random, const Visit& visit);
    void touch(const std::string& disk, uint64_t offset, uint64_t length) { work_touched_.push_back({&disk_named(disk), offset, length}); }
    void touch(const std::vector<DiskEvent>& trace);

    /// The image at hand as it was before `visit` changed it.
    void copy_image(DiskBytes& out) const;
    std::string where() const;  ///< of the image at hand, for messages
    uint64_t points = 0;        ///< places in traces at which something could be lost or a promise changed
    uint64_t images = 0;        ///< different ones that were visited
    uint64_t sampled = 0;       ///< points at which not every choice was made

private:
    struct Disk {
        std::string name;
        std::vector<uint8_t> start, durable;
        std::vector<uint8_t>* work = nullptr;
        const FakeDisk* fake = nullptr;
    };
    struct Write {
        const DiskEvent* event;
        uint64_t length;
    };
    struct Unit {  ///< a sector that may have arrived
        Disk* disk;
        uint64_t offset;
        const uint8_t* data;
        uint32_t size;
        size_t write;
    };
    struct Range {
        Disk* disk;
        uint64_t offset, length;
    };
    Disk& disk_named(const std::string& name);
    void make_durable(const Write& write);
    std::vector<Unit> uncertain() const;
    bool visit_point(const CrashLimits& limits, Random& random, const Visit& visit);
    void draw_fates(Random& random);
    bool may_be_ruined(const Unit& unit) const;
    const uint8_t* bytes_of(size_t unit) const;
    bool try_choice(const Visit& visit);
    static uint64_t cell_hash(const Disk& disk, uint64_t offset, const uint8_t* data, uint64_t size);

    std::vector<Disk> disks_;
    std::map<std::string, FakeDisk>& work_;
    std::vector<Write> cached_, flying_;
    std::map<uint64_t, size_t> flushes_;
    std::vector<Range> durable_touched_, work_touched_;
    uint64_t durable_hash_ = 0;
    uint64_t snapshot_ = 0;
    size_t position_ = 0;
    std::vector<Unit> units_;    ///< of the point at hand
    enum class Fate : uint8_t { lost, kept, ruined };
    std::vector<Fate> fates_;    ///< of the image at hand
    const std::vector<DiskEvent>* trace_ = nullptr;
    std::unordered_set<uint64_t> seen_;
};

}  // namespace vitastor::test

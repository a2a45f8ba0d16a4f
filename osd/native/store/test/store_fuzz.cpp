// SPDX-License-Identifier: GPL-2.0-or-later
// Fuzz target of everything that a store reads from its disks. An input is a choice of one of some good stores, and a list of changes to
// its bytes: superblock, checkpoints, log pages, single entries (with the checksum made right again, so that what is behind it is reached),
// whole pages, data. Then the store is opened, read, written to, closed and opened again. It may refuse; it may answer errors. It must not
// abort, hang, or show data that was never written (where data or pages were changed without a right checksum, and granules have theirs).
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/crc32c.hpp"
#include "rig.hpp"
#include "store/store_format.hpp"

namespace vitastor::test {
namespace {

constexpr uint32_t kObjects = 12;
constexpr uint64_t kMaxTurns = 200000;  // of the loop for one wait; an ordinary open takes a few hundred
constexpr unsigned kMaxSeconds = 60;    // for one input, also under sanitizers on a busy machine

/// One change, 8 bytes of the input.
struct Change {
    uint8_t kind, where;
    uint16_t place;
    uint32_t value;
};
static_assert(sizeof(Change) == 8);
constexpr size_t kMaxChanges = 24;

constexpr uint64_t kEdges[] = {0, 1, 2, 4, 7, 8, 9, 39, 40, 63, 64, 4031, 4032, 4095, 4096, 0x7fff, 0x8000, 0xffff, 0x10000,
                               0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffffffff, ~0ull - 4095, ~0ull};

/// Printed at the end with VITASTOR_FUZZ_STATS in the environment: whether inputs get as far as they should.
struct Stats {
    uint64_t opened = 0, refused = 0, opened_forged = 0;
    ~Stats() {
        if (getenv("VITASTOR_FUZZ_STATS"))
            fprintf(stderr, "%llu opened (%llu of them with forged metadata), %llu refused\n", static_cast<unsigned long long>(opened),
                    static_cast<unsigned long long>(opened_forged), static_cast<unsigned long long>(refused));
    }
} stats;

class Base {
public:
    explicit Base(uint32_t number) : rig_(number + 1) {
        rig_.options.checksums = number != 1;
        if (number == 2) rig_.options.meta_device = "meta";
        rig_.options.disable_data_fsync = rig_.options.disable_meta_fsync = number != 3;
        if (number == 4) {
            rig_.options.block_size = 131072;
            rig_.options.bitmap_granularity = 512;
        }
        rig_.make_disks(uint64_t{rig_.options.block_size} * 24 + (4 << 20), number == 2 ? 4 << 20 : 0);
        wait_open();
        rig_.close();
        if (number >= 3) rig_.make_log_small();
        if (number >= 3) rig_.move_log_to_end();
        wait_open();
        fill(number);
        if (number == 3) {  // the power fails: announced writes are open, the volatile cache is lost
            std::vector<std::unique_ptr<TestOp>> ops;
            for (uint32_t i = 0; i < 4; i++) ops.push_back(rig_.write(id(i), 90, 1 + i, 1, 9000 + 50 * i));
            for (auto& op : ops) rig_.start(*op);
            for (int i = 0; i < 24; i++) rig_.loop.run_once(0);
            for (uint32_t i = 0; i < 4; i++) remember(i, 90, 1 + i, 1, 9000 + 50 * i);
            rig_.loop.crash();
            rig_.loop.drain();
            rig_.close();
            rig_.loop.restart();
            for (auto& [name, disk] : rig_.loop.disks) disk.is_volatile = false;
            unclean_ = true;
        } else {
            rig_.close();
        }
        for (auto& [name, disk] : rig_.loop.disks) good_[name] = disk.current;
        find_pages();
        rig_.loop.trace = &trace_;
    }

    void run(const Change* changes, size_t count) {
        trace_.clear();
        touched_.clear();
        rig_.loop.reseed(count);
        is_forged_ = false;
        for (size_t i = 0; i < count; i++) apply(changes[i]);
        if (wait_open() == 0) {
            stats.opened++;
            stats.opened_forged += is_forged_;
            std::vector<OracleObject> found = look();
            use(found);
            rig_.close();
            // What it accepted and changed, it must accept again, and show as it was.
            const int status = wait_open();
            if (!is_forged_) {
                VITASTOR_ASSERT(status == 0);
                const std::vector<OracleObject> again = look();
                for (uint32_t i = 0; i < kObjects; i++) VITASTOR_ASSERT(again[i].size() == found[i].size());
            }
        } else {
            stats.refused++;
            VITASTOR_ASSERT(!rig_.store->error().empty());
        }
        rig_.close();
        for (const DiskEvent& event : trace_)
            if (event.kind == DiskEvent::Kind::write_issued) restore(event.disk, event.offset, event.length);
        for (const auto& [disk, offset, length] : touched_) restore(disk, offset, length);
    }

private:
    struct Place {
        std::string disk;
        uint64_t offset, length;
    };
    ObjectId id(uint32_t number) const { return object_id(1 + number % 2, number, rig_.options.block_size); }
    bool shared() const { return rig_.options.meta_device.empty(); }
    std::string meta_name() const { return shared() ? "data" : "meta"; }
    uint8_t* meta() { return rig_.loop.disks[meta_name()].current.data(); }

    template <class Done>
    void wait(const Done& done) {
        for (uint64_t turns = 0; !done(); turns++) {
            VITASTOR_ASSERT(turns < kMaxTurns);  // it hangs
            rig_.loop.run_once(0);
        }
    }
    int wait_open() {
        rig_.store = create_store(rig_.loop, rig_.options, rig_.logger);
        struct Done : runtime::Completion {
            int64_t result = 1;
        } done;
        done.on_done = [](runtime::Completion* self, int64_t result) { static_cast<Done*>(self)->result = result; };
        rig_.store->open(done);
        wait([&done] { return done.result != 1; });
        if (done.result == 0) rig_.store->set_pool_pgs(1, 1, rig_.options.block_size);
        return static_cast<int>(done.result);
    }
    int64_t run_op(TestOp& op) {
        rig_.start(op);
        wait([&op] { return op.done; });
        return op.result;
    }

    // ---- the good store

    void remember(uint32_t number, Version version, uint32_t first, uint32_t count, uint32_t tag) {
        std::vector<uint32_t> granules(rig_.granules());
        if (!written_[number].empty()) granules = std::prev(written_[number].end())->second;
        for (uint32_t i = 0; i < count; i++) granules[first + i] = tag + i;
        written_[number][version] = granules;
    }
    void write(uint32_t number, Version version, uint32_t first, uint32_t count, bool stable) {
        const uint32_t tag = 100 + static_cast<uint32_t>(number * 100000 + version * 1000);
        auto op = rig_.write(id(number), version, first, count, tag, stable);
        VITASTOR_ASSERT(run_op(*op) == op->len);
        remember(number, version, first, count, tag);
    }
    void fill(uint32_t number) {
        const uint32_t granules = rig_.granules();
        for (uint32_t i = 0; i < kObjects; i++) {
            if (i % 5 == 4) continue;
            write(i, 1, 0, granules - i % 3, true);
            write(i, 2, 3, 1, true);
            if (i % 3 == 0) write(i, 3, 1, 3, true);
            if (i % 4 == 1) write(i, 5, 2, 2, false);
            if (i % 4 == 1) write(i, 7, 4, 1, false);
            if (i == 5) run_op(*rig_.simple(StoreOp::stabilize, id(i), 5));
            if (i == 9) run_op(*rig_.simple(StoreOp::rollback, id(i), 5));
            if (i == 6) run_op(*rig_.simple(StoreOp::del, id(i), 9));
        }
        for (Version version = 10; version < (number >= 3 ? 30 : 13); version++) {
            write(0, version, 5, 1, true);
            write(2, version, 0, granules, true);
        }
        run_op(*rig_.simple(StoreOp::sync, {}, 0));
    }

    /// Where the pages of the log are, and which entries begin and end inside one.
    void find_pages() {
        Superblock super;
        memcpy(&super, meta(), sizeof(super));
        log_offset_ = super.log_offset;
        log_pages_ = super.log_pages;
        for (uint64_t i = 0; i < log_pages_; i++) {
            PageHeader header;
            memcpy(&header, meta() + log_offset_ + i * kPageSize, sizeof(header));
            if (header.magic != kPageMagic || header.uuid != super.uuid) continue;
            pages_.push_back(i);
            uint32_t at = header.first_entry;
            while (at < header.used && header.used - at >= sizeof(EntryHeader)) {
                EntryHeader entry;
                memcpy(&entry, meta() + log_offset_ + i * kPageSize + sizeof(header) + at, sizeof(entry));
                if (entry.size < sizeof(entry) || entry.size > header.used - at) break;
                entries_.push_back({i, at, entry.size});
                at += entry.size;
            }
        }
        VITASTOR_ASSERT(!pages_.empty() && !entries_.empty());
    }

    // ---- changes

    void restore(const std::string& disk, uint64_t offset, uint64_t length) {
        memcpy(rig_.loop.disks[disk].current.data() + offset, good_[disk].data() + offset, length);
    }
    uint8_t* change(const std::string& disk, uint64_t offset, uint64_t length) {
        touched_.push_back({disk, offset, length});
        return rig_.loop.disks[disk].current.data() + offset;
    }
    /// Sets, flips or adds to a field of 1 … 8 bytes inside [0, length) of data.
    static void put(uint8_t* data, size_t length, const Change& change, size_t position) {
        const size_t width = size_t{1} << (change.where >> 2 & 3);
        if (width > length) return;
        position = std::min(position, length - width) / width * width;
        uint64_t value = 0;
        memcpy(&value, data + position, width);
        switch (change.where & 3) {
            case 0: value = kEdges[change.value % std::size(kEdges)]; break;
            case 1: value ^= uint64_t{1} << change.value % (width * 8); break;
            case 2: value += static_cast<uint64_t>(static_cast<int32_t>(change.value % 9) - 4); break;
            default: value = change.value; break;
        }
        memcpy(data + position, &value, width);
    }
    bool forges(const Change& change) {
        if (change.where & 0x80) return false;  // as rot on the disk would leave it
        is_forged_ = true;
        return true;
    }
    void change_page(uint64_t number, const Change& c, size_t from, size_t length, size_t position) {
        uint8_t* page = change(meta_name(), log_offset_ + number * kPageSize, kPageSize);
        put(page + from, length, c, position);
        if (!forges(c)) return;
        const uint32_t crc = crc32c(page + 8, kPageSize - 8);
        memcpy(page + 4, &crc, 4);
    }
    void apply(const Change& c) {
        const uint64_t page = pages_[c.place % pages_.size()];
        switch (c.kind % 9) {
            case 0: {  // superblock, or its copy on the data device
                uint8_t* super = change(c.where & 0x40 ? "data" : meta_name(), 0, kPageSize);
                put(super, 104, c, c.place % 104);
                if (!forges(c)) break;
                memset(super + 8, 0, 4);
                const uint32_t crc = crc32c(super, kPageSize);
                memcpy(super + 8, &crc, 4);
                break;
            }
            case 1: {
                uint8_t* checkpoint = change(meta_name(), (c.where & 0x40 ? 2 : 1) * kPageSize, kPageSize);
                put(checkpoint, 56, c, c.place % 56);
                if (!forges(c)) break;
                memset(checkpoint + 8, 0, 4);
                const uint32_t crc = crc32c(checkpoint, kPageSize);
                memcpy(checkpoint + 8, &crc, 4);
                break;
            }
            case 2: change_page(page, c, 0, sizeof(PageHeader), c.value >> 8 & 63); break;
            case 3: change_page(page, c, sizeof(PageHeader), kPagePayload, c.value >> 8 & 4095); break;
            case 4: {
                const Entry& entry = entries_[c.place % entries_.size()];
                change_page(entry.page, c, sizeof(PageHeader) + entry.at, entry.size, (c.value >> 8) % std::min(entry.size, 64u));
                break;
            }
            case 5: {
                const Entry& entry = entries_[c.place % entries_.size()];
                change_page(entry.page, c, sizeof(PageHeader) + entry.at, entry.size, (c.value >> 8) % entry.size);
                break;
            }
            case 6: {  // one page in the place of another; an empty one
                const uint64_t from = pages_[c.value % pages_.size()];
                std::array<uint8_t, kPageSize> copy;
                memcpy(copy.data(), meta() + log_offset_ + from * kPageSize, kPageSize);
                if (c.where & 0x40) copy.fill(static_cast<uint8_t>(c.where));
                memcpy(change(meta_name(), log_offset_ + page * kPageSize, kPageSize), copy.data(), kPageSize);
                break;
            }
            case 7: {  // data
                const uint64_t size = good_["data"].size(), room = uint64_t{rig_.options.block_size} * 24;
                const uint64_t offset = size - room + (uint64_t{c.place} * 512 + c.value % 512) % room;
                *change("data", offset, 1) ^= static_cast<uint8_t>(1 + c.where % 255);
                break;
            }
            default: {  // a granule in the place of another
                const uint64_t unit = rig_.options.bitmap_granularity, size = good_["data"].size() / unit;
                const uint64_t first = size - uint64_t{rig_.options.block_size} * 24 / unit;
                const uint64_t from = first + c.value % (size - first), to = first + c.place % (size - first);
                std::vector<uint8_t> copy(good_["data"].begin() + static_cast<ptrdiff_t>(from * unit),
                                          good_["data"].begin() + static_cast<ptrdiff_t>((from + 1) * unit));
                memcpy(change("data", to * unit, unit), copy.data(), unit);
                break;
            }
        }
    }

    // ---- using what was opened

    /// Everything that can be listed and read. Data that was never written at that version is a failure.
    std::vector<OracleObject> look() {
        struct Listed : ListOperation {
            bool finished = false;
        } listing;
        listing.range = {1, 1, full_inode(1, 0), full_inode(2, 0) - 1, 0, UINT64_MAX, 0};
        listing.on_done = [](ListOperation* self) { static_cast<Listed*>(self)->finished = true; };
        rig_.store->list(listing);
        wait([&listing] { return listing.finished; });
        for (const auto& entry : listing.listing.stable) read(entry.object, entry.version, nullptr);
        for (const auto& entry : listing.listing.unstable) read(entry.object, entry.version, nullptr);
        std::vector<OracleObject> found(kObjects);
        for (uint32_t i = 0; i < kObjects; i++) {
            Version limit = kNewestVersion;
            for (int versions = 0; limit > 0 && versions < 300; versions++) {
                const Version version = read(id(i), limit, &written_[i]);
                if (version == 0) break;
                OracleVersion one;
                one.version = version;
                found[i].insert(found[i].begin(), one);
                limit = version - 1;
            }
        }
        rig_.store->stats();
        rig_.store->space_by_inode();
        return found;
    }
    Version read(const ObjectId& object, Version limit, const std::map<Version, std::vector<uint32_t>>* written) {
        auto op = rig_.read(object, limit, 0, rig_.granules());
        const int64_t result = run_op(*op);
        VITASTOR_ASSERT(result == op->len || result < 0);
        if (result == -ENOENT) return 0;
        if (result < 0 || is_forged_ || !written || !rig_.options.checksums) return op->version;
        const auto place = written->find(op->version);
        if (place == written->end()) {
            VITASTOR_ASSERT(op->version >= 1000);  // written by use()
            return op->version;
        }
        for (uint32_t i = 0; i < rig_.granules(); i++)
            VITASTOR_ASSERT(read_granule(op->data + i * rig_.options.bitmap_granularity, rig_.options.bitmap_granularity) == place->second[i]);
        return op->version;
    }
    void use(std::vector<OracleObject>& found) {
        for (uint32_t i = 0; i < kObjects; i++) {
            const Version last = found[i].empty() ? 0 : found[i].back().version;
            const Version next = std::max<Version>(1000, last + 1);
            if (next == 0 || next == kNewestVersion) continue;
            // Errors are answers; what counts is that there is one.
            run_op(*rig_.simple(StoreOp::stabilize, id(i), last));
            run_op(*rig_.write(id(i), next, 2, 1, 70));
            run_op(*rig_.write(id(i), next + 1, 1, 3, 80));
            run_op(*rig_.write(id(i), next + 2, 0, 2, 90, false));
            if (i % 3 == 0) run_op(*rig_.write(id(i), next + 3, 0, rig_.granules(), 95));
            if (i % 4 == 0) run_op(*rig_.simple(StoreOp::rollback, id(i), next + 1));
            if (i % 5 == 0) run_op(*rig_.simple(StoreOp::del, id(i), next + 9));
        }
        run_op(*rig_.simple(StoreOp::sync, {}, 0));
        found = look();
    }

    struct Entry {
        uint64_t page;
        uint32_t at, size;
    };
    Rig rig_;
    std::map<std::string, std::vector<uint8_t>> good_;
    std::map<Version, std::vector<uint32_t>> written_[kObjects];
    std::vector<uint64_t> pages_;
    std::vector<Entry> entries_;
    uint64_t log_offset_ = 0, log_pages_ = 0;
    std::vector<DiskEvent> trace_;
    std::vector<Place> touched_;
    bool is_forged_ = false;
    bool unclean_ = false;
};

}  // namespace
}  // namespace vitastor::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace vitastor::test;
    constexpr uint32_t kBases = 5;
    static std::unique_ptr<Base> bases[kBases];
    if (size < 1) return 0;
    const uint32_t number = data[0] % kBases;
    alarm(kMaxSeconds);
    if (!bases[number]) bases[number] = std::make_unique<Base>(number);
    std::vector<Change> changes(std::min((size - 1) / sizeof(Change), kMaxChanges));
    if (!changes.empty()) memcpy(changes.data(), data + 1, changes.size() * sizeof(Change));
    bases[number]->run(changes.data(), changes.size());
    alarm(0);
    return 0;
}

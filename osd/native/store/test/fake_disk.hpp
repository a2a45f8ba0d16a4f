// SPDX-License-Identifier: GPL-2.0-or-later
// A Loop with disks in memory and nothing else, for tests of the store: one I/O completes per turn, in an order drawn from
// the seed. A disk may have a volatile cache; crash() keeps, loses or tears what is not durable, and from then on every
// operation fails until restart().
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "base/assert.hpp"
#include "runtime/loop.hpp"

namespace vitastor::test {

class Random {
public:
    explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull + 0x1234567) {}
    uint64_t next() {
        state_ += 0x9e3779b97f4a7c15ull;
        uint64_t x = state_;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
        return x ^ (x >> 31);
    }
    uint64_t below(uint64_t limit) { return next() % limit; }
    bool chance(uint32_t percent) { return below(100) < percent; }

private:
    uint64_t state_;
};

struct FakeDisk {
    std::vector<uint8_t> current;  ///< what reads see
    std::vector<uint8_t> durable;  ///< what survives a crash for sure
    struct Write {
        uint64_t offset;
        std::vector<uint8_t> data;
    };
    std::vector<Write> unflushed;  ///< completed, not durable
    bool is_volatile = false;
    bool locked = false;
    bool can_discard = false;  ///< a discarded range holds noise
    uint64_t small_sectors_below = UINT64_MAX;  ///< writes before this offset tear at 512 bytes, others at atomic_unit
    uint64_t atomic_unit = 4096;                ///< a power of two: what lies between two multiples of it is written whole or not at all
    /// End of the piece that begins at offset and cannot be torn.
    uint64_t unit_end(uint64_t offset) const {
        const uint64_t unit = offset < small_sectors_below ? 512 : atomic_unit;
        return offset / unit * unit + unit;
    }
    explicit FakeDisk(uint64_t size = 0) : current(size), durable(size) {}
};

/// What happened to the disks, in order: with it every state that a power failure could have left can be made afterwards.
struct DiskEvent {
    enum class Kind : uint8_t {
        write_issued,
        write_done,    ///< id as issued; length bytes of it (a transfer may be short)
        flush_issued,
        flush_done,    ///< id as issued: writes that were done before that are durable
        mark,          ///< of the test; id is its own
    };
    Kind kind{};
    uint64_t id = 0;
    std::string disk;
    uint64_t offset = 0;
    std::vector<uint8_t> data;  ///< of write_issued
    uint64_t length = 0;
};

class FakeLoop final : public runtime::Loop {
public:
    explicit FakeLoop(uint64_t seed) : random_(seed), buffers_(16 << 20) {}
    ~FakeLoop() override { VITASTOR_ASSERT(operations_.empty()); }

    std::map<std::string, FakeDisk> disks;
    uint64_t io_count = 0;              ///< I/Os completed
    uint64_t crash_at = UINT64_MAX;     ///< crash instead of completing that I/O (counted from 0)
    bool crashed = false;
    bool tear = true;
    std::vector<DiskEvent>* trace = nullptr;  ///< receives what happens to the disks
    uint64_t slowest_turn_ops = 0;
    int64_t (*fail_io)(const std::string& path, bool is_write, uint64_t offset, uint64_t length) = nullptr;

    /// From here on as if made with that seed.
    void reseed(uint64_t seed) { random_ = Random(seed); }
    /// Power failure: what is in flight or in a volatile cache is kept, lost or torn. Operations end with -EIO.
    void crash() {
        crashed = true;
        for (auto& [path, disk] : disks) {
            std::vector<FakeDisk::Write> writes = std::move(disk.unflushed);
            disk.unflushed.clear();
            for (auto& op : operations_)
                if ((op.kind == Kind::write || op.kind == Kind::discard) && &disk == &disk_of(op.file)) writes.push_back({op.offset, std::move(op.data)});
            for (const auto& write : writes) {
                const uint64_t mood = random_.below(3);  // all, nothing, or each sector as it comes
                for (uint64_t at = 0, next = 0; at < write.data.size(); at = next) {
                    next = std::min<uint64_t>(tear ? disk.unit_end(write.offset + at) - write.offset : UINT64_MAX, write.data.size());
                    if (mood == 1 || (mood == 2 && random_.chance(50))) continue;
                    memcpy(disk.durable.data() + write.offset + at, write.data.data() + at, next - at);
                }
            }
        }
    }
    /// Process killed, machine lives: what was completed stays visible.
    void restart() {
        VITASTOR_ASSERT(operations_.empty());
        if (crashed)
            for (auto& [path, disk] : disks) disk.current = disk.durable;
        crashed = false;
        crash_at = UINT64_MAX;
    }
    bool idle() { return operations_.empty() && deferred_.empty() && timers_.empty(); }
    /// Runs until nothing is left to do.
    void drain() {
        while (!idle()) run_once(0);
    }

    // ---- Loop
    uint64_t now_ns() const override { return now_; }
    uint64_t now_exact_ns() override { return now_; }
    uint64_t wall_us() override { return now_ / 1000; }
    uint64_t random_u64() override { return random_.next(); }
    void run_once(uint64_t) override {
        now_ += 1000;
        List<runtime::Deferred> ready;
        while (runtime::Deferred* deferred = deferred_.pop_front()) ready.push_back(deferred);
        bool any = false;
        while (runtime::Deferred* deferred = ready.pop_front()) {
            any = true;
            deferred->on_run(deferred);
        }
        if (any && (operations_.empty() || !random_.chance(25))) return;  // who defers for ever does not hold up the disks
        // Time jumps to the next timer when there is nothing else; now and then also while transfers take their time.
        if (operations_.empty() || (!timers_.empty() && random_.chance(2))) {
            if (timers_.empty()) return;
            auto next = std::min_element(timers_.begin(), timers_.end(), [](const runtime::Timer* a, const runtime::Timer* b) {
                return a->deadline_ns < b->deadline_ns;
            });
            runtime::Timer* timer = *next;
            timers_.erase(next);
            timer->heap_index = UINT64_MAX;
            now_ = std::max(now_, timer->deadline_ns);
            timer->on_fire(timer);
            return;
        }
        if (!crashed && io_count >= crash_at) crash();
        size_t index = random_.below(operations_.size());
        for (size_t i = 0; i < operations_.size() && operations_[index].not_before > io_count; i++) index = (index + 1) % operations_.size();
        Io op = std::move(operations_[index]);
        operations_.erase(operations_.begin() + static_cast<ptrdiff_t>(index));
        io_count++;
        const int64_t result = crashed ? -EIO : perform(op);
        op.completion->on_done(op.completion, result);
    }
    int poll_fd() override { return -1; }
    uint64_t next_deadline_ns() const override { return runtime::kNever; }
    void flush() override {}
    void defer(runtime::Deferred& deferred) override { deferred_.push_back(&deferred); }
    void register_notifier(runtime::Notifier&) override {}
    void unregister_notifier(runtime::Notifier&) override {}
    void notify(runtime::Notifier&) override {}
    void connect(const runtime::Address&, runtime::Completion&) override { VITASTOR_ASSERT(false); }
    Result<runtime::Socket> listen(const runtime::Address&, uint16_t*) override { return Status(-ENOSYS); }
    void accept(runtime::Socket, runtime::Completion&) override { VITASTOR_ASSERT(false); }
    void receive(runtime::Socket, const iovec*, int, runtime::Completion&) override { VITASTOR_ASSERT(false); }
    void send(runtime::Socket, const iovec*, int, runtime::Completion&) override { VITASTOR_ASSERT(false); }
    void close_socket(runtime::Socket) override {}
    void cancel(runtime::Completion&) override {}
    std::string peer_name(runtime::Socket) override { return {}; }
    std::vector<std::string> local_addresses() override { return {}; }

    Result<runtime::File> open_file(const std::string& path, const runtime::FileOptions& options) override {
        auto place = disks.find(path);
        if (place == disks.end()) return Status(-ENOENT, "no such file");
        if (options.lock_exclusive) {
            if (place->second.locked) return Status(-EBUSY, "locked");
            place->second.locked = true;
        }
        for (size_t i = 0; i < files_.size(); i++)
            if (files_[i].empty()) {
                files_[i] = path;
                return static_cast<runtime::File>(i);
            }
        files_.push_back(path);
        return static_cast<runtime::File>(files_.size() - 1);
    }
    runtime::FileInfo file_info(runtime::File file) override {
        runtime::FileInfo info;
        info.size_bytes = disk_of(file).current.size();
        info.is_direct = true;
        info.can_discard = disk_of(file).can_discard;
        return info;
    }
    void read(runtime::File file, const iovec* iov, int count, uint64_t offset, runtime::Completion& done) override {
        Io op{Kind::read, file, offset, {}, {iov, iov + count}, 0, &done, 0, slowness()};
        operations_.push_back(std::move(op));
    }
    void write(runtime::File file, const iovec* iov, int count, uint64_t offset, runtime::Completion& done) override {
        Io op{Kind::write, file, offset, {}, {}, 0, &done, ++last_id_, slowness()};
        for (int i = 0; i < count; i++) {
            const auto* data = static_cast<const uint8_t*>(iov[i].iov_base);
            VITASTOR_ASSERT(reinterpret_cast<uintptr_t>(data) % 512 == 0);  // as direct I/O demands
            op.data.insert(op.data.end(), data, data + iov[i].iov_len);
        }
        VITASTOR_ASSERT(offset % 512 == 0 && op.data.size() % 512 == 0 && !op.data.empty());
        VITASTOR_ASSERT(offset + op.data.size() <= disk_of(file).current.size());
        if (trace) trace->push_back({DiskEvent::Kind::write_issued, op.id, path_of(file), offset, op.data, op.data.size()});
        operations_.push_back(std::move(op));
    }
    void sync(runtime::File file, runtime::Completion& done) override {
        operations_.push_back({Kind::sync, file, 0, {}, {}, disk_of(file).unflushed.size(), &done, ++last_id_, slowness()});
        if (trace) trace->push_back({DiskEvent::Kind::flush_issued, last_id_, path_of(file), 0, {}, 0});
    }
    void discard(runtime::File file, uint64_t offset, uint64_t length, runtime::Completion& done) override {
        VITASTOR_ASSERT(disk_of(file).can_discard && offset % 4096 == 0 && length % 4096 == 0 && length > 0);
        VITASTOR_ASSERT(offset + length <= disk_of(file).current.size());
        Io op{Kind::discard, file, offset, std::vector<uint8_t>(length), {}, 0, &done, ++last_id_, slowness()};
        for (uint64_t at = 0; at < length; at += 8) {
            const uint64_t word = random_.next();
            memcpy(op.data.data() + at, &word, 8);
        }
        if (trace) trace->push_back({DiskEvent::Kind::write_issued, op.id, path_of(file), offset, op.data, length});
        operations_.push_back(std::move(op));
    }
    void close_file(runtime::File file) override {
        disk_of(file).locked = false;
        files_[static_cast<size_t>(file)].clear();
    }
    BufferPool& buffers() override { return buffers_; }
    runtime::LoopCounters counters() const override { return {}; }
    const char* name() const override { return "fake"; }

protected:
    void arm_timer(runtime::Timer& timer, uint64_t deadline_ns) override {
        VITASTOR_ASSERT(!timer.armed());
        timer.deadline_ns = deadline_ns;
        timer.heap_index = 0;
        timers_.push_back(&timer);
    }
    void disarm_timer(runtime::Timer& timer) override {
        std::erase(timers_, &timer);
        timer.heap_index = UINT64_MAX;
    }

private:
    enum class Kind { read, write, sync, discard };
    struct Io {
        Kind kind;
        runtime::File file;
        uint64_t offset;
        std::vector<uint8_t> data;
        std::vector<iovec> iov;
        size_t flush_count;
        runtime::Completion* completion;
        uint64_t id;
        uint64_t not_before;  ///< others go first until so many I/Os are done
    };
    /// A few transfers take very long.
    uint64_t slowness() { return random_.chance(4) ? io_count + 1 + random_.below(60) : 0; }
    const std::string& path_of(runtime::File file) const { return files_[static_cast<size_t>(file)]; }
    FakeDisk& disk_of(runtime::File file) { return disks.at(path_of(file)); }
    int64_t perform(Io& op) {
        FakeDisk& disk = disk_of(op.file);
        if (op.kind == Kind::sync) {
            if (trace) trace->push_back({DiskEvent::Kind::flush_done, op.id, path_of(op.file), 0, {}, 0});
            // Only the writes that were complete when the flush was issued; others stay uncertain. Flushes overlap never.
            for (size_t i = 0; i < op.flush_count; i++)
                memcpy(disk.durable.data() + disk.unflushed[i].offset, disk.unflushed[i].data.data(),
                       disk.unflushed[i].data.size());
            disk.unflushed.erase(disk.unflushed.begin(), disk.unflushed.begin() + static_cast<ptrdiff_t>(op.flush_count));
            return 0;
        }
        uint64_t length = op.data.size();
        for (const iovec& iov : op.iov) length += iov.iov_len;
        if (fail_io) {
            const int64_t result = fail_io(files_[static_cast<size_t>(op.file)], op.kind == Kind::write, op.offset, length);
            if (result) return result;
        }
        // Now and then a transfer is short, but never inside a piece that is written whole.
        const uint64_t unit = op.kind == Kind::write && op.offset >= disk.small_sectors_below ? disk.atomic_unit : 512;
        if (length > unit && op.kind != Kind::discard && random_.chance(3)) {
            const uint64_t to = (op.offset + unit * (1 + random_.below(length / unit))) / unit * unit;
            if (to > op.offset && to < op.offset + length) length = to - op.offset;
        }
        if (op.kind == Kind::write || op.kind == Kind::discard) {
            op.data.resize(length);
            if (trace) trace->push_back({DiskEvent::Kind::write_done, op.id, path_of(op.file), op.offset, {}, length});
            memcpy(disk.current.data() + op.offset, op.data.data(), length);
            if (disk.is_volatile) disk.unflushed.push_back({op.offset, std::move(op.data)});
            else memcpy(disk.durable.data() + op.offset, disk.current.data() + op.offset, length);
            return op.kind == Kind::discard ? 0 : static_cast<int64_t>(length);
        }
        if (op.offset > INT64_MAX) return -EINVAL;  // as the kernel
        uint64_t offset = op.offset, left = op.offset > disk.current.size() ? 0 : std::min(length, disk.current.size() - op.offset);
        for (const iovec& iov : op.iov) {
            const uint64_t here = std::min<uint64_t>(iov.iov_len, left);
            memcpy(iov.iov_base, disk.current.data() + offset, here);
            offset += here;
            left -= here;
        }
        return static_cast<int64_t>(offset - op.offset);
    }

    Random random_;
    BufferPool buffers_;
    uint64_t now_ = 1000;
    uint64_t last_id_ = 0;
    List<runtime::Deferred> deferred_;
    std::vector<Io> operations_;
    std::vector<std::string> files_;
    std::vector<runtime::Timer*> timers_;
};

}  // namespace vitastor::test

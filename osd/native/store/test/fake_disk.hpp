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
    uint64_t small_sectors_below = UINT64_MAX;  ///< writes before this offset tear at 512 bytes, others at 4096
    explicit FakeDisk(uint64_t size = 0) : current(size), durable(size) {}
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
    uint64_t slowest_turn_ops = 0;
    int64_t (*fail_io)(const std::string& path, bool is_write, uint64_t offset, uint64_t length) = nullptr;

    /// Power failure: what is in flight or in a volatile cache is kept, lost or torn. Operations end with -EIO.
    void crash() {
        crashed = true;
        for (auto& [path, disk] : disks) {
            std::vector<FakeDisk::Write> writes = std::move(disk.unflushed);
            disk.unflushed.clear();
            for (auto& op : operations_)
                if (op.kind == Kind::write && &disk == &disk_of(op.file)) writes.push_back({op.offset, std::move(op.data)});
            for (const auto& write : writes) {
                const uint64_t unit = !tear ? write.data.size() : write.offset < disk.small_sectors_below ? 512 : 4096;
                const uint64_t mood = random_.below(3);  // all, nothing, or each sector as it comes
                for (uint64_t at = 0; at < write.data.size(); at += unit) {
                    if (mood == 1 || (mood == 2 && random_.chance(50))) continue;
                    memcpy(disk.durable.data() + write.offset + at, write.data.data() + at,
                           std::min<uint64_t>(unit, write.data.size() - at));
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
        if (any) return;
        if (operations_.empty()) {  // time jumps to the next timer
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
        const size_t index = random_.below(operations_.size());
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
        return info;
    }
    void read(runtime::File file, const iovec* iov, int count, uint64_t offset, runtime::Completion& done) override {
        Io op{Kind::read, file, offset, {}, {iov, iov + count}, 0, &done};
        operations_.push_back(std::move(op));
    }
    void write(runtime::File file, const iovec* iov, int count, uint64_t offset, runtime::Completion& done) override {
        Io op{Kind::write, file, offset, {}, {}, 0, &done};
        for (int i = 0; i < count; i++) {
            const auto* data = static_cast<const uint8_t*>(iov[i].iov_base);
            VITASTOR_ASSERT(reinterpret_cast<uintptr_t>(data) % 512 == 0);  // as direct I/O demands
            op.data.insert(op.data.end(), data, data + iov[i].iov_len);
        }
        VITASTOR_ASSERT(offset % 512 == 0 && op.data.size() % 512 == 0 && !op.data.empty());
        VITASTOR_ASSERT(offset + op.data.size() <= disk_of(file).current.size());
        operations_.push_back(std::move(op));
    }
    void sync(runtime::File file, runtime::Completion& done) override {
        operations_.push_back({Kind::sync, file, 0, {}, {}, disk_of(file).unflushed.size(), &done});
    }
    void discard(runtime::File, uint64_t, uint64_t, runtime::Completion&) override { VITASTOR_ASSERT(false); }
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
    enum class Kind { read, write, sync };
    struct Io {
        Kind kind;
        runtime::File file;
        uint64_t offset;
        std::vector<uint8_t> data;
        std::vector<iovec> iov;
        size_t flush_count;
        runtime::Completion* completion;
    };
    FakeDisk& disk_of(runtime::File file) { return disks.at(files_[static_cast<size_t>(file)]); }
    int64_t perform(Io& op) {
        FakeDisk& disk = disk_of(op.file);
        if (op.kind == Kind::sync) {
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
        // Now and then a transfer is short.
        const uint64_t unit = op.kind == Kind::write && op.offset >= disk.small_sectors_below ? 4096 : 512;
        if (length > unit && random_.chance(3)) length = unit * (1 + random_.below(length / unit - 1));
        if (op.kind == Kind::write) {
            op.data.resize(length);
            memcpy(disk.current.data() + op.offset, op.data.data(), length);
            if (disk.is_volatile) disk.unflushed.push_back({op.offset, std::move(op.data)});
            else memcpy(disk.durable.data() + op.offset, disk.current.data() + op.offset, length);
            return static_cast<int64_t>(length);
        }
        uint64_t offset = op.offset, left = std::min(length, disk.current.size() - op.offset);
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
    List<runtime::Deferred> deferred_;
    std::vector<Io> operations_;
    std::vector<std::string> files_;
    std::vector<runtime::Timer*> timers_;
};

}  // namespace vitastor::test

// SPDX-License-Identifier: GPL-2.0-or-later
// The store alone on a file, no network: 4 KB random reads and writes, mixed, whole blocks; by name also a flush after every
// write, overwrites of other sizes, and unstable writes that are stabilised.
//   store_bench FILE [--size MB] [--seconds S] [--repeat N] [--fill PERCENT] [--only CASE,...] [--json] [--no-fsync]
//               [--discard] [--no-checksums] [--mode all|small|none] [--loop io_uring|epoll] [--atomic BYTES] [--tight-log] [--sums-cache BYTES]
// FILE is created (sparse) and removed. One line a case and repetition: operations a second, latency (mean and 99 %), processor
// time of all threads, bytes written to the device per client byte, how often the metadata log went round. --tight-log: the
// smallest log that takes the metadata of these objects, twice their size and the reserve. --json: one JSON object a line.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/crc32c.hpp"
#include "store/bench/histogram.hpp"
#include "store/bench/process.hpp"
#include "store/geometry.hpp"
#include "store/store.hpp"

using namespace vitastor;
using namespace vitastor::store;

namespace {

uint64_t next_random(uint64_t& state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

struct Case {
    const char* name;
    uint32_t depth;
    uint32_t bytes;         ///< 0: whole blocks
    uint32_t read_percent;  ///< of the operations; the others write
    bool sequential;
    bool flush;  ///< a sync after every write; counts as one operation with it
    bool unstable = false;  ///< writes are unstable and stabilised; a pair counts as one operation
    bool by_name = false;   ///< only if it is asked for
};

constexpr Case kFill{"fill", 16, 0, 0, true, false};
constexpr Case kCases[] = {
    {"write.block.q16", 16, 0, 0, true, false},
    {"read.block.q16", 16, 0, 100, true, false},
    {"write.4k.q1", 1, 4096, 0, false, false},
    {"write.4k.q128", 128, 4096, 0, false, false},
    {"write.16k.q16", 16, 16384, 0, false, false},
    {"mixed.4k.q1", 1, 4096, 70, false, false},
    {"mixed.4k.q128", 128, 4096, 70, false, false},
    {"read.4k.q1", 1, 4096, 100, false, false},
    {"read.4k.q128", 128, 4096, 100, false, false},
    {"flush.4k.q1", 1, 4096, 0, false, true, false, true},
    {"flush.4k.q128", 128, 4096, 0, false, true, false, true},
    {"write.8k.q1", 1, 8192, 0, false, false, false, true},
    {"write.8k.q128", 128, 8192, 0, false, false, false, true},
    {"write.16k.q1", 1, 16384, 0, false, false, false, true},
    {"write.16k.q128", 128, 16384, 0, false, false, false, true},
    {"write.64k.q1", 1, 65536, 0, false, false, false, true},
    {"write.64k.q128", 128, 65536, 0, false, false, false, true},
    {"write.124k.q1", 1, 126976, 0, false, false, false, true},
    {"write.124k.q128", 128, 126976, 0, false, false, false, true},
    {"unstable.4k.q1", 1, 4096, 0, false, false, true, true},
    {"unstable.4k.q128", 128, 4096, 0, false, false, true, true},
    {"unstable.64k.q1", 1, 65536, 0, false, false, true, true},
    {"unstable.64k.q128", 128, 65536, 0, false, false, true, true},
};

struct Bench;
struct Job : Operation {
    Bench* bench = nullptr;
    iovec piece{};
    std::vector<uint8_t> storage;
    uint8_t bits[4096] = {};
    uint64_t started = 0;
    uint64_t object_number = 0;
};

struct Bench {
    runtime::Loop& loop;
    Store& store;
    uint64_t objects;
    bool json;
    std::string path;
    std::vector<Version> versions;
    Case now = kFill;
    uint32_t bytes = 0;
    uint64_t end_ns = 0, limit = UINT64_MAX;
    uint64_t submitted = 0, finished = 0, running = 0, errors = 0;
    Histogram latency = {};
    uint64_t random = 88172645463325252ull;

    void next(Job& job) {
        if (submitted >= limit || loop.now_ns() >= end_ns) {
            running--;
            return;
        }
        const uint32_t block = store.options().block_size;
        job.object_number = now.sequential ? submitted % objects : next_random(random) % objects;
        submitted++;
        const bool reads = now.read_percent && next_random(random) % 100 < now.read_percent;
        job.op = reads ? StoreOp::read : now.unstable ? StoreOp::write : StoreOp::write_stable;
        job.object = {full_inode(1, 1), job.object_number * block};
        job.offset = bytes == block ? 0 : static_cast<uint32_t>(next_random(random) % (block / bytes)) * bytes;
        job.len = bytes;
        job.piece = {reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(job.storage.data()) + 4095) / 4096 * 4096), bytes};
        job.iov = &job.piece;
        job.iov_count = 1;
        job.bitmap = job.bits;
        job.version = reads ? kNewestVersion : ++versions[job.object_number];
        job.started = loop.now_exact_ns();
        store.submit(job);
    }

    void done(Job& job) {
        // A write that another one of the same object has overtaken in the random order is no error.
        if (job.op == StoreOp::stabilize ? job.result != 0 && job.result != -ENOENT : job.result != job.len && job.result != -EEXIST)
            errors++;
        if (job.op == StoreOp::write && job.result >= 0) {
            job.op = StoreOp::stabilize;
            job.bitmap = nullptr;
            store.submit(job);
            return;
        }
        if (now.flush && job.op == StoreOp::write_stable) {
            job.op = StoreOp::sync;
            job.len = 0;
            store.submit(job);
            return;
        }
        finished++;
        latency.add(loop.now_exact_ns() - job.started);
        next(job);
    }

    void run(const Case& what, double seconds, uint64_t count) {
        now = what;
        bytes = what.bytes ? what.bytes : store.options().block_size;
        std::vector<Job> jobs(what.depth);
        const StoreStats before = store.stats();
        const double turns_before = log_turns();
        const uint64_t start = loop.now_exact_ns();
        const double cpu = cpu_seconds();
        end_ns = start + static_cast<uint64_t>(seconds * 1e9);
        limit = count;
        submitted = finished = errors = 0;
        latency.clear();
        running = what.depth;
        for (Job& job : jobs) {
            job.bench = this;
            memset(job.bits, 0xff, sizeof(job.bits));
            job.storage.resize(bytes + 4096);
            memset(job.storage.data(), static_cast<int>(next_random(random)), job.storage.size());
            job.on_done = [](Operation* self) {
                Job& finished_job = *static_cast<Job*>(self);
                finished_job.bench->done(finished_job);
            };
            next(job);
        }
        while (running > 0) loop.run_once(runtime::kNever);
        const double elapsed = static_cast<double>(loop.now_exact_ns() - start) / 1e9;
        report(elapsed, cpu_seconds() - cpu, before, store.stats(), log_turns() - turns_before);
    }

    /// How often the start of the metadata log has gone round since formatting (docs/formats/store.md 2 and 3).
    double log_turns() const {
        const int fd = open(path.c_str(), O_RDONLY);
        uint64_t pages = 0, first = 0, second = 0;
        const bool good = fd >= 0 && pread(fd, &pages, 8, 80) == 8 && pread(fd, &first, 8, 4096 + 32) == 8 &&
                          pread(fd, &second, 8, 8192 + 32) == 8;
        if (fd >= 0) close(fd);
        return good && pages ? static_cast<double>(std::max(first, second)) / static_cast<double>(pages) : 0;
    }

    void report(double elapsed, double cpu, const StoreStats& before, const StoreStats& after, double turns) const {
        const auto count = static_cast<double>(finished);
        const auto client = static_cast<double>(after.client_bytes_written - before.client_bytes_written);
        const auto device = static_cast<double>(after.device_bytes_written - before.device_bytes_written);
        const double average_us = latency.mean() / 1e3;
        const double p99_us = static_cast<double>(latency.percentile(0.99)) / 1e3;
        const double cost = client > 0 ? device / client : 0;
        const auto flushes = static_cast<unsigned long long>(after.flushes - before.flushes);
        if (json) {
            printf("{\"case\":\"%s\",\"bytes\":%u,\"depth\":%u,\"operations\":%.0f,\"seconds\":%.6f,\"iops\":%.1f,"
                   "\"latency_us_mean\":%.2f,\"latency_us_p99\":%.2f,\"cpu_seconds\":%.6f,\"write_cost\":%.4f,"
                   "\"flushes\":%llu,\"log_turns\":%.2f,\"moved_bytes\":%llu,\"spare_blocks\":%llu,\"spare_granules\":%llu,\"errors\":%llu}\n",
                   now.name, bytes, now.depth, count, elapsed, count / elapsed, average_us, p99_us, cpu, cost, flushes, turns,
                   static_cast<unsigned long long>(after.moved_bytes - before.moved_bytes),
                   static_cast<unsigned long long>(after.spare_blocks), static_cast<unsigned long long>(after.spare_granules),
                   static_cast<unsigned long long>(errors));
        } else {
            printf("%-16s %9.0f ops/s  %8.1f us average  %8.1f us p99  %6.2f us cpu/op  %8.0f ops per core-second", now.name,
                   count / elapsed, average_us, p99_us, cpu * 1e6 / count, count / cpu);
            if (client > 0) printf("  write cost %.3f, log went round %.2f times", cost, turns);
            printf(errors ? "  %llu ERRORS\n" : "\n", static_cast<unsigned long long>(errors));
        }
        fflush(stdout);
    }
};

struct Settings {
    std::string path = "/dev/shm/vitastor-store-bench";
    uint64_t megabytes = 1024;
    double seconds = 3;
    uint32_t repeat = 1;
    uint32_t fill_percent = 70;
    std::string only;  ///< names of cases, each with a comma before and behind
    bool json = false;
    bool tight_log = false;
    StoreOptions store;
    runtime::LoopOptions loop;
};

/// False: a word is not known.
bool parse(int argc, char** argv, Settings& settings) {
    settings.store.immediate_commit = wire::ImmediateCommit::all;
    for (int i = 1; i < argc; i++) {
        const std::string arg = argv[i];
        const char* value = i + 1 < argc ? argv[i + 1] : "";
        if (arg == "--no-fsync") settings.store.disable_data_fsync = settings.store.disable_meta_fsync = true;
        else if (arg == "--no-checksums") settings.store.checksums = false;
        else if (arg == "--discard") settings.store.discard_freed = store::DiscardFreed::on;
        else if (arg == "--json") settings.json = true;
        else if (arg == "--tight-log") settings.tight_log = true;
        else if (arg.rfind("--", 0) != 0) settings.path = arg;
        else {
            i++;
            if (arg == "--size") settings.megabytes = strtoull(value, nullptr, 10);
            else if (arg == "--seconds") settings.seconds = strtod(value, nullptr);
            else if (arg == "--repeat") settings.repeat = static_cast<uint32_t>(strtoul(value, nullptr, 10));
            else if (arg == "--fill") settings.fill_percent = static_cast<uint32_t>(strtoul(value, nullptr, 10));
            else if (arg == "--only") settings.only = "," + std::string(value) + ",";
            else if (arg == "--sums-cache") {
                settings.store.checksums_in_memory = false;
                settings.store.checksum_cache_bytes = strtoull(value, nullptr, 10);
            } else if (arg == "--atomic") settings.store.atomic_write_size = static_cast<uint32_t>(strtoul(value, nullptr, 10));
            else if (arg == "--mode")
                settings.store.immediate_commit = !strcmp(value, "none")    ? wire::ImmediateCommit::none
                                                  : !strcmp(value, "small") ? wire::ImmediateCommit::small
                                                                            : wire::ImmediateCommit::all;
            else if (arg == "--loop")
                settings.loop.kind = !strcmp(value, "epoll") ? runtime::LoopKind::epoll : runtime::LoopKind::io_uring;
            else {
                fprintf(stderr, "unknown option %s; the head of store_bench.cpp lists them\n", arg.c_str());
                return false;
            }
        }
    }
    if (settings.fill_percent < 1 || settings.fill_percent > 100) settings.fill_percent = 70;
    return true;
}

struct Done : runtime::Completion {
    int64_t result = 1;
    Done() {
        on_done = [](runtime::Completion* self, int64_t value) { static_cast<Done*>(self)->result = value; };
    }
    int64_t wait(runtime::Loop& loop) {
        while (result == 1) loop.run_once(runtime::kNever);
        return result;
    }
};

/// Changes the superblock of a fresh store that is closed.
bool make_log_tight(const Settings& settings, uint64_t objects) {
    Superblock super;
    const int fd = open(settings.path.c_str(), O_RDWR);
    bool good = fd >= 0 && pread(fd, &super, sizeof(super), 0) == sizeof(super);
    if (good) {
        const Geometry geometry = check_geometry(settings.store).value();
        const uint64_t live = Geometry::pages_for((objects + 1) * (sizeof(EntryHeader) + geometry.version_bytes)) + 1;
        super.log_pages = std::min(super.log_pages, live * 2 + geometry.reserve_pages() + 2);
        super.crc = 0;
        super.crc = crc32c(&super, sizeof(super));
        good = pwrite(fd, &super, sizeof(super), 0) == sizeof(super);
        printf("log: %llu pages, metadata of the objects: %llu, reserve: %llu\n", static_cast<unsigned long long>(super.log_pages),
               static_cast<unsigned long long>(live), static_cast<unsigned long long>(geometry.reserve_pages()));
    }
    if (fd >= 0) close(fd);
    return good;
}

void run_all(Bench& bench, const Settings& settings) {
    bench.run(kFill, 1e6, bench.objects);
    for (uint32_t round = 0; round < settings.repeat; round++) {
        for (const Case& what : kCases) {
            const bool chosen = settings.only.empty() ? !what.by_name
                                                      : settings.only.find("," + std::string(what.name) + ",") != std::string::npos;
            if (chosen) bench.run(what, settings.seconds, UINT64_MAX);
        }
    }
    const StoreStats stats = bench.store.stats();
    const double each = static_cast<double>(stats.memory_bytes) / static_cast<double>(stats.object_count);
    const auto count = static_cast<unsigned long long>(stats.object_count);
    const auto flushes = static_cast<unsigned long long>(stats.flushes);
    if (settings.json)
        printf("{\"case\":\"memory\",\"objects\":%llu,\"bytes_per_object\":%.2f,\"flushes\":%llu}\n", count, each, flushes);
    else
        printf("%llu objects, %.1f bytes of memory per object, %llu flushes\n", count, each, flushes);
    if (!settings.store.checksums_in_memory && !settings.json)
        printf("checksums out of memory: %llu reads of the log, %llu bytes written to it\n",
               static_cast<unsigned long long>(stats.checksum_reads), static_cast<unsigned long long>(stats.checksum_bytes_written));
}

}  // namespace

int main(int argc, char** argv) {
    Settings settings;
    if (!parse(argc, argv, settings)) return 2;
    const int fd = open(settings.path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(settings.megabytes << 20)) < 0) {
        perror(settings.path.c_str());
        return 1;
    }
    close(fd);
    StderrLogger logger;
    auto created = runtime::create_loop(settings.loop, logger);
    if (!created.ok()) {
        fprintf(stderr, "%s\n", created.status().message().c_str());
        unlink(settings.path.c_str());
        return 1;
    }
    runtime::Loop& loop = *created.value();
    settings.store.osd_num = 1;
    settings.store.data_device = settings.path;
    auto store = create_store(loop, settings.store, logger);
    Done opened;
    store->open(opened);
    bool works = opened.wait(loop) >= 0;
    if (works && settings.tight_log) {
        const uint64_t objects = store->stats().total_blocks * settings.fill_percent / 100;
        Done closed, again;
        store->close(closed);
        closed.wait(loop);
        works = make_log_tight(settings, objects);
        store = create_store(loop, settings.store, logger);
        store->open(again);
        works = again.wait(loop) >= 0 && works;
    }
    if (works) {
        const uint64_t objects = store->stats().total_blocks * settings.fill_percent / 100;
        Bench bench{loop, *store, objects, settings.json, settings.path, std::vector<Version>(objects)};
        run_all(bench, settings);
    } else {
        fprintf(stderr, "%s\n", store->error().c_str());
    }
    Done closed;
    store->close(closed);
    const bool ended = closed.wait(loop) >= 0;
    store.reset();
    unlink(settings.path.c_str());
    return works && ended ? 0 : 1;
}

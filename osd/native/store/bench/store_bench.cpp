// SPDX-License-Identifier: GPL-2.0-or-later
// The store alone on a file: 4 KB random reads and writes at depth 1 and 128, whole blocks.
//   store_bench FILE [--size MB] [--seconds S] [--no-fsync] [--no-checksums] [--mode all|small|none] [--loop io_uring|epoll]
// FILE is created (sparse) and removed. Prints one line a case: ops/s, processor time of all threads per operation, bytes
// written to the device per client byte.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "store/store.hpp"

using namespace vitastor;
using namespace vitastor::store;

namespace {

class StderrLogger final : public Logger {
public:
    void write(LogLevel, const std::string& text) override { fprintf(stderr, "%s\n", text.c_str()); }
};

double cpu_seconds() {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

uint64_t next_random(uint64_t& state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

struct Bench;
struct Job : Operation {
    Bench* bench = nullptr;
    iovec piece{};
    std::vector<uint8_t> storage;
    uint8_t bits[8] = {0xff, 0xff, 0xff, 0xff};
    uint64_t started = 0;
    uint64_t object_number = 0;
};

struct Bench {
    runtime::Loop& loop;
    Store& store;
    uint64_t objects;
    std::vector<Version> versions;
    StoreOp kind = StoreOp::read;
    uint32_t bytes = 4096;
    bool sequential = false;
    uint64_t end_ns = 0, limit = UINT64_MAX;
    uint64_t submitted = 0, finished = 0, running = 0, errors = 0, latency_ns = 0;
    uint64_t random = 88172645463325252ull;

    void next(Job& job) {
        if (submitted >= limit || loop.now_ns() >= end_ns) {
            running--;
            return;
        }
        const uint32_t block = store.options().block_size;
        job.object_number = sequential ? submitted % objects : next_random(random) % objects;
        submitted++;
        job.op = kind;
        job.object = {full_inode(1, 1), job.object_number * block};
        job.offset = bytes == block ? 0 : static_cast<uint32_t>(next_random(random) % (block / bytes)) * bytes;
        job.len = bytes;
        job.piece = {reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(job.storage.data()) + 4095) / 4096 * 4096), bytes};
        job.iov = &job.piece;
        job.iov_count = 1;
        job.bitmap = job.bits;
        job.version = kind == StoreOp::read ? kNewestVersion : ++versions[job.object_number];
        job.started = loop.now_exact_ns();
        job.on_done = [](Operation* self) {
            Job& done = *static_cast<Job*>(self);
            Bench& bench = *done.bench;
            bench.finished++;
            bench.latency_ns += bench.loop.now_exact_ns() - done.started;
            if (done.result != done.len && done.result != -EEXIST) bench.errors++;
            bench.next(done);
        };
        store.submit(job);
    }

    void run(const char* title, uint32_t depth, double seconds, uint64_t count) {
        std::vector<Job> jobs(depth);
        const StoreStats before = store.stats();
        const uint64_t start = loop.now_exact_ns();
        const double cpu = cpu_seconds();
        end_ns = start + static_cast<uint64_t>(seconds * 1e9);
        limit = count;
        submitted = finished = errors = latency_ns = 0;
        running = depth;
        for (Job& job : jobs) {
            job.bench = this;
            job.storage.resize(bytes + 4096);
            memset(job.storage.data(), static_cast<int>(next_random(random)), job.storage.size());
            next(job);
        }
        while (running > 0) loop.run_once(runtime::kNever);
        const double elapsed = static_cast<double>(loop.now_exact_ns() - start) / 1e9;
        const double used = cpu_seconds() - cpu;
        const StoreStats after = store.stats();
        const uint64_t client = after.client_bytes_written - before.client_bytes_written;
        printf("%-28s depth %3u: %9.0f ops/s  %7.1f us average  %6.2f us cpu/op  %8.0f ops per core-second", title, depth,
               static_cast<double>(finished) / elapsed, static_cast<double>(latency_ns) / 1e3 / static_cast<double>(finished),
               used * 1e6 / static_cast<double>(finished), static_cast<double>(finished) / used);
        if (client)
            printf("  write cost %.3f", static_cast<double>(after.device_bytes_written - before.device_bytes_written) /
                                            static_cast<double>(client));
        printf(errors ? "  %llu ERRORS\n" : "\n", static_cast<unsigned long long>(errors));
        fflush(stdout);
    }
};

}  // namespace

int main(int argc, char** argv) {
    std::string path = "/dev/shm/vitastor-store-bench";
    uint64_t megabytes = 1024;
    double seconds = 3;
    StoreOptions options;
    runtime::LoopOptions loop_options;
    options.immediate_commit = wire::ImmediateCommit::all;
    for (int i = 1; i < argc; i++) {
        const std::string arg = argv[i];
        const char* value = i + 1 < argc ? argv[i + 1] : "";
        if (arg == "--size") megabytes = strtoull(value, nullptr, 10), i++;
        else if (arg == "--seconds") seconds = strtod(value, nullptr), i++;
        else if (arg == "--no-fsync") options.disable_data_fsync = options.disable_meta_fsync = true;
        else if (arg == "--no-checksums") options.checksums = false;
        else if (arg == "--mode")
            options.immediate_commit = !strcmp(value, "none")    ? wire::ImmediateCommit::none
                                       : !strcmp(value, "small") ? wire::ImmediateCommit::small
                                                                 : wire::ImmediateCommit::all,
            i++;
        else if (arg == "--loop") loop_options.kind = !strcmp(value, "epoll") ? runtime::LoopKind::epoll : runtime::LoopKind::io_uring, i++;
        else path = arg;
    }
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(megabytes << 20)) < 0) {
        perror(path.c_str());
        return 1;
    }
    close(fd);
    StderrLogger logger;
    auto created = runtime::create_loop(loop_options, logger);
    if (!created.ok()) {
        fprintf(stderr, "%s\n", created.status().message().c_str());
        return 1;
    }
    runtime::Loop& loop = *created.value();
    options.osd_num = 1;
    options.data_device = path;
    auto store = create_store(loop, options, logger);
    struct Done : runtime::Completion {
        int64_t result = 1;
    } done;
    done.on_done = [](runtime::Completion* self, int64_t result) { static_cast<Done*>(self)->result = result; };
    store->open(done);
    while (done.result == 1) loop.run_once(runtime::kNever);
    if (done.result < 0) {
        fprintf(stderr, "%s\n", store->error().c_str());
        return 1;
    }
    const uint64_t objects = store->stats().total_blocks * 7 / 10;
    Bench bench{loop, *store, objects, std::vector<Version>(objects)};
    bench.kind = StoreOp::write_stable;
    bench.bytes = options.block_size;
    bench.sequential = true;
    bench.run("fill, whole blocks", 16, 1000, objects);
    bench.run("whole blocks again", 16, seconds, UINT64_MAX);
    bench.sequential = false;
    bench.bytes = 4096;
    bench.run("4 KB random write", 1, seconds, UINT64_MAX);
    bench.run("4 KB random write", 128, seconds, UINT64_MAX);
    bench.bytes = 16384;
    bench.run("16 KB random write", 16, seconds, UINT64_MAX);
    bench.bytes = 4096;
    bench.kind = StoreOp::read;
    bench.run("4 KB random read", 1, seconds, UINT64_MAX);
    bench.run("4 KB random read", 128, seconds, UINT64_MAX);
    const StoreStats stats = store->stats();
    printf("%llu objects, %.1f bytes of memory per object, %llu flushes\n", static_cast<unsigned long long>(stats.object_count),
           static_cast<double>(stats.memory_bytes) / static_cast<double>(stats.object_count),
           static_cast<unsigned long long>(stats.flushes));
    done.result = 1;
    store->close(done);
    while (done.result == 1) loop.run_once(runtime::kNever);
    store.reset();
    unlink(path.c_str());
    return 0;
}

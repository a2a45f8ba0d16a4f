// SPDX-License-Identifier: GPL-2.0-or-later
// How long a start takes and what the index costs: makes a metadata log of N whole-block objects without their data, then opens it.
//   store_load_bench DIRECTORY [--objects N] [--rounds K] [--no-checksums] [--sums-cache BYTES] [--shuffle] [--loads L] [--keep]
//   [--reuse]
// Creates two sparse files in DIRECTORY (use tmpfs; about 180 bytes per object and round) and removes them. rounds: times that
// each object is written. shuffle: objects are created in no order; else as 16 images that are written from their start to their
// end at the same time. loads: times that it is opened (3 unless told), each in a process of its own; the median is printed at the
// end. --keep leaves the files there, --reuse opens what --keep has left (by another build, say). The data file is never written to:
// opening reads no data unless writes were announced. Prints processor time of all threads, bytes of memory by the store's own
// count, and the growth of the process.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "store/bench/process.hpp"
#include "store/meta_log.hpp"
#include "store/store.hpp"

using namespace vitastor;
using namespace vitastor::store;

namespace {

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

/// A line of /proc/self/status in bytes; 0 if it is not there.
uint64_t status_bytes(const char* name) {
    FILE* file = fopen("/proc/self/status", "r");
    char line[256];
    uint64_t kilobytes = 0;
    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, name, strlen(name)) == 0) kilobytes = strtoull(line + strlen(name) + 1, nullptr, 10);
    if (file) fclose(file);
    return kilobytes * 1024;
}

bool make_file(const std::string& path, uint64_t size) {
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    const bool good = fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0;
    if (!good) perror(path.c_str());
    if (fd >= 0) close(fd);
    return good;
}

int64_t open_store(runtime::Loop& loop, Store& store) {
    Done opened;
    store.open(opened);
    const int64_t status = opened.wait(loop);
    if (status < 0) fprintf(stderr, "%s\n", store.error().c_str());
    return status;
}

void close_store(runtime::Loop& loop, std::unique_ptr<Store>& store) {
    Done closed;
    store->close(closed);
    closed.wait(loop);
    store.reset();
}

struct Shape {
    uint64_t objects = 1000000;
    uint32_t rounds = 1;
    bool shuffle = false;
    /// The object that is created as the i-th one: every one once.
    uint64_t number(uint64_t i) const {
        if (!shuffle) return i;
        const int bits = std::max(2, 64 - std::countl_zero(objects));
        const uint64_t mask = (uint64_t{1} << bits) - 1;
        do {
            for (int turn = 0; turn < 3; turn++) {
                i = (i * 0x9e3779b97f4a7c15ull + 0x7f4a7c15) & mask;
                i ^= i >> (bits / 2);
            }
        } while (i >= objects);
        return i;
    }
};

runtime::Task<void> fill(MetaLog& log, const Geometry& geometry, const Shape& shape, Done& done) {
    const uint64_t objects = shape.objects;
    std::vector<uint8_t> entry(geometry.entry_bytes);
    int status = 0;
    for (uint32_t round = 0; round < shape.rounds && status == 0; round++) {
        for (uint64_t i = 0; i < objects && status == 0; i++) {
            const uint64_t number = round ? i * 7919 % objects : shape.number(i);  // written again in another order
            const auto block = static_cast<uint32_t>(number);
            EntryHeader header{};
            header.type = EntryType::write;
            header.flags = kEntryStable | kEntryBlock;
            if (round == 0) header.flags |= kEntryCreate;
            header.count = static_cast<uint16_t>(geometry.granules);
            header.inode = full_inode(1, 1 + number % 16);
            header.stripe = number / 16 * geometry.block_size;
            header.version = round + 1;
            header.size = static_cast<uint32_t>(sizeof(header) + 4 + (geometry.checksums ? 4 * geometry.granules : 0));
            memcpy(entry.data(), &header, sizeof(header));
            memcpy(entry.data() + sizeof(header), &block, 4);
            log.append({entry.data(), header.size});
            log.note_objects(round ? objects : i + 1);
            if (log.appended() - log.durable() < (1 << 20)) continue;
            runtime::Task<int> committing = log.commit();
            status = co_await committing;
        }
    }
    runtime::Task<int> committing = log.commit();
    const int last = co_await committing;
    done.on_done(&done, status < 0 ? status : last);
}

bool make_log(runtime::Loop& loop, const StoreOptions& options, Logger& logger, const Shape& shape) {
    if (!make_file(options.data_device, (shape.objects + 64) * options.block_size)) return false;
    if (!make_file(options.meta_device, shape.objects * 600 + (64 << 20))) return false;
    auto store = create_store(loop, options, logger);
    const bool formatted = open_store(loop, *store) == 0;
    close_store(loop, store);
    if (!formatted) return false;
    Geometry geometry = check_geometry(options).value();
    std::vector<uint8_t> page(kPageSize);
    const int fd = open(options.meta_device.c_str(), O_RDONLY);
    const bool read = fd >= 0 && pread(fd, page.data(), kPageSize, 0) == kPageSize;
    close(fd);
    auto info = decode_superblock(page.data(), geometry, options, options.meta_device, UINT64_MAX / 2, false);
    Result<runtime::File> meta = loop.open_file(options.meta_device, {});
    Result<runtime::File> data = loop.open_file(options.data_device, {});
    if (!read || !info.ok() || !meta.ok() || !data.ok()) return false;
    Device meta_device(loop, meta.value(), false), data_device(loop, data.value(), false);
    MetaLog log(meta_device, data_device, geometry, info.value().uuid);
    log.start(LogMark{}, LogMark{}, 0, 1);
    Done filled;
    runtime::spawn(fill(log, geometry, shape, filled));
    const bool good = filled.wait(loop) == 0;
    while (!log.is_idle()) loop.run_once(runtime::kNever);
    return good;
}

bool measure(runtime::Loop& loop, const StoreOptions& options, Logger& logger, double& used) {
    const double cpu = cpu_seconds();
    const uint64_t start = loop.now_exact_ns(), resident = status_bytes("VmRSS:");
    auto store = create_store(loop, options, logger);
    store->set_pool_pgs(1, 256, 4 << 20);
    const bool good = open_store(loop, *store) == 0;
    used = cpu_seconds() - cpu;
    const double elapsed = static_cast<double>(loop.now_exact_ns() - start) / 1e9;
    const StoreStats stats = store->stats();
    const auto count = static_cast<double>(stats.object_count);
    printf("%llu objects: %.3f s of processor time, %.3f s; %.2f bytes of memory an object, process %+.2f (peak %+.2f)\n",
           static_cast<unsigned long long>(stats.object_count), used, elapsed, static_cast<double>(stats.memory_bytes) / count,
           (static_cast<double>(status_bytes("VmRSS:")) - static_cast<double>(resident)) / count,
           (static_cast<double>(status_bytes("VmHWM:")) - static_cast<double>(resident)) / count);
    fflush(stdout);
    close_store(loop, store);
    return good;
}

/// Runs work(loop, logger, double&) in a process of its own, so that no heap of an earlier run is warm. False if it failed.
template <class Work>
bool in_child(double& result, Work work) {
    int ends[2];
    if (pipe(ends) < 0) return false;
    const pid_t child = fork();
    if (child == 0) {
        StderrLogger logger;
        auto created = runtime::create_loop({}, logger);
        if (!created.ok()) fprintf(stderr, "%s\n", created.status().message().c_str());
        double value = 0;
        const bool good = created.ok() && work(*created.value(), logger, value) &&
                          write(ends[1], &value, sizeof(value)) == sizeof(value);
        fflush(stdout);
        _exit(good ? 0 : 1);
    }
    close(ends[1]);
    const bool told = child > 0 && read(ends[0], &result, sizeof(result)) == sizeof(result);
    close(ends[0]);
    int status = 1;
    if (child > 0) waitpid(child, &status, 0);
    return told && status == 0;
}

}  // namespace

int main(int argc, char** argv) {
    std::string directory = "/dev/shm";
    Shape shape;
    uint32_t loads = 3;
    bool keep = false, reuse = false;
    StoreOptions options;
    for (int i = 1; i < argc; i++) {
        const std::string arg = argv[i];
        const char* value = i + 1 < argc ? argv[i + 1] : "";
        if (arg == "--objects") shape.objects = strtoull(value, nullptr, 10), i++;
        else if (arg == "--rounds") shape.rounds = static_cast<uint32_t>(strtoul(value, nullptr, 10)), i++;
        else if (arg == "--loads") loads = std::max(1u, static_cast<uint32_t>(strtoul(value, nullptr, 10))), i++;
        else if (arg == "--no-checksums") options.checksums = false;
        else if (arg == "--sums-cache") {
            options.checksums_in_memory = false;
            options.checksum_cache_bytes = strtoull(value, nullptr, 10), i++;
        }
        else if (arg == "--shuffle") shape.shuffle = true;
        else if (arg == "--keep") keep = true;
        else if (arg == "--reuse") reuse = true;
        else directory = arg;
    }
    options.osd_num = 1;
    options.immediate_commit = wire::ImmediateCommit::all;
    options.disable_data_fsync = options.disable_meta_fsync = true;
    options.data_device = directory + "/load-bench-data";
    options.meta_device = directory + "/load-bench-meta";
    double nothing = 0;
    bool good = reuse || in_child(nothing, [&](runtime::Loop& loop, Logger& logger, double&) {
                    return make_log(loop, options, logger, shape);
                });
    std::vector<double> seconds;
    while (good && seconds.size() < loads) {
        double used = 0;
        good = in_child(used, [&](runtime::Loop& loop, Logger& logger, double& result) {
            return measure(loop, options, logger, result);
        });
        seconds.push_back(used);
    }
    std::sort(seconds.begin(), seconds.end());
    if (good) printf("median of %zu: %.3f s of processor time\n", seconds.size(), seconds[seconds.size() / 2]);
    if (!keep) {
        unlink(options.data_device.c_str());
        unlink(options.meta_device.c_str());
    }
    return good ? 0 : 1;
}

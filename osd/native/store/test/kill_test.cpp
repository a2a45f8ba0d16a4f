// SPDX-License-Identifier: GPL-2.0-or-later
// A real process with a real file, killed while it writes: everything that it had reported is there.
#include <doctest/doctest.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "rig.hpp"

using namespace vitastor;
using namespace vitastor::test;

namespace {

constexpr uint64_t kObjects = 24;
constexpr uint32_t kBlock = 131072;
constexpr uint32_t kGranules = 32;
constexpr uint32_t kDepth = 16;

struct Report {
    uint32_t object, granule, count, tag;
    uint64_t version;
};

StoreOptions options_for(const std::string& path) {
    StoreOptions options;
    options.osd_num = 1;
    options.data_device = path;
    options.block_size = kBlock;
    options.immediate_commit = wire::ImmediateCommit::all;
    options.disable_data_fsync = true;  // the machine stays up
    return options;
}

struct Opened {
    TestLogger logger;
    std::unique_ptr<runtime::Loop> loop;
    std::unique_ptr<Store> store;
    int status = 1;
    explicit Opened(const std::string& path, uint32_t lock_wait_ms = 10000) {
        auto created = runtime::create_loop({}, logger);
        VITASTOR_ASSERT(created.ok());
        loop = std::move(created.value());
        StoreOptions options = options_for(path);
        options.lock_wait_ms = lock_wait_ms;
        store = create_store(*loop, options, logger);
        status = wait([this](runtime::Completion& done) { store->open(done); });
    }
    template <class Start>
    int wait(Start start) {
        struct Done : runtime::Completion {
            int64_t result = 1;
        } done;
        done.on_done = [](runtime::Completion* self, int64_t result) { static_cast<Done*>(self)->result = result; };
        start(done);
        while (done.result == 1) loop->run_once(runtime::kNever);
        return static_cast<int>(done.result);
    }
    void close() {
        wait([this](runtime::Completion& done) { store->close(done); });
        store.reset();
    }
};

struct Writer : Operation {
    Opened* opened;
    Random* random;
    int pipe;
    std::vector<Version>* versions;
    std::vector<uint8_t> storage;
    uint8_t* data;
    iovec piece;
    Report report;

    void next() {
        uint32_t number = static_cast<uint32_t>(random->below(kObjects));
        report.object = number;
        report.granule = static_cast<uint32_t>(random->below(kGranules));
        report.count = random->chance(80) ? 1 : 1 + static_cast<uint32_t>(random->below(kGranules - report.granule));
        report.version = ++(*versions)[number];
        report.tag = static_cast<uint32_t>(report.version * 64 + number);
        for (uint32_t i = 0; i < report.count; i++) fill_granule(data + i * 4096, 4096, report.tag);
        op = StoreOp::write_stable;
        object = object_id(1, number, kBlock);
        version = report.version;
        offset = report.granule * 4096;
        len = report.count * 4096;
        piece = {data, len};
        iov = &piece;
        iov_count = 1;
        on_done = [](Operation* self) {
            auto* writer = static_cast<Writer*>(self);
            if (writer->result != writer->len) _exit(3);
            if (write(writer->pipe, &writer->report, sizeof(Report)) != sizeof(Report)) _exit(4);
            writer->next();
        };
        opened->store->submit(*this);
    }
};

/// In the child: writes for ever.
[[noreturn]] void write_for_ever(const std::string& path, int pipe, uint64_t seed) {
    Opened opened(path);
    if (opened.status != 0) _exit(2);
    Random random(seed);
    std::vector<Version> versions(kObjects);
    for (uint32_t i = 0; i < kObjects; i++) versions[i] = opened.store->peek(object_id(1, i, kBlock), kNewestVersion, nullptr);
    std::vector<Writer> writers(kDepth);
    for (Writer& writer : writers) {
        writer.opened = &opened;
        writer.random = &random;
        writer.pipe = pipe;
        writer.versions = &versions;
        writer.storage.resize(kBlock + 4096);
        writer.data = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(writer.storage.data()) + 4095) / 4096 * 4096);
        writer.next();
    }
    for (;;) opened.loop->run_once(runtime::kNever);
}

}  // namespace

TEST_CASE("kill -9 of a writing process loses nothing that was answered") {
    char path[] = "/tmp/vitastor-store-kill-XXXXXX";
    const int file = mkstemp(path);
    REQUIRE(file >= 0);
    REQUIRE(ftruncate(file, 16 << 20) == 0);
    close(file);
    struct Cell {
        uint32_t tag = 0;
        uint64_t version = 0;
    };
    std::vector<Cell> cells(kObjects * kGranules);
    std::vector<uint64_t> versions(kObjects);
    for (uint64_t round = 0; round < 6; round++) {
        int ends[2];
        REQUIRE(pipe(ends) == 0);
        const pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            close(ends[0]);
            write_for_ever(path, ends[1], round + 1);
        }
        close(ends[1]);
        Report report;
        uint64_t count = 0;
        while (read(ends[0], &report, sizeof(report)) == sizeof(report)) {
            if (++count == 400 + round * 37) kill(child, SIGKILL);
            for (uint32_t i = 0; i < report.count; i++) cells[report.object * kGranules + report.granule + i] = {report.tag, report.version};
            versions[report.object] = std::max(versions[report.object], report.version);
        }
        close(ends[0]);
        int status = 0;
        waitpid(child, &status, 0);
        REQUIRE(WIFSIGNALED(status));
        Opened opened(path);
        REQUIRE_MESSAGE(opened.status == 0, opened.store->error());
        std::vector<uint8_t> storage(kBlock + 4096);
        auto* data = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(storage.data()) + 4095) / 4096 * 4096);
        for (uint32_t i = 0; i < kObjects; i++) {
            struct Reading : Operation {
                bool finished = false;
            } reading;
            iovec piece{data, kBlock};
            reading.op = StoreOp::read;
            reading.object = object_id(1, i, kBlock);
            reading.version = kNewestVersion;
            reading.len = kBlock;
            reading.iov = &piece;
            reading.iov_count = 1;
            reading.on_done = [](Operation* self) { static_cast<Reading*>(self)->finished = true; };
            opened.store->submit(reading);
            while (!reading.finished) opened.loop->run_once(runtime::kNever);
            if (versions[i] == 0 && reading.result == -ENOENT) continue;
            REQUIRE(reading.result == kBlock);
            CHECK(reading.version >= versions[i]);
            versions[i] = reading.version;
            for (uint32_t k = 0; k < kGranules; k++) {
                const uint32_t tag = read_granule(data + k * 4096, 4096);
                Cell& cell = cells[i * kGranules + k];
                REQUIRE(tag != UINT32_MAX);
                CHECK(tag / 64 >= cell.tag / 64);  // what was answered, or a later write
                cell.tag = tag;
            }
        }
        opened.close();
    }
    unlink(path);
}

TEST_CASE("two processes cannot open one store") {
    char path[] = "/tmp/vitastor-store-lock-XXXXXX";
    const int file = mkstemp(path);
    REQUIRE(file >= 0);
    REQUIRE(ftruncate(file, 16 << 20) == 0);
    close(file);
    {
        Opened first(path);
        REQUIRE_MESSAGE(first.status == 0, first.store->error());
        Opened second(path, 0);
        CHECK(second.status == -EBUSY);
        CHECK(second.store->error().find("in use") != std::string::npos);
        second.close();
        first.close();
        Opened third(path);
        CHECK(third.status == 0);
        third.close();
    }
    unlink(path);
}

// SPDX-License-Identifier: GPL-2.0-or-later
// A store on the simulated runtime: disks with caches, latencies and sizes of any kind, and a clock.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/assert.hpp"
#include "base/crc32c.hpp"
#include "runtime/sim_world.hpp"
#include "store/store.hpp"

namespace vitastor::test {

using namespace vitastor::store;

class LinesLogger final : public Logger {
public:
    void write(LogLevel level, const std::string& text) override { lines.push_back({level, text}); }
    /// Number of lines of this level that contain `part`.
    int count(LogLevel level, const std::string& part) const {
        int found = 0;
        for (const auto& [of, text] : lines) found += of == level && text.find(part) != std::string::npos;
        return found;
    }
    std::vector<std::pair<LogLevel, std::string>> lines;
};

struct SimOperation : Operation {
    Buffer buffer;
    iovec piece{};
    uint8_t bits[4096] = {};
    bool done = false;
    uint64_t started_ns = 0, done_ns = 0;
    runtime::Loop* loop = nullptr;
};

class SimRig {
public:
    explicit SimRig(uint64_t seed = 1) : world(seed) {
        node = world.add_node();
        options.osd_num = 1;
        options.data_device = "data";
        options.block_size = 32768;
        options.immediate_commit = wire::ImmediateCommit::all;
    }
    ~SimRig() { close(); }

    runtime::SimWorld world;
    runtime::NodeId node;
    std::unique_ptr<runtime::Loop> loop;
    LinesLogger logger;
    StoreOptions options;
    std::unique_ptr<Store> store;

    void add_disk(const std::string& path, uint64_t bytes) {
        runtime::SimDiskOptions disk;
        disk.size_bytes = bytes;
        world.add_disk(path, disk);
    }
    template <class Change>
    void change_disk(const std::string& path, Change change) {
        runtime::SimDiskOptions disk = world.disk(path);
        change(disk);
        world.set_disk(path, disk);
    }
    int open() {
        if (!loop) loop = world.make_loop(node);
        store = create_store(*loop, options, logger);
        Done done;
        store->open(done);
        run_until([&] { return done.finished; });
        return static_cast<int>(done.result);
    }
    void close() {
        if (store) {
            Done done;
            store->close(done);
            run_until([&] { return done.finished; });
            store.reset();
        }
        loop.reset();
    }
    int reopen() {
        close();
        return open();
    }
    /// The machine loses power; what was not durable may be gone.
    void crash() {
        world.crash(node, true);
        // What the process had in memory is not given back: kept where nobody looks, until after the search for leaks.
        static auto* graves = new std::vector<std::pair<Store*, runtime::Loop*>>;
        graves->push_back({store.release(), loop.release()});
        world.restart(node);
    }
    template <class Condition>
    void run_until(Condition condition) {
        while (!condition()) VITASTOR_ASSERT(world.step());
    }
    void run_for(uint64_t ns) {
        const uint64_t limit = world.now_ns() + ns;
        while (world.step_until(limit)) {
        }
    }

    std::unique_ptr<SimOperation> operation(StoreOp op, uint64_t number, Version version, uint32_t first = 0, uint32_t count = 0,
                                            uint8_t fill = 0) {
        auto self = std::make_unique<SimOperation>();
        self->op = op;
        self->object = {full_inode(1, 1), number * options.block_size};
        self->version = version;
        self->offset = first * options.bitmap_granularity;
        self->len = count * options.bitmap_granularity;
        if (self->len) {
            self->buffer = loop->buffers().allocate(self->len);
            memset(self->buffer.data(), fill, self->len);
            self->piece = {self->buffer.data(), self->len};
            self->iov = &self->piece;
            self->iov_count = 1;
        }
        self->loop = loop.get();
        self->on_done = [](Operation* done) {
            auto* mine = static_cast<SimOperation*>(done);
            mine->done = true;
            mine->done_ns = mine->loop->now_ns();
        };
        return self;
    }
    void start(SimOperation& operation) {
        operation.started_ns = loop->now_ns();
        store->submit(operation);
    }
    int64_t run(SimOperation& operation) {
        start(operation);
        run_until([&] { return operation.done; });
        return operation.result;
    }
    int64_t write(uint64_t number, Version version, uint32_t first, uint32_t count, uint8_t fill) {
        auto op = operation(StoreOp::write_stable, number, version, first, count, fill);
        return run(*op);
    }
    int64_t remove(uint64_t number, Version version) {
        auto op = operation(StoreOp::del, number, version);
        return run(*op);
    }
    int64_t sync() {
        auto op = operation(StoreOp::sync, 0, 0);
        return run(*op);
    }
    /// What the granule is filled with; -1: not all the same byte; or a negative errno.
    int read(uint64_t number, uint32_t granule) {
        auto op = operation(StoreOp::read, number, kNewestVersion, granule, 1, 0xee);
        const int64_t result = run(*op);
        if (result < 0) return static_cast<int>(result);
        for (uint32_t i = 1; i < op->len; i++)
            if (op->buffer.data()[i] != op->buffer.data()[0]) return -1;
        return op->buffer.data()[0];
    }

private:
    struct Done : runtime::Completion {
        Done() {
            on_done = [](runtime::Completion* self, int64_t result_) {
                static_cast<Done*>(self)->result = result_;
                static_cast<Done*>(self)->finished = true;
            };
        }
        int64_t result = 0;
        bool finished = false;
    };
};

}  // namespace vitastor::test

// SPDX-License-Identifier: GPL-2.0-or-later
// libvitastor as programs use it: threads of its own and of the caller, against scripted etcd and OSDs in memory.
#include <doctest/doctest.h>
#include <poll.h>

#include <atomic>
#include <thread>

#include "../../cluster/test/fake_etcd.hpp"
#include "fake_cluster.hpp"
#include "vitastor.h"

using namespace fake;

namespace {

/// Two OSDs on a thread of their own, and an etcd that knows them.
struct Servers {
    FakeEtcd etcd;
    std::atomic<bool> stop{false}, ready{false};
    std::thread thread;
    explicit Servers(const std::string& mode = "all") {
        thread = std::thread([this, mode] {
            World world(mode);
            world.add_osd(1);
            world.add_osd(2);
            etcd.keys["/vitastor/config/pools"] = world.pools();
            etcd.keys["/vitastor/pg/config"] =
                R"({"items":{"1":{"1":{"osd_set":[1,2],"primary":1},"2":{"osd_set":[2,1],"primary":2}}}})";
            etcd.keys["/vitastor/pg/state/1/1"] = World::pg_state(1);
            etcd.keys["/vitastor/pg/state/1/2"] = World::pg_state(2);
            etcd.keys["/vitastor/config/inode/1/1"] = R"({"name":"img","size":1073741824})";
            for (auto& [number, osd] : world.osds)
                etcd.keys["/vitastor/osd/state/" + std::to_string(number)] = world.osd_state(number);
            ready = true;
            while (!stop) world.loop->run_once(world.loop->now_exact_ns() + runtime::kNsPerMs);
        });
        while (!ready) std::this_thread::yield();
    }
    ~Servers() {
        stop = true;
        thread.join();
    }
    vitastor_cluster* cluster(bool writeback = false) {
        vitastor_option pairs[] = {{"etcd_address", etcd.address.c_str()}, {"client_enable_writeback", "true"}, {"client_max_buffered_bytes", "256k"}};
        vitastor_cluster_options options{};
        options.struct_size = sizeof options;
        options.options = pairs;
        options.option_count = writeback ? 3 : 1;
        vitastor_cluster* cluster = nullptr;
        REQUIRE(vitastor_cluster_open(&options, &cluster) == 0);
        return cluster;
    }
};

vitastor_context* open_context(vitastor_cluster* cluster, bool own_thread) {
    vitastor_context_options options{};
    options.struct_size = sizeof options;
    options.own_thread = own_thread;
    vitastor_context* context = nullptr;
    REQUIRE(vitastor_context_open(cluster, &options, &context) == 0);
    return context;
}

struct Waiter {
    std::atomic<int> runs{0};
    int64_t result = 0;
    static void fn(void* arg, int64_t result, uint64_t) {
        auto* self = static_cast<Waiter*>(arg);
        self->result = result;
        self->runs.fetch_add(1, std::memory_order_release);
        self->runs.notify_all();
    }
    /// Runs a caller-driven context, or waits for the other thread.
    int64_t wait(vitastor_context* driven = nullptr) {
        while (!runs.load(std::memory_order_acquire)) {
            if (driven) vitastor_context_run(driven, 1000);
            else runs.wait(0);
        }
        return runs == 1 ? result : -8888;
    }
};

vitastor_image* open_image(vitastor_context* context, vitastor_context* driven, bool writeback = false) {
    vitastor_image_options options{};
    options.struct_size = sizeof options;
    options.image = "img";
    options.writeback = writeback;
    vitastor_image* image = nullptr;
    Waiter waiter;
    REQUIRE(vitastor_image_open(context, &options, &image, Waiter::fn, &waiter) == 0);
    REQUIRE(waiter.wait(driven) == 0);
    return image;
}

}  // namespace

TEST_CASE("caller-driven: open, write, read back, through poll() on the descriptor as well") {
    Servers servers;
    vitastor_cluster* cluster = servers.cluster();
    vitastor_context* context = open_context(cluster, false);
    REQUIRE(vitastor_context_fd(context) >= 0);  // before anything else
    vitastor_image* image = open_image(context, context);
    CHECK(vitastor_image_size(image) == 1u << 30);
    CHECK(vitastor_image_block_size(image) == kBlock);
    CHECK(vitastor_image_granularity(image) == kGranule);
    CHECK(vitastor_image_immediate_commit(image) == 1);
    CHECK(vitastor_image_inode(image) == full_inode(1, 1));
    auto data = pattern(3 * kBlock, 4);
    std::vector<uint8_t> out(data.size());
    iovec in{data.data(), data.size()}, back{out.data(), out.size()};
    Waiter write, read;
    REQUIRE(vitastor_write(image, context, 4096, data.size(), &in, 1, Waiter::fn, &write) == 0);
    CHECK(write.wait(context) == static_cast<int64_t>(data.size()));
    REQUIRE(vitastor_read(image, context, 4096, out.size(), &back, 1, Waiter::fn, &read) == 0);
    while (!read.runs) {
        vitastor_context_run(context, 0);
        if (read.runs) break;
        pollfd fd{vitastor_context_fd(context), POLLIN, 0};
        int timeout = vitastor_context_next_timeout(context);
        poll(&fd, 1, timeout < 0 || timeout > 5000 ? 5000 : timeout);
    }
    CHECK(read.wait() == static_cast<int64_t>(out.size()));
    CHECK(out == data);
    CHECK(vitastor_image_has_parent(image) == 0);
    uint8_t bits[13] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    Waiter bitmap;
    REQUIRE(vitastor_read_bitmap(image, context, 0, 98 * kGranule, bits, Waiter::fn, &bitmap) == 0);
    CHECK(bitmap.wait(context) == 98);
    CHECK(bits[0] == 0xfe);  // 96 granules hold data, from the second on
    CHECK(bits[11] == 0xff);
    CHECK(bits[12] == 0x01);
    vitastor_image_close(image);
    vitastor_context_close(context);
    vitastor_cluster_close(cluster);
}

TEST_CASE("own thread: calls from many threads, one image through two contexts") {
    for (const char* mode : {"all", "none"}) {
        Servers servers(mode);
        vitastor_cluster* cluster = servers.cluster();
        vitastor_context* contexts[2] = {open_context(cluster, true), open_context(cluster, true)};
        vitastor_image* image = open_image(contexts[0], nullptr);
        std::vector<std::thread> threads;
        std::atomic<int> wrong{0};
        for (int t = 0; t < 4; t++)
            threads.emplace_back([&, t] {
                for (int i = 0; i < 50; i++) {
                    uint64_t offset = static_cast<uint64_t>(t * 50 + i) * 8192;
                    auto data = pattern(8192, static_cast<uint8_t>(t * 50 + i));
                    std::vector<uint8_t> out(8192);
                    iovec in{data.data(), 8192}, back{out.data(), 8192};
                    Waiter write, flush, read;
                    vitastor_write(image, contexts[t % 2], offset, 8192, &in, 1, Waiter::fn, &write);
                    if (write.wait() != 8192) wrong++;
                    if (i % 10 == 0) {
                        vitastor_flush(image, contexts[(t + 1) % 2], Waiter::fn, &flush);
                        if (flush.wait() != 0) wrong++;
                    }
                    vitastor_read(image, contexts[(t + 1) % 2], offset, 8192, &back, 1, Waiter::fn, &read);
                    if (read.wait() != 8192 || out != data) wrong++;
                }
            });
        for (auto& thread : threads) thread.join();
        CHECK(wrong == 0);
        vitastor_image_close(image);
        for (auto* context : contexts) vitastor_context_close(context);
        vitastor_cluster_close(cluster);
    }
}

TEST_CASE("closing a context ends what is still under way, once each") {
    Servers servers;
    vitastor_cluster* cluster = servers.cluster();
    for (bool own_thread : {false, true}) {
        vitastor_context* context = open_context(cluster, own_thread);
        vitastor_image* image = open_image(context, own_thread ? nullptr : context);
        std::vector<uint8_t> data(4096);
        iovec iov{data.data(), 4096};
        std::vector<Waiter> waiters(64);
        for (size_t i = 0; i < waiters.size(); i++)
            REQUIRE(vitastor_write(image, context, i * 4096, 4096, &iov, 1, Waiter::fn, &waiters[i]) == 0);
        vitastor_context_close(context);
        for (auto& waiter : waiters) CHECK(waiter.runs == 1);
        vitastor_image_close(image);  // late, but before the cluster
    }
    vitastor_cluster_close(cluster);
}

TEST_CASE("write-back: closing writes out, from wherever it is called") {
    for (const char* mode : {"all", "none"}) {
        Servers servers(mode);
        vitastor_cluster* cluster = servers.cluster(true);
        uint8_t value = 1;
        for (const bool own_thread : {false, true}) {
            for (const bool inside : {false, true}) {
                vitastor_context* context = open_context(cluster, own_thread);
                vitastor_context* driven = own_thread ? nullptr : context;
                vitastor_image* image = open_image(context, driven, true);
                CHECK(vitastor_image_writeback(image) == 1);
                auto data = pattern(4096, value++);
                iovec iov{data.data(), 4096};
                struct Closer {
                    Waiter waiter;
                    vitastor_image* image;
                } closer{{}, inside ? image : nullptr};
                REQUIRE(vitastor_write(image, context, 8192, 4096, &iov, 1, [](void* arg, int64_t result, uint64_t version) {
                    auto* self = static_cast<Closer*>(arg);
                    vitastor_image_close(self->image);
                    Waiter::fn(&self->waiter, result, version);
                }, &closer) == 0);
                CHECK(closer.waiter.wait(driven) == 4096);
                if (!inside) vitastor_image_close(image);
                vitastor_context_close(context);
                vitastor_context* second = open_context(cluster, true);
                image = open_image(second, nullptr);
                CHECK(vitastor_image_writeback(image) == 0);
                std::vector<uint8_t> out(4096);
                iovec back{out.data(), 4096};
                Waiter read;
                REQUIRE(vitastor_read(image, second, 8192, 4096, &back, 1, Waiter::fn, &read) == 0);
                CHECK(read.wait() == 4096);
                CHECK(out == data);
                vitastor_image_close(image);
                vitastor_context_close(second);
            }
        }
        vitastor_cluster_close(cluster);
    }
}

TEST_CASE("write-back: calls from many threads through two contexts, with little room") {
    for (const char* mode : {"all", "none"}) {
        Servers servers(mode);
        vitastor_cluster* cluster = servers.cluster(true);
        vitastor_context* contexts[2] = {open_context(cluster, true), open_context(cluster, true)};
        vitastor_image* image = open_image(contexts[0], nullptr, true);
        std::vector<std::thread> threads;
        std::atomic<int> wrong{0};
        for (int t = 0; t < 4; t++)
            threads.emplace_back([&, t] {
                for (int i = 0; i < 200; i++) {
                    const uint64_t offset = static_cast<uint64_t>(t * 25 + i * 7 % 25) * 8192;
                    auto data = pattern(8192, static_cast<uint8_t>(t * 50 + i));
                    std::vector<uint8_t> out(8192);
                    iovec in{data.data(), 8192}, back{out.data(), 8192};
                    Waiter write, flush, read;
                    vitastor_write(image, contexts[(t + i) % 2], offset, 8192, &in, 1, Waiter::fn, &write);
                    if (write.wait() != 8192) wrong++;
                    if (i % 20 == 0) {
                        vitastor_flush(image, contexts[(t + 1) % 2], Waiter::fn, &flush);
                        if (flush.wait() != 0) wrong++;
                    }
                    vitastor_read(image, contexts[i % 2], offset, 8192, &back, 1, Waiter::fn, &read);
                    if (read.wait() != 8192 || out != data) wrong++;
                }
            });
        for (auto& thread : threads) thread.join();
        CHECK(wrong == 0);
        vitastor_image_close(image);
        for (auto* context : contexts) vitastor_context_close(context);
        vitastor_cluster_close(cluster);
    }
}

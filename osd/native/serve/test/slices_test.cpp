// SPDX-License-Identifier: GPL-2.0-or-later
// Long work in slices: one a turn, in order, and with pauses while clients are at work.
#include <doctest/doctest.h>

#include <vector>

#include "base/test/text_logger.hpp"
#include "serve/await.hpp"

using namespace vitastor;
using serve::Slices;

namespace {

struct Rig {
    TextLogger logger;
    std::unique_ptr<runtime::Loop> loop;
    Rig() {
        runtime::LoopOptions options;
        options.kind = runtime::LoopKind::epoll;
        loop = std::move(runtime::create_loop(options, logger).value());
    }
    void until(const bool& done) {
        for (int i = 0; !done && i < 100000; i++) loop->run_once(loop->now_exact_ns() + runtime::kNsPerMs);
        REQUIRE(done);
    }
};

constexpr uint64_t kSliceNs = 100'000;

/// `count` slices, each of kSliceNs at least.
runtime::Task<> work(Rig& rig, Slices& slices, int count, bool clients, int name, std::vector<int>* order, bool* done) {
    for (int i = 0; i < count; i++) {
        Slices::Turn turn(slices);
        co_await turn;
        order->push_back(name);
        const uint64_t start = rig.loop->now_exact_ns();
        while (rig.loop->now_exact_ns() < start + kSliceNs) {
        }
        if (clients) slices.client_seen();
    }
    *done = true;
}

}  // namespace

TEST_CASE("background slices take turns, one a turn of the loop, without a pause when no client is there") {
    Rig rig;
    Slices slices(*rig.loop, Slices::Pace::background);
    std::vector<int> order;
    bool first = false, second = false;
    runtime::spawn(work(rig, slices, 3, false, 1, &order, &first));
    runtime::spawn(work(rig, slices, 3, false, 2, &order, &second));
    for (uint64_t turn = 1; turn <= 6; turn++) {
        rig.loop->run_once(runtime::kNever);
        CHECK(slices.count() == turn);
    }
    CHECK(first);
    CHECK(second);
    CHECK(order == std::vector<int>{1, 2, 1, 2, 1, 2});
    CHECK(slices.pauses() == 0);
}

TEST_CASE("while clients are at work each background slice is followed by a pause as long as itself") {
    Rig rig;
    Slices slices(*rig.loop, Slices::Pace::background);
    std::vector<int> order;
    bool done = false;
    const uint64_t start = rig.loop->now_exact_ns();
    runtime::spawn(work(rig, slices, 20, true, 1, &order, &done));
    rig.until(done);
    CHECK(slices.pauses() == 19);
    CHECK(rig.loop->now_exact_ns() - start >= (20 + 19) * kSliceNs);
    // Work that comes later waits for the last pause too.
    done = false;
    runtime::spawn(work(rig, slices, 1, false, 1, &order, &done));
    rig.until(done);
    CHECK(slices.pauses() == 20);
}

TEST_CASE("slices of requests do not pause") {
    Rig rig;
    Slices slices(*rig.loop, Slices::Pace::request);
    std::vector<int> order;
    bool done = false;
    runtime::spawn(work(rig, slices, 5, true, 1, &order, &done));
    rig.until(done);
    CHECK(slices.pauses() == 0);
    CHECK(slices.count() == 5);
}

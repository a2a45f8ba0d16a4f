// SPDX-License-Identifier: GPL-2.0-or-later
// Timers, deferred work, notifiers and coroutines, for every implementation.
#include "loop_fixture.hpp"
#include "runtime/task.hpp"

using namespace vitastor;
using namespace vitastor::runtime;
using namespace vitastor::runtime::test;

TEST_CASE("timers fire in the order of their deadlines, equal ones in the order of arming, never early") {
    FOR_EACH_LOOP(fixture);
    Loop& loop = fixture.a();
    uint64_t start = loop.now_exact_ns();
    std::vector<int> order;
    TestTimer timers[6];
    const uint64_t delays[6] = {3, 1, 2, 2, 1, 4};
    for (int i = 0; i < 6; i++) {
        timers[i].action = [&, i] {
            order.push_back(i);
            CHECK(loop.now_ns() >= start + delays[i] * kNsPerMs);
            CHECK_FALSE(timers[i].armed());
        };
        loop.arm(timers[i], start + delays[i] * kNsPerMs);
    }
    CHECK(loop.next_deadline_ns() == start + kNsPerMs);
    loop.disarm(timers[5]);
    loop.disarm(timers[5]);
    REQUIRE(fixture.until([&] { return order.size() == 5; }));
    CHECK(order == std::vector<int>{1, 4, 2, 3, 0});
    CHECK(loop.next_deadline_ns() == kNever);
}

TEST_CASE("a timer may be armed again from its own handler, moved, and disarmed by another one") {
    FOR_EACH_LOOP(fixture);
    Loop& loop = fixture.a();
    uint64_t start = loop.now_exact_ns();
    int fired = 0;
    bool other_fired = false;
    TestTimer again, other;
    again.action = [&] {
        loop.disarm(other);
        if (++fired < 3) loop.arm(again, loop.now_ns());
    };
    other.action = [&] { other_fired = true; };
    loop.arm(again, start + 100 * kNsPerSecond);
    loop.arm(again, start + kNsPerMs);  // arming an armed timer moves it
    loop.arm(other, start + kNsPerMs);
    REQUIRE(fixture.until([&] { return fired == 3; }));
    fixture.settle();
    CHECK_FALSE(other_fired);
}

TEST_CASE("deferred work runs once, later, in order; what it defers runs in a later turn") {
    FOR_EACH_LOOP(fixture);
    Loop& loop = fixture.a();
    std::vector<int> order;
    TestDeferred one, two, three;
    one.action = [&] {
        order.push_back(1);
        if (order.size() < 3) loop.defer(one);
    };
    two.action = [&] { order.push_back(2); };
    three.action = [&] { order.push_back(3); };
    loop.defer(one);
    loop.defer(two);
    loop.defer(three);
    three.unlink();  // leaving the queue needs nobody
    CHECK(order.empty());
    REQUIRE(fixture.until([&] { return order.size() == 3; }));
    CHECK(order == std::vector<int>{1, 2, 1});
}

TEST_CASE("idle work: a step a turn at most, behind what is ready, and not for ever") {
    FOR_EACH_LOOP(fixture);
    if (fixture.simulated()) return;  // no time passes there while something is ready: it runs with the other deferred work
    Loop& loop = fixture.a();
    std::vector<int> order;
    int steps = 0;
    bool stop = false;
    TestDeferred idle[3], urgent;
    for (TestDeferred& item : idle) {
        item.action = [&] {
            steps++;
            if (order.size() < 2) order.push_back(2);
            if (!stop) loop.defer_idle(item);
        };
        loop.defer_idle(item);
    }
    urgent.action = [&] { order.push_back(1); };
    loop.defer(urgent);
    for (int i = 1; i <= 5; i++) {
        loop.run_once(kNever);
        CHECK(steps == i);
    }
    CHECK(order == std::vector<int>{1, 2});
    // Work without end puts it off only so long.
    urgent.action = [&] {
        if (!stop) loop.defer(urgent);
    };
    loop.defer(urgent);
    const int before = steps;
    REQUIRE(fixture.until([&] { return steps >= before + 3; }));
    stop = true;
    fixture.settle();
    const int after = steps;
    fixture.settle();
    CHECK(steps == after);
}

TEST_CASE("notifications coalesce, arrive, and stop with unregistering") {
    FOR_EACH_LOOP(fixture);
    Loop& loop = fixture.a();
    TestNotifier one, two;
    loop.register_notifier(one);
    loop.register_notifier(two);
    loop.notify(one);
    loop.notify(one);
    CHECK(one.calls == 0);
    REQUIRE(fixture.until([&] { return one.calls > 0; }));
    fixture.settle();
    CHECK(one.calls == 1);
    CHECK(two.calls == 0);
    loop.notify(one);
    loop.notify(two);
    loop.unregister_notifier(two);
    REQUIRE(fixture.until([&] { return one.calls == 2; }));
    fixture.settle();
    CHECK(two.calls == 0);
    loop.unregister_notifier(one);
}

namespace {

Task<int64_t> read_block(Loop& loop, File file, Buffer& buffer, uint64_t offset) {
    iovec iov{buffer.data(), 4096};
    Await op;
    loop.read(file, &iov, 1, offset, op);
    int64_t got = co_await op;
    co_return got;
}

Task<void> read_all(Loop& loop, File file, int64_t& total, bool& done) {
    Buffer buffer = loop.buffers().allocate(4096);
    for (uint64_t offset = 0;; offset += 4096) {
        Task<int64_t> reading = read_block(loop, file, buffer, offset);
        int64_t got = co_await reading;
        if (got <= 0) break;
        total += got;
    }
    done = true;
}

Task<void> wait_for(WaitList& list, std::vector<int>& order, int number, int rounds) {
    for (int i = 0; i < rounds; i++) {
        WaitList::Waiter waiter = list.wait();
        co_await waiter;
        order.push_back(number);
    }
}

}  // namespace

TEST_CASE("coroutines run over the loop's operations") {
    FOR_EACH_LOOP(fixture);
    std::string path = fixture.make_file(40960);
    auto opened = fixture.a().open_file(path, {});
    REQUIRE(opened.ok());
    int64_t total = 0;
    bool done = false;
    spawn(read_all(fixture.a(), opened.value(), total, done));
    REQUIRE(fixture.until([&] { return done; }));
    CHECK(total == 40960);
    fixture.a().close_file(opened.value());
}

TEST_CASE("a wait list wakes those that wait now, in order") {
    WaitList list;
    std::vector<int> order;
    spawn(wait_for(list, order, 1, 2));
    spawn(wait_for(list, order, 2, 1));
    spawn(wait_for(list, order, 3, 1));
    list.notify_all();
    CHECK(order == std::vector<int>{1, 2, 3});
    CHECK(list.notify_one());
    CHECK(order == std::vector<int>{1, 2, 3, 1});
    CHECK_FALSE(list.notify_one());
    CHECK(list.empty());
}

// SPDX-License-Identifier: GPL-2.0-or-later
// The backend against a driver of our own: what a guest does, what a hostile one does, and what is left when either side is killed.
#include "front_end.hpp"

#include <random>

using namespace vitastor::vhost;

namespace {
constexpr uint64_t kData = 0x400000;
constexpr size_t kDiskBytes = 8 << 20;

template <class Condition>
bool eventually(Condition condition) {
    for (int i = 0; i < 2000; i++) {
        if (condition()) return true;
        pollfd none{-1, 0, 0};
        ::poll(&none, 1, 5);
    }
    return false;
}
}  // namespace

TEST_CASE("a guest reads, writes, flushes, discards and asks") {
    for (const uint64_t without : {uint64_t{0}, feature::event_index | feature::indirect}) {
        MemoryDisk disk(kDiskBytes);
        Backend backend(disk);
        FrontEnd guest;
        guest.connect(backend, without);
        CHECK(guest.get(Request::get_queue_num) == 2);
        guest.send(Request::get_config, ConfigHeader{0, sizeof(blk::Config), 0});
        CHECK(guest.answer(Request::get_config).size() == sizeof(ConfigHeader) + sizeof(blk::Config));
        DriverQueue queues[2];
        REQUIRE(guest.start_queue(0, queues[0], 128));
        REQUIRE(guest.start_queue(1, queues[1], 64));
        std::vector<uint8_t> model(kDiskBytes);
        std::mt19937 random(3);
        for (int i = 0; i < 400; i++) {
            DriverQueue& queue = queues[random() % 2];
            const uint64_t sector = random() % (kDiskBytes / 512 - 256);
            const uint32_t bytes = 512 * (1 + random() % 256);
            const bool indirect = !without && random() % 2;
            // Over the border of the two regions of memory, now and then.
            const uint64_t data = i % 5 == 0 ? kMemoryBytes / 2 - 512 : kData;
            switch (random() % 8) {
                case 0: {
                    const blk::Segment segment{sector, bytes / 512, 0};
                    std::memcpy(guest.memory + data, &segment, sizeof segment);
                    REQUIRE(guest.run(queue, random() % 2 ? blk::discard : blk::write_zeroes, 0, data, sizeof segment, indirect) == blk::ok);
                    std::memset(&model[sector * 512], 0, bytes);
                    break;
                }
                case 1:
                    REQUIRE(guest.run(queue, blk::flush, 0, data, 0, indirect) == blk::ok);
                    break;
                case 2:
                case 3:
                case 4:
                    for (uint32_t at = 0; at < bytes; at++) guest.memory[data + at] = static_cast<uint8_t>(random());
                    std::memcpy(&model[sector * 512], guest.memory + data, bytes);
                    REQUIRE(guest.run(queue, blk::out, sector, data, bytes, indirect) == blk::ok);
                    break;
                default:
                    REQUIRE(guest.run(queue, blk::in, sector, data, bytes, indirect) == blk::ok);
                    REQUIRE(std::memcmp(guest.memory + data, &model[sector * 512], bytes) == 0);
                    CHECK(guest.used(queue, static_cast<uint16_t>(queue.next - 1)).length == bytes + 1);
            }
        }
        CHECK(disk.flushes > 0);
        CHECK(disk.discards > 0);
        CHECK(guest.run(queues[0], blk::get_id, 0, kData, kSerialBytes) == blk::ok);
        CHECK(std::string(reinterpret_cast<char*>(guest.memory + kData)) == "disk-in-memory");
        // What cannot be done is said to the guest, and harms nothing.
        const uint64_t end = kDiskBytes / 512;
        CHECK(guest.run(queues[0], blk::in, end - 1, kData, 1024) == blk::io_error);
        CHECK(guest.run(queues[0], blk::out, UINT64_MAX, kData, 512) == blk::io_error);
        CHECK(guest.run(queues[0], blk::in, 0, kData, 500) == blk::io_error);
        CHECK(guest.run(queues[0], 77, 0, kData, 512) == blk::unsupported);
        disk.error = EIO;
        CHECK(guest.run(queues[0], blk::in, 0, kData, 512) == blk::io_error);
        disk.error = 0;
        disk.is_read_only = true;
        CHECK(guest.run(queues[0], blk::out, 0, kData, 512) == blk::io_error);
        CHECK(guest.run(queues[0], blk::in, 0, kData, 512) == blk::ok);
        const std::lock_guard lock(disk.mutex);
        CHECK(disk.content == model);
    }
}

TEST_CASE("many requests at once; a queue that stops is drained, and goes on where it was") {
    MemoryDisk disk(kDiskBytes);
    Backend backend(disk);
    FrontEnd guest;
    guest.connect(backend);
    DriverQueue queue;
    REQUIRE(guest.start_queue(0, queue, 256));
    for (int round = 0; round < 20; round++) {
        const uint16_t before = queue.next;
        disk.hold = round % 2;
        disk.started = 0;
        for (uint32_t i = 0; i < 64; i++) {
            guest.memory[kData + i * 512] = static_cast<uint8_t>(round + i);
            guest.offer(queue, guest.build(queue, 0x100000 + i * 256, blk::out, i, kData + i * 512, 512));
        }
        guest.kick(queue);
        if (round % 2) REQUIRE(eventually([&] { return disk.started == 64; }));
        if (round % 4 == 3) {
            guest.send(Request::get_vring_base, VringState{0, 0});
            disk.hold = false;
            CHECK(guest.answer_as<VringState>(Request::get_vring_base).number == queue.next);
            CHECK(guest.used_index(queue) == static_cast<uint16_t>(before + 64));
            REQUIRE(guest.send_memory());
            REQUIRE(guest.start_queue(0, queue, 256, queue.next));
        }
        disk.hold = false;
        REQUIRE(guest.until_used(queue, static_cast<uint16_t>(before + 64)));
        for (uint32_t i = 0; i < 64; i++) CHECK(disk.content[i * 512] == static_cast<uint8_t>(round + i));
    }
}

TEST_CASE("a hostile guest breaks its queue, and nothing else") {
    struct Attack {
        const char* name;
        void (*run)(FrontEnd& guest, DriverQueue& queue);
    };
    const Attack attacks[] = {
        {"a head that does not exist", [](FrontEnd& g, DriverQueue& q) { g.offer(q, 999); }},
        {"more than the queue holds", [](FrontEnd& g, DriverQueue& q) { g.word(g.available_at(q) + 2) = static_cast<uint16_t>(q.next + 500); }},
        {"a chain in a ring", [](FrontEnd& g, DriverQueue& q) {
             const uint16_t head = g.build(q, 0x1000, blk::out, 0, kData, 512);
             g.descriptor(q, head + 2u).next = head;
             g.offer(q, head);
         }},
        {"a link out of the table", [](FrontEnd& g, DriverQueue& q) {
             const uint16_t head = g.build(q, 0x1000, blk::out, 0, kData, 512);
             g.descriptor(q, head).next = 5000;
             g.offer(q, head);
         }},
        {"memory that is not there", [](FrontEnd& g, DriverQueue& q) {
             const uint16_t head = g.build(q, 0x1000, blk::in, 0, kData, 512);
             g.descriptor(q, head + 1u).address = 0x1234;
             g.offer(q, head);
         }},
        {"an address that wraps around", [](FrontEnd& g, DriverQueue& q) {
             const uint16_t head = g.build(q, 0x1000, blk::in, 0, kData, 512);
             g.descriptor(q, head + 1u) = {UINT64_MAX - 100, 0xffffffff, kNext | kWritable, static_cast<uint16_t>(head + 2)};
             g.offer(q, head);
         }},
        {"memory that ends", [](FrontEnd& g, DriverQueue& q) {
             const uint16_t head = g.build(q, 0x1000, blk::in, 0, kMemoryBytes - 512, 1024);
             g.offer(q, head);
         }},
        {"to read behind to write", [](FrontEnd& g, DriverQueue& q) {
             const uint16_t head = g.build(q, 0x1000, blk::in, 0, kData, 512);
             g.descriptor(q, head + 2u).flags = kNext;
             g.offer(q, head);
         }},
        {"indirect in indirect", [](FrontEnd& g, DriverQueue& q) {
             const uint16_t head = g.build(q, 0x1000, blk::in, 0, kData, 512, true);
             reinterpret_cast<Descriptor*>(g.memory + 0x1040)[0].flags = kIndirect;
             g.offer(q, head);
         }},
        {"an indirect table of odd size", [](FrontEnd& g, DriverQueue& q) {
             const uint16_t head = g.build(q, 0x1000, blk::in, 0, kData, 512, true);
             g.descriptor(q, head).length = 24;
             g.offer(q, head);
         }},
        {"an indirect table elsewhere", [](FrontEnd& g, DriverQueue& q) {
             const uint16_t head = g.build(q, 0x1000, blk::in, 0, kData, 512, true);
             g.descriptor(q, head).address = 0;
             g.offer(q, head);
         }},
    };
    for (const Attack& attack : attacks) {
        CAPTURE(attack.name);
        MemoryDisk disk(kDiskBytes);
        Backend backend(disk);
        FrontEnd guest;
        guest.connect(backend);
        DriverQueue bad, good;
        REQUIRE(guest.start_queue(0, bad, 64));
        REQUIRE(guest.start_queue(1, good, 64));
        REQUIRE(guest.run(bad, blk::out, 0, kData, 512) == blk::ok);
        attack.run(guest, bad);
        guest.kick(bad);
        pollfd wait{bad.error.get(), POLLIN, 0};
        CHECK(::poll(&wait, 1, 10000) == 1);
        CHECK(guest.run(good, blk::out, 8, kData, 512) == blk::ok);
        // Reset by its driver, it works again.
        guest.send(Request::get_vring_base, VringState{0, 0});
        guest.answer_as<VringState>(Request::get_vring_base);
        bad = DriverQueue();
        std::memset(guest.memory + 0x10000, 0, 0x20000);
        REQUIRE(guest.start_queue(0, bad, 64));
        CHECK(guest.run(bad, blk::out, 0, kData, 512) == blk::ok);
    }
}

TEST_CASE("requests without room for an answer are given back") {
    MemoryDisk disk(kDiskBytes);
    Backend backend(disk);
    FrontEnd guest;
    guest.connect(backend);
    DriverQueue queue;
    REQUIRE(guest.start_queue(0, queue, 64));
    guest.descriptor(queue, 0) = {kGuestBase + 0x1000, 16, 0, 0};
    queue.free_descriptor = 8;
    guest.offer(queue, 0);
    guest.kick(queue);
    REQUIRE(guest.until_used(queue, 1));
    CHECK(guest.used(queue, 0).length == 0);
    CHECK(guest.run(queue, blk::out, 0, kData, 512) == blk::ok);
}

TEST_CASE("wrong messages are refused, those that are not vhost-user end the connection") {
    MemoryDisk disk(kDiskBytes);
    Backend backend(disk);
    FrontEnd guest;
    guest.connect(backend);
    CHECK_FALSE(guest.ask(Request::set_vring_num, VringState{77, 64}));
    CHECK_FALSE(guest.ask(Request::set_vring_kick, uint64_t{0x100}));
    CHECK_FALSE(guest.ask(Request::set_features, UINT64_MAX));
    CHECK_FALSE(guest.ask(Request::set_inflight_fd, InflightArea{64, 0, 9, 64, 0}));
    CHECK_FALSE(guest.ask(static_cast<Request>(4711), uint64_t{0}));
    struct {
        uint32_t count, padding;
        MemoryRegion region;
    } table{1, 0, {kGuestBase, 1ull << 40, kUserBase, 0}};
    CHECK_FALSE(guest.ask(Request::set_mem_table, table, {guest.memory_fd.get()}));  // longer than its file
    table.count = 1000;
    CHECK_FALSE(guest.ask(Request::set_mem_table, table));
    DriverQueue queue;
    REQUIRE(guest.start_queue(0, queue, 64));
    CHECK(guest.run(queue, blk::out, 0, kData, 512) == blk::ok);
    DriverQueue odd;
    CHECK_FALSE(guest.start_queue(1, odd, 65));
    const Header wrong{1, 0, 0};
    REQUIRE(::send(guest.socket, &wrong, sizeof wrong, 0) == sizeof wrong);
    uint8_t byte = 0;
    CHECK(::recv(guest.socket, &byte, 1, 0) == 0);
}

TEST_CASE("write-through: a write is answered after a flush") {
    MemoryDisk disk(kDiskBytes);
    Backend backend(disk);
    FrontEnd guest;
    guest.connect(backend);
    DriverQueue queue;
    REQUIRE(guest.start_queue(0, queue, 64));
    CHECK(guest.run(queue, blk::out, 0, kData, 512) == blk::ok);
    CHECK(disk.flushes == 0);
    struct {
        ConfigHeader head;
        uint8_t write_back;
    } config{{blk::write_back_offset, 1, 0}, 0};
    guest.send(Request::set_config, &config, sizeof(ConfigHeader) + 1, {}, header_flags::need_reply);
    CHECK(guest.answer_as<uint64_t>(Request::set_config) == 0);
    CHECK(guest.run(queue, blk::out, 0, kData, 512) == blk::ok);
    CHECK(disk.flushes == 1);
}

TEST_CASE("a backend that was killed: what it had taken is done by the next one, in order, and nothing twice") {
    MemoryDisk first_disk(kDiskBytes), second_disk(kDiskBytes);
    FrontEnd guest, later;
    DriverQueue queue;
    Fd inflight;
    InflightArea area{0, 0, 1, 64, 0};
    {
        Backend backend(first_disk);
        guest.connect(backend);
        guest.send(Request::get_inflight_fd, &area, kInflightWire);
        const auto answer = guest.answer(Request::get_inflight_fd, &inflight);
        REQUIRE(answer.size() == kInflightWire);
        std::memcpy(&area, answer.data(), kInflightWire);
        guest.send(Request::set_inflight_fd, &area, kInflightWire, {inflight.get()}, header_flags::need_reply);
        REQUIRE(guest.answer_as<uint64_t>(Request::set_inflight_fd) == 0);
        REQUIRE(guest.start_queue(0, queue, 64));
        for (int i = 0; i < 3; i++) REQUIRE(guest.run(queue, blk::out, 100, kData, 512) == blk::ok);
        first_disk.hold = true;
        first_disk.started = 0;
        for (uint32_t i = 0; i < 5; i++) {
            guest.memory[kData + i * 512] = static_cast<uint8_t>(50 + i);
            guest.offer(queue, guest.build(queue, 0x100000 + i * 256, blk::out, i / 2, kData + i * 512, 512));
        }
        guest.kick(queue);
        REQUIRE(eventually([&] { return first_disk.started == 5; }));
        // Killed now: its successor sees memory as it is.
        std::memcpy(later.memory, guest.memory, kMemoryBytes);
        const Fd copy(::memfd_create("inflight", MFD_CLOEXEC));
        REQUIRE(::ftruncate(copy.get(), static_cast<off_t>(area.bytes)) == 0);
        std::vector<uint8_t> bytes(area.bytes);
        REQUIRE(::pread(inflight.get(), bytes.data(), area.bytes, 0) == static_cast<ssize_t>(area.bytes));
        // It had published two more, and not yet said so: their record is one batch behind.
        auto* record = reinterpret_cast<InflightQueue*>(bytes.data());
        CHECK(record->used_index == 3);
        CHECK(record->descriptors == 64);
        REQUIRE(::pwrite(copy.get(), bytes.data(), area.bytes, 0) == static_cast<ssize_t>(area.bytes));
        inflight = Fd(::dup(copy.get()));
        first_disk.hold = false;
    }
    Backend backend(second_disk);
    later.connect(backend);
    later.send(Request::set_inflight_fd, &area, kInflightWire, {inflight.get()}, header_flags::need_reply);
    REQUIRE(later.answer_as<uint64_t>(Request::set_inflight_fd) == 0);
    const uint16_t next = queue.next;
    // QEMU starts it at the used index, for it was not told the base.
    DriverQueue again;
    again.next = next;
    again.free_descriptor = queue.free_descriptor;
    second_disk.started = 0;
    REQUIRE(later.start_queue(0, again, 64, later.used_index(queue)));
    REQUIRE(later.until_used(again, next));
    CHECK(second_disk.started == 5);
    CHECK(second_disk.content[0] == 51);
    CHECK(second_disk.content[512] == 53);
    CHECK(second_disk.content[1024] == 54);
    CHECK(second_disk.content[100 * 512] == 0);
    CHECK(later.run(again, blk::out, 9, kData, 512) == blk::ok);
}

TEST_CASE("a batch that was published and not yet recorded is not done again") {
    FrontEnd guest;
    Memory memory;
    std::string reason;
    REQUIRE(memory.set({{kGuestBase, kMemoryBytes, kUserBase, 0}}, {guest.memory_fd.get()}, reason) == 0);
    DriverQueue queue;
    queue.size = 8;
    queue.at = 0x10000;
    std::vector<uint8_t> area(sizeof(InflightQueue) + 8 * sizeof(InflightDescriptor));
    auto* record = reinterpret_cast<InflightQueue*>(area.data());
    RingSetup setup;
    setup.size = 8;
    setup.addresses = {0, 0, kUserBase + queue.at, kUserBase + guest.used_at(queue), kUserBase + guest.available_at(queue), 0};
    setup.inflight = record;
    Ring ring(memory);
    REQUIRE(ring.start(setup));
    for (uint16_t head = 0; head < 4; head++) {
        guest.descriptor(queue, head) = {kGuestBase + 0x1000, 64, kWritable, 0};
        guest.offer(queue, head);
    }
    Chain chains[4];
    for (Chain& chain : chains) REQUIRE(ring.take(chain));
    ring.put(chains[2], 1);
    ring.put(chains[0], 1);
    const std::vector<uint8_t> before = area;  // the record as it is when the process dies inside publish()
    ring.publish();
    area = before;
    Ring successor(memory);
    REQUIRE(successor.start(setup));
    Chain again;
    REQUIRE(successor.take(again));
    CHECK(again.head == 1);
    REQUIRE(successor.take(again));
    CHECK(again.head == 3);
    CHECK_FALSE(successor.take(again));
    CHECK(successor.broken() == "");
    CHECK(record->used_index == 2);
}

TEST_CASE("live migration: what the device writes is in the log; a new size reaches the front end") {
    MemoryDisk disk(kDiskBytes);
    Backend backend(disk);
    FrontEnd guest;
    guest.connect(backend);
    const Fd log(::memfd_create("log", MFD_CLOEXEC));
    const uint64_t bytes = (kGuestBase + kMemoryBytes) / 4096 / 8;
    REQUIRE(::ftruncate(log.get(), static_cast<off_t>(bytes)) == 0);
    guest.send(Request::set_log_base, LogArea{bytes, 0}, {log.get()});
    CHECK(guest.answer_as<uint64_t>(Request::set_log_base) == 0);
    DriverQueue queue;
    REQUIRE(guest.start_queue(0, queue, 64, 0, kVringLogged));
    auto is_logged = [&](uint64_t at) {
        uint8_t byte = 0;
        const uint64_t page = (kGuestBase + at) / 4096;
        REQUIRE(::pread(log.get(), &byte, 1, static_cast<off_t>(page / 8)) == 1);
        return (byte >> (page % 8) & 1) != 0;
    };
    CHECK(guest.run(queue, blk::out, 0, kData, 8192) == blk::ok);
    CHECK_FALSE(is_logged(kData));
    CHECK(guest.run(queue, blk::in, 0, kData, 8192) == blk::ok);
    CHECK(is_logged(kData));
    CHECK(is_logged(kData + 4096));
    CHECK_FALSE(is_logged(kData + 8192));
    CHECK(is_logged(guest.used_at(queue)));
    int pair[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    const Fd ours(pair[0]), theirs(pair[1]);
    guest.send(Request::set_backend_req_fd, uint64_t{0}, std::vector<int>{theirs.get()});
    CHECK(guest.get(Request::get_queue_num) == 2);
    signal(backend.changed);
    Header header{};
    CHECK(::recv(ours.get(), &header, sizeof header, MSG_WAITALL) == sizeof header);
    CHECK(header.request == kBackendConfigChanged);
}

TEST_CASE("a front end that dies in the middle of its requests: the backend ends when they have") {
    MemoryDisk disk(kDiskBytes);
    FrontEnd guest;
    Backend backend(disk);
    guest.connect(backend);
    DriverQueue queue;
    REQUIRE(guest.start_queue(0, queue, 64));
    disk.hold = true;
    for (uint32_t i = 0; i < 8; i++) guest.offer(queue, guest.build(queue, 0x100000 + i * 256, blk::out, i, kData, 512));
    guest.kick(queue);
    REQUIRE(eventually([&] { return disk.started == 8; }));
    std::memset(guest.memory + kData, 7, 512);
    std::thread closer([&] { backend.join(); });
    disk.hold = false;
    closer.join();
    CHECK(disk.content[7 * 512] == 7);
}

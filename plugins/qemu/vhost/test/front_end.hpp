// SPDX-License-Identifier: GPL-2.0-or-later
// A guest's driver and its QEMU in one: memory in a memfd, virtqueues in it, vhost-user messages. And a disk in memory.
#pragma once

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "vhost/session.hpp"

namespace vitastor::vhost {

class MemoryDisk final : public Disk {
public:
    explicit MemoryDisk(size_t size) : content(size) {}
    std::unique_ptr<DiskThread> open_thread() override { return std::make_unique<Thread>(*this); }
    uint64_t bytes() const override { return content.size(); }
    bool read_only() const override { return is_read_only; }
    bool is_durable() const override { return false; }
    uint32_t discard_bytes() const override { return 131072; }
    std::string serial() const override { return "disk-in-memory"; }

    std::mutex mutex;  ///< guards content
    std::vector<uint8_t> content;
    std::atomic<bool> is_read_only{false}, hold{false};
    std::atomic<int> started{0}, flushes{0}, discards{0}, error{0};

private:
    struct Thread final : DiskThread {
        explicit Thread(MemoryDisk& disk) : disk(disk), event(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
        struct Op {
            Done done;
            void* arg;
            int kind;
            uint64_t offset, length;
            std::vector<iovec> iov;
        };
        void add(int kind, uint64_t offset, uint64_t length, const iovec* iov, int count, Done done, void* arg) {
            ops.push_back({done, arg, kind, offset, length, std::vector<iovec>(iov, iov + count)});
            disk.started++;
            signal(event);
        }
        void read(uint64_t offset, uint64_t length, const iovec* iov, int count, Done done, void* arg) override { add(0, offset, length, iov, count, done, arg); }
        void write(uint64_t offset, uint64_t length, const iovec* iov, int count, Done done, void* arg) override { add(1, offset, length, iov, count, done, arg); }
        void zero(uint64_t offset, uint64_t length, Done done, void* arg) override { add(2, offset, length, nullptr, 0, done, arg); }
        void discard(uint64_t offset, uint64_t length, Done done, void* arg) override {
            disk.discards++;
            add(2, offset, length, nullptr, 0, done, arg);
        }
        void flush(Done done, void* arg) override {
            disk.flushes++;
            add(3, 0, 0, nullptr, 0, done, arg);
        }
        int fd() const override { return event.get(); }
        int timeout_ms() const override { return ops.empty() ? -1 : 5; }
        void run() override {
            consume(event);
            if (disk.hold) return;
            std::vector<Op> now;
            now.swap(ops);
            for (Op& op : now) {
                int64_t result = disk.error ? -disk.error : static_cast<int64_t>(op.length);
                if (result >= 0) {
                    const std::lock_guard lock(disk.mutex);
                    uint8_t* at = disk.content.data() + op.offset;
                    if (op.kind == 2) std::memset(at, 0, op.length);
                    for (const iovec& piece : op.iov) {
                        if (op.kind == 0) std::memcpy(piece.iov_base, at, piece.iov_len);
                        else std::memcpy(at, piece.iov_base, piece.iov_len);
                        at += piece.iov_len;
                    }
                }
                op.done(op.arg, result);
            }
        }
        MemoryDisk& disk;
        Fd event;
        std::vector<Op> ops;
    };
};

/// A backend on a thread, connected.
struct Backend {
    explicit Backend(MemoryDisk& disk, unsigned queues = 2) : changed(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), stop(::eventfd(0, EFD_CLOEXEC)) {
        int pair[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        socket = Fd(pair[0]);
        Fd other(pair[1]);
        thread = std::thread([this, &disk, queues, theirs = std::move(other)]() mutable {
            Session session(disk, queues, std::move(theirs), changed);
            ended_by_stop = !session.serve(stop);
        });
    }
    ~Backend() { join(); }
    void join() {
        if (!thread.joinable()) return;
        socket = Fd();
        thread.join();
    }
    Fd changed, stop, socket;
    std::thread thread;
    bool ended_by_stop = false;
};

constexpr uint64_t kGuestBase = 0x100000000, kUserBase = 0x7f0000000000, kMemoryBytes = 16 << 20;

/// One virtqueue as the driver sees it. All pointers into FrontEnd::memory.
struct DriverQueue {
    uint16_t size = 0;
    uint64_t at = 0;  ///< offset of the rings
    uint16_t next = 0, seen = 0;
    uint16_t free_descriptor = 0;
    Fd kick, call, error;
};

class FrontEnd {
public:
    FrontEnd() : memory_fd(::memfd_create("guest", MFD_CLOEXEC)) {
        REQUIRE(::ftruncate(memory_fd.get(), kMemoryBytes) == 0);
        memory = static_cast<uint8_t*>(::mmap(nullptr, kMemoryBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd.get(), 0));
        REQUIRE(memory != MAP_FAILED);
    }
    ~FrontEnd() { ::munmap(memory, kMemoryBytes); }

    // ---- vhost-user
    void send(Request request, const void* body, uint32_t bytes, const std::vector<int>& fds = {}, uint32_t flags = 0) {
        uint8_t buffer[4200];
        const Header header{static_cast<uint32_t>(request), header_flags::version | flags, bytes};
        std::memcpy(buffer, &header, sizeof header);
        if (bytes) std::memcpy(buffer + sizeof header, body, bytes);
        iovec iov{buffer, sizeof header + bytes};
        alignas(cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int) * 8)] = {};
        msghdr head{};
        head.msg_iov = &iov;
        head.msg_iovlen = 1;
        if (!fds.empty()) {
            head.msg_control = control;
            head.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
            cmsghdr* part = CMSG_FIRSTHDR(&head);
            part->cmsg_level = SOL_SOCKET;
            part->cmsg_type = SCM_RIGHTS;
            part->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
            std::memcpy(CMSG_DATA(part), fds.data(), sizeof(int) * fds.size());
        }
        REQUIRE(::sendmsg(socket, &head, MSG_NOSIGNAL) == static_cast<ssize_t>(iov.iov_len));
    }
    template <class Body>
    void send(Request request, const Body& body, const std::vector<int>& fds = {}, uint32_t flags = 0) {
        send(request, &body, sizeof body, fds, flags);
    }
    /// Payload of the answer, and the descriptor that came with it.
    std::vector<uint8_t> answer(Request request, Fd* fd = nullptr) {
        Header header{};
        iovec iov{&header, sizeof header};
        alignas(cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))];
        msghdr head{};
        head.msg_iov = &iov;
        head.msg_iovlen = 1;
        head.msg_control = control;
        head.msg_controllen = sizeof control;
        REQUIRE(::recvmsg(socket, &head, MSG_WAITALL) == sizeof header);
        if (cmsghdr* part = CMSG_FIRSTHDR(&head); part && fd) {
            int got = -1;
            std::memcpy(&got, CMSG_DATA(part), sizeof got);
            *fd = Fd(got);
        }
        CHECK(header.request == static_cast<uint32_t>(request));
        CHECK(header.flags == (header_flags::version | header_flags::reply));
        std::vector<uint8_t> payload(header.size);
        if (header.size) REQUIRE(::recv(socket, payload.data(), header.size, MSG_WAITALL) == static_cast<ssize_t>(header.size));
        return payload;
    }
    template <class Body>
    Body answer_as(Request request, Fd* fd = nullptr) {
        const auto payload = answer(request, fd);
        Body body{};
        REQUIRE(payload.size() >= sizeof body);
        std::memcpy(&body, payload.data(), sizeof body);
        return body;
    }
    uint64_t get(Request request) {
        send(request, nullptr, 0);
        return answer_as<uint64_t>(request);
    }
    /// True: it was accepted.
    template <class Body>
    bool ask(Request request, const Body& body, const std::vector<int>& fds = {}) {
        send(request, body, fds, header_flags::need_reply);
        return answer_as<uint64_t>(request) == 0;
    }
    bool send_memory() {
        struct {
            uint32_t count, padding;
            MemoryRegion regions[2];
        } table{2, 0, {{kGuestBase, kMemoryBytes / 2, kUserBase, 0}, {kGuestBase + kMemoryBytes / 2, kMemoryBytes / 2, kUserBase + kMemoryBytes / 2, kMemoryBytes / 2}}};
        return ask(Request::set_mem_table, table, {memory_fd.get(), memory_fd.get()});
    }
    void connect(Backend& backend, uint64_t without = 0) {
        socket = backend.socket.get();
        const uint64_t features = get(Request::get_features);
        CHECK((features & feature::version_1) != 0);
        send(Request::set_owner, nullptr, 0);
        const uint64_t protocol = get(Request::get_protocol_features);
        send(Request::set_protocol_features, protocol);
        send(Request::set_features, (features & ~feature::log_all & ~without));
        event_index = (features & ~without & feature::event_index) != 0;
        REQUIRE(send_memory());
    }
    /// A ring of its own in the guest's memory; starts at `base`, `queue.next` goes on there.
    bool start_queue(uint32_t index, DriverQueue& queue, uint16_t size, uint16_t base = 0, uint32_t flags = 0) {
        queue.size = size;
        queue.at = 0x10000 + index * 0x20000;
        queue.kick = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
        queue.call = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
        queue.error = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
        send(Request::set_vring_num, VringState{index, size});
        send(Request::set_vring_base, VringState{index, base});
        send(Request::set_vring_addr, VringAddress{index, flags, kUserBase + queue.at, kUserBase + used_at(queue), kUserBase + available_at(queue), kGuestBase + used_at(queue)});
        send(Request::set_vring_err, uint64_t{index}, {queue.error.get()});
        send(Request::set_vring_call, uint64_t{index}, {queue.call.get()});
        const bool started = ask(Request::set_vring_kick, uint64_t{index}, {queue.kick.get()});
        send(Request::set_vring_enable, VringState{index, 1});
        return started;
    }

    // ---- the driver
    static uint64_t available_at(const DriverQueue& queue) { return queue.at + queue.size * sizeof(Descriptor); }
    static uint64_t used_at(const DriverQueue& queue) { return (available_at(queue) + 6 + 2u * queue.size + 3) / 4 * 4; }
    uint16_t& word(uint64_t at) { return *reinterpret_cast<uint16_t*>(memory + at); }
    Descriptor& descriptor(const DriverQueue& queue, uint32_t index) { return reinterpret_cast<Descriptor*>(memory + queue.at)[index]; }
    uint16_t used_index(const DriverQueue& queue) { return load_shared(memory + used_at(queue) + 2); }
    UsedElement used(const DriverQueue& queue, uint16_t index) {
        return reinterpret_cast<UsedElement*>(memory + used_at(queue) + 4)[index % queue.size];
    }
    /// Makes it available; the device sees it after kick().
    void offer(DriverQueue& queue, uint16_t head) {
        word(available_at(queue) + 4 + 2u * (queue.next % queue.size)) = head;
        store_shared(memory + available_at(queue) + 2, ++queue.next);
    }
    void kick(DriverQueue& queue) { signal(queue.kick); }
    /// Header, data, status; data at `data_at` of the guest's memory. Status at header_at + 16.
    uint16_t build(DriverQueue& queue, uint64_t header_at, uint32_t type, uint64_t sector, uint64_t data_at, uint32_t bytes, bool indirect = false) {
        const blk::RequestHeader header{type, 0, sector};
        std::memcpy(memory + header_at, &header, sizeof header);
        memory[header_at + 16] = 0xee;
        const uint16_t data_flags = type == blk::in || type == blk::get_id ? kWritable : 0;
        Descriptor chain[4] = {{kGuestBase + header_at, 16, kNext, 1}, {kGuestBase + data_at, bytes / 2, static_cast<uint16_t>(kNext | data_flags), 2},
            {kGuestBase + data_at + bytes / 2, bytes - bytes / 2, static_cast<uint16_t>(kNext | data_flags), 3}, {kGuestBase + header_at + 16, 1, kWritable, 0}};
        if (indirect) {
            const uint16_t head = take(queue, 1);
            std::memcpy(memory + header_at + 64, chain, sizeof chain);
            descriptor(queue, head) = {kGuestBase + header_at + 64, sizeof chain, kIndirect, 0};
            return head;
        }
        const uint16_t head = take(queue, 4);
        for (uint16_t i = 0; i < 4; i++) {
            chain[i].next = static_cast<uint16_t>(head + i + 1);
            descriptor(queue, head + i) = chain[i];
        }
        return head;
    }
    uint16_t take(DriverQueue& queue, uint16_t count) {
        if (queue.free_descriptor + count > queue.size) queue.free_descriptor = 0;
        const uint16_t first = queue.free_descriptor;
        queue.free_descriptor = static_cast<uint16_t>(first + count);
        return first;
    }
    /// Waits for interrupts until the queue has used so many.
    bool until_used(DriverQueue& queue, uint16_t count) {
        for (int i = 0; i < 200; i++) {
            if (event_index) word(available_at(queue) + 4 + 2u * queue.size) = static_cast<uint16_t>(count - 1);
            __atomic_thread_fence(__ATOMIC_SEQ_CST);
            if (used_index(queue) == count) return true;
            pollfd wait{queue.call.get(), POLLIN, 0};
            ::poll(&wait, 1, 100);
            consume(queue.call);
        }
        return false;
    }
    /// One request, to its end. Its status.
    uint8_t run(DriverQueue& queue, uint32_t type, uint64_t sector, uint64_t data_at, uint32_t bytes, bool indirect = false) {
        constexpr uint64_t header_at = 0x1000;
        offer(queue, build(queue, header_at, type, sector, data_at, bytes, indirect));
        kick(queue);
        REQUIRE(until_used(queue, queue.next));
        return memory[header_at + 16];
    }

    Fd memory_fd;
    uint8_t* memory = nullptr;
    int socket = -1;
    bool event_index = false;
};

}  // namespace vitastor::vhost

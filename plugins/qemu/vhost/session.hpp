// SPDX-License-Identifier: GPL-2.0-or-later
// One front end (QEMU) on one connection: vhost-user messages, and the queues that they set up.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "vhost/disk.hpp"
#include "vhost/fd.hpp"
#include "vhost/memory.hpp"
#include "vhost/protocol.hpp"
#include "vhost/queue.hpp"

namespace vitastor::vhost {

class Session {
public:
    /// socket: connected. changed: an eventfd that becomes readable when the size of the disk has changed; borrowed.
    Session(Disk& disk, unsigned queues, Fd socket, const Fd& changed);
    /// Waits for what is in progress: nothing is written for this front end afterwards.
    ~Session();
    /// Until the front end goes away (true), or `stop` becomes readable (false).
    bool serve(const Fd& stop);

private:
    static constexpr size_t kPayloadMax = 4096, kFdsMax = 64;
    struct Message {
        Header header{};
        uint8_t payload[kPayloadMax];
        std::vector<Fd> fds;
        template <class Body>
        bool body(Body& out) const {
            if (header.size < sizeof out) return false;
            __builtin_memcpy(&out, payload, sizeof out);
            return true;
        }
    };

    bool receive(Message& message);
    bool read_all(uint8_t* to, size_t bytes);
    bool send(const Header& header, const void* payload, int fd = -1);
    bool reply(const Message& message, const void* payload, size_t bytes, int fd = -1);
    template <class Body>
    bool reply_with(const Message& message, const Body& body) {
        return reply(message, &body, sizeof body);
    }
    /// 1: done, 0: done and answered, or a negative errno. Closes the connection with -EPIPE only.
    int handle(Message& message);
    int set_features(uint64_t features);
    int set_memory(Message& message);
    int set_vring_fd(Message& message, Request request);
    int get_vring_base(const Message& message);
    int get_config(const Message& message);
    int set_config(const Message& message);
    int get_inflight(const Message& message);
    int set_inflight(Message& message);
    int set_log(Message& message);
    void reset();
    void tell_config_changed();
    Queue* queue(uint32_t index);
    uint64_t offered_features() const;
    blk::Config config() const;
    void complain(const std::string& text) const;
    uint64_t inflight_stride(uint32_t queue_size) const;

    Disk& disk_;
    Fd socket_;
    const Fd& changed_;
    Memory memory_;
    std::atomic<bool> write_back_{true};
    std::vector<std::unique_ptr<Queue>> queues_;  ///< after memory_: they end first
    uint64_t features_ = 0, protocol_features_ = 0;
    Fd backend_socket_;
    Mapping inflight_;
    uint32_t inflight_queue_size_ = 0, inflight_queues_ = 0;
};

}  // namespace vitastor::vhost

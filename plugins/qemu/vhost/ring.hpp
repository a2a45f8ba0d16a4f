// SPDX-License-Identifier: GPL-2.0-or-later
// A split virtqueue, seen from the device. Everything in it was written by the guest, which may change it while we look: each value is read once
// and checked before it is used. A guest that breaks the rules breaks its queue, and nothing else.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <string>
#include <vector>

#include "vhost/memory.hpp"
#include "vhost/protocol.hpp"

namespace vitastor::vhost {

/// One request: what the guest lets us read, then what it lets us write.
struct Chain {
    uint16_t head = 0;
    std::vector<iovec> readable, writable;
    uint64_t readable_bytes = 0, writable_bytes = 0;
};

struct RingSetup {
    uint32_t size = 0;
    VringAddress addresses{};
    uint16_t base = 0;  ///< next available entry
    bool event_index = false;
    InflightQueue* inflight = nullptr;  ///< borrowed; InflightDescriptor[size] follow
};

/// One thread.
class Ring {
public:
    explicit Ring(const Memory& memory) : memory_(memory) {}
    /// False: `broken()` says why.
    bool start(const RingSetup& setup);
    /// The guest's memory lies elsewhere; nothing is in progress. False: `broken()` says why.
    bool remap();
    bool move(const VringAddress& addresses) {
        setup_.addresses = addresses;
        return remap();
    }
    void forget_inflight() { setup_.inflight = nullptr; }
    /// The next request; first those that a former process had taken and not answered. False: there is none, or the queue is broken.
    bool take(Chain& chain);
    /// It is done, `written` bytes of its writable part are valid. Seen by the guest after publish().
    void put(const Chain& chain, uint32_t written);
    /// True: the guest wants an interrupt.
    bool publish();
    /// The guest is to kick again. True: there is something already.
    bool wait_for_kick();
    /// The guest need not kick for now.
    void poll();
    /// What GET_VRING_BASE answers.
    uint16_t next_available() const { return next_available_; }
    uint32_t taken() const { return taken_; }
    bool running() const { return descriptors_ != nullptr; }
    const std::string& broken() const { return broken_; }
    void stop();

private:
    bool fail(const std::string& reason);
    bool read_chain(Chain& chain);
    bool read_table(const uint8_t* table, uint32_t size, uint32_t first, Chain& chain, bool indirect);
    void recover_inflight();
    InflightDescriptor* state(uint16_t head) const { return reinterpret_cast<InflightDescriptor*>(setup_.inflight + 1) + head; }
    void log_used(uint64_t offset, uint64_t bytes) const;

    const Memory& memory_;
    RingSetup setup_;
    uint8_t *descriptors_ = nullptr, *available_ = nullptr, *used_ = nullptr;
    uint16_t next_available_ = 0, next_used_ = 0, published_ = 0;
    bool told_once_ = false;
    uint32_t taken_ = 0;
    uint64_t counter_ = 0;
    std::vector<uint16_t> again_;  ///< heads to be taken again, the oldest last
    std::vector<uint16_t> batch_;  ///< heads put since the last publish()
    std::string broken_;
};

}  // namespace vitastor::vhost

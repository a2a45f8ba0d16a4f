// SPDX-License-Identifier: GPL-2.0-or-later
// Numbers and layouts of vhost-user, of split virtqueues and of virtio-blk. Little endian, as the hosts that we run on.
// Source: QEMU docs/interop/vhost-user; OASIS virtio 1.2, 2.7 and 5.2; Linux uapi.
#pragma once

#include <cstdint>

namespace vitastor::vhost {

enum class Request : uint32_t {
    get_features = 1,
    set_features = 2,
    set_owner = 3,
    reset_owner = 4,
    set_mem_table = 5,
    set_log_base = 6,
    set_log_fd = 7,
    set_vring_num = 8,
    set_vring_addr = 9,
    set_vring_base = 10,
    get_vring_base = 11,
    set_vring_kick = 12,
    set_vring_call = 13,
    set_vring_err = 14,
    get_protocol_features = 15,
    set_protocol_features = 16,
    get_queue_num = 17,
    set_vring_enable = 18,
    set_backend_req_fd = 21,
    get_config = 24,
    set_config = 25,
    get_inflight_fd = 31,
    set_inflight_fd = 32,
    reset_device = 34,
};

namespace header_flags {
constexpr uint32_t version_mask = 3, version = 1, reply = 4, need_reply = 8;
}

namespace protocol_feature {
constexpr uint64_t mq = 1ull << 0, log_shmfd = 1ull << 1, reply_ack = 1ull << 3, backend_req = 1ull << 5, config = 1ull << 9, inflight = 1ull << 12,
                   reset_device = 1ull << 13;
}

constexpr uint32_t kBackendConfigChanged = 2;  ///< backend -> front end

namespace feature {
constexpr uint64_t blk_seg_max = 1ull << 2, blk_ro = 1ull << 5, blk_size = 1ull << 6, blk_flush = 1ull << 9, blk_topology = 1ull << 10,
                   blk_config_wce = 1ull << 11, blk_mq = 1ull << 12, blk_discard = 1ull << 13, blk_write_zeroes = 1ull << 14, log_all = 1ull << 26,
                   indirect = 1ull << 28, event_index = 1ull << 29, protocol_features = 1ull << 30, version_1 = 1ull << 32;
}

struct Header {
    uint32_t request, flags, size;
};
static_assert(sizeof(Header) == 12);

struct MemoryRegion {
    uint64_t guest_address, bytes, user_address, offset;
};
struct VringState {
    uint32_t index, number;
};
struct VringAddress {
    uint32_t index, flags;
    uint64_t descriptors, used, available, log;
};
constexpr uint32_t kVringLogged = 1;
struct LogArea {
    uint64_t bytes, offset;
};
struct InflightArea {
    uint64_t bytes, offset;
    uint16_t queues, queue_size;
    uint32_t padding;  ///< on the wire or not
};
constexpr uint32_t kInflightWire = 20;
struct ConfigHeader {
    uint32_t offset, size, flags;
};

// ---- split virtqueue

struct Descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};
constexpr uint16_t kNext = 1, kWritable = 2, kIndirect = 4;
constexpr uint16_t kNoInterrupt = 1, kNoNotify = 1;
struct UsedElement {
    uint32_t head, length;
};
constexpr uint32_t kQueueSizeMax = 1024;

/// What a backend that is started again must know (vhost-user, "Inflight I/O tracking", split virtqueue).
struct InflightDescriptor {
    uint8_t inflight, padding[5];
    uint16_t next;
    uint64_t counter;
};
struct InflightQueue {
    uint64_t features;
    uint16_t version, descriptors, last_batch_head, used_index;
    // InflightDescriptor[descriptors]
};
static_assert(sizeof(InflightDescriptor) == 16 && sizeof(InflightQueue) == 16);

// ---- virtio-blk

constexpr uint32_t kSectorBytes = 512, kSectorShift = 9;
constexpr uint32_t kSerialBytes = 20;

namespace blk {
constexpr uint32_t in = 0, out = 1, flush = 4, get_id = 8, discard = 11, write_zeroes = 13;
constexpr uint8_t ok = 0, io_error = 1, unsupported = 2;
constexpr uint32_t unmap = 1;
struct RequestHeader {
    uint32_t type, priority;
    uint64_t sector;
};
struct Segment {
    uint64_t sector;
    uint32_t sectors, flags;
};
struct [[gnu::packed]] Config {
    uint64_t capacity;
    uint32_t size_max, seg_max;
    uint16_t cylinders;
    uint8_t heads, sectors;
    uint32_t block_size;
    uint8_t physical_block_exponent, alignment_offset;
    uint16_t min_io;
    uint32_t optimal_io;
    uint8_t write_back, unused0;
    uint16_t queues;
    uint32_t max_discard_sectors, max_discard_segments, discard_alignment, max_zeroes_sectors, max_zeroes_segments;
    uint8_t zeroes_may_unmap, unused1[3];
};
static_assert(sizeof(Config) == 60);
constexpr uint32_t write_back_offset = 32;
}  // namespace blk

}  // namespace vitastor::vhost

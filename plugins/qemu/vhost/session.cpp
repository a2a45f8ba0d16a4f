// SPDX-License-Identifier: GPL-2.0-or-later
#include "vhost/session.hpp"

#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace vitastor::vhost {
namespace {

constexpr uint64_t kProtocolFeatures = protocol_feature::mq | protocol_feature::log_shmfd | protocol_feature::reply_ack |
                                       protocol_feature::backend_req | protocol_feature::config | protocol_feature::inflight;
constexpr uint64_t kInflightAlign = 64;
constexpr uint32_t kMaxDiscardBytes = 2u << 30, kMaxZeroBytes = 64u << 20;
constexpr uint32_t kPhysicalBlockExponent = 3;  ///< 4 KB
constexpr uint32_t kSegmentsMax = 254;
constexpr uint64_t kVringIndexMask = 0xff, kVringNoFd = 0x100;

/// All queues are parked while it lives.
class Parked {
public:
    Parked(std::vector<std::unique_ptr<Queue>>& queues, bool drained) : queues_(queues) {
        for (auto& queue : queues_) queue->park(drained);
    }
    ~Parked() {
        for (auto& queue : queues_) queue->resume();
    }
    Parked(const Parked&) = delete;
    Parked& operator=(const Parked&) = delete;

private:
    std::vector<std::unique_ptr<Queue>>& queues_;
};

class ParkedOne {
public:
    ParkedOne(Queue& queue, bool drained) : queue_(queue) { queue_.park(drained); }
    ~ParkedOne() { queue_.resume(); }
    ParkedOne(const ParkedOne&) = delete;
    ParkedOne& operator=(const ParkedOne&) = delete;

private:
    Queue& queue_;
};

}  // namespace

Session::Session(Disk& disk, unsigned queues, Fd socket, const Fd& changed) : disk_(disk), socket_(std::move(socket)), changed_(changed) {
    for (unsigned i = 0; i < queues; i++) {
        queues_.push_back(std::make_unique<Queue>(disk_, memory_, write_back_, i));
        queues_.back()->resume();
    }
}

Session::~Session() { queues_.clear(); }

void Session::complain(const std::string& text) const { std::fprintf(stderr, "vitastor-vhost: the front end: %s\n", text.c_str()); }

// ---- messages

bool Session::read_all(uint8_t* to, size_t bytes) {
    while (bytes > 0) {
        const ssize_t got = ::recv(socket_.get(), to, bytes, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        to += got;
        bytes -= static_cast<size_t>(got);
    }
    return true;
}

bool Session::receive(Message& message) {
    message.fds.clear();
    iovec iov{&message.header, sizeof message.header};
    alignas(cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int) * kFdsMax)];
    msghdr head{};
    head.msg_iov = &iov;
    head.msg_iovlen = 1;
    head.msg_control = control;
    head.msg_controllen = sizeof control;
    ssize_t got = 0;
    do got = ::recvmsg(socket_.get(), &head, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got <= 0) return false;
    for (cmsghdr* part = CMSG_FIRSTHDR(&head); part; part = CMSG_NXTHDR(&head, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            message.fds.emplace_back(fd);
        }
    }
    const size_t left = sizeof message.header - static_cast<size_t>(got);
    if (left && !read_all(reinterpret_cast<uint8_t*>(&message.header) + got, left)) return false;
    if ((message.header.flags & header_flags::version_mask) != header_flags::version || message.header.size > kPayloadMax) {
        complain("a message of version " + std::to_string(message.header.flags & header_flags::version_mask) + " and " +
                 std::to_string(message.header.size) + " bytes: not vhost-user");
        return false;
    }
    return read_all(message.payload, message.header.size);
}

bool Session::send(const Header& header, const void* payload, int fd) {
    uint8_t bytes[sizeof(Header) + kPayloadMax];
    std::memcpy(bytes, &header, sizeof header);
    std::memcpy(bytes + sizeof header, payload, header.size);
    iovec iov{bytes, sizeof header + header.size};
    alignas(cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))] = {};
    msghdr head{};
    head.msg_iov = &iov;
    head.msg_iovlen = 1;
    if (fd >= 0) {
        head.msg_control = control;
        head.msg_controllen = sizeof control;
        cmsghdr* part = CMSG_FIRSTHDR(&head);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(sizeof fd);
        std::memcpy(CMSG_DATA(part), &fd, sizeof fd);
    }
    ssize_t sent = 0;
    do sent = ::sendmsg(socket_.get(), &head, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == static_cast<ssize_t>(iov.iov_len);
}

bool Session::reply(const Message& message, const void* payload, size_t bytes, int fd) {
    return send({message.header.request, header_flags::version | header_flags::reply, static_cast<uint32_t>(bytes)}, payload, fd);
}

bool Session::serve(const Fd& stop) {
    for (Message message;;) {
        pollfd waits[3] = {{socket_.get(), POLLIN, 0}, {stop.get(), POLLIN, 0}, {changed_.get(), POLLIN, 0}};
        if (::poll(waits, 3, -1) < 0 && errno != EINTR) return true;
        if (waits[1].revents) return false;
        if (waits[2].revents) {
            consume(changed_);
            tell_config_changed();
        }
        if (!waits[0].revents) continue;
        if (!receive(message)) return true;
        const int result = handle(message);
        if (result == -EPIPE) return true;
        if (result < 0) {
            complain("request " + std::to_string(message.header.request) + " is refused: " + std::strerror(-result));
        }
        const bool wants_answer = (message.header.flags & header_flags::need_reply) && (protocol_features_ & protocol_feature::reply_ack);
        if (result != 0 && wants_answer && !reply_with(message, uint64_t{result < 0})) return true;
    }
}

int Session::handle(Message& message) {
    uint64_t number = 0;
    VringState state{};
    switch (static_cast<Request>(message.header.request)) {
        case Request::get_features:
            return reply_with(message, offered_features()) ? 0 : -EPIPE;
        case Request::set_features:
            return message.body(number) ? set_features(number) : -EINVAL;
        case Request::get_protocol_features:
            return reply_with(message, kProtocolFeatures) ? 0 : -EPIPE;
        case Request::set_protocol_features:
            if (!message.body(number) || (number & ~kProtocolFeatures)) return -EINVAL;
            protocol_features_ = number;
            return 1;
        case Request::set_owner:
            return 1;
        case Request::reset_owner:
        case Request::reset_device:
            reset();
            return 1;
        case Request::get_queue_num:
            return reply_with(message, uint64_t{queues_.size()}) ? 0 : -EPIPE;
        case Request::set_mem_table:
            return set_memory(message);
        case Request::set_log_base:
            return set_log(message);
        case Request::set_log_fd:
            return 1;  // nobody has to be told of the log
        case Request::set_vring_num:
        case Request::set_vring_base:
        case Request::set_vring_enable: {
            if (!message.body(state)) return -EINVAL;
            Queue* target = queue(state.index);
            if (!target) return -EINVAL;
            const ParkedOne parked(*target, false);
            const auto request = static_cast<Request>(message.header.request);
            if (request == Request::set_vring_num) target->setup.size = state.number;
            else if (request == Request::set_vring_base) target->setup.base = static_cast<uint16_t>(state.number);
            else target->enabled = state.number != 0;
            return 1;
        }
        case Request::set_vring_addr: {
            VringAddress address{};
            if (!message.body(address)) return -EINVAL;
            Queue* target = queue(address.index);
            if (!target) return -EINVAL;
            const ParkedOne parked(*target, false);
            target->setup.addresses = address;
            return target->move_ring() ? 1 : -EINVAL;
        }
        case Request::get_vring_base:
            return get_vring_base(message);
        case Request::set_vring_kick:
        case Request::set_vring_call:
        case Request::set_vring_err:
            return set_vring_fd(message, static_cast<Request>(message.header.request));
        case Request::set_backend_req_fd:
            if (message.fds.size() != 1) return -EINVAL;
            backend_socket_ = std::move(message.fds[0]);
            return 1;
        case Request::get_config:
            return get_config(message);
        case Request::set_config:
            return set_config(message);
        case Request::get_inflight_fd:
            return get_inflight(message);
        case Request::set_inflight_fd:
            return set_inflight(message);
    }
    return -ENOSYS;
}

Queue* Session::queue(uint32_t index) { return index < queues_.size() ? queues_[index].get() : nullptr; }

// ---- features and memory

uint64_t Session::offered_features() const {
    uint64_t features = feature::version_1 | feature::indirect | feature::event_index | feature::log_all | feature::protocol_features |
                        feature::blk_seg_max | feature::blk_size | feature::blk_topology | feature::blk_flush | feature::blk_config_wce | feature::blk_mq;
    features |= disk_.read_only() ? feature::blk_ro : feature::blk_discard | feature::blk_write_zeroes;
    return features;
}

int Session::set_features(uint64_t features) {
    // A disk may have become read-only since the front end asked.
    if (features & ~(offered_features() | feature::blk_discard | feature::blk_write_zeroes)) return -EINVAL;
    const Parked parked(queues_, false);
    features_ = features;
    if (!(features & feature::log_all)) memory_.clear_log();
    // Without the bit of vhost-user there is no SET_VRING_ENABLE.
    if (!(features & feature::protocol_features)) {
        for (auto& queue : queues_) queue->enabled = true;
    }
    return 1;
}

int Session::set_memory(Message& message) {
    uint32_t count = 0;
    constexpr size_t before = 2 * sizeof(uint32_t);
    if (!message.body(count) || count > Memory::kRegionsMax || message.header.size < before + count * sizeof(MemoryRegion)) return -EINVAL;
    std::vector<MemoryRegion> regions(count);
    if (count) std::memcpy(regions.data(), message.payload + before, count * sizeof(MemoryRegion));
    std::vector<int> fds;
    for (const Fd& fd : message.fds) fds.push_back(fd.get());
    const Parked parked(queues_, true);
    std::string reason;
    const int error = memory_.set(regions, fds, reason);
    if (error < 0) {
        complain(reason);
        return error;
    }
    for (auto& queue : queues_) queue->remap();
    return 1;
}

int Session::set_log(Message& message) {
    LogArea area{};
    if (!(protocol_features_ & protocol_feature::log_shmfd) || message.fds.size() != 1 || !message.body(area)) return -EINVAL;
    int error = 0;
    {
        const Parked parked(queues_, false);
        error = memory_.set_log(message.fds[0].get(), area);
    }
    // QEMU waits for an answer to this one.
    return reply_with(message, uint64_t{error < 0}) ? 0 : -EPIPE;
}

void Session::reset() {
    const Parked parked(queues_, true);
    for (auto& queue : queues_) {
        queue->stop_ring();
        queue->enabled = false;
    }
    features_ = 0;
    memory_.clear_log();
}

// ---- rings

int Session::set_vring_fd(Message& message, Request request) {
    uint64_t value = 0;
    if (!message.body(value)) return -EINVAL;
    Queue* target = queue(static_cast<uint32_t>(value & kVringIndexMask));
    if (!target || message.fds.size() != (value & kVringNoFd ? 0u : 1u)) return -EINVAL;
    Fd fd = message.fds.empty() ? Fd() : std::move(message.fds[0]);
    const ParkedOne parked(*target, false);
    if (request == Request::set_vring_call) {
        target->call = std::move(fd);
        signal(target->call);  // what was published without it
        return 1;
    }
    if (request == Request::set_vring_err) {
        target->error = std::move(fd);
        return 1;
    }
    if (!fd) return -ENOTSUP;  // a device that polls instead of waiting
    target->kick = std::move(fd);
    RingSetup& setup = target->setup;
    setup.event_index = features_ & feature::event_index;
    setup.inflight = nullptr;
    const uint32_t index = static_cast<uint32_t>(value & kVringIndexMask);
    if (inflight_.data() && index < inflight_queues_ && setup.size <= inflight_queue_size_)
        setup.inflight = reinterpret_cast<InflightQueue*>(inflight_.data() + index * inflight_stride(inflight_queue_size_));
    return target->start_ring() ? 1 : -EINVAL;
}

int Session::get_vring_base(const Message& message) {
    VringState state{};
    if (!message.body(state)) return -EINVAL;
    Queue* target = queue(state.index);
    if (!target) return -EINVAL;
    const ParkedOne parked(*target, true);
    state.number = target->stop_ring();
    return reply_with(message, state) ? 0 : -EPIPE;
}

// ---- the device

blk::Config Session::config() const {
    blk::Config config{};
    config.capacity = disk_.bytes() / kSectorBytes;
    config.seg_max = kSegmentsMax;
    config.block_size = kSectorBytes;
    config.physical_block_exponent = kPhysicalBlockExponent;
    config.min_io = 1u << kPhysicalBlockExponent;
    config.write_back = write_back_;
    config.queues = static_cast<uint16_t>(queues_.size());
    if (disk_.read_only()) return config;
    config.max_discard_sectors = kMaxDiscardBytes / kSectorBytes;
    config.max_discard_segments = config.max_zeroes_segments = 1;
    config.discard_alignment = std::max(disk_.discard_bytes(), 4096u) / kSectorBytes;
    config.max_zeroes_sectors = kMaxZeroBytes / kSectorBytes;
    config.zeroes_may_unmap = 1;
    return config;
}

int Session::get_config(const Message& message) {
    ConfigHeader head{};
    const blk::Config known = config();
    if (!message.body(head) || head.size > kPayloadMax - sizeof head) return -EINVAL;
    uint8_t answer[kPayloadMax] = {};
    // What a newer front end knows of, and we do not, is zero.
    if (head.offset < sizeof known)
        std::memcpy(answer + sizeof head, reinterpret_cast<const uint8_t*>(&known) + head.offset, std::min<size_t>(head.size, sizeof known - head.offset));
    std::memcpy(answer, &head, sizeof head);
    return reply(message, answer, sizeof head + head.size) ? 0 : -EPIPE;
}

int Session::set_config(const Message& message) {
    ConfigHeader head{};
    if (!message.body(head) || head.offset != blk::write_back_offset || head.size != 1 || message.header.size < sizeof head + 1) return -EINVAL;
    write_back_ = message.payload[sizeof head] != 0;
    return 1;
}

void Session::tell_config_changed() {
    if (!backend_socket_) return;
    const Header header{kBackendConfigChanged, header_flags::version, 0};
    if (::send(backend_socket_.get(), &header, sizeof header, MSG_NOSIGNAL) < 0) complain("it does not hear that the disk has another size");
}

// ---- what outlives us

uint64_t Session::inflight_stride(uint32_t queue_size) const {
    const uint64_t bytes = sizeof(InflightQueue) + uint64_t{queue_size} * sizeof(InflightDescriptor);
    return (bytes + kInflightAlign - 1) / kInflightAlign * kInflightAlign;
}

int Session::get_inflight(const Message& message) {
    InflightArea area{};
    if (message.header.size < kInflightWire) return -EINVAL;
    std::memcpy(&area, message.payload, kInflightWire);
    if (area.queues == 0 || area.queues > queues_.size() || area.queue_size == 0 || area.queue_size > kQueueSizeMax) return -EINVAL;
    area.bytes = area.queues * inflight_stride(area.queue_size);
    area.offset = 0;
    const Fd fd(::memfd_create("vitastor-vhost-inflight", MFD_CLOEXEC));
    if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(area.bytes)) < 0) return -errno;
    // QEMU counts four bytes of padding, the document does not: as the front end does.
    return reply(message, &area, std::min<size_t>(message.header.size, sizeof area), fd.get()) ? 0 : -EPIPE;
}

int Session::set_inflight(Message& message) {
    InflightArea area{};
    if (message.header.size < kInflightWire || message.fds.size() != 1) return -EINVAL;
    std::memcpy(&area, message.payload, kInflightWire);
    if (area.queues == 0 || area.queues > queues_.size() || area.queue_size == 0 || area.queue_size > kQueueSizeMax ||
        area.bytes < area.queues * inflight_stride(area.queue_size))
        return -EINVAL;
    const Parked parked(queues_, true);
    if (const int error = inflight_.map(message.fds[0].get(), area.offset, area.bytes); error < 0) return error;
    inflight_queues_ = area.queues;
    inflight_queue_size_ = area.queue_size;
    // A ring that runs already keeps no record until it is started again.
    for (auto& queue : queues_) queue->forget_inflight();
    return 1;
}

}  // namespace vitastor::vhost

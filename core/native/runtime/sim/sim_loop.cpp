// SPDX-License-Identifier: GPL-2.0-or-later
#include "runtime/sim/sim_loop.hpp"

#include <algorithm>

#include "runtime/os_file.hpp"

namespace vitastor::runtime {

namespace {

constexpr size_t kBufferKeepBytes = 4 << 20;
constexpr uint64_t kNotifyNs = 1000;           ///< from one thread of a process to the other
constexpr uint64_t kEpochUs = 1'700'000'000'000'000;  ///< the world begins in November 2023

}  // namespace

SimLoop::SimLoop(SimWorld::State& world, NodeId node)
    : world_(world), node_(node), serial_(world.next_id++), buffers_(kBufferKeepBytes) {
    world_.loops[serial_] = this;
    world_.node(node_).loops.insert(serial_);
}

SimLoop::~SimLoop() {
    if (!dead_) die(false);
}

void SimLoop::die(bool power_loss) {
    dead_ = true;
    for (auto& [id, timer] : timers_) {
        timer.first->heap_index = UINT64_MAX;
        if (timer.second != kNoEvent) world_.unschedule(timer.second);
    }
    timers_.clear();
    while (deferred_.pop_front() != nullptr) {
    }
    std::vector<std::string> paths;
    for (uint32_t i = 0; i < files_.size(); i++) {
        const FileSlot& slot = files_.at(i);
        if (slot.open) paths.push_back(slot.path);
    }
    std::sort(paths.begin(), paths.end());
    paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
    world_.retire_loop(serial_, node_, paths, power_loss);
}

// ---- time

uint64_t SimLoop::now_ns() const { return world_.node_time(node_, world_.now); }

uint64_t SimLoop::wall_us() {
    return kEpochUs + now_ns() / 1000 + static_cast<uint64_t>(world_.node(node_).wall_jump_us);
}

uint64_t SimLoop::random_u64() {
    uint64_t value = world_.node(node_).random.next();
    world_.fold(value);
    return value;
}

void SimLoop::run_once(uint64_t until_ns) {
    if (dead_) return;
    uint64_t limit = until_ns == kNever ? kNever : world_.world_time(node_, until_ns);
    uint64_t seen = counters_.kernel_entries;
    while (counters_.kernel_entries == seen) {
        if (world_.events.empty() || world_.events.begin()->first.first > limit) {
            if (limit != kNever) world_.now = std::max(world_.now, limit);
            return;
        }
        world_.step();
    }
}

uint64_t SimLoop::next_deadline_ns() const {
    uint64_t earliest = deferred_.empty() ? kNever : now_ns();
    for (const auto& [id, timer] : timers_) earliest = std::min(earliest, timer.first->deadline_ns);
    return earliest;
}

void SimLoop::arm_timer(Timer& timer, uint64_t deadline_ns) {
    disarm_timer(timer);
    timer.deadline_ns = deadline_ns;
    if (dead_) return;
    uint64_t id = next_timer_++;
    timer.heap_index = id;
    EventKey key = kNoEvent;
    if (deadline_ns != kNever) {
        key = world_.schedule(world_.world_time(node_, deadline_ns), "timer", serial_, id, [this, id] {
            Timer* due = timers_.at(id).first;
            timers_.erase(id);
            due->heap_index = UINT64_MAX;
            counters_.kernel_entries++;
            due->on_fire(due);
        });
    }
    timers_[id] = {&timer, key};
}

void SimLoop::disarm_timer(Timer& timer) {
    if (!timer.armed()) return;
    auto found = timers_.find(timer.heap_index);
    timer.heap_index = UINT64_MAX;
    if (found == timers_.end()) return;
    VITASTOR_ASSERT(found->second.first == &timer);
    if (found->second.second != kNoEvent) world_.unschedule(found->second.second);
    timers_.erase(found);
}

void SimLoop::defer(Deferred& deferred) {
    if (dead_) return;
    deferred_.push_back(&deferred);
    if (deferred_event_ != kNoEvent) return;
    deferred_event_ = world_.schedule(world_.now, "deferred", serial_, 0, [this] { run_deferred(); });
}

void SimLoop::run_deferred() {
    deferred_event_ = kNoEvent;
    counters_.kernel_entries++;
    Deferred mark;
    deferred_.push_back(&mark);
    // What is deferred from inside stands behind the mark and has an event of its own.
    while (Deferred* item = deferred_.pop_front()) {
        if (item == &mark) break;
        item->on_run(item);
    }
}

void SimLoop::register_notifier(Notifier& notifier) {
    VITASTOR_ASSERT(notifier.loop_data == nullptr);
    uint64_t id = next_mail_++;
    mail_[id] = Mail{&notifier, kNoEvent};
    notifier.loop_data = reinterpret_cast<void*>(id);
}

void SimLoop::unregister_notifier(Notifier& notifier) {
    auto found = mail_.find(reinterpret_cast<uint64_t>(notifier.loop_data));
    notifier.loop_data = nullptr;
    if (found == mail_.end()) return;
    if (found->second.event != kNoEvent) world_.unschedule(found->second.event);
    mail_.erase(found);
}

void SimLoop::notify(Notifier& notifier) {
    uint64_t id = reinterpret_cast<uint64_t>(notifier.loop_data);
    VITASTOR_ASSERT(id != 0);
    if (dead_ || mail_.at(id).event != kNoEvent) return;
    mail_.at(id).event = world_.schedule(world_.now + kNotifyNs, "notify", serial_, id, [this, id] {
        Mail& mail = mail_.at(id);
        mail.event = kNoEvent;
        counters_.kernel_entries++;
        mail.notifier->on_notify(mail.notifier);
    });
}

// ---- network

Socket SimLoop::add_socket(uint64_t endpoint) {
    Socket handle = sockets_.open();
    sockets_.get(handle).endpoint = endpoint;
    return handle;
}

SimEndpoint* SimLoop::socket_end(Socket socket) {
    SimEndpoint* end = world_.endpoint(sockets_.get(socket).endpoint);
    VITASTOR_ASSERT(end != nullptr);
    return end;
}

void SimLoop::connect(const Address& address, Completion& completion) {
    if (dead_) return;
    world_.connect(world_.start_op(SimOp::Kind::connect, serial_, completion), node_, address);
}

Result<Socket> SimLoop::listen(const Address& address, uint16_t* port) {
    if (dead_) return Status(-ESHUTDOWN, "this node has crashed");
    Result<uint64_t> end = world_.listen(node_, serial_, address, port);
    if (!end.ok()) return end.status();
    Socket handle = add_socket(end.value());
    world_.endpoint(end.value())->handle = handle;
    return handle;
}

void SimLoop::accept(Socket listener, Completion& completion) {
    if (dead_) return;
    SimEndpoint& end = *socket_end(listener);
    VITASTOR_ASSERT(end.listening && end.accept_op == 0);
    uint64_t id = world_.start_op(SimOp::Kind::accept, serial_, completion);
    world_.find_op(id)->endpoint = end.id;
    end.accept_op = id;
    world_.kick_accept(end);
}

void SimLoop::receive(Socket socket, const iovec* iov, int count, Completion& completion) {
    if (dead_) return;
    SimEndpoint& end = *socket_end(socket);
    VITASTOR_ASSERT(!end.listening && end.receive_op == 0);
    uint64_t id = world_.start_op(SimOp::Kind::receive, serial_, completion);
    SimOp& op = *world_.find_op(id);
    op.endpoint = end.id;
    op.iov.assign(iov, iov + count);
    end.receive_op = id;
    world_.kick_receive(end);
}

void SimLoop::send(Socket socket, const iovec* iov, int count, Completion& completion) {
    if (dead_) return;
    SimEndpoint& end = *socket_end(socket);
    VITASTOR_ASSERT(!end.listening && end.send_op == 0);
    uint64_t id = world_.start_op(SimOp::Kind::send, serial_, completion);
    SimOp& op = *world_.find_op(id);
    op.endpoint = end.id;
    op.iov.assign(iov, iov + count);
    end.send_op = id;
    world_.kick_send(end);
}

void SimLoop::close_socket(Socket socket) {
    if (dead_) return;
    uint64_t end = sockets_.get(socket).endpoint;
    sockets_.recycle(sockets_.close(socket));
    world_.close_endpoint(end);
}

void SimLoop::cancel(Completion& completion) {
    if (dead_ || completion.loop_data[0] == 0) return;
    world_.cancel_op(completion.loop_data[0]);
}

std::string SimLoop::peer_name(Socket socket) {
    if (dead_) return "unknown peer";
    const Address& peer = socket_end(socket)->remote;
    bool v6 = peer.host.find(':') != std::string::npos;
    return (v6 ? "[" + peer.host + "]" : peer.host) + ":" + std::to_string(peer.port);
}

std::vector<std::string> SimLoop::local_addresses() { return world_.node(node_).addresses; }

// ---- disk

Result<File> SimLoop::open_file(const std::string& path, const FileOptions& options) {
    if (dead_) return Status(-ESHUTDOWN, "this node has crashed");
    auto found = world_.disks.find(path);
    if (found == world_.disks.end()) return Status(-ENOENT, "cannot open " + path + ": No such file or directory");
    SimDisk& disk = found->second;
    if (options.lock_exclusive) {
        if (disk.lock_holder != 0 || !disk.area_locks.empty()) {
            return Status(-EBUSY, "cannot lock " + path + ": it is in use by another process; stop that one first");
        }
        disk.lock_holder = serial_;
    }
    const uint64_t from = options.area_offset;
    const uint64_t to = options.area_bytes ? from + options.area_bytes : UINT64_MAX;
    const bool shared = options.mode == FileMode::read_only;
    if (!options.lock_exclusive && options.lock_area) {
        bool taken = disk.lock_holder != 0;
        for (const SimDisk::AreaLock& other : disk.area_locks)
            taken = taken || (from < other.to && other.from < to && !(shared && other.shared));
        if (taken) return Status(-EBUSY, "cannot lock " + path + ": it is in use by another process; stop that one first");
    }
    File handle = files_.open();
    if (!options.lock_exclusive && options.lock_area) disk.area_locks.push_back({serial_, handle, from, to, shared});
    FileSlot& slot = files_.get(handle);
    slot.path = path;
    slot.disk = &disk;
    slot.options = options;
    slot.info.size_bytes = disk.options.size_bytes;
    slot.info.logical_block = disk.options.logical_block;
    slot.info.is_block_device = disk.options.is_block_device;
    slot.info.can_discard = disk.options.can_discard;
    if (disk.options.is_block_device)
        slot.info.write_cache = disk.options.volatile_cache ? WriteCache::present : WriteCache::none;
    slot.info.is_direct = options.io != FileIo::cached && !disk.options.refuse_direct;
    return handle;
}

FileInfo SimLoop::file_info(File file) { return files_.get(file).info; }

void SimLoop::file_op(SimWorld::State::FileCall call, File file, const iovec* iov, int count, uint64_t offset,
                      uint64_t length, Completion& completion) {
    if (dead_) return;
    FileSlot& slot = files_.get(file);
    uint64_t id = world_.start_op(SimOp::Kind::file, serial_, completion);
    if (iov != nullptr) world_.find_op(id)->iov.assign(iov, iov + count);
    SimWorld::State::FileRequest request;
    request.call = call;
    request.disk = slot.disk;
    request.direct = slot.info.is_direct;
    request.through = slot.options.io == FileIo::direct_sync;
    request.writable = slot.options.mode == FileMode::read_write;
    request.offset = offset;
    request.length = iov != nullptr ? iov_bytes(iov, count) : length;
    world_.start_file_op(id, request);
}

void SimLoop::read(File file, const iovec* iov, int count, uint64_t offset, Completion& completion) {
    file_op(SimWorld::State::FileCall::read, file, iov, count, offset, 0, completion);
}

void SimLoop::write(File file, const iovec* iov, int count, uint64_t offset, Completion& completion) {
    file_op(SimWorld::State::FileCall::write, file, iov, count, offset, 0, completion);
}

void SimLoop::sync(File file, Completion& completion) {
    file_op(SimWorld::State::FileCall::sync, file, nullptr, 0, 0, 0, completion);
}

void SimLoop::discard(File file, uint64_t offset, uint64_t length, Completion& completion) {
    file_op(SimWorld::State::FileCall::discard, file, nullptr, 0, offset, length, completion);
}

void SimLoop::close_file(File file) {
    if (dead_) return;
    bool locked = files_.get(file).options.lock_exclusive;
    uint32_t index = files_.close(file);
    if (locked) world_.close_disk(files_.at(index).path, serial_);
    auto disk = world_.disks.find(files_.at(index).path);
    if (disk != world_.disks.end())
        std::erase_if(disk->second.area_locks, [&](const SimDisk::AreaLock& lock) {
            return lock.loop == serial_ && lock.file == file;
        });
    files_.recycle(index);
}

}  // namespace vitastor::runtime

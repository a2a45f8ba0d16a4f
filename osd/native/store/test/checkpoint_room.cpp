// SPDX-License-Identifier: GPL-2.0-or-later
#include "checkpoint_room.hpp"

#include <cstring>

#include "fake_disk.hpp"
#include "store/meta_log.hpp"

namespace vitastor::test {

using namespace vitastor::store;
using runtime::Task;

namespace {

constexpr uint64_t kPages = 8;

/// An entry that fills a page.
void append_page(MetaLog& log) {
    std::vector<uint8_t> bytes(kPagePayload);
    EntryHeader header{};
    header.size = kPagePayload;
    memcpy(bytes.data(), &header, sizeof(header));
    log.append(bytes);
}

Task<void> commit(MetaLog& log, int& result) {
    Task<int> committing = log.commit();
    result = co_await committing;
}

Task<void> move_start(MetaLog& log, LogMark mark, int& result) {
    Task<int> moving = log.set_tail(mark);
    result = co_await moving;
}

}  // namespace

std::string use_room_under_checkpoint(uint64_t seed) {
    FakeLoop loop(seed);
    loop.disks.emplace("meta", FakeDisk(1 << 20));
    loop.disks["meta"].is_volatile = true;
    Geometry geometry;
    geometry.log_offset = kLogStart;
    geometry.log_pages = kPages;
    Device device(loop, loop.open_file("meta", {}).value(), true);
    MetaLog log(device, device, geometry, 77);
    log.start(LogMark{}, LogMark{}, 0, 0);
    constexpr int kRunning = 1;
    int status = kRunning;
    for (uint64_t page = 0; page + 2 < kPages; page++) append_page(log);
    runtime::spawn(commit(log, status));
    while (status == kRunning) loop.run_once(0);
    if (status != 0) return "the log cannot be filled: " + std::to_string(status);

    std::vector<DiskEvent> trace;
    loop.trace = &trace;
    int moved = kRunning;
    status = kRunning;
    runtime::spawn(move_start(log, log.mark(), moved));
    for (uint64_t page = 0; page < 4; page++) append_page(log);
    runtime::spawn(commit(log, status));
    while (status == kRunning || moved == kRunning || !log.is_idle()) loop.run_once(0);
    loop.trace = nullptr;

    uint64_t checkpoint = 0, flush = 0;
    bool is_written = false, is_durable = false;
    for (const DiskEvent& event : trace) {
        const bool is_log = event.kind == DiskEvent::Kind::write_issued && event.offset >= kLogStart;
        if (event.kind == DiskEvent::Kind::write_issued && event.offset < kLogStart) checkpoint = event.id;
        else if (event.kind == DiskEvent::Kind::write_done && event.id == checkpoint) is_written = true;
        else if (event.kind == DiskEvent::Kind::flush_issued && is_written && !flush) flush = event.id;
        else if (event.kind == DiskEvent::Kind::flush_done && event.id == flush) is_durable = true;
        else if (is_log && event.offset < kLogStart + (kPages - 2) * kPageSize && !is_durable)
            return "a place before the new start is used before the checkpoint is durable";
    }
    return is_durable ? "" : "no checkpoint was written";
}

}  // namespace vitastor::test

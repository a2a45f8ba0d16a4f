// SPDX-License-Identifier: GPL-2.0-or-later
// Simulated disks: what is acknowledged, what is durable, and what a power loss makes of the difference.
#include <algorithm>
#include <cstring>

#include "base/crc32c.hpp"
#include "runtime/os_file.hpp"
#include "runtime/sim/sim_loop.hpp"
#include "runtime/sim/sim_state.hpp"

namespace vitastor::runtime {

namespace {

constexpr size_t kVersionsKept = 8;

}  // namespace

// ---- content

void SimDisk::copy_in(uint64_t offset, uint64_t length, const uint8_t* from) {
    for (uint64_t done = 0; done < length;) {
        const uint64_t index = (offset + done) / kExtentBytes, inside = (offset + done) % kExtentBytes;
        const uint64_t part = std::min(kExtentBytes - inside, length - done);
        if (extents.size() <= index) extents.resize(index + 1);
        if (!extents[index]) extents[index] = std::make_unique<uint8_t[]>(kExtentBytes);
        memcpy(extents[index].get() + inside, from + done, part);
        done += part;
    }
}

void SimDisk::apply(uint64_t offset, const std::vector<uint8_t>& bytes, bool durable) {
    write_number++;
    if (bytes.empty()) return;
    const uint64_t first = offset / options.sector_bytes, last = (offset + bytes.size() - 1) / options.sector_bytes;
    if (durable) {
        copy_in(offset, bytes.size(), bytes.data());
        dirty.erase(dirty.lower_bound(first), dirty.upper_bound(last));
        return;
    }
    for (uint64_t index = first; index <= last; index++) {
        auto [history, is_new] = dirty.try_emplace(index);
        if (is_new) history->second.durable = content(index * options.sector_bytes, options.sector_bytes);
    }
    copy_in(offset, bytes.size(), bytes.data());
    for (uint64_t index = first; index <= last; index++) {
        auto& versions = dirty[index].versions;
        if (versions.size() == kVersionsKept) versions.erase(versions.begin());
        versions.push_back({write_number, content(index * options.sector_bytes, options.sector_bytes)});
    }
}

std::vector<uint8_t> SimDisk::content(uint64_t offset, uint64_t length) const {
    std::vector<uint8_t> out(length);
    copy_out(offset, length, out.data());
    return out;
}

void SimDisk::copy_out(uint64_t offset, uint64_t length, uint8_t* out) const {
    for (uint64_t done = 0; done < length;) {
        const uint64_t index = (offset + done) / kExtentBytes, inside = (offset + done) % kExtentBytes;
        const uint64_t part = std::min(kExtentBytes - inside, length - done);
        if (index < extents.size() && extents[index]) {
            memcpy(out + done, extents[index].get() + inside, part);
        } else {
            memset(out + done, 0, part);
        }
        done += part;
    }
}

void SimDisk::make_durable(uint64_t up_to_write) {
    for (auto item = dirty.begin(); item != dirty.end();) {
        auto& [durable, versions] = item->second;
        size_t covered = 0;
        while (covered < versions.size() && versions[covered].write_number <= up_to_write) covered++;
        if (covered > 0) {
            durable = std::move(versions[covered - 1].bytes);
            versions.erase(versions.begin(), versions.begin() + static_cast<int64_t>(covered));
        }
        item = versions.empty() ? dirty.erase(item) : std::next(item);
    }
}

uint64_t SimDisk::lose_power(SimRandom& random) {
    // Whole outcomes are drawn too, because the plain cases would be rare otherwise.
    enum class Mood { keep_all, lose_all, mixed };
    uint64_t draw = random.below(4);
    Mood mood = draw == 0 ? Mood::keep_all : draw == 1 ? Mood::lose_all : Mood::mixed;
    uint64_t digest = draw;
    uint64_t units = options.sector_bytes / options.atomic_bytes;
    for (auto& [index, history] : dirty) {
        uint64_t fate = mood == Mood::keep_all ? 0 : mood == Mood::lose_all ? 1 : random.below(4);
        const auto& versions = history.versions;
        std::vector<uint8_t> now;
        if (fate == 0) {
            now = versions.back().bytes;
        } else if (fate == 1) {
            now = history.durable;
        } else {
            size_t pick = random.below(versions.size());
            std::vector<uint8_t> result = versions[pick].bytes;
            if (fate == 3 && units > 1) {
                VITASTOR_PROBE("simulated power loss tore a sector");
                const auto& before = pick == 0 ? history.durable : versions[pick - 1].bytes;
                auto cut = static_cast<int64_t>((1 + random.below(units - 1)) * options.atomic_bytes);
                bool head_is_new = random.below(2);
                if (head_is_new) {
                    std::copy(before.begin() + cut, before.end(), result.begin() + cut);
                } else {
                    std::copy(before.begin(), before.begin() + cut, result.begin());
                }
            }
            now = std::move(result);
        }
        copy_in(index * options.sector_bytes, now.size(), now.data());
        digest = SimWorld::State::mix(digest ^ index ^ (uint64_t{crc32c(now.data(), now.size())} << 32));
    }
    dirty.clear();
    return digest;
}

// ---- operations

SimDisk& SimWorld::State::disk(const std::string& path) {
    auto found = disks.find(path);
    VITASTOR_ASSERT(found != disks.end());
    return found->second;
}

/// 0, or why the request is refused before it reaches the device.
int SimWorld::State::refuse_file_op(const SimDisk& d, const SimOp& op, const FileRequest& request) const {
    bool writes = request.call == FileCall::write || request.call == FileCall::discard;
    if (writes && !request.writable) return -EBADF;
    if (request.call == FileCall::discard) return d.options.can_discard ? 0 : -EOPNOTSUPP;
    if (request.call == FileCall::sync) return 0;
    if (request.direct) {
        uint64_t mask = d.options.logical_block - 1;
        if ((request.offset | request.length) & mask) return -EINVAL;
        for (const iovec& piece : op.iov) {
            if ((reinterpret_cast<uintptr_t>(piece.iov_base) & 511) || (piece.iov_len & 511)) return -EINVAL;
        }
    }
    // A sparse file of the tests is as big as it will ever be.
    if (writes && request.offset >= d.options.size_bytes && request.length > 0) return -ENOSPC;
    return 0;
}

void SimWorld::State::start_file_op(uint64_t op_id, const FileRequest& given) {
    FileRequest request = given;
    SimOp& op = *find_op(op_id);
    SimDisk& d = *request.disk;
    const SimDiskOptions& o = d.options;
    op.disk = &d;
    op.number = ++d.operations;
    if (int error = refuse_file_op(d, op, request)) return finish_op_at(op_id, now, "refused", error);
    if (request.call != FileCall::sync) {
        request.length = request.offset >= o.size_bytes ? 0 : std::min(request.length, o.size_bytes - request.offset);
    }
    bool moves = request.call == FileCall::read || request.call == FileCall::write;
    uint64_t blocks = request.length / o.logical_block;
    if (moves && blocks > 1 && disk_random.chance(o.short_chance)) {
        request.length = (1 + disk_random.below(blocks - 1)) * o.logical_block;
    }
    uint64_t at = now + o.latency_ns + disk_random.below(o.jitter_ns + 1);
    if (request.call == FileCall::sync) at += o.sync_latency_ns;
    if (moves && o.bytes_per_us > 0) at += request.length * 1000 / o.bytes_per_us;
    if (disk_random.chance(o.slow_chance)) at += o.slow_ns;
    auto planned = d.planned_errors.find(op.number);
    double error_chance = request.call == FileCall::read ? o.read_error_chance
        : request.call == FileCall::sync                 ? o.sync_error_chance
                                                         : o.write_error_chance;
    if (planned != d.planned_errors.end() || disk_random.chance(error_chance)) {
        int error = planned != d.planned_errors.end() ? planned->second : -EIO;
        finish_op_at(op_id, at, "disk error", error);
        return;
    }
    if (request.call == FileCall::write) {
        auto& write = d.writes[op.number];
        write.loop = op.loop;
        write.offset = request.offset;
        write.through = request.through;
        write.bytes.reserve(request.length);
        for (const iovec& piece : op.iov) {
            auto* base = static_cast<const uint8_t*>(piece.iov_base);
            uint64_t part = std::min<uint64_t>(request.length - write.bytes.size(), piece.iov_len);
            write.bytes.insert(write.bytes.end(), base, base + part);
        }
    }
    const char* what = request.call == FileCall::read ? "read"
        : request.call == FileCall::write             ? "write"
        : request.call == FileCall::sync              ? "sync"
                                                      : "discard";
    uint64_t mark = d.write_number;
    op.event = schedule(at, what, op.loop, op_id,
                        [this, op_id, request, mark] { finish_file_op(op_id, request, mark); });
}

/// The write reaches the medium, with the silent faults of the disk.
void SimWorld::State::land(SimDisk& d, uint64_t number) {
    auto found = d.writes.find(number);
    if (found == d.writes.end()) return;
    SimDisk::InFlightWrite write = std::move(found->second);
    d.writes.erase(found);
    const SimDiskOptions& o = d.options;
    fold(crc32c(write.bytes.data(), write.bytes.size()));
    if (write.bytes.empty()) return;
    if (disk_random.chance(o.lost_write_chance)) return;
    if (disk_random.chance(o.bit_rot_chance)) {
        uint64_t bit = disk_random.below(write.bytes.size() * 8);
        write.bytes[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    }
    if (disk_random.chance(o.misdirect_chance)) {
        uint64_t places = (o.size_bytes - write.bytes.size()) / o.sector_bytes + 1;
        write.offset = disk_random.below(places) * o.sector_bytes;
    }
    d.apply(write.offset, write.bytes, write.through || !o.volatile_cache);
}

void SimWorld::State::finish_file_op(uint64_t op_id, const FileRequest& request, uint64_t write_mark) {
    SimOp& op = *find_op(op_id);
    SimDisk& d = *request.disk;
    auto result = static_cast<int64_t>(request.length);
    switch (request.call) {
    case FileCall::read: {
        uint32_t crc = 0;
        uint64_t done = 0;
        for (const iovec& piece : op.iov) {
            const uint64_t part = std::min<uint64_t>(request.length - done, piece.iov_len);
            if (part == 0) continue;
            d.copy_out(request.offset + done, part, static_cast<uint8_t*>(piece.iov_base));
            crc = crc32c(piece.iov_base, part, crc);
            done += part;
        }
        fold(crc);
        break;
    }
    case FileCall::write:
        land(d, op.number);
        break;
    case FileCall::sync:
        d.make_durable(write_mark);
        result = 0;
        break;
    case FileCall::discard:
        // The contents become undefined: sometimes zeroes, sometimes what was there.
        if (request.length > 0 && disk_random.below(2)) {
            d.apply(request.offset, std::vector<uint8_t>(request.length), !d.options.volatile_cache);
        }
        result = 0;
        break;
    }
    finish_op(op_id, result);
}

// ---- death of a user

void SimWorld::State::close_disk(const std::string& path, uint64_t loop) {
    auto found = disks.find(path);
    if (found == disks.end() || found->second.lock_holder != loop) return;
    SimDisk& d = found->second;
    if (d.landing > 0) {
        d.release_when_landed = true;
    } else {
        d.lock_holder = 0;
    }
}

void SimWorld::State::abandon_writes(const std::string& path, uint64_t loop, bool power_loss) {
    auto found = disks.find(path);
    if (found == disks.end()) return;
    SimDisk& d = found->second;
    std::vector<uint64_t> numbers;
    for (const auto& [number, write] : d.writes) {
        if (write.loop == loop) numbers.push_back(number);
    }
    for (uint64_t number : numbers) {
        if (power_loss) {
            auto& write = d.writes[number];
            if (!write.bytes.empty()) d.apply(write.offset, write.bytes, false);
            d.writes.erase(number);
            continue;
        }
        // Given to the kernel: it still lands, and the file stays locked until then.
        d.landing++;
        uint64_t at = now + d.options.latency_ns + disk_random.below(d.options.jitter_ns + 1);
        schedule(at, "late write", 0, number, [this, path, number] {
            SimDisk& late = disk(path);
            land(late, number);
            if (--late.landing > 0) return;
            if (std::exchange(late.release_when_landed, false)) late.lock_holder = 0;
            std::erase_if(late.area_locks, [this](const SimDisk::AreaLock& lock) { return !loops.count(lock.loop); });
        });
    }
    if (power_loss) fold(d.lose_power(disk_random));
    if (d.landing == 0)
        std::erase_if(d.area_locks, [loop](const SimDisk::AreaLock& lock) { return lock.loop == loop; });
    close_disk(path, loop);
}

// ---- the harness's hands

void SimWorld::add_disk(const std::string& path, const SimDiskOptions& options) {
    VITASTOR_ASSERT(!state_->disks.count(path));
    VITASTOR_ASSERT(options.sector_bytes % options.atomic_bytes == 0);
    VITASTOR_ASSERT(options.sector_bytes % options.logical_block == 0);
    state_->disks[path].options = options;
}

void SimWorld::remove_disk(const std::string& path) {
    SimDisk& d = state_->disk(path);
    VITASTOR_ASSERT(d.lock_holder == 0 && d.writes.empty());
    state_->disks.erase(path);
}

void SimWorld::set_disk(const std::string& path, const SimDiskOptions& options) {
    SimDisk& d = state_->disk(path);
    VITASTOR_ASSERT(options.size_bytes >= d.options.size_bytes);
    VITASTOR_ASSERT(options.sector_bytes == d.options.sector_bytes);
    d.options = options;
}

SimDiskOptions SimWorld::disk(const std::string& path) const { return state_->disk(path).options; }
uint64_t SimWorld::disk_operations(const std::string& path) const { return state_->disk(path).operations; }

void SimWorld::fail_operation(const std::string& path, uint64_t number, int error) {
    VITASTOR_ASSERT(error < 0);
    state_->disk(path).planned_errors[number] = error;
}

std::vector<uint8_t> SimWorld::peek(const std::string& path, uint64_t offset, uint64_t length) const {
    return state_->disk(path).content(offset, length);
}

void SimWorld::poke(const std::string& path, uint64_t offset, const std::vector<uint8_t>& bytes) {
    state_->disk(path).apply(offset, bytes, true);
}

void SimWorld::flip_bit(const std::string& path, uint64_t bit) {
    std::vector<uint8_t> byte = peek(path, bit / 8, 1);
    byte[0] ^= static_cast<uint8_t>(1u << (bit % 8));
    poke(path, bit / 8, byte);
}

uint64_t SimWorld::unflushed_sectors(const std::string& path) const { return state_->disk(path).dirty.size(); }

}  // namespace vitastor::runtime

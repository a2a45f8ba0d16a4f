// SPDX-License-Identifier: GPL-2.0-or-later
#include "rig.hpp"

#include <algorithm>
#include <cstring>

#include "base/crc32c.hpp"
#include "store/geometry.hpp"
#include "store/store_format.hpp"

namespace vitastor::test {

void fill_granule(uint8_t* data, uint32_t size, uint32_t tag) {
    for (uint32_t i = 0; i < size / 4; i++) {
        const uint32_t word = tag ? tag ^ (i * 2654435761u) : 0;
        memcpy(data + i * 4, &word, 4);
    }
}

uint32_t read_granule(const uint8_t* data, uint32_t size) {
    uint32_t tag;
    memcpy(&tag, data, 4);
    for (uint32_t i = 0; i < size / 4; i++) {
        uint32_t word;
        memcpy(&word, data + i * 4, 4);
        if (word != (tag ? tag ^ (i * 2654435761u) : 0)) return UINT32_MAX;
    }
    return tag;
}

bool Oracle::apply_first_half(OracleObject& object, const TestOp& op) const {
    if (op.op != StoreOp::write || op.settles == 0 || object.empty() || op.wanted <= object.back().version) return false;
    if (object.back().stable || object.back().version != op.settles) return false;
    object.back().stable = true;
    object.erase(object.begin(), object.end() - 1);
    return true;
}

int64_t Oracle::apply(OracleObject& object, const TestOp& op) const {
    switch (op.op) {
        case StoreOp::write:
        case StoreOp::write_stable: {
            const bool stable = op.op == StoreOp::write_stable;
            if (!object.empty() && op.wanted <= object.back().version) return -EEXIST;
            if (stable && !object.empty() && !object.back().stable) return -EINVAL;
            if (!object.empty() && object.back().tombstone) object.clear();
            apply_first_half(object, op);
            OracleVersion next;
            if (object.empty()) {
                next.granules.assign(granules, 0);
                next.bitmap.assign(granules / 8, 0);
            } else {
                next = object.back();
            }
            next.version = op.wanted;
            next.stable = stable;
            for (size_t i = 0; i < op.tags.size(); i++) next.granules[op.offset / op.pieces[2].iov_len + i] = op.tags[i];
            if (op.bitmap) next.bitmap = op.bits;
            if (stable) object.clear();
            object.push_back(next);
            return op.len;
        }
        case StoreOp::del: {
            if (!op.tombstone) {
                if (!object.empty() && !object.back().tombstone) object.clear();
                return 0;
            }
            OracleVersion left;
            left.version = std::max(op.wanted, object.empty() ? 0 : object.back().version);
            left.stable = left.tombstone = true;
            left.granules.assign(granules, 0);
            left.bitmap.assign(granules / 8, 0);
            object.clear();
            if (left.version) object.push_back(left);
            return 0;
        }
        case StoreOp::stabilize: {
            if (object.empty() || object.back().tombstone || op.wanted > object.back().version) return -ENOENT;
            size_t last = 0;
            bool found = false;
            for (size_t i = 0; i < object.size(); i++)
                if (object[i].version <= op.wanted) {
                    last = i;
                    found = true;
                }
            if (!found) return 0;
            object[last].stable = true;
            object.erase(object.begin(), object.begin() + static_cast<ptrdiff_t>(last));
            return 0;
        }
        case StoreOp::rollback:
            if (!object.empty() && object.back().tombstone) return 0;
            for (const auto& version : object)
                if (version.stable && version.version > op.wanted) return -EBUSY;
            while (!object.empty() && object.back().version > op.wanted) object.pop_back();
            return 0;
        default:
            return 0;
    }
}

Rig::Rig(uint64_t seed) : loop(seed) {
    options.osd_num = 1;
    options.data_device = "data";
    options.block_size = 32768;
    options.immediate_commit = wire::ImmediateCommit::all;
}

Rig::~Rig() {
    if (store) close();
}

void Rig::make_disks(uint64_t data_size, uint64_t meta_size) {
    loop.disks.clear();
    loop.disks.emplace("data", FakeDisk(data_size));
    loop.disks["data"].is_volatile = !options.disable_data_fsync;
    if (meta_size) {
        options.meta_device = "meta";
        loop.disks.emplace("meta", FakeDisk(meta_size));
        loop.disks["meta"].is_volatile = !options.disable_meta_fsync;
        loop.disks["data"].small_sectors_below = 0;
    } else {
        // Large tears only in the data area: the superblock says where it begins, a good guess is enough for a fresh one.
        loop.disks["data"].small_sectors_below = 0;
    }
}

int Rig::open() {
    store = create_store(loop, options, logger);
    struct Done : runtime::Completion {
        int64_t result = 1;
    } done;
    done.on_done = [](runtime::Completion* self, int64_t result) { static_cast<Done*>(self)->result = result; };
    store->open(done);
    while (done.result == 1) loop.run_once(0);
    if (done.result == 0 && options.meta_device.empty()) {
        uint64_t data_offset;  // from the superblock, byte 88
        memcpy(&data_offset, loop.disks[options.data_device].current.data() + options.data_offset + 88, 8);
        loop.disks[options.data_device].small_sectors_below = options.data_offset + data_offset;
    }
    return static_cast<int>(done.result);
}

void Rig::close() {
    if (!store) return;
    struct Done : runtime::Completion {
        bool finished = false;
    } done;
    done.on_done = [](runtime::Completion* self, int64_t) { static_cast<Done*>(self)->finished = true; };
    store->close(done);
    while (!done.finished) loop.run_once(0);
    store.reset();
    loop.drain();
}

int Rig::reopen() {
    close();
    loop.restart();
    return open();
}

uint8_t* Rig::meta_bytes() {
    if (options.meta_device.empty()) return loop.disks[options.data_device].current.data() + options.data_offset;
    return loop.disks[options.meta_device].current.data() + options.meta_offset;
}

void Rig::keep_changes() {
    for (auto& [name, disk] : loop.disks) {
        disk.durable = disk.current;
        disk.unflushed.clear();
    }
}

void Rig::make_log_small() {
    Superblock super;
    memcpy(&super, meta_bytes(), sizeof(super));
    super.log_pages = std::min(super.log_pages, check_geometry(options).value().reserve_pages() + 16);
    super.crc = 0;
    super.crc = crc32c(&super, sizeof(super));
    memcpy(meta_bytes(), &super, sizeof(super));
    if (!options.meta_device.empty())
        memcpy(loop.disks[options.data_device].current.data() + options.data_offset, &super, sizeof(super));
    keep_changes();
}

void Rig::move_log_to_end() {
    Superblock super;
    memcpy(&super, meta_bytes(), sizeof(super));
    for (int page = 1; page <= 2; page++) {
        Checkpoint checkpoint;
        uint8_t* place = meta_bytes() + page * kPageSize;
        memcpy(&checkpoint, place, sizeof(checkpoint));
        if (memcmp(checkpoint.magic, kCheckpointMagic, sizeof(checkpoint.magic)) != 0) continue;
        checkpoint.tail_slot = super.log_pages - 2;
        checkpoint.crc = 0;
        checkpoint.crc = crc32c(&checkpoint, sizeof(checkpoint));
        memcpy(place, &checkpoint, sizeof(checkpoint));
    }
    keep_changes();
}

void Rig::start(TestOp& op) {
    op.done = false;
    op.wanted = op.version;
    op.on_done = [](Operation* self) {
        auto* test = static_cast<TestOp*>(self);
        test->done = true;
        if (test->then) test->then(test);
    };
    store->submit(op);
    VITASTOR_ASSERT(!op.done);  // never from inside the call
}

void Rig::run(TestOp& op) {
    start(op);
    while (!op.done) loop.run_once(0);
}

std::unique_ptr<TestOp> Rig::with_buffer(uint32_t bytes) const {
    auto op = std::make_unique<TestOp>();
    op->storage.resize(bytes + 8192);
    op->data = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(op->storage.data()) + 4095) / 4096 * 4096);
    op->pieces[0] = {op->data, bytes};
    op->pieces[2] = {nullptr, options.bitmap_granularity};
    op->iov = op->pieces;
    op->iov_count = bytes ? 1 : 0;
    op->bits.resize(granules() / 8);
    return op;
}

std::unique_ptr<TestOp> Rig::write(const ObjectId& object, Version version, uint32_t first, uint32_t count, uint32_t tag,
                                   bool stable) const {
    auto op = with_buffer(count * options.bitmap_granularity);
    op->op = stable ? StoreOp::write_stable : StoreOp::write;
    op->object = object;
    op->version = version;
    op->offset = first * options.bitmap_granularity;
    op->len = count * options.bitmap_granularity;
    for (uint32_t i = 0; i < count; i++) {
        op->tags.push_back(tag + i);
        fill_granule(op->data + i * options.bitmap_granularity, options.bitmap_granularity, tag + i);
    }
    return op;
}

std::unique_ptr<TestOp> Rig::read(const ObjectId& object, Version version, uint32_t first, uint32_t count) const {
    auto op = with_buffer(count * options.bitmap_granularity);
    op->op = StoreOp::read;
    op->object = object;
    op->version = version;
    op->offset = first * options.bitmap_granularity;
    op->len = count * options.bitmap_granularity;
    op->bitmap = op->bits.data();
    memset(op->data, 0xee, op->len);
    return op;
}

std::unique_ptr<TestOp> Rig::simple(StoreOp kind, const ObjectId& object, Version version) const {
    auto op = with_buffer(0);
    op->op = kind;
    op->object = object;
    op->version = version;
    return op;
}

int64_t Rig::forget(PoolId pool, PgNum pg, Version version) {
    struct Done : runtime::Completion {
        bool finished = false;
        int64_t result = 0;
    } done;
    done.on_done = [](runtime::Completion* self, int64_t result) {
        static_cast<Done*>(self)->finished = true;
        static_cast<Done*>(self)->result = result;
    };
    store->forget_tombstones(pool, pg, version, done);
    VITASTOR_ASSERT(!done.finished);
    while (!done.finished) loop.run_once(0);
    return done.result;
}

Listing Rig::list(PoolId pool, PgNum pg, int64_t* result, uint32_t stable_limit) {
    struct Done : ListOperation {
        bool finished = false;
    } operation;
    operation.range.pool = pool;
    operation.range.pg = pg;
    operation.range.min_inode = full_inode(pool, 0);
    operation.range.max_inode = full_inode(pool + 1, 0) - 1;
    operation.range.stable_limit = stable_limit;
    operation.on_done = [](ListOperation* self) { static_cast<Done*>(self)->finished = true; };
    store->list(operation);
    VITASTOR_ASSERT(!operation.finished);
    while (!operation.finished) loop.run_once(0);
    if (result) *result = operation.result;
    return std::move(operation.listing);
}

OracleObject Rig::inspect(const ObjectId& object, bool* broken) {
    OracleObject found;
    Version limit = kNewestVersion;
    for (;;) {
        auto op = read(object, limit, 0, granules());
        run(*op);
        if (op->result == -ENOENT) break;
        if (op->result != op->len) {
            *broken = true;
            break;
        }
        OracleVersion version;
        version.version = op->version;
        version.bitmap = op->bits;
        for (uint32_t i = 0; i < granules(); i++) {
            version.granules.push_back(read_granule(op->data + i * options.bitmap_granularity, options.bitmap_granularity));
            if (version.granules.back() == UINT32_MAX) *broken = true;
        }
        found.insert(found.begin(), version);
        limit = op->version - 1;
        if (limit == 0) break;
    }
    if (const Version deleted = store->tombstone(object); deleted && found.empty()) {
        OracleVersion left;
        left.version = deleted;
        left.stable = left.tombstone = true;
        left.granules.assign(granules(), 0);
        left.bitmap.assign(granules() / 8, 0);
        found.push_back(left);
    } else if (deleted) {
        *broken = true;  // both an object and a tombstone
    }
    return found;
}

std::string Rig::describe(const OracleObject& object) const {
    if (object.empty()) return "absent";
    std::string text;
    for (const auto& version : object) {
        if (version.tombstone) return " tombstone v" + std::to_string(version.version);
        text += " v" + std::to_string(version.version) + (version.stable ? "s[" : "u[");
        for (uint32_t tag : version.granules) text += tag ? std::to_string(tag) + " " : ". ";
        text += "] bits " + std::to_string(version.bitmap[0]);
    }
    return text;
}

}  // namespace vitastor::test

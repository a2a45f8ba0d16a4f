// SPDX-License-Identifier: GPL-2.0-or-later
// The disk half of the seam's contract, for every implementation.
#include "loop_fixture.hpp"

using namespace vitastor;
using namespace vitastor::runtime;
using namespace vitastor::runtime::test;

namespace {

int64_t transfer(Fixture& fixture, bool write, File file, Buffer& buffer, uint64_t offset, size_t length) {
    Op op;
    iovec iov{buffer.data(), length};
    if (write) {
        fixture.a().write(file, &iov, 1, offset, op);
    } else {
        fixture.a().read(file, &iov, 1, offset, op);
    }
    CHECK(op.calls == 0);
    REQUIRE(fixture.until([&] { return op.done(); }));
    return op.result;
}

}  // namespace

TEST_CASE("direct writes are read back, pieces and offsets kept, sync and discard answer 0") {
    FOR_EACH_LOOP(fixture);
    std::string path = fixture.make_file(1 << 20);
    Loop& loop = fixture.a();
    auto opened = loop.open_file(path, {});
    REQUIRE(opened.ok());
    File file = opened.value();
    FileInfo info = loop.file_info(file);
    CHECK(info.size_bytes == 1 << 20);
    CHECK(info.is_direct);
    CHECK_FALSE(info.is_block_device);
    CHECK(info.logical_block >= 512);
    Buffer x = loop.buffers().allocate(8192), y = loop.buffers().allocate(8192), z = loop.buffers().allocate(16384);
    memset(x.data(), 'x', 8192);
    memset(y.data(), 'y', 8192);
    iovec iov[2] = {{x.data(), 8192}, {y.data(), 4096}};
    Op write, sync, discard;
    loop.write(file, iov, 2, 65536, write);
    REQUIRE(fixture.until([&] { return write.done(); }));
    REQUIRE(write.result == 12288);
    loop.sync(file, sync);
    REQUIRE(fixture.until([&] { return sync.done(); }));
    CHECK(sync.result == 0);
    CHECK(transfer(fixture, false, file, z, 65536, 16384) == 16384);
    CHECK(z.data()[0] == 'x');
    CHECK(z.data()[8191] == 'x');
    CHECK(z.data()[8192] == 'y');
    CHECK(z.data()[12287] == 'y');
    CHECK(z.data()[12288] == 0);
    loop.discard(file, 65536, 8192, discard);
    REQUIRE(fixture.until([&] { return discard.done(); }));
    bool answered = discard.result == 0 || discard.result == -EOPNOTSUPP;
    CHECK(answered);
    CHECK(transfer(fixture, false, file, z, 65536, 16384) == 16384);
    CHECK(z.data()[8192] == 'y');  // beside the discarded range
    loop.close_file(file);
}

TEST_CASE("the end of a file gives short reads and then 0") {
    FOR_EACH_LOOP(fixture);
    std::string path = fixture.make_file(64 << 10);
    auto opened = fixture.a().open_file(path, {});
    REQUIRE(opened.ok());
    Buffer buffer = fixture.a().buffers().allocate(16384);
    CHECK(transfer(fixture, false, opened.value(), buffer, 60 << 10, 16384) == 4096);
    CHECK(transfer(fixture, false, opened.value(), buffer, 64 << 10, 4096) == 0);
    fixture.a().close_file(opened.value());
}

TEST_CASE("unaligned direct I/O and writes to a read-only file are errors, not aborts") {
    FOR_EACH_LOOP(fixture);
    std::string path = fixture.make_file(64 << 10);
    FileOptions options;
    options.mode = FileMode::read_only;
    auto opened = fixture.a().open_file(path, options);
    REQUIRE(opened.ok());
    Buffer buffer = fixture.a().buffers().allocate(8192);
    int64_t unaligned = transfer(fixture, false, opened.value(), buffer, 100, 4096);
    bool clear = unaligned == -EINVAL || unaligned == 4096;  // some file systems serve it from the page cache
    CHECK(clear);
    CHECK(transfer(fixture, true, opened.value(), buffer, 0, 4096) == -EBADF);
    fixture.a().close_file(opened.value());
}

TEST_CASE("a locked file is refused with -EBUSY until it is closed, a missing one with -ENOENT") {
    FOR_EACH_LOOP(fixture);
    std::string path = fixture.make_file(64 << 10);
    auto first = fixture.a().open_file(path, {});
    REQUIRE(first.ok());
    auto second = fixture.a().open_file(path, {});
    CHECK(second.status().code() == -EBUSY);
    CHECK(second.status().message().find(path) != std::string::npos);
    FileOptions unlocked;
    unlocked.lock_exclusive = false;
    auto beside = fixture.a().open_file(path, unlocked);
    CHECK(beside.ok());
    fixture.a().close_file(beside.value());
    fixture.a().close_file(first.value());
    fixture.settle();
    auto third = fixture.a().open_file(path, {});
    CHECK(third.ok());
    fixture.a().close_file(third.value());
    CHECK(fixture.a().open_file(path + ".missing", {}).status().code() == -ENOENT);
}

TEST_CASE("hundreds of operations at once, each delivered once with its own data") {
    FOR_EACH_LOOP(fixture);
    constexpr int kCount = 500;
    std::string path = fixture.make_file(kCount * 4096);
    auto opened = fixture.a().open_file(path, {});
    REQUIRE(opened.ok());
    std::vector<Op> ops(kCount);
    std::vector<Buffer> buffers;
    std::vector<iovec> iov(kCount);
    for (int i = 0; i < kCount; i++) {
        buffers.push_back(fixture.a().buffers().allocate(4096));
        memset(buffers.back().data(), i & 255, 4096);
        iov[i] = {buffers.back().data(), 4096};
        fixture.a().write(opened.value(), &iov[i], 1, static_cast<uint64_t>(i) * 4096, ops[i]);
    }
    auto all = [&](int calls) {
        for (const Op& op : ops) {
            if (op.calls < calls) return false;
        }
        return true;
    };
    REQUIRE(fixture.until([&] { return all(1); }));
    for (int i = 0; i < kCount; i++) {
        CHECK(ops[i].result == 4096);
        memset(buffers[i].data(), 0xee, 4096);
        int source = kCount - 1 - i;
        fixture.a().read(opened.value(), &iov[i], 1, static_cast<uint64_t>(source) * 4096, ops[i]);
    }
    REQUIRE(fixture.until([&] { return all(2); }));
    for (int i = 0; i < kCount; i++) {
        CHECK(ops[i].calls == 2);
        CHECK(ops[i].result == 4096);
        CHECK(buffers[i].data()[17] == ((kCount - 1 - i) & 255));
    }
    fixture.a().close_file(opened.value());
}

TEST_CASE("closing a file with operations in flight lets them end") {
    FOR_EACH_LOOP(fixture);
    std::string path = fixture.make_file(1 << 20);
    auto opened = fixture.a().open_file(path, {});
    REQUIRE(opened.ok());
    Buffer buffer = fixture.a().buffers().allocate(4096);
    iovec iov{buffer.data(), 4096};
    Op op;
    fixture.a().read(opened.value(), &iov, 1, 0, op);
    fixture.a().close_file(opened.value());
    REQUIRE(fixture.until([&] { return op.done(); }));
    CHECK(op.result == 4096);
    fixture.settle();
    CHECK(op.calls == 1);
    CHECK(fixture.a().open_file(path, {}).ok());
}

TEST_CASE("areas of a file are locked apart from each other, not beside an exclusive lock, and given back by closing") {
    FOR_EACH_LOOP(fixture);
    std::string path = fixture.make_file(1 << 20);
    const auto open_area = [&](uint64_t offset, uint64_t bytes, FileMode mode = FileMode::read_write) {
        FileOptions options;
        options.mode = mode;
        options.lock_exclusive = false;
        options.lock_area = true;
        options.area_offset = offset;
        options.area_bytes = bytes;
        return fixture.a().open_file(path, options);
    };
    auto first = open_area(0, 65536);
    auto second = open_area(65536, 65536);
    REQUIRE(first.ok());
    REQUIRE(second.ok());
    CHECK(open_area(65535, 1).status().code() == -EBUSY);
    CHECK(open_area(131072 - 512, 0).status().code() == -EBUSY);
    CHECK(open_area(0, 512, FileMode::read_only).status().code() == -EBUSY);
    CHECK(fixture.a().open_file(path, {}).status().code() == -EBUSY);
    auto reader = open_area(262144, 4096, FileMode::read_only);
    auto other = open_area(262144, 4096, FileMode::read_only);
    CHECK(reader.ok());
    CHECK(other.ok());
    fixture.a().close_file(first.value());
    auto again = open_area(0, 65536);
    CHECK(again.ok());
    for (const auto& file : {again.value(), second.value(), reader.value(), other.value()}) fixture.a().close_file(file);
    auto all = fixture.a().open_file(path, {});
    REQUIRE(all.ok());
    CHECK(open_area(0, 65536).status().code() == -EBUSY);
    fixture.a().close_file(all.value());
}

// SPDX-License-Identifier: GPL-2.0-or-later
// Block devices: discard really gives space back, the write cache is known. On a loop device; skipped where none can be had.
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop_fixture.hpp"

using namespace vitastor;
using namespace vitastor::runtime;
using namespace vitastor::runtime::test;

namespace {

/// A loop device over a file in memory; gone when it is closed by everybody.
class LoopDevice {
public:
    explicit LoopDevice(uint64_t bytes) {
        char name[] = "/dev/shm/vitastor-loop-XXXXXX";
        backing_ = mkstemp(name);
        if (backing_ < 0) return;
        unlink(name);
        if (ftruncate(backing_, static_cast<off_t>(bytes)) != 0) return;
        const int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
        if (control < 0) return;
        for (int tries = 0; tries < 10 && device_ < 0; tries++) {
            const int number = ioctl(control, LOOP_CTL_GET_FREE);
            if (number < 0) break;
            path = "/dev/loop" + std::to_string(number);
            device_ = open(path.c_str(), O_RDWR | O_CLOEXEC);
            loop_config config{};
            config.fd = static_cast<uint32_t>(backing_);
            config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
            if (device_ >= 0 && ioctl(device_, LOOP_CONFIGURE, &config) != 0) close(std::exchange(device_, -1));
        }
        close(control);
    }
    ~LoopDevice() {
        if (device_ >= 0) close(device_);
        if (backing_ >= 0) close(backing_);
    }
    bool made() const { return device_ >= 0; }
    uint64_t allocated_bytes() const {
        struct stat st {};
        fstat(backing_, &st);
        return static_cast<uint64_t>(st.st_blocks) * 512;
    }
    std::string path;

private:
    int backing_ = -1, device_ = -1;
};

}  // namespace

TEST_CASE("a block device: described, written, discarded; also when it is closed or the loop ends meanwhile") {
    for (LoopKind kind : {LoopKind::io_uring, LoopKind::epoll}) {
        LoopDevice device(8 << 20);
        if (!device.made()) {
            MESSAGE("skipped: no loop device can be made here");
            return;
        }
        TestLog log;
        LoopOptions options;
        options.kind = kind;
        auto made = create_loop(options, log);
        REQUIRE(made.ok());
        Loop& loop = *made.value();
        FileOptions unlocked;
        unlocked.lock_exclusive = false;
        auto opened = loop.open_file(device.path, unlocked);
        REQUIRE(opened.ok());
        const FileInfo info = loop.file_info(opened.value());
        CHECK(info.is_block_device);
        CHECK(info.size_bytes == 8 << 20);
        CHECK(info.can_discard);
        CHECK(info.write_cache != WriteCache::unknown);
        Buffer buffer = loop.buffers().allocate(4 << 20);
        memset(buffer.data(), 'b', buffer.size());
        iovec iov{buffer.data(), buffer.size()};
        Op write, discard, read, last;
        loop.write(opened.value(), &iov, 1, 0, write);
        while (!write.done()) loop.run_once(kNever);
        REQUIRE(write.result == 4 << 20);
        const uint64_t before = device.allocated_bytes();
        loop.discard(opened.value(), 1 << 20, 2 << 20, discard);
        CHECK(discard.calls == 0);
        while (!discard.done()) loop.run_once(kNever);
        CHECK(discard.result == 0);
        CHECK(device.allocated_bytes() + (2 << 20) <= before);
        loop.read(opened.value(), &iov, 1, 0, read);
        while (!read.done()) loop.run_once(kNever);
        CHECK(buffer.data()[0] == 'b');
        CHECK(buffer.data()[(1 << 20) - 1] == 'b');
        CHECK(buffer.data()[1 << 20] == 0);
        CHECK(buffer.data()[3 << 20] == 'b');
        loop.discard(opened.value(), 3 << 20, 1 << 20, last);
        loop.close_file(opened.value());
        while (!last.done()) loop.run_once(kNever);
        CHECK(last.result == 0);
        auto again = loop.open_file(device.path, unlocked);
        REQUIRE(again.ok());
        Op forgotten;
        loop.discard(again.value(), 0, 1 << 20, forgotten);
        buffer.release();
        made.value().reset();
    }
}

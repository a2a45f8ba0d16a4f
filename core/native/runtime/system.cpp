// SPDX-License-Identifier: GPL-2.0-or-later
#include "runtime/system.hpp"

#include <ctime>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

namespace vitastor::runtime {

Result<std::string> read_small_file(const std::string& path, size_t max_bytes) {
    int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return Status(-errno, "cannot open " + path + ": " + strerror(errno));
    std::string text;
    char chunk[16384];
    int error = 0;
    while (true) {
        ssize_t got = read(fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) error = errno;
        if (got <= 0) break;
        text.append(chunk, static_cast<size_t>(got));
        if (text.size() > max_bytes) {
            error = EFBIG;
            break;
        }
    }
    close(fd);
    if (error) return Status(-error, "cannot read " + path + ": " + strerror(error));
    return text;
}

std::string host_name() {
    char name[256] = {};
    if (gethostname(name, sizeof name - 1) != 0 || !name[0]) return "localhost";
    return name;
}

Status lock_memory() {
    if (mlockall(MCL_CURRENT | MCL_FUTURE) == 0) return {};
    return Status(-errno, std::string("cannot lock the memory of the process: ") + strerror(errno) +
                              ". Raise the limit (LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited)");
}

uint64_t boot_time_ns() {
    timespec now{};
    clock_gettime(CLOCK_BOOTTIME, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace vitastor::runtime

// SPDX-License-Identifier: GPL-2.0-or-later
#include <cstring>

#include "runtime/real_loop.hpp"

namespace vitastor::runtime {

Result<std::unique_ptr<Loop>> create_loop(const LoopOptions& options, Logger& logger) {
    if (options.kind == LoopKind::epoll) return create_epoll_loop(options);
    Result<std::unique_ptr<Loop>> loop = create_uring_loop(options);
    if (loop.ok() || options.kind == LoopKind::io_uring) return loop;
    VITASTOR_PROBE("io_uring refused, epoll takes over");
    log(logger, LogLevel::warning,
        "%s. Continuing with epoll and threads, which is slower. To get io_uring: set kernel.io_uring_disabled=0, run "
        "containers with a seccomp profile that allows io_uring, raise the limit of locked memory (ulimit -l), use "
        "Linux 5.11 or newer.",
        loop.status().message().c_str());
    return create_epoll_loop(options);
}

}  // namespace vitastor::runtime

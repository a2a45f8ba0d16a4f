// SPDX-License-Identifier: GPL-2.0-or-later
#include "runtime/real_loop.hpp"

namespace vitastor::runtime {

Result<std::unique_ptr<Loop>> create_epoll_loop(const LoopOptions&) {
    return Status(-ENOSYS, "the epoll loop is not built yet");
}

}  // namespace vitastor::runtime

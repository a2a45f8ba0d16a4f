// SPDX-License-Identifier: GPL-2.0-or-later
// When the next operation of an image may begin: the generic cell rate algorithm, once for operations and once for bytes.
#pragma once

#include <cstdint>
#include <mutex>

#include "cluster/cluster_map.hpp"

namespace vitastor::client {

/// Of one image, shared by all that a process has opened it with. Any thread. Asked only where there are limits.
class Throttle {
public:
    /// Takes the operation into account; the time at which it may begin, `now_ns` or later.
    uint64_t admit(const cluster::IoLimits& limits, uint64_t now_ns, uint64_t bytes);

private:
    std::mutex mutex_;
    cluster::IoLimits limits_;
    uint64_t operations_due_ns_ = 0, bytes_due_ns_ = 0;  ///< when all that was admitted is paid for
};

}  // namespace vitastor::client

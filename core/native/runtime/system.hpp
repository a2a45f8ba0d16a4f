// SPDX-License-Identifier: GPL-2.0-or-later
// Small blocking questions to the machine, for start-up only: a configuration file, the host's name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace vitastor::runtime {

/// The whole file. Errors: errno of open or read; -EFBIG over max_bytes. Any thread; blocks.
Result<std::string> read_small_file(const std::string& path, size_t max_bytes);

/// gethostname(); "localhost" if that fails. Any thread.
std::string host_name();

/// Keeps all memory of the process, present and future, out of swap (mlockall). Any thread.
Status lock_memory();

/// CLOCK_BOOTTIME in nanoseconds, the clock of all real loops. Any thread.
uint64_t boot_time_ns();

}  // namespace vitastor::runtime

// SPDX-License-Identifier: GPL-2.0-or-later
// What the benchmarks of the store ask of their own process.
#pragma once

#include <sys/resource.h>

#include <cstdio>
#include <string>

#include "base/log.hpp"

namespace vitastor::store {

class StderrLogger final : public Logger {
public:
    void write(LogLevel, const std::string& text) override { fprintf(stderr, "%s\n", text.c_str()); }
};

/// Processor time of all threads so far, user and system.
inline double cpu_seconds() {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

}  // namespace vitastor::store

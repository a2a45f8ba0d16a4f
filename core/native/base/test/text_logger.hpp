// SPDX-License-Identifier: GPL-2.0-or-later
// A logger that keeps what it is told, for tests.
#pragma once

#include <string>

#include "base/log.hpp"

namespace vitastor {

struct TextLogger : Logger {
    std::string text;
    void write(LogLevel, const std::string& line) override { text += line + "\n"; }
    bool has(const char* part) const { return text.find(part) != std::string::npos; }
};

}  // namespace vitastor

// SPDX-License-Identifier: GPL-2.0-or-later
// Where messages for people go. The library's host decides (stderr, Node's log, the simulator's trace).
#pragma once

#include <string>

namespace vitastor {

enum class LogLevel { error, warning, info, debug };

/// Passed by reference to whoever has something to say. Called on the thread of the speaker; must not block.
class Logger {
public:
    virtual ~Logger() = default;
    virtual void write(LogLevel level, const std::string& text) = 0;
    bool wants(LogLevel level) const { return level <= level_; }
    void set_level(LogLevel level) { level_ = level; }

private:
    LogLevel level_ = LogLevel::info;
};

/// printf-like; formats only when the level is wanted.
void log(Logger& logger, LogLevel level, const char* format, ...) __attribute__((format(printf, 3, 4)));

}  // namespace vitastor

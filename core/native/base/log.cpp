// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/log.hpp"

#include <cstdarg>
#include <cstdio>

namespace vitastor {

void log(Logger& logger, LogLevel level, const char* format, ...) {
    if (!logger.wants(level)) return;
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    char text[512];
    int length = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (length >= 0 && static_cast<size_t>(length) < sizeof(text)) {
        logger.write(level, std::string(text, static_cast<size_t>(length)));
    } else if (length > 0) {
        std::string longer(static_cast<size_t>(length), '\0');
        vsnprintf(longer.data(), longer.size() + 1, format, again);
        logger.write(level, longer);
    }
    va_end(again);
}

}  // namespace vitastor

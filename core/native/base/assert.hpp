// SPDX-License-Identifier: GPL-2.0-or-later
// Assertions for our own bugs (on in release), costly checks, and probes of rare branches.
#pragma once

namespace vitastor {

/// Prints "file:line: assertion failed: text" and aborts. Never for bytes from outside: those are decoded with bounds.
[[noreturn]] void assertion_failed(const char* file, int line, const char* text);

/// Marks that a rare branch ran. `name` is a string literal; counted per process, read by the simulator and by tests.
void probe_hit(const char* name);

/// Names and counts of all probes hit so far, in order of first hit. For tests and the simulator.
void visit_probes(void (*visit)(void* arg, const char* name, unsigned long count), void* arg);

}  // namespace vitastor

#define VITASTOR_ASSERT(condition)                                                 \
    do {                                                                           \
        if (!(condition)) [[unlikely]]                                             \
            ::vitastor::assertion_failed(__FILE__, __LINE__, #condition);          \
    } while (0)

#ifdef VITASTOR_VERIFY_ENABLED
#define VITASTOR_VERIFY(condition) VITASTOR_ASSERT(condition)
#else
#define VITASTOR_VERIFY(condition) \
    do {                           \
    } while (0)
#endif

#define VITASTOR_PROBE(name) ::vitastor::probe_hit(name)

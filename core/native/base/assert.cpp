// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/assert.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace vitastor {

namespace {

/// More probes than this are counted together under "other probes".
constexpr int kProbeLimit = 1024;

struct Probe {
    std::atomic<const char*> name{nullptr};
    std::atomic<unsigned long> count{0};
};

// Process-wide on purpose: probes are literals scattered over all layers, filled without locks in order of first hit.
Probe probes[kProbeLimit];

}  // namespace

void assertion_failed(const char* file, int line, const char* text) {
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, text);
    fflush(stderr);
    abort();
}

void probe_hit(const char* name) {
    for (int i = 0; i < kProbeLimit; i++) {
        Probe& probe = probes[i];
        const char* known = probe.name.load(std::memory_order_acquire);
        if (known == nullptr) {
            const char* mine = i == kProbeLimit - 1 ? "other probes" : name;
            if (probe.name.compare_exchange_strong(known, mine, std::memory_order_acq_rel)) known = mine;
        }
        // Equal literals of two translation units may have two addresses.
        if (known == name || i == kProbeLimit - 1 || strcmp(known, name) == 0) {
            probe.count.fetch_add(1, std::memory_order_relaxed);
            return;
        }
    }
}

void visit_probes(void (*visit)(void* arg, const char* name, unsigned long count), void* arg) {
    for (Probe& probe : probes) {
        const char* name = probe.name.load(std::memory_order_acquire);
        if (name == nullptr) return;
        visit(arg, name, probe.count.load(std::memory_order_relaxed));
    }
}

}  // namespace vitastor

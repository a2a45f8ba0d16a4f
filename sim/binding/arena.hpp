// SPDX-License-Identifier: GPL-2.0-or-later
// Memory of the processes of a world, given back at once when the world ends.
//
// Simulated processes die in the middle of operations, and nothing may run in them to clean up: what they hold can neither be
// destroyed nor found. So whatever is allocated in a scope MemoryFrom(arena) (with malloc, new or mmap, see CMakeLists.txt) comes from one
// piece of memory, and clear_arena() forgets all of it. It may be freed anywhere. One thread; does nothing under sanitizers.
#pragma once

namespace vitastor::sim {

/// While it lives, this addon's memory comes from there.
class MemoryFrom {
public:
    enum Source { arena, heap };
    explicit MemoryFrom(Source source);
    ~MemoryFrom();
    MemoryFrom(const MemoryFrom&) = delete;
    MemoryFrom& operator=(const MemoryFrom&) = delete;

private:
    bool before_;
};

/// Nothing that was allocated in the arena may be used, or freed, any more.
void clear_arena();

}  // namespace vitastor::sim

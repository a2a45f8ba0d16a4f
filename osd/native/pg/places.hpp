// SPDX-License-Identifier: GPL-2.0-or-later
// State of an object from what is known of its copies or chunks, and which copies are right when they differ.
// Source: semantics 8.5, 12.3-12.5.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "pg/objects.hpp"
#include "pg/scheme.hpp"

namespace vitastor::pg {

/// wire::object_state bits of an object that lies at `places`; 0 = clean. Copies that are missing are not among the places.
/// current_set: position = role (replicated: any), 0 = nobody.
uint32_t state_of_places(const Scheme& scheme, std::span<const OsdNum> current_set, std::span<const Location> places);

/// Copies of a replicated object by content: classes[i] is a number that equal copies share. The most frequent class is right if
/// no other one is as frequent. Returns its number, or -1: nobody can tell.
int majority(std::span<const int> classes);

}  // namespace vitastor::pg

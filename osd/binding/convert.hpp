// SPDX-License-Identifier: GPL-2.0-or-later
// Commands and events of the engine ↔ plain JavaScript objects, in the order of engine.hpp and osd/src/engine.ts.
// Shared by the OSD's addon and the simulator's. JavaScript's thread only.
#pragma once

#include <napi.h>

#include <optional>
#include <string>

#include "engine/engine.hpp"

namespace vitastor::binding {

/// nullopt: `problem` names the field and what is wrong with it ("startPg.osdSet[1]: must be a bigint").
std::optional<engine::Command> command_from_js(const Napi::Object& object, std::string& problem);

Napi::Object event_to_js(Napi::Env env, const engine::Event& event);

}  // namespace vitastor::binding

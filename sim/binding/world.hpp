// SPDX-License-Identifier: GPL-2.0-or-later
// The simulated world for JavaScript: one SimWorld, and the engines and clients that live in it. Everything on one thread.
//
// Native code never calls JavaScript from inside a step: what it has to say is queued, and delivered after the step, in order.
#pragma once

#include <napi.h>

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "runtime/sim_world.hpp"

namespace vitastor::sim {

/// A call into JavaScript that waits for the end of the step.
using JsCall = std::function<void(Napi::Env env)>;

class World {
public:
    World(Napi::Env env, uint64_t seed);

    Napi::Env env() const { return env_; }
    runtime::SimWorld& native() { return *world_; }
    void defer_call(JsCall call) { calls_.push_back(std::move(call)); }
    /// Runs queued calls, those that they queue included. True: there was one. Stops at a JavaScript exception.
    bool deliver();
    /// Faults that engines are created with.
    uint32_t planted() const { return planted_; }
    /// The object with all methods of SimWorld in sim/src/native.ts.
    Napi::Object object();

private:
    Napi::Env env_;
    /// Never destroyed: crashed processes stop in the middle of operations, and nothing may run in them to clean up. Long runs use
    /// a process per few seeds.
    runtime::SimWorld* world_;
    std::deque<JsCall> calls_;
    uint32_t planted_ = 0;
};

/// Adds a method that calls `body(world, info)`.
template <class Body>
void add_method(Napi::Env env, Napi::Object& object, const char* name, Body body) {
    object.Set(name, Napi::Function::New(env, body, name));
}

Napi::Value throw_error(Napi::Env env, const std::string& text);
uint64_t u64_of(const Napi::Value& value);

/// createEngine(node, onEvents) and createClient(node, options) of sim/src/native.ts.
Napi::Value create_sim_engine(World& world, const Napi::CallbackInfo& info);
Napi::Value create_sim_client(World& world, const Napi::CallbackInfo& info);

}  // namespace vitastor::sim

// SPDX-License-Identifier: GPL-2.0-or-later
// The simulated world for JavaScript: one SimWorld, and the engines and clients that live in it. Everything on one thread.
//
// Native code never calls JavaScript from inside a step: what it has to say is queued, and delivered after the step, in order.
#pragma once

#include <napi.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "arena.hpp"
#include "base/log.hpp"
#include "runtime/sim_world.hpp"

namespace vitastor::sim {

/// A call into JavaScript that waits for the end of the step.
using JsCall = std::function<void(Napi::Env env)>;

/// An engine or client as JavaScript has it. It may be dead before the world ends, and is never destroyed, as nothing of the world is.
class Process {
public:
    /// From now on it says nothing, and holds no JavaScript object.
    virtual void die() = 0;

protected:
    ~Process() = default;
};

class World {
public:
    World(Napi::Env env, uint64_t seed);

    Napi::Env env() const { return env_; }
    runtime::SimWorld& native() { return *world_; }
    void defer_call(JsCall call) { calls_->push_back(std::move(call)); }
    void add_process(Process& process) { processes_->push_back(&process); }
    /// A Uint8Array with these bytes, until the next call: one piece of memory for all of them, or there would be much garbage.
    Napi::Value lent_bytes(const uint8_t* data, size_t size);
    /// False from destroy() on: then there is nothing but this.
    bool exists() const { return world_ != nullptr; }
    /// Runs queued calls, those that they queue included. True: there was one. Stops at a JavaScript exception.
    bool deliver();
    /// Faults that engines are created with.
    uint32_t planted() const { return planted_; }
    /// The object with all methods of SimWorld in sim/src/native.ts.
    Napi::Object object();

private:
    void destroy();

    Napi::Env env_;
    /// In the arena, with everything that runs on it: never destroyed, but forgotten.
    runtime::SimWorld* world_;
    std::deque<JsCall>* calls_;
    std::vector<Process*>* processes_;
    uint32_t planted_ = 0;
    Napi::Reference<Napi::ArrayBuffer> lent_;
};

Napi::Value throw_error(Napi::Env env, const std::string& text);

/// Adds a method that calls `body(info)`, in the arena. Throws when the world has been destroyed.
template <class Body>
void add_method(World& world, Napi::Object& object, const char* name, Body body) {
    auto method = [&world, body](const Napi::CallbackInfo& info) -> Napi::Value {
        if (!world.exists()) return throw_error(info.Env(), "this world has been destroyed");
        MemoryFrom memory(MemoryFrom::arena);
        if constexpr (std::is_void_v<decltype(body(info))>) {
            body(info);
            return info.Env().Undefined();
        } else {
            return body(info);
        }
    };
    MemoryFrom memory(MemoryFrom::heap);  // the garbage collector frees it later
    object.Set(name, Napi::Function::New(world.env(), method, name));
}

uint64_t u64_of(const Napi::Value& value);

/// createEngine(node, onEvents) and createClient(node, options) of sim/src/native.ts.
Napi::Value create_sim_engine(World& world, const Napi::CallbackInfo& info);
Napi::Value create_sim_client(World& world, const Napi::CallbackInfo& info);

}  // namespace vitastor::sim

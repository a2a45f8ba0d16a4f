// SPDX-License-Identifier: GPL-2.0-or-later
// The simulator's addon: createWorld(seed) and probes(). Source: sim/src/native.ts.
#include <napi.h>

#include "base/assert.hpp"
#include "world.hpp"

namespace vitastor::sim {
namespace {

Napi::Value create_world(const Napi::CallbackInfo& info) {
    auto* world = new World(info.Env(), u64_of(info[0]));
    return world->object();
}

Napi::Value probes(const Napi::CallbackInfo& info) {
    struct Arg {
        Napi::Env env;
        Napi::Object result;
    } arg{info.Env(), Napi::Object::New(info.Env())};
    visit_probes(
        [](void* opaque, const char* name, unsigned long count) {
            auto* to = static_cast<Arg*>(opaque);
            to->result.Set(name, Napi::Number::New(to->env, static_cast<double>(count)));
        },
        &arg);
    return arg.result;
}

}  // namespace
}  // namespace vitastor::sim

static Napi::Object init(Napi::Env env, Napi::Object exports) {
    exports.Set("createWorld", Napi::Function::New(env, vitastor::sim::create_world, "createWorld"));
    exports.Set("probes", Napi::Function::New(env, vitastor::sim::probes, "probes"));
    return exports;
}

NODE_API_MODULE(vitastor_sim, init)

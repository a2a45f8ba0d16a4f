// SPDX-License-Identifier: GPL-2.0-or-later
#include "world.hpp"

#include <cinttypes>
#include <cstdio>
#include <memory>
#include <utility>

namespace vitastor::sim {

using runtime::kNever;
using runtime::NodeId;

Napi::Value throw_error(Napi::Env env, const std::string& text) {
    Napi::TypeError::New(env, text).ThrowAsJavaScriptException();
    return env.Undefined();
}

uint64_t u64_of(const Napi::Value& value) {
    bool lossless = false;
    return value.IsBigInt() ? value.As<Napi::BigInt>().Uint64Value(&lossless) : 0;
}

namespace {
NodeId node_of(const Napi::Value& value) { return value.As<Napi::Number>().Uint32Value(); }
}  // namespace

World::World(Napi::Env env, uint64_t seed) : env_(env), world_(new runtime::SimWorld(seed)) {}

bool World::deliver() {
    bool any = false;
    while (!calls_.empty() && !env_.IsExceptionPending()) {
        JsCall call = std::move(calls_.front());
        calls_.pop_front();
        Napi::HandleScope scope(env_);
        call(env_);
        any = true;
    }
    return any;
}

Napi::Object World::object() {
    Napi::Object object = Napi::Object::New(env_);
    World* self = this;
    add_method(env_, object, "nowNs", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        return Napi::BigInt::New(info.Env(), self->world_->now_ns());
    });
    add_method(env_, object, "nextNs", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        uint64_t next = self->world_->next_event_ns();
        return Napi::BigInt::New(info.Env(), next == kNever ? int64_t{-1} : static_cast<int64_t>(next));
    });
    add_method(env_, object, "step", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        self->world_->step();
        return Napi::Boolean::New(info.Env(), self->deliver());
    });
    add_method(env_, object, "advance", [self](const Napi::CallbackInfo& info) {
        // The caller knows that nothing is due before; an event at that very moment waits for its own step().
        uint64_t limit = u64_of(info[0]);
        if (limit > self->world_->now_ns() && self->world_->next_event_ns() > limit) self->world_->step_until(limit);
    });
    add_method(env_, object, "note", [self](const Napi::CallbackInfo& info) {
        self->world_->note(info[0].ToString().Utf8Value());
    });
    add_method(env_, object, "traceTo", [self](const Napi::CallbackInfo& info) {
        std::shared_ptr<FILE> file(fopen(info[0].ToString().Utf8Value().c_str(), "w"), [](FILE* f) {
            if (f) fclose(f);
        });
        if (!file) return;
        self->world_->set_trace([self, file](const std::string& line) {
            fprintf(file.get(), "%" PRIu64 " %016" PRIx64 " %s\n", self->world_->now_ns(), self->world_->trace_hash(), line.c_str());
        });
    });
    add_method(env_, object, "hash", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        char text[17];
        snprintf(text, sizeof text, "%016" PRIx64, self->world_->trace_hash());
        return Napi::String::New(info.Env(), text);
    });
    add_method(env_, object, "addNode", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        runtime::SimNodeOptions options;
        options.name = info[0].ToString().Utf8Value();
        options.addresses = {info[1].ToString().Utf8Value()};
        return Napi::Number::New(info.Env(), self->world_->add_node(options));
    });
    add_method(env_, object, "addDisk", [self](const Napi::CallbackInfo& info) {
        Napi::Object from = info[1].As<Napi::Object>();
        runtime::SimDiskOptions options;
        options.size_bytes = u64_of(from.Get("sizeBytes"));
        options.volatile_cache = from.Get("volatileCache").ToBoolean().Value();
        self->world_->add_disk(info[0].ToString().Utf8Value(), options);
    });
    add_method(env_, object, "crash", [self](const Napi::CallbackInfo& info) {
        self->world_->crash(node_of(info[0]), info[1].ToBoolean().Value());
    });
    add_method(env_, object, "restart", [self](const Napi::CallbackInfo& info) {
        NodeId node = node_of(info[0]);
        if (!self->world_->running(node)) self->world_->restart(node);
    });
    add_method(env_, object, "cut", [self](const Napi::CallbackInfo& info) {
        self->world_->partition_one_way(node_of(info[0]), node_of(info[1]));
    });
    add_method(env_, object, "heal", [self](const Napi::CallbackInfo& info) {
        self->world_->heal(node_of(info[0]), node_of(info[1]));
    });
    add_method(env_, object, "createEngine", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        return create_sim_engine(*self, info);
    });
    add_method(env_, object, "createClient", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        return create_sim_client(*self, info);
    });
    add_method(env_, object, "destroy", [self](const Napi::CallbackInfo&) { self->calls_.clear(); });
    return object;
}

}  // namespace vitastor::sim

// SPDX-License-Identifier: GPL-2.0-or-later
// An engine of the OSD on a simulated loop.
#include <memory>
#include <utility>
#include <vector>

#include "convert.hpp"
#include "engine/engine.hpp"
#include "world.hpp"

namespace vitastor::sim {
namespace {

class SimEngine final : public engine::EventSink, public Process {
public:
    SimEngine(World& world, runtime::NodeId node, Napi::Function on_events)
        : world_(world), loop_(world.native().make_loop(node)), on_events_(Napi::Persistent(on_events)) {
        engine_ = engine::create_engine(*loop_, *this);
        engine_->plant(world.planted());
        world.add_process(*this);
    }

    void on_event(engine::Event event) override {
        queue_.push_back(std::move(event));
        if (queue_.size() == 1) world_.defer_call([this](Napi::Env env) { deliver(env); });
    }

    void deliver(Napi::Env env) {
        std::vector<engine::Event> events = std::exchange(queue_, {});
        if (dead_) return;
        Napi::Array array = Napi::Array::New(env, events.size());
        uint32_t index = 0;
        for (const engine::Event& event : events) array.Set(index++, binding::event_to_js(env, event));
        on_events_.Call({array});
    }

    Napi::Object object(Napi::Env env) {
        Napi::Object object = Napi::Object::New(env);
        add_method(world_, object, "post", [this](const Napi::CallbackInfo& info) {
            std::string problem;
            auto command = binding::command_from_js(info[0].As<Napi::Object>(), problem);
            if (!command) throw_error(info.Env(), "post: " + problem);
            else if (!dead_) engine_->post(std::move(*command));
        });
        add_method(world_, object, "bootTimeNs", [this](const Napi::CallbackInfo& info) -> Napi::Value {
            return Napi::BigInt::New(info.Env(), dead_ ? world_.native().now_ns() : loop_->now_exact_ns());
        });
        add_method(world_, object, "destroy", [this](const Napi::CallbackInfo&) { die(); });
        return object;
    }

    /// Its loop is silent already, and a killed process cleans nothing up: engine and loop stay as they are.
    void die() override {
        dead_ = true;
        on_events_.Reset();
    }

private:
    World& world_;
    std::unique_ptr<runtime::Loop> loop_;
    std::unique_ptr<engine::Engine> engine_;
    Napi::FunctionReference on_events_;
    std::vector<engine::Event> queue_;
    bool dead_ = false;
};

}  // namespace

Napi::Value create_sim_engine(World& world, const Napi::CallbackInfo& info) {
    if (!info[0].IsNumber() || !info[1].IsFunction()) return throw_error(info.Env(), "createEngine(node, onEvents)");
    auto* engine = new SimEngine(world, info[0].As<Napi::Number>().Uint32Value(), info[1].As<Napi::Function>());
    return engine->object(info.Env());
}

}  // namespace vitastor::sim

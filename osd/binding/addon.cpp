// SPDX-License-Identifier: GPL-2.0-or-later
// The engine for Node: one native thread with one loop and one engine; commands go in, events come out in batches.
// createEngine(onEvents, { spinUs }) → { post(command), bootTimeNs() }. Source: osd/src/engine.ts.
//
// The process stays alive until Stopped or Fatal was delivered. When Node ends earlier (process.exit), the thread is told to leave
// its loop and joined; the engine is left as it is, since an end at any point is just what the store survives.

#include <napi.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "convert.hpp"
#include "engine/engine.hpp"
#include "runtime/loop.hpp"
#include "runtime/system.hpp"

namespace vitastor::binding {
namespace {

/// Before the engine can speak for itself.
class StderrLogger final : public Logger {
public:
    void write(LogLevel, const std::string& text) override { fprintf(stderr, "%s\n", text.c_str()); }
};

class EngineHost final : public engine::EventSink {
public:
    EngineHost(Napi::Env env, Napi::Function on_events) : env_(env) {
        deliver_ = Napi::ThreadSafeFunction::New(env, on_events, "vitastor events", 0, 1);
    }

    /// JavaScript's thread. The text is empty, or says why there is no loop.
    std::string start(const runtime::LoopOptions& options) {
        auto loop = runtime::create_loop(options, logger_);
        if (!loop.ok()) return loop.status().message();
        loop_ = std::move(loop.value());
        quit_notifier_.on_notify = [](runtime::Notifier*) {};
        loop_->register_notifier(quit_notifier_);
        engine_ = engine::create_engine(*loop_, *this);
        thread_ = runtime::start_thread("vitastor-osd", [](void* arg) { static_cast<EngineHost*>(arg)->run(); }, this);
        return {};
    }

    void post(engine::Command command) { engine_->post(std::move(command)); }
    static uint64_t boot_time_ns() { return runtime::boot_time_ns(); }

    /// JavaScript's thread, at the end of the environment: afterwards no thread of ours runs.
    void quit() {
        quit_.store(true, std::memory_order_release);
        if (thread_) loop_->notify(quit_notifier_);
        thread_.reset();
        release();
    }

    void on_event(engine::Event event) override {
        bool last = std::holds_alternative<engine::Stopped>(event) || std::holds_alternative<engine::Fatal>(event);
        std::lock_guard<std::mutex> lock(mutex_);
        queue_.push_back(std::move(event));
        if (pending_ && !last) return;
        pending_ = true;
        deliver_.NonBlockingCall(this, [](Napi::Env env, Napi::Function on_events, EngineHost* self) {
            self->deliver(env, on_events);
        });
    }

private:
    void run() {
        while (!quit_.load(std::memory_order_acquire) && !engine_->finished()) loop_->run_once(runtime::kNever);
    }

    void deliver(Napi::Env env, Napi::Function on_events) {
        std::vector<engine::Event> events;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            events.swap(queue_);
            pending_ = false;
        }
        if (events.empty()) return;
        Napi::HandleScope scope(env);
        Napi::Array array = Napi::Array::New(env, events.size());
        bool last = false;
        uint32_t index = 0;
        for (const engine::Event& event : events) {
            array.Set(index++, event_to_js(env, event));
            last |= std::holds_alternative<engine::Stopped>(event) || std::holds_alternative<engine::Fatal>(event);
        }
        on_events.Call({array});
        if (last) release();
    }

    /// Lets Node end when nothing else keeps it.
    void release() {
        if (released_) return;
        released_ = true;
        deliver_.Unref(env_);
    }

    Napi::Env env_;
    StderrLogger logger_;
    Napi::ThreadSafeFunction deliver_;
    std::unique_ptr<runtime::Loop> loop_;
    std::unique_ptr<engine::Engine> engine_;
    std::unique_ptr<runtime::Thread> thread_;
    runtime::Notifier quit_notifier_;
    std::atomic<bool> quit_{false};
    bool released_ = false;
    std::mutex mutex_;  // guards what follows
    std::vector<engine::Event> queue_;
    bool pending_ = false;
};

Napi::Value throw_error(Napi::Env env, const std::string& text) {
    Napi::TypeError::New(env, text).ThrowAsJavaScriptException();
    return env.Undefined();
}

Napi::Value post(const Napi::CallbackInfo& info) {
    auto* host = static_cast<EngineHost*>(info.Data());
    if (!info[0].IsObject()) return throw_error(info.Env(), "post: a command object is required");
    std::string problem;
    auto command = command_from_js(info[0].As<Napi::Object>(), problem);
    if (!command) return throw_error(info.Env(), "post: " + problem);
    host->post(std::move(*command));
    return info.Env().Undefined();
}

Napi::Value boot_time(const Napi::CallbackInfo& info) {
    return Napi::BigInt::New(info.Env(), static_cast<EngineHost*>(info.Data())->boot_time_ns());
}

Napi::Value create_engine(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (!info[0].IsFunction()) return throw_error(env, "createEngine: a function for events is required");
    runtime::LoopOptions options;
    options.buffer_keep_bytes = engine::kBufferBytes + (4 << 20);  // of the 128 MB that an OSD may take, most is Node
    if (info[1].IsObject()) {
        Napi::Value spin = info[1].As<Napi::Object>().Get("spinUs");
        if (spin.IsNumber()) options.spin_us = spin.As<Napi::Number>().Uint32Value();
    }
    // Lives until the process ends: its thread and its callbacks may outlast any JavaScript object.
    auto* host = new EngineHost(env, info[0].As<Napi::Function>());
    std::string problem = host->start(options);
    if (!problem.empty()) {
        host->quit();
        return throw_error(env, problem);
    }
    napi_add_env_cleanup_hook(env, [](void* arg) { static_cast<EngineHost*>(arg)->quit(); }, host);
    Napi::Object result = Napi::Object::New(env);
    result.Set("post", Napi::Function::New(env, post, "post", host));
    result.Set("bootTimeNs", Napi::Function::New(env, boot_time, "bootTimeNs", host));
    return result;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
    exports.Set("createEngine", Napi::Function::New(env, create_engine, "createEngine"));
    return exports;
}

}  // namespace
}  // namespace vitastor::binding

static Napi::Object init_module(Napi::Env env, Napi::Object exports) { return vitastor::binding::init(env, exports); }

NODE_API_MODULE(vitastor_osd, init_module)

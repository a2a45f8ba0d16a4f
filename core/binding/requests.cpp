// SPDX-License-Identifier: GPL-2.0-or-later
#include "requests.hpp"

#include <algorithm>

namespace vitastor_node {

Bridge::Bridge(Napi::Env env) : env_(env) {
    napi_value name;
    napi_create_string_utf8(env, "vitastor", NAPI_AUTO_LENGTH, &name);
    napi_status status = napi_create_threadsafe_function(
        env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this,
        [](napi_env call_env, napi_value, void* context, void*) {
            if (call_env) static_cast<Bridge*>(context)->drain(Napi::Env(call_env));
        },
        &function_);
    if (status != napi_ok) Napi::Error::Fatal("vitastor", "no thread-safe function");
    napi_unref_threadsafe_function(env, function_);
}

void Bridge::post(Event event) {
    std::lock_guard lock(mutex_);
    if (closing_) return;
    bool first = events_.empty();
    events_.push_back(std::move(event));
    if (first) napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking);
}

void Bridge::hold() {
    if (pending_++ == 0) napi_ref_threadsafe_function(env_, function_);
}

void Bridge::release() {
    if (--pending_ == 0) napi_unref_threadsafe_function(env_, function_);
}

Request* Bridge::begin(Napi::Env, Napi::Function done) {
    auto* request = new Request;
    request->bridge = this;
    request->done = Napi::Persistent(done);
    hold();
    return request;
}

void Bridge::forget(Request* request) {
    delete request;
    release();
}

bool Bridge::is_live(const Napi::FunctionReference* function) const {
    return std::find(functions_.begin(), functions_.end(), function) != functions_.end();
}

void Bridge::drain(Napi::Env env) {
    std::vector<Event> events;
    {
        std::lock_guard lock(mutex_);
        events.swap(events_);
    }
    for (Event& event : events) {
        Napi::HandleScope scope(env);
        Napi::FunctionReference done;
        Napi::FunctionReference* function = nullptr;
        std::vector<napi_value> arguments;
        switch (event.kind) {
        case Event::Kind::done:
            arguments = {Napi::Number::New(env, static_cast<double>(event.number)), Napi::BigInt::New(env, event.first)};
            done = std::move(event.request->done);
            function = &done;
            break;
        case Event::Kind::tool_done:
            arguments = {Napi::Number::New(env, static_cast<double>(event.number)), Napi::String::New(env, event.text)};
            done = std::move(event.request->done);
            function = &done;
            break;
        case Event::Kind::map_done:
            arguments = {Napi::Number::New(env, static_cast<double>(event.number)),
                Napi::Buffer<uint64_t>::Copy(env, event.numbers.data(), event.numbers.size()), Napi::BigInt::New(env, event.first),
                Napi::String::New(env, event.text)};
            done = std::move(event.request->done);
            function = &done;
            break;
        case Event::Kind::progress:
            if (event.request->progress.IsEmpty()) continue;
            arguments = {Napi::BigInt::New(env, event.first), Napi::BigInt::New(env, event.second), Napi::BigInt::New(env, event.third)};
            function = &event.request->progress;
            break;
        case Event::Kind::log:
            arguments = {Napi::Number::New(env, static_cast<double>(event.number)), Napi::String::New(env, event.text)};
            function = event.function;
            break;
        case Event::Kind::changed:
            arguments = {Napi::BigInt::New(env, event.first), Napi::Boolean::New(env, event.second != 0)};
            function = event.function;
            break;
        }
        bool ends = event.kind == Event::Kind::done || event.kind == Event::Kind::tool_done || event.kind == Event::Kind::map_done;
        if (ends) forget(event.request);
        if ((event.kind == Event::Kind::log || event.kind == Event::Kind::changed) && !is_live(function)) continue;
        if (function->IsEmpty()) continue;
        napi_value global, ignored, callee = function->Value();
        napi_get_global(env, &global);
        // Through MakeCallback, so that promises settle between callbacks; an exception is the program's own.
        if (napi_make_callback(env, nullptr, global, callee, arguments.size(), arguments.data(), &ignored) ==
            napi_pending_exception) {
            napi_value exception;
            napi_get_and_clear_last_exception(env, &exception);
            napi_fatal_exception(env, exception);
        }
    }
}

void Bridge::shut_down() {
    {
        std::lock_guard lock(mutex_);
        closing_ = true;
        events_.clear();
    }
    // Contexts first: their threads end, and nobody posts any more.
    auto closers = std::move(closers_);
    closers_.clear();
    std::stable_sort(closers.begin(), closers.end(), [](auto& a, auto& b) { return a.order < b.order; });
    for (auto& closer : closers) closer.close(closer.arg);
}

}  // namespace vitastor_node

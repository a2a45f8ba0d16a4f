// SPDX-License-Identifier: GPL-2.0-or-later
// From the library's threads to JavaScript: one queue and one thread-safe function per environment. It is referenced only
// while requests are pending, so that it neither keeps an idle process alive nor is missing at its exit.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace vitastor_node {

class Bridge;

/// One call under way. Made and destroyed on JavaScript's thread.
struct Request {
    Bridge* bridge = nullptr;
    Napi::FunctionReference done;
    Napi::FunctionReference progress;  ///< purge, merge and map_layers
    Napi::ObjectReference buffer;      ///< keeps the memory of a read or write
};

struct Event {
    enum class Kind { done, tool_done, map_done, progress, log, changed };
    Kind kind{};
    Request* request = nullptr;
    Napi::FunctionReference* function = nullptr;  ///< log, changed: owned by the handle
    int64_t number = 0;                           ///< result, level
    uint64_t first = 0, second = 0, third = 0;    ///< version; done, total, bytes or PGs; size and read-only
    std::string text;
    std::vector<uint64_t> numbers;  ///< map_done: offset, length, offset, ...
};

class Bridge {
public:
    explicit Bridge(Napi::Env env);
    /// Any thread.
    void post(Event event);
    /// JavaScript's thread. The request is pending until its done or tool_done event has been delivered.
    Request* begin(Napi::Env env, Napi::Function done);
    /// The call was refused: done does not run.
    void forget(Request* request);
    void drain(Napi::Env env);
    void shut_down();
    /// False once the function of a handle must not be called any more.
    bool is_live(const Napi::FunctionReference* function) const;
    void add_function(Napi::FunctionReference* function) { functions_.push_back(function); }
    void remove_function(Napi::FunctionReference* function) { std::erase(functions_, function); }
    void hold();
    void release();
    /// At the environment's end, in this order: contexts (which ends their operations), images, clusters.
    enum class Order { context, image, cluster };
    void add_closer(Order order, void (*close)(void* arg), void* arg) { closers_.push_back({order, close, arg}); }
    void remove_closer(void* arg) {
        std::erase_if(closers_, [&](auto& closer) { return closer.arg == arg; });
    }

private:
    struct Closer {
        Order order;
        void (*close)(void* arg);
        void* arg;
    };
    Napi::Env env_;
    napi_threadsafe_function function_ = nullptr;
    uint64_t pending_ = 0;
    std::vector<Napi::FunctionReference*> functions_;
    std::vector<Closer> closers_;
    std::mutex mutex_;  // guards what follows
    std::vector<Event> events_;
    bool closing_ = false;
};

}  // namespace vitastor_node

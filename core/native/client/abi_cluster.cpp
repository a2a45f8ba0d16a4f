// SPDX-License-Identifier: GPL-2.0-or-later
// C ABI: clusters (one a process and set of options, counted) and contexts.
#include <algorithm>
#include <cstdio>

#include "client/abi_types.hpp"

using namespace vitastor;
using namespace vitastor::client;

namespace {

/// Clusters of this process. Reached only from open and close; never destroyed, so that no exit order matters.
struct Registry {
    std::mutex mutex;
    std::vector<vitastor_cluster*> clusters;
};
Registry& registry() {
    static Registry* instance = new Registry;
    return *instance;
}

thread_local vitastor_context* running_context = nullptr;

}  // namespace

void AbiLogger::write(LogLevel level, const std::string& text) {
    if (log_fn_) return log_fn_(log_arg_, static_cast<int>(level), text.c_str());
    if (level <= LogLevel::warning)  // lint-allow: vitastor.h promises stderr where there is no log_fn
        fprintf(stderr, "vitastor: %s%s\n", level == LogLevel::error ? "error: " : "", text.c_str());
}

extern "C" const char* vitastor_version(void) { return "3.0.8-ours.1"; }

extern "C" int vitastor_cluster_open(const vitastor_cluster_options* given, vitastor_cluster** cluster) {
    vitastor_cluster_options options;
    if (!cluster || !take_options(given, options) || (options.option_count && !options.options)) return -EINVAL;
    cluster::ConfigMap values;
    std::string key = std::string(options.config_path ? options.config_path : "") + "\n";
    for (size_t i = 0; i < options.option_count; i++) {
        if (!options.options[i].name || !options.options[i].value) return -EINVAL;
        values[options.options[i].name] = options.options[i].value;
    }
    for (auto& [name, value] : values) key += name + "=" + value + "\n";
    char identity[96];
    snprintf(identity, sizeof identity, "%d %p %p", options.fail_fast != 0, reinterpret_cast<void*>(options.log_fn),
        options.log_arg);
    key += identity;

    Registry& all = registry();
    std::lock_guard lock(all.mutex);
    for (vitastor_cluster* known : all.clusters) {
        if (known->key != key) continue;
        known->refs++;
        *cluster = known;
        return 0;
    }
    auto fresh = std::make_unique<vitastor_cluster>(options.log_fn, options.log_arg);
    fresh->key = key;
    auto refuse = [&](const Status& status) {
        log(fresh->logger, LogLevel::error, "%s", status.message().c_str());
        return status.code() == -ENOENT ? -ENOENT : -EINVAL;
    };
    auto layers = cluster::load_config(options.config_path ? options.config_path : "", std::move(values));
    if (!layers.ok()) return refuse(layers.status());
    if (const std::string* level = layers.value().find("log_level"); level && cluster::parse_int(*level).value_or(0) > 1)
        fresh->logger.set_level(LogLevel::debug);
    auto etcd = cluster::EtcdThread::start(layers.value(), options.fail_fast != 0, fresh->logger);
    if (!etcd.ok()) return refuse(etcd.status());
    fresh->etcd = std::move(etcd.value());
    fresh->shared = std::make_unique<Shared>(fresh->etcd->hub(), fresh->logger);
    fresh->shared->layers = layers.value();
    *cluster = fresh.release();
    all.clusters.push_back(*cluster);
    return 0;
}

extern "C" void vitastor_cluster_close(vitastor_cluster* cluster) {
    if (!cluster) return;
    {
        Registry& all = registry();
        std::lock_guard lock(all.mutex);
        if (--cluster->refs) return;
        std::erase(all.clusters, cluster);
    }
    cluster->shared.reset();
    cluster->etcd.reset();
    delete cluster;
}

// ---- contexts

uint64_t vitastor_context::post(const Command& command) {
    // Notified under the lock: the thread cannot run a stop, and end its loop, before this is through.
    std::lock_guard lock(mutex);
    bool first = commands.empty();
    commands.push_back(command);
    if (first) loop->notify(mailbox);
    return ++posted;
}

void vitastor_context::run_commands() {
    {
        std::lock_guard lock(mutex);
        batch.swap(commands);
    }
    for (Command& command : batch) {
        if (command.op) context->start(*command.op);
        else command.run(this, command.arg);
    }
    {
        std::lock_guard lock(mutex);
        executed += batch.size();
        changed.notify_all();
    }
    batch.clear();
}

void vitastor_context::thread_body() {
    running_context = this;
    context = std::make_unique<Context>(*cluster->shared, *loop);
    mailbox.context = this;
    mailbox.on_notify = [](runtime::Notifier* self) { static_cast<Mailbox*>(self)->context->run_commands(); };
    loop->register_notifier(mailbox);
    {
        std::lock_guard lock(mutex);
        executed++;  // the start itself
        changed.notify_all();
    }
    while (true) {
        {
            std::lock_guard lock(mutex);
            if (stopping) break;
        }
        loop->run_once(runtime::kNever);
    }
    run_commands();
    context->close();
    loop->unregister_notifier(mailbox);
    context.reset();
    loop.reset();
}

Op* vitastor_context::new_op() { return own_thread ? new (::operator new(sizeof(Op))) Op : context->take_op(); }

void vitastor_context::submit(Op* op) {
    if (!own_thread) return context->start(*op);
    Command command;
    command.op = op;
    post(command);
}

extern "C" int vitastor_context_open(vitastor_cluster* cluster, const vitastor_context_options* given,
    vitastor_context** context) {
    vitastor_context_options options;
    if (!cluster || !context || !take_options(given, options)) return -EINVAL;
    runtime::LoopOptions loop_options;
    loop_options.spin_us = options.spin_us;
    auto loop = runtime::create_loop(loop_options, cluster->logger);
    if (!loop.ok()) {
        log(cluster->logger, LogLevel::error, "%s", loop.status().message().c_str());
        return loop.status().code();
    }
    {
        std::lock_guard lock(registry().mutex);
        cluster->refs++;
    }
    auto* fresh = new vitastor_context;
    fresh->cluster = cluster;
    fresh->loop = std::move(loop.value());
    fresh->own_thread = options.own_thread != 0;
    if (fresh->own_thread) {
        fresh->posted = 1;
        fresh->thread = runtime::start_thread(
            "vitastor-io", [](void* arg) { static_cast<vitastor_context*>(arg)->thread_body(); }, fresh);
        std::unique_lock lock(fresh->mutex);
        fresh->changed.wait(lock, [&] { return fresh->executed >= 1; });
    } else {
        fresh->context = std::make_unique<Context>(*cluster->shared, *fresh->loop);
    }
    *context = fresh;
    return 0;
}

extern "C" void vitastor_context_close(vitastor_context* context) {
    if (!context) return;
    if (context->own_thread) {
        vitastor_context::Command stop;
        stop.run = [](vitastor_context* self, void*) {
            std::lock_guard lock(self->mutex);
            self->stopping = true;
        };
        context->post(stop);
        context->thread.reset();
    } else {
        context->context->close();
        context->context.reset();
        context->loop.reset();
    }
    vitastor_cluster* cluster = context->cluster;
    delete context;
    vitastor_cluster_close(cluster);
}

extern "C" int vitastor_context_fd(vitastor_context* context) {
    return context && !context->own_thread ? context->loop->poll_fd() : -EINVAL;
}

/// Number of callbacks run.
static int run_once(vitastor_context* context, uint64_t until_ns) {
    Context& inner = *context->context;
    uint64_t before = inner.callbacks();
    context->running++;
    context->loop->run_once(until_ns);
    context->running--;
    return static_cast<int>(std::min<uint64_t>(inner.callbacks() - before, INT32_MAX));
}

extern "C" int vitastor_context_run(vitastor_context* context, int timeout_ms) {
    if (!context || context->own_thread) return -EINVAL;
    runtime::Loop& loop = *context->loop;
    uint64_t until = timeout_ms == 0  ? 0
                     : timeout_ms < 0 ? runtime::kNever
                                      : loop.now_exact_ns() + static_cast<uint64_t>(timeout_ms) * runtime::kNsPerMs;
    const int callbacks = run_once(context, until);
    loop.flush();
    return callbacks;
}

extern "C" int vitastor_context_collect(vitastor_context* context) {
    return context && !context->own_thread ? run_once(context, 0) : -EINVAL;
}

extern "C" int vitastor_context_ready(vitastor_context* context) {
    return context && !context->own_thread ? context->loop->ready() : -EINVAL;
}

extern "C" int vitastor_context_next_timeout(vitastor_context* context) {
    if (!context || context->own_thread) return -1;
    uint64_t deadline = context->loop->next_deadline_ns();
    if (deadline == runtime::kNever) return -1;
    uint64_t now = context->loop->now_exact_ns();
    if (deadline <= now) return 0;
    return static_cast<int>(std::min<uint64_t>((deadline - now + runtime::kNsPerMs - 1) / runtime::kNsPerMs, INT32_MAX));
}

namespace vitastor::client {
bool on_own_thread(const vitastor_context* context) { return running_context == context; }
}  // namespace vitastor::client

// SPDX-License-Identifier: GPL-2.0-or-later
// What stands behind the opaque handles of vitastor.h.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "client/context.hpp"
#include "client/shared.hpp"
#include "cluster/etcd_thread.hpp"
#include "vitastor.h"

namespace vitastor::client {

/// Copies an option struct of any known or unknown size. False: struct_size is impossible, or fields that we do not know are set.
template <class Options>
bool take_options(const Options* given, Options& out) {
    out = Options();
    if (!given || given->struct_size < sizeof(size_t)) return false;
    size_t known = std::min(given->struct_size, sizeof(Options));
    memcpy(static_cast<void*>(&out), given, known);
    for (size_t i = known; i < given->struct_size; i++)
        if (reinterpret_cast<const uint8_t*>(given)[i]) return false;
    out.struct_size = sizeof(Options);
    return true;
}

class AbiLogger final : public Logger {
public:
    AbiLogger(vitastor_log_fn log_fn, void* log_arg) : log_fn_(log_fn), log_arg_(log_arg) {}
    void write(LogLevel level, const std::string& text) override;

private:
    vitastor_log_fn log_fn_;
    void* log_arg_;
};

}  // namespace vitastor::client

struct vitastor_cluster {
    vitastor_cluster(vitastor_log_fn log_fn, void* log_arg) : logger(log_fn, log_arg) {}
    std::string key;    ///< what makes two opens the same cluster
    unsigned refs = 1;  ///< guarded by the registry's lock
    vitastor::client::AbiLogger logger;
    std::unique_ptr<vitastor::cluster::EtcdThread> etcd;
    std::unique_ptr<vitastor::client::Shared> shared;
};

/// Lives until the last image and context of it is gone.
struct vitastor_context {
    struct Command {
        vitastor::client::Op* op = nullptr;  ///< to be started; or
        void (*run)(vitastor_context* context, void* arg) = nullptr;
        void* arg = nullptr;
    };
    struct Mailbox : vitastor::runtime::Notifier {
        vitastor_context* context = nullptr;
    };

    vitastor_cluster* cluster = nullptr;
    std::unique_ptr<vitastor::runtime::Loop> loop;
    std::unique_ptr<vitastor::client::Context> context;
    bool own_thread = false;
    unsigned running = 0;  ///< caller-driven: calls of vitastor_context_run() that callbacks may come from

    // ---- own thread only
    std::unique_ptr<vitastor::runtime::Thread> thread;
    Mailbox mailbox;
    std::mutex mutex;  ///< guards what follows
    std::condition_variable changed;
    std::vector<Command> commands;
    uint64_t posted = 0, executed = 0;
    bool stopping = false;
    std::vector<Command> batch;  ///< thread only

    /// Own thread: queues it; any thread. Returns its number.
    uint64_t post(const Command& command);
    void run_commands();
    void thread_body();
    /// Starts it here, or hands it over.
    void submit(vitastor::client::Op* op);
    vitastor::client::Op* new_op();
};

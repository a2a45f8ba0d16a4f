// SPDX-License-Identifier: GPL-2.0-or-later
// Commands from any thread to the engine's loop.
#pragma once

#include <mutex>
#include <utility>
#include <vector>

#include "engine/engine.hpp"

namespace vitastor::engine {

/// Lives on the loop; on_mail runs on its thread and takes everything that has arrived.
class Mailbox {
public:
    Mailbox(runtime::Loop& loop, void (*on_mail)(void* arg), void* arg) : loop_(loop), on_mail_(on_mail), arg_(arg) {
        notifier_.mailbox = this;
        notifier_.on_notify = [](runtime::Notifier* self) {
            Mailbox* mailbox = static_cast<Note*>(self)->mailbox;
            mailbox->on_mail_(mailbox->arg_);
        };
        loop_.register_notifier(notifier_);
    }
    ~Mailbox() { loop_.unregister_notifier(notifier_); }
    Mailbox(const Mailbox&) = delete;
    Mailbox& operator=(const Mailbox&) = delete;

    /// Any thread.
    void post(Command&& command) {
        {
            std::lock_guard<std::mutex> guard(mutex_);
            commands_.push_back(std::move(command));
        }
        loop_.notify(notifier_);
    }
    /// Loop thread.
    std::vector<Command> take() {
        std::lock_guard<std::mutex> guard(mutex_);
        return std::exchange(commands_, {});
    }

private:
    struct Note : runtime::Notifier {
        Mailbox* mailbox = nullptr;
    };
    runtime::Loop& loop_;
    void (*on_mail_)(void* arg);
    void* arg_;
    Note notifier_;
    std::mutex mutex_;
    std::vector<Command> commands_;
};

}  // namespace vitastor::engine

// SPDX-License-Identifier: GPL-2.0-or-later
#include <pthread.h>

#include <cstdio>

#include "runtime/loop.hpp"

namespace vitastor::runtime {

namespace {

class RealThread final : public Thread {
public:
    RealThread(const char* name, void (*body)(void*), void* arg) : body_(body), arg_(arg) {
        snprintf(name_, sizeof(name_), "%s", name);
        int error = pthread_create(&thread_, nullptr, &RealThread::main, this);
        VITASTOR_ASSERT(error == 0);
    }
    ~RealThread() override { pthread_join(thread_, nullptr); }

private:
    static void* main(void* self_pointer) {
        auto* self = static_cast<RealThread*>(self_pointer);
        pthread_setname_np(pthread_self(), self->name_);
        self->body_(self->arg_);
        return nullptr;
    }
    pthread_t thread_{};
    void (*body_)(void*);
    void* arg_;
    char name_[16];  // the kernel's limit, with the zero
};

}  // namespace

std::unique_ptr<Thread> start_thread(const char* name, void (*body)(void* arg), void* arg) {
    return std::make_unique<RealThread>(name, body, arg);
}

}  // namespace vitastor::runtime

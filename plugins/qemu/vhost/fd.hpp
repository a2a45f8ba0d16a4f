// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

namespace vitastor::vhost {

/// A descriptor that is closed at the end.
class Fd {
public:
    explicit Fd(int fd = -1) : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~Fd() {
        if (fd_ >= 0) ::close(fd_);
    }
    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }

private:
    int fd_;
};

/// Both ends of an eventfd that may be full or empty.
inline void signal(const Fd& event) {
    const uint64_t one = 1;
    if (event && ::write(event.get(), &one, sizeof one) < 0) return;
}
inline void consume(const Fd& event) {
    uint64_t value = 0;
    if (event && ::read(event.get(), &value, sizeof value) < 0) return;
}

}  // namespace vitastor::vhost

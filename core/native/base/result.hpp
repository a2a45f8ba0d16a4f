// SPDX-License-Identifier: GPL-2.0-or-later
// Errors of the world (disk, network, peers, etcd, users) as values: an errno, and where it was noticed.
#pragma once

#include <cerrno>
#include <string>
#include <utility>

#include "base/assert.hpp"

namespace vitastor {

/// 0 or a negative errno, with an optional sentence that names the thing, the reason and the next step.
class [[nodiscard]] Status {
public:
    Status() = default;
    /// code: negative errno.
    explicit Status(int code, std::string message = {}) : code_(code), message_(std::move(message)) {
        VITASTOR_ASSERT(code < 0);
    }
    bool ok() const { return code_ == 0; }
    int code() const { return code_; }
    const std::string& message() const { return message_; }
    void ignore_error(const char* /*reason*/) const {}

private:
    int code_ = 0;
    std::string message_;
};

/// A value or a Status that is not ok. value() on an error is our bug and aborts.
template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : value_(std::move(value)) {}
    Result(Status status) : status_(std::move(status)) { VITASTOR_ASSERT(!status_.ok()); }
    bool ok() const { return status_.ok(); }
    const Status& status() const { return status_; }
    T& value() {
        VITASTOR_ASSERT(ok());
        return value_;
    }
    const T& value() const {
        VITASTOR_ASSERT(ok());
        return value_;
    }

private:
    Status status_;
    T value_{};
};

}  // namespace vitastor

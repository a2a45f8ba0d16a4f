// SPDX-License-Identifier: GPL-2.0-or-later
// What a virtual disk is to its queues: an image, or memory in tests.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <string>

namespace vitastor::vhost {

/// I/O of one queue, on its thread. Offsets and lengths are multiples of 512 bytes inside the disk. done() runs once, from run(), with
/// a number of bytes or a negative errno. The pieces are borrowed until then.
class DiskThread {
public:
    using Done = void (*)(void* arg, int64_t result);
    virtual ~DiskThread() = default;
    virtual void read(uint64_t offset, uint64_t length, const iovec* iov, int count, Done done, void* arg) = 0;
    virtual void write(uint64_t offset, uint64_t length, const iovec* iov, int count, Done done, void* arg) = 0;
    /// Zeroes that are there; discard: zeroes that take no room where that is possible.
    virtual void zero(uint64_t offset, uint64_t length, Done done, void* arg) = 0;
    virtual void discard(uint64_t offset, uint64_t length, Done done, void* arg) = 0;
    virtual void flush(Done done, void* arg) = 0;
    /// Readable when run() has something to do.
    virtual int fd() const = 0;
    virtual void run() = 0;
    /// Milliseconds until run() has to be called again, -1: when fd() is readable.
    virtual int timeout_ms() const = 0;
};

/// Any thread.
class Disk {
public:
    virtual ~Disk() = default;
    virtual std::unique_ptr<DiskThread> open_thread() = 0;
    virtual uint64_t bytes() const = 0;
    virtual bool read_only() const = 0;
    /// Acknowledged writes are durable: flushes are free.
    virtual bool is_durable() const = 0;
    /// What is worth discarding: an object.
    virtual uint32_t discard_bytes() const = 0;
    virtual std::string serial() const = 0;
};

}  // namespace vitastor::vhost

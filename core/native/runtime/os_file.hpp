// SPDX-License-Identifier: GPL-2.0-or-later
// Opening and describing files and block devices for both real loops.
#pragma once

#include <string>

#include "runtime/loop.hpp"

namespace vitastor::runtime {

struct OpenedFile {
    int fd = -1;
    FileInfo info;
    /// Lives in memory (tmpfs, ramfs): I/O never waits for a device, and the kernel has no asynchronous path for it, so that
    /// io_uring would hand every request to a worker thread (measured in docs/adr/0001).
    bool in_memory = false;
};

/// Opens an existing file or block device, locks it if asked, falls back to cached I/O where O_DIRECT is refused.
Result<OpenedFile> open_os_file(const std::string& path, const FileOptions& options);

/// Blocking forms, bytes or negative errno; retried on EINTR.
int64_t blocking_read(int fd, const iovec* iov, int count, uint64_t offset);
int64_t blocking_write(int fd, const iovec* iov, int count, uint64_t offset);
int64_t blocking_sync(int fd);
/// Block device: BLKDISCARD; file: a hole.
int64_t blocking_discard(int fd, uint64_t offset, uint64_t length);

inline uint64_t iov_bytes(const iovec* iov, int count) {
    uint64_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += iov[i].iov_len;
    return bytes;
}

}  // namespace vitastor::runtime

// SPDX-License-Identifier: GPL-2.0-or-later
#include "runtime/os_file.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace vitastor::runtime {

namespace {

Status open_error(const std::string& path, int error, const char* doing) {
    std::string text = std::string("cannot ") + doing + " " + path + ": ";
    if (error == EBUSY || error == EWOULDBLOCK) {
        return Status(-EBUSY, text + "it is in use by another process; stop that one first");
    }
    return Status(-error, text + strerror(error));
}

/// A file below /sys/dev/block/M:m/queue; null if there is none.
FILE* open_queue_file(dev_t device, const char* name) {
    char path[128];
    snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/queue/%s", major(device), minor(device), name);
    FILE* file = fopen(path, "re");
    if (file == nullptr) {  // a partition: its disk has the queue
        snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../queue/%s", major(device), minor(device), name);
        file = fopen(path, "re");
    }
    return file;
}

uint64_t queue_value(dev_t device, const char* name) {
    FILE* file = open_queue_file(device, name);
    if (file == nullptr) return 0;
    unsigned long long value = 0;
    if (fscanf(file, "%llu", &value) != 1) value = 0;
    fclose(file);
    return value;
}

WriteCache write_cache_of(dev_t device) {
    FILE* file = open_queue_file(device, "write_cache");
    if (file == nullptr) return WriteCache::unknown;
    char text[32] = {};
    const bool got = fgets(text, sizeof(text), file) != nullptr;
    fclose(file);
    if (!got) return WriteCache::unknown;
    if (strncmp(text, "write back", 10) == 0) return WriteCache::present;
    return strncmp(text, "write through", 13) == 0 ? WriteCache::none : WriteCache::unknown;
}

void describe(OpenedFile& file, const struct stat& st) {
    FileInfo& info = file.info;
    info.write_cache = write_cache_of(S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev);
    if (S_ISBLK(st.st_mode)) {
        info.is_block_device = true;
        uint64_t size = 0;
        int sector = 512;
        if (ioctl(file.fd, BLKGETSIZE64, &size) == 0) info.size_bytes = size;
        if (ioctl(file.fd, BLKSSZGET, &sector) == 0 && sector > 0) {
            info.logical_block = static_cast<uint32_t>(sector);
        }
        info.can_discard = queue_value(st.st_rdev, "discard_max_bytes") > 0;
        return;
    }
    info.size_bytes = static_cast<uint64_t>(st.st_size);
    info.can_discard = true;  // by fallocate; where the file system cannot, discard() says -EOPNOTSUPP
    struct statfs fs {};
    if (fstatfs(file.fd, &fs) == 0) {
        auto type = static_cast<uint64_t>(fs.f_type);
        file.in_memory = type == TMPFS_MAGIC || type == RAMFS_MAGIC;
    }
#ifdef STATX_DIOALIGN
    struct statx more {};
    if (statx(file.fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &more) == 0 && (more.stx_mask & STATX_DIOALIGN)
        && more.stx_dio_offset_align > 512) {
        info.logical_block = more.stx_dio_offset_align;
    }
#endif
}

/// 0 or errno. Both locks belong to the open file and end with it.
int lock_area(int fd, const FileOptions& options) {
    if (flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK) return errno;
    struct flock area {};
    area.l_type = options.mode == FileMode::read_only ? F_RDLCK : F_WRLCK;
    area.l_whence = SEEK_SET;
    area.l_start = static_cast<off_t>(options.area_offset);
    area.l_len = static_cast<off_t>(options.area_bytes);
    if (fcntl(fd, F_OFD_SETLK, &area) != 0 && (errno == EAGAIN || errno == EACCES)) return EBUSY;
    return 0;
}

}  // namespace

Result<OpenedFile> open_os_file(const std::string& path, const FileOptions& options) {
    struct stat st {};
    if (stat(path.c_str(), &st) != 0) return open_error(path, errno, "open");
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        return Status(-EINVAL, "cannot open " + path + ": it is neither a file nor a block device");
    }
    int flags = O_CLOEXEC | (options.mode == FileMode::read_only ? O_RDONLY : O_RDWR);
    if (options.io == FileIo::direct_sync) flags |= O_SYNC;
    if (options.lock_exclusive && S_ISBLK(st.st_mode)) flags |= O_EXCL;
    OpenedFile file;
    file.info.is_direct = options.io != FileIo::cached;
    if (file.info.is_direct) {
        file.fd = open(path.c_str(), flags | O_DIRECT);
        if (file.fd < 0 && errno == EINVAL) {
            VITASTOR_PROBE("file system refused O_DIRECT");
            file.info.is_direct = false;
        }
    }
    if (!file.info.is_direct) file.fd = open(path.c_str(), flags);
    if (file.fd < 0) return open_error(path, errno, "open");
    if (options.lock_exclusive && flock(file.fd, LOCK_EX | LOCK_NB) != 0) {
        int error = errno;
        close(file.fd);
        return open_error(path, error, "lock");
    }
    if (!options.lock_exclusive && options.lock_area) {
        if (int error = lock_area(file.fd, options)) {
            close(file.fd);
            return open_error(path, error, "lock");
        }
    }
    if (fstat(file.fd, &st) != 0) {
        int error = errno;
        close(file.fd);
        return open_error(path, error, "stat");
    }
    describe(file, st);
    return file;
}

int64_t blocking_read(int fd, const iovec* iov, int count, uint64_t offset) {
    ssize_t result;
    do {
        result = preadv(fd, iov, count, static_cast<off_t>(offset));
    } while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
}

int64_t blocking_write(int fd, const iovec* iov, int count, uint64_t offset) {
    ssize_t result;
    do {
        result = pwritev(fd, iov, count, static_cast<off_t>(offset));
    } while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
}

int64_t blocking_sync(int fd) {
    int result;
    do {
        result = fdatasync(fd);
    } while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

int64_t blocking_discard(int fd, uint64_t offset, uint64_t length) {
    int result;
    struct stat st {};
    if (fstat(fd, &st) == 0 && S_ISBLK(st.st_mode)) {
        uint64_t range[2] = {offset, length};  // fallocate() would write zeroes where it cannot unmap
        do {
            result = ioctl(fd, BLKDISCARD, range);
        } while (result < 0 && errno == EINTR);
        return result < 0 ? -errno : 0;
    }
    do {
        result = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                           static_cast<off_t>(length));
    } while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

}  // namespace vitastor::runtime

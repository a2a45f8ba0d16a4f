// SPDX-License-Identifier: GPL-2.0-or-later
// The seam: everything native reaches disk, network, time and randomness only through a Loop.
//
// One Loop belongs to one thread. Three implementations: io_uring, epoll + threads, simulated. All completions run on the
// loop's thread from inside run_once(), never from inside the call that started the operation, exactly once each.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/buffer.hpp"
#include "base/list.hpp"
#include "base/log.hpp"
#include "base/result.hpp"

namespace vitastor::runtime {

inline constexpr uint64_t kNsPerMs = 1'000'000;
inline constexpr uint64_t kNsPerSecond = 1'000'000'000;
inline constexpr uint64_t kNever = UINT64_MAX;

/// One operation in flight. Embedded in the caller's object (derive from it), which stays alive until on_done runs.
/// result: bytes transferred, or a new handle, or a negative errno. On entry to on_done the object is free for reuse.
struct Completion {
    void (*on_done)(Completion* self, int64_t result) = nullptr;
    /// Private to the loop while the operation is in flight.
    uint64_t loop_data[4] = {};
};

/// A one-shot timer. Embedded in the caller's object; arm again from on_fire if wanted. Disarm before destroying.
struct Timer {
    void (*on_fire)(Timer* self) = nullptr;
    uint64_t deadline_ns = 0;  ///< valid while armed
    uint64_t heap_index = UINT64_MAX;  ///< private; UINT64_MAX = not armed
    bool armed() const { return heap_index != UINT64_MAX; }
};

/// Work to run once on a later turn of the loop (same thread), before it sleeps. At most queued once at a time.
struct Deferred : ListNode {
    void (*on_run)(Deferred* self) = nullptr;
};

/// Runs on the loop's thread soon after notify(), which may be called from any thread and coalesces. For mailboxes.
struct Notifier {
    void (*on_notify)(Notifier* self) = nullptr;
    void* loop_data = nullptr;
};

using Socket = int32_t;  ///< private numbering of the loop; -1 = none
using File = int32_t;

/// A textual IPv4 or IPv6 address without brackets, and a TCP port.
struct Address {
    std::string host;
    uint16_t port = 0;
};

enum class FileMode { read_only, read_write };
enum class FileIo {
    direct,        ///< O_DIRECT: buffers, offsets and lengths are multiples of the device's alignment
    cached,        ///< page cache
    direct_sync,   ///< O_DIRECT | O_SYNC
};

struct FileOptions {
    FileMode mode = FileMode::read_write;
    FileIo io = FileIo::direct;
    bool lock_exclusive = true;  ///< flock(LOCK_EX | LOCK_NB), for block devices also O_EXCL; refused: -EBUSY
    /// Without lock_exclusive: others may use the file too, but not this part of it (0 bytes: to the end). A shared flock and a
    /// record lock; refused: -EBUSY. Where the file system has no locks, nothing is locked.
    bool lock_area = false;
    uint64_t area_offset = 0, area_bytes = 0;
};

enum class WriteCache : uint8_t {
    unknown,   ///< nobody says: flush
    none,      ///< the device says that a completed direct write is durable
    present,   ///< the device says that it has a volatile write cache
};

struct FileInfo {
    uint64_t size_bytes = 0;       ///< of the file or block device
    uint32_t logical_block = 512;  ///< smallest direct I/O unit
    uint32_t atomic_write_bytes = 0;
    bool is_block_device = false;
    bool can_discard = false;
    WriteCache write_cache = WriteCache::unknown;  ///< of the device, or of the device under the file system
    bool is_direct = false;  ///< false: the file system refused O_DIRECT and cached I/O is used instead
};

/// Counters since creation, for statistics and the benchmark.
struct LoopCounters {
    uint64_t kernel_entries = 0;
    uint64_t completions = 0;
    uint64_t wakeups = 0;  ///< times the thread really slept
    uint64_t turns = 0;    ///< looks at the kernel; the simulated loop counts none
    uint64_t idle_steps = 0;  ///< of defer_idle()
};

class Loop {
public:
    virtual ~Loop() = default;

    // ---- time and randomness
    /// Nanoseconds on CLOCK_BOOTTIME (counts suspend, never back). Cached per turn; refresh with now_exact_ns().
    virtual uint64_t now_ns() const = 0;
    virtual uint64_t now_exact_ns() = 0;
    /// Microseconds since 1970 UTC; may jump. Only for statistics and logs.
    virtual uint64_t wall_us() = 0;
    virtual uint64_t random_u64() = 0;

    // ---- running
    /// Runs what is ready; if nothing is, sleeps until something is or `until_ns` (absolute; 0 = do not sleep, kNever = no limit).
    virtual void run_once(uint64_t until_ns) = 0;
    /// For callers with their own event loop: readable when run_once(0) has something to do. To be asked for before the loop is used (else it may be
    /// -EBUSY). Negative errno: there is none.
    virtual int poll_fd() = 0;
    /// The same, looked at instead of waited for, timers aside. On the loop's thread. True where nobody knows.
    virtual bool ready() { return true; }
    virtual uint64_t next_deadline_ns() const = 0;
    /// Must be called by the caller-driven mode before it goes to poll(): submits what is queued.
    virtual void flush() = 0;
    /// Lets a sleeping run_once() gather results for up to wait_ns instead of waking for the first one: for whoever knows that
    /// many of its requests are under way. Fewer, fuller turns for wait_ns of latency. 0 (the default): wake at once.
    virtual void set_gather_ns(uint64_t wait_ns) { static_cast<void>(wait_ns); }

    void arm(Timer& timer, uint64_t deadline_ns) { arm_timer(timer, deadline_ns); }
    /// No effect when not armed.
    void disarm(Timer& timer) { disarm_timer(timer); }
    virtual void defer(Deferred& deferred) = 0;
    /// For long background work in short steps: one of these a turn, after everything else that is ready has run and what it sends
    /// has been handed to the kernel, so that whatever arrives waits for one step at most. Turns that are full of other work put it off, a few of them.
    virtual void defer_idle(Deferred& deferred) { defer(deferred); }

    virtual void register_notifier(Notifier& notifier) = 0;
    /// After it returns no on_notify runs any more. Loop thread.
    virtual void unregister_notifier(Notifier& notifier) = 0;
    /// Any thread.
    virtual void notify(Notifier& notifier) = 0;

    // ---- network. All handles are closed by close_socket(); operations in flight then end with -ECANCELED.
    /// Result: handle of a connected stream socket (TCP_NODELAY set), or error. No timeout inside; cancel() ends it.
    virtual void connect(const Address& address, Completion& completion) = 0;
    /// Listening socket on address (port 0 = any free port); *port receives the real one.
    virtual Result<Socket> listen(const Address& address, uint16_t* port) = 0;
    /// Result: handle of the accepted socket.
    virtual void accept(Socket listener, Completion& completion) = 0;
    /// Result: 1 … bytes received (may be short), 0 = end of stream. iov and its memory stay valid until completion. One at a time per socket.
    virtual void receive(Socket socket, const iovec* iov, int count, Completion& completion) = 0;
    /// Result: bytes sent (may be short). iov and its memory stay valid until completion. One at a time per socket.
    virtual void send(Socket socket, const iovec* iov, int count, Completion& completion) = 0;
    virtual void close_socket(Socket socket) = 0;
    /// Asks to end an operation early; its completion still runs (with -ECANCELED or with what happened first).
    virtual void cancel(Completion& completion) = 0;
    /// Text of the peer's address for messages.
    virtual std::string peer_name(Socket socket) = 0;
    /// Addresses of this machine's interfaces that are up, for osd_network.
    virtual std::vector<std::string> local_addresses() = 0;

    // ---- disk
    virtual Result<File> open_file(const std::string& path, const FileOptions& options) = 0;
    virtual FileInfo file_info(File file) = 0;
    /// Result: bytes (may be short), or error. Offsets and lengths as the file's mode demands.
    virtual void read(File file, const iovec* iov, int count, uint64_t offset, Completion& completion) = 0;
    virtual void write(File file, const iovec* iov, int count, uint64_t offset, Completion& completion) = 0;
    /// Makes all writes completed before durable (fdatasync). Result 0.
    virtual void sync(File file, Completion& completion) = 0;
    /// Gives space back (block device: BLKDISCARD, file: a hole); contents become undefined. Result 0, or -EOPNOTSUPP.
    virtual void discard(File file, uint64_t offset, uint64_t length, Completion& completion) = 0;
    virtual void close_file(File file) = 0;

    virtual BufferPool& buffers() = 0;
    virtual LoopCounters counters() const = 0;
    /// "io_uring", "epoll" or "simulated".
    virtual const char* name() const = 0;

protected:
    virtual void arm_timer(Timer& timer, uint64_t deadline_ns) = 0;
    virtual void disarm_timer(Timer& timer) = 0;
};

enum class LoopKind { automatic, io_uring, epoll };

struct LoopOptions {
    LoopKind kind = LoopKind::automatic;  ///< automatic: io_uring, and epoll with one clear warning where it is refused
    uint32_t queue_depth = 1024;
    uint32_t spin_us = 0;        ///< keep looking for that long before sleeping, after a turn that had work
    size_t buffer_keep_bytes = 32 << 20;
    int disk_threads = 4;  ///< epoll only
};

/// A real loop for the calling thread (the first run_once() binds it).
Result<std::unique_ptr<Loop>> create_loop(const LoopOptions& options, Logger& logger);

/// Starts a native thread that runs `body(arg)`; the returned object joins in its destructor. The only door to threads.
class Thread {
public:
    virtual ~Thread() = default;
};
std::unique_ptr<Thread> start_thread(const char* name, void (*body)(void* arg), void* arg);

}  // namespace vitastor::runtime

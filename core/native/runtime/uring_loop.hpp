// SPDX-License-Identifier: GPL-2.0-or-later
// The default loop: one io_uring, entered once a turn. Private to runtime; others use create_loop().
#pragma once

#include <liburing.h>
#include <pthread.h>
#include <sys/socket.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "runtime/disk_threads.hpp"
#include "runtime/handle_table.hpp"
#include "runtime/os_file.hpp"
#include "runtime/real_loop.hpp"

namespace vitastor::runtime {

class UringLoop final : public RealLoop {
public:
    static Result<std::unique_ptr<Loop>> create(const LoopOptions& options);
    ~UringLoop() override;

    void run_once(uint64_t until_ns) override;
    int poll_fd() override;
    /// Looks at shared memory alone.
    bool ready() override { return local_pending() || kernel_has_work() || io_uring_cq_ready(&ring_) > 0; }
    void flush() override;
    void set_gather_ns(uint64_t wait_ns) override { gather_ns_ = wait_ns; }

    void connect(const Address& address, Completion& completion) override;
    Result<Socket> listen(const Address& address, uint16_t* port) override;
    void accept(Socket listener, Completion& completion) override;
    void receive(Socket socket, const iovec* iov, int count, Completion& completion) override;
    void send(Socket socket, const iovec* iov, int count, Completion& completion) override;
    void close_socket(Socket socket) override;
    void cancel(Completion& completion) override;
    std::string peer_name(Socket socket) override;

    Result<File> open_file(const std::string& path, const FileOptions& options) override;
    FileInfo file_info(File file) override { return files_.get(file).os.info; }
    void read(File file, const iovec* iov, int count, uint64_t offset, Completion& completion) override;
    void write(File file, const iovec* iov, int count, uint64_t offset, Completion& completion) override;
    void sync(File file, Completion& completion) override;
    void discard(File file, uint64_t offset, uint64_t length, Completion& completion) override;
    void close_file(File file) override;
    const char* name() const override { return "io_uring"; }

private:
    enum class Kind : uint8_t { connect, accept, receive, send, read, write, sync, discard };

    /// One operation in flight. The node is in its socket's list; completion->loop_data[0] points here.
    struct Op : ListNode {
        Completion* completion = nullptr;
        Kind kind = Kind::connect;
        bool queued = false;            ///< waits in waiting_ for a free submission entry
        bool cancel_requested = false;
        int fd = -1;
        uint32_t slot = 0;              ///< index in sockets_ or files_
        int count = 0;
        const iovec* iov = nullptr;
        uint64_t offset = 0;
        uint64_t length = 0;
        Op* next_free = nullptr;
        union {
            msghdr message;
            sockaddr_storage address;
        };
        socklen_t address_length = 0;
        Op() {}
    };
    struct SocketSlot {
        bool open = false;
        bool drained = false;  ///< the last receive emptied the socket: wait first, then try
        uint32_t generation = 0;
        int fd = -1;
        List<Op> ops;
    };
    struct FileSlot {
        bool open = false;
        uint32_t generation = 0;
        uint32_t in_flight = 0;
        OpenedFile os;
    };

    explicit UringLoop(const LoopOptions& options) : RealLoop(options) {}
    int set_up(uint32_t depth, bool pollable = false);
    void bind();
    bool kernel_has_work() const;
    void submit(bool reap);
    void wait(uint64_t until_ns);
    void sleep(unsigned wanted, uint64_t until_ns);
    void spin(uint64_t until_ns);
    unsigned reap();
    void stop_events();
    void drain_events();
    void resume_events(bool now);

    Op* new_op(Kind kind, Completion& completion);
    void transfer(Kind kind, Socket socket, const iovec* iov, int count, Completion& completion);
    void free_op(Op* op);
    io_uring_sqe* get_sqe();
    void start(Op* op);
    void start_waiting();
    void prepare(Op* op, io_uring_sqe* sqe);
    void queue_cancel(Op* op);
    void queue_tag(uint64_t tag);
    void arm_mail_poll();
    void finish(Op* op, int result, uint32_t cqe_flags);
    void finish_socket_op(Op* op);
    int64_t new_socket(int fd);
    void file_op(Kind kind, File file, const iovec* iov, int count, uint64_t offset, uint64_t length,
                 Completion& completion);
    void abandon_all();
    /// The kernel has no asynchronous way to discard on a block device: one thread does it.
    void discard_on_thread(uint32_t slot, uint64_t offset, uint64_t length, Completion& completion);
    void collect_discards();
    void leave_file(uint32_t index);

    io_uring ring_{};
    bool ring_made_ = false;
    bool disabled_ = false;       ///< until bind(): created with IORING_SETUP_R_DISABLED
    bool bound_ = false;
    bool task_run_flag_ = false;  ///< the kernel shows pending work in the submission ring's flags
    bool pollable_ = false;       ///< poll() on the ring's own descriptor works
    int event_fd_ = -1;           ///< poll_fd() of a ring whose work wakes nobody who polls it
    bool event_written_ = false;  ///< by us
    bool events_on_ = false;      ///< the kernel writes to event_fd_
    unsigned idle_polls_ = 0;     ///< turns after a poll that had nothing to do
    uint32_t depth_ = 0;
    bool had_work_ = false;       ///< the last turn did something: worth spinning
    uint64_t gather_ns_ = 0;
    pthread_t thread_{};
    uint32_t in_flight_ = 0;      ///< operations the kernel knows
    HandleTable<SocketSlot> sockets_;
    HandleTable<FileSlot> files_;
    std::vector<std::unique_ptr<Op[]>> op_chunks_;
    Op* free_ops_ = nullptr;
    std::deque<Op*> waiting_;
    std::vector<Op*> waiting_cancels_;
    struct DiscardNotifier : Notifier {
        UringLoop* loop = nullptr;
    } discards_done_;
    std::vector<std::unique_ptr<DiskJob>> discards_;  ///< in flight
    std::vector<DiskJob*> discards_finished_;
    std::unique_ptr<DiskThreads> discard_thread_;  ///< made at the first one; last: its thread uses what stands above
};

}  // namespace vitastor::runtime

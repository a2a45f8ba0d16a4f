// SPDX-License-Identifier: GPL-2.0-or-later
// The fallback where io_uring is refused: edge-triggered epoll, disk calls on threads. Private to runtime.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/disk_threads.hpp"
#include "runtime/handle_table.hpp"
#include "runtime/os_file.hpp"
#include "runtime/real_loop.hpp"

namespace vitastor::runtime {

class EpollLoop final : public RealLoop {
public:
    static Result<std::unique_ptr<Loop>> create(const LoopOptions& options);
    ~EpollLoop() override;

    void run_once(uint64_t until_ns) override;
    int poll_fd() override { return epoll_fd_; }
    bool ready() override;
    void flush() override;

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
    const char* name() const override { return "epoll"; }

private:
    /// The two directions of a socket. A listener's accepts and a pending connect use one of them each.
    struct Side {
        Completion* completion = nullptr;  ///< waiting for readiness, or in the ready queue
        const iovec* iov = nullptr;
        int count = 0;
        bool ready = true;  ///< a try may succeed; false: wait for an edge
    };
    struct SocketSlot {
        bool open = false;
        uint32_t generation = 0;
        int fd = -1;
        Socket handle = -1;
        bool listening = false;
        bool connecting = false;
        bool hung_up = false;  ///< end of stream or error seen: a short receive does not mean "drained"
        Side in;
        Side out;
    };
    struct FileSlot {
        bool open = false;
        uint32_t generation = 0;
        uint32_t in_flight = 0;
        OpenedFile os;
    };
    struct DoneNotifier : Notifier {
        EpollLoop* loop = nullptr;
    };
    enum class Direction : uint64_t { in = 1, out = 2 };

    explicit EpollLoop(const LoopOptions& options);
    void before_ready(Completion& completion) override;
    void complete(SocketSlot& slot, Direction direction, int64_t result);
    bool poll_kernel(uint64_t until_ns, bool may_sleep);
    int wait_events(uint64_t until_ns, bool may_sleep);
    void on_event(SocketSlot& slot, uint32_t events);
    void try_in(SocketSlot& slot);
    void try_out(SocketSlot& slot);
    Socket add_socket(int fd);
    void begin(SocketSlot& slot, Side& side, const iovec* iov, int count, Completion& completion);
    void abort_side(SocketSlot& slot, Direction direction);
    void file_op(DiskCall call, File file, const iovec* iov, int count, uint64_t offset, uint64_t length,
                 Completion& completion);
    void collect_finished();

    int epoll_fd_ = -1;
    bool had_work_ = false;
    bool precise_wait_ = true;  ///< epoll_pwait2 is there
    int disk_thread_count_;
    HandleTable<SocketSlot> sockets_;
    HandleTable<FileSlot> files_;
    DoneNotifier disk_done_;
    std::vector<std::unique_ptr<DiskJob>> jobs_;
    std::vector<DiskJob*> free_jobs_;
    std::vector<DiskJob*> finished_now_;
    std::unique_ptr<DiskThreads> disk_;  ///< last: its threads use what stands above
};

}  // namespace vitastor::runtime

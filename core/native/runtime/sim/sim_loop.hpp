// SPDX-License-Identifier: GPL-2.0-or-later
// A loop of a simulated node. Private to runtime/sim; made by SimWorld::make_loop().
#pragma once

#include <map>
#include <string>

#include "runtime/handle_table.hpp"
#include "runtime/sim/sim_state.hpp"

namespace vitastor::runtime {

class SimLoop final : public Loop {
public:
    SimLoop(SimWorld::State& world, NodeId node);
    ~SimLoop() override;

    uint64_t now_ns() const override;
    uint64_t now_exact_ns() override { return now_ns(); }
    uint64_t wall_us() override;
    uint64_t random_u64() override;

    /// For code that wants to drive itself: steps the world until something ran on this loop. Never from inside an event.
    void run_once(uint64_t until_ns) override;
    int poll_fd() override { return -1; }
    uint64_t next_deadline_ns() const override;
    void flush() override {}

    void defer(Deferred& deferred) override;
    void register_notifier(Notifier& notifier) override;
    void unregister_notifier(Notifier& notifier) override;
    void notify(Notifier& notifier) override;

    void connect(const Address& address, Completion& completion) override;
    Result<Socket> listen(const Address& address, uint16_t* port) override;
    void accept(Socket listener, Completion& completion) override;
    void receive(Socket socket, const iovec* iov, int count, Completion& completion) override;
    void send(Socket socket, const iovec* iov, int count, Completion& completion) override;
    void close_socket(Socket socket) override;
    void cancel(Completion& completion) override;
    std::string peer_name(Socket socket) override;
    std::vector<std::string> local_addresses() override;

    Result<File> open_file(const std::string& path, const FileOptions& options) override;
    FileInfo file_info(File file) override;
    void read(File file, const iovec* iov, int count, uint64_t offset, Completion& completion) override;
    void write(File file, const iovec* iov, int count, uint64_t offset, Completion& completion) override;
    void sync(File file, Completion& completion) override;
    void discard(File file, uint64_t offset, uint64_t length, Completion& completion) override;
    void close_file(File file) override;

    BufferPool& buffers() override { return buffers_; }
    LoopCounters counters() const override { return counters_; }
    const char* name() const override { return "simulated"; }

    // ---- for the world
    uint64_t serial() const { return serial_; }
    NodeId node() const { return node_; }
    /// The process died: forgets timers, deferred work, sockets and files; every call is ignored from here on.
    void die(bool power_loss);
    Socket add_socket(uint64_t endpoint);
    void count_completion() {
        counters_.completions++;
        counters_.kernel_entries++;  // every event counts as one, see run_once()
    }

private:
    struct SocketSlot {
        bool open = false;
        uint32_t generation = 0;
        uint64_t endpoint = 0;
    };
    struct FileSlot {
        bool open = false;
        uint32_t generation = 0;
        std::string path;
        SimDisk* disk = nullptr;
        FileOptions options;
        FileInfo info;
    };
    struct Mail {
        Notifier* notifier;
        EventKey event = kNoEvent;
    };
    void arm_timer(Timer& timer, uint64_t deadline_ns) override;
    void disarm_timer(Timer& timer) override;
    SimEndpoint* socket_end(Socket socket);
    void file_op(SimWorld::State::FileCall call, File file, const iovec* iov, int count, uint64_t offset,
                 uint64_t length, Completion& completion);
    void run_deferred();

    SimWorld::State& world_;
    NodeId node_;
    uint64_t serial_;
    bool dead_ = false;
    std::map<uint64_t, std::pair<Timer*, EventKey>> timers_;  ///< by Timer::heap_index
    uint64_t next_timer_ = 1;
    List<Deferred> deferred_;
    EventKey deferred_event_ = kNoEvent;
    std::map<uint64_t, Mail> mail_;  ///< by Notifier::loop_data
    uint64_t next_mail_ = 1;
    HandleTable<SocketSlot> sockets_;
    HandleTable<FileSlot> files_;
    BufferPool buffers_;
    LoopCounters counters_;
};

}  // namespace vitastor::runtime

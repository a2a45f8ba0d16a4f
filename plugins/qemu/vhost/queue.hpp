// SPDX-License-Identifier: GPL-2.0-or-later
// One virtqueue of a virtio-blk device and the thread that serves it. The control thread changes it only while the thread is parked.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "vhost/disk.hpp"
#include "vhost/fd.hpp"
#include "vhost/ring.hpp"

namespace vitastor::vhost {

class Queue {
public:
    /// write_back: false = a write is answered when it is durable.
    Queue(Disk& disk, const Memory& memory, const std::atomic<bool>& write_back, unsigned index);
    /// Waits for what is in progress.
    ~Queue();

    /// Parks the thread; `drained`: when nothing is in progress any more. Nests with resume(), not with itself.
    void park(bool drained);
    void resume();

    // ---- while parked
    RingSetup setup;
    bool enabled = false;
    Fd kick, call, error;
    /// False: broken() says why.
    bool start_ring();
    uint16_t stop_ring();
    /// The guest's memory lies elsewhere now.
    bool remap() { return !ring_.running() || start_or_break(ring_.remap()); }
    /// setup.addresses have changed: another place for the log of what was written, or another place altogether.
    bool move_ring() { return !ring_.running() || start_or_break(ring_.move(setup.addresses)); }
    void forget_inflight() { ring_.forget_inflight(); }
    const std::string& broken() const { return ring_.broken(); }

private:
    struct Call;
    void body();
    void take_all();
    void begin(Call& call);
    void finish(Call& call, uint8_t status, uint32_t written);
    static void on_done(void* arg, int64_t result);
    static void on_written(void* arg, int64_t result);
    bool start_or_break(bool started);
    void notify();
    bool in_range(uint64_t sector, uint64_t bytes) const;

    Disk& disk_;
    const std::atomic<bool>& write_back_;
    const unsigned index_;
    Ring ring_;
    std::unique_ptr<DiskThread> io_;
    std::vector<std::unique_ptr<Call>> calls_;
    std::vector<Call*> free_;
    uint32_t in_progress_ = 0;
    bool told_broken_ = false;

    Fd wake_;
    std::mutex mutex_;
    std::condition_variable changed_;
    enum class Wish : uint8_t { run, park, drain, end } wish_ = Wish::run;  ///< guarded by mutex_, as is parked_
    bool parked_ = false;
    std::thread thread_;
};

}  // namespace vitastor::vhost

// SPDX-License-Identifier: GPL-2.0-or-later
#include "vhost/image_disk.hpp"

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>

namespace vitastor::vhost {
namespace {

constexpr size_t kZeroBytes = 1 << 20;
/// Never written to.
alignas(4096) uint8_t zeroes[kZeroBytes];

/// A result that another thread waits for.
struct Waiter {
    std::mutex mutex;
    std::condition_variable done;
    bool is_done = false;
    int64_t result = 0;
    static void fn(void* arg, int64_t result, uint64_t) {
        auto* self = static_cast<Waiter*>(arg);
        const std::lock_guard lock(self->mutex);
        self->result = result;
        self->is_done = true;
        self->done.notify_all();
    }
    int64_t wait() {
        std::unique_lock lock(mutex);
        done.wait(lock, [this] { return is_done; });
        return result;
    }
};

class ImageThread final : public DiskThread {
public:
    ImageThread(vitastor_cluster* cluster, vitastor_image* image) : image_(image) {
        vitastor_context_options options{};
        options.struct_size = sizeof options;
        error_ = vitastor_context_open(cluster, &options, &context_);
        if (error_ == 0) {
            fd_ = vitastor_context_fd(context_);  // before anything else: it decides what kind of ring this is
            if (fd_ < 0) error_ = fd_;
        }
        if (error_ < 0) std::fprintf(stderr, "vitastor-vhost: a queue cannot be served: %s\n", std::strerror(-error_));
    }
    ~ImageThread() override {
        for (Io* io : idle_) delete io;
        if (context_) vitastor_context_close(context_);
    }
    void read(uint64_t offset, uint64_t length, const iovec* iov, int count, Done done, void* arg) override {
        Io* io = take(done, arg);
        started(io, error_ == 0 ? vitastor_read(image_, context_, offset, length, iov, count, on_io, io) : error_);
    }
    void write(uint64_t offset, uint64_t length, const iovec* iov, int count, Done done, void* arg) override {
        Io* io = take(done, arg);
        started(io, error_ == 0 ? vitastor_write(image_, context_, offset, length, iov, count, on_io, io) : error_);
    }
    void zero(uint64_t offset, uint64_t length, Done done, void* arg) override {
        std::vector<iovec> iov;
        for (uint64_t left = length; left > 0;) {
            const uint64_t size = std::min<uint64_t>(left, kZeroBytes);
            iov.push_back({zeroes, size});
            left -= size;
        }
        write(offset, length, iov.data(), static_cast<int>(iov.size()), done, arg);
    }
    void discard(uint64_t offset, uint64_t length, Done done, void* arg) override {
        Io* io = take(done, arg);
        started(io, error_ == 0 ? vitastor_discard(image_, context_, offset, length, on_io, io) : error_);
    }
    void flush(Done done, void* arg) override {
        Io* io = take(done, arg);
        started(io, error_ == 0 ? vitastor_flush(image_, context_, on_io, io) : error_);
    }
    int fd() const override { return fd_; }
    int timeout_ms() const override { return !refused_.empty() ? 0 : context_ ? vitastor_context_next_timeout(context_) : -1; }
    void run() override {
        if (context_) vitastor_context_run(context_, 0);
        std::vector<Io*> refused;
        refused.swap(refused_);
        for (Io* io : refused) end(io, io->result);
    }

private:
    struct Io {
        ImageThread* thread;
        Done done;
        void* arg;
        int64_t result;
    };
    Io* take(Done done, void* arg) {
        Io* io = idle_.empty() ? new Io : idle_.back();
        if (!idle_.empty()) idle_.pop_back();
        *io = {this, done, arg, 0};
        return io;
    }
    void started(Io* io, int error) {
        if (error == 0) return;
        io->result = error;
        refused_.push_back(io);
    }
    void end(Io* io, int64_t result) {
        const Done done = io->done;
        void* arg = io->arg;
        idle_.push_back(io);
        done(arg, result);
    }
    static void on_io(void* arg, int64_t result, uint64_t) {
        Io* io = static_cast<Io*>(arg);
        io->thread->end(io, result);
    }

    vitastor_image* image_;
    vitastor_context* context_ = nullptr;
    int fd_ = -1;
    int error_ = 0;
    std::vector<Io*> idle_, refused_;
};

}  // namespace

int ImageDisk::open(const ImageDiskOptions& options) {
    std::vector<vitastor_option> config;
    for (const auto& [name, value] : options.config) config.push_back({name.c_str(), value.c_str()});
    vitastor_cluster_options cluster{};
    cluster.struct_size = sizeof cluster;
    cluster.config_path = options.config_path.empty() ? nullptr : options.config_path.c_str();
    cluster.options = config.data();
    cluster.option_count = config.size();
    cluster.fail_fast = 1;
    int error = vitastor_cluster_open(&cluster, &cluster_);
    if (error < 0) {
        if (error == -ENOENT)
            std::fprintf(stderr, "vitastor-vhost: no etcd address is known: give --etcd_address or --config_path, or write /etc/vitastor/vitastor.conf\n");
        return error;
    }
    vitastor_context_options own{};
    own.struct_size = sizeof own;
    own.own_thread = 1;
    if ((error = vitastor_context_open(cluster_, &own, &context_)) < 0) return error;
    vitastor_image_options image{};
    image.struct_size = sizeof image;
    image.image = options.image.empty() ? nullptr : options.image.c_str();
    image.pool = options.pool;
    image.inode = options.inode;
    image.size_bytes = options.size_bytes;
    image.read_only = options.read_only;
    image.any_alignment = 1;
    image.changed_fn = [](void* arg, uint64_t, int) { signal(*static_cast<const Fd*>(arg)); };
    image.changed_arg = &changed_;
    Waiter waiter;
    if ((error = vitastor_image_open(context_, &image, &image_, Waiter::fn, &waiter)) == 0) error = static_cast<int>(waiter.wait());
    serial_ = !options.serial.empty() ? options.serial : !options.image.empty() ? options.image : std::to_string(vitastor_image_inode(image_));
    return error;
}

ImageDisk::~ImageDisk() {
    if (image_) vitastor_image_close(image_);
    if (context_) vitastor_context_close(context_);
    if (cluster_) vitastor_cluster_close(cluster_);
}

std::unique_ptr<DiskThread> ImageDisk::open_thread() { return std::make_unique<ImageThread>(cluster_, image_); }

}  // namespace vitastor::vhost

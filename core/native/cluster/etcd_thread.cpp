// SPDX-License-Identifier: GPL-2.0-or-later
#include "cluster/etcd_thread.hpp"

#include <atomic>

#include "cluster/etcd_gateway.hpp"
#include "runtime/system.hpp"

namespace vitastor::cluster {
namespace {

constexpr size_t kMaxPemBytes = 4 << 20;

EtcdGatewayOptions gateway_options(const ClientConfig& config) {
    EtcdGatewayOptions options;
    options.addresses = config.etcd_addresses;
    options.ranges = load_ranges(config.etcd_prefix);
    options.watches = watch_prefixes(config.etcd_prefix);
    options.max_attempts = config.max_etcd_attempts;
    options.quick_timeout_ms = config.etcd_quick_timeout_ms;
    options.slow_timeout_ms = config.etcd_slow_timeout_ms;
    options.probe_interval_ms = config.etcd_ws_keepalive_interval_s * 1000;
    options.min_reload_interval_ms = config.etcd_min_reload_interval_ms;
    return options;
}

/// Files that are missing are named at once, not as a failed connection later.
Status check_tls_files(const ClientConfig& config) {
    if (config.etcd_cert.empty() != config.etcd_key.empty())
        return Status(-EINVAL, std::string(config.etcd_cert.empty() ? "etcd_key is set, but etcd_cert" : "etcd_cert is set, but etcd_key") +
                                   " is not: a client certificate needs both");
    const std::pair<const char*, const std::string*> files[] = {
        {"etcd_ca", &config.etcd_ca}, {"etcd_cert", &config.etcd_cert}, {"etcd_key", &config.etcd_key}};
    for (auto& [name, path] : files) {
        if (path->empty()) continue;
        auto text = runtime::read_small_file(*path, kMaxPemBytes);
        if (!text.ok()) return Status(-EINVAL, std::string(name) + ": " + text.status().message());
        if (text.value().find("-----BEGIN ") == std::string::npos)
            return Status(-EINVAL, std::string(name) + ": " + *path + " is not a PEM file (no -----BEGIN line)");
    }
    return {};
}

}  // namespace

struct EtcdThread::Impl {
    struct Waker : runtime::Notifier {
        Impl* impl = nullptr;
    };
    Impl(std::unique_ptr<runtime::Loop> loop_in, const ConfigLayers& layers, const ClientConfig& config,
        unsigned give_up_after, Logger& logger)
        : loop(std::move(loop_in)),
          http(*loop, {config.etcd_ca, config.etcd_cert, config.etcd_key}),
          gateway(*loop, http, gateway_options(config), logger),
          hub(*loop, layers, give_up_after, logger) {
        waker.impl = this;
        // It may be delivered between the look at `stopping` and sleep.
        waker.on_notify = [](runtime::Notifier* self) { static_cast<Waker*>(self)->impl->http.stay_awake(); };
        hub.on_config_arg = this;
        hub.on_config = [](void* arg, const ClientConfig& changed) {
            static_cast<Impl*>(arg)->gateway.set_addresses(changed.etcd_addresses);
        };
        loop->register_notifier(waker);
    }
    void run() {
        gateway.start(hub);
        while (!stopping.load(std::memory_order_acquire)) http.run_once(runtime::kNever);
        gateway.stop();
    }

    std::unique_ptr<runtime::Loop> loop;
    HttpClient http;
    EtcdGateway gateway;
    MapHub hub;
    Waker waker;
    std::atomic<bool> stopping{false};
    std::unique_ptr<runtime::Thread> thread;
};

Result<std::unique_ptr<EtcdThread>> EtcdThread::start(const ConfigLayers& layers, bool fail_fast, Logger& logger) {
    ClientConfig config = resolve_config(layers, logger);
    if (config.etcd_addresses.empty())
        return Status(-ENOENT, "no etcd_address: put it into " + std::string(kDefaultConfigPath) +
                                   " ({\"etcd_address\":[\"host:2379\"]}) or give it as an option");
    for (auto& address : config.etcd_addresses) {
        auto base = etcd_base_url(address);
        if (!base.ok()) return base.status();
        log(logger, LogLevel::info, "etcd address %s (from %s)", base.value().c_str(),
            layers.origin("etcd_address").c_str());
    }
    if (Status status = check_tls_files(config); !status.ok()) return status;
    for (auto* layer : {&layers.file, &layers.options})
        for (auto& [name, value] : *layer)
            log(logger, LogLevel::info, "setting %s = %s (from %s)", name.c_str(), value.c_str(),
                layers.origin(name).c_str());
    runtime::LoopOptions options;
    options.kind = runtime::LoopKind::epoll;  // curl waits on its descriptor; no disk here
    options.queue_depth = 16;
    options.buffer_keep_bytes = 0;
    options.disk_threads = 0;
    auto loop = runtime::create_loop(options, logger);
    if (!loop.ok()) return loop.status();
    unsigned give_up_after = fail_fast || !config.client_infinite_start ? config.max_etcd_attempts : 0;
    auto impl = std::make_unique<Impl>(std::move(loop.value()), layers, config, give_up_after, logger);
    impl->thread = runtime::start_thread(
        "vitastor-etcd", [](void* arg) { static_cast<Impl*>(arg)->run(); }, impl.get());
    return std::unique_ptr<EtcdThread>(new EtcdThread(std::move(impl)));
}

EtcdThread::EtcdThread(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

EtcdThread::~EtcdThread() {
    impl_->stopping.store(true, std::memory_order_release);
    impl_->loop->notify(impl_->waker);
    impl_->thread.reset();
    // Only now: the notification above may still be under way when the thread ends.
    impl_->loop->unregister_notifier(impl_->waker);
}

MapHub& EtcdThread::hub() { return impl_->hub; }

}  // namespace vitastor::cluster

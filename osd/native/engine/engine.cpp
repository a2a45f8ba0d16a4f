// SPDX-License-Identifier: GPL-2.0-or-later
// Life of an engine: mailbox, opening, commands, statistics, orderly end. The work itself is in serve/.
#include "engine/engine.hpp"

#include <deque>

#include "engine/mailbox.hpp"
#include "runtime/system.hpp"
#include "serve/osd.hpp"

namespace vitastor::engine {

using runtime::kNsPerSecond;

namespace {

OpCounters counters(const serve::Counters& c) { return {c.count, c.usec, c.bytes}; }

uint64_t seconds_setting(const std::map<std::string, std::string>& settings, const char* name, uint64_t fallback) {
    auto it = settings.find(name);
    if (it == settings.end() || it->second.empty() || it->second.size() > 6) return fallback;
    uint64_t value = 0;
    for (char c : it->second) {
        if (c < '0' || c > '9') return fallback;
        value = value * 10 + static_cast<uint64_t>(c - '0');
    }
    return value ? value : fallback;
}

/// A Completion that a coroutine may wait for: close_all and close of other layers.
struct Done : runtime::Completion {
    Done() {
        on_done = [](runtime::Completion* self, int64_t result) {
            static_cast<Done*>(self)->result = result;
            static_cast<Done*>(self)->signal.set();
        };
    }
    int64_t result = 0;
    serve::Signal signal;
};

class EngineImpl final : public Engine, public Logger, public serve::OsdEvents {
public:
    EngineImpl(runtime::Loop& loop, EventSink& sink, StoreFactory factory, void* factory_arg)
        : loop_(loop),
          sink_(sink),
          factory_(factory),
          factory_arg_(factory_arg),
          mailbox_(loop, [](void* arg) { static_cast<EngineImpl*>(arg)->on_mail(); }, this) {}

    ~EngineImpl() override { VITASTOR_ASSERT(state_ == State::finished || state_ == State::fresh); }

    void post(Command command) override { mailbox_.post(std::move(command)); }
    bool finished() const override { return state_ == State::finished; }
    void plant(uint32_t faults) override { planted_ = faults; }

private:
    enum class State { fresh, opening, running, stopping, finished };
    uint32_t planted_ = 0;

    // ---- Logger
    void write(LogLevel level, const std::string& text) override { sink_.on_event(LogLine{level, text}); }

    // ---- commands
    void on_mail() {
        for (Command& command : mailbox_.take()) {
            if (auto* configure = std::get_if<Configure>(&command); configure && state_ == State::fresh) {
                state_ = State::opening;
                runtime::spawn(open(std::move(*configure)));
            } else if (state_ == State::fresh && std::holds_alternative<Stop>(command)) {
                state_ = State::finished;
                sink_.on_event(Stopped{});
            } else {
                waiting_.push_back(std::move(command));
            }
        }
        run_commands();
    }

    void run_commands() {
        while (state_ == State::running && !waiting_.empty()) {
            Command command = std::move(waiting_.front());
            waiting_.pop_front();
            std::visit([this](auto& what) { execute(what); }, command);
        }
    }

    runtime::Task<> open(Configure configure) {
        settings_ = configure.settings;
        options_ = configure.store;
        cluster_networks_ = configure.cluster_networks;
        Logger& logger = *this;
        store_ = factory_(factory_arg_, loop_, configure.store, logger);
        Done opened;
        store_->open(opened);
        co_await opened.signal;
        if (opened.result < 0) {
            std::string text = store_->error();
            store_.reset();
            fail("store", text);
            co_return;
        }
        tune_store();
        if (flag_setting("osd_memlock")) {
            Status locked = runtime::lock_memory();
            if (!locked.ok()) write(LogLevel::warning, "osd_memlock: " + locked.message());
        }
        options_.readonly = store_->options().readonly;  // a bit in the superblock may say so
        osd_ = std::make_unique<serve::Osd>(loop_, *store_, options_.osd_num, logger, *this);
        osd_->plant(planted_);
        Result<net::PeerOptions> peer_options = make_peer_options();
        std::string error = peer_options.ok() ? "" : peer_options.status().message();
        if (peer_options.ok()) {
            peers_ = std::make_unique<net::Peers>(loop_, peer_options.value(), *osd_, logger);
            net::ServerOptions server_options = make_server_options(configure);
            server_ = std::make_unique<net::Server>(loop_, server_options, *osd_, logger);
            osd_->attach(*peers_, *server_);
            Status started = server_->start();
            if (!started.ok()) error = started.message();
        }
        if (!error.empty()) {
            runtime::Task<> closing = close_everything();
            co_await closing;
            fail("listen", error);
            co_return;
        }
        osd_->set_settings(serve::Settings::parse(settings_));
        state_ = State::running;
        sink_.on_event(Ready{server_->port(), server_->addresses(), store_->stats(), loop_.name()});
        run_commands();
    }

    void fail(const char* name, const std::string& text) {
        state_ = State::finished;
        sink_.on_event(Fatal{name, text});
    }

    bool flag_setting(const char* name) const {
        auto it = settings_.find(name);
        return it != settings_.end() && (it->second == "1" || it->second == "true" || it->second == "yes");
    }

    /// What the store lets change while it is open. configuration.md 6.
    void tune_store() {
        const auto number = [this](const char* name, uint32_t fallback) {
            const uint64_t value = seconds_setting(settings_, name, fallback);
            return value ? static_cast<uint32_t>(value) : fallback;
        };
        store::ThrottleOptions throttle;
        throttle.enabled = flag_setting("throttle_small_writes");
        throttle.target_iops = number("throttle_target_iops", throttle.target_iops);
        throttle.target_mbs = number("throttle_target_mbs", throttle.target_mbs);
        throttle.target_parallelism = number("throttle_target_parallelism", throttle.target_parallelism);
        throttle.threshold_us = number("throttle_threshold_us", throttle.threshold_us);
        if (throttle != throttle_) store_->set_throttle(throttle);
        throttle_ = throttle;
        store_->set_write_depth(number("max_write_iodepth", options_.max_write_iodepth));
    }

    Result<net::PeerOptions> make_peer_options() {
        net::PeerOptions options;
        options.own_osd = options_.osd_num;
        options.block_size = options_.block_size;
        options.bitmap_granularity = options_.bitmap_granularity;
        options.immediate_commit = options_.immediate_commit;
        for (const std::string& text : cluster_networks_) {
            Result<net::Cidr> cidr = net::Cidr::parse(text);
            if (!cidr.ok()) return Status(-EINVAL, "osd_cluster_network: " + cidr.status().message());
            options.networks.push_back(cidr.value());
        }
        options.connect_interval_ns = seconds_setting(settings_, "peer_connect_interval", 5) * kNsPerSecond;
        options.connect_timeout_ns = seconds_setting(settings_, "peer_connect_timeout", 5) * kNsPerSecond;
        options.idle_ns = seconds_setting(settings_, "osd_idle_timeout", 5) * kNsPerSecond;
        options.ping_timeout_ns = seconds_setting(settings_, "osd_ping_timeout", 5) * kNsPerSecond;
        return options;
    }

    net::ServerOptions make_server_options(const Configure& configure) {
        net::ServerOptions options;
        options.listen = configure.listen;
        options.config.osd_num = options_.osd_num;
        options.config.protocol_version = 1;
        options.config.block_size = options_.block_size;
        options.config.bitmap_granularity = options_.bitmap_granularity;
        options.config.immediate_commit = options_.immediate_commit;
        options.config.pg_locks = true;
        options.config.tombstones = serve::Settings::parse(settings_).tombstones;
        options.config.late_stabilize = true;
        options.config.write_base = true;
        options.config.ec_local_reads = true;
        options.config.write_settles = true;
        options.config.readonly = options_.readonly;
        options.config.lease_timeout = configure.lease_timeout_s;
        options.idle_ns = seconds_setting(settings_, "osd_idle_timeout", 5) * kNsPerSecond;
        options.ping_timeout_ns = seconds_setting(settings_, "osd_ping_timeout", 5) * kNsPerSecond;
        options.connection.accept_requests = true;
        options.connection.max_request_bytes = options.connection.max_reply_bytes_queued = kConnectionBytes;
        options.connection.max_buffer_bytes = kBufferBytes;
        return options;
    }

    void execute(Configure&) { write(LogLevel::error, "a second configure command is ignored"); }

    void execute(Settings& command) {
        for (auto& [name, value] : command.settings) settings_[name] = value;
        osd_->set_settings(serve::Settings::parse(settings_));
        tune_store();
        Result<net::PeerOptions> options = make_peer_options();
        if (options.ok()) peers_->set_options(options.value());
    }

    void execute(PeerList& command) { osd_->set_peers(command.up); }

    void execute(Pools& command) {
        std::vector<serve::PoolInfo> pools;
        for (const PoolConfig& from : command.pools) {
            serve::PoolInfo to;
            to.id = from.pool;
            to.scheme = {static_cast<pg::SchemeKind>(from.scheme > 2 ? 2 : from.scheme), from.pg_size, from.pg_minsize,
                         from.parity_chunks};
            to.pg_count = from.pg_count;
            to.pg_stripe_size = from.pg_stripe_size;
            to.block_size = from.block_size;
            to.bitmap_granularity = from.bitmap_granularity;
            to.immediate_commit = static_cast<wire::ImmediateCommit>(from.immediate_commit > 2 ? 0 : from.immediate_commit);
            to.local_reads = from.local_reads != 0;
            to.backfillfull = from.backfillfull;
            to.used_for_app = from.used_for_app;
            pools.push_back(to);
        }
        osd_->set_pools(pools);
    }

    void execute(Inodes& command) {
        std::unordered_map<InodeNum, serve::Inode> inodes;
        inodes.reserve(command.inodes.size());
        for (const InodeConfig& inode : command.inodes) inodes[inode.inode] = {inode.parent, inode.mod_revision};
        osd_->set_inodes(std::move(inodes));
    }

    void execute(StartPg& command) {
        serve::Pg::Start start;
        start.interval = command.interval;
        start.epoch = command.epoch;
        start.membership = {std::move(command.osd_set), std::move(command.all_peers), std::move(command.history_sets)};
        osd_->start_pg(command.pg, std::move(start));
    }

    void execute(StopPg& command) { osd_->stop_pg(command.pg, command.interval); }
    void execute(ConfirmHistory& command) { osd_->confirm_history(command.pg, command.interval, command.epoch); }
    void execute(ScrubPg& command) { osd_->scrub_pg(command.pg, command.interval); }
    void execute(LeaseUntil& command) { osd_->set_lease(command.deadline_ns); }

    void execute(ReportStatistics&) {
        serve::Report report = osd_->report();
        Statistics event;
        event.store = store_->stats();
        for (const store::InodeSpace& space : store_->space_by_inode()) event.space.push_back(space);
        for (uint64_t op = 1; op <= wire::kMaxOpcode; op++) {
            const char* name = wire::opcode_stat_name(static_cast<wire::Opcode>(op));
            if (std::string(name) == "unknown") continue;
            event.op_stats[name] = counters(report.ops[op]);
            if (report.subops[op].count) event.subop_stats[name] = counters(report.subops[op]);
        }
        event.recovery_degraded = counters(report.recovery_degraded);
        event.recovery_misplaced = counters(report.recovery_misplaced);
        for (serve::PgReport& pg : report.pgs) {
            event.pgs.push_back({pg.id, pg.counts.objects, pg.counts.clean(), pg.counts.misplaced, pg.counts.degraded,
                                 pg.counts.incomplete, pg.counts.corrupted, std::move(pg.write_osd_set)});
        }
        for (auto& [inode, stats] : report.inodes) {
            event.inodes.push_back({inode, counters(stats.read), counters(stats.write), counters(stats.del)});
        }
        event.slow_ops_primary = report.slow_primary;
        event.slow_ops_secondary = report.slow_secondary;
        event.memory_by = std::move(report.memory_by);
        event.memory_by["store"] = event.store.memory_bytes;
        uint64_t named = 0;  // of the buffers, by the connections
        for (const char* part : {"receive_buffers", "requests", "replies"}) named += event.memory_by[part];
        uint64_t used = loop_.buffers().used_bytes();
        event.memory_by["buffers_other"] = used > named ? used - named : 0;
        event.memory_by["buffers_free"] = loop_.buffers().free_bytes();
        for (auto& [part, bytes] : event.memory_by) event.memory_bytes += bytes;
        sink_.on_event(std::move(event));
    }

    void execute(Stop&) {
        state_ = State::stopping;
        waiting_.clear();
        osd_->stop_all();
    }

    // ---- OsdEvents
    void on_pg_state(const serve::Pg& pg, uint32_t state, const std::vector<OsdNum>& peers) override {
        sink_.on_event(PgStateChanged{pg.id, pg.interval, state, peers, pg.activation.dead, pg.reason});
    }
    void on_history_wanted(const serve::Pg& pg, uint64_t epoch, bool add_current_set,
                           const std::vector<OsdNum>& current_set,
                           const std::vector<std::vector<OsdNum>>& more_sets) override {
        sink_.on_event(HistoryWanted{pg.id, pg.interval, epoch, add_current_set, current_set, more_sets});
    }
    void on_pg_scrubbed(const serve::Pg& pg) override { sink_.on_event(PgScrubbed{pg.id, pg.interval}); }
    void on_peer_lost(OsdNum osd, const std::string& reason) override { sink_.on_event(PeerLost{osd, reason}); }
    void on_lease_expired() override { sink_.on_event(LeaseExpired{}); }
    void on_all_stopped() override {
        if (state_ == State::stopping) runtime::spawn(stop());
    }

    runtime::Task<> close_everything() {
        osd_->shut_down();
        if (server_) {
            Done closed;
            server_->close_all(closed);
            co_await closed.signal;
        }
        if (peers_) {
            Done closed;
            peers_->close_all(closed);
            co_await closed.signal;
        }
        while (osd_->busy() > 0) {
            serve::Pause pause(loop_, runtime::kNsPerMs);
            co_await pause;
        }
        Done closed;
        store_->close(closed);
        co_await closed.signal;
        {
            // Objects go away in a turn of their own: no completion of theirs is on the stack.
            serve::Yield yield(loop_);
            co_await yield;
        }
        server_.reset();
        peers_.reset();
        osd_.reset();
        store_.reset();
    }

    runtime::Task<> stop() {
        {
            serve::Yield yield(loop_);
            co_await yield;
        }
        runtime::Task<> closing = close_everything();
        co_await closing;
        state_ = State::finished;
        sink_.on_event(Stopped{});
    }

    runtime::Loop& loop_;
    EventSink& sink_;
    StoreFactory factory_;
    void* factory_arg_;
    State state_ = State::fresh;
    std::map<std::string, std::string> settings_;
    store::ThrottleOptions throttle_;
    store::StoreOptions options_;
    std::vector<std::string> cluster_networks_;
    std::deque<Command> waiting_;
    std::unique_ptr<store::Store> store_;
    std::unique_ptr<serve::Osd> osd_;
    std::unique_ptr<net::Peers> peers_;
    std::unique_ptr<net::Server> server_;
    Mailbox mailbox_;
};

}  // namespace

std::unique_ptr<Engine> create_engine(runtime::Loop& loop, EventSink& sink, StoreFactory factory, void* arg) {
    return std::make_unique<EngineImpl>(loop, sink, factory, arg);
}

}  // namespace vitastor::engine

// SPDX-License-Identifier: GPL-2.0-or-later
#include "cluster/etcd_gateway.hpp"

#include <algorithm>

#include "cluster/etcd_messages.hpp"

namespace vitastor::cluster {
namespace {

using runtime::kNsPerMs;

constexpr uint64_t kFirstPauseMs = 100;  ///< after all addresses have failed once; doubles up to the quick timeout
constexpr size_t kMaxWatchLine = 1u << 30;

std::string host_of(const std::string& url) {
    size_t start = url.find("://") + 3;
    if (url[start] == '[') return url.substr(start + 1, url.find(']') - start - 1);
    return url.substr(start, url.find_first_of(":/", start) - start);
}

}  // namespace

Result<std::string> etcd_base_url(const std::string& address) {
    auto refuse = [&](const char* why) {
        return Status(-EINVAL, "etcd_address \"" + address + "\": " + why +
                                   "; give it as [http://]host:port[/path], IPv6 in brackets");
    };
    std::string scheme = "http", rest = address;
    if (size_t colon = rest.find("://"); colon != std::string::npos) {
        scheme = rest.substr(0, colon);
        rest = rest.substr(colon + 3);
    }
    if (scheme != "http" && scheme != "https") return refuse("only http and https are possible");
    size_t slash = rest.find('/');
    std::string host_port = rest.substr(0, slash);
    std::string path = slash == std::string::npos ? "" : rest.substr(slash);
    while (path.ends_with('/')) path.pop_back();
    if (path.empty()) path = "/v3";
    for (char c : rest)
        if (c <= ' ' || c == '"' || c == '@' || c == '?' || c == '#' || c == 127) return refuse("a character is not allowed");
    size_t port_colon;
    if (host_port.starts_with('[')) {
        size_t bracket = host_port.find(']');
        if (bracket == std::string::npos || bracket < 3) return refuse("the bracket is not closed");
        port_colon = bracket + 1;
    } else {
        port_colon = host_port.find(':');
        if (port_colon != std::string::npos && host_port.find(':', port_colon + 1) != std::string::npos)
            return refuse("IPv6 needs brackets");
    }
    if (host_port.empty() || port_colon == 0) return refuse("the host is missing");
    if (port_colon == std::string::npos || port_colon >= host_port.size()) return refuse("the port is missing");
    auto port_text = host_port.substr(port_colon + 1);
    unsigned port = 0;
    for (char c : port_text) port = c >= '0' && c <= '9' && port < 100000 ? port * 10 + static_cast<unsigned>(c - '0') : 100000;
    if (host_port[port_colon] != ':' || port_text.empty() || port < 1 || port > 65535) return refuse("the port is not a number 1 to 65535");
    return scheme + "://" + host_port + path;
}

struct EtcdGateway::Impl {
    struct LoadAttempt : HttpExchange {
        Impl* impl = nullptr;
        std::string base;
    };
    struct Stream : HttpExchange {
        Impl* impl = nullptr;
        std::string base;
        std::string buffer;
        std::vector<bool> created;
        bool confirmed = false;
        bool ended = false;
        std::string reason;  ///< why it ended
    };
    struct Later : runtime::Deferred {
        Impl* impl = nullptr;
    };
    struct ImplTimer : runtime::Timer {
        Impl* impl = nullptr;
    };
    struct Probe : HttpExchange {
        Impl* impl = nullptr;
    };

    Impl(runtime::Loop& loop_in, HttpClient& http_in, EtcdGatewayOptions options_in, Logger& logger_in)
        : loop(loop_in), http(http_in), options(std::move(options_in)), logger(logger_in) {
        for (ImplTimer* timer : {&hedge_timer, &pause_timer, &probe_timer}) timer->impl = this;
        hedge_timer.on_fire = [](runtime::Timer* t) { static_cast<ImplTimer*>(t)->impl->hedge(); };
        pause_timer.on_fire = [](runtime::Timer* t) { static_cast<ImplTimer*>(t)->impl->begin_round(); };
        probe_timer.on_fire = [](runtime::Timer* t) { static_cast<ImplTimer*>(t)->impl->start_probe(); };
        process.impl = this;
        process.on_run = [](runtime::Deferred* d) { static_cast<Later*>(d)->impl->process_streams(); };
        probe.impl = this;
        probe.on_done = [](HttpExchange* self, int status, const std::string& error) {
            static_cast<Probe*>(self)->impl->probe_done(status, error);
        };
        seen.resize(options.watches.size());
    }

    runtime::Loop& loop;
    HttpClient& http;
    EtcdGatewayOptions options;
    Logger& logger;
    EtcdListener* listener = nullptr;
    bool running = false;

    std::vector<std::string> addresses;  ///< usable base URLs
    std::string selected;                ///< the one that answered last; tried first
    std::string avoid;                   ///< the one that failed last; tried last

    // One round: every address once, the next one joining a silent one after the quick timeout.
    bool need_load = true;
    bool loaded_once = false;
    unsigned failed_rounds = 0;
    std::vector<std::string> order;
    size_t next = 0;
    std::string reasons;
    uint64_t last_load_ns = 0;
    ImplTimer hedge_timer, pause_timer, probe_timer;
    std::vector<std::unique_ptr<LoadAttempt>> loads;

    std::vector<uint64_t> seen;  ///< per watch: everything up to this revision has been delivered
    std::vector<std::unique_ptr<Stream>> streams;
    Stream* current = nullptr;   ///< the confirmed one
    Later process;
    Probe probe;

    void set_addresses(const std::vector<std::string>& list) {
        addresses.clear();
        for (auto& text : list) {
            auto base = etcd_base_url(text);
            if (base.ok()) addresses.push_back(base.value());
            else log(logger, LogLevel::error, "%s", base.status().message().c_str());
        }
    }

    // ---- rounds

    void begin_round() {
        cancel_attempts();
        order.clear();
        next = 0;
        reasons.clear();
        auto mine = loop.local_addresses();
        auto is_local = [&](const std::string& url) {
            std::string host = host_of(url);
            return host == "localhost" || host == "::1" || host.starts_with("127.") ||
                   std::find(mine.begin(), mine.end(), host) != mine.end();
        };
        std::vector<std::string> local, remote;
        for (auto& url : addresses) (is_local(url) ? local : remote).push_back(url);
        for (auto* group : {&local, &remote}) {
            for (size_t i = group->size(); i > 1; i--) std::swap((*group)[i - 1], (*group)[loop.random_u64() % i]);
            order.insert(order.end(), group->begin(), group->end());
        }
        auto best = std::find(order.begin(), order.end(), selected);
        if (best != order.end()) std::rotate(order.begin(), best, best + 1);
        // The one that failed just now comes last.
        auto bad = std::find(order.begin(), order.end(), avoid);
        if (bad != order.end()) std::rotate(bad, bad + 1, order.end());
        avoid.clear();
        launch_next();
    }

    /// Starts the next address of the round; false if none is left.
    bool launch_next() {
        if (next >= order.size()) return false;
        const std::string& base = order[next++];
        if (need_load) start_load(base);
        else start_stream(base);
        // When all have been started, the last timer ends a round of silent streams; loads have their own timeouts.
        uint64_t wait_ms = next < order.size() ? options.quick_timeout_ms : options.slow_timeout_ms;
        loop.arm(hedge_timer, loop.now_exact_ns() + wait_ms * kNsPerMs);
        return true;
    }

    void hedge() {
        if (launch_next()) return;
        if (need_load) return;  // their own timeouts
        for (auto& stream : streams) note(stream->base, "no answer to the watch request");
        round_failed();
    }

    void note(const std::string& base, const std::string& why) {
        if (!reasons.empty()) reasons += "; ";
        reasons += base + ": " + why;
    }

    void attempt_failed(const std::string& base, const std::string& why) {
        note(base, why);
        if (launch_next()) return;
        if (loads.empty() && streams.empty()) round_failed();
    }

    void round_failed() {
        cancel_attempts();
        failed_rounds++;
        VITASTOR_PROBE("etcd round failed");
        selected.clear();
        bool loud = failed_rounds == 1 || failed_rounds % options.max_attempts == 0;
        log(logger, loud ? LogLevel::warning : LogLevel::debug, "etcd: no address of %zu answers (attempt %u): %s",
            addresses.size(), failed_rounds, reasons.c_str());
        uint64_t pause = std::min(options.quick_timeout_ms, kFirstPauseMs << std::min(failed_rounds - 1, 16u));
        loop.arm(pause_timer, loop.now_exact_ns() + pause * kNsPerMs);
        if (!loaded_once) listener->on_trouble(failed_rounds, reasons);
    }

    void cancel_attempts() {
        loop.disarm(hedge_timer);
        loop.disarm(pause_timer);
        loop.disarm(probe_timer);
        for (auto& load : loads) http.cancel(*load);
        loads.clear();
        for (auto& stream : streams) http.cancel(*stream);
        streams.clear();
        current = nullptr;
        http.cancel(probe);
        if (process.linked()) process.unlink();
    }

    // ---- full load

    void reload(const char* why) {
        log(logger, LogLevel::info, "etcd: loading everything anew: %s", why);
        VITASTOR_PROBE("etcd full reload");
        cancel_attempts();
        need_load = true;
        uint64_t earliest = last_load_ns + options.min_reload_interval_ms * kNsPerMs;
        if (loop.now_exact_ns() < earliest) loop.arm(pause_timer, earliest);
        else begin_round();
    }

    void start_load(const std::string& base) {
        auto load = std::make_unique<LoadAttempt>();
        load->impl = this;
        load->base = base;
        load->url = base + "/kv/txn";
        load->body = encode_load(options.ranges);
        load->timeout_ms = std::max(options.slow_timeout_ms, options.quick_timeout_ms);
        load->on_done = [](HttpExchange* self, int status, const std::string& error) {
            auto* attempt = static_cast<LoadAttempt*>(self);
            attempt->impl->load_done(attempt, status, error);
        };
        loads.push_back(std::move(load));
        http.start(*loads.back());
    }

    void load_done(LoadAttempt* attempt, int status, const std::string& error) {
        std::string base = attempt->base, text = std::move(attempt->response);
        std::erase_if(loads, [&](auto& load) { return load.get() == attempt; });
        if (status == 0) return attempt_failed(base, error);
        auto reply = decode_load(text);
        if (!reply.ok()) return attempt_failed(base, "HTTP " + std::to_string(status) + ", " + reply.status().message());
        cancel_attempts();
        need_load = false;
        loaded_once = true;
        failed_rounds = 0;
        selected = base;
        last_load_ns = loop.now_exact_ns();
        uint64_t revision = reply.value().revision;
        for (auto& s : seen) s = revision;
        log(logger, LogLevel::debug, "etcd: %zu keys at revision %llu from %s", reply.value().pairs.size(),
            static_cast<unsigned long long>(revision), base.c_str());
        listener->on_load(std::move(reply.value().pairs), revision);
        if (running) begin_round();
    }

    // ---- watches

    void start_stream(const std::string& base) {
        auto stream = std::make_unique<Stream>();
        stream->impl = this;
        stream->base = base;
        stream->created.resize(options.watches.size());
        stream->url = base + "/watch";
        std::vector<uint64_t> from;
        for (uint64_t revision : seen) from.push_back(revision + 1);
        stream->body = encode_watches(options.watches, from);
        stream->connect_timeout_ms = options.slow_timeout_ms;
        stream->on_data = [](HttpExchange* self, std::string_view piece) {
            // Inside curl: nothing may be cancelled here.
            auto* me = static_cast<Stream*>(self);
            if (me->buffer.size() + piece.size() > kMaxWatchLine) return false;
            me->buffer.append(piece);
            if (!me->impl->process.linked()) me->impl->loop.defer(me->impl->process);
            return true;
        };
        stream->on_done = [](HttpExchange* self, int status, const std::string& error) {
            auto* me = static_cast<Stream*>(self);
            me->ended = true;
            me->reason = status ? "the watch ended with HTTP " + std::to_string(status) : error;
            if (!me->impl->process.linked()) me->impl->loop.defer(me->impl->process);
        };
        streams.push_back(std::move(stream));
        http.start(*streams.back());
    }

    void process_streams() {
        for (size_t i = 0; i < streams.size(); i++) {
            // Handling a message may end all streams.
            Stream* stream = streams[i].get();
            if (!process_lines(*stream)) return;
            if (!stream->ended) continue;
            bool was_current = stream == current;
            std::string base = stream->base, reason = stream->reason;
            std::erase_if(streams, [&](auto& other) { return other.get() == stream; });
            if (was_current) return lose_stream(base, reason);
            attempt_failed(base, reason);
            if (streams.empty()) return;
            i = static_cast<size_t>(-1);
        }
    }

    /// Whole lines of the buffer. false: the set of streams has changed, stop.
    bool process_lines(Stream& stream) {
        size_t start = 0;
        while (true) {
            size_t end = stream.buffer.find('\n', start);
            if (end == std::string::npos) break;
            std::string line = stream.buffer.substr(start, end - start);
            start = end + 1;
            if (line.empty()) continue;
            auto message = decode_watch(line);
            if (!message.ok()) {
                fail_stream(stream, message.status().message());
                break;
            }
            if (!handle(stream, message.value())) return false;
            if (stream.ended) break;
        }
        stream.buffer.erase(0, start);
        return true;
    }

    void fail_stream(Stream& stream, const std::string& reason) {
        http.cancel(stream);
        stream.ended = true;
        stream.reason = reason;
    }

    bool handle(Stream& stream, WatchMessage& message) {
        if (message.canceled) {
            reload(message.compact_revision ? "the history was compacted" : "etcd cancelled the watch");
            return false;
        }
        if (!message.error.empty()) {
            fail_stream(stream, message.error);
            return true;
        }
        uint64_t newest = *std::max_element(seen.begin(), seen.end());
        if (message.created) {
            if (message.has_revision && message.revision < newest) {
                reload("etcd knows less than it did (restored or emptied)");
                return false;
            }
            if (message.watch_id - 1 < stream.created.size()) stream.created[message.watch_id - 1] = true;
            bool all = std::find(stream.created.begin(), stream.created.end(), false) == stream.created.end();
            if (all && !stream.confirmed) confirm(stream);
        }
        size_t first = 0, last = seen.size();
        if (message.watch_id - 1 < seen.size()) {
            first = message.watch_id - 1;
            last = first + 1;
        }
        if (message.events.empty()) {
            // Progress is only reported when nothing is pending, so the revision is complete.
            if (!message.created && message.has_revision)
                for (size_t i = first; i < last; i++) seen[i] = std::max(seen[i], message.revision);
            return true;
        }
        if (last - first != 1) {
            fail_stream(stream, "events without a watch number");
            return true;
        }
        // Another stream may have brought them already; a revision is never split between messages.
        uint64_t known = seen[first];
        std::erase_if(message.events, [&](auto& event) { return event.mod_revision <= known; });
        for (auto& event : message.events) seen[first] = std::max(seen[first], event.mod_revision);
        if (!message.events.empty()) listener->on_events(std::move(message.events), seen[first]);
        return running;
    }

    void confirm(Stream& stream) {
        stream.confirmed = true;
        failed_rounds = 0;
        selected = stream.base;
        loop.disarm(hedge_timer);
        for (auto& other : streams)
            if (other.get() != &stream) http.cancel(*other);
        auto keep = std::find_if(streams.begin(), streams.end(), [&](auto& s) { return s.get() == &stream; });
        std::swap(*keep, streams.front());
        streams.resize(1);
        current = &stream;
        log(logger, LogLevel::debug, "etcd: watching through %s", stream.base.c_str());
        arm_probe();
    }

    void lose_stream(const std::string& base, const std::string& reason) {
        log(logger, LogLevel::warning, "etcd: the watch through %s is lost (%s), watching through the next address",
            base.c_str(), reason.c_str());
        VITASTOR_PROBE("etcd watch lost");
        cancel_attempts();
        selected.clear();
        avoid = base;
        begin_round();
    }

    // ---- probe

    void arm_probe() { loop.arm(probe_timer, loop.now_exact_ns() + options.probe_interval_ms * kNsPerMs); }

    void start_probe() {
        if (!current || probe.active()) return;
        probe.url = current->base + "/kv/range";
        probe.body = encode_probe(options.ranges.front());
        probe.timeout_ms = std::max(options.probe_interval_ms, options.quick_timeout_ms);
        http.start(probe);
    }

    void probe_done(int status, const std::string& error) {
        if (!current) return;
        std::string why = error;
        if (status) {
            auto revision = decode_probe(probe.response);
            if (revision.ok()) {
                if (revision.value() < *std::max_element(seen.begin(), seen.end()))
                    return reload("etcd knows less than it did (restored or emptied)");
                return arm_probe();
            }
            why = "HTTP " + std::to_string(status) + ", " + revision.status().message();
        }
        std::string base = current->base;
        lose_stream(base, "probe: " + why);
    }
};

EtcdGateway::EtcdGateway(runtime::Loop& loop, HttpClient& http, EtcdGatewayOptions options, Logger& logger)
    : impl_(std::make_unique<Impl>(loop, http, std::move(options), logger)) {
    impl_->set_addresses(impl_->options.addresses);
}

EtcdGateway::~EtcdGateway() { stop(); }

void EtcdGateway::start(EtcdListener& listener) {
    VITASTOR_ASSERT(!impl_->running);
    impl_->listener = &listener;
    impl_->running = true;
    impl_->need_load = true;
    impl_->begin_round();
}

void EtcdGateway::stop() {
    if (!impl_->running) return;
    impl_->running = false;
    impl_->cancel_attempts();
}

void EtcdGateway::set_addresses(const std::vector<std::string>& addresses) {
    if (!addresses.empty()) impl_->set_addresses(addresses);
}

}  // namespace vitastor::cluster

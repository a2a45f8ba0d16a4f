// SPDX-License-Identifier: GPL-2.0-or-later
// HTTP POSTs over libcurl's multi interface, driven on one thread together with a Loop that brings time, timers and mailboxes.
// The sockets are curl's own: with the Loop they are this layer's part of the runtime's door (see README).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/list.hpp"
#include "runtime/loop.hpp"

namespace vitastor::cluster {

class HttpClient;

/// What https connections prove themselves with: paths of PEM files, read anew for each connection. Empty: the system's
/// authorities, no certificate of our own.
struct TlsFiles {
    std::string ca;    ///< setting etcd_ca
    std::string cert;  ///< setting etcd_cert
    std::string key;   ///< setting etcd_key
};

/// One POST. Embedded in the caller's object; in flight from HttpClient::start until on_done runs or cancel() returns.
struct HttpExchange : ListNode {
    // ---- set by the caller
    std::string url;
    std::string body;
    uint64_t timeout_ms = 0;          ///< for the whole exchange; 0 = none (streams)
    uint64_t connect_timeout_ms = 0;  ///< 0 = timeout_ms
    size_t max_response = 1u << 30;   ///< more is an error
    /// Streams: called with each piece; false ends the exchange with an error. nullptr: pieces are gathered in `response`.
    bool (*on_data)(HttpExchange* self, std::string_view piece) = nullptr;
    /// status: HTTP status, 0 = no answer, then error says why. Runs from HttpClient::run_once, exactly once unless cancelled.
    void (*on_done)(HttpExchange* self, int status, const std::string& error) = nullptr;

    // ---- results
    std::string response;

    // ---- private to HttpClient
    void* easy = nullptr;
    char detail[256] = {};  ///< curl's words on a failure (CURL_ERROR_SIZE)
    HttpClient* client = nullptr;
    bool active() const { return easy != nullptr; }
};

class HttpClient {
public:
    explicit HttpClient(runtime::Loop& loop, TlsFiles tls = {});
    /// Everything in flight must have been cancelled.
    ~HttpClient();
    HttpClient(const HttpClient&) = delete;
    HttpClient& operator=(const HttpClient&) = delete;

    void start(HttpExchange& exchange);
    /// on_done does not run. No effect when not in flight.
    void cancel(HttpExchange& exchange);
    /// Runs what is ready of curl and of the loop; if nothing is, sleeps until something is or until_ns (loop time; 0 = do not sleep).
    void run_once(uint64_t until_ns);
    /// From inside run_once(): it returns without sleeping, because its caller has something to look at.
    void stay_awake() { stays_awake_ = true; }

private:
    void finish_ready();
    void* take_easy();
    void give_back(void* easy);

    runtime::Loop& loop_;
    void* multi_ = nullptr;
    void* headers_ = nullptr;
    TlsFiles tls_;
    bool stays_awake_ = false;
    static constexpr int kKeepEasy = 4;
    void* idle_[kKeepEasy] = {};
    List<HttpExchange> active_;
};

}  // namespace vitastor::cluster

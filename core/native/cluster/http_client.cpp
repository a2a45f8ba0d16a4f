// SPDX-License-Identifier: GPL-2.0-or-later
#include "cluster/http_client.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <cstring>

namespace vitastor::cluster {
namespace {

constexpr long kMaxPollMs = 60'000;
static_assert(sizeof(HttpExchange::detail) >= CURL_ERROR_SIZE);

size_t receive_piece(char* data, size_t size, size_t count, void* arg) {
    auto* exchange = static_cast<HttpExchange*>(arg);
    size_t bytes = size * count;
    std::string_view piece(data, bytes);
    if (exchange->on_data) return exchange->on_data(exchange, piece) ? bytes : 0;
    if (exchange->response.size() + bytes > exchange->max_response) return 0;
    exchange->response.append(piece);
    return bytes;
}

/// What went wrong and, where a setting of ours is the likely reason, which one.
std::string explain(CURLcode code, const char* detail) {
    std::string text = curl_easy_strerror(code);
    if (*detail && text != detail) text += std::string(" (") + detail + ")";
    switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
        return text + ": check etcd_ca, and the names in etcd's certificate";
    case CURLE_SSL_CACERT_BADFILE: return text + ": check the file of etcd_ca";
    case CURLE_SSL_CERTPROBLEM: return text + ": check the files of etcd_cert and etcd_key";
    default: break;
    }
    if (std::strstr(detail, "alert"))
        text += ": etcd refuses our certificate: etcd_cert and etcd_key must be given and be of an authority that etcd trusts";
    else if (std::strstr(detail, "wrong version number"))
        text += ": is this address http, not https?";
    return text;
}

}  // namespace

HttpClient::HttpClient(runtime::Loop& loop, TlsFiles tls) : loop_(loop), tls_(std::move(tls)) {
    // Idempotent and thread-safe since 7.84; never undone: other users of curl may live in this process.
    curl_global_init(CURL_GLOBAL_DEFAULT);
    CURLM* multi = curl_multi_init();
    VITASTOR_ASSERT(multi);
    multi_ = multi;
    curl_slist* headers = curl_slist_append(nullptr, "Content-Type: application/json");
    headers_ = curl_slist_append(headers, "Expect:");
}

HttpClient::~HttpClient() {
    VITASTOR_ASSERT(active_.empty());
    for (void*& easy : idle_)
        if (easy) curl_easy_cleanup(easy);
    curl_multi_cleanup(static_cast<CURLM*>(multi_));
    curl_slist_free_all(static_cast<curl_slist*>(headers_));
}

void* HttpClient::take_easy() {
    for (void*& easy : idle_)
        if (easy) return std::exchange(easy, nullptr);
    return curl_easy_init();
}

void HttpClient::give_back(void* easy) {
    curl_easy_reset(easy);
    for (void*& slot : idle_) {
        if (slot) continue;
        slot = easy;
        return;
    }
    curl_easy_cleanup(easy);
}

void HttpClient::start(HttpExchange& exchange) {
    VITASTOR_ASSERT(!exchange.active());
    CURL* easy = take_easy();
    VITASTOR_ASSERT(easy);
    exchange.easy = easy;
    exchange.client = this;
    exchange.response.clear();
    uint64_t connect_ms = exchange.connect_timeout_ms ? exchange.connect_timeout_ms : exchange.timeout_ms;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, &exchange);
    curl_easy_setopt(easy, CURLOPT_URL, exchange.url.c_str());
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(exchange.body.size()));
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, exchange.body.data());
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, static_cast<curl_slist*>(headers_));
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, receive_piece);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &exchange);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);  // we are a guest in somebody's process
    curl_easy_setopt(easy, CURLOPT_PROXY, "");     // etcd is never behind the user's http_proxy
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    exchange.detail[0] = 0;
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, exchange.detail);
    if (!tls_.ca.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, tls_.ca.c_str());
    if (!tls_.cert.empty()) curl_easy_setopt(easy, CURLOPT_SSLCERT, tls_.cert.c_str());
    if (!tls_.key.empty()) curl_easy_setopt(easy, CURLOPT_SSLKEY, tls_.key.c_str());
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 10L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 5L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(exchange.timeout_ms));
    if (connect_ms) curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(connect_ms));
    active_.push_back(&exchange);
    CURLMcode code = curl_multi_add_handle(static_cast<CURLM*>(multi_), easy);
    VITASTOR_ASSERT(code == CURLM_OK);
}

void HttpClient::cancel(HttpExchange& exchange) {
    if (!exchange.active()) return;
    curl_multi_remove_handle(static_cast<CURLM*>(multi_), exchange.easy);
    give_back(std::exchange(exchange.easy, nullptr));
    exchange.unlink();
}

void HttpClient::finish_ready() {
    int left = 0;
    while (CURLMsg* message = curl_multi_info_read(static_cast<CURLM*>(multi_), &left)) {
        if (message->msg != CURLMSG_DONE) continue;
        CURL* easy = message->easy_handle;
        CURLcode code = message->data.result;
        char* context = nullptr;
        long status = 0;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, &context);
        auto* exchange = reinterpret_cast<HttpExchange*>(context);
        if (code == CURLE_OK) curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        std::string error = code == CURLE_OK ? std::string() : explain(code, exchange->detail);
        cancel(*exchange);
        exchange->on_done(exchange, static_cast<int>(status), error);
    }
}

void HttpClient::run_once(uint64_t until_ns) {
    auto* multi = static_cast<CURLM*>(multi_);
    int running = 0;
    stays_awake_ = false;
    curl_multi_perform(multi, &running);
    finish_ready();
    loop_.run_once(0);
    if (stays_awake_) return;
    uint64_t now = loop_.now_exact_ns();
    uint64_t deadline = std::min(until_ns, loop_.next_deadline_ns());
    if (deadline <= now) return;
    loop_.flush();
    uint64_t wait_ms = (deadline - now + runtime::kNsPerMs - 1) / runtime::kNsPerMs;
    curl_waitfd extra = {};
    extra.fd = loop_.poll_fd();
    extra.events = CURL_WAIT_POLLIN;
    curl_multi_poll(multi, &extra, 1, static_cast<int>(std::min<uint64_t>(wait_ms, kMaxPollMs)), nullptr);
    curl_multi_perform(multi, &running);
    finish_ready();
    loop_.run_once(0);
}

}  // namespace vitastor::cluster

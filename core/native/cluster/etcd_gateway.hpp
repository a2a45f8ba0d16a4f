// SPDX-License-Identifier: GPL-2.0-or-later
// etcd through its HTTP/JSON gateway: one transaction of ranges for the full load, one streaming POST for the watches.
// Several addresses: local ones first, the rest in random order; a silent one is not dropped but joined by the next after
// etcd_quick_timeout, and the first answer counts. Source: etcd-schema.md 1 and 6, ADR 0022.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "cluster/etcd_api.hpp"
#include "cluster/http_client.hpp"

namespace vitastor::cluster {

struct EtcdGatewayOptions {
    std::vector<std::string> addresses;  ///< [http://|https://]host:port[/path]
    std::vector<std::string> ranges;     ///< keys, or prefixes that end in a slash
    std::vector<std::string> watches;    ///< prefixes that end in a slash
    unsigned max_attempts = 5;
    uint64_t quick_timeout_ms = 1000;
    uint64_t slow_timeout_ms = 5000;
    uint64_t probe_interval_ms = 5000;
    uint64_t min_reload_interval_ms = 50;
};

/// "http://host:port/v3" from the forms above. Error -EINVAL names the text and the form.
Result<std::string> etcd_base_url(const std::string& address);

/// All on the loop's thread.
class EtcdGateway final : public EtcdSource {
public:
    EtcdGateway(runtime::Loop& loop, HttpClient& http, EtcdGatewayOptions options, Logger& logger);
    ~EtcdGateway() override;
    void start(EtcdListener& listener) override;
    void stop() override;
    /// Used from the next request on. Unusable entries are reported and left out.
    void set_addresses(const std::vector<std::string>& addresses);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace vitastor::cluster

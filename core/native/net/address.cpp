// SPDX-License-Identifier: GPL-2.0-or-later
// Networks and the choice among a peer's addresses. Source: wire-protocol 1.1 rule 4.
#include <arpa/inet.h>

#include <charconv>
#include <cstring>

#include "net/address.hpp"
#include "net/peers.hpp"

namespace vitastor::net {

namespace {

bool parse_ip(const std::string& text, uint8_t bytes[16], bool& ipv6) {
    ipv6 = text.find(':') != std::string::npos;
    return inet_pton(ipv6 ? AF_INET6 : AF_INET, text.c_str(), bytes) == 1;
}

}  // namespace

Result<Cidr> Cidr::parse(const std::string& text) {
    Cidr cidr;
    const size_t slash = text.find('/');
    const Status bad(-EINVAL, "\"" + text + "\" is not a network: expected ADDRESS or ADDRESS/BITS, "
                                            "for example 10.0.0.0/8 or fd00::/8");
    if (!parse_ip(text.substr(0, slash), cidr.bytes, cidr.ipv6))
        return bad;
    const unsigned most = cidr.ipv6 ? 128 : 32;
    unsigned bits = most;
    if (slash != std::string::npos) {
        const char* end = text.data() + text.size();
        const auto parsed = std::from_chars(text.data() + slash + 1, end, bits);
        if (parsed.ec != std::errc() || parsed.ptr != end || bits > most)
            return bad;
    }
    cidr.prefix_bits = static_cast<uint8_t>(bits);
    return cidr;
}

bool Cidr::contains(const std::string& address) const {
    uint8_t other[16] = {};
    bool other_ipv6 = false;
    if (!parse_ip(address, other, other_ipv6) || other_ipv6 != ipv6)
        return false;
    const unsigned whole = prefix_bits / 8, rest = prefix_bits % 8;
    if (std::memcmp(bytes, other, whole) != 0)
        return false;
    return rest == 0 || ((bytes[whole] ^ other[whole]) >> (8 - rest)) == 0;
}

std::vector<std::string> choose_addresses(const std::vector<std::string>& addresses,
                                          const std::vector<Cidr>& networks) {
    if (addresses.size() < 2 || networks.empty())
        return addresses;
    std::vector<std::string> chosen;
    for (const auto& address : addresses) {
        for (const auto& network : networks) {
            if (network.contains(address)) {
                chosen.push_back(address);
                break;
            }
        }
    }
    return chosen.empty() ? addresses : chosen;
}

std::string address_text(const std::string& host, uint16_t port) {
    const bool ipv6 = host.find(':') != std::string::npos;
    return (ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

}  // namespace vitastor::net

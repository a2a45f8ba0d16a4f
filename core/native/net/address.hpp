// SPDX-License-Identifier: GPL-2.0-or-later
// Addresses of peers as text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vitastor::net {

struct Cidr;

/// Which of a peer's addresses are tried, in order: those inside our networks; all if none is, if there is only one, or if we
/// have no networks. Source: wire-protocol 1.1 rule 4.
std::vector<std::string> choose_addresses(const std::vector<std::string>& addresses,
                                          const std::vector<Cidr>& networks);

/// "10.0.0.1:6801", "[fd00::1]:6801".
std::string address_text(const std::string& host, uint16_t port);

}  // namespace vitastor::net

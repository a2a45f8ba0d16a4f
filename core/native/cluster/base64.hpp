// SPDX-License-Identifier: GPL-2.0-or-later
// Standard base64 with padding, for keys and values of etcd's JSON gateway.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace vitastor::cluster {

std::string base64_encode(std::string_view bytes);
/// nullopt: not base64. Padding may be missing.
std::optional<std::string> base64_decode(std::string_view text);

}  // namespace vitastor::cluster

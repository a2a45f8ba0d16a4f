// SPDX-License-Identifier: GPL-2.0-or-later
// Socket calls that both real loops share. Descriptors are blocking unless said otherwise; errors are negative errnos.
#pragma once

#include <sys/socket.h>

#include <string>
#include <vector>

#include "runtime/loop.hpp"

namespace vitastor::runtime {

/// Fills *out from a textual address. 0 or -EINVAL (never asks a name server).
int parse_address(const Address& address, sockaddr_storage* out, socklen_t* length);
/// A TCP socket fit for `family`, TCP_NODELAY set. extra_flags: SOCK_NONBLOCK or 0.
int make_stream_socket(int family, int extra_flags);
void set_no_delay(int fd);
/// Bound and listening; *port receives the real one.
Result<int> listen_on(const Address& address, int extra_flags, uint16_t* port);
/// "1.2.3.4:5" or "[::1]:5"; "unknown peer" when the socket has none.
std::string peer_text(int fd);
std::vector<std::string> interface_addresses();

}  // namespace vitastor::runtime

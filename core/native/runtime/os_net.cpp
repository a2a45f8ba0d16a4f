// SPDX-License-Identifier: GPL-2.0-or-later
#include "runtime/os_net.hpp"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <cstring>

namespace vitastor::runtime {

namespace {

std::string host_text(const sockaddr* address, socklen_t length) {
    char host[NI_MAXHOST];
    if (getnameinfo(address, length, host, sizeof(host), nullptr, 0, NI_NUMERICHOST) != 0) return {};
    return host;
}

uint16_t port_of(const sockaddr_storage& address) {
    if (address.ss_family == AF_INET6) {
        return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
    }
    return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

}  // namespace

int parse_address(const Address& address, sockaddr_storage* out, socklen_t* length) {
    addrinfo hints{};
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    std::string port = std::to_string(address.port);
    if (getaddrinfo(address.host.c_str(), port.c_str(), &hints, &found) != 0) return -EINVAL;
    memcpy(out, found->ai_addr, found->ai_addrlen);
    *length = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

int make_stream_socket(int family, int extra_flags) {
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | extra_flags, 0);
    if (fd < 0) return -errno;
    set_no_delay(fd);
    return fd;
}

void set_no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

Result<int> listen_on(const Address& address, int extra_flags, uint16_t* port) {
    std::string name = address.host + " port " + std::to_string(address.port);
    sockaddr_storage where{};
    socklen_t length = 0;
    if (parse_address(address, &where, &length) != 0) {
        return Status(-EINVAL, "cannot listen on " + name + ": not an IPv4 or IPv6 address");
    }
    int fd = make_stream_socket(where.ss_family, extra_flags);
    if (fd < 0) return Status(fd, "cannot listen on " + name + ": " + strerror(-fd));
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, reinterpret_cast<sockaddr*>(&where), length) != 0 || ::listen(fd, SOMAXCONN) != 0) {
        int error = errno;
        close(fd);
        return Status(-error, "cannot listen on " + name + ": " + strerror(error));
    }
    length = sizeof(where);
    if (port != nullptr && getsockname(fd, reinterpret_cast<sockaddr*>(&where), &length) == 0) {
        *port = port_of(where);
    }
    return fd;
}

std::string peer_text(int fd) {
    sockaddr_storage peer{};
    socklen_t length = sizeof(peer);
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) != 0) return "unknown peer";
    std::string host = host_text(reinterpret_cast<sockaddr*>(&peer), length);
    if (peer.ss_family == AF_INET6) host = "[" + host + "]";
    return host + ":" + std::to_string(port_of(peer));
}

std::vector<std::string> interface_addresses() {
    std::vector<std::string> addresses;
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) != 0) return addresses;
    for (ifaddrs* item = list; item != nullptr; item = item->ifa_next) {
        if (item->ifa_addr == nullptr || !(item->ifa_flags & IFF_UP)) continue;
        int family = item->ifa_addr->sa_family;
        if (family != AF_INET && family != AF_INET6) continue;
        socklen_t length = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
        std::string text = host_text(item->ifa_addr, length);
        if (!text.empty()) addresses.push_back(std::move(text));
    }
    freeifaddrs(list);
    return addresses;
}

}  // namespace vitastor::runtime

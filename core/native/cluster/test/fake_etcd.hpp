// SPDX-License-Identifier: GPL-2.0-or-later
// A scripted HTTP server in the place of etcd: answers, hangs, talks garbage, is slow, ends watches. One thread, loopback only.
#pragma once

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cluster/base64.hpp"

class FakeEtcd {
public:
    enum class Mode { answer, hang, garbage, close };
    explicit FakeEtcd(bool ipv6 = false) {
        listener_ = socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_storage storage{};
        socklen_t length = 0;
        if (ipv6) {
            auto* address = reinterpret_cast<sockaddr_in6*>(&storage);
            address->sin6_family = AF_INET6;
            address->sin6_addr = in6addr_loopback;
            length = sizeof(sockaddr_in6);
        } else {
            auto* address = reinterpret_cast<sockaddr_in*>(&storage);
            address->sin_family = AF_INET;
            address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            length = sizeof(sockaddr_in);
        }
        usable = bind(listener_, reinterpret_cast<sockaddr*>(&storage), length) == 0 && listen(listener_, 16) == 0;
        getsockname(listener_, reinterpret_cast<sockaddr*>(&storage), &length);
        unsigned port = ntohs(ipv6 ? reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port
                                   : reinterpret_cast<sockaddr_in*>(&storage)->sin_port);
        address = (ipv6 ? "[::1]:" : "127.0.0.1:") + std::to_string(port);
        thread_ = std::thread([this] { run(); });
    }
    ~FakeEtcd() {
        stop_ = true;
        thread_.join();
        for (auto& [fd, in] : connections_) close(fd);
        close(listener_);
    }
    bool usable = false;
    std::string address;
    std::atomic<Mode> mode{Mode::answer};
    std::atomic<bool> hang_probes{false};
    std::atomic<int> delay_ms{0};
    std::atomic<uint64_t> revision{10};
    std::atomic<int> loads{0}, watches{0}, probes{0}, requests{0};
    /// key -> value, given in each load.
    std::map<std::string, std::string> keys;

    void send_line(const std::string& json) { outbox([json](FakeEtcd& me) { me.push_watch(json + "\n"); }); }
    void event(int watch, const std::string& key, const std::string& value, uint64_t mod_revision) {
        send_line("{\"result\":{\"header\":{\"revision\":\"" + std::to_string(mod_revision) + "\"},\"watch_id\":\"" +
                  std::to_string(watch) + "\",\"events\":[{\"kv\":{\"key\":\"" + vitastor::cluster::base64_encode(key) +
                  "\",\"value\":\"" + vitastor::cluster::base64_encode(value) + "\",\"mod_revision\":\"" +
                  std::to_string(mod_revision) + "\"}}]}}");
    }
    void end_watches() {
        outbox([](FakeEtcd& me) {
            for (int fd : me.watchers_) me.drop(fd);
            me.watchers_.clear();
        });
    }

private:
    void outbox(std::function<void(FakeEtcd&)> action) {
        std::lock_guard lock(mutex_);
        actions_.push_back(std::move(action));
    }
    void drop(int fd) {
        close(fd);
        connections_.erase(fd);
    }
    static void send_all(int fd, const std::string& text) {
        size_t done = 0;
        while (done < text.size()) {
            ssize_t sent = ::send(fd, text.data() + done, text.size() - done, MSG_NOSIGNAL);
            if (sent <= 0) return;
            done += static_cast<size_t>(sent);
        }
    }
    static std::string chunk(const std::string& text) {
        char size[32];
        snprintf(size, sizeof size, "%zx\r\n", text.size());
        return size + text + "\r\n";
    }
    void push_watch(const std::string& text) {
        for (int fd : watchers_) send_all(fd, chunk(text));
    }
    static void reply(int fd, const std::string& body) {
        send_all(fd, "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    }
    void handle(int fd, const std::string& path, const std::string& body) {
        requests++;
        if (mode == Mode::hang) return;
        if (mode == Mode::close) return drop(fd);
        if (delay_ms) std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms));
        if (mode == Mode::garbage) return reply(fd, "<html>who are you?</html>");
        std::string header = "\"header\":{\"revision\":\"" + std::to_string(revision) + "\"}";
        if (path.ends_with("/kv/txn")) {
            loads++;
            std::string kvs;
            for (auto& [key, value] : keys)
                kvs += std::string(kvs.empty() ? "" : ",") + "{\"key\":\"" + vitastor::cluster::base64_encode(key) +
                       "\",\"value\":\"" + vitastor::cluster::base64_encode(value) + "\",\"mod_revision\":\"3\"}";
            reply(fd, "{" + header + ",\"succeeded\":true,\"responses\":[{\"response_range\":{\"kvs\":[" + kvs + "]}}]}");
        } else if (path.ends_with("/kv/range")) {
            probes++;
            if (!hang_probes) reply(fd, "{" + header + "}");
        } else if (path.ends_with("/watch")) {
            watches++;
            last_watch = body;
            send_all(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for (size_t i = 1, at = 0; (at = body.find("create_request", at)) != std::string::npos; i++, at++)
                send_all(fd, chunk("{\"result\":{" + header + ",\"watch_id\":\"" + std::to_string(i) + "\",\"created\":true}}\n"));
            watchers_.push_back(fd);
        }
    }
    void run() {
        while (!stop_) {
            std::vector<std::function<void(FakeEtcd&)>> actions;
            {
                std::lock_guard lock(mutex_);
                actions.swap(actions_);
            }
            for (auto& action : actions) action(*this);
            std::vector<pollfd> fds{{listener_, POLLIN, 0}};
            for (auto& [fd, in] : connections_) fds.push_back({fd, POLLIN, 0});
            poll(fds.data(), fds.size(), 2);
            if (fds[0].revents) {
                int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
                if (fd >= 0) connections_[fd];
            }
            for (size_t i = 1; i < fds.size(); i++) {
                if (!fds[i].revents || !connections_.count(fds[i].fd)) continue;
                int fd = fds[i].fd;
                char data[65536];
                ssize_t got = recv(fd, data, sizeof data, 0);
                if (got <= 0) {
                    std::erase(watchers_, fd);
                    drop(fd);
                    continue;
                }
                std::string& in = connections_[fd];
                in.append(data, static_cast<size_t>(got));
                size_t end = in.find("\r\n\r\n");
                if (end == std::string::npos) continue;
                size_t at = in.find("Content-Length: ");
                size_t length = at == std::string::npos ? 0 : std::stoul(in.substr(at + 16));
                if (in.size() < end + 4 + length) continue;
                std::string path = in.substr(5, in.find(' ', 5) - 5), body = in.substr(end + 4, length);
                in.clear();
                handle(fd, path, body);
            }
        }
    }

public:
    std::string last_watch;

private:
    int listener_;
    std::atomic<bool> stop_{false};
    std::mutex mutex_;
    std::vector<std::function<void(FakeEtcd&)>> actions_;
    std::map<int, std::string> connections_;
    std::vector<int> watchers_;
    std::thread thread_;
};

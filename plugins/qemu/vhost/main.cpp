// SPDX-License-Identifier: GPL-2.0-or-later
// vitastor-vhost: an image as a vhost-user-blk device on a Unix socket.
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "vhost/image_disk.hpp"
#include "vhost/session.hpp"

using namespace vitastor::vhost;

namespace {

constexpr unsigned kQueuesDefault = 4, kQueuesMax = 64;
constexpr int kBacklog = 4;

constexpr const char* kHelp =
    "vitastor-vhost: an image as a vhost-user-blk device, for a QEMU that knows nothing of Vitastor\n"
    "\n"
    "  vitastor-vhost --socket PATH (--image NAME | --pool N --inode N --size BYTES) [options]\n"
    "\n"
    "  --socket PATH        Unix socket; one QEMU at a time, which may go and come back\n"
    "  --queues N           as many virtqueues, a thread each (default 4; num-queues of QEMU's device)\n"
    "  --readonly           refuse writes\n"
    "  --serial TEXT        what the guest sees (default: the image's name; 20 bytes)\n"
    "  --config_path FILE   instead of /etc/vitastor/vitastor.conf\n"
    "  --NAME VALUE         any other parameter of the configuration: --etcd_address 10.0.0.1:2379\n"
    "\n"
    "QEMU: -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem \\\n"
    "      -chardev socket,id=c0,path=PATH,reconnect=1 -device vhost-user-blk-pci,chardev=c0,num-queues=4\n";

struct Options {
    ImageDiskOptions disk;
    std::string socket;
    unsigned queues = kQueuesDefault;
};

bool to_number(const char* text, uint64_t& out) {
    char* end = nullptr;
    errno = 0;
    out = std::strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == 0 && text[0] != '-';
}

/// 0: go on; else the exit code and 1.
int parse(int argc, char** argv, Options& options) {
    for (int i = 1; i < argc; i++) {
        std::string name = argv[i];
        if (name == "-h" || name == "--help") {
            std::fputs(kHelp, stdout);
            return 1;
        }
        if (name.rfind("--", 0) != 0) {
            std::fprintf(stderr, "vitastor-vhost: what is \"%s\"? Options begin with --, see --help\n", argv[i]);
            return EINVAL + 1;
        }
        name = name.substr(2);
        std::string given;
        bool has_value = false;
        if (const size_t equals = name.find('='); equals != std::string::npos) {
            given = name.substr(equals + 1);
            name.resize(equals);
            has_value = true;
        }
        for (char& c : name) c = c == '-' ? '_' : c;
        if (name == "readonly" || name == "read_only") {
            options.disk.read_only = true;
            continue;
        }
        if (!has_value && i + 1 >= argc) {
            std::fprintf(stderr, "vitastor-vhost: --%s needs a value\n", name.c_str());
            return EINVAL + 1;
        }
        const std::string value = has_value ? given : argv[++i];
        uint64_t number = 0;
        const bool is_number = to_number(value.c_str(), number);
        const bool wants_number = name == "queues" || name == "pool" || name == "inode" || name == "size";
        if (wants_number && !is_number) {
            std::fprintf(stderr, "vitastor-vhost: --%s: \"%s\" is not a number\n", name.c_str(), value.c_str());
            return EINVAL + 1;
        }
        if (name == "socket") options.socket = value;
        else if (name == "image") options.disk.image = value;
        else if (name == "serial") options.disk.serial = value;
        else if (name == "config_path") options.disk.config_path = value;
        else if (name == "pool") options.disk.pool = number;
        else if (name == "inode") options.disk.inode = number;
        else if (name == "size") options.disk.size_bytes = number;
        else if (name == "queues") options.queues = static_cast<unsigned>(std::min<uint64_t>(number, kQueuesMax + 1));
        else options.disk.config.emplace_back(name, value);
    }
    const bool by_number = options.disk.pool && options.disk.inode && options.disk.size_bytes;
    const char* wrong = nullptr;
    if (options.socket.empty()) wrong = "--socket is missing";
    else if (options.socket.size() >= sizeof(sockaddr_un::sun_path)) wrong = "--socket: the path is too long for a Unix socket (107 bytes)";
    else if (options.disk.image.empty() != by_number) wrong = "either --image, or --pool, --inode and --size";
    else if (options.queues < 1 || options.queues > kQueuesMax) wrong = "--queues: 1 to 64";
    if (!wrong) return 0;
    std::fprintf(stderr, "vitastor-vhost: %s; see --help\n", wrong);
    return EINVAL + 1;
}

/// A socket that nobody listens at is left from a killed process. -1: errno says why.
int listen_at(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    const auto* generic = reinterpret_cast<const sockaddr*>(&address);
    Fd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(probe.get(), generic, sizeof address) == 0) {
        errno = EADDRINUSE;
        return -1;
    }
    if (errno == ECONNREFUSED) ::unlink(path.c_str());
    Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::bind(listener.get(), generic, sizeof address) < 0 || ::listen(listener.get(), kBacklog) < 0) return -1;
    return ::dup(listener.get());
}

void serve(ImageDisk& disk, unsigned queues, const Fd& listener, const Fd& stop) {
    for (;;) {
        pollfd waits[2] = {{listener.get(), POLLIN, 0}, {stop.get(), POLLIN, 0}};
        if (::poll(waits, 2, -1) < 0 && errno != EINTR) return;
        if (waits[1].revents) return;
        if (!waits[0].revents) continue;
        Fd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!socket) continue;
        Session session(disk, queues, std::move(socket), disk.changed());
        if (!session.serve(stop)) return;
    }
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    if (const int end = parse(argc, argv, options)) return end - 1;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // threads are born with it
    const Fd stop(::signalfd(-1, &signals, SFD_CLOEXEC));
    ImageDisk disk;
    if (const int error = disk.open(options.disk); error < 0) {
        std::fprintf(stderr, "vitastor-vhost: the image cannot be opened: %s\n", std::strerror(-error));
        return -error;
    }
    const Fd listener(listen_at(options.socket));
    if (!listener) {
        const int error = errno;
        std::fprintf(stderr, "vitastor-vhost: %s: %s%s\n", options.socket.c_str(), std::strerror(error),
            error == EADDRINUSE ? ": another process serves it" : "");
        return error;
    }
    std::printf("%s: %llu bytes at %s\n", disk.serial().c_str(), static_cast<unsigned long long>(disk.bytes()), options.socket.c_str());
    std::fflush(stdout);
    serve(disk, options.queues, listener, stop);
    ::unlink(options.socket.c_str());
    return 0;
}

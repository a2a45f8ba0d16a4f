// SPDX-License-Identifier: GPL-2.0-or-later
// What only real loops have: threads, descriptors to poll, tmpfs, refused features.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

#include "loop_fixture.hpp"

using namespace vitastor;
using namespace vitastor::runtime;
using namespace vitastor::runtime::test;

namespace {

std::unique_ptr<Loop> make_loop(LoopKind kind, uint32_t depth = 256) {
    TestLog log;
    LoopOptions options;
    options.kind = kind;
    options.queue_depth = depth;
    auto loop = create_loop(options, log);
    REQUIRE(loop.ok());
    return std::move(loop.value());
}

bool readable(int fd, int timeout_ms) {
    pollfd item{fd, POLLIN, 0};
    return poll(&item, 1, timeout_ms) == 1;
}

struct TempFile {
    explicit TempFile(const char* dir) : path(std::string(dir) + "/vitastor-loop-XXXXXX") {
        int fd = mkstemp(path.data());
        REQUIRE(fd >= 0);
        REQUIRE(ftruncate(fd, 4 << 20) == 0);
        close(fd);
    }
    ~TempFile() { unlink(path.c_str()); }
    std::string path;
};

constexpr LoopKind kKinds[] = {LoopKind::io_uring, LoopKind::epoll};

/// Refuses io_uring_setup with `error` in this process from now on.
bool refuse_io_uring(int error) {
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<uint32_t>(error)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog program{static_cast<unsigned short>(std::size(code)), code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/// In the child: 0 when epoll took over with exactly one warning that names the errno, and timers run.
int check_fallback(int error) {
    if (!refuse_io_uring(error)) return 10;
    TestLog log;
    auto loop = create_loop({}, log);
    if (!loop.ok()) return 11;
    if (strcmp(loop.value()->name(), "epoll") != 0) return 12;
    if (log.lines.size() != 1) return 13;
    if (log.lines[0].find("io_uring is refused") == std::string::npos) return 14;
    bool fired = false;
    TestTimer timer;
    timer.action = [&] { fired = true; };
    loop.value()->arm(timer, loop.value()->now_ns() + kNsPerMs);
    while (!fired) loop.value()->run_once(kNever);
    LoopOptions only;
    only.kind = LoopKind::io_uring;
    auto strict = create_loop(only, log);
    if (strict.ok() || strict.status().code() != -error) return 15;
    return 0;
}

}  // namespace

TEST_CASE("where io_uring is refused epoll takes over with one warning") {
    for (int error : {EPERM, ENOSYS, EACCES, ENOMEM}) {
        pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0) _exit(check_fallback(error));
        int status = 0;
        REQUIRE(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == 0);
    }
}

TEST_CASE("automatic prefers io_uring where it is allowed") {
    TestLog log;
    auto loop = create_loop({}, log);
    REQUIRE(loop.ok());
    CHECK(std::string(loop.value()->name()) == "io_uring");
    CHECK(log.lines.empty());
}

TEST_CASE("notify from other threads wakes a sleeping loop, nothing is lost") {
    for (LoopKind kind : kKinds) {
        auto loop = make_loop(kind);
        struct Mail : Notifier {
            std::atomic<int> sent{0}, seen{0};
            Loop* loop;
        } mail;
        mail.loop = loop.get();
        mail.on_notify = [](Notifier* self) {
            auto* m = static_cast<Mail*>(self);
            m->seen = m->sent.load();
        };
        loop->register_notifier(mail);
        constexpr int kEach = 20000, kThreads = 2;
        {
            std::unique_ptr<Thread> threads[kThreads];
            for (auto& thread : threads) {
                thread = start_thread(
                    "notify",
                    [](void* arg) {
                        auto* m = static_cast<Mail*>(arg);
                        for (int i = 0; i < kEach; i++) {
                            m->sent++;
                            m->loop->notify(*m);
                            if (i % 100 == 0) {
                                while (m->seen < i) {
                                }
                            }
                        }
                    },
                    &mail);
            }
            while (mail.seen < kEach * kThreads) loop->run_once(kNever);
        }
        CHECK(mail.seen == kEach * kThreads);
        loop->unregister_notifier(mail);
    }
}

TEST_CASE("a loop made here and run on another thread is bound to that thread") {
    for (LoopKind kind : kKinds) {
        auto loop = make_loop(kind);
        TempFile file("/tmp");
        auto opened = loop->open_file(file.path, {});
        REQUIRE(opened.ok());
        struct Job {
            Loop* loop;
            Op op;
        } job{loop.get(), {}};
        Buffer buffer = loop->buffers().allocate(4096);
        iovec iov{buffer.data(), 4096};
        loop->read(opened.value(), &iov, 1, 0, job.op);  // started before anyone runs the loop
        start_thread(
            "runner",
            [](void* arg) {
                auto* j = static_cast<Job*>(arg);
                while (!j->op.done()) j->loop->run_once(kNever);
            },
            &job);
        CHECK(job.op.result == 4096);
    }
}

TEST_CASE("more operations than the queue has room for, before the first turn and after") {
    for (LoopKind kind : kKinds) {
        auto loop = make_loop(kind, 8);
        TempFile file("/tmp");
        auto opened = loop->open_file(file.path, {});
        REQUIRE(opened.ok());
        Buffer buffer = loop->buffers().allocate(300 * 4096);
        std::vector<iovec> iov(300);
        for (size_t i = 0; i < iov.size(); i++) iov[i] = {buffer.data() + i * 4096, 4096};
        for (int round = 0; round < 2; round++) {
            std::vector<Op> ops(iov.size());
            for (size_t i = 0; i < ops.size(); i++) loop->read(opened.value(), &iov[i], 1, 0, ops[i]);
            loop->cancel(ops.back());
            loop->cancel(ops.front());
            auto count = [&] {
                size_t n = 0;
                for (Op& op : ops) n += op.done();
                return n;
            };
            while (count() < ops.size()) loop->run_once(kNever);
            for (Op& op : ops) {
                CHECK(op.calls == 1);
                bool fine = op.result == 4096 || op.result == -ECANCELED;
                CHECK(fine);
            }
        }
        loop->close_file(opened.value());
    }
}

TEST_CASE("caller-driven: poll_fd is readable exactly when run_once(0) has something to do") {
    for (LoopKind kind : kKinds) {
        CAPTURE(static_cast<int>(kind));
        auto loop = make_loop(kind), peer = make_loop(kind);
        REQUIRE(loop->poll_fd() >= 0);
        uint16_t port = 0;
        auto listener = peer->listen({"127.0.0.1", 0}, &port);
        REQUIRE(listener.ok());
        Op accepted, connected;
        peer->accept(listener.value(), accepted);
        loop->connect({"127.0.0.1", port}, connected);
        while (!connected.done()) {
            loop->flush();
            REQUIRE(readable(loop->poll_fd(), 10000));
            CHECK(loop->ready());
            loop->run_once(0);
        }
        while (!accepted.done()) peer->run_once(kNever);

        char got[64];
        iovec in{got, sizeof(got)};
        Op received, sent;
        loop->receive(static_cast<Socket>(connected.result), &in, 1, received);
        for (int i = 0; i < 10; i++) {
            loop->flush();
            loop->run_once(0);
        }
        loop->flush();
        CHECK_FALSE(readable(loop->poll_fd(), 0));
        CHECK_FALSE(loop->ready());

        iovec out{const_cast<char*>("hello"), 5};
        peer->send(static_cast<Socket>(accepted.result), &out, 1, sent);
        while (!sent.done()) peer->run_once(kNever);
        REQUIRE(readable(loop->poll_fd(), 10000));
        CHECK(loop->ready());
        while (!received.done()) loop->run_once(0);
        CHECK(received.result == 5);

        TestNotifier note;
        loop->register_notifier(note);
        for (int letter = 1; letter <= 3; letter++) {
            CAPTURE(letter);
            for (int i = 0; i < 10; i++) {
                loop->flush();
                loop->run_once(0);
            }
            loop->flush();
            CHECK_FALSE(readable(loop->poll_fd(), 0));
            CHECK_FALSE(loop->ready());
            start_thread(
                "notify",
                [](void* arg) {
                    auto* pair = static_cast<std::pair<Loop*, Notifier*>*>(arg);
                    pair->first->notify(*pair->second);
                },
                std::make_unique<std::pair<Loop*, Notifier*>>(loop.get(), &note).get());
            REQUIRE(readable(loop->poll_fd(), 10000));
            CHECK(loop->ready());
            while (note.calls < letter) loop->run_once(0);
        }

        int ran = 0;
        TestDeferred work;
        work.action = [&] { ran++; };
        loop->defer(work);
        loop->flush();
        REQUIRE(readable(loop->poll_fd(), 10000));
        CHECK(loop->ready());
        loop->run_once(0);
        CHECK(ran == 1);
        loop->unregister_notifier(note);
    }
}

TEST_CASE("caller-driven: an event that nothing stands behind keeps nobody awake, however many turns a poll is followed by") {
    for (int turns = 1; turns <= 2; turns++) {
        CAPTURE(turns);
        auto loop = make_loop(LoopKind::io_uring);
        const int fd = loop->poll_fd();
        REQUIRE(fd >= 0);
        const uint64_t one = 1;
        loop->flush();
        if (write(fd, &one, sizeof(one)) != sizeof(one)) return;  // an older kernel, whose ring is polled itself
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < turns; j++) loop->run_once(0);
            loop->flush();
        }
        CHECK_FALSE(readable(fd, 0));
    }
}

TEST_CASE("caller-driven: who sleeps in poll() is woken by what comes later") {
    for (LoopKind kind : kKinds) {
        CAPTURE(static_cast<int>(kind));
        auto loop = make_loop(kind);
        REQUIRE(loop->poll_fd() >= 0);
        TestNotifier note;
        loop->register_notifier(note);
        int pair[2];
        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        uint16_t port = 0;
        auto listener = loop->listen({"127.0.0.1", 0}, &port);
        REQUIRE(listener.ok());
        Op accepted;
        loop->accept(listener.value(), accepted);
        loop->flush();
        // The sleeper tells the other thread that it is about to poll. Without a wake-up poll() would sleep all of its 60 s.
        struct Late {
            int fd;
            uint16_t port;
        } late{pair[1], port};
        auto knock = start_thread(
            "knock",
            [](void* arg) {
                auto* self = static_cast<Late*>(arg);
                char byte;
                if (read(self->fd, &byte, 1) != 1) return;
                usleep(50000);
                int fd = socket(AF_INET, SOCK_STREAM, 0);
                sockaddr_in to{};
                to.sin_family = AF_INET;
                to.sin_port = htons(self->port);
                to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
                if (connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0) (void)!read(self->fd, &byte, 1);
                close(fd);
            },
            &late);
        const uint64_t before = loop->now_exact_ns();
        CHECK(write(pair[0], "x", 1) == 1);
        while (!accepted.done() && readable(loop->poll_fd(), 60000)) {
            loop->run_once(0);
            loop->flush();
        }
        CHECK(accepted.done());
        CHECK(loop->now_exact_ns() - before < 30 * kNsPerSecond);
        CHECK(write(pair[0], "x", 1) == 1);
        knock.reset();
        close(pair[0]);
        close(pair[1]);
        loop->unregister_notifier(note);
    }
}

TEST_CASE("files in memory work directly, are never handed to worker threads, and stay in order") {
    for (LoopKind kind : kKinds) {
        auto loop = make_loop(kind);
        TempFile file("/dev/shm");
        auto opened = loop->open_file(file.path, {});
        REQUIRE(opened.ok());
        CHECK(loop->file_info(opened.value()).is_direct);
        Buffer buffer = loop->buffers().allocate(4 << 20);
        memset(buffer.data(), 'm', buffer.size());
        for (size_t size : {size_t{4096}, size_t{4} << 20}) {
            Op write, read, sync, discard;
            iovec iov{buffer.data(), size};
            loop->write(opened.value(), &iov, 1, 0, write);
            CHECK(write.calls == 0);
            while (!write.done()) loop->run_once(kNever);
            CHECK(write.result == static_cast<int64_t>(size));
            memset(buffer.data(), 0, size);
            loop->read(opened.value(), &iov, 1, 0, read);
            while (!read.done()) loop->run_once(kNever);
            CHECK(read.result == static_cast<int64_t>(size));
            CHECK(buffer.data()[size - 1] == 'm');
            loop->sync(opened.value(), sync);
            loop->discard(opened.value(), 0, 4096, discard);
            while (!sync.done() || !discard.done()) loop->run_once(kNever);
            CHECK(sync.result == 0);
            CHECK(discard.result == 0);
        }
    }
}

TEST_CASE("where O_DIRECT is refused cached I/O is used and said") {
    for (LoopKind kind : kKinds) {
        auto loop = make_loop(kind);
        FileOptions options;
        options.mode = FileMode::read_only;
        options.lock_exclusive = false;
        auto opened = loop->open_file("/proc/version", options);  // procfs knows no O_DIRECT
        REQUIRE(opened.ok());
        CHECK_FALSE(loop->file_info(opened.value()).is_direct);
        Buffer buffer = loop->buffers().allocate(4096);
        iovec iov{buffer.data(), 4096};
        Op read;
        loop->read(opened.value(), &iov, 1, 0, read);
        while (!read.done()) loop->run_once(kNever);
        CHECK(read.result > 5);
        CHECK(memcmp(buffer.data(), "Linux", 5) == 0);
        CHECK(loop->open_file("/proc", options).status().code() == -EINVAL);
    }
}

TEST_CASE("IPv6 and the machine's addresses") {
    for (LoopKind kind : kKinds) {
        auto loop = make_loop(kind);
        auto addresses = loop->local_addresses();
        bool has_v6 = false, has_v4 = false;
        for (const auto& address : addresses) {
            has_v6 = has_v6 || address == "::1";
            has_v4 = has_v4 || address == "127.0.0.1";
        }
        CHECK(has_v4);
        if (!has_v6) {
            MESSAGE("left out: this machine has no IPv6 loopback");
            continue;
        }
        uint16_t port = 0;
        auto listener = loop->listen({"::1", 0}, &port);
        REQUIRE(listener.ok());
        Op accepted, connected;
        loop->accept(listener.value(), accepted);
        loop->connect({"::1", port}, connected);
        while (!accepted.done() || !connected.done()) loop->run_once(kNever);
        REQUIRE(connected.result >= 0);
        CHECK(loop->peer_name(static_cast<Socket>(connected.result)) == "[::1]:" + std::to_string(port));
    }
}

TEST_CASE("a sleeping loop costs one kernel entry a turn, and spinning does not lose events") {
    for (LoopKind kind : kKinds) {
        TestLog log;
        LoopOptions options;
        options.kind = kind;
        options.spin_us = 50;
        auto loop = std::move(create_loop(options, log).value());
        int fired = 0;
        TestTimer timer;
        timer.action = [&] {
            if (++fired < 20) loop->arm(timer, loop->now_ns() + 100'000);
        };
        loop->arm(timer, loop->now_ns());
        while (fired < 20) loop->run_once(kNever);
        CHECK(fired == 20);
    }
}

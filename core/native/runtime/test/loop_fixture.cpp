// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop_fixture.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>

namespace vitastor::runtime::test {

std::unique_ptr<Fixture> make_simulated_fixture();

namespace {

class RealFixture final : public Fixture {
public:
    RealFixture(LoopKind kind, uint32_t queue_depth) {
        LoopOptions options;
        options.kind = kind;
        options.queue_depth = queue_depth;
        for (auto& loop : loops_) {
            auto made = create_loop(options, log_);
            if (!made.ok()) FAIL(made.status().message());
            loop = std::move(made.value());
        }
    }
    ~RealFixture() override {
        for (const std::string& path : files_) unlink(path.c_str());
    }
    Loop& a() override { return *loops_[0]; }
    Loop& b() override { return *loops_[1]; }
    void turn() override {
        // Neither may sleep for long: both live on this thread.
        loops_[0]->run_once(loops_[0]->now_exact_ns() + 200'000);
        loops_[1]->run_once(loops_[1]->now_exact_ns() + 200'000);
    }
    std::string host() override { return "127.0.0.1"; }
    std::string make_file(uint64_t size) override {
        const char* dir = getenv("TMPDIR");
        std::string path = std::string(dir ? dir : "/tmp") + "/vitastor-loop-XXXXXX";
        int fd = mkstemp(path.data());
        REQUIRE(fd >= 0);
        REQUIRE(ftruncate(fd, static_cast<off_t>(size)) == 0);
        ::close(fd);
        files_.push_back(path);
        return path;
    }

private:
    TestLog log_;
    std::vector<std::string> files_;
    std::unique_ptr<Loop> loops_[2];
};

}  // namespace

std::unique_ptr<Fixture> make_fixture(FixtureKind kind, uint32_t queue_depth) {
    if (kind == FixtureKind::simulated) return make_simulated_fixture();
    return std::make_unique<RealFixture>(kind == FixtureKind::epoll ? LoopKind::epoll : LoopKind::io_uring,
                                         queue_depth);
}

}  // namespace vitastor::runtime::test

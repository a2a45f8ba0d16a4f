// SPDX-License-Identifier: GPL-2.0-or-later
// fsx through the C ABI: random operations of any alignment on an image of a real cluster, every byte of it compared with a copy in
// memory. Also flushes, sizes, snapshots and clones (through vitastor-cli), handles that are closed and opened again. See fsx_help.
//
// Operations whose ranges overlap are never under way together, so each read has one right answer.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "vitastor.h"

namespace {

const char* const fsx_help =
    "vitastor_fsx --conf FILE --image NAME [--seed N] [--ops N] [--depth N] [--writeback] [--exclusive] [--align BYTES] [--max-size BYTES]\n"
    "    [--cli COMMAND]   vitastor-cli with its options: sizes, snapshots and clones as well\n"
    "The image is to be empty, and of --max-size bytes or less. Exit code 1: a difference, with the command that repeats it.\n";

struct Options {
    std::string conf, image, cli;
    uint64_t seed = 1, ops = 1000, depth = 8, align = 1, max_size = 8 << 20;
    bool writeback = false, exclusive = false;
};

enum class Kind { read, write, zeroes, discard, flush, bitmap };
const char* const kind_names[] = {"read", "write", "zeroes", "discard", "flush", "bitmap"};

/// One operation under way.
struct Operation {
    Kind kind;
    uint64_t number, offset, length;
    unsigned context;
    std::vector<uint8_t> data;      ///< what is written, or read
    std::vector<uint8_t> expected;  ///< of a read; of a bitmap: the bytes it is about
    std::vector<iovec> iov;
    int64_t result = 0;
    std::atomic<bool> done{false};
};

struct Snapshot {
    std::string name;
    std::vector<uint8_t> view;  ///< all bytes up to the largest size, also behind its own end
    uint64_t size;
};

class Fsx {
public:
    explicit Fsx(Options options) : o_(std::move(options)), random_(o_.seed), view_(o_.max_size), parent_(o_.max_size) {}
    int run();

private:
    uint64_t below(uint64_t limit) { return limit ? random_() % limit : 0; }
    [[noreturn]] void fail(const std::string& text);
    void open_cluster();
    void open_image();
    void close_image();
    vitastor_image* open(const std::string& name, bool read_only);
    void start(Kind kind);
    void submit(Operation& op);
    void turn();
    void drain() {
        while (!running_.empty()) turn();
    }
    void finished(Operation& op);
    void compare(const uint8_t* seen, const uint8_t* expected, uint64_t offset, uint64_t length, const char* what);
    bool admin(const std::string& words);
    void resize();
    void snapshot();
    void rename();
    void check_snapshot(const Snapshot& snapshot);
    std::vector<uint8_t> read_all(vitastor_image* image, uint64_t size);

    struct Sync {
        std::atomic<bool> done{false};
        int64_t result = 0;
        static void fn(void* arg, int64_t result, uint64_t) {
            auto* self = static_cast<Sync*>(arg);
            self->result = result;
            self->done = true;
        }
    };
    int64_t wait(Sync& sync) {
        while (!sync.done) vitastor_context_run(contexts_[0], 10);
        return sync.result;
    }

    Options o_;
    std::mt19937_64 random_;
    vitastor_cluster* cluster_ = nullptr;
    vitastor_context* contexts_[2] = {};  ///< the first is driven by this thread, the second has its own
    vitastor_image* image_ = nullptr;
    uint64_t size_ = 0, block_ = 0, granularity_ = 0;
    std::vector<uint8_t> view_;    ///< bytes of the image; behind the end: what a grow would show
    std::vector<uint8_t> parent_;  ///< the same of the layer below
    std::vector<Snapshot> snapshots_;
    std::list<Operation> running_;
    std::vector<std::string> history_;
    uint64_t read_end_ = 0, number_ = 0, counts_[6] = {}, admins_ = 0, snapshot_number_ = 0;
};

void Fsx::fail(const std::string& text) {
    printf("fsx: %s\nlast operations:\n", text.c_str());
    for (size_t i = history_.size() > 30 ? history_.size() - 30 : 0; i < history_.size(); i++) printf("  %s\n", history_[i].c_str());
    printf("repeat on an empty image with: vitastor_fsx --seed %llu --ops %llu --depth %llu --align %llu --max-size %llu%s\n",
        static_cast<unsigned long long>(o_.seed), static_cast<unsigned long long>(o_.ops), static_cast<unsigned long long>(o_.depth),
        static_cast<unsigned long long>(o_.align), static_cast<unsigned long long>(o_.max_size), (std::string(o_.writeback ? " --writeback" : "") + (o_.exclusive ? " --exclusive" : "")).c_str());
    fflush(stdout);
    _Exit(1);
}

void Fsx::open_cluster() {
    const vitastor_option pairs[] = {{"client_enable_writeback", o_.writeback ? "true" : "false"},
        {"client_max_buffered_bytes", "512k"}, {"client_max_buffered_ops", "100"}, {"client_readahead_bytes", o_.exclusive ? "256k" : "0"}};
    vitastor_cluster_options options{};
    options.struct_size = sizeof options;
    options.config_path = o_.conf.c_str();
    options.options = pairs;
    options.option_count = 4;
    if (int error = vitastor_cluster_open(&options, &cluster_)) fail(std::string("vitastor_cluster_open: ") + strerror(-error));
    for (int i = 0; i < 2; i++) {
        vitastor_context_options context{};
        context.struct_size = sizeof context;
        context.own_thread = i;
        if (int error = vitastor_context_open(cluster_, &context, &contexts_[i])) fail(std::string("vitastor_context_open: ") + strerror(-error));
    }
}

vitastor_image* Fsx::open(const std::string& name, bool read_only) {
    vitastor_image_options options{};
    options.struct_size = sizeof options;
    options.image = name.c_str();
    options.read_only = read_only;
    options.any_alignment = 1;
    options.writeback = o_.writeback;
    options.exclusive = o_.exclusive;
    vitastor_image* image = nullptr;
    // What was made a moment ago by a tool may not have been heard of here.
    for (int tries = 0;; tries++) {
        Sync sync;
        int64_t error = vitastor_image_open(contexts_[0], &options, &image, Sync::fn, &sync);
        if (!error) error = wait(sync);
        if (!error) return image;
        vitastor_image_close(image);
        if (error != -ENOENT || tries > 500) fail("open " + name + ": " + strerror(static_cast<int>(-error)));
        vitastor_context_run(contexts_[0], 10);
    }
}

void Fsx::open_image() {
    image_ = open(o_.image, false);
    block_ = vitastor_image_block_size(image_);
    granularity_ = vitastor_image_granularity(image_);
    if (!size_) size_ = vitastor_image_size(image_);
    if (size_ > o_.max_size || !size_) fail("the image is larger than --max-size");
}

void Fsx::close_image() {
    drain();
    vitastor_image_close(image_);
    image_ = nullptr;
}

void Fsx::start(Kind kind) {
    // Now and then where the read before has ended.
    const bool goes_on = kind == Kind::read && o_.exclusive && below(3);
    uint64_t length = kind == Kind::flush ? 0 : 1 + (below(4) ? below(20000) : below(3 * block_));
    uint64_t unit = below(3) ? o_.align : std::max<uint64_t>(o_.align, below(2) ? 512 : granularity_);
    if (kind == Kind::bitmap) unit = granularity_;
    length = std::min((length + unit - 1) / unit * unit, size_ / unit * unit);
    uint64_t offset = kind == Kind::flush ? 0 : below((size_ - length) / unit + 1) * unit;
    if (goes_on && read_end_ + length <= size_) offset = read_end_;
    if (kind == Kind::read) read_end_ = offset + length;
    while (std::any_of(running_.begin(), running_.end(), [&](const Operation& other) {
        return other.offset < offset + length && offset < other.offset + other.length;
    })) turn();
    Operation& op = running_.emplace_back();
    op.kind = kind;
    op.number = ++number_;
    op.offset = offset;
    op.length = length;
    op.context = static_cast<unsigned>(below(2));
    counts_[static_cast<int>(kind)]++;
    char text[128];
    snprintf(text, sizeof text, "%llu %s %llu+%llu context %u", static_cast<unsigned long long>(op.number), kind_names[static_cast<int>(kind)],
        static_cast<unsigned long long>(offset), static_cast<unsigned long long>(length), op.context);
    history_.push_back(text);
    const auto begin = view_.begin() + static_cast<ptrdiff_t>(offset), end = begin + static_cast<ptrdiff_t>(length);
    switch (kind) {
    case Kind::read:
    case Kind::bitmap: op.expected.assign(begin, end); break;
    case Kind::write:
        op.data.resize(length);
        for (uint64_t i = 0; i < length; i++) op.data[i] = static_cast<uint8_t>(op.number * 131 + (offset + i) * 7 + (offset + i) / 251) | 1;
        std::copy(op.data.begin(), op.data.end(), begin);
        break;
    case Kind::zeroes: op.data.resize(length); [[fallthrough]];
    case Kind::discard: std::fill(begin, end, 0); break;
    case Kind::flush: break;
    }
    if (kind == Kind::read) op.data.assign(length, 0xee);
    if (kind == Kind::bitmap) op.data.assign((length / granularity_ + 7) / 8, 0);
    submit(op);
}

void Fsx::submit(Operation& op) {
    auto* context = contexts_[op.context];
    const auto done = [](void* arg, int64_t result, uint64_t) {
        auto* self = static_cast<Operation*>(arg);
        self->result = result;
        self->done = true;
    };
    // In pieces of odd sizes.
    if (op.kind == Kind::read || op.kind == Kind::write || op.kind == Kind::zeroes)
        for (uint64_t at = 0; at < op.length;) {
            const uint64_t size = std::min(op.length - at, 1 + below(op.length));
            op.iov.push_back({op.data.data() + at, size});
            at += size;
        }
    const int pieces = static_cast<int>(op.iov.size());
    int error = 0;
    switch (op.kind) {
    case Kind::read: error = vitastor_read(image_, context, op.offset, op.length, op.iov.data(), pieces, done, &op); break;
    case Kind::write:
    case Kind::zeroes: error = vitastor_write(image_, context, op.offset, op.length, op.iov.data(), pieces, done, &op); break;
    case Kind::discard: error = vitastor_discard(image_, context, op.offset, op.length, done, &op); break;
    case Kind::flush: error = vitastor_flush(image_, context, done, &op); break;
    case Kind::bitmap: error = vitastor_read_bitmap(image_, context, op.offset, op.length, op.data.data(), done, &op); break;
    }
    if (error) fail(history_.back() + ": refused, " + strerror(-error));
}

/// Waits a little, and takes what has ended.
void Fsx::turn() {
    vitastor_context_run(contexts_[0], 1);
    for (auto op = running_.begin(); op != running_.end();) {
        const auto next = std::next(op);
        if (op->done) {
            finished(*op);
            running_.erase(op);
        }
        op = next;
    }
}

void Fsx::compare(const uint8_t* seen, const uint8_t* expected, uint64_t offset, uint64_t length, const char* what) {
    if (memcmp(seen, expected, length) == 0) return;
    uint64_t first = 0, last = length - 1, count = 0;
    while (seen[first] == expected[first]) first++;
    while (seen[last] == expected[last]) last--;
    for (uint64_t i = first; i <= last; i++) count += seen[i] != expected[i];
    char text[256];
    snprintf(text, sizeof text, "%s: %llu bytes between %llu and %llu differ; the first is 0x%02x instead of 0x%02x; size %llu, blocks of %llu", what,
        static_cast<unsigned long long>(count), static_cast<unsigned long long>(offset + first), static_cast<unsigned long long>(offset + last),
        seen[first], expected[first], static_cast<unsigned long long>(size_), static_cast<unsigned long long>(block_));
    fail(text);
}

void Fsx::finished(Operation& op) {
    const std::string name = std::to_string(op.number) + " " + kind_names[static_cast<int>(op.kind)];
    const int64_t wanted = op.kind == Kind::flush ? 0 : op.kind == Kind::bitmap ? static_cast<int64_t>(op.length / granularity_) : static_cast<int64_t>(op.length);
    if (op.result != wanted) fail(name + ": result " + std::to_string(op.result) + " instead of " + std::to_string(wanted));
    if (op.kind == Kind::read) compare(op.data.data(), op.expected.data(), op.offset, op.length, name.c_str());
    if (op.kind != Kind::bitmap) return;
    for (uint64_t at = 0; at < op.length; at += granularity_) {
        const uint64_t bit = at / granularity_;
        if (op.data[bit / 8] >> (bit % 8) & 1) continue;
        const auto from = op.expected.begin() + static_cast<ptrdiff_t>(at);
        if (std::any_of(from, from + static_cast<ptrdiff_t>(granularity_), [](uint8_t byte) { return byte != 0; }))
            fail(name + ": no bit for offset " + std::to_string(op.offset + at) + ", which holds data");
    }
}

/// Runs vitastor-cli. Nothing is under way, but for what the cache writes out by itself.
bool Fsx::admin(const std::string& words) {
    history_.push_back("cli " + words);
    admins_++;
    const std::string command = o_.cli + " " + words + " >/dev/null";
    return system(command.c_str()) == 0;
}

void Fsx::resize() {
    drain();
    const uint64_t wanted = std::max<uint64_t>(granularity_, (1 + below(o_.max_size / granularity_)) * granularity_);
    if (wanted < size_) {
        // A flush: what is on its way to beyond the new end while the tool deletes there would be nobody's.
        start(Kind::flush);
        drain();
    }
    if (!admin("modify " + o_.image + " -f --resize " + std::to_string(wanted))) fail("the size could not be changed");
    if (wanted < size_) {
        const uint64_t cut = std::min((wanted + block_ - 1) / block_ * block_, o_.max_size);
        std::fill(view_.begin() + static_cast<ptrdiff_t>(wanted), view_.begin() + static_cast<ptrdiff_t>(cut), 0);
        std::copy(parent_.begin() + static_cast<ptrdiff_t>(cut), parent_.end(), view_.begin() + static_cast<ptrdiff_t>(cut));
    }
    size_ = wanted;
    for (int tries = 0; vitastor_image_size(image_) != size_; tries++) {
        if (tries > 2000) fail("the open image still has " + std::to_string(vitastor_image_size(image_)) + " bytes");
        vitastor_context_run(contexts_[0], 10);
    }
}

void Fsx::snapshot() {
    drain();
    start(Kind::flush);
    drain();
    const std::string name = o_.image + "@" + std::to_string(++snapshot_number_);
    const uint64_t before = vitastor_image_inode(image_);
    if (!admin("snap-create " + name)) fail("no snapshot could be made");
    for (int tries = 0; vitastor_image_inode(image_) == before; tries++) {
        if (tries > 2000) fail("the open image is still the inode that has become the snapshot");
        vitastor_context_run(contexts_[0], 10);
    }
    snapshots_.push_back({name, view_, size_});
    parent_ = view_;
}

/// The open handle stays with it, although another image gets the old name; nothing waits until it has heard of it.
void Fsx::rename() {
    const std::string old = o_.image;
    o_.image += "r";
    if (!admin("modify " + old + " --rename " + o_.image)) fail("the image could not be renamed");
    if (!admin("create -s 1M -p " + std::to_string(vitastor_image_inode(image_) >> 48) + " " + old)) fail("no other image could be made under the old name");
}

std::vector<uint8_t> Fsx::read_all(vitastor_image* image, uint64_t size) {
    std::vector<uint8_t> seen(size);
    const iovec iov{seen.data(), size};
    Sync sync;
    if (vitastor_read(image, contexts_[0], 0, size, &iov, 1, Sync::fn, &sync)) fail("a whole image cannot be read");
    if (wait(sync) != static_cast<int64_t>(size)) fail("a whole image cannot be read");
    return seen;
}

/// As it stands, and through a clone that is written to.
void Fsx::check_snapshot(const Snapshot& snapshot) {
    drain();
    vitastor_image* image = open(snapshot.name, true);
    compare(read_all(image, snapshot.size).data(), snapshot.view.data(), 0, snapshot.size, snapshot.name.c_str());
    vitastor_image_close(image);
    const std::string name = o_.image + "-clone";
    if (!admin("create --parent " + snapshot.name + " " + name)) fail("no clone could be made");
    image = open(name, false);
    auto expected = snapshot.view;
    for (int i = 0; i < 8; i++) {
        const uint64_t length = 1 + below(std::min<uint64_t>(snapshot.size, 9000)), offset = below(snapshot.size - length + 1);
        std::vector<uint8_t> data(length, static_cast<uint8_t>(200 + i));
        const iovec iov{data.data(), length};
        Sync sync;
        if (vitastor_write(image, contexts_[0], offset, length, &iov, 1, Sync::fn, &sync)) fail("a clone cannot be written to");
        if (wait(sync) != static_cast<int64_t>(length)) fail("a clone cannot be written to");
        memcpy(&expected[offset], data.data(), length);
    }
    vitastor_image_close(image);
    image = open(name, true);
    compare(read_all(image, snapshot.size).data(), expected.data(), 0, snapshot.size, name.c_str());
    vitastor_image_close(image);
    if (!admin("rm " + name)) fail("a clone could not be removed");
}

int Fsx::run() {
    printf("fsx: seed %llu, %llu operations, %s\n", static_cast<unsigned long long>(o_.seed), static_cast<unsigned long long>(o_.ops),
        o_.writeback ? "write-back" : "no cache");
    open_cluster();
    open_image();
    if (o_.writeback && !vitastor_image_writeback(image_)) fail("no write-back");
    const uint64_t admin_every = std::max<uint64_t>(o_.ops / 8, 40);
    for (uint64_t i = 1; i <= o_.ops; i++) {
        while (running_.size() >= o_.depth) turn();
        if (i % 1000 == 0) {
            printf("fsx: %llu operations\n", static_cast<unsigned long long>(i));
            fflush(stdout);
        }
        const uint64_t what = below(100);
        if (what < 38) start(Kind::write);
        else if (what < 76) start(Kind::read);
        else if (what < 80) start(Kind::zeroes);
        else if (what < 88) start(Kind::discard);
        else if (what < 93) start(Kind::flush);
        else if (what < 97 && size_ >= granularity_) start(Kind::bitmap);
        else if (what == 99 && below(8) == 0) {
            history_.push_back("close, open");
            close_image();
            open_image();
        }
        if (o_.cli.empty() || i % admin_every) continue;
        const uint64_t turn_number = i / admin_every;
        if (turn_number % 5 == 2) rename();
        else if (turn_number % 4 == 3 && snapshots_.size() < 4) snapshot();
        else if (turn_number % 4 == 0 && !snapshots_.empty()) check_snapshot(snapshots_[below(snapshots_.size())]);
        else resize();
    }
    close_image();
    // Whatever was buffered is with the OSDs: another cluster handle, without a cache.
    for (auto*& context : contexts_) vitastor_context_close(std::exchange(context, nullptr));
    vitastor_cluster_close(cluster_);
    o_.writeback = false;
    open_cluster();
    open_image();
    if (vitastor_image_size(image_) != size_) fail("the image has another size");
    compare(read_all(image_, size_).data(), view_.data(), 0, size_, "at the end");
    close_image();
    for (const Snapshot& snapshot : snapshots_) {
        image_ = open(snapshot.name, true);
        compare(read_all(image_, snapshot.size).data(), snapshot.view.data(), 0, snapshot.size, snapshot.name.c_str());
        close_image();
    }
    for (auto* context : contexts_) vitastor_context_close(context);
    vitastor_cluster_close(cluster_);
    printf("fsx: all the same:");
    for (int i = 0; i < 6; i++) printf(" %llu %s,", static_cast<unsigned long long>(counts_[i]), kind_names[i]);
    printf(" %llu commands, %zu snapshots\n", static_cast<unsigned long long>(admins_), snapshots_.size());
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; i++) {
        const std::string word = argv[i];
        if (word == "--writeback" || word == "--exclusive") {
            (word == "--writeback" ? options.writeback : options.exclusive) = true;
            continue;
        }
        const char* value = i + 1 < argc ? argv[++i] : nullptr;
        uint64_t* number = word == "--seed" ? &options.seed : word == "--ops" ? &options.ops : word == "--depth" ? &options.depth
                         : word == "--align" ? &options.align : word == "--max-size" ? &options.max_size : nullptr;
        std::string* text = word == "--conf" ? &options.conf : word == "--image" ? &options.image : word == "--cli" ? &options.cli : nullptr;
        if (!value || (!number && !text)) {
            fprintf(stderr, "fsx: %s is not understood\n%s", word.c_str(), fsx_help);
            return 2;
        }
        if (number) *number = strtoull(value, nullptr, 10);
        else *text = value;
    }
    if (options.conf.empty() || options.image.empty() || !options.depth || !options.align || options.max_size < 1 << 20) {
        fputs(fsx_help, stderr);
        return 2;
    }
    return Fsx(std::move(options)).run();
}

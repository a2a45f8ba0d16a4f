// SPDX-License-Identifier: GPL-2.0-or-later
//
// A small stand-in for libFuzzer where the compiler is GCC: runs LLVMFuzzerTestOneInput over every
// corpus file, then over random mutations of them. No coverage feedback; the sanitizers are the judge.
//
//   NAME [-runs=N] [-max_total_time=SECONDS] [-seed=N] [-max_len=BYTES] [FILE or DIRECTORY]...
//
// Also here: -last_input=FILE keeps the input that is being run in FILE (it survives an abort), and
// -replay_last=FILE runs it again.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <dirent.h>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" __attribute__((weak)) int LLVMFuzzerInitialize(int* argc, char*** argv);

namespace {

using Bytes = std::vector<uint8_t>;

struct Random {
    uint64_t state;
    uint64_t next() {
        state += 0x9e3779b97f4a7c15ull;
        uint64_t z = state;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return z ^ (z >> 31);
    }
    uint64_t below(uint64_t bound) { return bound ? next() % bound : 0; }
};

bool read_file(const std::string& path, Bytes& out) {
    FILE* file = fopen(path.c_str(), "rb");
    if (!file)
        return false;
    uint8_t chunk[65536];
    size_t got;
    while ((got = fread(chunk, 1, sizeof(chunk), file)) > 0)
        out.insert(out.end(), chunk, chunk + got);
    fclose(file);
    return true;
}

void load(const std::string& path, std::vector<Bytes>& corpus) {
    struct stat st;
    if (stat(path.c_str(), &st) != 0)
        return;
    if (S_ISDIR(st.st_mode)) {
        DIR* dir = opendir(path.c_str());
        if (!dir)
            return;
        std::vector<std::string> names;
        while (dirent* entry = readdir(dir))
            if (entry->d_name[0] != '.')
                names.push_back(entry->d_name);
        closedir(dir);
        for (const std::string& name : names)
            load(path + "/" + name, corpus);
        return;
    }
    Bytes bytes;
    if (read_file(path, bytes))
        corpus.push_back(bytes);
}

// Values at which length checks go wrong.
const uint64_t edges[] = {0,      1,          4,          0x7f,        0x80,
                          0xff,   0xfff,      0x1000,     0x7fff,      0xffff,
                          0x20000, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffffull,
                          ~0ull};

void mutate(Bytes& input, const std::vector<Bytes>& corpus, Random& random, size_t max_len) {
    uint64_t steps = 1 + random.below(6);
    for (uint64_t step = 0; step < steps; step++) {
        size_t size = input.size();
        switch (random.below(8)) {
        case 0:
            if (size)
                input[random.below(size)] ^= uint8_t(1u << random.below(8));
            break;
        case 1:
            if (size)
                input[random.below(size)] = uint8_t(random.next());
            break;
        case 2: { // a whole field set to an edge value, mostly at a field's own alignment
            size_t width = size_t(1) << random.below(4);
            if (size >= width) {
                size_t at = random.below(size - width + 1);
                if (random.below(4))
                    at -= at % width;
                uint64_t value = edges[random.below(sizeof(edges) / sizeof(edges[0]))];
                memcpy(&input[at], &value, width);
            }
            break;
        }
        case 3:
            input.resize(random.below(size + 1));
            break;
        case 4: {
            size_t grow = random.below(64) + 1;
            while (grow--)
                input.push_back(uint8_t(random.next()));
            break;
        }
        case 5: // duplicate a stretch
            if (size) {
                size_t from = random.below(size);
                size_t length = 1 + random.below(size - from);
                Bytes copy(input.begin() + from, input.begin() + from + length);
                size_t at = random.below(size + 1);
                input.insert(input.begin() + at, copy.begin(), copy.end());
            }
            break;
        case 6: // erase a stretch
            if (size) {
                size_t from = random.below(size);
                size_t length = 1 + random.below(size - from);
                input.erase(input.begin() + from, input.begin() + from + length);
            }
            break;
        default: // splice with another corpus entry
            if (!corpus.empty()) {
                const Bytes& other = corpus[random.below(corpus.size())];
                if (!other.empty()) {
                    input.resize(random.below(size + 1));
                    size_t from = random.below(other.size());
                    input.insert(input.end(), other.begin() + from, other.end());
                }
            }
        }
        if (input.size() > max_len)
            input.resize(max_len);
    }
}

double now_seconds() {
    timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return double(ts.tv_sec) + double(ts.tv_nsec) / 1e9;
}

// The last input lives in a shared mapping of a file, so that it survives an abort.
struct LastInput {
    std::string path;
    uint8_t* map = nullptr;
    size_t capacity = 0;
    int fd = -1;

    bool open_at(const std::string& where, size_t max_len) {
        path = where;
        capacity = max_len ? max_len : 1;
        fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0644);
        if (fd < 0 || ftruncate(fd, off_t(capacity + 8)) != 0)
            return false;
        void* at = mmap(nullptr, capacity + 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        map = at == MAP_FAILED ? nullptr : static_cast<uint8_t*>(at);
        return map != nullptr;
    }
    void set(const Bytes& input) {
        if (!map)
            return;
        uint64_t size = input.size() < capacity ? input.size() : capacity;
        memcpy(map, &size, 8);
        if (size)
            memcpy(map + 8, input.data(), size);
    }
    void drop() {
        if (fd >= 0) {
            close(fd);
            unlink(path.c_str());
        }
    }
};

// An exact-size heap copy, so that the address sanitizer sees one byte too far.
void run_one(const Bytes& input) {
    uint8_t* copy = static_cast<uint8_t*>(malloc(input.size() ? input.size() : 1));
    if (!copy)
        abort();
    if (!input.empty())
        memcpy(copy, input.data(), input.size());
    LLVMFuzzerTestOneInput(copy, input.size());
    free(copy);
}

} // namespace

int main(int argc, char** argv) {
    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    uint64_t runs = 0, seed = 1, max_len = 65536;
    double max_seconds = 0;
    std::string last_path, replay;
    std::vector<Bytes> corpus;
    for (int i = 1; i < argc; i++) {
        const char* arg = argv[i];
        if (strncmp(arg, "-runs=", 6) == 0)
            runs = strtoull(arg + 6, nullptr, 10);
        else if (strncmp(arg, "-max_total_time=", 16) == 0)
            max_seconds = strtod(arg + 16, nullptr);
        else if (strncmp(arg, "-seed=", 6) == 0)
            seed = strtoull(arg + 6, nullptr, 10);
        else if (strncmp(arg, "-max_len=", 9) == 0)
            max_len = strtoull(arg + 9, nullptr, 10);
        else if (strncmp(arg, "-last_input=", 12) == 0)
            last_path = arg + 12;
        else if (strncmp(arg, "-replay_last=", 13) == 0)
            replay = arg + 13;
        else if (arg[0] != '-')
            load(arg, corpus);
    }
    if (!replay.empty()) { // a file left by -last_input: 8 bytes of length, then the input
        Bytes file;
        if (!read_file(replay, file) || file.size() < 8) {
            fprintf(stderr, "%s is not an input left by -last_input\n", replay.c_str());
            return 2;
        }
        uint64_t size;
        memcpy(&size, file.data(), 8);
        if (size > file.size() - 8)
            size = file.size() - 8;
        run_one(Bytes(file.begin() + 8, file.begin() + 8 + long(size)));
        printf("1 run, no failure\n");
        return 0;
    }
    if (!runs && max_seconds <= 0)
        runs = corpus.empty() ? 10000 : 0;
    LastInput last;
    if (!last_path.empty() && !last.open_at(last_path, max_len))
        fprintf(stderr, "cannot keep the last input in %s\n", last_path.c_str());
    for (const Bytes& input : corpus) {
        last.set(input);
        run_one(input);
    }
    Random random{seed};
    double end = now_seconds() + max_seconds;
    uint64_t done = corpus.size();
    for (uint64_t run = 0; (runs && run < runs) || max_seconds > 0; run++) {
        if (max_seconds > 0 && run % 64 == 0 && now_seconds() >= end)
            break;
        if (runs && run >= runs)
            break;
        Bytes input;
        if (!corpus.empty() && random.below(16))
            input = corpus[random.below(corpus.size())];
        mutate(input, corpus, random, max_len);
        last.set(input);
        run_one(input);
        done++;
    }
    last.drop();
    printf("%llu runs from %zu corpus files, seed %llu, no failure\n",
           static_cast<unsigned long long>(done), corpus.size(),
           static_cast<unsigned long long>(seed));
    return 0;
}

// SPDX-License-Identifier: GPL-2.0-or-later
// Encoding and decoding beside memcpy of the same data in the same run.
//   ec_bench [--seconds S] [--objects N] [--only TEXT] [--json]
// Cases: CODE.encode (all parity), CODE.decode (as many data chunks lost as there is parity), CODE.decode1 (one), CODE.differ (parity
// changed by one data chunk's difference), CODE.plan (nanoseconds to plan a 4 KiB write and its bitmaps), each but the last with chunks of 128 KiB and of 4 KiB. A rate counts the data bytes of an object
// (differ: of the one chunk); memcpy copies just those. Codec and memcpy take turns of a millisecond, at least 40 each;
// the 90th percentile of the turns counts (what others take from a busy machine falls out). N objects (4) are worked on in
// turn: short chunks come from the first cache, long ones from the second or third. --only: cases that contain TEXT. --json: one
// JSON object a line.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "erasure/codec.hpp"
#include "erasure/stripe_work.hpp"

using namespace vitastor;
using namespace vitastor::erasure;

namespace {

double now_s() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// What nine turns of ten do not exceed: a busy machine makes turns slower, never quicker.
double undisturbed(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() * 9 / 10];
}

struct Code {
    const char* name;
    uint32_t data, parity;
};
constexpr Code kCodes[] = {{"xor-2+1", 2, 1}, {"2+1", 2, 1}, {"4+2", 4, 2}, {"8+3", 8, 3}};

enum class Kind : uint8_t { encode, decode, decode_one, differ };
constexpr std::pair<const char*, Kind> kKinds[] = {
    {"encode", Kind::encode}, {"decode", Kind::decode}, {"decode1", Kind::decode_one}, {"differ", Kind::differ}};
constexpr std::pair<const char*, size_t> kSizes[] = {{"128k", 131072}, {"4k", 4096}};

struct Object {
    std::vector<iovec> iov;
    std::vector<Pieces> in, out;
};

class Case {
public:
    Case(const Code& code, Kind kind, size_t chunk, size_t objects) : kind_(kind), chunk_(chunk), objects_(objects) {
        auto made = Codec::create(code.data, code.parity);
        if (!made.ok()) {
            fprintf(stderr, "%s\n", made.status().message().c_str());
            exit(1);
        }
        codec_ = std::move(made.value());
        const uint32_t lost = kind == Kind::decode ? std::min(code.data, code.parity) : 1;
        const bool decode = kind == Kind::decode || kind == Kind::decode_one;
        sources_ = decode ? RoleSet::range(lost, lost + code.data) : codec_->data_roles();
        wanted_ = decode ? RoleSet::range(0, lost) : codec_->parity_roles();
        data_bytes_ = kind == Kind::differ ? chunk : code.data * chunk;
        const uint32_t roles = code.data + code.parity;
        memory_ = static_cast<uint8_t*>(aligned_alloc(4096, objects * roles * chunk));
        from_ = static_cast<uint8_t*>(aligned_alloc(4096, objects * data_bytes_));
        to_ = static_cast<uint8_t*>(aligned_alloc(4096, objects * data_bytes_));
        for (size_t i = 0; i < objects * roles * chunk; i++) memory_[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
        memset(from_, 5, objects * data_bytes_);
        memset(to_, 6, objects * data_bytes_);
        for (size_t i = 0; i < objects; i++) {
            Object& object = objects_[i];
            for (uint32_t role = 0; role < roles; role++) object.iov.push_back({memory_ + (i * roles + role) * chunk, chunk});
            sources_.for_each([&](uint32_t role) { object.in.push_back(Pieces(&object.iov[role], 1)); });
            wanted_.for_each([&](uint32_t role) { object.out.push_back(Pieces(&object.iov[role], 1)); });
        }
    }
    ~Case() {
        free(memory_);
        free(from_);
        free(to_);
    }
    Case(const Case&) = delete;
    Case& operator=(const Case&) = delete;

    /// GB/s of one turn.
    double code(double seconds) {
        return turn(seconds, [this](size_t i) {
            Object& object = objects_[i];
            if (kind_ == Kind::differ) codec_->update(0, object.in[0], wanted_, object.out, chunk_);
            else codec_->combine(sources_, object.in, wanted_, object.out, chunk_);
        });
    }
    double copy(double seconds) {
        return turn(seconds, [this](size_t i) {
            memcpy(to_ + i * data_bytes_, from_ + i * data_bytes_, data_bytes_);
            asm volatile("" : : "r"(to_) : "memory");
        });
    }

private:
    template <class Work>
    double turn(double seconds, Work work) {
        for (size_t i = 0; i < objects_.size(); i++) work(i);  // what the other one has driven out of the caches comes back
        const double start = now_s();
        double end = start;
        uint64_t done = 0;
        const uint64_t at_once = std::max<uint64_t>(1, 262144 / data_bytes_);
        do {
            for (uint64_t i = 0; i < at_once; i++, done++) work(done % objects_.size());
            end = now_s();
        } while (end - start < seconds);
        return static_cast<double>(done * data_bytes_) / (end - start) / 1e9;
    }

    const Kind kind_;
    const size_t chunk_;
    std::vector<Object> objects_;
    std::unique_ptr<Codec> codec_;
    RoleSet sources_, wanted_;
    size_t data_bytes_ = 0;
    uint8_t* memory_ = nullptr;
    uint8_t* from_ = nullptr;
    uint8_t* to_ = nullptr;
};

/// Nanoseconds to plan a write of 4 KiB, and to finish its bitmaps: the processor's part besides encoding.
void plan_case(const Code& code, double seconds, bool json) {
    const StripeShape shape{code.data, code.parity, 131072, 4096};
    auto made = Codec::create(code.data, code.parity);
    if (!made.ok()) return;
    const RoleSet all = RoleSet::range(0, shape.roles());
    Plan plan;
    StripeWork work;
    std::vector<uint8_t> bitmaps(shape.roles() * shape.bitmap_bytes());
    uint64_t granule = 0;
    std::vector<double> planned, finished;
    for (const double end = now_s() + seconds; now_s() < end || planned.size() < 40;) {
        constexpr int kRounds = 1000;
        const double start = now_s();
        for (int i = 0; i < kRounds; i++) {
            granule = (granule + 7) % (shape.span_bytes() / 4096);
            if (plan_write(shape, {granule * 4096, 4096, all, all, {}, 0, false}, plan)) return;
        }
        const double middle = now_s();
        for (int i = 0; i < kRounds; i++) {
            work.start(*made.value(), plan, nullptr, nullptr);
            work.finish_bitmaps(bitmaps.data());
        }
        planned.push_back(-(middle - start) * 1e9 / kRounds);
        finished.push_back(-(now_s() - middle) * 1e9 / kRounds);
    }
    const double plan_ns = -undisturbed(planned), bitmaps_ns = -undisturbed(finished);
    printf(json ? "{\"case\":\"%s.plan\",\"plan_ns\":%.0f,\"bitmaps_ns\":%.0f}\n" : "%s.plan  %.0f ns, bitmaps %.0f ns\n", code.name,
           plan_ns, bitmaps_ns);
    fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    double seconds = 0.5;
    size_t objects = 4;
    std::string only;
    bool json = false;
    for (int i = 1; i < argc; i++) {
        const std::string word = argv[i];
        const char* value = i + 1 < argc ? argv[i + 1] : "";
        if (word == "--json") {
            json = true;
            continue;
        }
        if (word == "--seconds") seconds = atof(value);
        else if (word == "--objects") objects = static_cast<size_t>(atol(value));
        else if (word == "--only") only = value;
        else seconds = 0;
        i++;
    }
    if (!(seconds > 0) || objects < 1 || objects > 4096) {
        fprintf(stderr, "usage: ec_bench [--seconds S] [--objects N] [--only TEXT] [--json]\n");
        return 2;
    }
    constexpr double kTurn = 0.001;
    constexpr size_t kTurnsMin = 40;
    for (const Code& code : kCodes) {
        if ((std::string(code.name) + ".plan").find(only) != std::string::npos) plan_case(code, seconds, json);
        for (auto [size_name, chunk] : kSizes) {
            for (auto [kind_name, kind] : kKinds) {
                const std::string name = std::string(code.name) + "." + kind_name + "." + size_name;
                if (name.find(only) == std::string::npos) continue;
                Case work(code, kind, chunk, objects);
                std::vector<double> coded, copied;
                work.code(kTurn);
                work.copy(kTurn);
                for (const double end = now_s() + seconds; now_s() < end || coded.size() < kTurnsMin;) {
                    coded.push_back(work.code(kTurn));
                    copied.push_back(work.copy(kTurn));
                }
                const double rate = undisturbed(coded), copy = undisturbed(copied);
                const char* line = json ? "{\"case\":\"%s\",\"gigabytes_per_second\":%.3f,\"memcpy_gigabytes_per_second\":%.3f,"
                                          "\"ratio\":%.3f,\"turns\":%zu}\n"
                                        : "%-22s %7.2f GB/s  memcpy %7.2f GB/s  ratio %5.2f  (%zu turns)\n";
                printf(line, name.c_str(), rate, copy, rate / copy, coded.size());
                fflush(stdout);
            }
        }
    }
    return 0;
}

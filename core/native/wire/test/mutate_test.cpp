// SPDX-License-Identifier: GPL-2.0-or-later
// Short form of the fuzz target: golden messages with random bytes changed, cut and joined. Fixed seed, so it repeats.
#include <doctest/doctest.h>

#include "fuzz_body.hpp"

using namespace vitastor::wire;
using namespace vitastor::wire::test;

TEST_CASE("100000 mutated messages neither crash nor get past the limits") {
    uint64_t state = 0x9e3779b97f4a7c15ull;
    auto random = [&] {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    };
    std::vector<uint8_t> input;
    for (int round = 0; round < 100000; round++) {
        Header header{};
        const auto opcode = Opcode(random() % 21);
        if (random() & 1)
            encode_request(header, {random() % 100, opcode});
        else
            encode_reply(header, {random() % 100, opcode, static_cast<int64_t>(random() % 9000) - 100});
        input.assign(header.begin(), header.end());
        const std::string json = "{\"features\": {\"check_sequencing\": true}, \"osd_num\": 2, \"vitastor_secure\": [\"x\"]}";
        if (random() & 1) input.insert(input.end(), json.begin(), json.end());
        for (uint64_t n = random() % 24; n > 0; n--) input[random() % input.size()] = static_cast<uint8_t>(random());
        input.resize(random() % (input.size() + 1));
        fuzz_one(input.data(), input.size());
    }
}

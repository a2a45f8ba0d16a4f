// SPDX-License-Identifier: GPL-2.0-or-later
// Fuzz target of the message codec.
#include "fuzz_body.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    vitastor::wire::test::fuzz_one(data, size);
    return 0;
}

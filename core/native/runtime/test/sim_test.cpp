// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop_fixture.hpp"

namespace vitastor::runtime::test {

std::unique_ptr<Fixture> make_simulated_fixture() { return nullptr; }

}  // namespace vitastor::runtime::test

// SPDX-License-Identifier: GPL-2.0-or-later
#include "pg/states.hpp"

#include <doctest/doctest.h>

#include "pg/activation.hpp"

using namespace vitastor;
using namespace vitastor::pg;

TEST_CASE("phases move only along the table") {
    CHECK(next_phase(Phase::offline, PhaseEvent::start) == Phase::starting);
    CHECK(next_phase(Phase::starting, PhaseEvent::peer) == Phase::peering);
    CHECK(next_phase(Phase::peering, PhaseEvent::activate) == Phase::active);
    CHECK(next_phase(Phase::peering, PhaseEvent::refuse) == Phase::incomplete);
    CHECK(next_phase(Phase::incomplete, PhaseEvent::peer) == Phase::peering);
    CHECK(next_phase(Phase::active, PhaseEvent::disturb) == Phase::repeering);
    CHECK(next_phase(Phase::repeering, PhaseEvent::drained) == Phase::peering);
    CHECK(next_phase(Phase::stopping, PhaseEvent::drained) == Phase::offline);
    CHECK(!next_phase(Phase::offline, PhaseEvent::activate));
    CHECK(!next_phase(Phase::active, PhaseEvent::peer));
    CHECK(!next_phase(Phase::repeering, PhaseEvent::activate));
    for (unsigned p = 1; p < kPhaseCount; p++) {
        CHECK(next_phase(static_cast<Phase>(p), PhaseEvent::stop) == Phase::stopping);
    }
}

TEST_CASE("announced states") {
    CHECK(announced_state(Phase::active, 0) == 0x8);
    CHECK(announced_state(Phase::active, wire::pg_state::degraded | wire::pg_state::left_on_dead) == 0x8088);
    CHECK(announced_state(Phase::peering, wire::pg_state::has_degraded) == 0x2);
    CHECK(announced_state(Phase::incomplete, 0xffff80) == (wire::pg_state::incomplete | wire::pg_state::has_invalid));
    CHECK(allows_local_reads(0x8));
    CHECK(allows_local_reads(0x8008));
    CHECK(!allows_local_reads(0x8088));
    CHECK(!allows_local_reads(0x208));
    CHECK(!allows_local_reads(0x2));
}

TEST_CASE("versions as seen on 3.0.8") {
    CHECK(next_version(0, 0) == 1);
    CHECK(next_version(1, 0) == 2);
    CHECK(next_version(2, 1) == 0x10001);
    CHECK(next_version(0x10001, 1) == 0x10002);
    CHECK(next_version(0x10002, 2) == 0x20001);
    CHECK(next_version(0x20001, 1) == 0x20002);
    CHECK(next_version(0x18000, 1) == 0x20001);
    CHECK(next_version(0x1ffff, 1) == 0x20001);
    CHECK(epoch_after_peering(0, 0, true) == 0);
    CHECK(epoch_after_peering(0, 0, false) == 1);
    CHECK(epoch_after_peering(1, 1, false) == 2);
    CHECK(epoch_after_peering(2, 5, true) == 5);
    CHECK(epoch_after_peering(2, 5, false) == 6);
}

TEST_CASE("activation conditions") {
    Scheme two{SchemeKind::replicated, 2, 1, 0};
    SUBCASE("everybody there") {
        Activation a = check_activation(two, {{1, 2}, {}, {}}, {{1, 2}, {1, 2}, {}, false});
        CHECK(a.readiness == Readiness::ready);
        CHECK(a.current_set == std::vector<OsdNum>{1, 2});
        CHECK(a.dead.empty());
    }
    SUBCASE("a crashed OSD blocks until its key is gone") {
        Activation a = check_activation(two, {{1, 2}, {}, {}}, {{1, 2}, {1}, {}, false});
        CHECK(a.readiness == Readiness::never);
        CHECK(a.reason == "OSD 2 is up in etcd, but cannot be reached from here");
        a = check_activation(two, {{1, 2}, {}, {}}, {{1, 2}, {1}, {2}, false});
        CHECK(a.readiness == Readiness::wait);
        a = check_activation(two, {{1, 2}, {}, {}}, {{1, 2}, {1}, {}, true});
        CHECK(a.readiness == Readiness::ready);
        a = check_activation(two, {{1, 2}, {}, {}}, {{1}, {1}, {}, false});
        CHECK(a.readiness == Readiness::ready);
        CHECK(a.current_set == std::vector<OsdNum>{1, 0});
        CHECK(a.dead == std::vector<OsdNum>{2});
        CHECK(a.cursize == 1);
    }
    SUBCASE("pg_minsize") {
        Scheme strict{SchemeKind::replicated, 3, 2, 0};
        Activation a = check_activation(strict, {{1, 2, 3}, {}, {}}, {{1}, {1}, {}, false});
        CHECK(a.readiness == Readiness::never);
        CHECK(a.reason == "only 1 of [1,2,3] can be reached, pg_minsize is 2");
    }
    SUBCASE("a history set whose members are all away") {
        Activation a = check_activation(two, {{1, 2}, {3}, {{3}}}, {{1, 2}, {1, 2}, {}, false});
        CHECK(a.readiness == Readiness::never);
        CHECK(a.universe == std::vector<OsdNum>{1, 2, 3});
        a = check_activation(two, {{1, 2}, {}, {{2, 3}}}, {{1, 2}, {1, 2}, {}, false});
        CHECK(a.readiness == Readiness::ready);
        CHECK(a.dead == std::vector<OsdNum>{3});
    }
    SUBCASE("EC needs k of a history set") {
        Scheme ec{SchemeKind::ec, 3, 2, 1};
        CHECK(check_activation(ec, {{1, 2, 3}, {}, {{1, 4, 5}}}, {{1, 2, 3}, {1, 2, 3}, {}, false}).readiness ==
              Readiness::never);
        CHECK(check_activation(ec, {{1, 2, 3}, {}, {{4}}}, {{1, 2, 3}, {1, 2, 3}, {}, false}).readiness ==
              Readiness::ready);
    }
}

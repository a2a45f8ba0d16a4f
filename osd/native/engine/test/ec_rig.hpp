// SPDX-License-Identifier: GPL-2.0-or-later
// An erasure-coded pool on the simulated runtime, with an oracle of one inode's objects and a look at the chunks on disk.
#pragma once

#include <random>
#include <set>

#include "harness.hpp"

namespace vitastor::test {

struct EcScheme {
    const char* name;
    uint8_t scheme;  ///< 1 xor, 2 ec
    uint32_t data, parity;
};
inline constexpr EcScheme kEcSchemes[] = {{"xor 2+1", 1, 2, 1}, {"ec 2+2", 2, 2, 2}, {"ec 4+2", 2, 4, 2}};
inline constexpr uint32_t kChunk = 131072, kGranule = 4096;

struct EcRig {
    explicit EcRig(const EcScheme& scheme, const std::map<std::string, std::string>& settings = {},
                   wire::ImmediateCommit mode = wire::ImmediateCommit::all, uint32_t spares = 0, bool local_reads = false);
    static ClusterOptions options(const EcScheme& scheme, const std::map<std::string, std::string>& settings,
                                  wire::ImmediateCommit mode, uint32_t spares, bool local_reads);
    uint64_t span() const { return uint64_t{scheme.data} * kChunk; }
    uint32_t state() { return primary ? c.node(primary).state(1) : 0; }
    bool up(OsdNum osd) const { return !down.contains(osd); }
    /// What monitor and control do: the first OSD of the set that is up leads.
    void elect();
    void settle_history();
    void kill(OsdNum osd);
    void revive(OsdNum osd);
    /// Active with any flags.
    void until_active();
    void until_clean();
    std::vector<uint8_t> random_bytes(uint32_t len);
    /// Writes and tells the oracle. The reply's result.
    int64_t write(uint64_t offset, std::vector<uint8_t> data, Version cas = 0);
    /// Reads and compares with the oracle.
    void check_read(uint64_t offset, uint32_t len);
    /// After a moment all roles that are up hold one version, stable, of the content that the oracle and the code say, with bitmaps.
    void check_chunks();
    uint32_t pick(uint32_t below) { return static_cast<uint32_t>(rng() % below); }

    const EcScheme scheme;
    Cluster c;
    Client client;
    std::mt19937 rng{1};
    std::vector<OsdNum> set;
    std::set<OsdNum> down;
    OsdNum primary = 0;
    std::map<uint64_t, std::vector<uint8_t>> content;  ///< stripe -> bytes of an object that exists
    std::map<uint64_t, std::set<uint32_t>> present;    ///< granules written
    uint64_t acknowledged = 0;
};

}  // namespace vitastor::test

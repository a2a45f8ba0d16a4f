// SPDX-License-Identifier: GPL-2.0-or-later
#include "ec_rig.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "erasure/field.hpp"

namespace vitastor::test {

ClusterOptions EcRig::options(const EcScheme& scheme, const std::map<std::string, std::string>& settings,
                              wire::ImmediateCommit mode, uint32_t spares, bool local_reads) {
    ClusterOptions options;
    options.scheme = scheme.scheme;
    options.pg_size = scheme.data + scheme.parity;
    options.pg_minsize = scheme.data;
    options.parity = scheme.parity;
    options.osds = options.pg_size + spares;
    options.mode = mode;
    options.local_reads = local_reads;
    options.simulated = true;
    options.settings = {{"peer_connect_interval", "1"}};
    for (auto& [name, value] : settings) options.settings[name] = value;
    return options;
}

EcRig::EcRig(const EcScheme& scheme, const std::map<std::string, std::string>& settings, wire::ImmediateCommit mode, uint32_t spares,
             bool local_reads)
    : scheme(scheme), c(options(scheme, settings, mode, spares, local_reads)), client(c, 0) {
    for (OsdNum osd = 1; osd <= scheme.data + scheme.parity; osd++) set.push_back(osd);
    elect();
    until_clean();
}

void EcRig::elect() {
    OsdNum wanted = 0;
    for (OsdNum osd : set) {
        if (wanted == 0 && up(osd)) wanted = osd;
    }
    if (primary && up(primary)) c.stop_pg(primary);
    primary = wanted;
    if (primary) c.start_pg(primary, set);
}

void EcRig::settle_history() {
    if (primary && up(primary) && (state() & ~ps::left_on_dead) == ps::active) {
        c.history_sets.clear();
        c.all_peers = set;
        for (OsdNum osd : c.node(primary).states[1].dead_peers) c.all_peers.push_back(osd);
    }
}

void EcRig::kill(OsdNum osd) {
    settle_history();
    c.kill(osd);
    down.insert(osd);
    c.publish();
    if (primary == osd) {
        primary = 0;
        elect();
    }
}

void EcRig::revive(OsdNum osd) {
    down.erase(osd);
    c.start(osd);
    c.publish();
    if (primary == 0) elect();
}

void EcRig::until_active() {
    c.until("PG is active", [&] {
        if (!(state() & ps::active)) return false;
        const std::vector<OsdNum>& dead = c.node(primary).states[1].dead_peers;
        return std::all_of(down.begin(), down.end(), [&](OsdNum osd) { return std::find(dead.begin(), dead.end(), osd) != dead.end(); });
    });
}

void EcRig::until_clean() {
    c.until("PG is clean", [&] { return state() == ps::active; });
    settle_history();
}

std::vector<uint8_t> EcRig::random_bytes(uint32_t len) {
    std::vector<uint8_t> bytes(len);
    for (uint32_t i = 0; i < len; i += 4) {
        const uint32_t word = static_cast<uint32_t>(rng());
        std::memcpy(&bytes[i], &word, 4);
    }
    return bytes;
}

int64_t EcRig::write(uint64_t offset, std::vector<uint8_t> data, Version cas) {
    const uint64_t stripe = offset / span() * span();
    Reply reply = client.write(primary, kInode, offset, data, cas);
    for (int i = 0; i < 20 && reply.result == -EPIPE && cas == 0; i++) {  // as a client does
        c.turns(20);
        until_active();
        reply = client.write(primary, kInode, offset, data, cas);
    }
    if (reply.result >= 0) {
        REQUIRE(reply.result == static_cast<int64_t>(data.size()));
        acknowledged++;
        std::vector<uint8_t>& bytes = content[stripe];
        bytes.resize(span());
        std::memcpy(&bytes[offset - stripe], data.data(), data.size());
        for (uint64_t at = offset - stripe; at < offset - stripe + data.size(); at += kGranule) {
            present[stripe].insert(static_cast<uint32_t>(at / kGranule));
        }
    }
    return reply.result;
}

void EcRig::check_read(uint64_t offset, uint32_t len) {
    const uint64_t stripe = offset / span() * span();
    Reply reply = client.read(primary, kInode, offset, len);
    for (int i = 0; i < 20 && reply.result == -EPIPE; i++) {
        c.turns(20);
        until_active();
        reply = client.read(primary, kInode, offset, len);
    }
    CAPTURE(scheme.name);
    CAPTURE(offset);
    CAPTURE(len);
    REQUIRE(reply.result == len);
    std::vector<uint8_t> expected(len);
    if (content.contains(stripe) && len) std::memcpy(expected.data(), &content[stripe][offset - stripe], len);
    REQUIRE(reply.data == expected);
    CHECK((reply.version != 0) == content.contains(stripe));
    // Bits are meaningful for the chunks that the range touches; without a range for all.
    const uint32_t first = len ? static_cast<uint32_t>((offset - stripe) / kChunk) : 0;
    const uint32_t last = len ? static_cast<uint32_t>((offset - stripe + len - 1) / kChunk) : scheme.data - 1;
    REQUIRE(reply.bitmap.size() == scheme.data * 4);
    for (uint32_t i = 0; i < scheme.data * 32; i++) {
        const bool bit = reply.bitmap[i / 8] >> i % 8 & 1;
        const uint32_t chunk = i / 32;
        CHECK(bit == (chunk >= first && chunk <= last && present[stripe].contains(i)));
    }
}

void EcRig::check_chunks() {
    const std::vector<uint8_t> matrix = erasure::parity_matrix(scheme.data, scheme.parity);
    CAPTURE(scheme.name);
    c.turns(150);  // versions become stable behind their replies
    for (auto& [stripe, bytes] : content) {
        CAPTURE(stripe);
        std::vector<std::vector<uint8_t>> chunks, bitmaps;
        for (uint32_t role = 0; role < scheme.data; role++) {
            chunks.emplace_back(bytes.begin() + role * kChunk, bytes.begin() + (role + 1) * kChunk);
            std::vector<uint8_t> bitmap(4);
            for (uint32_t granule : present[stripe]) {
                if (granule / 32 == role) bitmap[granule % 32 / 8] = static_cast<uint8_t>(bitmap[granule % 32 / 8] | 1u << granule % 8);
            }
            bitmaps.push_back(bitmap);
        }
        for (uint32_t row = 0; row < scheme.parity; row++) {
            std::vector<uint8_t> chunk(kChunk), bitmap(4);
            std::vector<const uint8_t*> in, in_bitmaps;
            for (uint32_t i = 0; i < scheme.data; i++) {
                in.push_back(chunks[i].data());
                in_bitmaps.push_back(bitmaps[i].data());
            }
            erasure::combine_reference(&matrix[row * scheme.data], in.data(), scheme.data, chunk.data(), kChunk);
            erasure::combine_reference(&matrix[row * scheme.data], in_bitmaps.data(), scheme.data, bitmap.data(), 4);
            chunks.push_back(chunk);
            bitmaps.push_back(bitmap);
        }
        Version version = 0;
        for (uint32_t role = 0; role < set.size(); role++) {
            if (set[role] == 0 || !up(set[role])) continue;
            CAPTURE(role);
            const auto& objects = c.disks[set[role]].objects;
            const auto found = objects.find({kInode, stripe | role});
            REQUIRE(found != objects.end());
            const auto& [newest, copy] = *found->second.rbegin();
            CHECK(copy.stable);
            if (version == 0) version = newest;
            CHECK(newest == version);
            CHECK(copy.data == chunks[role]);
            CHECK(copy.bitmap == bitmaps[role]);
        }
    }
}

}  // namespace vitastor::test

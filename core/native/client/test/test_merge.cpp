// SPDX-License-Identifier: GPL-2.0-or-later
// Merge of layers against a model: which granule of which layer ends where, and that nothing else is written.
#include <doctest/doctest.h>

#include <random>

#include "client/merge.hpp"
#include "fake_cluster.hpp"

using namespace fake;
using client::MergeCas;
using client::MergeOptions;
using client::OpKind;

namespace {

struct Merged {
    bool done = false;
    int result = 0;
    std::string json;
    uint64_t progress_done = 0, progress_total = 0, progress_bytes = 0;
    static void fn(void* arg, int result, const char* json) {
        auto* self = static_cast<Merged*>(arg);
        self->done = true;
        self->result = result;
        self->json = json;
    }
    static void progress(void* arg, uint64_t done, uint64_t total, uint64_t bytes) {
        auto* self = static_cast<Merged*>(arg);
        CHECK(done >= self->progress_done);
        self->progress_done = done;
        self->progress_total = total;
        self->progress_bytes = bytes;
    }
    uint64_t number(const std::string& key) const {
        auto at = json.find("\"" + key + "\":");
        REQUIRE(at != std::string::npos);
        return std::stoull(json.substr(at + key.size() + 3));
    }
};

/// Offset (of kGranule) -> what is written there. 0: zeroes.
using Layer = std::map<uint64_t, uint64_t>;
using Layers = std::map<InodeNum, Layer>;

void fill(uint8_t* to, uint64_t id) {
    memset(to, 0, kGranule);
    for (size_t i = 0; id && i + 8 <= kGranule; i += 8) {
        const uint64_t word = id * 0x9e3779b97f4a7c15ull + i;
        memcpy(to + i, &word, 8);
    }
}

struct Rig : World {
    std::mt19937_64 random;
    Layers model;
    std::vector<InodeNum> chain;
    uint64_t next_id = 1;
    std::map<uint64_t, uint64_t> ids;  ///< first word of a granule -> id

    explicit Rig(uint64_t seed, const std::string& mode = "all") : World(mode), random(seed) {
        add_osd(1);
        add_osd(2);
        ids[0] = 0;
        layers.options["client_wait_up_timeout"] = "4";
        pool2_extra = R"(,"immediate_commit":")" + mode + "\"";
    }
    uint64_t below(uint64_t limit) { return random() % limit; }
    uint64_t fresh_id() {
        if (below(8) == 0) return 0;
        const uint64_t id = next_id++;
        ids[id * 0x9e3779b97f4a7c15ull] = id;
        return id;
    }
    Osd& owner_of(InodeNum inode, uint64_t stripe) {
        return *osds[pool_of(inode) == 1 && stripe / kBlock % 2 == 0 ? 1 : 2];
    }
    void put_granule(InodeNum inode, uint64_t offset, uint64_t id) {
        Osd& any = *osds[1];
        const uint32_t size = any.span_of(inode), granule = any.granule_of(inode);
        Osd& osd = owner_of(inode, offset / size * size);
        auto& object = osd.objects[{inode, offset / size * size}];
        object.data.resize(size);
        object.bitmap.resize(size / granule / 8);
        object.version += object.version ? 0 : 1;
        const uint64_t inside = offset % size;
        object.bitmap[inside / granule / 8] |= static_cast<uint8_t>(1 << inside / granule % 8);
        fill(object.data.data() + inside, id);
        osd.durable[{inode, offset / size * size}] = object;
        model[inode][offset] = id;
    }
    /// Layers of random density over `objects` blocks of 128 KiB. pools[i]: of layer i.
    void make_chain(const std::vector<PoolId>& pools, uint64_t objects) {
        chain.clear();
        uint64_t number = 100;
        for (PoolId pool : pools) {
            const InodeNum inode = full_inode(pool, number++);
            chain.push_back(inode);
            model[inode];
            const uint64_t coarse = osds[1]->granule_of(inode) / kGranule;
            for (uint64_t object = 0; object < objects; object++) {
                const uint64_t density = below(4);
                if (density == 0) continue;
                for (uint64_t g = 0; g < kBlock / kGranule; g += coarse) {
                    if (density == 1 ? below(16) != 0 : density == 2 ? below(2) != 0 : false) continue;
                    for (uint64_t i = 0; i < coarse; i++) put_granule(inode, object * kBlock + (g + i) * kGranule, fresh_id());
                }
            }
        }
    }
    /// What the stores hold. Also checks that presence is whole granules and that absent ones were never written.
    Layers stored() {
        Layers found;
        for (InodeNum inode : chain) found[inode];
        for (auto& [number, osd] : osds)
            for (auto& [object, value] : osd->objects) {
                CHECK(&owner_of(object.inode, object.stripe) == osd.get());
                const uint32_t granule = osd->granule_of(object.inode);
                for (uint64_t at = 0; at < value.data.size(); at += kGranule) {
                    if (!(value.bitmap[at / granule / 8] >> (at / granule % 8) & 1)) continue;
                    uint64_t word = 0;
                    memcpy(&word, value.data.data() + at, 8);
                    auto known = ids.find(word);
                    REQUIRE(known != ids.end());
                    std::vector<uint8_t> expected(kGranule);
                    fill(expected.data(), known->second);
                    REQUIRE(memcmp(expected.data(), value.data.data() + at, kGranule) == 0);
                    found[object.inode][object.stripe + at] = known->second;
                }
            }
        return found;
    }
    /// Of merging all layers into chain[target]: highest present layer wins.
    Layers expected(size_t target, uint64_t* copied = nullptr) {
        Layers after = model;
        Layer& into = after[chain[target]];
        uint64_t count = 0;
        for (size_t i = target; i-- > 0;)
            for (auto& [offset, id] : model[chain[i]]) count += into.emplace(offset, id).second;
        std::set<uint64_t> above;
        for (size_t i = target + 1; i < chain.size(); i++)
            for (auto& [offset, id] : model[chain[i]]) {
                count += above.insert(offset).second && !(into.count(offset) && !model[chain[target]].count(offset));
                into[offset] = id;
            }
        if (copied) *copied = count;
        return after;
    }
    MergeOptions options(size_t target) {
        MergeOptions options;
        options.layers = chain;
        options.target = target;
        options.iodepth = 1 + static_cast<uint32_t>(below(8));
        options.fsync_interval = 5;
        return options;
    }
    void start_merge(const MergeOptions& given, Merged& merged, size_t index = 0) {
        MergeOptions options = given;
        options.progress_fn = Merged::progress;
        options.progress_arg = &merged;
        client::Merge::start(context(index), options, Merged::fn, &merged);
    }
    Merged merge(const MergeOptions& options, size_t index = 0) {
        Merged merged;
        start_merge(options, merged, index);
        CHECK(until([&] { return merged.done; }));
        return merged;
    }
    client::Image* open_inode(InodeNum inode, size_t index = 0) {
        client::ImageOptions image_options;
        image_options.inode = inode;
        image_options.size_bytes = 1 << 30;
        client::Image* image = create(std::move(image_options));
        return run(OpKind::open, image, 0, 0, {}, index) == 0 ? image : nullptr;
    }
    void restore(const Objects& first, const Objects& second) {
        osds[1]->objects = osds[1]->durable = first;
        osds[2]->objects = osds[2]->durable = second;
    }
};

}  // namespace

TEST_CASE("merge: every target of random chains becomes the view, nothing else changes") {
    for (uint64_t seed = 1; seed <= 6; seed++) {
        CAPTURE(seed);
        Rig rig(seed);
        // Even seeds: the second pool has larger blocks and coarser granules. Three kinds of pools would be too much of the same.
        if (seed % 2 == 0) {
            for (auto& [number, osd] : rig.osds) osd->geometry[2] = {2 * kBlock, 2 * kGranule};
            rig.pool2_extra += R"(,"block_size":262144,"bitmap_granularity":8192)";
        }
        rig.feed();
        std::vector<PoolId> pools;
        const size_t depth = seed == 5 ? 2 : 3 + rig.below(4);
        for (size_t i = 0; i < depth; i++) pools.push_back(seed == 1 ? 1 : static_cast<PoolId>(1 + rig.below(2)));
        if (seed % 2 == 0) pools[0] = 2, pools[1] = 1;
        rig.make_chain(pools, 40);
        const Objects first = rig.osds[1]->objects, second = rig.osds[2]->objects;
        for (size_t target = 0; target < depth; target++) {
            CAPTURE(target);
            rig.restore(first, second);
            uint64_t copied = 0;
            const Layers expected = rig.expected(target, &copied);
            const int deletes = rig.osds[1]->deletes + rig.osds[2]->deletes;
            Merged merged = rig.merge(rig.options(target));
            if (pools[target] == 2 && seed % 2 == 0 && std::count(pools.begin(), pools.end(), 1u)) {
                CHECK(merged.result == -EINVAL);
                CHECK(merged.json.find("is coarser than") != std::string::npos);
                continue;
            }
            CHECK(merged.json.find(R"("error":"")") != std::string::npos);
            REQUIRE(merged.result == 0);
            CHECK((rig.stored() == expected));
            // Exactly the granules that differ in origin.
            CHECK(merged.number("written_bytes") == copied * kGranule);
            CHECK(merged.progress_bytes == copied * kGranule);
            CHECK(merged.progress_done == merged.progress_total);
            CHECK(merged.number("merged_objects") == merged.number("total_objects"));
            CHECK(rig.osds[1]->deletes + rig.osds[2]->deletes == deletes);
            // Once more: the same. What lies below the target is not copied again.
            Merged again = rig.merge(rig.options(target));
            CHECK(again.result == 0);
            CHECK((rig.stored() == expected));
            if (target + 1 == depth) CHECK(again.number("written_bytes") == 0);
        }
    }
}

TEST_CASE("merge: 64 layers in two pools") {
    Rig rig(64);
    rig.feed();
    std::vector<PoolId> pools;
    for (size_t i = 0; i < 64; i++) pools.push_back(static_cast<PoolId>(1 + rig.below(2)));
    rig.make_chain(pools, 6);
    const Objects first = rig.osds[1]->objects, second = rig.osds[2]->objects;
    for (size_t target : {size_t{0}, size_t{31}, size_t{63}}) {
        CAPTURE(target);
        rig.restore(first, second);
        CHECK(rig.merge(rig.options(target)).result == 0);
        CHECK((rig.stored() == rig.expected(target)));
    }
}

TEST_CASE("merge: interrupted at any write, with errors on the way, and repeated") {
    for (const std::string mode : {"all", "none"}) {
        CAPTURE(mode);
        for (auto [cas, seed] : {std::pair{MergeCas::never, 7}, {MergeCas::always, 7}, {MergeCas::never, 16}, {MergeCas::always, 16}, {MergeCas::always, 17}}) {
            CAPTURE(seed);
            Rig rig(static_cast<uint64_t>(seed), mode);
            for (auto& [number, osd] : rig.osds) osd->volatile_writes = mode == "none";
            rig.feed();
            rig.make_chain({1, 2, 1, 1}, 20);
            const Objects first = rig.osds[1]->objects, second = rig.osds[2]->objects;
            for (size_t target = 0; target < 4; target++) {
                CAPTURE(target);
                rig.restore(first, second);
                const Layers expected = rig.expected(target);
                MergeOptions options = rig.options(target);
                options.cas = cas;
                int interrupted = 0;
                size_t index = rig.contexts.size();
                int limit = 2;
                for (bool done = false; !done; limit = limit * 3 + 1, index++) {
                    // Each attempt is a process of its own, killed after `limit` writes.
                    int writes = 0;
                    auto fault = [&](net::Request& request) {
                        writes += request.opcode == wire::Opcode::write;
                        return rig.below(100) == 0 ? -EIO : 0;
                    };
                    for (auto& [number, osd] : rig.osds) osd->fault = fault;
                    Merged merged;
                    rig.start_merge(options, merged, index);
                    REQUIRE(rig.until([&] { return merged.done || writes >= limit; }));
                    done = merged.done;
                    rig.contexts[index]->close();
                    REQUIRE(merged.done);
                    done |= merged.result == 0;  // it ended while the context was being closed
                    CHECK(merged.result == (done ? 0 : -ECANCELED));
                    interrupted += !done;
                    for (auto& [number, osd] : rig.osds) {
                        osd->fault = nullptr;
                        // Loses what was not synced. At the end always, whichever attempt has written it.
                        if (mode == "none" && (done || rig.below(3) == 0)) osd->restart();
                    }
                    // Presence never lies: what is there is what belongs there.
                    const Layers now = rig.stored();
                    for (auto& [offset, id] : now.at(rig.chain[target])) {
                        auto before = rig.model[rig.chain[target]].find(offset);
                        auto after = expected.at(rig.chain[target]).find(offset);
                        REQUIRE(after != expected.at(rig.chain[target]).end());
                        CHECK((id == after->second || (before != rig.model[rig.chain[target]].end() && id == before->second)));
                    }
                }
                CHECK(interrupted >= 2);
                // Where OSDs lose what was not synced, that is nothing of it.
                CHECK((rig.stored() == expected));
            }
        }
    }
}

TEST_CASE("merge: what a run that was killed has written is durable when the next one ends") {
    Rig rig(9, "none");
    for (auto& [number, osd] : rig.osds) osd->volatile_writes = true;
    rig.feed();
    rig.make_chain({1, 1, 1}, 20);
    MergeOptions options = rig.options(2);
    options.cas = MergeCas::never;
    options.fsync_interval = 1 << 20;  // one flush, behind all writes
    const Layers expected = rig.expected(2);
    Merged killed;
    // Its writes arrive, its first SYNC never does.
    bool syncing = false;
    for (auto& [number, osd] : rig.osds)
        osd->fault = [&](net::Request& request) {
            syncing |= request.opcode == wire::Opcode::sync;
            return request.opcode == wire::Opcode::sync ? 1 : 0;
        };
    const size_t index = rig.contexts.size();
    rig.start_merge(options, killed, index);
    REQUIRE(rig.until([&] { return syncing; }));
    rig.contexts[index]->close();
    for (auto& [number, osd] : rig.osds) osd->fault = nullptr;
    Merged again;
    rig.start_merge(options, again, index + 1);
    REQUIRE(rig.until([&] { return again.done; }));
    CHECK(again.result == 0);
    CHECK((rig.stored() == expected));
    for (auto& [number, osd] : rig.osds) osd->restart();
    CHECK((rig.stored() == expected));
}

TEST_CASE("merge: others write to the top layer meanwhile") {
    for (const std::string mode : {"all", "small"}) {
        for (uint64_t seed = 21; seed <= 23; seed++) {
            CAPTURE(mode);
            CAPTURE(seed);
            Rig rig(seed, mode);
            rig.feed();
            rig.make_chain({1, 1, 2, 1}, 12);
            Layers expected = rig.expected(3);
            rig.context(1);
            client::Image* image = rig.open_inode(rig.chain[3], 1);
            REQUIRE(image);
            // Each closes a connection, and where flushes are needed that costs a pass, of which there are 8.
            int faults = mode == "all" ? 1000 : 7;
            for (auto& [number, osd] : rig.osds)
                osd->fault = [&](net::Request&) { return faults && rig.below(40) == 0 ? (faults--, -EPIPE) : 0; };
            Merged merged;
            rig.start_merge(rig.options(3), merged);
            struct Writer {
                Done done;
                std::vector<uint8_t> data = std::vector<uint8_t>(kGranule);
                uint64_t offset = 0;
                bool busy = false;
            };
            std::vector<Writer> writers(4);
            std::set<uint64_t> taken;
            auto turn = [&] {
                for (Writer& writer : writers) {
                    if (writer.busy && !writer.done.done) continue;
                    if (writer.busy) {
                        CHECK(writer.done.result == kGranule);
                        taken.erase(writer.offset);
                    }
                    writer.busy = !merged.done;
                    if (merged.done) continue;
                    do writer.offset = rig.below(12 * kBlock / kGranule) * kGranule;
                    while (!taken.insert(writer.offset).second);
                    const uint64_t id = rig.fresh_id();
                    fill(writer.data.data(), id);
                    expected[rig.chain[3]][writer.offset] = id;
                    writer.done = {};
                    rig.start(OpKind::write, image, writer.offset, kGranule, {{writer.data.data(), kGranule}}, writer.done, 1);
                }
                for (Writer& writer : writers)
                    if (writer.busy) return false;
                return merged.done;
            };
            REQUIRE(rig.until(turn));
            INFO(merged.json);
            CHECK(merged.result == 0);
            CHECK((rig.stored() == expected));
        }
    }
}

TEST_CASE("merge: an object of others all the time is given up, plainly written where nobody else may") {
    Rig rig(30);
    rig.feed();
    const InodeNum low = full_inode(1, 100), top = full_inode(1, 101);
    rig.chain = {low, top};
    rig.put_granule(low, 0, rig.fresh_id());
    rig.put_granule(top, 2 * kGranule, rig.fresh_id());
    auto& object = rig.osds[1]->objects[{top, 0}];
    bool plain = false;
    int tries = 0;
    rig.osds[1]->fault = [&](net::Request& request) {
        if (request.opcode != wire::Opcode::write) return 0;
        auto io = wire::decode<wire::ClientRequest>(wire::ConstHeaderBytes(request.header, wire::kHeaderSize));
        plain = io.version == 0;
        if (tries++ < 5) object.version++;
        return 0;
    };
    CHECK(rig.merge(rig.options(1)).result == 0);
    CHECK(tries == 6);
    CHECK_FALSE(plain);
    // Something stands on the top layer, but it may be written to; and cannot be, when it is read-only.
    rig.put("/config/inode/1/101", R"({"name":"top","size":1073741824,"parent_id":100})");
    rig.put("/config/inode/1/102", R"({"name":"child","size":1073741824,"parent_id":101})");
    auto knows = [&](InodeNum inode, bool readonly) {
        return rig.until([&] {
            auto found = rig.context().map()->inodes->find(inode);
            return found != rig.context().map()->inodes->end() && found->second.readonly == readonly;
        });
    };
    REQUIRE(knows(full_inode(1, 102), false));
    rig.put_granule(low, 5 * kGranule, rig.fresh_id());
    CHECK(rig.merge(rig.options(1)).result == 0);
    CHECK_FALSE(plain);
    rig.put("/config/inode/1/101", R"({"name":"top","size":1073741824,"parent_id":100,"readonly":true})");
    REQUIRE(knows(top, true));
    rig.put_granule(low, 6 * kGranule, rig.fresh_id());
    CHECK(rig.merge(rig.options(1)).result == 0);
    CHECK(plain);
    CHECK((rig.stored() == rig.expected(1)));
}

TEST_CASE("merge: read-only metadata does not stop it, misuse and missing PGs do") {
    Rig rig(31);
    rig.layers.options["client_wait_up_timeout"] = "1";
    rig.feed();
    rig.context();
    rig.make_chain({1, 1}, 4);
    rig.put("/config/inode/1/101", R"({"name":"snap","size":1073741824,"parent_id":100,"readonly":true})");
    REQUIRE(rig.until_generation(2));
    MergeOptions options = rig.options(1);
    CHECK(rig.merge(options).result == 0);
    CHECK((rig.stored() == rig.expected(1)));
    options.layers = {rig.chain[0]};
    CHECK(rig.merge(options).result == -EINVAL);
    options.layers = {rig.chain[0], rig.chain[0]};
    options.target = 0;
    CHECK(rig.merge(options).json.find("inode 100 of pool 1 is twice among the layers") != std::string::npos);
    options.layers = {rig.chain[0], full_inode(9, 1)};
    CHECK(rig.merge(options).result == -ENOENT);
    options.layers = {rig.chain[0], full_inode(9, 1)};
    options.target = 1;
    CHECK(rig.merge(options).result == -ENOENT);
    options.target = 2;
    CHECK(rig.merge(options).result == -EINVAL);
    // A layer without any data.
    options.layers = {full_inode(1, 500), rig.chain[1]};
    options.target = 1;
    Merged nothing = rig.merge(options);
    CHECK(nothing.result == 0);
    CHECK(nothing.number("total_objects") == 0);
    // Listing waits for a PG that does not come, writing as well.
    rig.put("/pg/state/1/2", "");
    REQUIRE(rig.until_generation(3));
    Merged missing = rig.merge(rig.options(1));
    CHECK(missing.result == -ETIMEDOUT);
    CHECK(missing.json.find("PG 2 of pool 1 is inactive") != std::string::npos);
    rig.put("/pg/state/1/2", World::pg_state(2));
    rig.put_granule(rig.chain[0], 20 * kBlock, rig.fresh_id());
    rig.osds[1]->fault = [&](net::Request& request) {
        if (request.opcode == wire::Opcode::write) rig.put("/pg/state/1/1", "");
        return request.opcode == wire::Opcode::write ? -EPIPE : 0;
    };
    Merged stuck = rig.merge(rig.options(0));
    CHECK(stuck.result == -ETIMEDOUT);
    CHECK(stuck.json.find("its PG is inactive") != std::string::npos);
}

TEST_CASE("merge: its context is closed under it") {
    Rig rig(32);
    rig.feed();
    rig.make_chain({1, 2, 1}, 20);
    const Layers expected = rig.expected(2);
    rig.context(1);
    int writes = 0;
    for (auto& [number, osd] : rig.osds)
        osd->fault = [&](net::Request& request) { return request.opcode == wire::Opcode::write && ++writes > 10 ? -ENOSPC : 0; };
    Merged merged;
    rig.start_merge(rig.options(2), merged, 1);
    REQUIRE(rig.until([&] { return writes > 10; }));
    rig.contexts[1]->close();
    CHECK(merged.done);
    CHECK(merged.result == -ECANCELED);
    for (auto& [number, osd] : rig.osds) osd->fault = nullptr;
    CHECK(rig.merge(rig.options(2)).result == 0);
    CHECK((rig.stored() == expected));
}

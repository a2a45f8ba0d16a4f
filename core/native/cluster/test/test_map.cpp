// SPDX-License-Identifier: GPL-2.0-or-later
// Keys to snapshots: misuse first.
#include <doctest/doctest.h>

#include <fstream>

#include "base/test/text_logger.hpp"
#include "cluster/map_builder.hpp"
#include "cluster/map_hub.hpp"
#include "cluster/model_source.hpp"

using namespace vitastor;
using namespace vitastor::cluster;

namespace {

struct World {
    TextLogger logger;
    MapBuilder builder;
    uint64_t revision = 100;
    explicit World(ConfigLayers layers = {}) : builder("/v", std::move(layers), logger) {}
    void put(const std::string& key, const std::string& value) {
        EtcdKeyValue event{"/v" + key, value, ++revision, false};
        builder.apply({&event, 1}, revision);
    }
    void remove(const std::string& key) {
        EtcdKeyValue event{"/v" + key, "", ++revision, true};
        builder.apply({&event, 1}, revision);
    }
    std::shared_ptr<const ClusterMap> map() { return builder.publish(); }
};

const char* kPool = R"({"1":{"name":"p","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":2}})";
const char* kConfig = R"({"items":{"1":{"1":{"osd_set":["1","2"],"primary":"1"},"2":{"osd_set":[2,0],"primary":2}}}})";

}  // namespace

TEST_CASE("pools: each wrong field is named, the other pools work") {
    World world;
    world.put("/config/pools", R"({
        "1":{"name":"good","scheme":"replicated","pg_size":"2","pg_minsize":1,"pg_count":"8"},
        "0":{"name":"zero"}, "x":5, "70000":{}, "2":7,
        "3":{"name":"","scheme":"replicated","pg_size":2,"pg_minsize":1},
        "4":{"name":"n","scheme":"magic","pg_size":2,"pg_minsize":1},
        "5":{"name":"n","scheme":"ec","pg_size":2,"pg_minsize":1},
        "6":{"name":"n","scheme":"ec","pg_size":4,"pg_minsize":3,"parity_chunks":3},
        "7":{"name":"n","scheme":"replicated","pg_size":2,"pg_minsize":1,"block_size":5000},
        "8":{"name":"n","scheme":"replicated","pg_size":2,"pg_minsize":"many"},
        "9":{"name":"n","scheme":"replicated","pg_size":2,"pg_minsize":1,"immediate_commit":5},
        "10":{"name":"x","scheme":"xor","pg_size":3,"pg_minsize":2},
        "11":{"name":"e","scheme":"jerasure","pg_size":6,"pg_minsize":4,"parity_chunks":2,"pg_stripe_size":4194304}})");
    auto map = world.map();
    CHECK(map->pools.size() == 4);
    REQUIRE(map->pools.count(1));
    CHECK(map->pools.at(1)->pg_size == 2);
    CHECK(map->pools.at(1)->pgs.empty());
    CHECK(map->pools.at(9)->immediate_commit == wire::ImmediateCommit::none);
    CHECK(map->pools.at(10)->data_chunks() == 2);
    CHECK(map->pools.at(10)->pg_stripe_size == 262144);
    CHECK(map->pools.at(11)->object_size() == 4 * 131072);
    CHECK(map->pools.at(11)->pg_stripe_size == 4194304);
    for (const char* part : {"/v/config/pools", "field 3.name", "field 4.scheme", "field 5.pg_size", "field 6.parity_chunks",
             "field 8.pg_minsize", "field 9.immediate_commit", "pool 7", "field 2:", "field x:", "field 0:"}) {
        CAPTURE(part);
        CHECK(world.logger.has(part));
    }
    world.put("/config/pools", "{broken");
    CHECK(world.map()->pools.size() == 4);
    CHECK(world.logger.has("invalid JSON"));
}

TEST_CASE("layout of a pool: its own value, else etcd's global, else the file's, else the default") {
    ConfigLayers layers;
    layers.file["block_size"] = "64k";
    layers.file["immediate_commit"] = "small";
    World world(layers);
    world.put("/config/pools", kPool);
    CHECK(world.map()->pools.at(1)->block_size == 65536);
    CHECK(world.map()->pools.at(1)->immediate_commit == wire::ImmediateCommit::small);
    world.put("/config/global", R"({"block_size":1048576,"immediate_commit":"none"})");
    CHECK(world.map()->pools.at(1)->block_size == 1048576);
    CHECK(world.map()->pools.at(1)->immediate_commit == wire::ImmediateCommit::none);
    world.put("/config/pools",
        R"({"1":{"name":"p","scheme":"replicated","pg_size":2,"pg_minsize":1,"block_size":131072,"bitmap_granularity":512}})");
    CHECK(world.map()->pools.at(1)->block_size == 131072);
    CHECK(world.map()->pools.at(1)->bitmap_bytes() == 32);
    world.put("/config/global", "[]");
    CHECK(world.logger.has("/v/config/global"));
    CHECK(world.map()->global_config->at("immediate_commit") == "none");
}

TEST_CASE("pg/config: strings and numbers, gaps, wrong lengths, old name") {
    World world;
    world.put("/config/pools", kPool);
    world.put("/pg/config", kConfig);
    auto map = world.map();
    REQUIRE(map->pools.at(1)->pgs.size() == 2);
    CHECK(map->pools.at(1)->pgs[0].osd_set == std::vector<OsdNum>{1, 2});
    CHECK(map->pools.at(1)->pgs[1].osd_set == std::vector<OsdNum>{2, 0});
    CHECK_FALSE(map->pools.at(1)->pgs[0].paused);
    CHECK(map->pools.at(1)->pg_of(131072) == 2);
    world.put("/pg/config", R"({"items":{"1":{"1":{"osd_set":[1],"primary":1},"2":{"osd_set":"x"},"3":{"osd_set":[1,2],"pause":true}}}})");
    map = world.map();
    CHECK(map->pools.at(1)->pgs.size() == 3);
    for (auto& pg : map->pools.at(1)->pgs) CHECK(pg.paused);
    CHECK(world.logger.has("items.1.2.osd_set"));
    world.put("/pg/config", R"({"items":{"1":{"1":{"osd_set":[1,2]},"3":{"osd_set":[1,2]}}}})");
    CHECK(world.map()->pools.at(1)->pgs.empty());
    world.put("/config/pgs", kConfig);
    CHECK(world.map()->pools.at(1)->pgs.empty());  // the new name wins while it is there
    world.remove("/pg/config");
    CHECK(world.map()->pools.at(1)->pgs.size() == 2);
}

TEST_CASE("pg/state: impossible values are ignored as a whole") {
    World world;
    world.put("/config/pools", kPool);
    world.put("/pg/config", kConfig);
    world.put("/pg/state/1/1", R"({"primary":"1","state":["active","left_on_dead"],"peers":[1,2]})");
    auto state = [&] { return world.map()->pools.at(1)->pgs[0].state; };
    uint32_t good = wire::pg_state::active | wire::pg_state::left_on_dead;
    CHECK(state() == good);
    CHECK(world.map()->pools.at(1)->pgs[0].usable());
    for (const char* bad : {R"({"primary":1,"state":["active","dancing"]})", R"({"primary":0,"state":["active"]})",
             R"({"state":["active"]})", R"({"primary":1,"state":"active"})", R"({"primary":1,"state":[]})",
             R"({"primary":1,"state":["active","peering"]})", R"({"primary":1,"state":["offline","active"]})",
             R"({"primary":1,"state":["incomplete","degraded"]})", "7", "{", R"({"primary":1,"state":[5]})"}) {
        CAPTURE(bad);
        world.put("/pg/state/1/1", bad);
        CHECK(state() == good);
    }
    world.put("/pg/state/1/1", R"({"primary":1,"state":["incomplete","has_invalid"]})");
    CHECK_FALSE(world.map()->pools.at(1)->pgs[0].usable());
    world.put("/pg/state/1/1", "");
    CHECK(state() == 0);
    world.put("/pg/state/0/1", "{}");
    world.put("/pg/state/nonsense", "{}");
    world.put("/pg/history/1/1", R"({"all_peers":["3",1],"osd_sets":[[1,2],"x",[3]],"epoch":7})");
    auto map = world.map();
    CHECK(map->pools.at(1)->pgs[0].all_peers == std::vector<OsdNum>{3, 1});
    CHECK(map->pools.at(1)->pgs[0].history_sets.size() == 2);
}

TEST_CASE("images: by hand, numbers or strings, parents, renames, twins") {
    World world;
    world.put("/config/inode/1/1", R"({"name":"testimg","size":2147483648})");
    world.put("/config/inode/1/2", R"({"name":"b","size":"4096","parent_id":"1","readonly":"yes"})");
    world.put("/config/inode/2/1", R"({"name":"c","size":4096,"parent_id":2,"parent_pool":"1"})");
    world.put("/config/inode/1/3", R"({"name":5,"size":-1,"readonly":[]})");
    world.put("/config/inode/1/4", R"({"name":"bad","size":1,"parent_id":"x"})");
    world.put("/config/inode/1/999999999999999999999", "{}");
    auto map = world.map();
    CHECK(map->image_by_name->at("testimg") == full_inode(1, 1));
    CHECK(map->inodes->at(full_inode(1, 2)).parent == full_inode(1, 1));
    CHECK(map->inodes->at(full_inode(1, 2)).readonly);
    CHECK(map->inodes->at(full_inode(2, 1)).parent == full_inode(1, 2));
    CHECK(map->inodes->at(full_inode(1, 3)).size == 0);
    CHECK_FALSE(map->inodes->count(full_inode(1, 4)));
    CHECK(world.logger.has("/v/config/inode/1/4: field parent_id"));
    // The snapshot by three puts (commands.md I3).
    world.put("/config/inode/1/1", R"({"name":"testimg@0","size":2147483648,"readonly":true})");
    CHECK_FALSE(world.map()->image_by_name->count("testimg"));
    world.put("/config/inode/1/5", R"({"name":"testimg","size":2147483648,"parent_id":1})");
    CHECK(world.map()->image_by_name->at("testimg") == full_inode(1, 5));
    world.put("/config/inode/1/6", R"({"name":"testimg","size":1})");
    CHECK(world.map()->image_by_name->at("testimg") == full_inode(1, 6));
    world.remove("/config/inode/1/6");
    CHECK(world.map()->image_by_name->at("testimg") == full_inode(1, 5));
}

TEST_CASE("a load replaces everything; unchanged pieces are shared between snapshots") {
    World world;
    world.put("/config/pools", kPool);
    world.put("/pg/config", kConfig);
    world.put("/config/inode/1/1", R"({"name":"gone","size":4096})");
    world.put("/osd/state/1", R"({"state":"up","addresses":["::1",5],"port":"7000","host":"h"})");
    world.put("/osd/state/2", R"({"state":"up","addresses":["::1"],"port":0})");
    world.put("/config/node_placement", R"({"rack1":{"level":"rack"},"h":{"level":"host","parent":"rack1"},"3":{"parent":"h"}})");
    auto first = world.map();
    CHECK(first->osds.at(1)->port == 7000);
    CHECK(first->osds.at(1)->addresses.size() == 1);
    CHECK_FALSE(first->osds.count(2));
    CHECK(first->node_placement->at("3").first == "osd");
    world.put("/pg/state/1/2", R"({"primary":2,"state":["active"]})");
    auto second = world.map();
    CHECK(second->generation == first->generation + 1);
    CHECK(second->inodes == first->inodes);
    CHECK(second->osds.at(1) == first->osds.at(1));
    CHECK(second->pools.at(1) != first->pools.at(1));
    CHECK(first->pools.at(1)->pgs[1].state == 0);
    CHECK(second->pools.at(1)->pgs[1].usable());
    std::vector<EtcdKeyValue> pairs{{"/v/config/pools", kPool, 5, false}};
    world.builder.load(pairs, 200);
    auto third = world.map();
    CHECK(third->revision == 200);
    CHECK(third->pools.at(1)->pgs.empty());
    CHECK(third->inodes->empty());
    CHECK(third->osds.empty());
}

TEST_CASE("the last event of a key counts, and nothing is published without a change") {
    World world;
    std::vector<EtcdKeyValue> events{{"/v/config/inode/1/1", R"({"name":"a","size":1})", 5, false},
        {"/v/config/inode/1/1", R"({"name":"b","size":1})", 6, false}, {"/other/key", "x", 6, false}};
    world.builder.apply(events, 6);
    auto map = world.map();
    CHECK(map->image_by_name->count("b"));
    CHECK_FALSE(map->image_by_name->count("a"));
    CHECK_FALSE(world.builder.changed());
    events.erase(events.begin());
    world.builder.apply(events, 6);
    CHECK_FALSE(world.builder.changed());
}

TEST_CASE("the model source feeds a hub; one snapshot a turn") {
    TextLogger logger;
    runtime::LoopOptions options;
    options.kind = runtime::LoopKind::epoll;
    auto loop = std::move(runtime::create_loop(options, logger).value());
    MapHub hub(*loop, ConfigLayers(), 0, logger);
    ModelEtcdSource source;
    source.feed_load({}, 10);
    source.start(hub);
    REQUIRE(hub.snapshot().map);
    for (uint64_t i = 1; i <= 5; i++)
        source.feed_events({{"/vitastor/config/inode/1/" + std::to_string(i), R"({"name":"n","size":1})", 10 + i, false}}, 10 + i);
    source.feed_events({{"/vitastor/config/global", R"({"client_retry_interval":"70"})", 16, false}}, 16);
    CHECK(hub.snapshot().map->generation == 1);
    loop->run_once(0);
    CHECK(hub.snapshot().map->generation == 2);
    CHECK(hub.snapshot().map->inodes->size() == 5);
    CHECK(hub.snapshot().config->client_retry_interval_ms == 70);
}

TEST_CASE("recorded keys of Vitastor 3.0.8 decode without a complaint") {
    std::string folder = std::string(VITASTOR_SOURCE_DIR) + "/../shared/fixtures/vitastor-3.0.8/";
    int files = 0;
    for (const char* name : {"etcd-healthy", "etcd-changed", "etcd-degraded", "etcd-recovered", "etcd-recovering",
             "etcd-rep-inconsistent", "etcd-ec-inconsistent", "etcd-xor-pool-refused"}) {
        std::ifstream file(folder + name + ".jsonl");
        if (!file) continue;
        files++;
        TextLogger logger;
        MapBuilder builder("/vitastor", {}, logger);
        std::vector<EtcdKeyValue> pairs;
        std::string line;
        while (std::getline(file, line)) {
            auto fields = decode_config_object(line);
            REQUIRE(fields.ok());
            auto& map = fields.value();
            if (!map.count("key") || !map.count("value")) continue;
            pairs.push_back({map["key"], map["value"], 5, false});
        }
        builder.load(pairs, 10);
        auto map = builder.publish();
        CAPTURE(name);
        CHECK(pairs.size() > 10);
        CHECK_FALSE(map->pools.empty());
        CHECK_FALSE(map->osds.empty());
        CHECK(logger.text == "");
    }
    if (!files) MESSAGE("left out: the recordings are not there");
}

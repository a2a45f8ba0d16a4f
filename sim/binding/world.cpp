// SPDX-License-Identifier: GPL-2.0-or-later
#include "world.hpp"

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

#include "runtime/task.hpp"

namespace vitastor::sim {

using runtime::kNever;
using runtime::NodeId;

Napi::Value throw_error(Napi::Env env, const std::string& text) {
    Napi::TypeError::New(env, text).ThrowAsJavaScriptException();
    return env.Undefined();
}

uint64_t u64_of(const Napi::Value& value) {
    bool lossless = false;
    return value.IsBigInt() ? value.As<Napi::BigInt>().Uint64Value(&lossless) : 0;
}

namespace {

NodeId node_of(const Napi::Value& value) { return value.As<Napi::Number>().Uint32Value(); }

/// Fields that are absent keep what they were.
void take(const Napi::Object& from, const char* name, uint64_t& to) {
    Napi::Value value = from.Get(name);
    if (value.IsNumber()) to = static_cast<uint64_t>(value.As<Napi::Number>().Int64Value());
    if (value.IsBigInt()) to = u64_of(value);
}
void take(const Napi::Object& from, const char* name, double& to) {
    Napi::Value value = from.Get(name);
    if (value.IsNumber()) to = value.As<Napi::Number>().DoubleValue();
}

void take_disk(const Napi::Object& from, runtime::SimDiskOptions& options) {
    if (from.Get("sectorBytes").IsNumber())
        options.atomic_bytes = options.sector_bytes = from.Get("sectorBytes").As<Napi::Number>().Uint32Value();
    take(from, "sizeBytes", options.size_bytes);
    take(from, "latencyNs", options.latency_ns);
    take(from, "jitterNs", options.jitter_ns);
    take(from, "syncLatencyNs", options.sync_latency_ns);
    take(from, "bytesPerUs", options.bytes_per_us);
    take(from, "slowChance", options.slow_chance);
    take(from, "slowNs", options.slow_ns);
    take(from, "shortChance", options.short_chance);
    if (from.Get("volatileCache").IsBoolean()) options.volatile_cache = from.Get("volatileCache").ToBoolean().Value();
    if (from.Get("tornSectors").ToBoolean().Value()) options.atomic_bytes = options.logical_block;
}

void take_network(const Napi::Object& from, runtime::SimNetworkOptions& options) {
    take(from, "latencyNs", options.latency_ns);
    take(from, "jitterNs", options.jitter_ns);
    take(from, "bytesPerUs", options.bytes_per_us);
    take(from, "shortChance", options.short_chance);
    take(from, "lateSentChance", options.late_sent_chance);
    take(from, "killChance", options.kill_chance);
    take(from, "killAfterMaxBytes", options.kill_after_max_bytes);
}

/// Data of the workload: one word of 8 bytes over and over, not zero (so are its parity chunks).
bool looks_like_data(const std::vector<uint8_t>& bytes) {
    static const uint8_t kZero[8] = {};
    return memcmp(bytes.data(), kZero, 8) != 0 && memcmp(bytes.data(), bytes.data() + 8, bytes.size() - 8) == 0;
}

/// A random sector with data of the workload; false: none was found in a bounded number of tries.
bool find_data(runtime::SimWorld& world, const std::string& path, uint64_t* offset, std::vector<uint8_t>* bytes) {
    constexpr int kTries = 4000;
    constexpr uint64_t kSector = 4096;
    uint64_t sectors = world.disk(path).size_bytes / kSector;
    for (int i = 0; i < kTries; i++) {
        *offset = world.random_u64() % sectors * kSector;
        *bytes = world.peek(path, *offset, kSector);
        if (looks_like_data(*bytes)) return true;
    }
    return false;
}

/// What the medium does behind everyone's back. Returns the offset, or -1: there was nothing to damage.
int64_t damage(runtime::SimWorld& world, const std::string& path, const std::string& kind) {
    uint64_t offset = 0, other = 0;
    std::vector<uint8_t> bytes, foreign;
    if (!find_data(world, path, &offset, &bytes)) return -1;
    if (kind == "bit rot") {
        world.flip_bit(path, offset * 8 + world.random_u64() % (bytes.size() * 8));
        return static_cast<int64_t>(offset);
    }
    // A misdirected write: what belongs elsewhere lies here.
    if (!find_data(world, path, &other, &foreign) || foreign == bytes) return -1;
    world.poke(path, offset, foreign);
    return static_cast<int64_t>(offset);
}

/// They share the arena.
int living_worlds = 0;

}  // namespace

World::World(Napi::Env env, uint64_t seed) : env_(env) {
    MemoryFrom memory(MemoryFrom::arena);
    living_worlds++;
    world_ = new runtime::SimWorld(seed);
    calls_ = new std::deque<JsCall>;
    processes_ = new std::vector<Process*>;
}

void World::destroy() {
    for (Process* process : *processes_) process->die();
    world_->set_trace(nullptr);
    lent_.Reset();
    world_ = nullptr;
    calls_ = nullptr;
    processes_ = nullptr;
    if (--living_worlds > 0) return;
    runtime::drop_free_frames();
    clear_arena();
}

Napi::Value World::lent_bytes(const uint8_t* data, size_t size) {
    if (lent_.IsEmpty() || lent_.Value().ByteLength() < size) lent_ = Napi::Persistent(Napi::ArrayBuffer::New(env_, size));
    Napi::ArrayBuffer memory = lent_.Value();
    if (size > 0) memcpy(memory.Data(), data, size);
    return Napi::Uint8Array::New(env_, size, memory, 0);
}

bool World::deliver() {
    bool any = false;
    while (!calls_->empty() && !env_.IsExceptionPending()) {
        JsCall call = std::move(calls_->front());
        calls_->pop_front();
        Napi::HandleScope scope(env_);
        MemoryFrom memory(MemoryFrom::heap);
        call(env_);
        any = true;
    }
    return any;
}

Napi::Object World::object() {
    Napi::Object object = Napi::Object::New(env_);
    World* self = this;
    add_method(*self, object, "nowNs", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        return Napi::BigInt::New(info.Env(), self->world_->now_ns());
    });
    add_method(*self, object, "nextNs", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        uint64_t next = self->world_->next_event_ns();
        return Napi::BigInt::New(info.Env(), next == kNever ? int64_t{-1} : static_cast<int64_t>(next));
    });
    add_method(*self, object, "run", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        const uint64_t limit = u64_of(info[0]);
        if (self->deliver()) return Napi::Boolean::New(info.Env(), true);
        while (self->world_->step_until(limit)) {
            if (self->deliver()) return Napi::Boolean::New(info.Env(), true);
        }
        return Napi::Boolean::New(info.Env(), false);
    });
    add_method(*self, object, "note", [self](const Napi::CallbackInfo& info) {
        self->world_->note(info[0].ToString().Utf8Value());
    });
    add_method(*self, object, "traceTo", [self](const Napi::CallbackInfo& info) {
        std::shared_ptr<FILE> file(fopen(info[0].ToString().Utf8Value().c_str(), "w"), [](FILE* f) {
            if (f) fclose(f);
        });
        if (!file) return;
        self->world_->set_trace([self, file](const std::string& line) {
            fprintf(file.get(), "%" PRIu64 " %016" PRIx64 " %s\n", self->world_->now_ns(), self->world_->trace_hash(), line.c_str());
        });
    });
    add_method(*self, object, "hash", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        char text[17];
        snprintf(text, sizeof text, "%016" PRIx64, self->world_->trace_hash());
        return Napi::String::New(info.Env(), text);
    });
    add_method(*self, object, "addNode", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        runtime::SimNodeOptions options;
        options.name = info[0].ToString().Utf8Value();
        options.addresses = {info[1].ToString().Utf8Value()};
        if (info[2].IsNumber()) options.drift_ppm = info[2].As<Napi::Number>().Int32Value();
        return Napi::Number::New(info.Env(), self->world_->add_node(options));
    });
    add_method(*self, object, "addDisk", [self](const Napi::CallbackInfo& info) {
        runtime::SimDiskOptions options;
        take_disk(info[1].As<Napi::Object>(), options);
        self->world_->add_disk(info[0].ToString().Utf8Value(), options);
    });
    add_method(*self, object, "setDisk", [self](const Napi::CallbackInfo& info) {
        std::string path = info[0].ToString().Utf8Value();
        runtime::SimDiskOptions options = self->world_->disk(path);
        take_disk(info[1].As<Napi::Object>(), options);
        self->world_->set_disk(path, options);
    });
    add_method(*self, object, "damageDisk", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        int64_t offset = damage(*self->world_, info[0].ToString().Utf8Value(), info[1].ToString().Utf8Value());
        return Napi::Number::New(info.Env(), static_cast<double>(offset));
    });
    add_method(*self, object, "setNetwork", [self](const Napi::CallbackInfo& info) {
        runtime::SimNetworkOptions options = self->world_->network();
        take_network(info[0].As<Napi::Object>(), options);
        self->world_->set_network(options);
    });
    add_method(*self, object, "killConnections", [self](const Napi::CallbackInfo& info) {
        self->world_->kill_connections(node_of(info[0]), node_of(info[1]));
    });
    add_method(*self, object, "spareConnections", [self](const Napi::CallbackInfo&) { self->world_->spare_connections(); });
    add_method(*self, object, "jumpClock", [self](const Napi::CallbackInfo& info) {
        self->world_->jump_wall_clock(node_of(info[0]), info[1].As<Napi::Number>().Int64Value());
    });
    add_method(*self, object, "events", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        return Napi::Number::New(info.Env(), static_cast<double>(self->world_->events()));
    });
    add_method(*self, object, "crash", [self](const Napi::CallbackInfo& info) {
        self->world_->crash(node_of(info[0]), info[1].ToBoolean().Value());
    });
    add_method(*self, object, "restart", [self](const Napi::CallbackInfo& info) {
        NodeId node = node_of(info[0]);
        if (!self->world_->running(node)) self->world_->restart(node);
    });
    add_method(*self, object, "cut", [self](const Napi::CallbackInfo& info) {
        self->world_->partition_one_way(node_of(info[0]), node_of(info[1]));
    });
    add_method(*self, object, "heal", [self](const Napi::CallbackInfo& info) {
        self->world_->heal_one_way(node_of(info[0]), node_of(info[1]));
    });
    add_method(*self, object, "plant", [self](const Napi::CallbackInfo& info) {
        self->planted_ = info[0].As<Napi::Number>().Uint32Value();
    });
    add_method(*self, object, "createEngine", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        return create_sim_engine(*self, info);
    });
    add_method(*self, object, "createClient", [self](const Napi::CallbackInfo& info) -> Napi::Value {
        return create_sim_client(*self, info);
    });
    add_method(*self, object, "destroy", [self](const Napi::CallbackInfo&) { self->destroy(); });
    return object;
}

}  // namespace vitastor::sim

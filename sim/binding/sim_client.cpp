// SPDX-License-Identifier: GPL-2.0-or-later
// A client (one context of libvitastor's own classes) on a simulated loop; etcd's contents are fed by JavaScript.
#include <map>
#include <memory>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/buffer.hpp"
#include "client/context.hpp"
#include "client/merge.hpp"
#include "client/purge.hpp"
#include "cluster/map_hub.hpp"
#include "cluster/model_source.hpp"
#include "world.hpp"

namespace vitastor::sim {
namespace {

class SilentLogger final : public Logger {
public:
    void write(LogLevel, const std::string&) override {}
};

std::vector<cluster::EtcdKeyValue> pairs_of(const Napi::Value& value) {
    Napi::Array array = value.As<Napi::Array>();
    std::vector<cluster::EtcdKeyValue> pairs;
    for (uint32_t i = 0; i < array.Length(); i++) {
        Napi::Object from = Napi::Value(array.Get(i)).As<Napi::Object>();
        cluster::EtcdKeyValue pair;
        pair.key = from.Get("key").ToString().Utf8Value();
        pair.value = from.Get("value").ToString().Utf8Value();
        pair.mod_revision = u64_of(from.Get("modRevision"));
        pair.deleted = pair.value.empty();
        pairs.push_back(std::move(pair));
    }
    return pairs;
}

cluster::ConfigLayers layers_of(const Napi::Value& value) {
    cluster::ConfigLayers layers;
    Napi::Object from = value.As<Napi::Object>();
    Napi::Array names = from.GetPropertyNames();
    for (uint32_t i = 0; i < names.Length(); i++) {
        std::string name = Napi::Value(names.Get(i)).ToString().Utf8Value();
        layers.options[name] = from.Get(name).ToString().Utf8Value();
    }
    return layers;
}

class SimClient;

/// One operation of JavaScript: its memory and who waits for it.
struct Request {
    SimClient* client = nullptr;
    Buffer buffer;
    iovec iov{};
    bool returns_data = false;
    bool has_buffer = true;
    uint64_t expected_version = 0;
    std::string text;  ///< JSON of a merge or a purge
    Napi::FunctionReference done;
};

class SimClient final : public Process {
public:
    SimClient(World& world, runtime::NodeId node, const cluster::ConfigLayers& layers)
        : world_(world),
          loop_(world.native().make_loop(node)),
          hub_(*loop_, layers, 0, logger_),
          shared_(hub_, logger_),
          context_(std::make_unique<client::Context>(shared_, *loop_)) {
        shared_.layers = layers;
        source_.start(hub_);
        world.add_process(*this);
    }

    Napi::Object object(Napi::Env env) {
        Napi::Object object = Napi::Object::New(env);
        add_method(world_, object, "load", [this](const Napi::CallbackInfo& info) {
            source_.feed_load(pairs_of(info[0]), u64_of(info[1]));
        });
        add_method(world_, object, "apply", [this](const Napi::CallbackInfo& info) {
            source_.feed_events(pairs_of(info[0]), u64_of(info[1]));
        });
        add_method(world_, object, "openImage", [this](const Napi::CallbackInfo& info) {
            client::ImageOptions options;
            options.name = info[1].ToString().Utf8Value();
            client::Image* image = shared_.create_image(std::move(options));
            images_[info[0].ToNumber().Uint32Value()] = image;
            start(info, client::OpKind::open, image, 0, 0, nullptr, 2);
        });
        add_method(world_, object, "read", [this](const Napi::CallbackInfo& info) {
            auto* request = new Request;
            request->returns_data = true;
            start(info, client::OpKind::read, image_of(info[0]), u64_of(info[1]), info[2].ToNumber().Uint32Value(), request, 3);
        });
        add_method(world_, object, "write", [this](const Napi::CallbackInfo& info) {
            auto data = info[2].As<Napi::Uint8Array>();
            auto* request = new Request;
            request->buffer = loop_->buffers().allocate(data.ByteLength());
            std::copy(data.Data(), data.Data() + data.ByteLength(), request->buffer.data());
            start(info, client::OpKind::write, image_of(info[0]), u64_of(info[1]), data.ByteLength(), request, 3);
        });
        add_method(world_, object, "compareWrite", [this](const Napi::CallbackInfo& info) {
            auto data = info[2].As<Napi::Uint8Array>();
            auto* request = new Request;
            request->buffer = loop_->buffers().allocate(data.ByteLength());
            request->expected_version = u64_of(info[3]);
            std::copy(data.Data(), data.Data() + data.ByteLength(), request->buffer.data());
            start(info, client::OpKind::compare_write, image_of(info[0]), u64_of(info[1]), data.ByteLength(), request, 4);
        });
        add_method(world_, object, "discard", [this](const Napi::CallbackInfo& info) {
            auto* request = new Request;
            request->has_buffer = false;
            start(info, client::OpKind::discard, image_of(info[0]), u64_of(info[1]), info[2].ToNumber().Uint32Value(), request, 3);
        });
        add_method(world_, object, "remove", [this](const Napi::CallbackInfo& info) {
            auto* request = new Request;
            request->has_buffer = false;
            request->expected_version = UINT64_MAX;
            start(info, client::OpKind::remove, image_of(info[0]), u64_of(info[1]), 0, request, 2);
        });
        add_method(world_, object, "flush", [this](const Napi::CallbackInfo& info) {
            start(info, client::OpKind::flush, image_of(info[0]), 0, 0, nullptr, 1);
        });
        add_method(world_, object, "merge", [this](const Napi::CallbackInfo& info) {
            client::MergeOptions options;
            Napi::Array layers = info[0].As<Napi::Array>();
            for (uint32_t i = 0; i < layers.Length(); i++) options.layers.push_back(u64_of(layers.Get(i)));
            options.target = info[1].ToNumber().Uint32Value();
            client::Merge::start(*context_, std::move(options), on_text, new_request(info, 2));
        });
        add_method(world_, object, "purge", [this](const Napi::CallbackInfo& info) {
            client::PurgeOptions options;
            options.pool = info[0].ToNumber().Uint32Value();
            options.inode = u64_of(info[1]);
            options.min_offset = u64_of(info[2]);
            options.cut = options.min_offset != 0;
            client::Purge::start(*context_, options, on_text, new_request(info, 3));
        });
        add_method(world_, object, "destroy", [this](const Napi::CallbackInfo&) { die(); });
        return object;
    }

    /// Operations may be in flight; like a killed process it cleans nothing up.
    void die() override {
        dead_ = true;
        for (Request* request : requests_) request->done.Reset();
    }

private:
    client::Image* image_of(const Napi::Value& number) { return images_[number.ToNumber().Uint32Value()]; }

    Request* new_request(const Napi::CallbackInfo& info, size_t done_index, Request* request = nullptr) {
        if (!request) request = new Request;
        request->client = this;
        requests_.insert(request);
        request->done = Napi::Persistent(info[done_index].As<Napi::Function>());
        return request;
    }

    static void on_text(void* arg, int result, const char* json) {
        auto* finished = static_cast<Request*>(arg);
        finished->text = json;
        SimClient* self = finished->client;
        self->world_.defer_call([self, finished, result](Napi::Env env) { self->finish(env, finished, result, 0); });
    }

    void start(const Napi::CallbackInfo& info, client::OpKind kind, client::Image* image, uint64_t offset,
               uint64_t length, Request* request, size_t done_index) {
        request = new_request(info, done_index, request);
        if (length > 0 && request->has_buffer && !request->buffer) request->buffer = loop_->buffers().allocate(length);
        client::Op* op = context_->take_op();
        op->kind = kind;
        op->image = image;
        op->offset = offset;
        op->length = length;
        op->expected_version = request->expected_version;
        if (length > 0 && request->has_buffer) {
            request->iov = {request->buffer.data(), length};
            client::Context::set_iov(*op, &request->iov, 1);
        }
        op->done_arg = request;
        op->done_fn = [](void* arg, int64_t result, uint64_t version) {
            auto* finished = static_cast<Request*>(arg);
            SimClient* self = finished->client;
            self->world_.defer_call([self, finished, result, version](Napi::Env env) { self->finish(env, finished, result, version); });
        };
        context_->start(*op);
    }

    void finish(Napi::Env env, Request* request, int64_t result, uint64_t version) {
        Napi::Value number = Napi::Number::New(env, static_cast<double>(result));
        Napi::Value at = Napi::BigInt::New(env, version);
        if (dead_) {
            // Nobody listens any more.
        } else if (request->returns_data) {
            size_t size = result > 0 ? static_cast<size_t>(result) : 0;
            request->done.Call({number, at, world_.lent_bytes(request->buffer.data(), size)});
        } else if (!request->text.empty()) {
            request->done.Call({number, Napi::String::New(env, request->text)});
        } else {
            request->done.Call({number, at});
        }
        requests_.erase(request);
        delete request;
    }

    World& world_;
    SilentLogger logger_;
    std::unique_ptr<runtime::Loop> loop_;
    cluster::ModelEtcdSource source_;
    cluster::MapHub hub_;
    client::Shared shared_;
    std::unique_ptr<client::Context> context_;
    std::map<uint32_t, client::Image*> images_;
    std::unordered_set<Request*> requests_;  ///< in flight; never walked but to forget them
    bool dead_ = false;
};

}  // namespace

Napi::Value create_sim_client(World& world, const Napi::CallbackInfo& info) {
    if (!info[0].IsNumber() || !info[1].IsObject()) return throw_error(info.Env(), "createClient(node, options)");
    auto* client = new SimClient(world, info[0].As<Napi::Number>().Uint32Value(), layers_of(info[1]));
    return client->object(info.Env());
}

}  // namespace vitastor::sim

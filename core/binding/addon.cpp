// SPDX-License-Identifier: GPL-2.0-or-later
// The C ABI in JavaScript, one-to-one: same names, same order, null for absent. Contexts have threads of their own.
// A call that returns a number has failed (negative errno) or, for I/O, been accepted (0); done functions run once.
#include <napi.h>

#include <cstdlib>
#include <cstring>

#include "base/crc32c.hpp"
#include "requests.hpp"
#include "vitastor.h"

namespace vitastor_node {
namespace {

constexpr napi_type_tag kClusterTag = {0x76697461'73746f72, 1};
constexpr napi_type_tag kContextTag = {0x76697461'73746f72, 2};
constexpr napi_type_tag kImageTag = {0x76697461'73746f72, 3};

struct ClusterHandle {
    Bridge* bridge = nullptr;
    vitastor_cluster* cluster = nullptr;
    Napi::FunctionReference log;
    static void close(void* arg) {
        auto* self = static_cast<ClusterHandle*>(arg);
        vitastor_cluster_close(std::exchange(self->cluster, nullptr));
    }
};
struct ContextHandle {
    Bridge* bridge = nullptr;
    vitastor_context* context = nullptr;
    static void close(void* arg) {
        auto* self = static_cast<ContextHandle*>(arg);
        vitastor_context_close(std::exchange(self->context, nullptr));
    }
};
struct ImageHandle {
    Bridge* bridge = nullptr;
    vitastor_image* image = nullptr;
    Napi::FunctionReference changed;
    static void close(void* arg) {
        auto* self = static_cast<ImageHandle*>(arg);
        vitastor_image_close(std::exchange(self->image, nullptr));
    }
};

Bridge& bridge_of(Napi::Env env) { return *env.GetInstanceData<Bridge>(); }

template <class Handle>
Napi::Value wrap(Napi::Env env, Handle* handle, const napi_type_tag& tag) {
    Napi::Object object = Napi::Object::New(env);
    napi_type_tag_object(env, object, &tag);
    // Handles are closed by hand; what is forgotten is closed with the environment.
    napi_wrap(env, object, handle, nullptr, nullptr, nullptr);
    return object;
}

/// nullptr and a pending TypeError: not such a handle, or closed.
template <class Handle>
Handle* unwrap(const Napi::Value& value, const napi_type_tag& tag, const char* what) {
    bool fits = false;
    void* handle = nullptr;
    if (value.IsObject() && napi_check_object_type_tag(value.Env(), value, &tag, &fits) == napi_ok && fits &&
        napi_unwrap(value.Env(), value, &handle) == napi_ok)
        return static_cast<Handle*>(handle);
    Napi::TypeError::New(value.Env(), std::string("not a vitastor ") + what).ThrowAsJavaScriptException();
    return nullptr;
}
ClusterHandle* cluster_of(const Napi::Value& v) { return unwrap<ClusterHandle>(v, kClusterTag, "cluster"); }
ContextHandle* context_of(const Napi::Value& v) { return unwrap<ContextHandle>(v, kContextTag, "context"); }
ImageHandle* image_of(const Napi::Value& v) { return unwrap<ImageHandle>(v, kImageTag, "image"); }

uint64_t u64(const Napi::Value& value) {
    if (value.IsNumber()) return static_cast<uint64_t>(value.As<Napi::Number>().Int64Value());
    bool lossless = false;
    return value.IsBigInt() ? value.As<Napi::BigInt>().Uint64Value(&lossless) : 0;
}
std::vector<uint64_t> u64_list(const Napi::Value& value) {
    std::vector<uint64_t> numbers;
    if (!value.IsArray()) return numbers;
    Napi::Array list = value.As<Napi::Array>();
    for (uint32_t i = 0; i < list.Length(); i++) numbers.push_back(u64(list.Get(i)));
    return numbers;
}
bool flag(const Napi::Value& value) { return value.ToBoolean().Value(); }
Napi::Value number(Napi::Env env, int value) { return Napi::Number::New(env, value); }
Napi::Value big(Napi::Env env, uint64_t value) { return Napi::BigInt::New(env, value); }

void on_done(void* arg, int64_t result, uint64_t version) {
    auto* request = static_cast<Request*>(arg);
    Event event;
    event.kind = Event::Kind::done;
    event.request = request;
    event.number = result;
    event.first = version;
    request->bridge->post(std::move(event));
}

void on_tool_done(void* arg, int result, const char* json) {
    auto* request = static_cast<Request*>(arg);
    Event event;
    event.kind = Event::Kind::tool_done;
    event.request = request;
    event.number = result;
    event.text = json;
    request->bridge->post(std::move(event));
}

void on_map_done(void* arg, int result, const vitastor_extent* extents, size_t count, uint64_t next_offset, const char* error) {
    auto* request = static_cast<Request*>(arg);
    Event event;
    event.kind = Event::Kind::map_done;
    event.request = request;
    event.number = result;
    event.first = next_offset;
    event.text = error;
    event.numbers.reserve(count * 2);
    for (size_t i = 0; i < count; i++) event.numbers.insert(event.numbers.end(), {extents[i].offset, extents[i].length});
    request->bridge->post(std::move(event));
}

void post_progress(void* arg, uint64_t done, uint64_t total, uint64_t more) {
    auto* request = static_cast<Request*>(arg);
    Event event;
    event.kind = Event::Kind::progress;
    event.request = request;
    event.first = done;
    event.second = total;
    event.third = more;
    request->bridge->post(std::move(event));
}

// ---- cluster

Napi::Value cluster_open(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    std::string path = info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : std::string();
    std::vector<std::string> texts;
    if (info[1].IsArray()) {
        Napi::Array list = info[1].As<Napi::Array>();
        for (uint32_t i = 0; i < list.Length(); i++) {
            Napi::Value pair = list.Get(i);
            if (!pair.IsArray()) return number(env, -EINVAL);
            for (uint32_t j = 0; j < 2; j++) texts.push_back(pair.As<Napi::Array>().Get(j).ToString().Utf8Value());
        }
    }
    std::vector<vitastor_option> options;
    for (size_t i = 0; i + 1 < texts.size(); i += 2) options.push_back({texts[i].c_str(), texts[i + 1].c_str()});
    auto* handle = new ClusterHandle;
    handle->bridge = &bridge_of(env);
    vitastor_cluster_options native{};
    native.struct_size = sizeof native;
    native.config_path = path.empty() ? nullptr : path.c_str();
    native.options = options.data();
    native.option_count = options.size();
    native.fail_fast = flag(info[2]);
    if (info[3].IsFunction()) {
        handle->log = Napi::Persistent(info[3].As<Napi::Function>());
        handle->bridge->add_function(&handle->log);
        native.log_arg = handle;
        native.log_fn = [](void* arg, int level, const char* text) {
            auto* self = static_cast<ClusterHandle*>(arg);
            Event event;
            event.kind = Event::Kind::log;
            event.function = &self->log;
            event.number = level;
            event.text = text;
            self->bridge->post(std::move(event));
        };
    }
    int result = vitastor_cluster_open(&native, &handle->cluster);
    if (result) return number(env, result);  // the handle stays for messages that are on their way
    handle->bridge->add_closer(Bridge::Order::cluster, ClusterHandle::close, handle);
    return wrap(env, handle, kClusterTag);
}

Napi::Value cluster_close(const Napi::CallbackInfo& info) {
    ClusterHandle* handle = cluster_of(info[0]);
    if (!handle || !handle->cluster) return info.Env().Undefined();
    handle->bridge->remove_closer(handle);
    ClusterHandle::close(handle);
    handle->bridge->remove_function(&handle->log);
    return info.Env().Undefined();
}

// ---- context

Napi::Value context_open(const Napi::CallbackInfo& info) {
    ClusterHandle* cluster = cluster_of(info[0]);
    if (!cluster) return info.Env().Undefined();
    vitastor_context_options native{};
    native.struct_size = sizeof native;
    native.own_thread = 1;
    native.spin_us = static_cast<uint32_t>(u64(info[1]));
    auto* handle = new ContextHandle;
    handle->bridge = cluster->bridge;
    int result = cluster->cluster ? vitastor_context_open(cluster->cluster, &native, &handle->context) : -EINVAL;
    if (result) {
        delete handle;
        return number(info.Env(), result);
    }
    handle->bridge->add_closer(Bridge::Order::context, ContextHandle::close, handle);
    return wrap(info.Env(), handle, kContextTag);
}

/// Joins the context's thread off JavaScript's; done runs afterwards.
class CloseWorker : public Napi::AsyncWorker {
public:
    CloseWorker(const Napi::Function& done, vitastor_context* context) : AsyncWorker(done), context_(context) {}
    void Execute() override { vitastor_context_close(context_); }

private:
    vitastor_context* context_;
};

Napi::Value context_close(const Napi::CallbackInfo& info) {
    ContextHandle* handle = context_of(info[0]);
    if (!handle) return info.Env().Undefined();
    handle->bridge->remove_closer(handle);
    (new CloseWorker(info[1].As<Napi::Function>(), std::exchange(handle->context, nullptr)))->Queue();
    return info.Env().Undefined();
}

// ---- image

Napi::Value image_open(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    ContextHandle* context = context_of(info[0]);
    if (!context) return env.Undefined();
    Napi::Object given = info[1].As<Napi::Object>();
    auto* handle = new ImageHandle;
    handle->bridge = context->bridge;
    vitastor_image_options native{};
    native.struct_size = sizeof native;
    std::string name;
    if (given.Get("image").IsString()) {
        name = given.Get("image").As<Napi::String>().Utf8Value();
        native.image = name.c_str();
    }
    native.pool = u64(given.Get("pool"));
    native.inode = u64(given.Get("inode"));
    native.size_bytes = u64(given.Get("sizeBytes"));
    native.read_only = flag(given.Get("readOnly"));
    native.skip_parents = flag(given.Get("skipParents"));
    if (info[2].IsFunction()) {
        handle->changed = Napi::Persistent(info[2].As<Napi::Function>());
        handle->bridge->add_function(&handle->changed);
        native.changed_arg = handle;
        native.changed_fn = [](void* arg, uint64_t size_bytes, int read_only) {
            auto* self = static_cast<ImageHandle*>(arg);
            Event event;
            event.kind = Event::Kind::changed;
            event.function = &self->changed;
            event.first = size_bytes;
            event.second = read_only != 0;
            self->bridge->post(std::move(event));
        };
    }
    Request* request = handle->bridge->begin(env, info[3].As<Napi::Function>());
    int result = context->context
                     ? vitastor_image_open(context->context, &native, &handle->image, on_done, request)
                     : -EINVAL;
    if (result) {
        handle->bridge->forget(request);
        handle->bridge->remove_function(&handle->changed);
        delete handle;
        return number(env, result);
    }
    handle->bridge->add_closer(Bridge::Order::image, ImageHandle::close, handle);
    return wrap(env, handle, kImageTag);
}

Napi::Value image_close(const Napi::CallbackInfo& info) {
    ImageHandle* handle = image_of(info[0]);
    if (!handle || !handle->image) return info.Env().Undefined();
    handle->bridge->remove_closer(handle);
    ImageHandle::close(handle);
    handle->bridge->remove_function(&handle->changed);
    return info.Env().Undefined();
}

template <auto Getter, bool kBig>
Napi::Value image_value(const Napi::CallbackInfo& info) {
    ImageHandle* handle = image_of(info[0]);
    if (!handle) return info.Env().Undefined();
    auto value = Getter(handle->image);
    if constexpr (kBig) return big(info.Env(), value);
    else return Napi::Number::New(info.Env(), value);
}

// ---- I/O

struct IoCall {
    ImageHandle* image = nullptr;
    ContextHandle* context = nullptr;
    Request* request = nullptr;
    iovec iov{};
};

/// Checks the handles; pins the buffer in info[buffer_index] if that is ≥ 0. False: an exception is pending.
bool begin_io(const Napi::CallbackInfo& info, int buffer_index, size_t done_index, IoCall& call) {
    call.image = image_of(info[0]);
    call.context = call.image ? context_of(info[1]) : nullptr;
    if (!call.context) return false;
    if (buffer_index >= 0 && !info[static_cast<size_t>(buffer_index)].IsBuffer()) {
        Napi::TypeError::New(info.Env(), "not a Buffer").ThrowAsJavaScriptException();
        return false;
    }
    call.request = call.image->bridge->begin(info.Env(), info[done_index].As<Napi::Function>());
    if (buffer_index >= 0) {
        auto buffer = info[static_cast<size_t>(buffer_index)].As<Napi::Buffer<uint8_t>>();
        call.iov = {buffer.Data(), buffer.Length()};
        call.request->buffer = Napi::Persistent(static_cast<Napi::Object>(buffer));
    }
    return true;
}

Napi::Value end_io(const Napi::CallbackInfo& info, IoCall& call, int result) {
    if (result) call.image->bridge->forget(call.request);
    return number(info.Env(), result);
}

template <auto Call>
Napi::Value transfer(const Napi::CallbackInfo& info) {
    IoCall call;
    if (!begin_io(info, 3, 4, call)) return info.Env().Undefined();
    int result = Call(call.image->image, call.context->context, u64(info[2]), call.iov.iov_len, &call.iov,
        call.iov.iov_len ? 1 : 0, on_done, call.request);
    return end_io(info, call, result);
}

Napi::Value compare_write(const Napi::CallbackInfo& info) {
    IoCall call;
    if (!begin_io(info, 3, 5, call)) return info.Env().Undefined();
    int result = vitastor_compare_write(call.image->image, call.context->context, u64(info[2]), call.iov.iov_len,
        &call.iov, 1, u64(info[4]), on_done, call.request);
    return end_io(info, call, result);
}

Napi::Value flush(const Napi::CallbackInfo& info) {
    IoCall call;
    if (!begin_io(info, -1, 2, call)) return info.Env().Undefined();
    return end_io(info, call, vitastor_flush(call.image->image, call.context->context, on_done, call.request));
}

template <auto Call>
Napi::Value range_call(const Napi::CallbackInfo& info) {
    IoCall call;
    if (!begin_io(info, -1, 4, call)) return info.Env().Undefined();
    int result = Call(call.image->image, call.context->context, u64(info[2]), u64(info[3]), on_done, call.request);
    return end_io(info, call, result);
}

Napi::Value purge(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    ContextHandle* context = context_of(info[0]);
    if (!context) return env.Undefined();
    Napi::Object given = info[1].As<Napi::Object>();
    vitastor_purge_options native{};
    native.struct_size = sizeof native;
    native.pool = u64(given.Get("pool"));
    native.inode = u64(given.Get("inode"));
    native.min_offset = u64(given.Get("minOffset"));
    native.max_offset = u64(given.Get("maxOffset"));
    native.iodepth = static_cast<uint32_t>(u64(given.Get("iodepth")));
    native.parallel_osds = static_cast<uint32_t>(u64(given.Get("parallelOsds")));
    native.wait_list = flag(given.Get("waitList"));
    native.down_ok = flag(given.Get("downOk"));
    native.cut = flag(given.Get("cut"));
    Request* request = context->bridge->begin(env, info[3].As<Napi::Function>());
    if (info[2].IsFunction()) request->progress = Napi::Persistent(info[2].As<Napi::Function>());
    native.progress_arg = request;
    native.progress_fn = post_progress;
    int result = context->context ? vitastor_purge(context->context, &native, on_tool_done, request) : -EINVAL;
    if (result) context->bridge->forget(request);
    return number(env, result);
}

Napi::Value merge(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    ContextHandle* context = context_of(info[0]);
    if (!context) return env.Undefined();
    Napi::Object given = info[1].As<Napi::Object>();
    const std::vector<uint64_t> layers = u64_list(given.Get("layers"));
    vitastor_merge_options native{};
    native.struct_size = sizeof native;
    native.layers = layers.data();
    native.layer_count = layers.size();
    native.target = u64(given.Get("target"));
    native.cas = given.Get("cas").ToNumber().Int32Value();
    native.iodepth = static_cast<uint32_t>(u64(given.Get("iodepth")));
    native.parallel_osds = static_cast<uint32_t>(u64(given.Get("parallelOsds")));
    native.fsync_interval = static_cast<uint32_t>(u64(given.Get("fsyncInterval")));
    Request* request = context->bridge->begin(env, info[3].As<Napi::Function>());
    if (info[2].IsFunction()) request->progress = Napi::Persistent(info[2].As<Napi::Function>());
    native.progress_arg = request;
    native.progress_fn = post_progress;
    int result = context->context ? vitastor_merge(context->context, &native, on_tool_done, request) : -EINVAL;
    if (result) context->bridge->forget(request);
    return number(env, result);
}

Napi::Value map_layers(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    ContextHandle* context = context_of(info[0]);
    if (!context) return env.Undefined();
    Napi::Object given = info[1].As<Napi::Object>();
    const std::vector<uint64_t> layers = u64_list(given.Get("layers"));
    vitastor_map_options native{};
    native.struct_size = sizeof native;
    native.layers = layers.data();
    native.layer_count = layers.size();
    native.min_offset = u64(given.Get("minOffset"));
    native.max_offset = u64(given.Get("maxOffset"));
    native.max_extents = u64(given.Get("maxExtents"));
    native.iodepth = static_cast<uint32_t>(u64(given.Get("iodepth")));
    native.parallel_osds = static_cast<uint32_t>(u64(given.Get("parallelOsds")));
    Request* request = context->bridge->begin(env, info[3].As<Napi::Function>());
    if (info[2].IsFunction()) request->progress = Napi::Persistent(info[2].As<Napi::Function>());
    native.progress_arg = request;
    native.progress_fn = [](void* arg, uint64_t done, uint64_t total) { post_progress(arg, done, total, 0); };
    int result = context->context ? vitastor_map_layers(context->context, &native, on_map_done, request) : -EINVAL;
    if (result) context->bridge->forget(request);
    return number(env, result);
}

/// No part of the C ABI, but what whoever copies bytes in JavaScript needs.
Napi::Value aligned_buffer(const Napi::CallbackInfo& info) {
    constexpr size_t kPage = 4096;
    const uint64_t bytes = u64(info[0]);
    void* memory = bytes && bytes < 1ull << 32 ? std::aligned_alloc(kPage, (bytes + kPage - 1) / kPage * kPage) : nullptr;
    if (!memory) {
        Napi::RangeError::New(info.Env(), "no memory of this size").ThrowAsJavaScriptException();
        return info.Env().Undefined();
    }
    return Napi::Buffer<uint8_t>::New(
        info.Env(), static_cast<uint8_t*>(memory), bytes, [](Napi::Env, uint8_t* data) { std::free(data); });
}
Napi::Value crc32c_of(const Napi::CallbackInfo& info) {
    if (!info[0].IsBuffer()) {
        Napi::TypeError::New(info.Env(), "data must be a Buffer").ThrowAsJavaScriptException();
        return info.Env().Undefined();
    }
    auto data = info[0].As<Napi::Buffer<uint8_t>>();
    const uint32_t crc = vitastor::crc32c(data.Data(), data.Length(), static_cast<uint32_t>(u64(info[1])));
    return Napi::Number::New(info.Env(), crc);
}

Napi::Value version(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), vitastor_version()); }

Napi::Object init(Napi::Env env, Napi::Object exports) {
    auto* bridge = new Bridge(env);
    env.SetInstanceData<Bridge>(bridge);
    // Registered after the thread-safe function, so it runs before that goes.
    napi_add_env_cleanup_hook(env, [](void* arg) { static_cast<Bridge*>(arg)->shut_down(); }, bridge);
    auto add = [&](const char* name, Napi::Value (*call)(const Napi::CallbackInfo&)) {
        exports.Set(name, Napi::Function::New(env, call, name));
    };
    add("version", version);
    add("clusterOpen", cluster_open);
    add("clusterClose", cluster_close);
    add("contextOpen", context_open);
    add("contextClose", context_close);
    add("imageOpen", image_open);
    add("imageClose", image_close);
    add("imageSize", image_value<vitastor_image_size, true>);
    add("imageInode", image_value<vitastor_image_inode, true>);
    add("imageBlockSize", image_value<vitastor_image_block_size, false>);
    add("imageGranularity", image_value<vitastor_image_granularity, false>);
    add("imageReadOnly", image_value<vitastor_image_read_only, false>);
    add("imageImmediateCommit", image_value<vitastor_image_immediate_commit, false>);
    add("read", transfer<vitastor_read>);
    add("write", transfer<vitastor_write>);
    add("compareWrite", compare_write);
    add("flush", flush);
    add("discard", range_call<vitastor_discard>);
    add("deleteObject", range_call<vitastor_delete_object>);
    add("purge", purge);
    add("merge", merge);
    add("mapLayers", map_layers);
    add("alignedBuffer", aligned_buffer);
    add("crc32c", crc32c_of);
    return exports;
}

}  // namespace
}  // namespace vitastor_node

static Napi::Object init_module(Napi::Env env, Napi::Object exports) { return vitastor_node::init(env, exports); }
NODE_API_MODULE(vitastor_core, init_module)

// SPDX-License-Identifier: GPL-2.0-or-later
// The jobs of vitastor-disk for Node: startJob(request) → { next() → Promise<string | null>, stop() }. Source: osd/src/disk.ts.
//
// A job runs on a thread of its own and stops when a batch of lines waits to be fetched, so that memory stays bounded however
// slow the reader is. next() gives the next batch (lines end with \n), null after the last one. The last line says how it ended.
#include <napi.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "js_reader.hpp"
#include "offline/job.hpp"
#include "runtime/loop.hpp"

namespace vitastor::binding {
namespace {

using offline::JobKind;
using offline::JsonLine;

constexpr size_t kBatchBytes = 256 << 10;

class DiskJob {
public:
    DiskJob(Napi::Env env, offline::JobRequest request) : env_(env), request_(std::move(request)) {
        const auto nothing = Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
        wake_ = Napi::ThreadSafeFunction::New(env, nothing, "vitastor-disk", 0, 1);
        wake_.Unref(env);
    }

    void start() {
        thread_ = runtime::start_thread("vitastor-disk", [](void* arg) { static_cast<DiskJob*>(arg)->run(); }, this);
    }

    /// JavaScript's thread.
    Napi::Value next() {
        Napi::Promise::Deferred promise = Napi::Promise::Deferred::New(env_);
        if (waiting_) {
            promise.Reject(Napi::Error::New(env_, "next: the last one is not settled yet").Value());
            return promise.Promise();
        }
        waiting_ = promise;
        wake_.Ref(env_);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            wanted_ = true;
        }
        deliver();
        return promise.Promise();
    }

    void stop() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stopped_ = true;
        }
        changed_.notify_all();
    }

    /// At the end of the environment: afterwards no thread of ours runs.
    void quit() {
        stop();
        thread_.reset();
    }

private:
    class Log final : public Logger {
    public:
        explicit Log(DiskJob& job) : job_(job) {}
        void write(LogLevel level, const std::string& text) override {
            if (level == LogLevel::error || level == LogLevel::warning)
                job_.emit(JsonLine("log").string("level", level == LogLevel::error ? "error" : "warning").string("text", text).take());
        }

    private:
        DiskJob& job_;
    };

    struct Ended {
        bool done = false;
        int status = 0;
    };
    static runtime::Task<void> run_to_end(runtime::Loop& loop, const offline::JobRequest& request, const offline::Output& output,
                                          Logger& logger, std::string& error, Ended& ended) {
        runtime::Task<int> work = offline::run_job(loop, request, output, logger, error);
        ended.status = co_await work;
        ended.done = true;
    }

    void run() {
        Log logger(*this);
        auto loop = runtime::create_loop({}, logger);
        std::string error;
        Ended ended;
        if (loop.ok()) {
            const offline::Output output = [this](std::string line) { return emit(std::move(line)); };
            runtime::spawn(run_to_end(*loop.value(), request_, output, logger, error, ended));
            while (!ended.done) loop.value()->run_once(runtime::kNever);
        } else {
            ended.status = loop.status().code();
            error = loop.status().message();
        }
        emit(JsonLine("end").negative("code", ended.status).string("text", ended.status < 0 ? error : "").take());
        {
            std::lock_guard<std::mutex> lock(mutex_);
            finished_ = true;
        }
        signal();
    }

    /// The job's thread: waits while a full batch is there. False: nobody wants more.
    bool emit(std::string line) {
        bool is_full;
        {
            std::unique_lock<std::mutex> lock(mutex_);
            changed_.wait(lock, [this] { return stopped_ || batch_.size() < kBatchBytes; });
            if (stopped_) return false;
            batch_ += line;
            batch_ += '\n';
            is_full = batch_.size() >= kBatchBytes;
        }
        if (is_full) signal();
        return true;
    }

    void signal() {
        wake_.NonBlockingCall(this, [](Napi::Env env, Napi::Function, DiskJob* self) {
            Napi::HandleScope scope(env);
            self->deliver();
        });
    }

    /// JavaScript's thread: settles the promise if there is something to say.
    void deliver() {
        std::string batch;
        bool is_end;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            if (!waiting_ || !wanted_ || (batch_.size() < kBatchBytes && !finished_)) return;
            batch.swap(batch_);
            is_end = finished_ && batch.empty();
            wanted_ = false;
        }
        changed_.notify_all();
        Napi::Promise::Deferred promise = *waiting_;
        waiting_.reset();
        wake_.Unref(env_);
        promise.Resolve(is_end ? Napi::Value(env_.Null()) : Napi::Value(Napi::String::New(env_, batch)));
    }

    Napi::Env env_;
    offline::JobRequest request_;
    Napi::ThreadSafeFunction wake_;
    std::unique_ptr<runtime::Thread> thread_;
    std::optional<Napi::Promise::Deferred> waiting_;
    std::mutex mutex_;  // guards what follows
    std::condition_variable changed_;
    std::string batch_;
    bool wanted_ = false, stopped_ = false, finished_ = false;
};

/// Fields in the order of osd/src/disk.ts.
offline::JobRequest read_request(JsReader& reader) {
    offline::JobRequest request;
    request.kind = static_cast<JobKind>(reader.word("kind", {"read_superblock", "write_superblock", "clear_superblock", "dump_objects",
                                                              "dump_log", "check", "layout", "resize"}));
    request.place.data_device = reader.text("dataDevice");
    request.place.data_offset = reader.u64("dataOffset");
    request.place.data_size = reader.u64("dataSize");
    request.place.meta_device = reader.text("metaDevice");
    request.place.meta_offset = reader.u64("metaOffset");
    request.place.meta_size = reader.u64("metaSize");
    request.place.io = static_cast<runtime::FileIo>(reader.word("io", {"direct", "cached", "direct_sync"}));
    request.place.is_shared_device = reader.boolean("isSharedDevice");
    request.force = reader.boolean("force");
    request.json = reader.text("json");
    request.room_bytes = reader.u64("roomBytes");
    request.form = static_cast<offline::LogForm>(reader.word("form", {"entries", "pages"}));
    request.data = reader.boolean("verifyData") ? offline::CheckData::yes : offline::CheckData::no;
    request.block_size = reader.u32("blockSize");
    request.bitmap_granularity = reader.u32("bitmapGranularity");
    request.checksums = reader.boolean("checksums");
    request.device_bytes = reader.u64("deviceSize");
    request.places.data_size = reader.u64("newDataSize");
    request.places.meta_device = reader.text("newMetaDevice");
    request.places.meta_offset = reader.u64("newMetaOffset");
    request.places.meta_size = reader.u64("newMetaSize");
    request.places.force = request.force;
    request.resize = reader.boolean("dryRun") ? offline::ResizeMode::dry_run : offline::ResizeMode::really;
    return request;
}

Napi::Value start_job(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    std::string problem;
    if (!info[0].IsObject()) problem = "an object is required";
    offline::JobRequest request;
    if (problem.empty()) {
        JsReader reader(info[0].As<Napi::Object>(), "request", problem);
        request = read_request(reader);
    }
    if (!problem.empty()) {
        Napi::TypeError::New(env, "startJob: " + problem).ThrowAsJavaScriptException();
        return env.Undefined();
    }
    // Lives until the process ends: its thread may outlast any JavaScript object.
    auto* job = new DiskJob(env, std::move(request));
    napi_add_env_cleanup_hook(env, [](void* arg) { static_cast<DiskJob*>(arg)->quit(); }, job);
    job->start();
    Napi::Object result = Napi::Object::New(env);
    result.Set("next", Napi::Function::New(env, [job](const Napi::CallbackInfo&) { return job->next(); }, "next"));
    result.Set("stop", Napi::Function::New(env, [job](const Napi::CallbackInfo&) { job->stop(); }, "stop"));
    return result;
}

}  // namespace
}  // namespace vitastor::binding

static Napi::Object init_module(Napi::Env env, Napi::Object exports) {
    exports.Set("startJob", Napi::Function::New(env, vitastor::binding::start_job, "startJob"));
    return exports;
}

NODE_API_MODULE(vitastor_disk, init_module)

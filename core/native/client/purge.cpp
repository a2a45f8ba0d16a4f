// SPDX-License-Identifier: GPL-2.0-or-later
#include "client/purge.hpp"

#include <algorithm>

#include "client/op_call.hpp"

namespace vitastor::client {
namespace {

constexpr int kMaxSyncRounds = 5;
constexpr uint64_t kProgressEvery = 64;

}  // namespace

Purge::Purge(Context& context, const PurgeOptions& options)
    : context_(context), options_(options), walk_(context, options.pool) {
    if (!options_.iodepth) options_.iodepth = 32;
    if (!options_.parallel_osds) options_.parallel_osds = 4;
    options_.iodepth = std::min(options_.iodepth, 4096u);
    options_.parallel_osds = std::min(options_.parallel_osds, 4096u);
}

void Purge::start(Context& context, const PurgeOptions& options,
    void (*done_fn)(void* arg, int result, const char* json), void* done_arg) {
    auto* purge = new Purge(context, options);
    purge->done_fn_ = done_fn;
    purge->done_arg_ = done_arg;
    runtime::spawn(purge->run());
}

void Purge::progress() {
    if (options_.progress_fn) options_.progress_fn(options_.progress_arg, removed_, total_, unlisted_);
}

runtime::Task<> Purge::run() {
    auto beginning = walk_.begin();
    int result = co_await beginning;
    if (result == 0) {
        unlisted_ = walk_.pg_count();
        pgs_.resize(unlisted_);
        for (int pass = 0; pass < (options_.wait_list ? 2 : 1); pass++) {
            listing_ = pass == 0;
            deleting_ = pass == 1 || !options_.wait_list;
            auto walking = walk_.each_pg(
                options_.parallel_osds, [](void* arg, PgNum pg) { return static_cast<Purge*>(arg)->visit(pg); }, this);
            co_await walking;
        }
        if (options_.cut && walk_.still_valid()) {
            auto cutting = cut_object();
            const int cut = co_await cutting;
            errors_ += cut != 0;
        }
        if (context_.closing()) result = -ECANCELED;
        else if (!walk_.still_valid()) result = -EAGAIN;
        else if (errors_ || !walk_.inactive_pgs.empty() || (!walk_.inactive_osds.empty() && !options_.down_ok)) result = -EIO;
    }
    // Out of whatever has woken us, before this object goes.
    Turn turn{context_.loop()};
    co_await turn;
    progress();
    std::string text = json();
    context_.count_callback();
    done_fn_(done_arg_, result, text.c_str());
    delete this;
}

runtime::Task<> Purge::visit(PgNum pg) {
    PgWork& work = pgs_[pg - 1];
    if (listing_) {
        auto listing = walk_.list(pg, {options_.inode, options_.min_offset, options_.max_offset}, &work.objects);
        work.listed = co_await listing;
        total_ += work.objects.size();
        unlisted_--;
        progress();
    }
    if (deleting_ && work.listed) {
        auto deleting = delete_pg(pg);
        co_await deleting;
    }
}

// ---- deleting

runtime::Task<int> Purge::delete_object(PgNum pg, ObjectId object) {
    uint64_t give_up_ns = walk_.deadline();
    int result = -EPIPE;
    while (walk_.still_valid()) {
        auto finding = walk_.primary_of(pg, give_up_ns);
        OsdLink* link = co_await finding;
        if (!link) break;
        CallAwait call;
        wire::RequestHeader header;
        header.opcode = wire::Opcode::del;
        wire::ClientRequest request;
        request.inode = object.inode;
        request.offset = object.stripe;
        wire::encode_request(call.header(), header, request);
        net::Connection* connection = link->connection;
        const uint64_t greetings = link->greetings;
        connection->send(call);
        int64_t answer = co_await call;
        result = static_cast<int>(answer);
        if (result == 0) {
            auto reply = wire::decode<wire::DeleteReply>(call.answer());
            if (reply.flags & wire::DeleteReply::kLeftOnDead) {
                for (uint32_t i = 0; i < std::min<uint32_t>(reply.osd_count, wire::kMaxDeadOsds); i++)
                    walk_.inactive_osds.insert(reply.osds[i]);
            }
            if (!(reply.flags & wire::DeleteReply::kSupported) && walk_.still_valid()) {
                const cluster::Pg& state = walk_.pool()->pool->pgs[pg - 1];
                for (auto* set : {&state.osd_set, &state.all_peers})
                    for (OsdNum osd : *set)
                        if (osd && !context_.map()->osds.count(osd)) walk_.inactive_osds.insert(osd);
            }
            co_return 0;
        }
        if (result == -EPIPE && call.status == 0) context_.reset_link(link, connection, "it does not serve the object now");
        if (result == -EAGAIN) {  // see Context::greet
            if (link->connection == connection) context_.greet(link, greetings);
            result = -EPIPE;
        }
        if (result != -EPIPE && result != -EIO && result != -ENOSPC) break;
        if (context_.loop().now_ns() >= give_up_ns) break;
        auto pausing = walk_.pause();
        co_await pausing;
    }
    co_return result;
}

runtime::Task<> Purge::delete_some(PgNum pg, size_t* next, uint64_t* failed) {
    auto& objects = pgs_[pg - 1].objects;
    while (*next < objects.size() && walk_.still_valid()) {
        ObjectId object = objects[(*next)++];
        auto deleting = delete_object(pg, object);
        int result = co_await deleting;
        if (result) {
            (*failed)++;
        } else if (++removed_ % kProgressEvery == 0) {
            progress();
        }
    }
}

runtime::Task<bool> Purge::sync_pg(PgNum pg, uint64_t epoch) {
    OsdLink* link = walk_.still_valid() ? walk_.pool()->primary[pg - 1] : nullptr;
    if (!link || !link->connection || link->epoch != epoch) co_return false;
    CallAwait call;
    wire::RequestHeader header;
    header.opcode = wire::Opcode::sync;
    wire::encode_request(call.header(), header);
    link->connection->send(call);
    int64_t result = co_await call;
    co_return result == 0;
}

runtime::Task<> Purge::delete_pg(PgNum pg) {
    auto& objects = pgs_[pg - 1].objects;
    uint64_t failed = 0, removed_before = 0;
    for (int round = 0; round < kMaxSyncRounds && walk_.still_valid(); round++) {
        OsdLink* link = walk_.pool()->primary[pg - 1];
        uint64_t epoch = link ? link->epoch : 0;
        removed_ -= removed_before;  // a repeated round counts its deletions once
        failed = 0;
        size_t next = 0;
        Join join;
        const unsigned count = static_cast<unsigned>(std::min<size_t>(options_.iodepth, objects.size()));
        join.add(count);
        for (unsigned i = 0; i < count; i++) runtime::spawn(joined(delete_some(pg, &next, &failed), &join));
        auto all = join.all();
        co_await all;
        removed_before = objects.size() - failed;
        if (!walk_.still_valid() || walk_.pool()->immediate || objects.empty()) break;
        // Without immediate commit a deletion counts after a SYNC over the connection that it went through.
        auto syncing = sync_pg(pg, epoch);
        bool durable = co_await syncing;
        if (durable) break;
        if (round == kMaxSyncRounds - 1) failed = objects.size();
    }
    errors_ += failed;
    progress();
}

/// Zeroes, not holes: a hole would show what a parent has there as soon as the image grows again. Where nothing is, nothing is written.
runtime::Task<int> Purge::cut_object() {
    PoolView* view = walk_.pool();
    const uint64_t size = view->object_size, granularity = view->pool->bitmap_granularity;
    const uint64_t begin = options_.min_offset, start = begin / granularity * granularity, end = (begin / size + 1) * size;
    if (begin % size == 0) co_return 0;
    ImageOptions options;
    options.inode = options_.inode;
    options.override_read_only = options.any_alignment = true;
    const GiveUpTick tick(context_);
    Image* image = open_internally(context_, std::move(options), static_cast<uint32_t>(granularity));
    std::vector<uint8_t> bitmap(((end - start) / granularity + 7) / 8);
    OpCall presence;
    presence.set(context_, OpKind::read_bitmap, image, start, bitmap.data(), bitmap.size());
    presence.op().length = end - start;
    presence.start();
    int64_t result = co_await presence;
    const auto present = [&](uint64_t offset) {
        const uint64_t bit = (offset - start) / granularity;
        return bitmap[bit / 8] >> (bit % 8) & 1;
    };
    for (uint64_t at = start; at < end && result >= 0;) {
        const uint64_t from = at;
        while (at < end && present(at)) at += granularity;
        if (at > from) {
            OpCall zeroing;
            zeroing.set(context_, OpKind::discard, image, std::max(from, begin));
            zeroing.op().length = at - std::max(from, begin);
            zeroing.start();
            result = co_await zeroing;
        } else {
            at += granularity;
        }
    }
    if (result >= 0) {
        OpCall flushing;
        flushing.set(context_, OpKind::flush, image, 0);
        flushing.start();
        result = co_await flushing;
    }
    close_internally(context_, image);
    co_return result < 0 ? static_cast<int>(result) : 0;
}

std::string Purge::json() const {
    auto list = [](const auto& numbers) {
        std::string text = "[";
        for (auto number : numbers) text += (text.size() > 1 ? "," : "") + std::to_string(number);
        return text + "]";
    };
    return "{\"removed_objects\":" + std::to_string(removed_) + ",\"total_objects\":" + std::to_string(total_) +
           ",\"error_count\":" + std::to_string(errors_) + ",\"inactive_osds\":" + list(walk_.inactive_osds) +
           ",\"inactive_pgs\":" + list(walk_.inactive_pgs) + "}";
}

}  // namespace vitastor::client

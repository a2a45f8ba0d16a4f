// SPDX-License-Identifier: GPL-2.0-or-later
// The steps that a PG's coroutine (pg_run.cpp) takes with each of its OSDs: locks, listings, flush of versions left unstable.
// Each runs as a coroutine of its own, counted in Pg::running, and says through `failed` that the attempt is to be given up.
// Source: semantics 7, 8; wire-protocol 9.7-9.9; safety 2, 5.
#include <algorithm>
#include <cinttypes>

#include "pg/peering.hpp"
#include "serve/answer.hpp"
#include "serve/planted.hpp"

namespace vitastor::serve {

using runtime::kNsPerMs;
using wire::Opcode;

namespace {
constexpr size_t kFlushTriples = 512;
constexpr unsigned kOwnLockRetries = 3;
constexpr uint64_t kFirstRetryMs = 5;  ///< of a lock or a listing; doubles up to pg_lock_retry_interval
constexpr uint32_t kFlushBatches = 64;  ///< at a time
}  // namespace

// ------------------------------------------------------------------ steps of peering

runtime::Task<> Osd::lock_peer(Pg& pg, OsdNum osd, uint32_t* failed) {
    bool reported = false;
    unsigned held_by_us = 0;
    uint64_t pause_ms = kFirstRetryMs;
    for (;;) {
        net::Connection* connection = peers_->get(osd);
        if (!connection || pg.disturbed || pg.stop) {
            (*failed)++;
            break;
        }
        CallAwait call;
        wire::LockRequest message{wire::LockRequest::kLock, pg.id.pool, pg.id.pg, wire::pg_state::peering};
        wire::encode_request(wire::HeaderBytes(call.request), {0, Opcode::sec_lock}, message);
        connection->send(call);
        pg.locked.insert(osd);  // from now on it may hold one for us
        int64_t result = co_await call;
        subop_stats_[static_cast<size_t>(Opcode::sec_lock)].add(0, 0);
        if (result == 0) break;
        if (call.status || (result != -EBUSY && result != -ENOENT)) {
            (*failed)++;
            if (!call.status && peers_->get(osd)) peers_->reset(osd, "SEC_LOCK failed with error " + std::to_string(result));
            break;
        }
        auto reply = wire::decode<wire::LockReply>(wire::ConstHeaderBytes(call.reply));
        if (!reported) {
            log(logger_, LogLevel::info, "PG %s: OSD %" PRIu64 " does not grant the lock (%s, held by %" PRIu64 "): trying again",
                pg_text(pg).c_str(), osd, result == -EBUSY ? "busy" : "PG not known there", reply.holder);
        }
        reported = true;
        // A hello of an older connection of ours, delayed on the way, came there after that of this one, which counts for nothing since.
        if (result == -EBUSY && reply.holder == osd_num_ && ++held_by_us > kOwnLockRetries) {
            VITASTOR_PROBE("an older connection of ours holds the lock");
            (*failed)++;
            if (peers_->get(osd) == connection) peers_->reset(osd, "it holds the lock for an older connection");
            break;
        }
        Pause pause(loop_, std::min<uint64_t>(pause_ms, settings_.pg_lock_retry_interval_ms) * kNsPerMs);
        co_await pause;
        pause_ms = std::min<uint64_t>(pause_ms * 2, settings_.pg_lock_retry_interval_ms);
    }
    release(pg);
}

runtime::Task<> Osd::announce_lock(Pg& pg, OsdNum osd, uint32_t state) {
    net::Connection* connection = peers_->get(osd);
    int64_t result = -EPIPE;
    if (connection) {
        CallAwait call;
        wire::LockRequest message{wire::LockRequest::kLock, pg.id.pool, pg.id.pg, state};
        const auto& current = pg.activation.current_set;
        for (uint32_t role = 0; pg.pool->codec && role < std::min<size_t>(current.size(), 64); role++) {
            if (current[role] == osd) message.roles |= uint64_t{1} << role;
        }
        wire::encode_request(wire::HeaderBytes(call.request), {0, Opcode::sec_lock}, message);
        connection->send(call);
        result = co_await call;
        subop_stats_[static_cast<size_t>(Opcode::sec_lock)].add(0, 0);
    }
    if (result < 0 && pg.active()) disturb(pg);
    if (--pg.announcing == 0 && pg.gate) {
        pg.gate = false;
        pg.gate_waiters.notify_all();
    }
    release(pg);
}

runtime::Task<> Osd::unlock_peer(Pg& pg, OsdNum osd) {
    net::Connection* connection = peers_->get(osd);
    if (connection && !pg.silent) {
        CallAwait call;
        wire::LockRequest message{wire::LockRequest::kUnlock, pg.id.pool, pg.id.pg, 0};
        wire::encode_request(wire::HeaderBytes(call.request), {0, Opcode::sec_lock}, message);
        connection->send(call);
        int64_t result = co_await call;
        if (result < 0) log(logger_, LogLevel::debug, "unlock at OSD %" PRIu64 " failed", osd);
    }
    release(pg);
}

runtime::Task<> Osd::unlock_all(Pg& pg) {
    std::set<OsdNum> locked;
    locked.swap(pg.locked);
    pg.locked_state = 0;
    pg.running += static_cast<uint32_t>(locked.size());
    for (OsdNum osd : locked) runtime::spawn(unlock_peer(pg, osd));
    runtime::Task<> drained = wait_running(pg);
    co_await drained;
}

runtime::Task<> Osd::list_self(Pg& pg, store::Listing* out, uint32_t* failed) {
    list_fence_.listed(pg.id, 0);
    runtime::Task<> settle = wait_secondary_writes();
    co_await settle;
    if (!pg.tombstones) {
        runtime::Task<int64_t> forgetting = forget_here(pg.id, kNewestVersion);
        int64_t forgotten = co_await forgetting;
        if (forgotten < 0 && forgotten != -EINVAL && forgotten != -EROFS) (*failed)++;
    }
    ListAwait list;
    PoolId pool = pg.id.pool;
    list.range = {pool, pg.id.pg, full_inode(pool, 0), full_inode(pool, (1ull << kPoolShift) - 1), 0, UINT64_MAX, 0};
    runtime::Task<int64_t> walking = list_store(list);
    int64_t result = co_await walking;
    if (result < 0) {
        (*failed)++;
        Pause pause(loop_, settings_.pg_lock_retry_interval_ms * kNsPerMs);
        co_await pause;
    }
    *out = std::move(list.listing);
    release(pg);
}

runtime::Task<> Osd::list_peer(Pg& pg, OsdNum osd, store::Listing* out, uint32_t* failed) {
    constexpr size_t kDecodeSlice = 1000;
    const PoolInfo info = pg.pool->info;
    bool reported = false;
    uint64_t pause_ms = kFirstRetryMs;
    for (;;) {
        net::Connection* connection = peers_->get(osd);
        if (!connection || pg.disturbed || pg.stop) {
            (*failed)++;
            break;
        }
        CallAwait call;
        wire::ListRequest message = list_of_pg(info, pg.id);
        if (pg.tombstones) message.flags = wire::ListRequest::kTombstones;
        wire::encode_request(wire::HeaderBytes(call.request), {0, Opcode::sec_list}, message);
        uint64_t start = loop_.now_ns();
        connection->send(call);
        int64_t result = co_await call;
        subop_stats_[static_cast<size_t>(Opcode::sec_list)].add((loop_.now_ns() - start) / 1000, 0);
        if (result == -EAGAIN && call.status == 0) {
            if (!reported) {
                log(logger_, LogLevel::info, "PG %s: OSD %" PRIu64 " does not know the pool's PGs yet: listing again",
                    pg_text(pg).c_str(), osd);
            }
            reported = true;
            Pause pause(loop_, std::min<uint64_t>(pause_ms, settings_.pg_lock_retry_interval_ms) * kNsPerMs);
            co_await pause;
            pause_ms = std::min<uint64_t>(pause_ms * 2, settings_.pg_lock_retry_interval_ms);
            continue;
        }
        auto reply = wire::decode<wire::ListReply>(wire::ConstHeaderBytes(call.reply));
        uint64_t count = result < 0 ? 0 : static_cast<uint64_t>(result);
        size_t bytes = call.reply_payload ? call.reply_payload.size() : 0;
        if (!pg.tombstones) reply.tombstone_count = 0;
        if (result < 0 || reply.stable_count > count || reply.tombstone_count > count - reply.stable_count || bytes != count * wire::kTripleSize) {
            (*failed)++;
            if (call.status == 0 && peers_->get(osd)) {
                peers_->reset(osd, result < 0 ? "SEC_LIST failed with error " + std::to_string(result)
                                              : "SEC_LIST answered with counts that do not fit");
            }
            break;
        }
        out->stable.reserve(reply.stable_count);
        out->unstable.reserve(count - reply.stable_count - reply.tombstone_count);
        out->tombstones.reserve(reply.tombstone_count);
        for (size_t i = 0; i < count; i += kDecodeSlice) {
            size_t n = std::min<size_t>(kDecodeSlice, count - i);
            std::span<const uint8_t> slice(call.reply_payload.data() + i * wire::kTripleSize, n * wire::kTripleSize);
            Result<std::vector<ObjectVersion>> triples = wire::decode_triples(slice);
            if (!triples.ok()) break;
            for (size_t j = 0; j < n; j++) {
                std::vector<ObjectVersion>& part = i + j < reply.stable_count              ? out->stable
                                                   : i + j < count - reply.tombstone_count ? out->unstable
                                                                                           : out->tombstones;
                part.push_back(triples.value()[j]);
            }
            if (n == kDecodeSlice) {
                Slices::Turn slice(background_);
                co_await slice;
            }
        }
        break;
    }
    if (planted_ & planted::kStaleList) *out = planted_lists_.try_emplace({pg.id, osd}, *out).first->second;
    release(pg);
}

// ------------------------------------------------------------------ flush of versions left unstable

runtime::Task<> Osd::flush_batch(Pg& pg, OsdNum osd, pg::FlushKind kind, std::vector<ObjectVersion> batch, uint32_t* failed) {
    int64_t result = 0;
    const bool bury = kind == pg::FlushKind::bury, rollback = kind == pg::FlushKind::rollback;
    if (osd == osd_num_) {
        const store::StoreOp op = bury ? store::StoreOp::del : rollback ? store::StoreOp::rollback : store::StoreOp::stabilize;
        runtime::Task<int64_t> changing = change_here(op, batch, !bury);
        result = co_await changing;
        if (result < 0) {
            log(logger_, LogLevel::error, "PG %s: own store failed to flush (error %d)", pg_text(pg).c_str(),
                static_cast<int>(-result));
            Pause pause(loop_, 1000 * kNsPerMs);
            co_await pause;
        }
    } else if (net::Connection* connection = peers_->get(osd)) {
        std::vector<uint8_t> bytes(batch.size() * wire::kTripleSize);
        wire::encode_triples(bytes, batch);
        CallAwait call;
        Opcode opcode = rollback || bury ? Opcode::sec_rollback : Opcode::sec_stabilize;
        wire::TripleRequest message{bytes.size(), bury ? wire::sub_flags::tombstone : 0};
        wire::encode_request(wire::HeaderBytes(call.request), {0, opcode}, message);
        call.payload[0] = {bytes.data(), bytes.size()};
        call.payload_count = 1;
        connection->send(call);
        result = co_await call;
        subop_stats_[static_cast<size_t>(opcode)].add(0, 0);
        if (result < 0 && call.status == 0 && peers_->get(osd)) {
            peers_->reset(osd, std::string(wire::opcode_name(opcode)) + " failed with error " + std::to_string(result));
        }
    } else {
        result = -EPIPE;
    }
    if (result < 0) (*failed)++;
    release(pg);
}

runtime::Task<> Osd::sync_step(Pg& pg, OsdNum osd, uint32_t* failed) {
    runtime::Task<int64_t> syncing = sync_on(osd);
    const int64_t synced = co_await syncing;
    if (synced < 0) (*failed)++;
    release(pg);
}

/// What was done on these OSDs before is durable. false: the attempt is to be given up.
runtime::Task<bool> Osd::sync_all_of(Pg& pg, std::vector<OsdNum> osds) {
    uint32_t failed = 0;
    pg.running += static_cast<uint32_t>(osds.size());
    for (OsdNum osd : osds) runtime::spawn(sync_step(pg, osd, &failed));
    runtime::Task<> drained = wait_running(pg);
    co_await drained;
    if (failed) pg.step_failed = true;
    co_return !failed && !pg.disturbed && !pg.stop;
}

/// Rollbacks before stabilisations, so that each object ends at its target version.
/// Without immediate_commit: what becomes stable is durable on all who have it first, or one of them loses power and the stable chunks
/// of the others are too few. What was rolled back does not come back under the number of a later version, and where what was deleted
/// lay, nothing comes back once a clean PG has forgotten who has had copies.
runtime::Task<bool> Osd::flush(Pg& pg, std::vector<pg::FlushAction> actions) {
    const wire::ImmediateCommit mode = pg.pool->info.immediate_commit;
    uint32_t failed = 0;
    for (pg::FlushKind kind : {pg::FlushKind::rollback, pg::FlushKind::stabilize, pg::FlushKind::bury}) {
        std::map<OsdNum, std::vector<ObjectVersion>> by_osd;
        std::vector<OsdNum> osds;
        for (const pg::FlushAction& action : actions) {
            if (action.kind == kind) by_osd[action.osd].push_back(action.what);
        }
        for (auto& [osd, all] : by_osd) osds.push_back(osd);
        if (kind == pg::FlushKind::stabilize && mode != wire::ImmediateCommit::all) {
            runtime::Task<bool> syncing = sync_all_of(pg, osds);
            const bool synced = co_await syncing;
            if (!synced) co_return false;
        }
        for (auto& [osd, all] : by_osd) {
            for (size_t i = 0; i < all.size(); i += kFlushTriples) {
                size_t n = std::min(kFlushTriples, all.size() - i);
                std::vector<ObjectVersion> batch(all.begin() + static_cast<long>(i), all.begin() + static_cast<long>(i + n));
                if (pg.running >= kFlushBatches) {
                    runtime::Task<> some = wait_running(pg);
                    co_await some;
                    if (failed || pg.disturbed || pg.stop) co_return false;
                }
                pg.running++;
                runtime::spawn(flush_batch(pg, osd, kind, std::move(batch), &failed));
            }
        }
        runtime::Task<> drained = wait_running(pg);
        co_await drained;
        if (failed || pg.disturbed || pg.stop) co_return false;
        if (kind == pg::FlushKind::stabilize || mode != wire::ImmediateCommit::none) continue;
        runtime::Task<bool> syncing = sync_all_of(pg, std::move(osds));
        const bool synced = co_await syncing;
        if (!synced) co_return false;
    }
    co_return true;
}

}  // namespace vitastor::serve

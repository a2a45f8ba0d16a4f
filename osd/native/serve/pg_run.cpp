// SPDX-License-Identifier: GPL-2.0-or-later
// Life of each led PG: one coroutine that peers, waits for disturbance, peers again, and at last gives the PG up.
// Source: semantics 7, 8; wire-protocol 9.7-9.9; safety 2, 5.
#include <algorithm>

#include "pg/peering.hpp"
#include "serve/answer.hpp"

namespace vitastor::serve {

using pg::Phase;
using pg::PhaseEvent;
using runtime::kNsPerMs;

namespace {
constexpr size_t kMergeSlice = 500;           ///< entries judged between two yields
constexpr uint64_t kConnectRecheckNs = 20 * kNsPerMs;
constexpr uint64_t kFailedStepNs = 50 * kNsPerMs;
}  // namespace

// ------------------------------------------------------------------ commands

void Osd::start_pg(const PgId& id, Pg::Start&& start) {
    auto it = pgs_.find(id);
    if (it != pgs_.end()) {  // the old interval ends first
        Pg& old = *it->second;
        old.next_start = std::move(start);
        old.stop = true;
        if (old.active()) close_dirty_clients(old);
        if (old.phase != Phase::stopping && old.phase != Phase::offline) move(old, PhaseEvent::stop);
        fail_history_waiters(old);
        return kick(old);
    }
    Pool* pool = find_pool(id.pool);
    bool known = pool && id.pg >= 1 && id.pg <= pool->info.pg_count && !stopping_;
    auto owned = std::make_unique<Pg>();
    Pg& pg = *owned;
    pg.osd = this;
    pg.id = id;
    pg.pool = pool;
    pg.interval = start.interval;
    pg.confirmed_epoch = pg.epoch = pg.wanted_epoch = start.epoch;
    pg.membership = std::move(start.membership);
    pg.kick.pg = &pg;
    pg.kick.on_run = on_kick;
    if (!led_before_.insert(id).second || led_before_.contains({id.pool, 0})) pg.sessionless_floor = next_serial_;
    if (!known) {
        log(logger_, LogLevel::error, "PG %u/%u cannot be led: its pool or number is not known here", id.pool, id.pg);
        pg.reason = "pool or PG number is not known to the OSD";
        events_.on_pg_state(pg, wire::pg_state::offline, {});
        return;
    }
    pool->pgs[id.pg - 1] = &pg;
    pgs_[id] = std::move(owned);
    move(pg, PhaseEvent::start);
    runtime::spawn(run_pg(pg));
}

void Osd::stop_pg(const PgId& id, uint64_t interval) {
    auto it = pgs_.find(id);
    if (it == pgs_.end() || (it->second->interval != interval && it->second->next_start)) {
        if (it != pgs_.end() && it->second->next_start->interval == interval) it->second->next_start.reset();
        Pg gone;
        gone.id = id;
        gone.interval = interval;
        return events_.on_pg_state(gone, wire::pg_state::offline, {});
    }
    Pg& pg = *it->second;
    if (pg.interval != interval) return;
    if (pg.active()) close_dirty_clients(pg);
    pg.stop = true;
    if (pg.phase != Phase::stopping && pg.phase != Phase::offline) move(pg, PhaseEvent::stop);
    fail_history_waiters(pg);
    kick(pg);
}

void Osd::stop_all() {
    stopping_ = true;
    if (pgs_.empty()) return events_.on_all_stopped();
    for (auto& [id, pg] : pgs_) {
        pg->next_start.reset();
        pg->stop = true;
        if (pg->active()) close_dirty_clients(*pg);
        if (pg->phase != Phase::stopping && pg->phase != Phase::offline) move(*pg, PhaseEvent::stop);
        fail_history_waiters(*pg);
        kick(*pg);
    }
}

// ------------------------------------------------------------------ peers

void Osd::set_peers(const std::vector<net::PeerAddress>& up) {
    std::map<OsdNum, net::PeerAddress> fresh;
    for (const net::PeerAddress& peer : up) {
        if (peer.osd != osd_num_ && peer.osd != 0) fresh[peer.osd] = peer;
    }
    std::vector<OsdNum> changed;
    for (auto& [osd, address] : up_) {
        if (fresh.contains(osd)) continue;
        peers_->set_address(osd, std::nullopt);
        drop_connections_of(osd);
        changed.push_back(osd);
    }
    for (auto& [osd, address] : fresh) {
        auto it = up_.find(osd);
        if (it != up_.end() && it->second == address) continue;
        peers_->set_address(osd, address);
        if (it == up_.end()) changed.push_back(osd);
    }
    up_ = std::move(fresh);
    for (OsdNum osd : changed) disturb_with(osd);
}

void Osd::on_peer_up(OsdNum osd) { disturb_with(osd); }

void Osd::on_peer_down(OsdNum osd) {
    events_.on_peer_lost(osd, peers_->last_error(osd));
    disturb_with(osd);
}

void Osd::disturb_with(OsdNum osd) {
    for (auto& [id, pg] : pgs_) {
        std::vector<OsdNum> universe = pg::universe_of(pg->membership);
        if (std::binary_search(universe.begin(), universe.end(), osd)) disturb(*pg);
    }
}

pg::Reachability Osd::reachability() {
    pg::Reachability world;
    world.allow_net_split = settings_.allow_net_split;
    world.up.push_back(osd_num_);
    world.connected.push_back(osd_num_);
    for (auto& [osd, address] : up_) {
        world.up.push_back(osd);
        if (peers_->get(osd)) {
            world.connected.push_back(osd);
        } else if (peers_->last_error(osd).empty()) {
            world.trying.push_back(osd);
        }
    }
    std::sort(world.up.begin(), world.up.end());
    std::sort(world.connected.begin(), world.connected.end());
    return world;
}

/// Connections are kept to everybody that some led PG may need.
void Osd::update_wanted() {
    std::set<OsdNum> needed;
    for (auto& [id, pg] : pgs_) {
        for (OsdNum osd : pg::universe_of(pg->membership)) needed.insert(osd);
    }
    std::erase_if(forward_to_, [&](OsdNum osd) { return !up_.contains(osd); });
    needed.insert(forward_to_.begin(), forward_to_.end());
    needed.erase(osd_num_);
    for (OsdNum osd : needed) {
        if (!wanted_.contains(osd)) peers_->want(osd);
    }
    for (OsdNum osd : wanted_) {
        if (!needed.contains(osd)) peers_->unwant(osd);
    }
    wanted_ = std::move(needed);
}

// ------------------------------------------------------------------ state

void Osd::kick(Pg& pg) {
    if (!pg.kick.linked()) loop_.defer(pg.kick);
}

void Osd::on_kick(runtime::Deferred* deferred) {
    Pg* pg = static_cast<Pg::Kick*>(deferred)->pg;
    pg->changed.notify_all();
    if (pg->dead && !pg->kick.linked()) pg->osd->erase_pg(pg);
}

void Osd::release(Pg& pg) {
    VITASTOR_ASSERT(pg.running > 0);
    if (--pg.running == 0 && !(pg.active() && !pg.disturbed && !pg.stop)) kick(pg);
}

void Osd::move(Pg& pg, PhaseEvent event) {
    std::optional<Phase> next = pg::next_phase(pg.phase, event);
    VITASTOR_ASSERT(next.has_value());
    if (pg.active() && *next != Phase::active) {
        pg.gate = false;
        pg.gate_waiters.notify_all();
        forget_unsynced(pg);
        if (pg.scrub_wanted) {  // control asks again when it is active again
            keep_scrub_cursor(pg);
            pg.scrub_wanted = false;
            pg.flags &= ~wire::pg_state::scrubbing;
            if (scrub_.chosen && scrub_.pg == pg.id) scrub_.forget();
            wake_scrub();
        }
    }
    pg.phase = *next;
    if (pg.active() && !pg.client_floor) pg.client_floor = next_serial_;  // nobody else leads it from here on
    publish(pg);
}

/// Membership changed: running operations end, then everybody is asked again.
void Osd::disturb(Pg& pg) {
    if (pg.stop) return;
    pg.disturbed = true;
    if (pg.active()) {
        close_dirty_clients(pg);
        unsynced_pgs_.erase(pg.id);
        pg.extras.clear();
        drop_unstable(pg);
        move(pg, PhaseEvent::disturb);
        fail_history_waiters(pg);
    }
    kick(pg);
}

/// The objects changed: flags, and what follows when the PG is clean.
void Osd::update_state(Pg& pg) {
    if (pg.active()) publish(pg);
}

void Osd::publish(Pg& pg) {
    uint32_t state = pg.state();
    std::vector<OsdNum> peers;
    for (OsdNum osd : pg.activation.current_set) {
        if (osd) peers.push_back(osd);
    }
    std::sort(peers.begin(), peers.end());
    if (pg.active() && pg::allows_local_reads(state)) {  // clean: the past is over (semantics 7.4)
        pg.membership.history_sets.clear();
        pg.membership.all_peers = pg.membership.target_set;
        pg.membership.all_peers.insert(pg.membership.all_peers.end(), pg.activation.dead.begin(), pg.activation.dead.end());
    }
    if (pg.active() && pg.buried) {
        if (state == wire::pg_state::active) {
            kick_forget();
        } else {
            pg.forget_after_ns = 0;  // as soon as it is clean
        }
    }
    if (!pg.locked.empty() && pg.phase != Phase::stopping && pg.phase != Phase::offline && state != pg.locked_state) {
        bool leaves = pg::allows_local_reads(pg.locked_state) && !pg::allows_local_reads(state);
        pg.locked_state = state;
        if (leaves && pg.active()) pg.gate = true;
        for (OsdNum osd : pg.locked) {
            if (pg.locked_state != state) break;  // a lost holder has disturbed the PG: a newer state was announced
            pg.running++;
            pg.announcing++;
            // Whoever is no member any more has lost what was written since, or its copies altogether: no local reads there.
            const auto& members = pg.activation.current_set;
            bool member = std::find(members.begin(), members.end(), osd) != members.end();
            runtime::spawn(announce_lock(pg, osd, member ? state : state | wire::pg_state::has_misplaced));
        }
    }
    if (pg.state() != state) return;  // a lost holder has disturbed the PG: the newer state was told
    if (state == pg.announced && peers == pg.announced_peers && pg.reason == pg.announced_reason) return;
    pg.announced = state;
    pg.announced_peers = peers;
    pg.announced_reason = pg.reason;
    if (pg.silent) return;
    if (!pg.active() && pg.phase != Phase::incomplete) {
        log(logger_, LogLevel::debug, "PG %s is %s", pg_text(pg).c_str(), pg::phase_name(pg.phase));
    } else {
        log(logger_, LogLevel::info, "PG %s is %s (state 0x%x)%s%s", pg_text(pg).c_str(), pg::phase_name(pg.phase), state,
            pg.reason.empty() ? "" : ": ", pg.reason.c_str());
    }
    events_.on_pg_state(pg, state, peers);
}

/// About: of one PG in one OSD's listing.
uint64_t Osd::expected_entries(const PoolInfo& info) const {
    return info.pg_count ? store_.object_count() / info.pg_count + 1 : 1;
}

// ------------------------------------------------------------------ the life

runtime::Task<> Osd::wait_running(Pg& pg) {
    while (pg.running > 0) {
        runtime::WaitList::Waiter waiter = pg.changed.wait();
        co_await waiter;
    }
}

runtime::Task<> Osd::run_pg(Pg& pg) {
    {
        // Connections first, and out of the caller's stack.
        Yield yield(loop_);
        co_await yield;
    }
    update_wanted();
    while (!pg.stop) {
        runtime::Task<> drained = wait_running(pg);
        co_await drained;
        if (pg.stop) break;
        pg.disturbed = false;
        move(pg, pg.phase == Phase::repeering ? PhaseEvent::drained : PhaseEvent::peer);
        runtime::Task<bool> attempt = peer_once(pg);
        bool settled = co_await attempt;
        if (pg.step_failed) {
            // A peer that refuses everything (its lease may be over) must not keep us busy.
            pg.step_failed = false;
            Pause pause(loop_, kFailedStepNs);
            co_await pause;
        }
        while (settled && !pg.disturbed && !pg.stop) {
            runtime::WaitList::Waiter waiter = pg.changed.wait();
            co_await waiter;
        }
    }
    if (pg.phase != Phase::stopping) move(pg, PhaseEvent::stop);
    {
        runtime::Task<> drained = wait_running(pg);
        co_await drained;
        runtime::Task<> settled = settle_pg(pg);
        co_await settled;
    }
    runtime::Task<> drained = wait_running(pg);
    co_await drained;
    runtime::Task<> unlock = unlock_all(pg);
    co_await unlock;
    move(pg, PhaseEvent::drained);
    pg.dead = true;
    kick(pg);
}

void Osd::erase_pg(Pg* pg) {
    PgId id = pg->id;
    std::optional<Pg::Start> next = std::move(pg->next_start);
    Pool* pool = pg->pool;
    if (id.pg <= pool->pgs.size() && pool->pgs[id.pg - 1] == pg) pool->pgs[id.pg - 1] = nullptr;
    unsynced_pgs_.erase(id);
    pgs_.erase(id);
    std::erase_if(retired_pools_, [&](const auto& retired) {
        return std::none_of(pgs_.begin(), pgs_.end(), [&](const auto& item) { return item.second->pool == retired.get(); });
    });
    update_wanted();
    if (next) start_pg(id, std::move(*next));
    if (stopping_ && pgs_.empty()) events_.on_all_stopped();
}

/// Versions that peering makes stable replace what was there before, on the OSDs of the current set alone: these must stand in the history
/// first, or the PG might go on without them, with too few chunks of either version. false: give the attempt up.
runtime::Task<bool> Osd::record_holders(Pg& pg) {
    need_epoch(pg, pg.epoch);
    while (pg.confirmed_epoch < pg.epoch && !pg.disturbed && !pg.stop) {
        runtime::WaitList::Waiter waiter = pg.changed.wait();
        co_await waiter;
    }
    co_return !pg.disturbed && !pg.stop;
}

/// One attempt. true: active or incomplete now, wait for a disturbance; false: try again at once.
runtime::Task<bool> Osd::peer_once(Pg& pg) {
    const PoolInfo& info = pg.pool->info;
    pg.flags = 0;
    pg.reason.clear();
    pg.reason = pg.pool->codec_error;
    if (info.block_size != block_size_) {
        pg.reason = "the pool's block_size is " + std::to_string(info.block_size) + ", this OSD's is " + std::to_string(block_size_);
    } else if (info.bitmap_granularity != granularity_) {
        pg.reason = "the pool's bitmap_granularity is " + std::to_string(info.bitmap_granularity) + ", this OSD's is " +
                    std::to_string(granularity_);
    } else if (pg.membership.target_set.size() != info.scheme.pg_size) {
        pg.reason = "its osd_set has " + std::to_string(pg.membership.target_set.size()) + " entries, pg_size is " +
                    std::to_string(info.scheme.pg_size);
    }
    update_wanted();
    pg.activation = pg::check_activation(info.scheme, pg.membership, reachability());
    if (pg.reason.empty()) {
        if (pg.activation.readiness == pg::Readiness::wait) {
            Pause pause(loop_, kConnectRecheckNs);
            co_await pause;
            co_return false;
        }
        pg.reason = pg.activation.reason;
    }
    if (!pg.reason.empty()) {
        runtime::Task<> unlock = unlock_all(pg);
        co_await unlock;
        if (pg.disturbed || pg.stop) co_return false;
        pg.objects.clear();
        move(pg, PhaseEvent::refuse);
        co_return true;
    }
    std::vector<OsdNum> reachable;
    for (OsdNum osd : pg.activation.universe) {
        if (osd != osd_num_ && !std::binary_search(pg.activation.dead.begin(), pg.activation.dead.end(), osd)) {
            reachable.push_back(osd);
        }
    }
    uint32_t failed = 0;
    // ---- locks: all of them before anything is listed
    std::set<OsdNum> still_there(reachable.begin(), reachable.end());
    std::erase_if(pg.locked, [&](OsdNum osd) {
        if (still_there.contains(osd)) return false;
        // Out of the PG now, and yet connected: it would keep the lock for us for ever, and grant it to nobody after us.
        pg.running++;
        runtime::spawn(unlock_peer(pg, osd));
        return true;
    });
    if (pg.pool->locks_apply(settings_.lock_mode)) {
        pg.locked_state = wire::pg_state::peering;
        for (OsdNum osd : reachable) {
            const wire::ConfigReplyJson* config = peers_->peer_config(osd);
            if (!config || !config->pg_locks) continue;
            // Whoever answers no reads of chunks needs no lock either, unless it asks for one.
            if (pg.pool->codec && !config->ec_local_reads && settings_.lock_mode == pg::LockMode::localize_only) continue;
            pg.running++;
            runtime::spawn(lock_peer(pg, osd, &failed));
        }
        runtime::Task<> drained = wait_running(pg);
        co_await drained;
        pg.step_failed = failed > 0;
        if (pg.disturbed || pg.stop || failed) co_return false;
    } else if (!pg.locked.empty()) {
        runtime::Task<> unlock = unlock_all(pg);
        co_await unlock;
    }
    // ---- listings
    ListBudget::Hold hold(peering_budget_, expected_entries(pg.pool->info) * (reachable.size() + 1));
    {
        runtime::Task<> admission = peering_budget_.admit(hold);
        co_await admission;
    }
    if (pg.disturbed || pg.stop) co_return false;
    pg.tombstones = all_keep_tombstones(reachable);
    std::vector<store::Listing> listings(reachable.size() + 1);
    pg.running += static_cast<uint32_t>(listings.size());
    for (size_t i = 0; i < reachable.size(); i++) runtime::spawn(list_peer(pg, reachable[i], &listings[i], &failed));
    runtime::spawn(list_self(pg, &listings.back(), &failed));
    {
        runtime::Task<> drained = wait_running(pg);
        co_await drained;
    }
    pg.step_failed = failed > 0;
    if (pg.disturbed || pg.stop || failed) co_return false;
    // ---- what they mean
    while (!pg.objects.clear_some(kMergeSlice)) {
        Slices::Turn slice(background_);
        co_await slice;
    }
    pg::PeeringMerge merge(info.scheme, pg.activation.current_set, pg.objects);
    if (pg.tombstones) {
        merge.believe_tombstones(osd_num_, !pg.activation.dead.empty() || pg.activation.cursize < info.scheme.pg_size);
    }
    for (size_t i = 0; i < reachable.size(); i++) merge.add_listing(reachable[i], std::move(listings[i]));
    merge.add_listing(osd_num_, std::move(listings.back()));
    listings.clear();
    while (!merge.step(kMergeSlice)) {
        Slices::Turn slice(background_);
        co_await slice;
        if (pg.disturbed || pg.stop) co_return false;
    }
    if (merge.invalid()) {
        pg.flags = wire::pg_state::has_invalid;
        pg.reason = merge.invalid_text();
        runtime::Task<> unlock = unlock_all(pg);
        co_await unlock;
        if (pg.disturbed || pg.stop) co_return false;
        move(pg, PhaseEvent::refuse);
        co_return true;
    }
    pg.buried = merge.tombstones();
    pg.forget_after_ns = 0;
    pg.forget_epoch = 0;
    uint32_t flags = 0;
    if (pg.activation.cursize < info.scheme.pg_size) flags |= wire::pg_state::degraded;
    if (!pg.activation.dead.empty()) flags |= wire::pg_state::left_on_dead;
    const bool exact = (flags | pg.objects.flags()) == 0;
    pg.epoch = pg::epoch_after_peering(std::max({merge.max_epoch(), pg.epoch, pg.wanted_epoch}), pg.confirmed_epoch, exact);
    if (!merge.flush().empty()) {
        if (!exact && pg::moves_forward(merge.flush())) {
            runtime::Task<bool> recording = record_holders(pg);
            const bool recorded = co_await recording;
            if (!recorded) co_return false;
        }
        runtime::Task<bool> flushing = flush(pg, std::move(merge.flush()));
        bool flushed = co_await flushing;
        if (!flushed || pg.disturbed || pg.stop) co_return false;
    }
    if (info.immediate_commit != wire::ImmediateCommit::all && !pg.membership.history_sets.empty()) {
        // Recovery may have written it before this peering, and a SYNC later need not ask that OSD: a clean PG forgets who has had what.
        std::set<OsdNum> members(pg.activation.current_set.begin(), pg.activation.current_set.end());
        members.erase(0);
        runtime::Task<bool> syncing = sync_all_of(pg, {members.begin(), members.end()});
        const bool synced = co_await syncing;
        if (!synced) co_return false;
    }
    pg.deleted_at = 0;
    if (pg.pool->codec && pg.buried && info.immediate_commit == wire::ImmediateCommit::none) {  // perhaps not durable; see settle_tombstone
        for (OsdNum osd : pg.activation.current_set) {
            if (osd) unsynced_osds_.insert(osd);
        }
        pg.deleted_at = next_sequence_++;
    }
    pg.flags = flags;
    pg.others.clear();
    pg.connections.clear();
    pg.self_in_set = false;
    pg.own_role = erasure::kRolesMax;
    pg.peers_stabilize_late = pg.peers_take_base = pg.peers_settle = true;
    pg.activated = ++activations_;
    for (uint32_t role = 0; role < pg.activation.current_set.size(); role++) {
        const OsdNum osd = pg.activation.current_set[role];
        if (osd == osd_num_) {
            pg.self_in_set = true;
            pg.own_role = std::min(pg.own_role, role);
        }
        const wire::ConfigReplyJson* config = osd == 0 || osd == osd_num_ ? nullptr : peers_->peer_config(osd);
        if (osd != 0 && osd != osd_num_) {
            pg.peers_stabilize_late &= config && config->late_stabilize;
            pg.peers_take_base &= config && config->write_base;
            pg.peers_settle &= config && config->write_settles;
        }
        if (osd == 0 || osd == osd_num_) continue;
        if (std::find(pg.others.begin(), pg.others.end(), osd) != pg.others.end()) continue;
        net::Connection* connection = peers_->get(osd);
        if (!connection) co_return false;
        pg.others.push_back(osd);
        pg.connections.push_back(connection);
    }
    move(pg, PhaseEvent::activate);
    wake_recovery();
    co_return true;
}

}  // namespace vitastor::serve

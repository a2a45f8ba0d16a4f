// SPDX-License-Identifier: GPL-2.0-or-later
// SEC_LIST (secondary and primary form) and DESCRIBE. Long ones yield every few thousand entries.
// Source: wire-protocol 8.8, 8.9, 9.7; safety 2.
#include <algorithm>

#include "serve/answer.hpp"
#include "serve/run_merge.hpp"

namespace vitastor::serve {

using wire::Opcode;

namespace {
constexpr size_t kSlice = 1000;
constexpr size_t kSortRun = 2048;  ///< entries sorted in one go: 0.15 ms
constexpr uint64_t kDescribeLimit = 1048576;

bool whole_pool(const wire::ListRequest& m, PoolId pool) {
    return m.min_inode == full_inode(pool, 0) && m.max_inode == full_inode(pool, (1ull << kPoolShift) - 1) &&
           m.min_stripe == 0 && m.max_stripe == UINT64_MAX && m.stable_limit == 0;
}

/// -EINVAL, or 0. Checks that need no knowledge of pools.
int check_list(const wire::ListRequest& m) {
    PoolId pool = pool_of(m.min_inode);
    if (m.list_pg == 0 || m.pg_count == 0 || m.list_pg > m.pg_count || m.pg_stripe_size < 4096) return -EINVAL;
    if (pool == 0 || pool_of(m.max_inode) != pool || m.max_inode < m.min_inode) return -EINVAL;
    return 0;
}
}  // namespace

/// Everything that arrived before has been done: a listing must contain it (wire-protocol 9.7).
runtime::Task<> Osd::wait_secondary_writes() {
    uint64_t up_to = next_sequence_++;
    while (live_sub_writes_.front() && live_sub_writes_.front()->sequence < up_to) {
        runtime::WaitList::Waiter waiter = sub_write_done_.wait();
        co_await waiter;
    }
}

runtime::Task<> Osd::list_secondary(Op* op) {
    net::Request& request = *op->request;
    auto message = wire::decode<wire::ListRequest>(wire::ConstHeaderBytes(request.header));
    if (int bad = check_list(message)) {
        answer(op, bad, wire::ListReply{});
        co_return;
    }
    PoolId pool_id = pool_of(message.min_inode);
    Pool* pool = find_pool(pool_id);
    if (!pool || pool->info.pg_count != message.pg_count || pool->info.pg_stripe_size != message.pg_stripe_size) {
        answer(op, -EAGAIN, wire::ListReply{});
        co_return;
    }
    PgId id{pool_id, message.list_pg};
    const uint64_t expected = expected_entries(pool->info);  // the pool may go away meanwhile
    if (message.flags & wire::ListRequest::kForget) {
        runtime::Task<> forgetting = forget_secondary(op, id, message.forget_version);
        co_await forgetting;
        co_return;
    }
    const bool with_tombstones = (message.flags & wire::ListRequest::kTombstones) != 0;
    if (request.peer_osd != 0 && whole_pool(message, pool_id)) {
        ClientState* client = client_of(request.connection);
        if (!client || client->voided) {
            answer(op, -EPIPE, wire::ListReply{});
            co_return;
        }
        list_fence_.listed(id, client->serial);
    }
    runtime::Task<> settle = wait_secondary_writes();
    co_await settle;
    if (request.peer_osd != 0 && whole_pool(message, pool_id) && !with_tombstones) {
        // A primary that knows nothing of them creates objects below them: their promise ends here.
        runtime::Task<int64_t> forgetting = forget_here(id, kNewestVersion);
        int64_t forgotten = co_await forgetting;
        if (forgotten < 0 && forgotten != -EINVAL && forgotten != -EROFS) {
            answer(op, -EPIPE, wire::ListReply{});
            co_return;
        }
    }
    ListBudget::Hold hold(listing_budget_, expected);
    {
        runtime::Task<> admission = listing_budget_.admit(hold);
        co_await admission;
    }
    ListAwait list;
    list.range = {pool_id,           message.list_pg,    message.min_inode,   message.max_inode,
                  message.min_stripe, message.max_stripe, message.stable_limit};
    runtime::Task<int64_t> walking = list_store(list);
    int64_t result = co_await walking;
    if (!with_tombstones) list.listing.tombstones.clear();
    size_t stable = list.listing.stable.size(), tombstones = list.listing.tombstones.size();
    size_t count = stable + list.listing.unstable.size() + tombstones;
    if (result == 0 && count * wire::kTripleSize > (128u << 20)) result = -ENOMEM;
    if (result < 0) {
        answer(op, result, wire::ListReply{});
        co_return;
    }
    if (count) request.reply_buffer = loop_.buffers().allocate(count * wire::kTripleSize);
    uint8_t* out = request.reply_buffer.data();
    for (const auto* part : {&list.listing.stable, &list.listing.unstable, &list.listing.tombstones}) {
        runtime::Task<> encoding = encode_slices(*part, out);
        co_await encoding;
        out += part->size() * wire::kTripleSize;
    }
    answer_triples(op, count, stable, 0, tombstones);
}

/// Few at a time: each of them holds memory.
runtime::Task<int64_t> Osd::list_store(ListAwait& list) {
    ListBudget::Hold hold(walk_budget_, 1);
    {
        runtime::Task<> admission = walk_budget_.admit(hold);
        co_await admission;
    }
    list.slices = &background_;
    list.give_way = [](store::ListOperation* self, runtime::Deferred& next) { static_cast<ListAwait*>(self)->slices->add(next); };
    store_.list(list);
    co_return co_await list;
}

/// out: kTripleSize bytes an entry.
runtime::Task<> Osd::encode_slices(const std::vector<ObjectVersion>& entries, uint8_t* out) {
    for (size_t i = 0; i < entries.size(); i += kSlice) {
        size_t n = std::min(kSlice, entries.size() - i);
        wire::encode_triples({out + i * wire::kTripleSize, n * wire::kTripleSize}, {&entries[i], n});
        if (n == kSlice) {
            Slices::Turn slice(background_);
            co_await slice;
        }
    }
}

void Osd::answer_triples(Op* op, size_t count, uint64_t stable, uint64_t flags, uint64_t tombstones) {
    if (count) {
        op->request->reply_iov[0] = {op->request->reply_buffer.data(), count * wire::kTripleSize};
        op->request->reply_count = 1;
    }
    answer(op, static_cast<int64_t>(count), wire::ListReply{stable, flags, tombstones});
}

runtime::Task<> Osd::list_primary(Op* op) {
    net::Request& request = *op->request;
    auto message = wire::decode<wire::ListRequest>(wire::ConstHeaderBytes(request.header));
    PoolId pool_id = pool_of(message.min_inode);
    Pool* pool = find_pool(pool_id);
    if (message.list_pg == 0 || message.min_inode != message.max_inode || message.stable_limit != 0 || pool_id == 0) {
        answer(op, -EINVAL, wire::ListReply{0, wire::ListRequest::kPrimary});
        co_return;
    }
    if (!pool || pool->info.pg_count == 0) {
        answer(op, -EPIPE, wire::ListReply{0, wire::ListRequest::kPrimary});
        co_return;
    }
    if ((message.pg_stripe_size && message.pg_stripe_size != pool->info.pg_stripe_size) ||
        (message.pg_count && message.pg_count != pool->info.pg_count) || message.list_pg > pool->info.pg_count) {
        answer(op, -EINVAL, wire::ListReply{0, wire::ListRequest::kPrimary});
        co_return;
    }
    Pg* pg = pool->pgs[message.list_pg - 1];
    if (!pg || !pg->active()) {
        answer(op, -EPIPE, wire::ListReply{0, wire::ListRequest::kPrimary});
        co_return;
    }
    attach_pg(op, pg);
    op->pool = pool;
    ListBudget::Hold hold(listing_budget_, expected_entries(pool->info));
    {
        runtime::Task<> admission = listing_budget_.admit(hold);
        co_await admission;
    }
    ListAwait list;
    list.range = {pool_id,           message.list_pg,    message.min_inode, message.max_inode,
                  message.min_stripe, message.max_stripe, 0};
    runtime::Task<int64_t> walking = list_store(list);
    int64_t result = co_await walking;
    if (result == 0 && !pg->active()) result = -EPIPE;
    std::vector<ObjectVersion> all;
    if (result == 0) {
        runtime::Task<> collecting = collect_objects(*pg, list.listing, message, &all);
        co_await collecting;
        runtime::Task<> sorting = sort_slices(&all);
        co_await sorting;
        if (!pg->active()) result = -EPIPE;
        if (all.size() * wire::kTripleSize > (128u << 20)) result = -ENOMEM;
    }
    if (result < 0) {
        answer(op, result, wire::ListReply{0, wire::ListRequest::kPrimary});
        co_return;
    }
    if (!all.empty()) request.reply_buffer = loop_.buffers().allocate(all.size() * wire::kTripleSize);
    runtime::Task<> encoding = encode_slices(all, request.reply_buffer.data());
    co_await encoding;
    answer_triples(op, all.size(), all.size(), wire::ListRequest::kPrimary);
}

/// By object.
runtime::Task<> Osd::sort_slices(std::vector<ObjectVersion>* entries) {
    auto before = [](const ObjectVersion& a, const ObjectVersion& b) { return a.object < b.object; };
    RunMerge merge(*entries, before);
    for (size_t at = 0; at < entries->size(); at += kSortRun) {
        const size_t to = std::min(at + kSortRun, entries->size());
        std::sort(entries->begin() + static_cast<ptrdiff_t>(at), entries->begin() + static_cast<ptrdiff_t>(to), before);
        merge.add(at, to);
        if (to == entries->size()) break;
        Slices::Turn slice(background_);
        co_await slice;
    }
    if (entries->size() <= kSortRun) co_return;
    std::vector<ObjectVersion> sorted;
    sorted.reserve(entries->size());
    while (!merge.empty()) {
        sorted.push_back(merge.next());
        if (sorted.size() % kSlice == 0) {
            Slices::Turn slice(background_);
            co_await slice;
        }
    }
    *entries = std::move(sorted);
}

/// Objects of the own listing and unclean ones, each once, in no order. Empties the listing.
runtime::Task<> Osd::collect_objects(Pg& pg, store::Listing& listing, const wire::ListRequest& message,
                                     std::vector<ObjectVersion>* out) {
    const ObjectId from{message.min_inode, message.min_stripe}, to{message.max_inode, message.max_stripe};
    out->reserve(listing.stable.size() + listing.unstable.size() + 64);
    // Several chunks of an object may lie here only while it is unclean, or being written; those are few.
    std::set<ObjectId> others;
    size_t steps = 0;
    for (const ObjectVersion& entry : listing.unstable) {
        others.insert({entry.object.inode, entry.object.stripe & ~kRoleMask});
        if (++steps % kSlice == 0) {
            Slices::Turn slice(background_);
            co_await slice;
        }
    }
    ObjectId next = from;
    for (bool more = true; more && pg.active();) {
        more = false;
        const auto& unclean = pg.objects.unclean();
        for (auto it = unclean.lower_bound(next); it != unclean.end() && it->first <= to; ++it) {
            if (++steps % kSlice == 0) {
                next = it->first;
                more = true;
                break;
            }
            others.insert(it->first);
        }
        if (more) {
            Slices::Turn slice(background_);
            co_await slice;
        }
    }
    for (const ObjectId& object : others) {
        out->push_back({object, 0});
        if (++steps % kSlice == 0) {
            Slices::Turn slice(background_);
            co_await slice;
        }
    }
    for (const ObjectVersion& entry : listing.stable) {
        const ObjectId object{entry.object.inode, entry.object.stripe & ~kRoleMask};
        if (others.empty() || !others.contains(object)) out->push_back({object, 0});
        if (++steps % kSlice == 0) {
            Slices::Turn slice(background_);
            co_await slice;
        }
    }
    listing = {};
}

runtime::Task<> Osd::describe(Op* op) {
    net::Request& request = *op->request;
    auto message = wire::decode<wire::DescribeRequest>(wire::ConstHeaderBytes(request.header));
    uint64_t limit = message.limit ? std::min(message.limit, kDescribeLimit) : kDescribeLimit;
    bool bounded_below = message.min_inode || message.min_offset, bounded_above = message.max_inode || message.max_offset;
    ObjectId from{message.min_inode, message.min_offset}, to{message.max_inode, message.max_offset};
    std::vector<wire::DescribeItem> items;
    std::vector<PgId> ids;
    for (auto& [id, pg] : pgs_) {
        if (message.pool && (id.pool != message.pool || (message.pg && id.pg != message.pg))) continue;
        if (pg->active()) ids.push_back(id);
    }
    std::vector<size_t> runs;
    for (const PgId& id : ids) {
        runs.push_back(items.size());
        ObjectId next = bounded_below ? from : ObjectId{};
        size_t seen = 0;
        bool more = true;
        while (more && items.size() < limit) {
            more = false;
            auto it = pgs_.find(id);
            if (it == pgs_.end() || !it->second->active()) break;
            const auto& unclean = it->second->objects.unclean();
            for (auto object = unclean.lower_bound(next); object != unclean.end() && items.size() < limit; ++object) {
                if (bounded_above && to < object->first) break;
                if (++seen % kSlice == 0) {
                    next = object->first;
                    more = true;
                    break;
                }
                const pg::LocationSet& set = *object->second.set;
                if (message.state_mask && !(set.state & message.state_mask)) continue;
                for (const pg::Location& place : set.where) {
                    items.push_back({object->first, place.role, place.flags, place.osd});
                }
            }
            if (more) {
                Slices::Turn slice(background_);
                co_await slice;
            }
        }
    }
    // Each PG's items are in order.
    RunMerge merge(items, [](const wire::DescribeItem& a, const wire::DescribeItem& b) { return a.object < b.object; });
    for (size_t i = 0; i < runs.size(); i++) merge.add(runs[i], i + 1 < runs.size() ? runs[i + 1] : items.size());
    size_t bytes = items.size() * wire::kDescribeItemSize;
    if (bytes) {
        request.reply_buffer = loop_.buffers().allocate(bytes);
        uint8_t* out = request.reply_buffer.data();
        for (size_t done = 1; !merge.empty(); done++) {
            wire::encode_describe_items({out, wire::kDescribeItemSize}, {&merge.next(), 1});
            out += wire::kDescribeItemSize;
            if (done % kSlice == 0) {
                Slices::Turn slice(background_);
                co_await slice;
            }
        }
        request.reply_iov[0] = {request.reply_buffer.data(), bytes};
        request.reply_count = 1;
    }
    answer(op, static_cast<int64_t>(items.size()), wire::DescribeReply{bytes});
}

}  // namespace vitastor::serve

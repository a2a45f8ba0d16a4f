// SPDX-License-Identifier: GPL-2.0-or-later
// A context: one thread's ring, connections and operations. Slices, maps to PGs, sends, retries, completes.
// All methods on the context's thread unless they say otherwise. Source: semantics 4.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/image.hpp"
#include "client/op.hpp"
#include "client/readahead.hpp"
#include "client/shared.hpp"
#include "client/unaligned.hpp"
#include "client/writeback.hpp"
#include "cluster/cluster_map.hpp"
#include "net/peers.hpp"

namespace vitastor::client {

/// For messages: "inode 5 of pool 1".
std::string shown(InodeNum inode);

constexpr unsigned kMaxChain = 4096;  ///< layers of an image; more are a ring

/// An OSD as this context sees it.
struct OsdLink {
    OsdNum osd = 0;
    net::Connection* connection = nullptr;
    uint64_t epoch = 0;  ///< of the connection
    uint64_t greetings = 0;  ///< hellos sent again
    bool greeting = false;   ///< the last of them is not answered yet: no modification is sent now
    bool wanted = false;
    bool reads_chunks = false;  ///< answers READs of chunks that it holds (docs/adr/0049)
};

/// A pool of the current map, prepared for finding OSDs without a look-up.
struct PoolView {
    std::shared_ptr<const cluster::Pool> pool;  ///< nullptr: the pool is gone
    uint64_t object_size = 0;
    uint64_t pg_stripe_size = 0;
    uint32_t bitmap_bytes = 0;  ///< of a whole object
    bool immediate = true;
    std::vector<OsdLink*> primary;  ///< PG n at n - 1; nullptr: not usable now
    std::vector<OsdLink*> nearest;  ///< local_reads=nearest of copies: where to read; empty otherwise
    /// Local reads of an erasure-coded pool: chunk c of PG n at (n - 1) * data chunks + c; nullptr: read it through the primary. Empty otherwise.
    std::vector<OsdLink*> holders;
    std::vector<uint64_t> no_holders_until_ns;  ///< of each PG: one of them held no lock; empty without holders
    OsdLink* primary_of(uint64_t stripe) const {
        return primary.empty() ? nullptr : primary[stripe / pg_stripe_size % primary.size()];
    }
};

/// An inode of the current map, with what reading and writing needs.
struct InodeView {
    InodeNum inode = 0;
    PoolView* pool = nullptr;
    uint64_t size = 0;
    uint64_t meta_revision = 0;  ///< 0: plain reads
    InodeNum cross_parent = 0;   ///< first ancestor in another pool
    uint64_t chain_revision = 0; ///< with cross_parent: newest of the layers' records, which every change of the chain exceeds; else 0
    bool known = false;          ///< has metadata
    bool read_only = false;
    bool has_parent = false;
    int broken_chain = 0;        ///< of its parents: -ELOOP, they form a ring; -ENOENT, one has no record
    cluster::IoLimits limits;
    bool limbo = false;          ///< the name is gone and the inode has become read-only: a snapshot is being made by hand
    bool removed = false;        ///< opened by name, and now without a record or being deleted
};

/// Exactly {active} or {active, left_on_dead}: others than the primary may be asked.
inline bool allows_local_reads(const cluster::Pg& pg) {
    return (pg.state & ~wire::pg_state::left_on_dead) == wire::pg_state::active;
}

/// Of the multi-step tools: told whenever the map, a connection or the context's life has changed.
class ChangeListener {
public:
    virtual void on_change() = 0;

protected:
    ~ChangeListener() = default;
};

class Context final : public net::PeersListener {
public:
    Context(Shared& shared, runtime::Loop& loop);
    /// close() has ended before.
    ~Context() override;
    /// Ends everything (operations that are still there with -ECANCELED), closes the connections, drains the loop.
    void close();

    runtime::Loop& loop() { return loop_; }
    Shared& shared() { return shared_; }
    Logger& logger() { return shared_.logger(); }
    const cluster::ClusterMap* map() const { return map_.get(); }
    const cluster::ClientConfig& config() const { return *config_; }
    const std::string& trouble() const { return trouble_; }

    /// With kind, image, offset, length, iov copied by set_iov(), done_fn. Validated by the caller (check_request).
    Op* take_op() { return ops_.take(); }
    void give_op(Op* op);
    static void set_iov(Op& op, const iovec* iov, int count);
    void start(Op& op);
    /// -EINVAL for a request that can never work, else 0. Any thread.
    static int check_request(const Image& image, uint64_t offset, uint64_t length, const iovec* iov, int iov_count);

    /// Any thread: waiting operations are looked at again on this context's thread.
    void wake() { loop_.notify(wake_.notifier); }
    /// The owner closes the image: no changed_fn any more.
    void forget_image(Image* image) {
        readahead_.forget(*image);
        std::erase(opened_, image);
        std::erase(attached_, image);
    }
    /// An image that is closed from inside a callback still writes out: close() lets it, for a while.
    void begin_last_flush() { last_flushes_++; }
    void end_last_flush() { last_flushes_--; }
    bool closing() const { return closing_; }
    void count_callback() { callbacks_++; }
    uint64_t callbacks() const { return callbacks_; }
    uint64_t operations() const { return operations_; }

    const Readahead& readahead() const { return readahead_; }

    // ---- for purges, merges, writes of parts of granules, and tests
    /// Valid until the map changes or another image is looked at.
    const InodeView& inode_view(Image& image) { return view_of(image); }
    void dispatch_again(Part& part) { dispatch(part); }
    PoolView* pool_view(PoolId pool);
    OsdLink* link(OsdNum osd);
    /// The connection, or nullptr while it is being made.
    net::Connection* connect(OsdLink* link);
    void reset_link(OsdLink* link, net::Connection* used, const std::string& reason);
    /// The OSD wants to know that what was sent after `seen` hellos was not sent long ago: says hello again, unless that has happened since.
    /// What is sent before the answer could come as late as the hello, and would prove nothing (docs/adr/0048).
    void greet(OsdLink* link, uint64_t seen) {
        if (link->greetings != seen) return;
        link->greetings++;
        link->greeting = true;
        peers_->greet(link->osd);
    }
    /// close() waits until none is left. A listener does not go while it is being told.
    void add_listener(ChangeListener* listener) { listeners_.push_back(listener); }
    void remove_listener(ChangeListener* listener) { std::erase(listeners_, listener); }
    /// start() for one that was put aside in it.
    void restart(Op& op);
    /// Runs done_fn of a finished operation on a later turn.
    void finish_later(Op& op, int64_t result);

    void on_peer_up(OsdNum osd) override;
    void on_peer_down(OsdNum osd) override;
    void on_peer_greeted(OsdNum osd) override;

private:
    struct View {
        uint64_t serial = 0;
        uint64_t generation = 0;
        bool forced_sync = false;  ///< one is running
        InodeView inode;
    };
    struct RetryList {
        List<net::Call> parts;
    };
    template <class Base>
    struct Hook : Base {
        Context* context = nullptr;
    };
    struct WakeHook {
        Hook<runtime::Notifier> notifier;
    };

    // context.cpp
    void adopt_snapshot();
    void tell_listeners();
    void rebuild_pool(PoolView& view, std::shared_ptr<const cluster::Pool> pool);
    const InodeView& view_of(Image& image);
    InodeView make_view(InodeNum inode, bool skip_parents);
    void resolve_image(Image& image, InodeView& view);
    bool is_above(InodeNum inode, InodeNum ancestor) const;
    InodeNum find_inode(Image& image, bool& named);
    void check_opened_images();
    void note_fault(Image& image, const InodeView& view);
    int check_chain(InodeNum number, std::string* why) const;
    void finish_open(Op& op);
    void retry_missing();
    int tree_distance(const std::string& osd_host, OsdNum osd) const;
    void find_holders(PoolView& view);
    OsdLink* read_link(const PoolView& pool, uint64_t stripe, Part& part);
    OsdLink* holder_link(const PoolView& pool, uint64_t stripe, size_t index, Part& part);
    void read_at_primary(Part& part, int64_t result);

    // io.cpp
    void slice(Op& op, const InodeView& view);
    void slice_more(Op& op, const InodeView& view);
    void end_part(Part& part);
    Part* add_part(Op& op, PartKind kind, uint64_t offset, uint32_t length, uint64_t skip);
    void fill_iov(Part& part, const Op& op, uint64_t skip);
    void dispatch(Part& part);
    void send_part(Part& part, const InodeView& view, OsdLink* link, net::Connection* connection);
    void on_reply(Part& part);
    void part_done(Part& part);
    void part_failed(Part& part, int error);
    void retry_later(Part& part, uint64_t interval_ms, RetryList& list, int error = -ETIMEDOUT);
    bool given_up(const Op& op) const { return op.give_up_ns && loop_.now_ns() >= op.give_up_ns; }
    void wait_for_change(Part& part);
    void retry_waiting();
    void on_retry_timer();
    void arm_retry_timer();
    void free_part(Part& part);
    void op_done(Op& op);
    void complete(Op& op);
    void run_finished();

    // limits.cpp
    bool put_off(Op& op, const InodeView& view);
    void on_limit_timer();
    void recheck_limited();

    // layers.cpp
    bool continue_read(Part& part, const InodeView& view);
    void start_layer(Part& part, InodeNum ancestor, uint64_t offset, uint64_t length);
    void note_bitmap(Part& part, const InodeView& view);
    void start_layer_bitmap(Part& part, InodeNum ancestor);
    void layer_done(Op& op);
    bool chain_changed(const Part& part);

    // sync.cpp
    bool begin_tracked(Part& part, const InodeView& view, OsdLink* link, bool write);
    bool may_read(Part& part, const InodeView& view, OsdLink* link);
    void end_tracked(Part& part, bool ok);
    void start_replay(Image& image, ObjectId object);
    void continue_replay(Op& op);
    bool more_replay(Op& op);
    void pause_replay(Op& op);
    void wait_for_room(Op& op);
    void resume_replay(Op& op);
    void replay_done(Op& op);
    void note_replayed(Part& part);
    void replay_stale(Image& image);
    void start_flush(Op& op);
    void step_flush(Op& op);
    void on_sync_reply(Part& part);
    void after_compare_write(Part& part);
    void send_sync(Part& part, OsdLink* link, uint64_t sequence);
    void maybe_force_sync(Image& image);
    Route route_of(ObjectId object);

    Shared& shared_;
    runtime::Loop& loop_;
    std::unique_ptr<net::Peers> peers_;
    std::shared_ptr<const cluster::ClusterMap> map_;
    std::shared_ptr<const cluster::ClientConfig> config_;
    std::string trouble_;
    const uint64_t session_;  ///< below 2^53: it travels as a number of JSON
    std::string hostname_;
    bool closing_ = false;
    uint32_t last_flushes_ = 0;

    std::unordered_map<OsdNum, std::unique_ptr<OsdLink>> links_;
    std::map<PoolId, std::unique_ptr<PoolView>> pools_;
    std::vector<View> views_;
    std::vector<Image*> attached_;    ///< their open went through this context, whatever came of it
    std::vector<Image*> opened_;      ///< those that are open; for changed_fn
    std::vector<Image*> unsynced_;    ///< images with mode small or none that this context has used
    std::vector<ChangeListener*> listeners_;

    Pool<Op, 4096> ops_;
    Pool<Part, 4096> parts_;
    List<net::Call> waiting_;         ///< for a change of the map, a connection, or of unsynced state
    RetryList retry_, retry_slow_;
    Hook<runtime::Timer> retry_timer_;
    Unaligned unaligned_{*this};
    Writeback writeback_{*this};
    Readahead readahead_{*this};
    struct Limited {
        Op* op;
        cluster::IoLimits limits;  ///< that hold it back
    };
    std::multimap<uint64_t, Limited> limited_;  ///< by when it may go on
    Hook<runtime::Timer> limit_timer_;
    Hook<runtime::Timer> open_timer_;
    List<Op> missing_;  ///< opened by a name that the map does not know yet; Op::offset: until when that is waited for
    List<Op> opening_;
    List<Op> parked_flushes_;
    List<Op> finished_;
    Hook<runtime::Deferred> finisher_;
    Hook<runtime::Deferred> rechecker_;
    WakeHook wake_;
    uint64_t callbacks_ = 0;
    uint64_t operations_ = 0;  ///< started and not done, internal ones included
};

}  // namespace vitastor::client

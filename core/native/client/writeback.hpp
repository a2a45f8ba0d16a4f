// SPDX-License-Identifier: GPL-2.0-or-later
// What the write-back cache means for the operations of one context: writes that end in memory, reads that see them, and
// everything else behind the writes that it must not overtake. Why like this: docs/adr/0053-client-cache.md.
#pragma once

#include <list>
#include <vector>

#include "client/cache_settings.hpp"
#include "client/image.hpp"
#include "client/op.hpp"
#include "runtime/loop.hpp"

namespace vitastor::client {

struct InodeView;

/// Of one context, on its thread. The bytes are the image's (write_cache.hpp).
class Writeback {
public:
    explicit Writeback(Context& context);
    ~Writeback();
    /// The operation is the owner's own, and its image has a cache that holds something or may.
    bool concerns(const Op& op) const {
        if (op.cached || op.aligned || op.internal) return false;
        return !op.image->cache->empty() || (op.kind == OpKind::write && writes_back(*op.image));
    }
    const CacheSettings& settings() const { return settings_; }
    bool writes_back(const Image& image) const { return image.options.writeback && settings_.enable_writeback; }
    /// The map's settings of the cluster may be others.
    void take_settings();
    /// True: it has been taken over, and ends or begins again later. False: it goes on now.
    bool start(Op& op, const InodeView& view);
    /// A flush: begins once what was written before is with the OSDs.
    void start_flush(Op& op);
    /// Another context has written something out, or this one is being closed.
    void on_change();

private:
    struct Waiter {
        Op* op;
        uint64_t cut, begin, end;  ///< writes that it waits for
        bool room = false;         ///< a write that waits for room instead
    };
    struct WriteOut;
    struct PartialRead;
    struct GiveUpTimer : runtime::Timer {
        Writeback* owner = nullptr;
    };

    bool start_read(Op& op);
    bool start_write(Op& op, const InodeView& view);
    bool has_room(const Image& image, uint64_t length) const;
    void buffer(Op& op);
    void wait_for(Op& op, uint64_t cut, uint64_t begin, uint64_t end, bool room);
    bool behind(Op& op, uint64_t begin, uint64_t end);
    void advance(Image& image);
    bool ready(const Waiter& waiter) const;
    void drain(Image& image);
    bool write_out(Image& image, uint64_t cut, uint64_t begin, uint64_t end);
    void written(WriteOut& out, int64_t result);
    void end_waiter(std::list<Waiter>::iterator item, int error);
    void on_timer();

    Context& context_;
    CacheSettings settings_;
    std::shared_ptr<const std::map<std::string, std::string>> known_etcd_;
    std::list<Waiter> waiters_;  ///< in the order in which they came
    GiveUpTimer timer_;
};

}  // namespace vitastor::client

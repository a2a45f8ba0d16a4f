// SPDX-License-Identifier: GPL-2.0-or-later
// An open image: what its owner asked for, what is known of it, and its unsynced writes. Used by any context of its cluster.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "base/ids.hpp"
#include "client/throttle.hpp"
#include "client/unsynced.hpp"
#include "client/write_cache.hpp"

namespace vitastor::client {

struct ImageOptions {
    std::string name;         ///< empty: inode
    InodeNum inode = 0;       ///< full number
    uint64_t size_bytes = 0;  ///< for inodes without metadata
    bool read_only = false;
    bool skip_parents = false;
    bool unlimited = false;      ///< tools: the image's limits are for its users
    bool any_alignment = false;  ///< reads, writes and discards of any offset and length
    bool writeback = false;      ///< writes may end in memory until a flush, while client_enable_writeback says so too
    bool exclusive = false;      ///< nobody else writes, neither another handle nor another process
    bool override_read_only = false;  ///< of tools that merge layers: written to although the metadata says read-only
    void (*changed_fn)(void* arg, uint64_t size_bytes, int read_only) = nullptr;
    void* changed_arg = nullptr;
};

/// Counted: the owner's handle is one, each internal operation another.
class Image {
public:
    Image(ImageOptions options_in, uint32_t slot_in, uint64_t serial_in)
        : options(std::move(options_in)), slot(slot_in), serial(serial_in) {}

    const ImageOptions options;
    const uint32_t slot;    ///< index into each context's views
    const uint64_t serial;  ///< tells apart images that had the same slot
    Context* opener = nullptr;
    void* abi_context = nullptr;  ///< of the C ABI: the handle through which it was opened

    // Last known; written by the opening context, read by anybody.
    std::atomic<InodeNum> inode{0};
    std::atomic<uint64_t> size_bytes{0};
    std::atomic<uint32_t> object_size{0};
    std::atomic<uint32_t> granularity{4096};
    std::atomic<bool> read_only{false};
    std::atomic<bool> immediate{true};
    std::atomic<bool> has_parent{false};
    std::atomic<bool> writes_back{false};  ///< they do
    std::atomic<bool> closed{false};
    std::atomic<bool> removed{false};  ///< neither its name nor its inode has a record any more
    std::atomic<int> fault{0};  ///< why reads fail, as last logged; of the opening context
    /// Writes of an exclusive image that are under way, and how often one has begun or ended.
    std::atomic<uint64_t> writing{0}, changes{0};

    Unsynced unsynced;
    std::shared_ptr<Throttle> throttle;
    std::shared_ptr<WriteCache> cache;  ///< never nullptr

    /// The name under which it is known now: of options, until it is renamed.
    std::string name() const {
        const std::lock_guard lock(name_mutex_);
        return name_.empty() ? options.name : name_;
    }
    void rename(const std::string& name) {
        const std::lock_guard lock(name_mutex_);
        name_ = name;
    }
    /// Not renamed: options.name, without a lock.
    std::atomic<bool> renamed{false};

    void ref() { refs_.fetch_add(1, std::memory_order_relaxed); }
    void unref();

private:
    friend class Shared;
    class Shared* shared_ = nullptr;
    mutable std::mutex name_mutex_;
    std::string name_;  ///< guarded by it
    std::atomic<uint32_t> refs_{1};
};

}  // namespace vitastor::client

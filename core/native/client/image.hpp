// SPDX-License-Identifier: GPL-2.0-or-later
// An open image: what its owner asked for, what is known of it, and its unsynced writes. Used by any context of its cluster.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
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
    bool writeback = false;      ///< writes may end in memory until a flush, where the settings say so too
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
    std::atomic<bool> closed{false};

    Unsynced unsynced;
    std::shared_ptr<Throttle> throttle;
    std::shared_ptr<WriteCache> cache;  ///< never nullptr

    void ref() { refs_.fetch_add(1, std::memory_order_relaxed); }
    void unref();

private:
    friend class Shared;
    class Shared* shared_ = nullptr;
    std::atomic<uint32_t> refs_{1};
};

}  // namespace vitastor::client

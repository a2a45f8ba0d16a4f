// SPDX-License-Identifier: GPL-2.0-or-later
// Read-ahead for sequential readers, where nobody else can write: what was read ahead is thrown away as soon as anything of the image
// may have changed. Why only there: docs/adr/0054-read-ahead.md.
#pragma once

#include <deque>
#include <list>
#include <memory>
#include <vector>

#include "base/buffer.hpp"
#include "client/image.hpp"
#include "client/op.hpp"

namespace vitastor::client {

struct InodeView;

/// Of one context, on its thread.
class Readahead {
public:
    static constexpr size_t kMaxStreams = 4;     ///< the least recently used one makes room
    static constexpr uint32_t kSequential = 3;   ///< reads one behind the other before anything is read ahead

    explicit Readahead(Context& context) : context_(context) {}
    /// window_bytes: read ahead of each stream; 0: off.
    void set_window(uint64_t window_bytes) { window_bytes_ = window_bytes; }
    bool concerns(const Op& op) const {
        return window_bytes_ && op.kind == OpKind::read && !op.ahead && !op.aligned && !op.internal && !op.fixed_inode;
    }
    /// True: it is answered from what was read ahead, or waits for that. False: it goes on now.
    bool start(Op& op, const InodeView& view);
    /// Bytes held for all streams.
    uint64_t bytes() const { return bytes_; }
    /// The image is closed here.
    void forget(const Image& image);

private:
    /// What the bytes depend on. Equal: nothing has changed.
    struct Key {
        InodeNum inode = 0;
        uint64_t revision = 0;  ///< newest of the records of the chain
        uint64_t changes = 0;   ///< of the image's own writes
        bool operator==(const Key&) const = default;
    };
    enum class State { reading, ready, bad };
    /// Shared with the read that fills it.
    struct Chunk {
        uint64_t offset = 0, length = 0;
        Buffer data;
        State state = State::reading;
        Key key;
        uint64_t begun_ns = 0;
        Readahead* owner = nullptr;
    };
    struct Stream {
        uint64_t serial = 0;  ///< of the image
        uint64_t next = 0;    ///< where the reader goes on
        uint32_t run = 0;     ///< reads one behind the other
        std::deque<std::shared_ptr<Chunk>> chunks;  ///< without gaps
        std::vector<Op*> waiting;                   ///< for chunks that are being read
    };
    bool key_of(Image& image, Key& out);
    Stream* stream_of(const Op& op);
    enum class Answer { no, yes, later };
    Answer answer(Stream& stream, const Op& op, const Key& key);
    void read_more(Stream& stream, Image& image, const InodeView& view, const Key& key);
    void drop(Stream& stream);
    void finished(Chunk& chunk);

    Context& context_;
    uint64_t window_bytes_ = 0, bytes_ = 0;
    std::list<Stream> streams_;  ///< most recently used first
};

}  // namespace vitastor::client

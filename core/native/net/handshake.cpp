// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/handshake.hpp"

namespace vitastor::net {

namespace {

constexpr uint64_t kProtocolVersion = 1;

std::string differs(const char* what, const std::string& theirs, const std::string& ours) {
    return std::string("its ") + what + " is " + theirs + ", ours is " + ours;
}

std::string judge_layout(const wire::ConfigReplyJson& peer, const PeerOptions& own) {
    using wire::ImmediateCommit;
    const ImmediateCommit theirs = *peer.immediate_commit;
    const ImmediateCommit ours = own.immediate_commit;
    if (static_cast<int>(theirs) < static_cast<int>(ours))
        return differs("immediate_commit", to_string(theirs), to_string(ours)) +
               ": it acknowledges writes that are less durable than we promise; set ours to the "
               "weaker value or create that OSD anew";
    if (*peer.block_size != own.block_size)
        return differs("block_size", std::to_string(*peer.block_size), std::to_string(own.block_size)) +
               ": OSDs that share a pool need the same";
    if (*peer.bitmap_granularity != own.bitmap_granularity)
        return differs("bitmap_granularity", std::to_string(*peer.bitmap_granularity),
                       std::to_string(own.bitmap_granularity)) +
               ": OSDs that share a pool need the same";
    return {};
}

}  // namespace

HandshakeVerdict judge_config(const wire::ConfigReplyJson& peer, OsdNum wanted, const PeerOptions& own) {
    HandshakeVerdict verdict;
    if (peer.osd_num != wanted) {
        verdict.refused = "OSD " + std::to_string(wanted) + " was expected there, but OSD " +
                          std::to_string(peer.osd_num) +
                          " answers; its address in etcd is out of date, or two OSDs share it";
    } else if (peer.protocol_version != kProtocolVersion) {
        verdict.refused = differs("protocol_version",
                                  peer.protocol_version ? std::to_string(*peer.protocol_version) : "absent",
                                  std::to_string(kProtocolVersion));
    } else if (own.own_osd) {
        if (peer.block_size && peer.bitmap_granularity && peer.immediate_commit)
            verdict.refused = judge_layout(peer, own);
        else
            verdict.warning = "it does not tell its block_size, bitmap_granularity and immediate_commit "
                              "(older than 0.6.3), so they are not compared with ours";
    }
    return verdict;
}

}  // namespace vitastor::net

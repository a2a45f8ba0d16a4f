// SPDX-License-Identifier: GPL-2.0-or-later
#include "store/inode_table.hpp"

namespace vitastor::store {

uint32_t InodeTable::find(InodeNum inode) const {
    Recent& recent = recent_[recent_place(inode)];
    if (recent.inode == inode && recent.number != kNone) return recent.number;
    uint32_t number = buckets_.first(hash(inode));
    while (number != kNone && records_[number].inode != inode) number = records_[number].next;
    if (number != kNone) recent = {inode, number};
    return number;
}

uint32_t InodeTable::add_user(InodeNum inode) {
    uint32_t number = find(inode);
    if (number != kNone) {
        records_[number].users++;
        return number;
    }
    if (first_free_ != kNone) {
        number = first_free_;
        first_free_ = records_[number].next;
    } else {
        if (records_.size() == kMaxInodes) return kNone;
        number = static_cast<uint32_t>(records_.size());
        records_.push_back({});
    }
    uint32_t& first = buckets_.first(hash(inode));
    records_[number] = {inode, 1, 0, first};
    first = number;
    used_++;
    buckets_.grow(
        used_, [this](uint32_t item) { return hash(records_[item].inode); },
        [this](uint32_t item) -> uint32_t& { return records_[item].next; }, [this](uint32_t item) { fetch_ahead(&records_[item]); });
    recent_[recent_place(inode)] = {inode, number};
    return number;
}

void InodeTable::drop_user(uint32_t number) {
    if (--records_[number].users) return;
    VITASTOR_ASSERT(records_[number].blocks == 0);
    uint32_t* place = &buckets_.first(hash(records_[number].inode));
    while (*place != number) {
        VITASTOR_ASSERT(*place != kNone);
        place = &records_[*place].next;
    }
    *place = records_[number].next;
    records_[number].next = first_free_;
    first_free_ = number;
    used_--;
    recent_[recent_place(records_[number].inode)] = {};
}

}  // namespace vitastor::store

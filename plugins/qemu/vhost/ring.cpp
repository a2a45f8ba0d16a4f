// SPDX-License-Identifier: GPL-2.0-or-later
#include "vhost/ring.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace vitastor::vhost {
namespace {

constexpr uint64_t kEntries = 4;  ///< of available and used: flags and index stand before

}  // namespace

bool Ring::fail(const std::string& reason) {
    if (broken_.empty()) broken_ = reason;
    return false;
}

bool Ring::remap() {
    const uint64_t size = setup_.size;
    const VringAddress& at = setup_.addresses;
    descriptors_ = memory_.at_user(at.descriptors, size * sizeof(Descriptor));
    available_ = memory_.at_user(at.available, kEntries + size * 2 + 2);
    used_ = memory_.at_user(at.used, kEntries + size * sizeof(UsedElement) + 2);
    const char* wrong = nullptr;
    if (!descriptors_ || !available_ || !used_) wrong = "its rings do not lie in the guest's memory";
    else if (at.descriptors % 16 || at.available % 2 || at.used % 4) wrong = "its rings are misaligned";
    if (!wrong) return true;
    stop();
    return fail(wrong);
}

bool Ring::start(const RingSetup& setup) {
    stop();
    broken_.clear();
    if (setup.size == 0 || setup.size > kQueueSizeMax || (setup.size & (setup.size - 1)))
        return fail("its size is " + std::to_string(setup.size) + ", not a power of two up to " + std::to_string(kQueueSizeMax));
    setup_ = setup;
    if (!remap()) return false;
    next_available_ = setup.base;
    next_used_ = published_ = load_shared(used_ + 2);
    told_once_ = false;
    taken_ = 0;
    again_.clear();
    batch_.clear();
    if (setup_.inflight) recover_inflight();
    return true;
}

void Ring::stop() { descriptors_ = available_ = used_ = nullptr; }

/// A former process may have ended between any two of the steps of publish().
void Ring::recover_inflight() {
    InflightQueue& area = *setup_.inflight;
    if (area.version != 1 || area.descriptors != setup_.size) {
        std::memset(static_cast<void*>(setup_.inflight), 0, sizeof(InflightQueue) + setup_.size * sizeof(InflightDescriptor));
        area.version = 1;
        area.descriptors = static_cast<uint16_t>(setup_.size);
        area.used_index = next_used_;
        counter_ = 0;
        return;
    }
    uint32_t batch = static_cast<uint16_t>(next_used_ - area.used_index);
    uint16_t head = area.last_batch_head;
    for (; batch > 0 && batch <= setup_.size && head < setup_.size; batch--) {
        state(head)->inflight = 0;
        head = state(head)->next;
    }
    area.used_index = next_used_;
    for (uint32_t i = 0; i < setup_.size; i++) {
        if (state(static_cast<uint16_t>(i))->inflight) again_.push_back(static_cast<uint16_t>(i));
    }
    std::sort(again_.begin(), again_.end(), [this](uint16_t a, uint16_t b) { return state(a)->counter > state(b)->counter; });
    counter_ = again_.empty() ? 0 : state(again_.front())->counter + 1;
    next_available_ = static_cast<uint16_t>(next_used_ + again_.size());
}

bool Ring::take(Chain& chain) {
    if (!running() || !broken_.empty()) return false;
    if (!again_.empty()) {
        chain.head = again_.back();
        again_.pop_back();
    } else {
        const uint16_t waiting = static_cast<uint16_t>(load_shared(available_ + 2) - next_available_);
        if (waiting == 0) return false;
        if (waiting > setup_.size) return fail("the guest says that " + std::to_string(waiting) + " requests are available");
        chain.head = load_shared(available_ + kEntries + 2 * (next_available_ % setup_.size));
        if (chain.head >= setup_.size) return fail("the guest names descriptor " + std::to_string(chain.head));
        if (setup_.inflight) {
            if (state(chain.head)->inflight) return fail("descriptor " + std::to_string(chain.head) + " is available twice");
            state(chain.head)->counter = counter_++;
            __atomic_store_n(&state(chain.head)->inflight, uint8_t{1}, __ATOMIC_RELEASE);
        }
        next_available_++;
    }
    if (taken_ >= setup_.size) return fail("more requests are in progress than the queue holds");
    if (!read_chain(chain)) return false;
    taken_++;
    return true;
}

bool Ring::read_chain(Chain& chain) {
    chain.readable.clear();
    chain.writable.clear();
    chain.readable_bytes = chain.writable_bytes = 0;
    return read_table(descriptors_, setup_.size, chain.head, chain, false);
}

bool Ring::read_table(const uint8_t* table, uint32_t size, uint32_t first, Chain& chain, bool indirect) {
    uint32_t index = first;
    for (uint32_t steps = 0;; steps++) {
        if (steps >= size) return fail("a chain of descriptors forms a loop");
        if (index >= size) return fail("a chain names descriptor " + std::to_string(index) + " of " + std::to_string(size));
        Descriptor descriptor;
        std::memcpy(&descriptor, table + index * sizeof(Descriptor), sizeof(descriptor));
        if (descriptor.flags & kIndirect) {
            const uint32_t count = descriptor.length / sizeof(Descriptor);
            if (indirect || steps > 0 || (descriptor.flags & kNext) || descriptor.length % sizeof(Descriptor) || count == 0 || count > kQueueSizeMax)
                return fail("an indirect descriptor of " + std::to_string(descriptor.length) + " bytes where none may be");
            const uint8_t* inner = memory_.at_guest(descriptor.address, descriptor.length);
            if (!inner) return fail("a table of descriptors does not lie in the guest's memory");
            return read_table(inner, count, 0, chain, true);
        }
        const bool writable = descriptor.flags & kWritable;
        if (!writable && !chain.writable.empty()) return fail("a descriptor to read stands behind one to write");
        if (!memory_.pieces(descriptor.address, descriptor.length, writable ? chain.writable : chain.readable))
            return fail("a descriptor names memory that the guest does not have");
        (writable ? chain.writable_bytes : chain.readable_bytes) += descriptor.length;
        if (!(descriptor.flags & kNext)) return true;
        index = descriptor.next;
    }
}

void Ring::log_used(uint64_t offset, uint64_t bytes) const {
    if ((setup_.addresses.flags & kVringLogged) && memory_.has_log()) memory_.mark(setup_.addresses.log + offset, bytes);
}

void Ring::put(const Chain& chain, uint32_t written) {
    if (!running()) return;
    taken_--;
    if (memory_.has_log()) {
        for (const iovec& piece : chain.writable) {
            const uint64_t at = memory_.guest_address(static_cast<const uint8_t*>(piece.iov_base));
            if (at != UINT64_MAX) memory_.mark(at, piece.iov_len);
        }
    }
    const uint64_t offset = kEntries + sizeof(UsedElement) * (next_used_ % setup_.size);
    const UsedElement element{chain.head, written};
    std::memcpy(used_ + offset, &element, sizeof(element));
    log_used(offset, sizeof(element));
    next_used_++;
    if (!setup_.inflight) return;
    state(chain.head)->next = setup_.inflight->last_batch_head;
    __atomic_store_n(&setup_.inflight->last_batch_head, chain.head, __ATOMIC_RELEASE);
    batch_.push_back(chain.head);
}

bool Ring::publish() {
    if (!running() || next_used_ == published_) return false;
    store_shared(used_ + 2, next_used_);
    log_used(2, 2);
    if (setup_.inflight) {
        for (const uint16_t head : batch_) __atomic_store_n(&state(head)->inflight, uint8_t{0}, __ATOMIC_RELEASE);
        batch_.clear();
        __atomic_store_n(&setup_.inflight->used_index, next_used_, __ATOMIC_RELEASE);
    }
    const uint16_t before = published_;
    published_ = next_used_;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!setup_.event_index) return !(load_shared(available_) & kNoInterrupt);
    const uint16_t wanted = load_shared(available_ + kEntries + 2 * setup_.size);
    if (!std::exchange(told_once_, true)) return true;
    return static_cast<uint16_t>(next_used_ - wanted - 1) < static_cast<uint16_t>(next_used_ - before);
}

bool Ring::wait_for_kick() {
    if (!running() || !broken_.empty()) return false;
    if (setup_.event_index) {
        store_shared(used_ + kEntries + sizeof(UsedElement) * setup_.size, next_available_);
    } else {
        store_shared(used_, 0);
        log_used(0, 2);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return !again_.empty() || load_shared(available_ + 2) != next_available_;
}

void Ring::poll() {
    if (!running() || setup_.event_index) return;
    store_shared(used_, kNoNotify);
    log_used(0, 2);
}

}  // namespace vitastor::vhost

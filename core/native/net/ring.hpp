// SPDX-License-Identifier: GPL-2.0-or-later
// FIFO of small values in one array that doubles when full and is kept: no allocation per element once warm.
#pragma once

#include <cstddef>
#include <memory>

#include "base/assert.hpp"

namespace vitastor::net {

template <class T>
class Ring {
public:
    bool empty() const { return begin_ == end_; }
    size_t size() const { return end_ - begin_; }
    /// index 0 is the oldest.
    T& operator[](size_t index) { return items_[(begin_ + index) & (capacity_ - 1)]; }
    T& front() { return items_[begin_ & (capacity_ - 1)]; }
    void push_back(T item) {
        if (size() == capacity_) grow();
        items_[end_++ & (capacity_ - 1)] = item;
    }
    void pop_front() {
        VITASTOR_VERIFY(!empty());
        begin_++;
    }
    size_t capacity() const { return capacity_; }
    size_t memory_bytes() const { return capacity_ * sizeof(T); }
    /// Gives the memory back; only while empty.
    void shrink() {
        VITASTOR_ASSERT(empty());
        items_.reset();
        capacity_ = begin_ = end_ = 0;
    }

private:
    void grow() {
        const size_t bigger = capacity_ ? capacity_ * 2 : 32;
        auto items = std::make_unique<T[]>(bigger);
        const size_t count = size();
        for (size_t i = 0; i < count; i++) items[i] = (*this)[i];
        items_ = std::move(items);
        capacity_ = bigger;
        begin_ = 0;
        end_ = count;
    }
    std::unique_ptr<T[]> items_;
    size_t capacity_ = 0;  ///< power of two
    size_t begin_ = 0;     ///< counts up for ever, masked on access
    size_t end_ = 0;
};

}  // namespace vitastor::net

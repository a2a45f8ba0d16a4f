// SPDX-License-Identifier: GPL-2.0-or-later
// Intrusive doubly linked list: no allocation, removal in O(1) by the element itself.
#pragma once

#include "base/assert.hpp"

namespace vitastor {

/// Base or member of an element. An element is in at most one list through one node; destroying a linked node is our bug.
struct ListNode {
    ListNode* prev = nullptr;
    ListNode* next = nullptr;

    ListNode() = default;
    ListNode(const ListNode&) = delete;
    ListNode& operator=(const ListNode&) = delete;
    ~ListNode() { VITASTOR_ASSERT(!linked()); }
    bool linked() const { return next != nullptr; }
    void unlink() {
        prev->next = next;
        next->prev = prev;
        prev = next = nullptr;
    }
};

/// FIFO of T, where T derives from ListNode.
template <class T>
class List {
public:
    List() { head_.prev = head_.next = &head_; }
    ~List() {
        VITASTOR_ASSERT(empty());
        head_.prev = head_.next = nullptr;
    }
    bool empty() const { return head_.next == &head_; }
    T* front() { return empty() ? nullptr : static_cast<T*>(head_.next); }
    T* next(T* item) { return item->next == &head_ ? nullptr : static_cast<T*>(item->next); }
    void push_back(T* item) { insert(&head_, item); }
    void push_front(T* item) { insert(head_.next, item); }
    T* pop_front() {
        T* item = front();
        if (item) item->unlink();
        return item;
    }

private:
    static void insert(ListNode* before, ListNode* item) {
        VITASTOR_ASSERT(!item->linked());
        item->prev = before->prev;
        item->next = before;
        before->prev->next = item;
        before->prev = item;
    }
    ListNode head_;
};

}  // namespace vitastor

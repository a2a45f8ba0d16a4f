// SPDX-License-Identifier: GPL-2.0-or-later
// Operations of images with limits begin when their turn has come. Flushes always do.
#include "client/context.hpp"

namespace vitastor::client {

/// True: it begins later.
bool Context::put_off(Op& op, const InodeView& view) {
    op.admitted = true;
    const bool moves_data = op.kind != OpKind::discard && op.kind != OpKind::remove;
    const uint64_t begin_ns = op.image->throttle->admit(view.limits, loop_.now_ns(), moves_data ? op.length : 0);
    if (begin_ns <= loop_.now_ns() || closing_) return false;
    limited_.emplace(begin_ns, Limited{&op, view.limits});
    if (!limit_timer_.armed() || limit_timer_.deadline_ns > begin_ns) loop_.arm(limit_timer_, begin_ns);
    return true;
}

/// Counted a second time by start().
void Context::restart(Op& op) {
    operations_--;
    start(op);
}

/// Those whose time has come; all when the context is being closed (they end with -ECANCELED).
void Context::on_limit_timer() {
    std::vector<Op*> due;
    while (!limited_.empty() && (closing_ || limited_.begin()->first <= loop_.now_ns())) {
        due.push_back(limited_.begin()->second.op);
        limited_.erase(limited_.begin());
    }
    if (!limited_.empty()) loop_.arm(limit_timer_, limited_.begin()->first);
    for (Op* op : due) restart(*op);
}

/// The map has changed: what other limits hold back than an image has now is judged anew, in the same order.
void Context::recheck_limited() {
    std::vector<Op*> again;
    for (auto item = limited_.begin(); item != limited_.end();) {
        if (item->second.limits == view_of(*item->second.op->image).limits) {
            ++item;
            continue;
        }
        again.push_back(item->second.op);
        item = limited_.erase(item);
    }
    for (Op* op : again) {
        op->admitted = false;
        restart(*op);
    }
}

}  // namespace vitastor::client

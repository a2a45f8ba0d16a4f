// SPDX-License-Identifier: GPL-2.0-or-later
#include "steps.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace vitastor::test {

std::string to_text(const Steps& steps) {
    std::string text;
    for (const Step& step : steps) {
        if (!text.empty()) text += ' ';
        text += step.kind + std::to_string(step.object) + ":" + std::to_string(step.first) + "+" + std::to_string(step.count) + "@" +
                std::to_string(step.version);
        if (step.flag) text += 'b';
    }
    return text;
}

bool from_text(const std::string& text, Steps& steps) {
    steps.clear();
    const char* in = text.c_str();
    while (*in == ' ') in++;
    while (*in) {
        Step step;
        int used = 0;
        if (sscanf(in, "%c%u:%u+%u@%d%n", &step.kind, &step.object, &step.first, &step.count, &step.version, &used) != 5) return false;
        in += used;
        if (*in == 'b') {
            step.flag = true;
            in++;
        }
        if (*in && *in != ' ') return false;
        while (*in == ' ') in++;
        steps.push_back(step);
    }
    return true;
}

std::string describe(const Step& step, uint32_t granularity) {
    const std::string object = " object " + std::to_string(step.object);
    const std::string range = " offset " + std::to_string(uint64_t{step.first} * granularity) + " length " +
                              std::to_string(uint64_t{step.count} * granularity);
    const std::string of = step.version == -1   ? " at its newest version"
                           : step.version == -2 ? " beyond its newest version"
                                                : " at its version number " + std::to_string(step.version) + " from the oldest";
    const std::string write = range + " version +" + std::to_string(step.version) + (step.flag ? " with a bitmap" : "");
    switch (step.kind) {
        case Step::write_stable: return "write stable" + object + write;
        case Step::write_unstable: return "write unstable" + object + write;
        case Step::write_settling: return "write unstable, with what was before made stable," + object + write;
        case Step::write_fitting: return "write (unstable if the object has unstable versions)" + object + write;
        case Step::del: return "delete" + object + (step.flag ? ", versions start again from 1" : "");
        case Step::bury: return "delete" + object + " with a tombstone";
        case Step::stabilize: return "stabilise" + object + of;
        case Step::rollback: return "roll back" + object + of;
        case Step::sync: return "sync";
        case Step::read: return "read" + object + range + of;
        case Step::forget: return "forget all tombstones";
        case Step::idle: return "no requests for a while";
        case Step::restart: return "close and open again";
        case Step::crash: return "the power fails after " + std::to_string(step.count) + " more I/Os";
        default: return "unknown";
    }
}

namespace {

/// Now and then the buffer is not aligned, and in pieces that end anywhere.
void skew(TestOp& op, const Step& step) {
    const uint32_t form = (step.first * 7 + step.count * 3 + step.object) % 8;
    if (form > 1 || op.len == 0) return;
    memmove(op.data + 24, op.data, op.len);
    op.data += 24;
    const iovec granule = op.pieces[2];  // the oracle looks there
    op.pieces[0] = {op.data, form ? op.len : 1000u};
    op.pieces[1] = {op.data + 1000, op.len - 1000};
    op.pieces[2] = granule;
    op.iov_count = form ? 1 : 2;
    if (!form && op.len <= 1000) {
        op.pieces[0].iov_len = op.len;
        op.iov_count = 1;
    }
}

}  // namespace

std::unique_ptr<TestOp> make_operation(const Rig& rig, const Step& step, const ObjectId& id, const OracleObject& now, bool unstable,
                                       Version& last_version, uint32_t tag) {
    const uint32_t granules = rig.granules();
    const uint32_t first = std::min(step.first, granules - 1);
    const uint32_t count = std::min(step.count, granules - first);
    const auto existing = [&]() -> Version {
        if (now.empty() || step.version == -2) return last_version + 1;
        if (step.version < 0) return now.back().version;
        return now[static_cast<size_t>(step.version) % now.size()].version;
    };
    switch (step.kind) {
        case Step::write_stable:
        case Step::write_unstable:
        case Step::write_settling:
        case Step::write_fitting: {
            const int64_t wanted = static_cast<int64_t>(last_version) + step.version;
            const Version version = wanted < 1 ? 1 : static_cast<Version>(wanted);
            last_version = std::max(last_version, version);
            const bool stable = step.kind == Step::write_stable || (step.kind == Step::write_fitting && !unstable);
            auto op = rig.write(id, version, first, count, tag, stable);
            skew(*op, step);
            if (step.kind == Step::write_settling && !now.empty()) op->settles = now.back().version;
            if (step.flag) {
                for (size_t i = 0; i < op->bits.size(); i++) op->bits[i] = static_cast<uint8_t>((tag + i) * 37);
                op->bitmap = op->bits.data();
            }
            return op;
        }
        case Step::del: {
            auto op = rig.simple(StoreOp::del, id, last_version + 1);
            if (step.flag) last_version = 0;
            return op;
        }
        case Step::bury: {
            auto op = rig.simple(StoreOp::del, id, last_version + 1);
            last_version++;
            op->tombstone = true;
            return op;
        }
        case Step::stabilize: return rig.simple(StoreOp::stabilize, id, existing());
        case Step::rollback: return rig.simple(StoreOp::rollback, id, existing());
        case Step::read: {
            auto op = rig.read(id, step.version == -1 ? kNewestVersion : existing(), first, std::max(count, 1u));
            skew(*op, step);
            return op;
        }
        case Step::sync: return rig.simple(StoreOp::sync, {}, 0);
        default: return nullptr;
    }
}

Steps shrink(Steps steps, uint32_t attempts, const std::function<bool(const Steps&)>& fails) {
    bool smaller = true;
    while (smaller && attempts > 0) {
        smaller = false;
        for (size_t part = std::max<size_t>(steps.size() / 2, 1); part > 0 && attempts > 0; part /= 2) {
            for (size_t at = 0; at < steps.size() && attempts > 0;) {
                Steps fewer(steps.begin(), steps.begin() + static_cast<ptrdiff_t>(at));
                if (at + part < steps.size()) fewer.insert(fewer.end(), steps.begin() + static_cast<ptrdiff_t>(at + part), steps.end());
                attempts--;
                if (fails(fewer)) {
                    steps = std::move(fewer);
                    smaller = true;
                } else {
                    at += part;
                }
            }
        }
    }
    return steps;
}

}  // namespace vitastor::test

// SPDX-License-Identifier: GPL-2.0-or-later
// What vitastor-disk prints of a store: its objects, its log, its damage. One line of JSON each (keys: docs/usage/vitastor-disk.md).
#pragma once

#include "offline/offline_store.hpp"

namespace vitastor::offline {

/// Line "store": what the superblock says.
std::string describe_store(const OfflineStore& store);

/// Lines "store", "object" for each object, "result". 0 or an errno (store.error()). Memory: the index of the store.
runtime::Task<int> dump_objects(OfflineStore& store, const Output& output);

enum class LogForm : uint8_t { entries, pages };
/// Lines "store", "entry" or "page" from the start of the log to its end, "result". Memory does not grow with the store.
runtime::Task<int> dump_log(OfflineStore& store, LogForm form, const Output& output);

enum class CheckData : uint8_t { no, yes };
/// Lines "store", "damage" for each damage, "progress", "result". 0 even with damage; an errno if it could not be checked.
runtime::Task<int> check_store(OfflineStore& store, CheckData data, const Output& output);

}  // namespace vitastor::offline

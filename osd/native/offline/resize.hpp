// SPDX-License-Identifier: GPL-2.0-or-later
// Resize of a stopped OSD's store: store/relayout.hpp behind a request.
#pragma once

#include "offline/offline_store.hpp"
#include "store/relayout.hpp"

namespace vitastor::offline {

enum class ResizeMode : uint8_t { dry_run, really };

/// Lines "resize" (the plan; `done`: false for a dry run) and nothing else. places.data_size 0: as place.data_size, or to the end of the
/// device. If the store is there already (an earlier resize was interrupted before its caller wrote that down), that is success, too.
runtime::Task<int> resize_store(runtime::Loop& loop, const StorePlace& place, store::NewPlaces places, ResizeMode mode,
                                const Output& output, Logger& logger, std::string& error);

}  // namespace vitastor::offline

// SPDX-License-Identifier: GPL-2.0-or-later
// The jobs of vitastor-disk: one request in, lines of JSON out. Whoever runs the loop runs one job at a time.
#pragma once

#include <string>

#include "offline/offline_store.hpp"
#include "offline/report.hpp"
#include "offline/resize.hpp"

namespace vitastor::offline {

enum class JobKind : uint8_t { read_superblock, write_superblock, clear_superblock, dump_objects, dump_log, check, layout, resize };

struct JobRequest {
    JobKind kind{};
    StorePlace place;
    bool force = false;  ///< superblocks: although the device is in use or holds something else
    std::string json;    ///< write_superblock
    uint64_t room_bytes = kPageRoom;  ///< write_superblock: bytes before the first area on this device
    LogForm form = LogForm::entries;
    CheckData data = CheckData::yes;
    // layout: of the store that would be made
    uint32_t block_size = 131072, bitmap_granularity = 4096;
    bool checksums = true;
    uint64_t device_bytes = 0;  ///< 0: ask the device
    // resize
    store::NewPlaces places;
    ResizeMode resize = ResizeMode::really;

    static constexpr uint64_t kPageRoom = 4096;
};

/// 0, or an errno and what to tell the user in *error. request, output and error stay until the end.
runtime::Task<int> run_job(runtime::Loop& loop, const JobRequest& request, const Output& output, Logger& logger,
                           std::string& error);

}  // namespace vitastor::offline

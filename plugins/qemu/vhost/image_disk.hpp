// SPDX-License-Identifier: GPL-2.0-or-later
// An image as a disk, over the C ABI.
#pragma once

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "vhost/disk.hpp"
#include "vhost/fd.hpp"
#include "vitastor.h"

namespace vitastor::vhost {

struct ImageDiskOptions {
    std::vector<std::pair<std::string, std::string>> config;  ///< overrides of file and etcd
    std::string config_path;                                  ///< empty: the default
    std::string image;                                        ///< empty: the three numbers
    uint64_t pool = 0, inode = 0, size_bytes = 0;
    bool read_only = false;
    std::string serial;  ///< empty: the name
};

class ImageDisk final : public Disk {
public:
    ImageDisk() : changed_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
    ~ImageDisk() override;
    /// 0 or a negative errno; the reason has been printed.
    int open(const ImageDiskOptions& options);

    std::unique_ptr<DiskThread> open_thread() override;
    uint64_t bytes() const override { return vitastor_image_size(image_); }
    bool read_only() const override { return vitastor_image_read_only(image_) != 0; }
    bool is_durable() const override { return vitastor_image_immediate_commit(image_) != 0; }
    uint32_t discard_bytes() const override { return vitastor_image_block_size(image_); }
    std::string serial() const override { return serial_; }
    /// Readable when size or read-only flag have changed.
    const Fd& changed() const { return changed_; }

private:
    vitastor_cluster* cluster_ = nullptr;
    vitastor_context* context_ = nullptr;
    vitastor_image* image_ = nullptr;
    std::string serial_;
    Fd changed_;
};

}  // namespace vitastor::vhost

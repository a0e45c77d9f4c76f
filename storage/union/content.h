#pragma once

#include <sys/types.h>

#include <memory>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "storage/block/block_file.h"
#include "storage/layer/layer.h"

namespace ivmm::storage {

/// The bytes of one regular file in one layer: an ordinary file, or a block file over those of the
/// layers below. All who have the file open share it. Any thread.
class Content {
 public:
    Content(Layer* layer, UniqueFd file) : layer_(layer), file_(std::move(file)) {}
    Content(Layer* layer, uint64_t inode, std::shared_ptr<BlockFile> blocks)
        : layer_(layer), inode_(inode), blocks_(std::move(blocks)) {}
    Content(const Content&) = delete;
    Content& operator=(const Content&) = delete;

    Layer* layer() const { return layer_; }
    /// Of an ordinary file: none.
    const std::shared_ptr<BlockFile>& blocks() const { return blocks_; }
    /// For attributes.
    int fd() const { return blocks_ ? blocks_->data_fd() : file_.get(); }

    PosixResult<size_t> read(uint64_t offset, ByteSpan out) const;
    PosixResult<void> write(uint64_t offset, ConstByteSpan data);
    PosixResult<void> truncate(uint64_t size);
    /// As fallocate(2); the modes that cannot be had give EOPNOTSUPP.
    PosixResult<void> allocate(int mode, uint64_t offset, uint64_t length);
    /// As lseek(2) with SEEK_DATA or SEEK_HOLE.
    PosixResult<uint64_t> seek(uint64_t offset, int whence) const;
    /// To be called after each change: what the layer's seal has to flush is known to it then.
    void keep_until_flushed();
    /// Returns when it is on the medium.
    PosixResult<void> sync(bool data_only);

 private:
    Layer* layer_;
    uint64_t inode_ = 0;  // of the block file's part, in the layer's file system
    UniqueFd file_;
    std::shared_ptr<BlockFile> blocks_;
};

}  // namespace ivmm::storage

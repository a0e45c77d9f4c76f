#pragma once

#include <memory>
#include <string>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/blk/block_backend.h"

namespace ivmm {

/// A disk whose size is known before what it stands on is there: that of a clone which waits for
/// its fork. No requests before plug(). Device loop only.
class LateDisk final : public BlockBackend {
 public:
    /// Bytes; requests in flight.
    static Result<std::unique_ptr<LateDisk>> create(uint64_t size, bool read_only, size_t capacity);

    /// Once. Refuses a disk that is not what was promised.
    Result<void> plug(std::unique_ptr<BlockBackend> disk);

    std::string_view name() const override { return disk_ ? disk_->name() : "not there yet"; }
    uint64_t size() const override { return size_; }
    bool read_only() const override { return read_only_; }
    bool can_discard() const override { return !read_only_; }
    bool can_write_zeroes() const override { return !read_only_; }
    size_t capacity() const override { return capacity_; }

    void submit(Request request) override { disk_->submit(std::move(request)); }
    void commit() override {
        if (disk_) {
            disk_->commit();
        }
    }
    int completion_fd() const override { return completions_.get(); }
    void poll(std::vector<Completion>& out) override { disk_->poll(out); }
    void wait(std::vector<Completion>& out) override { disk_->wait(out); }

 private:
    LateDisk(uint64_t size, bool read_only, size_t capacity, UniqueFd completions)
        : size_(size),
          read_only_(read_only),
          capacity_(capacity),
          completions_(std::move(completions)) {}

    const uint64_t size_;
    const bool read_only_;
    const size_t capacity_;
    const UniqueFd completions_;  // an epoll(7) set of the disk's own descriptor
    std::unique_ptr<BlockBackend> disk_;
};

}  // namespace ivmm

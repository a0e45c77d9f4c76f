#pragma once

#include <liburing.h>

#include <memory>
#include <string>
#include <vector>

#include "base/event_fd.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/blk/block_backend.h"

namespace ivmm {

/// A regular file or a block device, through io_uring(7) and the host's page cache (on a FUSE file
/// system: without it).
///
/// The file is locked (fcntl F_OFD_SETLK) while the disk lives: one writer or many readers.
class UringDisk final : public BlockBackend {
 public:
    /// `depth`: requests in flight at once, 1 to 4096.
    static Result<std::unique_ptr<UringDisk>> open(const std::string& path, bool read_only,
                                                   uint32_t depth = 128);
    UringDisk(const UringDisk&) = delete;
    UringDisk& operator=(const UringDisk&) = delete;
    /// Nothing may be in flight.
    ~UringDisk() override;

    std::string_view name() const override { return path_; }
    uint64_t size() const override { return size_; }
    bool read_only() const override { return read_only_; }
    bool can_discard() const override { return !read_only_; }
    bool can_write_zeroes() const override { return !read_only_; }
    size_t capacity() const override { return slots_.size(); }

    void submit(Request request) override;
    void commit() override;
    int completion_fd() const override { return completed_.fd(); }
    void poll(std::vector<Completion>& out) override;
    void wait(std::vector<Completion>& out) override;

 private:
    struct Slot {
        Request request;
        size_t first_buffer = 0;   // of those that are not transferred yet
        uint64_t transferred = 0;  // bytes of the range that are done
        bool write_zeroes_by_hand = false;
        uint32_t retries = 0;
    };

    UringDisk(std::string path, UniqueFd file, uint64_t size, bool read_only, EventFd completed,
              uint32_t depth)
        : path_(std::move(path)),
          file_(std::move(file)),
          size_(size),
          read_only_(read_only),
          completed_(std::move(completed)),
          slots_(depth) {}
    Result<void> start_ring();

    void prepare(size_t index);
    /// Whether the slot is done; otherwise it was prepared again for its rest.
    bool advance(size_t index, int result, int& error);
    void reap(std::vector<Completion>& out);

    const std::string path_;
    const UniqueFd file_;
    const uint64_t size_;
    const bool read_only_;
    const EventFd completed_;
    io_uring ring_{};
    bool ring_started_ = false;
    std::vector<Slot> slots_;
    std::vector<size_t> free_;  // indices of slots_
};

}  // namespace ivmm

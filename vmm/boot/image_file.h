#pragma once

#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "memory/guest_memory.h"

namespace ivmm {

/// A kernel or initrd on the host. Untrusted: every offset is checked against the file's size.
class ImageFile {
 public:
    /// `what`: "kernel", "initrd"; for messages. Refuses what is not a regular file, and empty
    /// ones.
    static Result<ImageFile> open(std::string_view what, const std::string& path);

    /// "kernel /boot/vmlinux", to start a message with.
    const std::string& name() const { return name_; }
    uint64_t size() const { return size_; }

    /// Fails if the file ends before `out` is full.
    Result<void> read(uint64_t offset, ByteSpan out) const;
    template <class T>
    Result<T> read(uint64_t offset) const {
        T value{};
        IVMM_TRY(read(offset, writable_bytes_of(value)));
        return value;
    }

    /// Reads straight into guest memory. The caller has checked that the target is RAM.
    Result<void> load(uint64_t offset, uint64_t length, GuestMemory& memory, Gpa target) const;

 private:
    ImageFile(std::string name, UniqueFd fd, uint64_t size)
        : name_(std::move(name)), fd_(std::move(fd)), size_(size) {}
    Result<void> read_fully(uint64_t offset, iovec target) const;

    std::string name_;
    UniqueFd fd_;
    uint64_t size_;
};

}  // namespace ivmm

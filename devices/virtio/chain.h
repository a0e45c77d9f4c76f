#pragma once

#include <sys/uio.h>

#include <concepts>
#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "memory/guest_memory.h"

namespace ivmm::virtio {

/// A part of a descriptor chain: guest memory, checked to be RAM.
struct Segment {
    Gpa address;
    uint32_t length;
};

/// Walks over a list of segments. A cursor never leaves its segments: a read or write of more
/// than is left transfers nothing and returns false.
class Cursor {
 public:
    Cursor(GuestMemory& memory, std::span<const Segment> segments);

    uint64_t remaining() const { return remaining_; }
    [[nodiscard]] bool read(ByteSpan out);
    /// Writes and marks the pages dirty.
    [[nodiscard]] bool write(ConstByteSpan in);
    [[nodiscard]] bool skip(uint64_t length);

    template <class T>
    requires(!std::convertible_to<T&, ByteSpan>) [[nodiscard]] bool read(T& value) {
        return read(writable_bytes_of(value));
    }
    template <class T>
    requires(!std::convertible_to<const T&, ConstByteSpan>)
        [[nodiscard]] bool write(const T& value) {
        return write(bytes_of(value));
    }

    /// Moves `length` bytes forward and appends them to `out` for a system call that transfers
    /// them. For calls that write guest memory see GuestMemory::dma().
    [[nodiscard]] bool take_dma(uint64_t length, std::vector<iovec>& out);
    /// As take_dma(), but as guest addresses.
    [[nodiscard]] bool take(uint64_t length, std::vector<Segment>& out);

 private:
    /// Calls step(gpa, n) for each piece of the next `length` bytes; false if they are not there.
    template <class Step>
    bool advance(uint64_t length, const Step& step);

    GuestMemory* memory_;
    std::span<const Segment> segments_;
    uint64_t offset_ = 0;  // in segments_.front()
    uint64_t remaining_ = 0;
};

/// One request: a descriptor chain that was read from the guest exactly once. Device-readable
/// segments come first (virtio 1.2, 2.7.4.2). Move-only: it must be given back to its queue once.
class Chain {
 public:
    Chain(uint16_t head, std::vector<Segment> segments, size_t readable)
        : head_(head), segments_(std::move(segments)), readable_(readable) {}
    Chain(Chain&&) = default;
    Chain& operator=(Chain&&) = default;
    Chain(const Chain&) = delete;
    Chain& operator=(const Chain&) = delete;

    uint16_t head() const { return head_; }
    std::span<const Segment> readable() const { return std::span(segments_).first(readable_); }
    std::span<const Segment> writable() const { return std::span(segments_).subspan(readable_); }

 private:
    uint16_t head_;
    std::vector<Segment> segments_;
    size_t readable_;
};

}  // namespace ivmm::virtio

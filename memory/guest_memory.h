#pragma once

#include <sys/uio.h>

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "memory/dirty_bitmap.h"

namespace ivmm {

/// A guest physical address.
using Gpa = uint64_t;

inline constexpr uint64_t kPageSize = 4096;

/// Guest-physical layout of a PC: RAM below 3 GiB, a hole for devices, the rest above 4 GiB.
inline constexpr Gpa kLowRamEnd = uint64_t{3} << 30;
inline constexpr Gpa kHighRamStart = uint64_t{4} << 30;

/// One range of guest RAM and where it lies in the memory file.
struct RamRegion {
    Gpa start;
    uint64_t size;
    uint64_t file_offset;
};

/// A guest's RAM: a memfd of its own, or what it changes of an image that it shares with others.
///
/// Nobody gets a reference or a pointer into it except for DMA by the host kernel (dma()). Every
/// access is checked against the regions, and every write marks its pages in the dirty bitmap.
/// The guest may change any byte at any time, so what is read is read once into private storage.
///
/// Any thread may use any member. Accesses by the guest and by other threads are concurrent, as
/// on real hardware; only load_acquire and store_release order anything.
class GuestMemory {
 public:
    /// `size`: bytes, a multiple of the page size, at least 1 MiB. Pages take host memory only
    /// once they are touched.
    static Result<std::unique_ptr<GuestMemory>> create(uint64_t size);
    /// Memory that begins as `image` (a file or memfd of at least `size` bytes, open for reading)
    /// and takes host memory for the pages that are written, copy-on-write. A page that was not
    /// written yet follows changes of the image.
    static Result<std::unique_ptr<GuestMemory>> map_image(UniqueFd image, uint64_t size);
    GuestMemory(const GuestMemory&) = delete;
    GuestMemory& operator=(const GuestMemory&) = delete;
    ~GuestMemory();

    uint64_t size() const { return size_; }
    /// Bytes of host memory that this guest alone uses. Not quick: for people who ask.
    uint64_t resident_bytes() const;
    /// Bytes of host memory of the image that this guest and others of it share; 0: it has none.
    uint64_t shared_bytes() const;
    const std::vector<RamRegion>& regions() const { return regions_; }
    /// The address at which KVM is told to find a region; for memory slots only.
    uint64_t host_address(const RamRegion& region) const;

    /// Whether [start, start + length) is RAM, in one region.
    bool contains(Gpa start, uint64_t length) const { return translate(start, length) != nullptr; }

    /// False, and nothing copied, unless the whole range is RAM.
    [[nodiscard]] bool read(Gpa start, ByteSpan out) const;
    [[nodiscard]] bool write(Gpa start, ConstByteSpan in);
    [[nodiscard]] bool fill(Gpa start, uint64_t length, std::byte value);

    template <class T>
    [[nodiscard]] std::optional<T> read(Gpa start) const {
        T value{};
        if (!read(start, writable_bytes_of(value))) {
            return std::nullopt;
        }
        return value;
    }
    template <class T>
    requires(!std::convertible_to<const T&, ConstByteSpan>)
        [[nodiscard]] bool write(Gpa start, const T& value) {
        return write(start, bytes_of(value));
    }

    /// A 16-bit index shared with the guest; `start` must be even.
    [[nodiscard]] std::optional<uint16_t> load_acquire(Gpa start) const;
    [[nodiscard]] bool store_release(Gpa start, uint16_t value);

    /// Copies whole pages, counted from the start of the memory file, to `out`; the range must lie
    /// within the memory. While the guest or a device writes them they may come out torn, and
    /// are then marked dirty.
    void copy_pages(uint64_t first, uint64_t count, std::byte* out) const;
    /// Whether a page, counted likewise, holds nothing but zeroes, as far as one look tells.
    bool is_zero(uint64_t page) const;
    /// Of the pages from `first`: the first run that may hold anything but zeroes and have to be
    /// looked at. nullopt: none.
    struct PageRange {
        uint64_t first;
        uint64_t count;
    };
    std::optional<PageRange> next_data(uint64_t first) const;

    /// Where the host kernel may read (`for_write` false) or write guest memory on behalf of a
    /// device. Nothing but a system call may dereference it. Whoever passes it to a call that
    /// writes marks the range dirty when the call has completed. nullopt unless it is RAM.
    [[nodiscard]] std::optional<iovec> dma(Gpa start, uint64_t length) const;

    /// Records that a device or the VMM has written the range; ignores what is not RAM.
    void mark_dirty(Gpa start, uint64_t length);
    /// Pages written by the VMM (not by the guest), by offset in the memory file.
    DirtyBitmap& vmm_dirty() { return dirty_; }

 private:
    static Result<std::unique_ptr<GuestMemory>> map(UniqueFd fd, uint64_t size, bool shared);
    GuestMemory(UniqueFd fd, std::byte* base, uint64_t size, bool shared);
    /// Memory that the file takes.
    uint64_t file_bytes() const;
    /// The host address of a range that is RAM, else nullptr.
    std::byte* translate(Gpa start, uint64_t length) const;
    /// As next_data(): in the memory file, and what of [first, end) is not the image's any more.
    std::optional<PageRange> next_file_data(uint64_t first) const;
    std::optional<PageRange> next_own_page(uint64_t first, uint64_t end) const;

    UniqueFd fd_;
    std::byte* base_;
    uint64_t size_;
    bool shared_;  // the memfd is this guest's own and holds all of its memory
    uint64_t low_size_;
    std::vector<RamRegion> regions_;
    DirtyBitmap dirty_;
};

}  // namespace ivmm

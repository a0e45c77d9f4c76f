#include "memory/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <string>

#include "base/checked.h"

namespace ivmm {

Result<std::unique_ptr<GuestMemory>> GuestMemory::create(uint64_t size) {
    if (size < (uint64_t{1} << 20) || size % kPageSize != 0) {
        return fail_as(ErrorKind::kUsage,
                       "guest memory of {} bytes: must be a multiple of 4096 and at least 1 MiB",
                       size);
    }
    UniqueFd fd(::memfd_create("ivmm-guest", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!fd) {
        return fail_errno("cannot create the guest's memory file");
    }
    if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) {
        return fail_errno("cannot make the guest's memory file {} bytes long", size);
    }
    return map(std::move(fd), size, true);
}

Result<std::unique_ptr<GuestMemory>> GuestMemory::map_image(UniqueFd image, uint64_t size) {
    struct stat status {};
    if (::fstat(image.get(), &status) != 0) {
        return fail_errno("cannot look at the memory image");
    }
    if (static_cast<uint64_t>(status.st_size) < size) {
        return fail("the memory image has {} bytes, the guest {}", status.st_size, size);
    }
    return map(std::move(image), size, false);
}

Result<std::unique_ptr<GuestMemory>> GuestMemory::map(UniqueFd fd, uint64_t size, bool shared) {
    void* base = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                        (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_NORESERVE, fd.get(), 0);
    if (base == MAP_FAILED) {
        return fail_errno("cannot map {} bytes of guest memory", size);
    }
    // Guest memory is the bulk of a core dump and the last thing to be in one.
    ::madvise(base, size, MADV_DONTDUMP);
    return std::unique_ptr<GuestMemory>(
        new GuestMemory(std::move(fd), static_cast<std::byte*>(base), size, shared));
}

GuestMemory::GuestMemory(UniqueFd fd, std::byte* base, uint64_t size, bool shared)
    : fd_(std::move(fd)),
      base_(base),
      size_(size),
      shared_(shared),
      low_size_(std::min<uint64_t>(size, kLowRamEnd)),
      dirty_(size / kPageSize) {
    regions_.push_back({0, low_size_, 0});
    if (size_ > low_size_) {
        regions_.push_back({kHighRamStart, size_ - low_size_, low_size_});
    }
}

GuestMemory::~GuestMemory() {
    ::munmap(base_, size_);
}

uint64_t GuestMemory::file_bytes() const {
    constexpr uint64_t kStatBlock = 512;
    struct stat file {};
    return ::fstat(fd_.get(), &file) == 0 ? static_cast<uint64_t>(file.st_blocks) * kStatBlock : 0;
}

uint64_t GuestMemory::shared_bytes() const {
    return shared_ ? 0 : file_bytes();
}

uint64_t GuestMemory::resident_bytes() const {
    if (shared_) {
        return file_bytes();
    }
    // The kernel may have split or merged mappings: those within the range count.
    const auto begin = reinterpret_cast<uint64_t>(base_);
    std::ifstream smaps("/proc/self/smaps");
    uint64_t kibibytes = 0;
    bool within = false;
    for (std::string line; std::getline(smaps, line);) {
        uint64_t start = 0;
        uint64_t end = 0;
        uint64_t value = 0;
        // NOLINTBEGIN(cert-err34-c): the kernel's own numbers
        if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2) {
            within = start >= begin && end <= begin + size_;
        } else if (within && std::sscanf(line.c_str(), "Anonymous: %" SCNu64, &value) == 1) {
            kibibytes += value;
        }
        // NOLINTEND(cert-err34-c)
    }
    return kibibytes << 10;
}

void GuestMemory::copy_pages(uint64_t first, uint64_t count, std::byte* out) const {
    // In assembler, as others may write meanwhile: no compiler or checker has to make sense of it.
    const std::byte* from = base_ + first * kPageSize;
    uint64_t words = count * kPageSize / sizeof(uint64_t);
    asm volatile("rep movsq" : "+D"(out), "+S"(from), "+c"(words) : : "memory");
}

// Others may write meanwhile, as they may while copy_pages() reads: whoever is told something that
// is no longer true finds the page dirty in the next round.
__attribute__((no_sanitize("thread"))) bool GuestMemory::is_zero(uint64_t page) const {
    constexpr size_t kWords = kPageSize / sizeof(uint64_t);
    constexpr size_t kStep = 8;
    const auto* const words = reinterpret_cast<const volatile uint64_t*>(base_ + page * kPageSize);
    for (size_t i = 0; i < kWords; i += kStep) {
        uint64_t bits = 0;
        for (size_t j = 0; j < kStep; ++j) {
            bits |= words[i + j];
        }
        if (bits != 0) {
            return false;
        }
    }
    return true;
}

std::optional<GuestMemory::PageRange> GuestMemory::next_data(uint64_t first) const {
    const uint64_t pages = size_ / kPageSize;
    if (first >= pages) {
        return std::nullopt;
    }
    const auto in_file = next_file_data(first);
    const uint64_t data = in_file ? in_file->first : pages;
    if (!shared_ && data > first) {
        // What is a hole in the image may have been written since.
        if (const auto own = next_own_page(first, data)) {
            return own;
        }
    }
    return in_file;
}

std::optional<GuestMemory::PageRange> GuestMemory::next_file_data(uint64_t first) const {
    const uint64_t pages = size_ / kPageSize;
    const off_t data = ::lseek(fd_.get(), static_cast<off_t>(first * kPageSize), SEEK_DATA);
    if (data < 0) {
        return errno == ENXIO ? std::nullopt : std::optional(PageRange{first, pages - first});
    }
    const uint64_t begin = static_cast<uint64_t>(data) / kPageSize;
    if (begin >= pages) {
        return std::nullopt;  // in what an image has beyond the memory
    }
    const off_t hole = ::lseek(fd_.get(), data, SEEK_HOLE);
    const uint64_t end =
        hole < 0 ? pages : (static_cast<uint64_t>(hole) + kPageSize - 1) / kPageSize;
    return PageRange{begin, std::min(end, pages) - begin};
}

std::optional<GuestMemory::PageRange> GuestMemory::next_own_page(uint64_t first,
                                                                 uint64_t end) const {
    // Documentation/admin-guide/mm/pagemap.rst
    constexpr uint64_t kOfFile = uint64_t{1} << 61;
    constexpr uint64_t kThere = uint64_t{3} << 62;  // in memory or swapped out
    const UniqueFd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
    std::array<uint64_t, 512> entries{};
    const uint64_t base = reinterpret_cast<uint64_t>(base_) / kPageSize;
    while (first < end) {
        const uint64_t count = std::min<uint64_t>(entries.size(), end - first);
        const auto bytes = static_cast<ssize_t>(count * sizeof entries[0]);
        if (!pagemap || ::pread(pagemap.get(), entries.data(), static_cast<size_t>(bytes),
                                static_cast<off_t>((base + first) * sizeof entries[0])) != bytes) {
            return PageRange{first, end - first};  // nobody knows
        }
        const auto is_own = [](uint64_t entry) {
            return (entry & kThere) != 0 && (entry & kOfFile) == 0;
        };
        const auto last = entries.begin() + static_cast<ptrdiff_t>(count);
        const auto begin = std::find_if(entries.begin(), last, is_own);
        if (begin != last) {
            const auto rest = std::find_if_not(begin, last, is_own);
            return PageRange{first + static_cast<uint64_t>(begin - entries.begin()),
                             static_cast<uint64_t>(rest - begin)};
        }
        first += count;
    }
    return std::nullopt;
}

uint64_t GuestMemory::host_address(const RamRegion& region) const {
    return reinterpret_cast<uint64_t>(base_ + region.file_offset);
}

std::byte* GuestMemory::translate(Gpa start, uint64_t length) const {
    if (range_within(start, length, low_size_)) {
        return base_ + start;
    }
    if (start >= kHighRamStart && range_within(start - kHighRamStart, length, size_ - low_size_)) {
        return base_ + low_size_ + (start - kHighRamStart);
    }
    return nullptr;
}

bool GuestMemory::read(Gpa start, ByteSpan out) const {
    const std::byte* host = translate(start, out.size());
    if (host == nullptr) {
        return false;
    }
    std::copy_n(host, out.size(), out.data());
    return true;
}

bool GuestMemory::write(Gpa start, ConstByteSpan in) {
    std::byte* host = translate(start, in.size());
    if (host == nullptr) {
        return false;
    }
    std::copy_n(in.data(), in.size(), host);
    mark_dirty(start, in.size());
    return true;
}

bool GuestMemory::fill(Gpa start, uint64_t length, std::byte value) {
    std::byte* host = translate(start, length);
    if (host == nullptr) {
        return false;
    }
    std::fill_n(host, length, value);
    mark_dirty(start, length);
    return true;
}

std::optional<uint16_t> GuestMemory::load_acquire(Gpa start) const {
    std::byte* host = translate(start, sizeof(uint16_t));
    if (host == nullptr || start % alignof(uint16_t) != 0) {
        return std::nullopt;
    }
    return std::atomic_ref(*reinterpret_cast<uint16_t*>(host)).load(std::memory_order_acquire);
}

bool GuestMemory::store_release(Gpa start, uint16_t value) {
    std::byte* host = translate(start, sizeof value);
    if (host == nullptr || start % alignof(uint16_t) != 0) {
        return false;
    }
    std::atomic_ref(*reinterpret_cast<uint16_t*>(host)).store(value, std::memory_order_release);
    mark_dirty(start, sizeof value);
    return true;
}

std::optional<iovec> GuestMemory::dma(Gpa start, uint64_t length) const {
    std::byte* host = translate(start, length);
    if (host == nullptr) {
        return std::nullopt;
    }
    return iovec{host, length};
}

void GuestMemory::mark_dirty(Gpa start, uint64_t length) {
    const std::byte* host = translate(start, length);
    if (host == nullptr || length == 0) {
        return;
    }
    const auto offset = static_cast<uint64_t>(host - base_);
    dirty_.mark(offset / kPageSize, (offset + length - 1) / kPageSize);
}

}  // namespace ivmm

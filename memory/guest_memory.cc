#include "memory/guest_memory.h"

#include <sys/mman.h>

#include <algorithm>

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
    void* base =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
    if (base == MAP_FAILED) {
        return fail_errno("cannot map {} bytes of guest memory", size);
    }
    // Guest memory is the bulk of a core dump and the last thing to be in one.
    ::madvise(base, size, MADV_DONTDUMP);
    return std::unique_ptr<GuestMemory>(
        new GuestMemory(std::move(fd), static_cast<std::byte*>(base), size));
}

GuestMemory::GuestMemory(UniqueFd fd, std::byte* base, uint64_t size)
    : fd_(std::move(fd)),
      base_(base),
      size_(size),
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

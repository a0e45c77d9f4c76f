#include "memory/replica.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

namespace ivmm {

Result<std::unique_ptr<Replica>> Replica::create(uint64_t size) {
    UniqueFd fd(::memfd_create("ivmm-replica", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!fd) {
        return fail_errno("cannot create a replica's memory file");
    }
    if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) {
        return fail_errno("cannot make a replica's memory file {} bytes long", size);
    }
    void* base =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
    if (base == MAP_FAILED) {
        return fail_errno("cannot map a replica of {} bytes", size);
    }
    ::madvise(base, size, MADV_DONTDUMP);
    return std::unique_ptr<Replica>(
        new Replica(std::move(fd), static_cast<std::byte*>(base), size));
}

Replica::Replica(UniqueFd fd, std::byte* base, uint64_t size)
    : fd_(std::move(fd)), base_(base), size_(size), populated_(size / kPageSize) {}

Replica::~Replica() {
    if (base_ != nullptr) {
        ::munmap(base_, size_);
    }
}

uint64_t Replica::resident_bytes() const {
    constexpr uint64_t kStatBlock = 512;
    struct stat file {};
    return ::fstat(fd_.get(), &file) == 0 ? static_cast<uint64_t>(file.st_blocks) * kStatBlock : 0;
}

Result<UniqueFd> Replica::open_for_reading() const {
    UniqueFd fd(::open(fmt::format("/proc/self/fd/{}", fd_.get()).c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) {
        return fail_errno("cannot open a replica for reading");
    }
    return fd;
}

uint64_t Replica::update(const GuestMemory& memory, const PageSet& pages) {
    uint64_t copied = 0;
    pages.for_each_run([&](uint64_t first, uint64_t count) {
        for (const uint64_t end = first + count; first < end;) {
            if (!populated_.contains(first)) {
                // What is written after this look is in the next set of pages.
                if (memory.is_zero(first)) {
                    ++first;
                    continue;
                }
                populated_.insert(first);
            }
            uint64_t together = 1;
            while (first + together < end && populated_.contains(first + together)) {
                ++together;
            }
            memory.copy_pages(first, together, base_ + first * kPageSize);
            first += together;
            copied += together;
        }
    });
    return copied;
}

void Replica::store(uint64_t first, ConstByteSpan content) {
    for (; !content.empty(); content = content.subspan(kPageSize), ++first) {
        populated_.insert(first);
        std::copy_n(content.data(), kPageSize, base_ + first * kPageSize);
    }
}

Result<std::unique_ptr<Replica>> Replica::copy() const {
    IVMM_ASSIGN(auto other, create(size_));
    void* const mapped = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd_.get(), 0);
    if (mapped == MAP_FAILED) {
        return fail_errno("cannot map a replica of {} bytes", size_);
    }
    const auto* const from = static_cast<const std::byte*>(mapped);
    populated_.for_each_run([&](uint64_t first, uint64_t count) {
        other->store(first, {from + first * kPageSize, count * kPageSize});
    });
    ::munmap(mapped, size_);
    return other;
}

Result<void> Replica::seal() {
    ::munmap(std::exchange(base_, nullptr), size_);
    if (::fcntl(fd_.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) != 0) {
        return fail_errno("cannot seal a replica");
    }
    return {};
}

}  // namespace ivmm

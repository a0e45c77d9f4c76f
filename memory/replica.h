#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "memory/guest_memory.h"
#include "memory/page_set.h"

namespace ivmm {

/// A copy of a guest's memory in a memfd of its own, which is brought up to date page by page and
/// then sealed. One thread at a time.
class Replica {
 public:
    /// All zeroes; `size`: bytes, a multiple of the page size.
    static Result<std::unique_ptr<Replica>> create(uint64_t size);
    Replica(const Replica&) = delete;
    Replica& operator=(const Replica&) = delete;
    ~Replica();

    uint64_t size() const { return size_; }
    /// Bytes of host memory that it takes.
    uint64_t resident_bytes() const;
    /// A descriptor that can only be read: for whoever is to map the image. Valid before and after
    /// seal().
    Result<UniqueFd> open_for_reading() const;

    /// Takes these pages from `memory` (of the same size), which may be written meanwhile: pages
    /// that are must be in a later set. Pages of zeroes take no memory unless
    /// they have held something else. Gives the number of pages that had to be copied.
    uint64_t update(const GuestMemory& memory, const PageSet& pages);

    /// Takes the pages from `first` on from `content`, whole pages within the replica. As update().
    void store(uint64_t first, ConstByteSpan content);
    /// Another replica with the same content; also after seal().
    Result<std::unique_ptr<Replica>> copy() const;

    /// From now on nobody can change the image (F_SEAL_WRITE); update() must not be called again.
    Result<void> seal();

 private:
    Replica(UniqueFd fd, std::byte* base, uint64_t size);

    UniqueFd fd_;
    std::byte* base_;  // null once sealed
    uint64_t size_;
    PageSet populated_;  // pages that may hold anything but zeroes
};

}  // namespace ivmm

#pragma once

#include <xxhash.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/snapshot/memory_chain.h"
#include "vmm/snapshot/snapshot.h"

/// The file `memory` of a snapshot: as long as the guest's memory, page by page at its place. Pages
/// of zeroes, and pages that are those of the base, are holes.
namespace ivmm {

/// A checksum of the pages that are no zeroes, each with its number, in their order (XXH3-128).
class MemoryDigest {
 public:
    MemoryDigest();
    void add(uint64_t page, ConstByteSpan content);
    std::array<uint64_t, 2> value() const;

 private:
    std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state_;
};

struct MemoryWriteReport {
    SnapshotMemory memory;       ///< without the name of its base
    uint64_t written_bytes = 0;  ///< that the file takes
};

/// Told how much is done, 0 to 1; false ends the work with an error.
using MemoryProgress = std::function<bool(double done)>;

/// Writes `file`, which is empty, from `image` of `bytes` bytes, which nobody changes meanwhile;
/// with `base`, the pages in which they differ. Syncs it. Errors say what could not be done, but
/// do not name the file.
Result<MemoryWriteReport> write_memory(int file, int image, uint64_t bytes, const MemoryChain* base,
                                       const MemoryProgress& progress);

/// Reads all of a snapshot's own memory file. Errors: its checksum does not match.
Result<void> check_memory_file(int file, const SnapshotMemory& memory);

}  // namespace ivmm

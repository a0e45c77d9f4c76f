#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "memory/guest_memory.h"
#include "memory/page_set.h"
#include "vmm/snapshot/snapshot.h"

namespace ivmm {

/// The memory of a snapshot: its own file and those of the snapshots it is based on. One thread.
class MemoryChain {
 public:
    /// A snapshot and what it is based on, all together.
    static constexpr size_t kMaxDepth = 16;

    /// Opens all files. `top` is the snapshot in `folder`. Errors: a base is missing or another
    /// snapshot than it was, the chain is too long or a ring, a file has the wrong length.
    static Result<MemoryChain> open(const std::string& folder, const Snapshot& top);

    uint64_t bytes() const { return bytes_; }
    size_t depth() const { return layers_.size(); }

    /// The content of whole pages; the range must lie within the memory.
    Result<void> read(uint64_t first, uint64_t count, ByteSpan out) const;
    /// Memory that begins with this content, and takes host memory only for what is changed, and
    /// for the pages that are not in the last snapshot of the chain. The files must stay as they
    /// are for as long as it lives.
    Result<std::unique_ptr<GuestMemory>> map() const;
    /// Reads everything. Errors: a checksum does not match; they name the file.
    Result<void> check() const;

 private:
    struct Layer {
        std::string path;
        UniqueFd file;
        SnapshotMemory memory;
        std::optional<PageSet> pages;  ///< none: all
    };
    explicit MemoryChain(uint64_t bytes) : bytes_(bytes) {}
    Result<void> add(const std::string& folder, const SnapshotMemory& memory);

    uint64_t bytes_;
    std::vector<Layer> layers_;  // from the top down; only the last has all pages
};

}  // namespace ivmm

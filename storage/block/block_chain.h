#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/unique_fd.h"
#include "storage/block/block_index.h"

namespace ivmm::storage {

/// The files that a BlockFile's blocks are in, by their source. Does not change. Any thread.
class BlockChain {
 public:
    using File = std::shared_ptr<const UniqueFd>;

    /// A bottom file of `size` bytes alone.
    BlockChain(File bottom, uint64_t size);
    /// `lower`, whose topmost file has `size` bytes and lets `limit` bytes of those below it
    /// through, and a part over it.
    BlockChain(const BlockChain& lower, uint64_t size, uint64_t limit, File part);

    /// The topmost one; its number is that of files in the chain.
    BlockSource top() const { return static_cast<BlockSource>(levels_.size()); }
    /// How many files a chain can have.
    static constexpr size_t kMaxLength = UINT16_MAX;

    int fd(BlockSource source) const { return level(source).file->get(); }
    /// The end, in bytes, of what the parts between this file and the topmost let through of it.
    uint64_t limit(BlockSource source) const { return level(source).limit; }

 private:
    struct Level {
        File file;
        uint64_t limit = 0;
    };
    const Level& level(BlockSource source) const { return levels_[source - size_t{1}]; }

    std::vector<Level> levels_;
};

}  // namespace ivmm::storage

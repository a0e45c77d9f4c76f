#include "storage/block/block_chain.h"

#include <algorithm>

namespace ivmm::storage {

BlockChain::BlockChain(File bottom, uint64_t size) {
    levels_.push_back({std::move(bottom), size});
}

BlockChain::BlockChain(const BlockChain& lower, uint64_t size, uint64_t limit, File part) {
    levels_.reserve(lower.levels_.size() + 1);
    levels_ = lower.levels_;
    for (Level& level : levels_) {
        level.limit = std::min(level.limit, limit);
    }
    levels_.back().limit = size;
    levels_.push_back({std::move(part), UINT64_MAX});
}

}  // namespace ivmm::storage

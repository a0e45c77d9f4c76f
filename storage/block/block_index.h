#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <variant>

namespace ivmm::storage {

/// Where a block's content is: nowhere (zeroes), or in a file of the chain, counted from the
/// bottom.
using BlockSource = uint16_t;
constexpr BlockSource kZeroSource = 0;
constexpr BlockSource kBottomSource = 1;

/// Block number -> source, for all blocks of a file: those never set are zero. A radix tree whose
/// nodes are shared by the copies that fork() makes, until one of them changes.
///
/// Memory: 1 KiB for each leaf of 512 blocks that do not all have the same source (2 bytes a
/// block), and 1.5 KiB for each 64 leaves of which one is such (and so on upwards: under 2 % more
/// when all are). Areas of one source cost nothing, and neither does what a copy has in common.
///
/// One thread at a time changes it, and nobody reads it meanwhile.
class BlockIndex {
 public:
    static constexpr uint64_t kLeafBlocks = 512;
    using Leaf = std::array<BlockSource, kLeafBlocks>;

    struct Run {
        BlockSource source = kZeroSource;
        uint64_t end = 0;
    };

    BlockIndex() : owner_(next_owner()) {}
    BlockIndex(BlockIndex&&) = default;
    BlockIndex& operator=(BlockIndex&&) = default;
    BlockIndex(const BlockIndex&) = delete;
    BlockIndex& operator=(const BlockIndex&) = delete;
    ~BlockIndex() = default;

    /// An equal one. Takes no time, whatever the size; afterwards both copy a node before they
    /// change it for the first time.
    BlockIndex fork();

    /// The source of `block`, and how far it goes on, at most up to `end`. `block` < `end`.
    Run run(uint64_t block, uint64_t end) const;
    /// Sets the blocks [first, end). end <= kMaxBlocks.
    void set(uint64_t first, uint64_t end, BlockSource source);

    /// The sources of the 512 blocks from leaf * 512 on.
    void copy_leaf(uint64_t leaf, Leaf& out) const;
    void store_leaf(uint64_t leaf, const Leaf& sources);

    /// Any file offset of 63 bits is in one of so many blocks.
    static constexpr uint64_t kMaxBlocks = uint64_t{1} << 51;

 private:
    static constexpr unsigned kLeafBits = 9;
    static constexpr unsigned kFanBits = 6;
    struct LeafNode;
    struct InnerNode;
    /// A source that all blocks below have, or what tells them apart: a leaf on level 0, an inner
    /// node above.
    using Slot = std::variant<BlockSource, std::shared_ptr<LeafNode>, std::shared_ptr<InnerNode>>;

    static uint64_t next_owner();
    static constexpr uint64_t span_of(unsigned level) {
        return uint64_t{1} << (kLeafBits + kFanBits * level);
    }
    /// The uniform area or the leaf that `block` < span_of(level_) is in, and its level.
    std::pair<const Slot*, unsigned> find(uint64_t block) const;
    /// As run(), but may end early, where the tree divides.
    Run piece(uint64_t block) const;
    void grow(uint64_t end);
    Leaf& own_leaf(Slot& slot);
    InnerNode& own_inner(Slot& slot);
    void set_in(Slot& slot, unsigned level, uint64_t first, uint64_t end, BlockSource source);
    void store_in(Slot& slot, unsigned level, uint64_t leaf, const Leaf& sources);
    static void collapse(Slot& slot);

    Slot root_ = kZeroSource;
    unsigned level_ = 0;  ///< of the root
    /// Nodes that carry it belong to this tree alone; all others may be shared and stay as they
    /// are. (Reference counts would not do: they do not order the accesses of other threads.)
    uint64_t owner_;
};

}  // namespace ivmm::storage

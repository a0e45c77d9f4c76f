#include "storage/block/block_index.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace ivmm::storage {
namespace {

std::vector<BlockSource> expand(const BlockIndex& index, uint64_t end) {
    std::vector<BlockSource> result;
    while (result.size() < end) {
        const auto run = index.run(result.size(), end);
        result.resize(run.end, run.source);
    }
    return result;
}

TEST(BlockIndex, IsZeroUntilSet) {
    BlockIndex index;
    const auto run = index.run(12345, BlockIndex::kMaxBlocks);
    EXPECT_EQ(run.source, kZeroSource);
    EXPECT_EQ(run.end, BlockIndex::kMaxBlocks);
}

TEST(BlockIndex, HoldsTheLargestFile) {
    BlockIndex index;
    index.set(0, BlockIndex::kMaxBlocks, 7);
    index.set(BlockIndex::kMaxBlocks - 1, BlockIndex::kMaxBlocks, 8);
    EXPECT_EQ(index.run(5, BlockIndex::kMaxBlocks).source, 7);
    EXPECT_EQ(index.run(5, BlockIndex::kMaxBlocks).end, BlockIndex::kMaxBlocks - 1);
    EXPECT_EQ(index.run(BlockIndex::kMaxBlocks - 1, BlockIndex::kMaxBlocks).source, 8);
}

TEST(BlockIndex, RunsGoOnAcrossNodes) {
    BlockIndex index;
    index.set(3, 1'000'000, 2);
    const auto run = index.run(3, 2'000'000);
    EXPECT_EQ(run.source, 2);
    EXPECT_EQ(run.end, 1'000'000U);
    EXPECT_EQ(index.run(100, 200).end, 200U);
}

TEST(BlockIndex, AgreesWithAnArrayAndForksStayApart) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    constexpr uint64_t kBlocks = 70'000;  // more than one inner node of leaves
    struct Version {
        BlockIndex index;
        std::vector<BlockSource> model = std::vector<BlockSource>(kBlocks);
    };
    std::vector<Version> versions(1);
    for (int step = 0; step < 600; ++step) {
        Version& version = versions[random() % versions.size()];
        const uint64_t first = random() % kBlocks;
        const uint64_t longest = random() % 3 == 0 ? kBlocks : 600;
        const uint64_t end = std::min(kBlocks, first + 1 + random() % longest);
        const auto source = static_cast<BlockSource>(random() % 4);
        if (random() % 4 == 0) {
            BlockIndex::Leaf leaf;
            const uint64_t number = first / leaf.size();
            version.index.copy_leaf(number, leaf);
            for (size_t i = 0; i < leaf.size() && number * leaf.size() + i < kBlocks; ++i) {
                ASSERT_EQ(leaf[i], version.model[number * leaf.size() + i]);
            }
            leaf.fill(source);
            leaf[random() % leaf.size()] = 3;
            version.index.store_leaf(number, leaf);
            for (size_t i = 0; i < leaf.size() && number * leaf.size() + i < kBlocks; ++i) {
                version.model[number * leaf.size() + i] = leaf[i];
            }
        } else {
            version.index.set(first, end, source);
            std::fill(version.model.begin() + static_cast<ptrdiff_t>(first),
                      version.model.begin() + static_cast<ptrdiff_t>(end), source);
        }
        if (step % 100 == 50) {
            versions.push_back({version.index.fork(), version.model});
        }
    }
    for (const Version& version : versions) {
        EXPECT_EQ(expand(version.index, kBlocks), version.model);
    }
}

}  // namespace
}  // namespace ivmm::storage

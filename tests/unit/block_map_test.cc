#include "storage/block/block_map.h"

#include <unistd.h>
#include <xxhash.h>

#include "tests/support/block_parts.h"

namespace ivmm::storage {
namespace {

using test::BlockParts;
using test::Bytes;
using test::pattern;
using test::read_all;

constexpr size_t kSlot = 4096;

class BlockMapOnDisk : public testing::Test {
 protected:
    /// A part with two flushes: both slots of page 1 are written.
    void SetUp() override {
        bottom_ = parts_.bottom(base_);
        const auto file = parts_.add(bottom_, "part");
        for (const size_t block : {3, 7}) {
            const Bytes data = pattern(kBlockSize, static_cast<unsigned>(block));
            ASSERT_TRUE(file->write(block * kBlockSize, data));
            older_ = newest_.empty() ? base_ : newest_;
            newest_ = older_;
            std::ranges::copy(data, newest_.begin() + static_cast<ptrdiff_t>(block * kBlockSize));
            ASSERT_TRUE(file->flush());
        }
        map_ = parts_.files("part", O_RDWR).map;
    }
    void damage(uint64_t offset) {
        Bytes byte(1);
        ASSERT_TRUE(read_at(map_.get(), offset, byte));
        byte[0] ^= std::byte{0x10};
        ASSERT_TRUE(write_at(map_.get(), offset, byte));
    }
    MapReport examine() {
        const auto report = examine_map(map_.get());
        EXPECT_TRUE(report);
        return report ? *report : MapReport{};
    }

    BlockParts parts_;
    Bytes base_ = pattern(20 * kBlockSize, 1);
    Bytes older_;   ///< at the first flush
    Bytes newest_;  ///< at the second
    BlockParts::File bottom_;
    UniqueFd map_;
};

TEST_F(BlockMapOnDisk, IsAsDescribed) {
    EXPECT_TRUE(read_all(*parts_.open(bottom_, "part")) == newest_);
    Bytes slot(kSlot);
    ASSERT_TRUE(read_at(map_.get(), 3 * kSlot, slot));  // page 1, second slot
    EXPECT_EQ(load_at<uint64_t>(slot, 0), XXH3_64bits(slot.data() + 8, kSlot - 8));
    EXPECT_EQ(std::memcmp(slot.data() + 8, "ivmm-map", 8), 0);
    EXPECT_EQ(load_at<uint64_t>(slot, 16), 1U);
    EXPECT_EQ(load_at<uint64_t>(slot, 24), 1U);
    EXPECT_EQ(load_at<uint32_t>(slot, 32), (1U << 6) | (1U << 14));
    const MapReport report = examine();
    EXPECT_EQ(report.pages, 1U);
    EXPECT_EQ(report.blocks_here, 2U);
    EXPECT_EQ(report.blocks_zero, 0U);
    EXPECT_EQ(report.torn_pages, 0U);
    EXPECT_EQ(report.corrupt_pages, 0U);
}

TEST_F(BlockMapOnDisk, ATornNewestSlotLeavesTheOlder) {
    damage(3 * kSlot + 33);
    EXPECT_TRUE(read_all(*parts_.open(bottom_, "part", false)) == older_);
    EXPECT_EQ(examine().torn_pages, 1U);
    EXPECT_EQ(examine().corrupt_pages, 0U);
    // The next flush takes the torn slot's place.
    const auto file = parts_.open(bottom_, "part");
    ASSERT_TRUE(file->write(7 * kBlockSize, pattern(kBlockSize, 7)));
    ASSERT_TRUE(file->flush());
    EXPECT_EQ(examine().torn_pages, 0U);
    EXPECT_TRUE(read_all(*parts_.open(bottom_, "part")) == newest_);
}

TEST_F(BlockMapOnDisk, ABadOlderSlotDoesNotMatter) {
    damage(2 * kSlot + 33);
    EXPECT_TRUE(read_all(*parts_.open(bottom_, "part")) == newest_);
    EXPECT_EQ(examine().torn_pages, 1U);
}

TEST_F(BlockMapOnDisk, TwoBadSlotsAreRefused) {
    damage(2 * kSlot + 33);
    damage(3 * kSlot + 4000);
    for (const bool writable : {false, true}) {
        const auto file = parts_.try_open(bottom_, "part", writable);
        ASSERT_FALSE(file);
        EXPECT_NE(file.error().message.find("page 1, which tells where bytes 0 to 65011711"),
                  std::string::npos)
            << file.error().message;
    }
    EXPECT_EQ(examine().corrupt_pages, 1U);
}

TEST_F(BlockMapOnDisk, ALostFirstSlotUnderABadSecondIsRefused) {
    ASSERT_TRUE(write_at(map_.get(), 2 * kSlot, Bytes(kSlot)));
    damage(3 * kSlot + 33);
    EXPECT_FALSE(parts_.try_open(bottom_, "part"));
}

TEST_F(BlockMapOnDisk, ABadHeaderIsRefused) {
    damage(40);
    // Its second slot was never written: so it counts as torn, but then no page could be there.
    EXPECT_FALSE(parts_.try_open(bottom_, "part"));
    EXPECT_FALSE(examine_map(map_.get()));
    ASSERT_EQ(::ftruncate(map_.get(), 2 * kSlot), 0);
    EXPECT_TRUE(read_all(*parts_.open(bottom_, "part")) == base_);
}

TEST_F(BlockMapOnDisk, ANewerVersionIsRefused) {
    Bytes slot(kSlot);
    ASSERT_TRUE(read_at(map_.get(), 0, slot));
    slot[32] = std::byte{2};
    store_le(ByteSpan(slot).first(8), XXH3_64bits(slot.data() + 8, kSlot - 8));
    ASSERT_TRUE(write_at(map_.get(), 0, slot));
    const auto file = parts_.try_open(bottom_, "part");
    ASSERT_FALSE(file);
    EXPECT_NE(file.error().message.find("version 2"), std::string::npos);
    EXPECT_FALSE(examine_map(map_.get()));
}

TEST_F(BlockMapOnDisk, StatesThatDoNotExistAreBad) {
    Bytes slot(kSlot);
    ASSERT_TRUE(read_at(map_.get(), 3 * kSlot, slot));
    slot[100] = std::byte{3};
    store_le(ByteSpan(slot).first(8), XXH3_64bits(slot.data() + 8, kSlot - 8));
    ASSERT_TRUE(write_at(map_.get(), 3 * kSlot, slot));
    EXPECT_TRUE(read_all(*parts_.open(bottom_, "part")) == older_);
}

TEST_F(BlockMapOnDisk, AnythingElseIsNoMap) {
    ASSERT_TRUE(write_at(map_.get(), 0, pattern(4 * kSlot, 5)));
    EXPECT_FALSE(parts_.try_open(bottom_, "part"));
    EXPECT_FALSE(examine_map(map_.get()));
}

TEST_F(BlockMapOnDisk, DamageGivesARefusalOrAnOlderState) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const Bytes intact = [&] {
        Bytes bytes(4 * kSlot);
        EXPECT_TRUE(read_at(map_.get(), 0, bytes));
        return bytes;
    }();
    for (int i = 0; i < 100; ++i) {
        ASSERT_TRUE(write_at(map_.get(), 0, intact));
        for (unsigned n = random() % 4 + 1; n > 0; --n) {
            damage(random() % intact.size());
        }
        const auto file = parts_.try_open(bottom_, "part", random() % 2 == 0);
        if (file) {
            const Bytes found = read_all(**file);
            EXPECT_TRUE(found == newest_ || found == older_);
        } else {
            EXPECT_NE(file.error().message.find("corrupt"), std::string::npos);
        }
    }
}

TEST_F(BlockMapOnDisk, PagesOfAFileThatIsShorterThanTheyTellAreNotRead) {
    // A page far behind the end of the data: nothing is allocated for it, nothing shows.
    BlockMap map(map_.get());
    ASSERT_TRUE(map.load_header());
    MapStates states;
    states.fill(std::byte{0x55});
    ASSERT_TRUE(map.write_page(1'000'000, states));
    EXPECT_TRUE(read_all(*parts_.open(bottom_, "part")) == newest_);
    EXPECT_EQ(examine().pages, 2U);
}

}  // namespace
}  // namespace ivmm::storage

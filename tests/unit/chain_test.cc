#include "devices/virtio/chain.h"

#include <gtest/gtest.h>

#include <array>
#include <numeric>

namespace ivmm::virtio {
namespace {

class CursorTest : public ::testing::Test {
 protected:
    CursorTest() : memory_(*GuestMemory::create(1 << 20)) {
        std::vector<uint8_t> bytes(0x3000);
        std::iota(bytes.begin(), bytes.end(), uint8_t{0});
        EXPECT_TRUE(memory_->write(0, std::as_bytes(std::span(bytes))));
        PageSet dirty(memory_->vmm_dirty().pages());
        memory_->vmm_dirty().collect(dirty);
    }
    std::unique_ptr<GuestMemory> memory_;
    // 4 + 1 + 3 bytes
    std::array<Segment, 3> segments_ = {{{0x10, 4}, {0x1080, 1}, {0x2020, 3}}};
};

TEST_F(CursorTest, ReadsAcrossSegments) {
    Cursor cursor(*memory_, segments_);
    EXPECT_EQ(cursor.remaining(), 8U);
    std::array<uint8_t, 6> out{};
    ASSERT_TRUE(cursor.read(std::as_writable_bytes(std::span(out))));
    EXPECT_EQ(out, (std::array<uint8_t, 6>{0x10, 0x11, 0x12, 0x13, 0x80, 0x20}));
    EXPECT_EQ(cursor.remaining(), 2U);
}

TEST_F(CursorTest, TransfersNothingBeyondTheEnd) {
    Cursor cursor(*memory_, segments_);
    std::array<uint8_t, 9> out{};
    EXPECT_FALSE(cursor.read(std::as_writable_bytes(std::span(out))));
    EXPECT_EQ(out, (std::array<uint8_t, 9>{}));
    EXPECT_FALSE(cursor.write(std::as_bytes(std::span(out))));
    EXPECT_FALSE(cursor.skip(9));
    EXPECT_FALSE(cursor.skip(~uint64_t{0}));
    std::vector<iovec> dma;
    EXPECT_FALSE(cursor.take_dma(9, dma));
    EXPECT_TRUE(dma.empty());
    EXPECT_EQ(cursor.remaining(), 8U);
}

TEST_F(CursorTest, WritesAndMarksDirty) {
    Cursor cursor(*memory_, segments_);
    ASSERT_TRUE(cursor.skip(4));
    ASSERT_TRUE(cursor.write(uint16_t{0xbbaa}));
    EXPECT_EQ(memory_->read<uint8_t>(0x1080), 0xaa);
    EXPECT_EQ(memory_->read<uint8_t>(0x2020), 0xbb);
    EXPECT_EQ(memory_->read<uint8_t>(0x2021), 0x21);
    PageSet dirty(memory_->vmm_dirty().pages());
    memory_->vmm_dirty().collect(dirty);
    EXPECT_EQ(dirty.words().front(), 0b110U);
}

TEST_F(CursorTest, TakesPieces) {
    Cursor cursor(*memory_, segments_);
    std::vector<Segment> pieces;
    ASSERT_TRUE(cursor.skip(2));
    ASSERT_TRUE(cursor.take(4, pieces));
    ASSERT_EQ(pieces.size(), 3U);
    EXPECT_EQ(pieces[0].address, 0x12U);
    EXPECT_EQ(pieces[0].length, 2U);
    EXPECT_EQ(pieces[2].address, 0x2020U);
    EXPECT_EQ(pieces[2].length, 1U);
    std::vector<iovec> dma;
    ASSERT_TRUE(cursor.take_dma(2, dma));
    ASSERT_EQ(dma.size(), 1U);
    EXPECT_EQ(dma[0].iov_len, 2U);
    EXPECT_EQ(dma[0].iov_base, memory_->dma(0x2021, 2)->iov_base);
}

TEST_F(CursorTest, EmptySegmentListIsAtItsEnd) {
    Cursor cursor(*memory_, {});
    EXPECT_EQ(cursor.remaining(), 0U);
    EXPECT_TRUE(cursor.skip(0));
    EXPECT_FALSE(cursor.skip(1));
}

}  // namespace
}  // namespace ivmm::virtio

#include "memory/guest_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <array>
#include <thread>

namespace ivmm {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kBig = kLowRamEnd + 16 * kMiB;  // reaches above the hole; takes no host memory

std::vector<uint64_t> dirty_pages(GuestMemory& memory) {
    PageSet dirty(memory.vmm_dirty().pages());
    memory.vmm_dirty().collect(dirty);
    std::vector<uint64_t> pages;
    dirty.for_each_run([&](uint64_t first, uint64_t count) {
        for (uint64_t page = first; page < first + count; ++page) {
            pages.push_back(page);
        }
    });
    EXPECT_EQ(pages.size(), dirty.count());
    return pages;
}

using Pages = std::vector<uint64_t>;

TEST(GuestMemoryTest, RefusesImpossibleSizes) {
    for (const uint64_t size : {uint64_t{0}, uint64_t{4096}, kMiB + 1}) {
        const auto memory = GuestMemory::create(size);
        ASSERT_FALSE(memory);
        EXPECT_EQ(memory.error().kind, ErrorKind::kUsage);
    }
}

TEST(GuestMemoryTest, ReadsWhatWasWritten) {
    auto memory = *GuestMemory::create(kMiB);
    ASSERT_TRUE(memory->write(0x1234, uint64_t{0x1122334455667788}));
    EXPECT_EQ(memory->read<uint64_t>(0x1234), 0x1122334455667788U);
    EXPECT_EQ(memory->read<uint8_t>(0x1235), 0x77U);
    ASSERT_TRUE(memory->fill(0x1236, 2, std::byte{0xaa}));
    EXPECT_EQ(memory->read<uint64_t>(0x1234), 0x11223344aaaa7788U);
}

TEST(GuestMemoryTest, TheLastByteIsThereAndTheNextIsNot) {
    auto memory = *GuestMemory::create(kMiB);
    EXPECT_TRUE(memory->write(kMiB - 1, uint8_t{1}));
    EXPECT_FALSE(memory->write(kMiB, uint8_t{1}));
    EXPECT_FALSE(memory->write(kMiB - 1, uint16_t{1}));
    EXPECT_FALSE(memory->read<uint64_t>(~Gpa{0}));
    EXPECT_FALSE(memory->read<uint64_t>(~Gpa{0} - 7));
    EXPECT_FALSE(memory->fill(0, kMiB + 1, std::byte{1}));
    EXPECT_FALSE(memory->dma(kMiB - 10, 11));
    EXPECT_FALSE(memory->contains(1, ~uint64_t{0}));
    EXPECT_TRUE(memory->contains(0, kMiB));
    EXPECT_TRUE(memory->contains(kMiB, 0));
}

TEST(GuestMemoryTest, FailedAccessTransfersNothing) {
    auto memory = *GuestMemory::create(kMiB);
    std::array<std::byte, 8> bytes{};
    bytes.fill(std::byte{7});
    EXPECT_FALSE(memory->read(kMiB - 4, bytes));
    EXPECT_EQ(bytes.front(), std::byte{7});
    EXPECT_FALSE(memory->write(kMiB - 4, bytes));
    EXPECT_EQ(memory->read<uint32_t>(kMiB - 4), 0U);
    EXPECT_EQ(dirty_pages(*memory), Pages{});
}

TEST(GuestMemoryTest, WritesTheContentOfSpans) {
    auto memory = *GuestMemory::create(kMiB);
    const std::array<uint8_t, 3> bytes = {1, 2, 3};
    ASSERT_TRUE(memory->write(0x100, std::as_bytes(std::span(bytes))));  // of a fixed size
    EXPECT_EQ(memory->read<uint32_t>(0x100), 0x030201U);
}

TEST(GuestMemoryTest, HasAHoleBelowFourGiB) {
    auto memory = *GuestMemory::create(kBig);
    ASSERT_EQ(memory->regions().size(), 2U);
    EXPECT_EQ(memory->regions()[1].start, kHighRamStart);
    EXPECT_EQ(memory->regions()[1].size, 16 * kMiB);
    EXPECT_TRUE(memory->write(kLowRamEnd - 1, uint8_t{1}));
    EXPECT_FALSE(memory->write(kLowRamEnd, uint8_t{1}));
    EXPECT_FALSE(memory->write(kLowRamEnd - 1, uint16_t{1}));
    EXPECT_FALSE(memory->write(kHighRamStart - 1, uint8_t{1}));
    EXPECT_FALSE(memory->write(kHighRamStart - 1, uint16_t{1}));
    EXPECT_TRUE(memory->write(kHighRamStart, uint8_t{2}));
    EXPECT_TRUE(memory->write(kHighRamStart + 16 * kMiB - 1, uint8_t{3}));
    EXPECT_FALSE(memory->write(kHighRamStart + 16 * kMiB, uint8_t{3}));
    // In the file, the part above the hole follows the part below.
    EXPECT_EQ(dirty_pages(*memory),
              (Pages{kLowRamEnd / kPageSize - 1, kLowRamEnd / kPageSize, kBig / kPageSize - 1}));
}

TEST(GuestMemoryTest, MarksEveryPageOfAWrite) {
    auto memory = *GuestMemory::create(kMiB);
    ASSERT_TRUE(memory->write(0x1fff, uint16_t{1}));
    EXPECT_EQ(dirty_pages(*memory), (Pages{1, 2}));
    EXPECT_EQ(dirty_pages(*memory), Pages{}) << "collected once";
    ASSERT_TRUE(memory->fill(0x3000, 0x1000, std::byte{1}));
    EXPECT_EQ(dirty_pages(*memory), Pages{3});
    memory->mark_dirty(62 * kPageSize, 4 * kPageSize);
    EXPECT_EQ(dirty_pages(*memory), (Pages{62, 63, 64, 65}));
    memory->mark_dirty(kMiB - 1, 2);
    memory->mark_dirty(0, 0);
    EXPECT_EQ(dirty_pages(*memory), Pages{});
    std::ignore = memory->read<uint64_t>(0);
    EXPECT_EQ(dirty_pages(*memory), Pages{});
    ASSERT_TRUE(memory->store_release(0x8000, 1));
    EXPECT_EQ(dirty_pages(*memory), Pages{8});
}

TEST(GuestMemoryTest, IndicesMustBeAligned) {
    auto memory = *GuestMemory::create(kMiB);
    ASSERT_TRUE(memory->store_release(0x100, 0xbeef));
    EXPECT_EQ(memory->load_acquire(0x100), 0xbeef);
    EXPECT_FALSE(memory->store_release(0x101, 1));
    EXPECT_FALSE(memory->load_acquire(0x101));
    EXPECT_FALSE(memory->load_acquire(kMiB));
}

TEST(GuestMemoryTest, UntouchedPagesTakeNoMemory) {
    auto memory = *GuestMemory::create(kBig);
    ASSERT_TRUE(memory->write(0, uint8_t{1}));
    EXPECT_EQ(memory->size(), kBig);
    EXPECT_LE(memory->resident_bytes(), 4 * kMiB);
}

/// A mark made while another thread collects is in this collection or in a later one.
TEST(DirtyBitmapTest, NoMarkIsLost) {
    DirtyBitmap bitmap(64);
    std::atomic<uint64_t> value = 0;
    constexpr uint64_t kLast = 20000;
    std::jthread writer([&] {
        for (uint64_t i = 1; i <= kLast; ++i) {
            value.store(i, std::memory_order_relaxed);
            bitmap.mark(5, 5);
        }
    });
    uint64_t replica = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (replica != kLast && std::chrono::steady_clock::now() < end) {
        PageSet dirty(bitmap.pages());
        bitmap.collect(dirty);
        if (dirty.contains(5)) {
            replica = value.load(std::memory_order_relaxed);
        }
    }
    EXPECT_EQ(replica, kLast);
}

}  // namespace
}  // namespace ivmm

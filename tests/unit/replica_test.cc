#include "memory/replica.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace ivmm {
namespace {

constexpr uint64_t kSize = uint64_t{4} << 20;
constexpr uint64_t kPages = kSize / kPageSize;

class ReplicaTest : public ::testing::Test {
 protected:
    /// Writes a word to a page of the primary.
    void write(uint64_t page, uint64_t word) {
        ASSERT_TRUE(memory_->write(page * kPageSize + 8, word));
        dirty_.insert(page);
    }
    uint64_t update() {
        const uint64_t copied = replica_->update(*memory_, dirty_);
        dirty_.clear();
        return copied;
    }
    std::unique_ptr<GuestMemory> map() {
        return *GuestMemory::map_image(*replica_->open_for_reading(), kSize);
    }
    static uint64_t word(const GuestMemory& memory, uint64_t page) {
        return memory.read<uint64_t>(page * kPageSize + 8).value_or(~uint64_t{0});
    }

    std::unique_ptr<GuestMemory> memory_ = *GuestMemory::create(kSize);
    std::unique_ptr<Replica> replica_ = *Replica::create(kSize);
    PageSet dirty_{kPages};
};

TEST_F(ReplicaTest, TakesWhatHasChanged) {
    write(3, 33);
    write(700, 77);
    EXPECT_EQ(update(), 2U);
    const auto clone = map();
    EXPECT_EQ(word(*clone, 3), 33U);
    EXPECT_EQ(word(*clone, 700), 77U);
    EXPECT_EQ(word(*clone, 4), 0U);
}

TEST_F(ReplicaTest, LeavesOutWhatIsNotInTheSet) {
    write(3, 33);
    update();
    write(3, 34);
    dirty_.clear();
    EXPECT_EQ(update(), 0U);
    EXPECT_EQ(word(*map(), 3), 33U);
}

TEST_F(ReplicaTest, ZeroesTakeNoMemory) {
    dirty_.insert_all();
    EXPECT_EQ(update(), 0U);
    EXPECT_EQ(replica_->resident_bytes(), 0U);
    write(9, 1);
    EXPECT_EQ(update(), 1U);
    EXPECT_EQ(replica_->resident_bytes(), kPageSize);
    write(9, 0);
    EXPECT_EQ(update(), 1U) << "zeroes over something else";
    EXPECT_EQ(word(*map(), 9), 0U);
}

TEST_F(ReplicaTest, ACloneSeesWhatItHasNotWritten) {
    write(1, 10);
    write(2, 20);
    update();
    const auto clone = map();
    EXPECT_EQ(word(*clone, 1), 10U);
    ASSERT_TRUE(clone->write(2 * kPageSize + 8, uint64_t{99}));
    write(1, 11);
    write(2, 21);
    update();
    EXPECT_EQ(word(*clone, 1), 11U) << "it follows";
    EXPECT_EQ(word(*clone, 2), 99U) << "what it has written is its own";
    EXPECT_EQ(word(*map(), 2), 21U) << "and nobody else's";
    EXPECT_GT(clone->resident_bytes(), 0U);
    EXPECT_LE(clone->resident_bytes(), 4 * kPageSize);
}

TEST_F(ReplicaTest, NobodyChangesItOnceItIsSealed) {
    write(1, 10);
    update();
    const auto clone = map();
    const UniqueFd reader = *replica_->open_for_reading();
    EXPECT_EQ(::mmap(nullptr, kSize, PROT_WRITE, MAP_SHARED, reader.get(), 0), MAP_FAILED);
    ASSERT_TRUE(replica_->seal());
    const UniqueFd again = *replica_->open_for_reading();
    const std::string path = "/proc/self/fd/" + std::to_string(again.get());
    const UniqueFd writer(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    EXPECT_LT(::pwrite(writer.get(), "x", 1, 0), 0);
    replica_.reset();
    EXPECT_EQ(word(*clone, 1), 10U) << "the image lives as long as somebody has it";
    ASSERT_TRUE(clone->write(kPageSize + 8, uint64_t{12}));
    EXPECT_EQ(word(*clone, 1), 12U);
}

TEST(GuestMemoryImage, RefusesAnImageThatIsTooSmall) {
    const auto replica = *Replica::create(kSize);
    EXPECT_FALSE(GuestMemory::map_image(*replica->open_for_reading(), kSize + kPageSize));
}

TEST(GuestMemoryData, SkipsWhatWasNeverTouched) {
    const auto memory = *GuestMemory::create(kSize);
    EXPECT_FALSE(memory->next_data(0));
    ASSERT_TRUE(memory->write(5 * kPageSize, uint64_t{1}));
    const auto data = memory->next_data(0);
    ASSERT_TRUE(data);
    EXPECT_LE(data->first, 5U);
    EXPECT_GT(data->first + data->count, 5U);
    EXPECT_FALSE(memory->next_data(data->first + data->count));
    EXPECT_FALSE(memory->next_data(kPages));
}

}  // namespace
}  // namespace ivmm

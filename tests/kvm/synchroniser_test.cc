// A replica of a guest that writes to its memory, with one and two vCPUs and through a device.

#include "vmm/fork/synchroniser.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/support/guest_run.h"
#include "tests/support/temp_file.h"

namespace ivmm::test {
namespace {

class SynchroniserTest : public ::testing::Test {
 protected:
    void SetUp() override { IVMM_REQUIRE_KVM(); }

    /// How many pages of the replica are not those of the memory.
    static uint64_t differences(const GuestMemory& memory, const Synchroniser& synchroniser) {
        const auto image =
            *GuestMemory::map_image(*synchroniser.replica().open_for_reading(), memory.size());
        uint64_t different = 0;
        std::array<std::byte, kPageSize> ours{};
        std::array<std::byte, kPageSize> theirs{};
        for (auto data = memory.next_data(0); data;
             data = memory.next_data(data->first + data->count)) {
            for (uint64_t page = data->first; page < data->first + data->count; ++page) {
                memory.copy_pages(page, 1, ours.data());
                image->copy_pages(page, 1, theirs.data());
                different += ours == theirs ? 0 : 1;
            }
        }
        return different;
    }

    /// Follows a guest over some rounds, with a pause after each few. `report`: what the guest
    /// prints again and again.
    static void follow(const GuestConfig& config, const std::string& report) {
        GuestRun guest(config);
        ASSERT_TRUE(guest.wait_for(report)) << guest.output();
        auto synchroniser = *Synchroniser::start(guest.machine());
        uint64_t differed = 0;
        uint64_t dirty = 0;
        for (int fork = 0; fork < 5; ++fork) {
            for (int i = 0; i < 3; ++i) {
                const auto round = synchroniser->round();
                ASSERT_TRUE(round) << round.error().message;
                dirty += round->dirty;
                ASSERT_TRUE(guest.wait_for(report)) << guest.output();
            }
            ASSERT_TRUE(guest.machine().pause());
            differed += differences(guest.machine().memory(), *synchroniser);
            ASSERT_TRUE(synchroniser->last_round());
            EXPECT_EQ(differences(guest.machine().memory(), *synchroniser), 0U);
            ASSERT_TRUE(guest.machine().resume());
        }
        EXPECT_GT(differed, 0U) << "the guest wrote nothing between two rounds";
        EXPECT_GT(dirty, 0U);
    }
};

TEST_F(SynchroniserTest, FollowsAGuestThatWrites) {
    follow(test_guest("dirty", "start=8 size=40 rate=200 stride=0 interval_ms=20"), "generation=");
}

TEST_F(SynchroniserTest, FollowsTwoVcpus) {
    auto config = test_guest("dirty", "cpus=2 start=8 size=40 rate=200 stride=0 interval_ms=20");
    config.cpus = 2;
    follow(config, "generation=");
}

TEST_F(SynchroniserTest, FollowsWhatADiskWrites) {
    TempFile disk(uint64_t{8} << 20);
    auto config = test_guest("blk", "op=verify passes=0 n=64 bs=4096 qd=8");
    config.disks.push_back({disk.path(), false, ""});
    follow(config, "op=check");
}

TEST_F(SynchroniserTest, TakesNoMemoryForWhatTheGuestHasNot) {
    auto config = test_guest("dirty", "start=8 size=8 rate=50 interval_ms=20");
    config.memory_bytes = uint64_t{2} << 30;
    GuestRun guest(config);
    ASSERT_TRUE(guest.wait_for("generation="));
    const uint64_t before = guest.machine().memory().resident_bytes();
    auto synchroniser = *Synchroniser::start(guest.machine());
    ASSERT_TRUE(synchroniser->round());
    ASSERT_TRUE(synchroniser->round());
    constexpr uint64_t kSlack = uint64_t{8} << 20;
    EXPECT_LT(guest.machine().memory().resident_bytes(), before + kSlack);
    EXPECT_LT(synchroniser->replica().resident_bytes(), before + kSlack);
}

}  // namespace
}  // namespace ivmm::test

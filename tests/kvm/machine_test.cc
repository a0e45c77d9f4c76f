// Whole machines with the freestanding test guests.

#include "vmm/machine/machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/support/guest_run.h"
#include "tests/support/temp_file.h"

namespace ivmm::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class MachineTest : public ::testing::Test {
 protected:
    void SetUp() override { IVMM_REQUIRE_KVM(); }

    /// Runs a guest to its end; it must say that it is done and power itself off.
    static std::string run_to_end(const GuestConfig& config) {
        GuestRun guest(config);
        const auto ending = guest.wait_end();
        EXPECT_TRUE(ending.has_value()) << "the guest did not end: " << guest.output();
        if (ending) {
            EXPECT_EQ(ending->reason, Ending::Reason::kPowerOff) << ending->message;
            EXPECT_EQ(ending->exit_code(), 0);
        }
        EXPECT_THAT(guest.output(), HasSubstr(": done"));
        return guest.output();
    }

    static Ending run_fault(const std::string& kind) {
        GuestRun guest(test_guest("fault", "kind=" + kind));
        const auto ending = guest.wait_end();
        EXPECT_TRUE(ending.has_value()) << guest.output();
        return ending.value_or(Ending{});
    }
};

TEST_F(MachineTest, BootsAGuestThatGreetsAndPowersOff) {
    EXPECT_THAT(run_to_end(test_guest("hello", "answer=42")), HasSubstr("answer=42"));
}

TEST_F(MachineTest, GivesMemoryAboveFourGiB) {
    auto config = test_guest("hello");
    config.memory_bytes = uint64_t{5} << 30;
    EXPECT_THAT(run_to_end(config), HasSubstr("start=0x100000000 size=0x80000000 type=1"));
}

TEST_F(MachineTest, DeliversTimerInterrupts) {
    run_to_end(test_guest("irq"));
}

TEST_F(MachineTest, EchoesWhatIsTyped) {
    GuestRun guest(test_guest("hello", "echo=1"));
    ASSERT_TRUE(guest.wait_for("echo=1"));
    guest.type("abracadabra");
    EXPECT_TRUE(guest.wait_for("abracadabra"));
    guest.type("\x04");
    EXPECT_TRUE(guest.wait_end().has_value());
}

TEST_F(MachineTest, RunsTwoVcpus) {
    auto config = test_guest("smp", "cpus=2");
    config.cpus = 2;
    run_to_end(config);
}

TEST_F(MachineTest, ServesADisk) {
    for (const char* mode : {"indirect=0 event_idx=0", "indirect=1 event_idx=1", "poll=1"}) {
        TempFile disk(uint64_t{8} << 20);
        auto config = test_guest("blk", std::string("op=verify n=256 qd=16 bs=4096 ") + mode);
        config.disks.push_back({disk.path(), false, "serial"});
        run_to_end(config);
    }
}

TEST_F(MachineTest, GivesRandomBytes) {
    run_to_end(test_guest("rng"));
}

TEST_F(MachineTest, EchoesOnTheVirtioConsole) {
    GuestRun guest(test_guest("console", "console=hvc0 text=hello"));
    ASSERT_TRUE(guest.wait_for("ready=1")) << guest.output();
    guest.type("abracadabra");
    EXPECT_TRUE(guest.wait_for("abracadabra")) << guest.output();
    guest.type("\x04");
    EXPECT_TRUE(guest.wait_end().has_value());
}

TEST_F(MachineTest, PausesAndResumes) {
    GuestRun guest(test_guest("hello", "spin=1 interval_ms=20"));
    ASSERT_TRUE(guest.wait_for("tick=3"));
    for (int round = 0; round < 3; ++round) {
        ASSERT_TRUE(guest.machine().pause());
        ASSERT_TRUE(guest.machine().pause()) << "a second pause changes nothing";
        EXPECT_EQ(guest.machine().status().state, RunState::kPaused);
        const auto before = guest.output();
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        EXPECT_EQ(guest.output(), before) << "a paused guest runs";
        ASSERT_TRUE(guest.machine().resume());
        ASSERT_TRUE(guest.wait_for("tick="));
    }
    guest.machine().stop();
    const auto ending = guest.wait_end();
    ASSERT_TRUE(ending.has_value());
    EXPECT_EQ(ending->reason, Ending::Reason::kStopped);
    EXPECT_FALSE(guest.machine().resume());
}

TEST_F(MachineTest, ReportsATripleFault) {
    const auto ending = run_fault("triple");
    EXPECT_EQ(ending.reason, Ending::Reason::kTripleFault);
    EXPECT_EQ(ending.exit_code(), 1);
    EXPECT_THAT(ending.message, HasSubstr("triple fault"));
}

TEST_F(MachineTest, ReportsAnEmulationFailureWithTheInstruction) {
    const auto ending = run_fault("emul");
    EXPECT_EQ(ending.reason, Ending::Reason::kEmulationFailure);
    EXPECT_EQ(ending.exit_code(), 1);
    EXPECT_THAT(ending.message, HasSubstr("RIP 0x"));
    EXPECT_THAT(ending.message, HasSubstr("64-bit mode"));
    EXPECT_THAT(ending.message, HasSubstr("instruction "));
    EXPECT_THAT(ending.message, Not(HasSubstr("unreadable")));
}

TEST_F(MachineTest, ReportsAReset) {
    EXPECT_EQ(run_fault("reset").reason, Ending::Reason::kReset);
}

TEST_F(MachineTest, ReportsAPanic) {
    const auto ending = run_fault("panic");
    EXPECT_EQ(ending.reason, Ending::Reason::kPanic);
    EXPECT_EQ(ending.exit_code(), 1);
}

TEST_F(MachineTest, StopsAGuestThatHaltsForEver) {
    GuestRun guest(test_guest("fault", "kind=hlt"));
    ASSERT_TRUE(guest.wait_for("guest fault: "));
    ASSERT_TRUE(guest.machine().pause());
    ASSERT_TRUE(guest.machine().resume());
    guest.machine().stop();
    EXPECT_TRUE(guest.wait_end().has_value());
}

TEST_F(MachineTest, SurvivesAHostileGuest) {
    TempFile disk(uint64_t{1} << 20);
    auto config = test_guest("hostile", "case=all seed=1");
    config.disks.push_back({disk.path(), false, ""});
    run_to_end(config);
}

}  // namespace
}  // namespace ivmm::test

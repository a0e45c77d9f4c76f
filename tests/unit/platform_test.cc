#include <gtest/gtest.h>

#include <vector>

#include "devices/platform/keyboard_controller.h"
#include "devices/platform/power.h"
#include "devices/platform/pvpanic.h"

namespace ivmm {
namespace {

using Events = std::vector<PlatformEvent>;

class PlatformTest : public testing::Test {
 protected:
    PlatformEventCallback record() {
        return [this](PlatformEvent event) { events_.push_back(event); };
    }
    static void write(BusDevice& device, uint64_t offset, uint8_t value) {
        device.bus_write(offset, bytes_of(value));
    }
    static uint32_t read(BusDevice& device, uint64_t offset, size_t width = 1) {
        uint32_t value = 0;
        device.bus_read(offset, writable_bytes_of(value).first(width));
        return value;
    }
    Events events_;
};

TEST_F(PlatformTest, SleepTypeFivePowersOff) {
    PowerControl power(record());
    write(power, PowerControl::kSleepControl, 0x14);  // without SLP_EN
    write(power, PowerControl::kSleepControl, 0x2c);  // sleep type 3
    write(power, PowerControl::kSleepStatus, 0x34);
    EXPECT_EQ(events_, Events{});
    write(power, PowerControl::kSleepControl, 0x34);
    EXPECT_EQ(events_, Events{PlatformEvent::kPowerOff});
    EXPECT_EQ(PowerControl::kPowerOffValue, 0x34);
    // Wider accesses and reads are harmless.
    EXPECT_EQ(read(power, PowerControl::kSleepStatus, 2), 0U);
}

TEST_F(PlatformTest, ResetRegisterResets) {
    PowerControl power(record());
    write(power, PowerControl::kReset, 0);
    EXPECT_EQ(events_, Events{});
    write(power, PowerControl::kReset, 1);
    EXPECT_EQ(events_, Events{PlatformEvent::kReset});
}

TEST_F(PlatformTest, KeyboardControllerResets) {
    KeyboardController keyboard(record());
    write(keyboard, KeyboardController::kCommand, 0xd1);
    write(keyboard, KeyboardController::kData, 0xfe);
    write(keyboard, 1, 0xfe);
    EXPECT_EQ(events_, Events{});
    write(keyboard, KeyboardController::kCommand, 0xfe);
    EXPECT_EQ(events_, Events{PlatformEvent::kReset});
}

TEST_F(PlatformTest, KeyboardControllerKeepsNobodyWaiting) {
    KeyboardController keyboard(record());
    // A probe that empties the output buffer must see that this never ends; who waits for the
    // input buffer must not wait.
    for (int i = 0; i < 20; ++i) {
        const auto status = read(keyboard, KeyboardController::kCommand);
        EXPECT_NE(status & KeyboardController::kOutputBufferFull, 0U);
        EXPECT_EQ(status & KeyboardController::kInputBufferFull, 0U);
        read(keyboard, KeyboardController::kData);
    }
}

TEST_F(PlatformTest, PvPanicReportsPanics) {
    PvPanic panic(record());
    EXPECT_EQ(read(panic, 0), 3U);
    write(panic, 0, PvPanic::kCrashLoaded);
    EXPECT_EQ(events_, Events{});
    write(panic, 0, PvPanic::kPanicked);
    EXPECT_EQ(events_, Events{PlatformEvent::kPanic});
}

}  // namespace
}  // namespace ivmm

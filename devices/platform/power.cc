#include "devices/platform/power.h"

#include <algorithm>

namespace ivmm {

namespace {

/// SLP_TYP and SLP_EN; the other bits of the sleep control register are reserved.
constexpr unsigned kSleepControlBits = 0x3c;

}  // namespace

void PowerControl::bus_read(uint64_t /*offset*/, ByteSpan data) {
    // The control and reset registers are written only, and there is no wake-up to report.
    std::ranges::fill(data, std::byte{0});
}

void PowerControl::bus_write(uint64_t offset, ConstByteSpan data) {
    const auto value = std::to_integer<uint8_t>(data.front());
    if (offset == kSleepControl && (value & kSleepControlBits) == kPowerOffValue) {
        on_event_(PlatformEvent::kPowerOff);
    } else if (offset == kReset && value == kResetValue) {
        on_event_(PlatformEvent::kReset);
    }
}

}  // namespace ivmm

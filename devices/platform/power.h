#pragma once

#include <cstdint>

#include "devices/bus.h"
#include "devices/platform/platform_event.h"

namespace ivmm {

/// The ports through which a guest with hardware-reduced ACPI switches itself off and resets
/// itself (ACPI 6.4, 4.8.3.6 reset register and 4.8.3.7 sleep control and status). Without state.
class PowerControl final : public BusDevice {
 public:
    static constexpr uint64_t kPortCount = 3;
    // Offsets of the registers, each one byte.
    static constexpr uint64_t kSleepControl = 0;
    static constexpr uint64_t kSleepStatus = 1;
    static constexpr uint64_t kReset = 2;
    /// The sleep type that the DSDT gives for \_S5.
    static constexpr uint8_t kSleepTypeOff = 5;
    static constexpr uint8_t kResetValue = 1;
    /// What a guest writes to the sleep control register: SLP_TYP and SLP_EN.
    static constexpr uint8_t kPowerOffValue = (kSleepTypeOff << 2) | 0x20;

    explicit PowerControl(PlatformEventCallback on_event) : on_event_(std::move(on_event)) {}

    void bus_read(uint64_t offset, ByteSpan data) override;
    void bus_write(uint64_t offset, ConstByteSpan data) override;

 private:
    PlatformEventCallback on_event_;
};

}  // namespace ivmm

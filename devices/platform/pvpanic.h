#pragma once

#include <cstdint>

#include "devices/bus.h"
#include "devices/platform/platform_event.h"

namespace ivmm {

/// The pvpanic device: a guest's kernel reports here that it has panicked. A crash that the
/// guest handles itself (it has loaded a crash kernel) is accepted and is no event. Without state.
class PvPanic final : public BusDevice {
 public:
    static constexpr uint64_t kPortCount = 1;
    static constexpr uint8_t kPanicked = 0x01;
    static constexpr uint8_t kCrashLoaded = 0x02;

    explicit PvPanic(PlatformEventCallback on_event) : on_event_(std::move(on_event)) {}

    /// The events that may be reported.
    void bus_read(uint64_t offset, ByteSpan data) override;
    void bus_write(uint64_t offset, ConstByteSpan data) override;

 private:
    PlatformEventCallback on_event_;
};

}  // namespace ivmm

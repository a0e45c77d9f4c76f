#pragma once

#include <cstdint>

#include "devices/bus.h"
#include "devices/platform/platform_event.h"

namespace ivmm {

/// What is left of a PC's keyboard controller: the reset command, which many kernels try first.
/// There is no keyboard, and the status says so in the way that is cheapest for a guest that looks
/// for one: the output buffer never becomes empty, so that a probe which empties it gives up after
/// a few reads, and the input buffer is always free, so that nobody waits before a reset.
/// Without state.
class KeyboardController final : public BusDevice {
 public:
    static constexpr uint64_t kPortCount = 5;
    // Offsets of the ports; those between them belong to others.
    static constexpr uint64_t kData = 0;
    static constexpr uint64_t kCommand = 4;  ///< when read: the status
    static constexpr uint8_t kResetCommand = 0xfe;
    static constexpr uint8_t kOutputBufferFull = 0x01;
    static constexpr uint8_t kInputBufferFull = 0x02;

    explicit KeyboardController(PlatformEventCallback on_event) : on_event_(std::move(on_event)) {}

    void bus_read(uint64_t offset, ByteSpan data) override;
    void bus_write(uint64_t offset, ConstByteSpan data) override;

 private:
    PlatformEventCallback on_event_;
};

}  // namespace ivmm

#include "devices/platform/keyboard_controller.h"

#include <algorithm>

namespace ivmm {

void KeyboardController::bus_read(uint64_t offset, ByteSpan data) {
    std::ranges::fill(data, std::byte{0xff});
    if (offset == kCommand) {
        data.front() = std::byte{kOutputBufferFull};
    }
}

void KeyboardController::bus_write(uint64_t offset, ConstByteSpan data) {
    if (offset == kCommand && data.front() == std::byte{kResetCommand}) {
        on_event_(PlatformEvent::kReset);
    }
}

}  // namespace ivmm

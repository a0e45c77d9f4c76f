#include "devices/platform/pvpanic.h"

namespace ivmm {

void PvPanic::bus_read(uint64_t /*offset*/, ByteSpan data) {
    store_le(data, kPanicked | kCrashLoaded);
}

void PvPanic::bus_write(uint64_t /*offset*/, ConstByteSpan data) {
    if ((std::to_integer<uint8_t>(data.front()) & kPanicked) != 0) {
        on_event_(PlatformEvent::kPanic);
    }
}

}  // namespace ivmm

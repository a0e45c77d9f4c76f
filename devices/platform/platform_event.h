#pragma once

#include <functional>

namespace ivmm {

/// What a guest tells its machine about itself.
enum class PlatformEvent {
    kPowerOff,  ///< it wants to be switched off
    kReset,     ///< it wants to be reset
    kPanic,     ///< its kernel has panicked
};

/// Called on the vCPU thread whose access it was, as often as the guest likes; must return soon.
using PlatformEventCallback = std::function<void(PlatformEvent)>;

}  // namespace ivmm

#pragma once

#include "base/bytes.h"

namespace ivmm {

/// Where a console device (serial, virtio-console) sends what the guest prints. Called on any
/// thread; must return soon and must not call back into the device.
class ConsoleOutput {
 public:
    virtual ~ConsoleOutput() = default;
    virtual void console_output(ConstByteSpan bytes) = 0;
};

/// A console device that takes what the user types. Any thread.
class ConsoleInput {
 public:
    virtual ~ConsoleInput() = default;
    /// Takes as many bytes as fit into the device's buffer (at least 4 KiB when empty) and returns
    /// how many; the rest is lost unless the caller tries again.
    virtual size_t console_input(ConstByteSpan bytes) = 0;
};

}  // namespace ivmm

#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace ivmm {

/// What every part of a machine that has state can do. Each implementation has a plain `State`
/// struct (base/state_codec.h) that save_state() encodes and restore_state() checks.
///
/// All members are called while no vCPU runs, on the thread that the part lives on (the device
/// loop for devices).
class Suspendable {
 public:
    virtual ~Suspendable() = default;

    /// Names the part's section in a saved machine; unique in a machine, never changes.
    virtual std::string state_id() const = 0;

    /// Takes no new work and returns when what was in flight has ended. A second freeze changes
    /// nothing.
    virtual void freeze() {}
    /// Goes on where freeze() stopped, and looks at everything that may have arrived meanwhile.
    virtual void thaw() {}

    /// Only between freeze() and thaw().
    virtual std::vector<std::byte> save_state() const = 0;
    /// Only between freeze() and thaw(). Refuses bytes that are no state of this part, or whose
    /// values could not have come from it; the part is then as it was before.
    virtual Result<void> restore_state(ConstByteSpan bytes) = 0;
};

}  // namespace ivmm

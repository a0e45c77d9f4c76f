#pragma once

namespace ivmm {

/// An edge-triggered interrupt input. Any thread.
class InterruptLine {
 public:
    virtual ~InterruptLine() = default;
    virtual void trigger() noexcept = 0;
};

}  // namespace ivmm

#pragma once

#include <chrono>
#include <functional>

#include "base/event_loop.h"

namespace ivmm {

/// Calls back on a loop's thread when a time has passed (CLOCK_MONOTONIC). It is used and destroyed
/// on that thread, or while nobody runs the loop; it may be set, stopped or destroyed in its own
/// callback. Assign only to one that never calls.
class Timer {
 public:
    /// Never calls anybody.
    Timer() = default;
    /// Does not run yet. Error: the process has no descriptor left.
    static Result<Timer> create(EventLoop& loop, std::function<void()> callback);

    /// Once. A time of zero or less: in the loop's next round.
    void set_once(std::chrono::nanoseconds delay);
    /// Again and again, the first time after `period`, which must be more than zero. What the loop
    /// was too busy for is made up for by one call.
    void set_every(std::chrono::nanoseconds period);
    void stop();

 private:
    void set(std::chrono::nanoseconds first, std::chrono::nanoseconds period);

    UniqueFd fd_;
    EventLoop::Watch watch_;
};

}  // namespace ivmm

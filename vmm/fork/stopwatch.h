#pragma once

#include <chrono>

namespace ivmm {

/// Microseconds since it was made.
class Stopwatch {
 public:
    using Clock = std::chrono::steady_clock;

    double us() const {
        return std::chrono::duration<double, std::micro>(Clock::now() - begin_).count();
    }
    Clock::time_point begin() const { return begin_; }

 private:
    Clock::time_point begin_ = Clock::now();
};

}  // namespace ivmm

#pragma once

#include <chrono>
#include <ctime>

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

/// Microseconds of a processor that the calling thread has had.
inline double thread_cpu_us() {
    constexpr double kUsPerSecond = 1e6;
    constexpr double kNsPerUs = 1e3;
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * kUsPerSecond +
           static_cast<double>(time.tv_nsec) / kNsPerUs;
}

}  // namespace ivmm

#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

namespace ivmm::watch {

/// Counts what happened in the time that has just passed. Times are those of a clock that only goes
/// forward.
class SlidingCount {
 public:
    /// How many there were in the last `window_ms`.
    size_t count(uint64_t now_ms, uint64_t window_ms) {
        while (!times_.empty() && now_ms - times_.front() >= window_ms) {
            times_.pop_front();
        }
        return times_.size();
    }
    /// The caller keeps their number in bounds: it adds none when count() is enough.
    void add(uint64_t now_ms) { times_.push_back(now_ms); }
    void clear() { times_.clear(); }

 private:
    std::deque<uint64_t> times_;
};

}  // namespace ivmm::watch

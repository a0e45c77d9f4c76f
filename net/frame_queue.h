#pragma once

#include <cstdint>
#include <deque>

#include "net/frame.h"

namespace ivmm::net {

/// Frames that wait, bounded in number and bytes.
class FrameQueue {
 public:
    struct Limits {
        size_t frames = 1024;
        size_t bytes = size_t{4} << 20;
    };

    explicit FrameQueue(Limits limits) : limits_(limits) {}

    /// Copies the frame; false: there is no room.
    bool push(const Frame& frame) {
        if (frames_.size() >= limits_.frames || frame.size() > limits_.bytes - bytes_) {
            return false;
        }
        bytes_ += frame.size();
        frames_.emplace_back(frame);
        return true;
    }
    StoredFrame& front() { return frames_.front(); }
    void pop() {
        bytes_ -= frames_.front().size();
        frames_.pop_front();
    }
    bool empty() const { return frames_.empty(); }
    size_t size() const { return frames_.size(); }
    size_t bytes() const { return bytes_; }

 private:
    Limits limits_;
    std::deque<StoredFrame> frames_;
    size_t bytes_ = 0;
};

}  // namespace ivmm::net

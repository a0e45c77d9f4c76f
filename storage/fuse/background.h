#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace ivmm::storage {

/// A thread that does tasks in order, and something else whenever a period has passed without any.
class Background {
 public:
    Background(const char* thread_name, std::chrono::milliseconds period,
               std::function<void()> periodically);
    /// Does what has been posted, and ends.
    ~Background();
    Background(const Background&) = delete;
    Background& operator=(const Background&) = delete;

    /// Any thread.
    void post(std::function<void()> task);
    /// Any thread but its own: returns when what was posted before has been done.
    void drain();

 private:
    void run();

    const std::chrono::milliseconds period_;
    const std::function<void()> periodically_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> tasks_;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace ivmm::storage

#include "storage/fuse/background.h"

#include <pthread.h>

#include <csignal>
#include <latch>

namespace ivmm::storage {

Background::Background(const char* thread_name, std::chrono::milliseconds period,
                       std::function<void()> periodically)
    : period_(period), periodically_(std::move(periodically)), thread_([this, thread_name] {
          sigset_t all;
          ::sigfillset(&all);
          ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
          ::pthread_setname_np(::pthread_self(), thread_name);
          run();
      }) {}

Background::~Background() {
    {
        const std::scoped_lock lock(mutex_);
        stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
}

void Background::post(std::function<void()> task) {
    {
        const std::scoped_lock lock(mutex_);
        tasks_.push_back(std::move(task));
    }
    changed_.notify_all();
}

void Background::drain() {
    std::latch done(1);
    post([&] { done.count_down(); });
    done.wait();
}

void Background::run() {
    std::unique_lock lock(mutex_);
    while (true) {
        changed_.wait_for(lock, period_, [this] { return stopping_ || !tasks_.empty(); });
        if (tasks_.empty() && stopping_) {
            return;
        }
        std::function<void()> task = periodically_;
        if (!tasks_.empty()) {
            task = std::move(tasks_.front());
            tasks_.pop_front();
        }
        lock.unlock();
        task();
        lock.lock();
    }
}

}  // namespace ivmm::storage

#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace ivmm {

/// Lets operations through and can be closed: no new ones start, and the closer knows when those
/// in flight have ended. Waiting operations do not keep a closer waiting. Any thread.
class Gate {
 public:
    /// One operation's way through. Waits while the gate is closed.
    class [[nodiscard]] Pass {
     public:
        explicit Pass(Gate& gate) : gate_(gate) { gate_.enter(); }
        ~Pass() { gate_.leave(); }
        Pass(const Pass&) = delete;
        Pass& operator=(const Pass&) = delete;

     private:
        Gate& gate_;
    };

    /// Keeps the gate closed. The constructor returns when no operation is in flight; so it must
    /// not be made within one. One closer at a time: others wait.
    class [[nodiscard]] Closure {
     public:
        explicit Closure(Gate& gate) : gate_(gate) { gate_.close(); }
        ~Closure() { gate_.open(); }
        Closure(const Closure&) = delete;
        Closure& operator=(const Closure&) = delete;

     private:
        Gate& gate_;
    };

 private:
    void enter() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return !closed_; });
        ++in_flight_;
    }
    void leave() {
        const std::scoped_lock lock(mutex_);
        if (--in_flight_ == 0 && closed_) {
            changed_.notify_all();
        }
    }
    void close() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return !closed_; });
        closed_ = true;
        changed_.wait(lock, [this] { return in_flight_ == 0; });
    }
    void open() {
        const std::scoped_lock lock(mutex_);
        closed_ = false;
        changed_.notify_all();
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    uint64_t in_flight_ = 0;
    bool closed_ = false;
};

}  // namespace ivmm

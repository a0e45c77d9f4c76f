#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/event_fd.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace ivmm {

/// An epoll(7) loop that one thread runs. Everything that is registered with it is called on that
/// thread, so what lives on a loop needs no locks.
class EventLoop {
 public:
    using Task = std::function<void()>;
    using Callback = std::function<void(uint32_t epoll_events)>;

    /// Removes its registration when destroyed. Only on the loop's thread, or while no thread runs
    /// the loop. Must not outlive the loop.
    class [[nodiscard]] Watch {
     public:
        Watch() = default;
        Watch(Watch&& other) noexcept;
        Watch& operator=(Watch&& other) noexcept;
        ~Watch() { reset(); }
        explicit operator bool() const { return loop_ != nullptr; }
        void reset();
        /// Replaces the set of EPOLL* events; 0 silences the descriptor.
        void set_events(uint32_t epoll_events);

     private:
        friend class EventLoop;
        struct Entry;
        Watch(EventLoop* loop, Entry* entry) : loop_(loop), entry_(entry) {}
        EventLoop* loop_ = nullptr;
        Entry* entry_ = nullptr;
    };

    static Result<std::unique_ptr<EventLoop>> create();
    EventLoop(const EventLoop&) = delete;
    EventLoop& operator=(const EventLoop&) = delete;
    ~EventLoop();

    /// Calls `callback` whenever `fd` has one of `epoll_events` (level-triggered). The descriptor
    /// stays the caller's. Same threads as ~Watch.
    Result<Watch> watch(int fd, uint32_t epoll_events, Callback callback);

    /// Runs until stop(). Exactly one thread at a time.
    void run();
    /// Any thread. A stop before run() makes run() return at once.
    void stop();

    /// Any thread: queues a task for the loop's thread, in order.
    void post(Task task);
    /// Any thread: runs a task on the loop's thread and waits for it. Runs it directly when called
    /// on the loop's thread or when no thread runs the loop.
    void call(const Task& task);

 private:
    EventLoop(UniqueFd epoll, EventFd wakeup);
    void run_tasks();

    UniqueFd epoll_;
    EventFd wakeup_;
    std::atomic<bool> stopping_ = false;
    std::vector<std::unique_ptr<Watch::Entry>> removed_;  // freed between two rounds

    std::mutex mutex_;  // guards what follows; nothing else is locked while it is held
    std::condition_variable idle_;
    std::thread::id runner_;
    std::vector<Task> tasks_;
};

/// A loop and the thread that runs it. The destructor stops and joins.
class LoopThread {
 public:
    static Result<std::unique_ptr<LoopThread>> start(const char* thread_name);
    ~LoopThread();
    EventLoop& loop() { return *loop_; }

 private:
    explicit LoopThread(std::unique_ptr<EventLoop> loop) : loop_(std::move(loop)) {}
    std::unique_ptr<EventLoop> loop_;
    std::jthread thread_;
};

}  // namespace ivmm

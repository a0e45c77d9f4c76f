#include "base/event_loop.h"

#include <pthread.h>
#include <sys/epoll.h>

#include <array>
#include <latch>

namespace ivmm {

struct EventLoop::Watch::Entry {
    int fd;
    Callback callback;
    bool active = true;
};

EventLoop::Watch::Watch(Watch&& other) noexcept
    : loop_(std::exchange(other.loop_, nullptr)), entry_(std::exchange(other.entry_, nullptr)) {}

EventLoop::Watch& EventLoop::Watch::operator=(Watch&& other) noexcept {
    if (this != &other) {
        reset();
        loop_ = std::exchange(other.loop_, nullptr);
        entry_ = std::exchange(other.entry_, nullptr);
    }
    return *this;
}

void EventLoop::Watch::reset() {
    if (loop_ == nullptr) {
        return;
    }
    ::epoll_ctl(loop_->epoll_.get(), EPOLL_CTL_DEL, entry_->fd, nullptr);
    // Events of this round may still point at the entry, so it is freed after the round.
    entry_->active = false;
    loop_->removed_.emplace_back(entry_);
    loop_ = nullptr;
    entry_ = nullptr;
}

void EventLoop::Watch::set_events(uint32_t epoll_events) {
    epoll_event event{};
    event.events = epoll_events;
    event.data.ptr = entry_;
    ::epoll_ctl(loop_->epoll_.get(), EPOLL_CTL_MOD, entry_->fd, &event);
}

EventLoop::EventLoop(UniqueFd epoll, EventFd wakeup)
    : epoll_(std::move(epoll)), wakeup_(std::move(wakeup)) {}

EventLoop::~EventLoop() = default;

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
    UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll) {
        return fail_errno("cannot create an epoll instance");
    }
    IVMM_ASSIGN(auto wakeup, EventFd::create());
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = nullptr;
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wakeup.fd(), &event) != 0) {
        return fail_errno("cannot watch the wake-up eventfd");
    }
    return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll), std::move(wakeup)));
}

Result<EventLoop::Watch> EventLoop::watch(int fd, uint32_t epoll_events, Callback callback) {
    auto entry = std::make_unique<Watch::Entry>(Watch::Entry{fd, std::move(callback)});
    epoll_event event{};
    event.events = epoll_events;
    event.data.ptr = entry.get();
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
        return fail_errno("cannot watch descriptor {}", fd);
    }
    return Watch(this, entry.release());
}

void EventLoop::run() {
    {
        const std::scoped_lock lock(mutex_);
        runner_ = std::this_thread::get_id();
    }
    std::array<epoll_event, 32> events{};
    while (!stopping_) {
        const int n =
            ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
        for (int i = 0; i < n; ++i) {
            auto* entry = static_cast<Watch::Entry*>(events[static_cast<size_t>(i)].data.ptr);
            if (entry == nullptr) {
                wakeup_.drain();
                run_tasks();
            } else if (entry->active) {
                entry->callback(events[static_cast<size_t>(i)].events);
            }
        }
        removed_.clear();
    }
    // What was asked for before this thread leaves is done by it; from then on call() runs tasks on
    // its caller's thread.
    while (true) {
        run_tasks();
        const std::scoped_lock lock(mutex_);
        if (tasks_.empty()) {
            runner_ = {};
            break;
        }
    }
    stopping_ = false;
}

void EventLoop::stop() {
    stopping_ = true;
    wakeup_.signal();
}

void EventLoop::post(Task task) {
    {
        const std::scoped_lock lock(mutex_);
        tasks_.push_back(std::move(task));
    }
    wakeup_.signal();
}

void EventLoop::call(const Task& task) {
    std::unique_lock lock(mutex_);
    if (runner_ == std::thread::id() || runner_ == std::this_thread::get_id()) {
        lock.unlock();
        task();
        return;
    }
    bool done = false;
    tasks_.emplace_back([&] {
        task();
        // Notified under the lock: the waiter owns `done` and may be gone right after it.
        const std::scoped_lock done_lock(mutex_);
        done = true;
        idle_.notify_all();
    });
    wakeup_.signal();
    idle_.wait(lock, [&] { return done; });
}

void EventLoop::run_tasks() {
    std::vector<Task> tasks;
    {
        const std::scoped_lock lock(mutex_);
        tasks.swap(tasks_);
    }
    for (auto& task : tasks) {
        task();
    }
}

Result<std::unique_ptr<LoopThread>> LoopThread::start(const char* thread_name) {
    IVMM_ASSIGN(auto loop, EventLoop::create());
    auto self = std::unique_ptr<LoopThread>(new LoopThread(std::move(loop)));
    self->thread_ = std::jthread([loop = self->loop_.get(), thread_name] {
        ::pthread_setname_np(::pthread_self(), thread_name);
        loop->run();
    });
    // call() must not find the loop without its thread.
    std::latch running(1);
    self->loop_->post([&] { running.count_down(); });
    running.wait();
    return self;
}

LoopThread::~LoopThread() {
    loop_->stop();
}

}  // namespace ivmm

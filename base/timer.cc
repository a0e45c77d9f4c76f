#include "base/timer.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>

namespace ivmm {
namespace {

timespec to_timespec(std::chrono::nanoseconds time) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
    return {seconds.count(), (time - seconds).count()};
}

}  // namespace

Result<Timer> Timer::create(EventLoop& loop, std::function<void()> callback) {
    Timer timer;
    timer.fd_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    if (!timer.fd_) {
        return fail_errno("cannot create a timer");
    }
    IVMM_ASSIGN(timer.watch_,
                loop.watch(timer.fd_.get(), EPOLLIN,
                           [fd = timer.fd_.get(), callback = std::move(callback)](uint32_t) {
                               uint64_t expirations = 0;
                               // Nothing to read: it was set anew in this round.
                               if (::read(fd, &expirations, sizeof expirations) > 0) {
                                   callback();
                               }
                           }));
    return timer;
}

void Timer::set_once(std::chrono::nanoseconds delay) {
    // Zero would stop it.
    set(std::max(delay, std::chrono::nanoseconds(1)), std::chrono::nanoseconds(0));
}

void Timer::set_every(std::chrono::nanoseconds period) {
    set(period, period);
}

void Timer::stop() {
    set({}, {});
}

void Timer::set(std::chrono::nanoseconds first, std::chrono::nanoseconds period) {
    const itimerspec when{to_timespec(period), to_timespec(first)};
    ::timerfd_settime(fd_.get(), 0, &when, nullptr);
}

}  // namespace ivmm

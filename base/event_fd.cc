#include "base/event_fd.h"

#include <sys/eventfd.h>

#include <cstdint>

namespace ivmm {

Result<EventFd> EventFd::create() {
    UniqueFd fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!fd) {
        return fail_errno("cannot create an eventfd");
    }
    return EventFd(std::move(fd));
}

void EventFd::signal() const noexcept {
    // A full counter (EAGAIN) is still signalled, so there is nothing to handle.
    const uint64_t one = 1;
    [[maybe_unused]] auto written = ::write(fd_.get(), &one, sizeof one);
}

bool EventFd::drain() const noexcept {
    uint64_t count = 0;
    return ::read(fd_.get(), &count, sizeof count) == sizeof count;
}

}  // namespace ivmm

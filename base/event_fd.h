#pragma once

#include "base/result.h"
#include "base/unique_fd.h"

namespace ivmm {

/// A non-blocking eventfd(2) counter. signal() and drain() may be called from any thread.
class EventFd {
 public:
    static Result<EventFd> create();
    /// One that another process has made. It must be non-blocking.
    static EventFd adopt(UniqueFd fd) { return EventFd(std::move(fd)); }

    int fd() const { return fd_.get(); }
    void signal() const noexcept;
    /// Resets the counter; true if it was signalled since the last call.
    bool drain() const noexcept;

 private:
    explicit EventFd(UniqueFd fd) : fd_(std::move(fd)) {}
    UniqueFd fd_;
};

}  // namespace ivmm

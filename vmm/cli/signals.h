#pragma once

#include <csignal>

#include "base/result.h"
#include "base/unique_fd.h"

namespace ivmm {

/// Blocks the signals that ask a program to end (SIGTERM, SIGINT, SIGHUP) in this thread, so that
/// they can be read from fd(), and ignores SIGPIPE. The destructor undoes both. Before fork(2) it
/// makes sure that neither side misses one.
class EndSignals {
 public:
    EndSignals();
    EndSignals(const EndSignals&) = delete;
    EndSignals& operator=(const EndSignals&) = delete;
    ~EndSignals();

    /// A non-blocking signalfd(2); may be called in a forked child for one of its own.
    static Result<UniqueFd> open();
    /// Takes what is there from such a descriptor; whether there was a signal.
    static bool take(int fd);

 private:
    sigset_t before_{};
    struct sigaction pipe_before_ {};
};

}  // namespace ivmm

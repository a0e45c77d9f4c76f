#include "vmm/cli/signals.h"

#include <sys/signalfd.h>

namespace ivmm {
namespace {

sigset_t end_signals() {
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGTERM);
    ::sigaddset(&set, SIGINT);
    ::sigaddset(&set, SIGHUP);
    return set;
}

}  // namespace

EndSignals::EndSignals() {
    const sigset_t set = end_signals();
    ::pthread_sigmask(SIG_BLOCK, &set, &before_);
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    ::sigaction(SIGPIPE, &ignore, &pipe_before_);
}

EndSignals::~EndSignals() {
    ::sigaction(SIGPIPE, &pipe_before_, nullptr);
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

Result<UniqueFd> EndSignals::open() {
    const sigset_t set = end_signals();
    UniqueFd fd(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    if (!fd) {
        return fail_errno("cannot create a signalfd");
    }
    return fd;
}

bool EndSignals::take(int fd) {
    signalfd_siginfo info{};
    return ::read(fd, &info, sizeof info) == sizeof info;
}

}  // namespace ivmm

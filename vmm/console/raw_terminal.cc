#include "vmm/console/raw_terminal.h"

#include <termios.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>

namespace ivmm {
namespace {

constexpr std::array kFatalSignals = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGQUIT};

// What a signal handler needs; written only while raw_fd is -1.
std::atomic<int> raw_fd = -1;
termios saved_modes;
const char* last_words = "";
std::array<struct sigaction, kFatalSignals.size()> saved_actions;

static_assert(std::atomic<int>::is_always_lock_free);

/// Async-signal-safe, and harmless when nothing is raw.
void restore() {
    const int fd = raw_fd.exchange(-1);
    if (fd < 0) {
        return;
    }
    // A process in the background would be stopped for touching the terminal.
    sigset_t ttou;
    sigset_t before;
    ::sigemptyset(&ttou);
    ::sigaddset(&ttou, SIGTTOU);
    ::pthread_sigmask(SIG_BLOCK, &ttou, &before);
    const size_t length = std::strlen(last_words);
    // A terminal that takes nothing any more is none.
    static_cast<void>(::write(fd, last_words, length) == static_cast<ssize_t>(length));
    ::tcsetattr(fd, TCSANOW, &saved_modes);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void on_fatal_signal(int signal) {
    restore();
    // SA_RESETHAND has put the default action back: this time it ends the process.
    ::raise(signal);
}

}  // namespace

RawTerminal::RawTerminal(int fd, const char* farewell) {
    if (::tcgetattr(fd, &saved_modes) != 0) {
        return;
    }
    static const int registered = std::atexit(restore);
    static_cast<void>(registered);
    last_words = farewell;
    raw_fd = fd;
    struct sigaction action {};
    action.sa_handler = on_fatal_signal;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    for (size_t i = 0; i < kFatalSignals.size(); ++i) {
        ::sigaction(kFatalSignals[i], &action, &saved_actions[i]);
    }
    termios raw = saved_modes;
    ::cfmakeraw(&raw);
    raw.c_oflag |= OPOST;
    ::tcsetattr(fd, TCSANOW, &raw);
}

RawTerminal::~RawTerminal() {
    if (raw_fd >= 0) {
        restore();
        for (size_t i = 0; i < kFatalSignals.size(); ++i) {
            ::sigaction(kFatalSignals[i], &saved_actions[i], nullptr);
        }
    }
}

}  // namespace ivmm

#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"

namespace ivmm::test {

/// What `ivmm overlay mount` starts, control socket included, in a process that ends with the test
/// program. The socket is where the environment says when it is started. One thread.
class OverlayServerProcess {
 public:
    struct Options {
        std::string store{};
        std::vector<std::string> lower{};
        std::string mountpoint{};
    };
    /// Serves the view "main". Returns when it is mounted.
    static Result<OverlayServerProcess> start(const Options& options);

    OverlayServerProcess() = default;
    OverlayServerProcess(OverlayServerProcess&& other) noexcept;
    OverlayServerProcess& operator=(OverlayServerProcess&& other) noexcept;
    OverlayServerProcess(const OverlayServerProcess&) = delete;
    OverlayServerProcess& operator=(const OverlayServerProcess&) = delete;
    /// Ends it; its mounts are unmounted.
    ~OverlayServerProcess();

    pid_t pid() const { return pid_; }
    /// SIGKILL; its mounts stay, dead.
    void kill();
    /// Waits for an end that somebody else has caused; the exit code, or -1.
    int wait();

 private:
    pid_t pid_ = -1;
};

/// Runs the server if the program was started for it; then it never returns.
void serve_overlay_if_asked(int argc, char** argv);

}  // namespace ivmm::test

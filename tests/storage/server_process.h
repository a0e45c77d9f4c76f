#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace ivmm::test {

/// A view, and where to mount it (after a fork: may be empty).
struct NewView {
    std::string name;
    std::string mountpoint;
};

/// An OverlayServer in a process of its own, so that it can be killed, and so that a test that
/// waits for it can always be ended. One thread at a time.
class ServerProcess {
 public:
    struct Options {
        std::string store{};  ///< empty: a read-only union
        std::vector<std::string> lower{};
        std::string view = "main";
        std::string mountpoint{};
    };
    /// Returns when the view is mounted.
    static Result<ServerProcess> start(const Options& options);

    ServerProcess() = default;
    ServerProcess(ServerProcess&&) noexcept;
    ServerProcess& operator=(ServerProcess&&) noexcept;
    ServerProcess(const ServerProcess&) = delete;
    ServerProcess& operator=(const ServerProcess&) = delete;
    /// Kills it and cleans its mounts up.
    ~ServerProcess();

    /// What OverlayServer's functions of these names do.
    Result<void> mount(const NewView& view);
    Result<void> unmount(const std::string& view);
    /// The pause, in microseconds.
    Result<double> fork(const std::string& view, const std::vector<NewView>& targets);
    Result<void> remove_view(const std::string& view);
    /// Begins to flatten a view; flattened() waits for the end and gives how many layers were
    /// merged.
    Result<void> flatten(const std::string& view);
    Result<uint32_t> flattened();
    /// The number of the view's writable layer.
    Result<uint32_t> top_layer(const std::string& view);
    /// Why the view's durability has ended, or nothing.
    Result<std::string> durability_error(const std::string& view);

    /// Ends it as a user would. Errors: it did not end, or not with exit code 0.
    Result<void> stop();
    /// SIGKILL. Any thread, while another one waits for the mounts.
    void kill() const;
    /// After kill(): unmounts what is left.
    void clean_up();

 private:
    Result<std::string> ask(const std::vector<std::string>& command);
    pid_t pid_ = -1;
    UniqueFd control_;
    std::vector<std::string> mountpoints_;
};

/// Runs the server if the program was started by ServerProcess; then it never returns.
void serve_if_asked(int argc, char** argv);

}  // namespace ivmm::test

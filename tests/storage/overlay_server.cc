#include "tests/storage/overlay_server.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <string_view>

#include "base/unique_fd.h"
#include "vmm/overlay/overlay_process.h"

namespace ivmm::test {
namespace {

constexpr std::string_view kServe = "--serve-overlay";
constexpr unsigned kLifetimeSeconds = 240;  // CTest's limit is 300

}  // namespace

void serve_overlay_if_asked(int argc, char** argv) {
    if (argc < 4 || argv[1] != kServe) {
        return;
    }
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::alarm(kLifetimeSeconds);
    storage::OverlayServer::Options options;
    options.store = argv[2];
    options.mount.mountpoint = argv[3];
    options.lower.assign(argv + 4, argv + argc);
    std::exit(overlay::serve_in_foreground(options));  // NOLINT(concurrency-mt-unsafe): one thread
}

Result<OverlayServerProcess> OverlayServerProcess::start(const Options& options) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        return fail_errno("pipe2");
    }
    const UniqueFd ours(ends[0]);
    UniqueFd theirs(ends[1]);
    std::vector<std::string> words{"/proc/self/exe", std::string(kServe), options.store,
                                   options.mountpoint};
    words.insert(words.end(), options.lower.begin(), options.lower.end());
    std::vector<char*> arguments;
    for (auto& word : words) {
        arguments.push_back(word.data());
    }
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDOUT_FILENO);
    OverlayServerProcess process;
    const int spawned =
        ::posix_spawn(&process.pid_, arguments[0], &actions, nullptr, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    if (spawned != 0) {
        process.pid_ = -1;
        return fail("cannot start the overlay server: {}", error_text(spawned));
    }
    theirs.reset();
    // It prints a line when it serves.
    char c = 0;
    while (::read(ours.get(), &c, 1) == 1) {
        if (c == '\n') {
            return process;
        }
    }
    return fail("the overlay server has ended with exit code {}", process.wait());
}

OverlayServerProcess::OverlayServerProcess(OverlayServerProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)) {}

OverlayServerProcess& OverlayServerProcess::operator=(OverlayServerProcess&& other) noexcept {
    std::swap(pid_, other.pid_);
    return *this;
}

OverlayServerProcess::~OverlayServerProcess() {
    if (pid_ > 0) {
        ::kill(pid_, SIGTERM);
        wait();
    }
}

void OverlayServerProcess::kill() {
    ::kill(pid_, SIGKILL);
    wait();
}

int OverlayServerProcess::wait() {
    int status = 0;
    const pid_t pid = std::exchange(pid_, -1);
    return pid > 0 && ::waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status)
                                                                             : -1;
}

}  // namespace ivmm::test

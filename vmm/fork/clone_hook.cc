#include "vmm/fork/clone_hook.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstring>

#include "base/spawn_settings.h"
#include "base/unique_fd.h"

namespace ivmm {
namespace {

using Clock = std::chrono::steady_clock;

/// What a hook may print.
constexpr size_t kMostOutput = size_t{64} << 20;

std::vector<std::string> environment_for(const HookedClone& clone) {
    std::vector<std::string> variables;
    for (char** variable = environ; *variable != nullptr; ++variable) {
        if (std::strncmp(*variable, "IVMM_", 5) != 0) {
            variables.emplace_back(*variable);
        }
    }
    const auto set = [&](std::string_view name, const std::string& value) {
        if (!value.empty()) {
            variables.push_back(fmt::format("IVMM_{}={}", name, value));
        }
    };
    set("CLONE", clone.clone);
    set("GUEST", clone.primary);
    set("ATTACKER", clone.attacker);
    set("MEMORY", clone.memory);
    for (size_t i = 0; i < clone.disks.size(); ++i) {
        set(fmt::format("DISK{}", i), clone.disks[i]);
    }
    return variables;
}

/// The process of a hook, and the group that it leads, which ends with it.
class HookProcess {
 public:
    HookProcess() = default;
    HookProcess(const HookProcess&) = delete;
    HookProcess& operator=(const HookProcess&) = delete;
    ~HookProcess() {
        if (pid_ > 0) {
            wait();
        }
    }

    Result<void> start(const CloneHook& hook, const HookedClone& clone) {
        std::array<int, 2> pipe{};
        if (::pipe2(pipe.data(), O_CLOEXEC) != 0) {
            return fail_errno("cannot create a pipe");
        }
        output_ = UniqueFd(pipe[0]);
        const UniqueFd input(pipe[1]);
        SpawnSettings settings;
        ::posix_spawn_file_actions_addopen(&settings.actions, STDIN_FILENO, "/dev/null", O_RDONLY,
                                           0);
        ::posix_spawn_file_actions_adddup2(&settings.actions, input.get(), STDOUT_FILENO);
        // Whatever this process has, the hook gets its three files and no more.
        ::posix_spawn_file_actions_addclosefrom_np(&settings.actions, STDERR_FILENO + 1);
        settings.in_a_session_of_its_own();
        std::string program = hook.program;
        std::array<char*, 2> arguments = {program.data(), nullptr};
        auto variables = environment_for(clone);
        std::vector<char*> environment;
        std::ranges::transform(variables, std::back_inserter(environment),
                               [](std::string& variable) { return variable.data(); });
        environment.push_back(nullptr);
        if (const int code =
                ::posix_spawn(&pid_, program.c_str(), &settings.actions, &settings.attributes,
                              arguments.data(), environment.data());
            code != 0) {
            pid_ = 0;
            return fail("it cannot be run: {}", error_text(code));
        }
        pidfd_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
        return pidfd_ ? Result<void>() : fail_errno("cannot watch it");
    }

    /// What it prints until it ends.
    Result<std::string> output_until(Clock::time_point deadline) {
        std::string text;
        std::array<pollfd, 2> wanted = {{{output_.get(), POLLIN, 0}, {pidfd_.get(), POLLIN, 0}}};
        while (true) {
            const auto left =
                std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
            const int ready =
                left > 0 ? ::poll(wanted.data(), wanted.size(), static_cast<int>(left)) : 0;
            if (ready == 0) {
                return fail("it takes too long");
            }
            if (ready < 0 && errno != EINTR) {
                return fail_errno("cannot wait for it");
            }
            if (ready > 0 && wanted[0].revents != 0) {
                IVMM_ASSIGN(const bool more, take(text));
                wanted[0].fd = more ? wanted[0].fd : -1;
            } else if (ready > 0) {
                return text;  // it has ended, and nothing is left of what it has printed
            }
        }
    }

    /// After its end.
    Result<void> outcome() {
        const int status = wait();
        pid_ = 0;
        if (WIFSIGNALED(status)) {
            return fail("it was ended by signal {}", WTERMSIG(status));
        }
        if (WEXITSTATUS(status) != 0) {
            return fail("it has failed (exit code {})", WEXITSTATUS(status));
        }
        return {};
    }

 private:
    /// Whether there may be more.
    Result<bool> take(std::string& text) {
        std::array<char, 65536> buffer{};
        const ssize_t n = ::read(output_.get(), buffer.data(), buffer.size());
        if (n < 0) {
            return fail_errno("cannot read what it prints");
        }
        text.append(buffer.data(), static_cast<size_t>(n));
        if (text.size() > kMostOutput) {
            return fail("it prints more than {} bytes", kMostOutput);
        }
        return n > 0;
    }
    /// Before it is waited for its number is nobody else's.
    int wait() const {
        ::kill(-pid_, SIGKILL);
        int status = 0;
        while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
        }
        return status;
    }

    pid_t pid_ = 0;  // 0: there is none to be waited for
    UniqueFd pidfd_;
    UniqueFd output_;
};

}  // namespace

Result<std::vector<MemoryChange>> run_clone_hook(const CloneHook& hook, const HookedClone& clone) {
    auto changes = [&]() -> Result<std::vector<MemoryChange>> {
        HookProcess process;
        IVMM_TRY(process.start(hook, clone));
        IVMM_ASSIGN(const auto output,
                    process.output_until(Clock::now() + std::chrono::seconds(hook.timeout_s)));
        IVMM_TRY(process.outcome());
        return parse_memory_changes(output);
    }();
    if (!changes) {
        return annotate(std::move(changes).error(),
                        fmt::format("the clone's hook '{}'", hook.program));
    }
    return changes;
}

}  // namespace ivmm

#include "vmm/cli/run_guest.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <optional>

#include "vmm/cli/cli.h"
#include "vmm/cli/console_client.h"
#include "vmm/cli/signals.h"
#include "vmm/cli/start_switch.h"
#include "vmm/control/control_client.h"
#include "vmm/control/runtime_dir.h"

namespace ivmm {
namespace {

/// Starting takes milliseconds, but for disks on a slow medium.
constexpr std::chrono::minutes kStartPatience{10};

/// Waits for the guest's process. Its exit code; 1 and a message when it was killed.
int wait_for_process(pid_t process, const std::string& guest) {
    int status = 0;
    while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status)) {
        return WEXITSTATUS(status);
    }
    // Nobody else tidies up after it before the name is used again.
    static_cast<void>(RuntimeDir::find().running());
    // NOLINTNEXTLINE(concurrency-mt-unsafe): safe in glibc since 2.32
    const char* const signal = ::strsignal(WTERMSIG(status));
    return cli::report({ErrorKind::kFailed, 0,
                        fmt::format("the process of guest '{}' was killed: {}", guest, signal)});
}

int start_detached(pid_t process, UniqueFd socket, const std::string& guest) {
    ControlClient client(std::move(socket));
    const auto detached = client.call("detach", rpc::Json::object(), kStartPatience);
    if (!detached) {
        // It has said why, or was killed.
        const int code = wait_for_process(process, guest);
        return code != 0 ? code : cli::report(detached.error());
    }
    cli::say(fmt::format("guest '{}' runs; `ivmm console {}` shows its console", guest, guest));
    return 0;
}

int be_console(pid_t process, UniqueFd socket, const std::string& guest) {
    std::optional<ConsoleClient> client(std::in_place, std::move(socket), guest, true);
    const auto outcome = client->run();
    if (!outcome) {
        return cli::report(outcome.error());
    }
    switch (*outcome) {
        case ConsoleClient::Outcome::kDetached:
            cli::say(fmt::format("detached; guest '{}' goes on (`ivmm console {}`, `ivmm stop {}`)",
                                 guest, guest, guest));
            return 0;
        case ConsoleClient::Outcome::kEnded:
            cli::say(fmt::format("guest '{}': {}", guest, client->message()));
            return wait_for_process(process, guest);
        case ConsoleClient::Outcome::kInterrupted:
            // The second time: whoever asks does not want to wait.
            ::kill(process, SIGKILL);
            break;
        case ConsoleClient::Outcome::kLost:
            break;
    }
    const int code = wait_for_process(process, guest);
    return code != 0 ? code : 1;
}

}  // namespace

int run_guest(const GuestConfig& config, bool detach, const MachineFactory& factory) {
    if (const int code = start_missing_switches(config.nets); code != 0) {
        return code;
    }
    std::array<int, 2> pair{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
        return cli::report(fail_errno("cannot create a socket pair").error);
    }
    UniqueFd ours(pair[0]);
    UniqueFd theirs(pair[1]);
    std::optional<EndSignals> signals(std::in_place);
    static_cast<void>(std::fflush(nullptr));
    const pid_t process = ::fork();
    if (process < 0) {
        return cli::report(fail_errno("cannot start a process").error);
    }
    if (process == 0) {
        ours.reset();
        // Neither the terminal's signals nor its hang-up are for the guest's process.
        ::setsid();
        ::_exit(run_guest_process(config, std::move(theirs), factory));
    }
    theirs.reset();
    if (detach) {
        signals.reset();
        return start_detached(process, std::move(ours), config.name);
    }
    return be_console(process, std::move(ours), config.name);
}

}  // namespace ivmm

#include "vmm/cli/start_switch.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "vmm/cli/cli.h"
#include "vmm/cli/standard_files.h"
#include "vmm/switch/running_switches.h"
#include "vmm/switch/switch_process.h"

namespace ivmm {
namespace {

constexpr std::chrono::milliseconds kStep{5};
constexpr std::chrono::seconds kSwitchStartPatience{10};

int start_switch(const NetConfig& net) {
    SwitchOptions options;
    options.name = net.switch_name;
    options.uplinks = {{net.tap, net.existing, net.host_address.value_or("")}};
    options.ends_unused = true;
    static_cast<void>(std::fflush(nullptr));
    const pid_t process = ::fork();
    if (process < 0) {
        return cli::report(
            fail_errno("cannot start a process for the switch '{}'", options.name).error);
    }
    if (process == 0) {
        // Neither the terminal's signals nor its hang-up are for the switch. Its errors are, until
        // it runs.
        ::setsid();
        redirect("/dev/null", O_RDWR, {STDIN_FILENO, STDOUT_FILENO});
        ::_exit(run_switch(options));
    }
    const auto end = std::chrono::steady_clock::now() + kSwitchStartPatience;
    while (!find_switch(options.name)) {
        // Somebody else may have started one of that name meanwhile.
        int status = 0;
        if (::waitpid(process, &status, WNOHANG) == process && !find_switch(options.name)) {
            return WIFEXITED(status) ? WEXITSTATUS(status) : 1;  // it has said why
        }
        if (std::chrono::steady_clock::now() > end) {
            ::kill(process, SIGTERM);
            return cli::report(fail("the switch '{}' does not answer", options.name).error);
        }
        std::this_thread::sleep_for(kStep);
    }
    cli::say(fmt::format("switch '{}' runs, with {} as its uplink", options.name, net.tap));
    return 0;
}

}  // namespace

int start_missing_switches(const std::vector<NetConfig>& nets) {
    for (const auto& net : nets) {
        if (!net.switch_name.empty() && !net.tap.empty() && !find_switch(net.switch_name)) {
            if (const int code = start_switch(net); code != 0) {
                return code;
            }
        }
    }
    return 0;
}

}  // namespace ivmm

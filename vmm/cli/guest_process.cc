#include "vmm/cli/guest_process.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <optional>

#include "base/event_loop.h"
#include "base/log.h"
#include "vmm/cli/cli.h"
#include "vmm/cli/signals.h"
#include "vmm/cli/standard_files.h"
#include "vmm/console/console_hub.h"
#include "vmm/control/control_server.h"
#include "vmm/control/guest_control.h"
#include "vmm/control/runtime_dir.h"

namespace ivmm {
namespace {

Result<int> serve_guest(const GuestConfig& config, UniqueFd owner, const MachineFactory& factory) {
    const RuntimeDir runtime = RuntimeDir::find();
    IVMM_ASSIGN(auto loop, EventLoop::create());
    IVMM_ASSIGN(auto console, ConsoleHub::create());
    // Outlives what follows: who sees its connection end finds the guest's things released.
    ControlServer server(*loop);
    IVMM_ASSIGN(std::optional<GuestLock> lock, runtime.lock(config.name));
    IVMM_ASSIGN(auto machine, factory(config, *console));

    GuestControl control(config.name, *machine, *console, server, [&] {
        redirect(runtime.log_path(config.name), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND,
                 {STDERR_FILENO});
    });
    IVMM_ASSIGN(auto listener, lock->listen());
    IVMM_TRY(server.listen(std::move(listener)));
    IVMM_TRY(control.adopt_owner(std::move(owner)));
    IVMM_ASSIGN(const auto console_watch, loop->watch(console->ready_fd(), EPOLLIN, [&](uint32_t) {
        console->acknowledge();
        server.pump_sources();
    }));
    IVMM_ASSIGN(const auto signals, EndSignals::open());
    IVMM_ASSIGN(const auto signal_watch, loop->watch(signals.get(), EPOLLIN, [&](uint32_t) {
        if (EndSignals::take(signals.get())) {
            machine->stop();
        }
    }));

    Ending ending;
    IVMM_TRY(machine->start([&](const Ending& how) {
        loop->post([&, how] {
            ending = how;
            control.announce_end(ending);
            if (!control.has_owner() && ending.exit_code() != 0) {
                log::error("guest '{}': {}", config.name, ending.message);
            }
            loop->stop();
        });
    }));
    loop->run();

    machine.reset();
    lock.reset();
    server.drain();
    return ending.exit_code();
}

}  // namespace

int run_guest_process(const GuestConfig& config, UniqueFd owner, const MachineFactory& factory) {
    // Only the client talks to the terminal; the log stays on standard error.
    redirect("/dev/null", O_RDWR, {STDIN_FILENO, STDOUT_FILENO});
    const auto result = serve_guest(config, std::move(owner), factory);
    return result ? *result : cli::report(result.error());
}

}  // namespace ivmm

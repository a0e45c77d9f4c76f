#include "vmm/cli/guest_process.h"

#include <fcntl.h>
#include <unistd.h>

#include "vmm/cli/cli.h"
#include "vmm/cli/standard_files.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/guest/guest_service.h"

namespace ivmm {
namespace {

Result<int> serve_guest(const GuestConfig& config, UniqueFd owner, const MachineFactory& factory) {
    IVMM_ASSIGN(auto service, GuestService::create());
    IVMM_ASSIGN(auto lock, RuntimeDir::find().lock(config.name));
    IVMM_ASSIGN(auto machine, factory(config, service->console()));
    return service->run({.lock = std::move(lock),
                         .machine = std::move(machine),
                         .owner = std::move(owner),
                         .clones = config.clones});
}

}  // namespace

int run_guest_process(const GuestConfig& config, UniqueFd owner, const MachineFactory& factory) {
    // Only the client talks to the terminal; the log stays on standard error.
    redirect("/dev/null", O_RDWR, {STDIN_FILENO, STDOUT_FILENO});
    const auto result = serve_guest(config, std::move(owner), factory);
    return result ? *result : cli::report(result.error());
}

}  // namespace ivmm

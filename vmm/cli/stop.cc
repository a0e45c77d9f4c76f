#include "vmm/cli/guest_command.h"

namespace ivmm::cli {
namespace {

int stop(const std::string& name) {
    const auto stopped = stop_guest(name);
    return stopped ? 0 : report(stopped.error());
}

}  // namespace

void add_stop(CLI::App& app, Action& action) {
    add_guest_command(app, action, "stop", "End a guest at once, like a power cut", &stop);
}

}  // namespace ivmm::cli

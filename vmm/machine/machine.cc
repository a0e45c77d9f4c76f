#include "vmm/machine/machine.h"

#include "vmm/machine/kvm_machine.h"

namespace ivmm {

int Ending::exit_code() const {
    switch (reason) {
        case Reason::kPowerOff:
        case Reason::kReset:
        case Reason::kStopped:
            return 0;
        case Reason::kTripleFault:
        case Reason::kEmulationFailure:
        case Reason::kPanic:
        case Reason::kHostError:
            break;
    }
    return 1;
}

const char* Ending::reason_name() const {
    switch (reason) {
        case Reason::kPowerOff:
            return "power-off";
        case Reason::kReset:
            return "reset";
        case Reason::kStopped:
            return "stopped";
        case Reason::kTripleFault:
            return "triple-fault";
        case Reason::kEmulationFailure:
            return "emulation-failure";
        case Reason::kPanic:
            return "panic";
        case Reason::kHostError:
            break;
    }
    return "host-error";
}

const char* run_state_name(RunState state) {
    switch (state) {
        case RunState::kCreated:
            return "created";
        case RunState::kRunning:
            return "running";
        case RunState::kPaused:
            return "paused";
        case RunState::kEnded:
            break;
    }
    return "ended";
}

Result<std::unique_ptr<Machine>> Machine::create(const GuestConfig& config, ConsoleOutput& output) {
    IVMM_ASSIGN(auto machine, KvmMachine::create(config, output));
    return std::unique_ptr<Machine>(std::move(machine));
}

}  // namespace ivmm

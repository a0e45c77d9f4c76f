#pragma once

#include <cstdint>

#include "vmm/machine/machine_state.h"

namespace ivmm::peer {

/// How old a state is, by the clock of the host that has saved it, in nanoseconds.
uint64_t age_of(const MachineState& state);

/// Makes a state that another host has saved, `age_ns` ago, one of this host, so that the guest's
/// clocks go on here as if it had been saved here then.
void move_to_this_host(MachineState& state, uint64_t age_ns);

}  // namespace ivmm::peer

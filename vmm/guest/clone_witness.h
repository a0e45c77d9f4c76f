#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/state_codec.h"
#include "base/timer.h"
#include "base/unique_fd.h"
#include "vmm/console/console_hub.h"
#include "vmm/control/json_rpc.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/machine_state.h"

namespace ivmm {

/// The registers of all vCPUs at an instant.
struct Registers {
    static constexpr uint32_t kVersion = 1;
    std::vector<VcpuState> vcpus;

    template <class Visitor, class Self>
    static void fields(Visitor& visit, Self& self) {
        visit(self.vcpus);
    }
};

/// What a clone was at the instant of its fork, before its hook.
struct ForkPoint {
    UniqueFd image;  ///< of its memory, open for reading
    Registers registers;
};

/// Keeps what only a clone's process knows of it, for `ivmm evidence`: its fork point, what it has
/// printed, and how much it has written over time. On the control thread, which is the loop's.
class CloneWitness {
 public:
    /// The clone's life begins now. All but `fork_point` must outlive this.
    static Result<std::unique_ptr<CloneWitness>> begin(ForkPoint fork_point, Machine& machine,
                                                       ConsoleHub& console, EventLoop& loop);
    CloneWitness(const CloneWitness&) = delete;
    CloneWitness& operator=(const CloneWitness&) = delete;

    /// The answer to `evidence` (docs/control-socket.md).
    rpc::Json testify();
    /// Leaves what is known without this process in a file, for after the clone's end.
    Result<void> leave(const std::string& path);

 private:
    struct Sample {
        std::chrono::system_clock::time_point time;
        uint64_t memory_bytes = 0;  // that the process has for itself
        uint64_t disk_bytes = 0;    // that the guest has had written
    };

    CloneWitness(ForkPoint fork_point, Machine& machine, ConsoleHub& console)
        : fork_point_(std::move(fork_point)), machine_(machine), console_(console) {}
    void look();
    rpc::Json what_is_known();

    const ForkPoint fork_point_;
    Machine& machine_;
    ConsoleHub& console_;
    std::vector<Sample> samples_;
    std::chrono::seconds interval_{1};
    Timer timer_;
};

}  // namespace ivmm

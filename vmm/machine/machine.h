#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "devices/console_port.h"
#include "memory/guest_memory.h"
#include "vmm/config/guest_config.h"
#include "vmm/machine/dirty_tracker.h"
#include "vmm/machine/machine_state.h"

namespace ivmm {

/// How a guest's life ended.
struct Ending {
    enum class Reason {
        kPowerOff,  ///< the guest powered itself off
        kReset,     ///< the guest asked for a reset; ivmm ends instead
        kStopped,   ///< Machine::stop()
        kTripleFault,
        kEmulationFailure,  ///< KVM could not go on (KVM_EXIT_INTERNAL_ERROR, FAIL_ENTRY)
        kPanic,             ///< the guest's kernel reported a panic (pvpanic)
        kHostError,         ///< a system call failed that must not fail
    };
    Reason reason = Reason::kPowerOff;
    std::string message;  ///< one line (more for an emulation failure) for the user

    /// 0 for power-off, reset and stop; 1 for the others.
    int exit_code() const;
    /// "power-off", "reset", …: for scripts.
    const char* reason_name() const;
};

enum class RunState { kCreated, kRunning, kPaused, kEnded };
const char* run_state_name(RunState state);

struct VcpuStatus {
    uint64_t exits = 0;  ///< KVM_RUN returns so far
};

struct DeviceStatus {
    std::string name;    ///< "blk0"
    std::string kind;    ///< "virtio-blk"
    std::string detail;  ///< what it stands on: a path, a TAP's name
};

/// A snapshot of facts for `ivmm status`.
struct MachineStatus {
    RunState state = RunState::kCreated;
    uint64_t memory_bytes = 0;
    uint64_t memory_resident_bytes = 0;  ///< of guest memory: pages that take host memory
    uint64_t memory_shared_bytes = 0;    ///< of the image that it shares with other clones
    uint64_t disk_written_bytes = 0;     ///< by the guest, since the machine was made
    std::string host_kind;               ///< "kvm_intel", "kvm_amd", "kvm_pvm"
    std::string kernel_command_line;     ///< as the guest gets it
    std::vector<VcpuStatus> vcpus;
    std::vector<DeviceStatus> devices;
};

/// One guest: memory, KVM, devices and the threads that run them.
///
/// All members are called on one thread (the control thread), which must not be the device loop.
class Machine {
 public:
    using EndCallback = std::function<void(const Ending&)>;

    /// Builds the guest and loads its kernel; no vCPU runs yet. `output` gets what the guest
    /// prints and must outlive the machine.
    static Result<std::unique_ptr<Machine>> create(const GuestConfig& config,
                                                   ConsoleOutput& output);
    virtual ~Machine() = default;

    /// Lets the vCPUs run. `on_end` is called once, on any thread, when the guest's life has
    /// ended; the machine must not be destroyed from within the call.
    virtual Result<void> start(EndCallback on_end) = 0;
    /// Returns when no vCPU runs guest code and no device works. Nothing to do: success.
    virtual Result<void> pause() = 0;
    virtual Result<void> resume() = 0;
    /// Ends the guest at once, like a power cut; what its disks have acknowledged as flushed is
    /// on the medium. `on_end` is called.
    virtual void stop() = 0;

    /// Everything but the memory. Only while paused, and the same until resume().
    virtual Result<MachineState> save() = 0;
    /// The memory that belongs to it. Any thread may copy pages of it.
    virtual GuestMemory& memory() = 0;
    /// Begins to record which pages change (DirtyTracker).
    virtual Result<std::unique_ptr<DirtyTracker>> track_dirty() = 0;
    /// What it is made of, with everything that was left to ivmm to choose.
    virtual const GuestConfig& config() const = 0;

    virtual RunState state() const = 0;
    virtual MachineStatus status() = 0;
    /// What the guest has had written to its disks, since the machine was made.
    virtual uint64_t disk_written_bytes() const = 0;
    /// Takes what the user types.
    virtual ConsoleInput& console_input() = 0;
};

}  // namespace ivmm

#pragma once

#include <memory>
#include <string>

#include "vmm/fork/fork_target.h"
#include "vmm/fork/standby.h"
#include "vmm/machine/machine.h"

namespace ivmm {

/// A standby on this host: a replica, and a process with a paused clone over it.
class LocalTarget final : public ForkTarget {
 public:
    /// Returns when the clone is complete. `program`: what its process executes. The machine must
    /// outlive the target. Errors: the host has too little memory, the process cannot be had.
    static Result<std::unique_ptr<ForkTarget>> create(Machine& machine, const std::string& program);
    ~LocalTarget() override { give_image_away(); }

    Result<Progress> sync() override;
    bool in_sync() const override { return true; }
    Result<void> prepare(const ForkRequest& request) override;
    Result<uint32_t> approach() override { return synchroniser_->approach(); }
    Result<Synchroniser::Round> last_round() override { return synchroniser_->last_round(); }
    Result<Started> start(const MachineState& state, const std::vector<ForkedDisk>& disks) override;
    bool spent() const override { return spent_; }
    /// Keeps the record of what the guest writes, and the replica unless a clone has it.
    Result<bool> renew() override;
    bool uses_disks() const override { return true; }
    int lost_fd() const override { return standby_->pidfd(); }
    pid_t pid() const override { return standby_->pid(); }
    std::optional<Child> take_child() override;
    Result<UniqueFd> open_image() const override {
        return synchroniser_->replica().open_for_reading();
    }
    Synchroniser* lend_synchroniser() override { return synchroniser_.get(); }

 private:
    LocalTarget(Machine& machine, std::string program)
        : machine_(machine), program_(std::move(program)) {}
    Result<void> launch();
    /// The clone has it mapped, and keeps it; from now on nobody can change it any more.
    void give_image_away();

    Machine& machine_;
    const std::string program_;
    std::unique_ptr<Synchroniser> synchroniser_;
    std::unique_ptr<Standby> standby_;
    std::unique_ptr<Replica> image_;  // of a clone that runs
    bool spent_ = false;
};

/// A synchroniser with an empty replica. `what` needs it, for the message when the host has too
/// little memory.
Result<std::unique_ptr<Synchroniser>> start_synchroniser(Machine& machine, const char* what);

}  // namespace ivmm

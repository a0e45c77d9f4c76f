#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/log.h"
#include "vmm/fork/fork_target.h"
#include "vmm/machine/dirty_tracker.h"
#include "vmm/machine/machine.h"
#include "vmm/peer/link.h"
#include "vmm/peer/page_sender.h"

namespace ivmm::peer {

/// A standby on another host. The link may be slow or cut, and the other host gone: then the
/// replica lags behind, and goes on from where it was when the link is there again. Nothing of
/// that keeps the machine waiting.
class RemoteTarget final : public ForkTarget {
 public:
    struct Options {
        std::string address;  ///< "HOST:PORT" of an `ivmm standby --listen`
        std::string keys;     ///< folder (keys.h)
        int interrupt = -1;   ///< a descriptor of the caller's: when it is readable, nothing waits
    };
    /// Returns when the other host has agreed. The machine must outlive the target. Errors: that
    /// host does not answer, does not trust this one, cannot run this machine.
    static Result<std::unique_ptr<ForkTarget>> create(Machine& machine, Options options);
    /// The other host need not keep the replica any longer.
    ~RemoteTarget() override;

    Result<Progress> sync() override;
    bool in_sync() const override { return ready_ && complete_; }
    Result<void> prepare(const ForkRequest& request) override;
    Result<uint32_t> approach() override;
    Result<Synchroniser::Round> last_round() override;
    Result<Started> start(const MachineState& state, const std::vector<ForkedDisk>& disks) override;
    bool spent() const override { return false; }
    bool uses_disks() const override { return uses_disks_; }
    int lost_fd() const override { return -1; }
    pid_t pid() const override { return 0; }
    std::optional<Child> take_child() override { return std::nullopt; }
    Synchroniser* lend_synchroniser() override;

 private:
    using Clock = std::chrono::steady_clock;

    RemoteTarget(Machine& machine, Options options);
    Result<void> connect();
    /// The link is of no use any more.
    void cut(const Error& error);
    Result<void> collect();
    /// Collects and sends for about so long. Errors: of the link.
    Result<void> send_pages(Clock::time_point end);
    Result<void> send_batch(const PageSender::Source& source);
    /// Takes what the other side has said meanwhile.
    Result<void> hear(Clock::time_point until);
    Result<void> take(const Frame& frame);
    /// The next message of this type; what else comes meanwhile is taken.
    template <StateStruct Message>
    Result<Message> answer(std::chrono::milliseconds patience);
    Result<void> send_residue();
    Result<void> send_disks(const std::vector<ForkedDisk>& disks);
    Result<Started> start_clone(const MachineState& state);
    /// Puts the other host's name and what was being done in front of an error, and cuts the link.
    Unexpected failed(Error error, const char* step);

    Machine& machine_;
    const Options options_;
    Hello hello_;
    std::optional<Link> link_;
    Clock::time_point retry_at_;
    std::string trouble_;
    log::Throttle warnings_;
    PageSender sender_;
    std::unique_ptr<DirtyTracker> tracker_;
    bool ready_ = false;                  // a paused clone waits there
    bool prepared_ = false;               // it has been named
    bool complete_ = false;               // everything has been there once
    std::optional<uint64_t> first_copy_;  // the batch that ends the first copy, once it is known
    std::string clone_;                   // its name there
    bool uses_disks_ = false;
    uint64_t dirty_ = 0;        // pages that the last collection has found
    uint64_t sent_before_ = 0;  // bytes, over links that are no more

    /// What was left at the instant of a fork.
    std::vector<std::byte> residue_;
    std::vector<PageRun> residue_runs_;
};

}  // namespace ivmm::peer

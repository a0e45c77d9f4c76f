#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "memory/replica.h"
#include "vmm/fork/fork_target.h"
#include "vmm/fork/standby.h"
#include "vmm/peer/disk_receiving.h"
#include "vmm/peer/link.h"

namespace ivmm::peer {

/// What the user of the standby's host has decided.
struct HostOptions {
    std::string keys;
    DiskPlaces disks;
    std::vector<NetConfig> nets;  ///< cables of the first network devices of each clone
    CloneHook hook;
    CloneLimits limits;
};

/// One replica of another host's guest, and the paused clone over it. Lives on when its connection
/// ends. One thread at a time.
class Session {
 public:
    using OnClone = std::function<void(ForkTarget::Child)>;

    /// Errors: that guest cannot run here.
    static Result<std::unique_ptr<Session>> create(const Hello& hello, const HostOptions& options);

    /// Serves a connection until it ends; the error says why. `on_clone` takes over each clone.
    Error serve(Link& link, bool fresh, const OnClone& on_clone);
    /// Whether another connection can go on with it.
    bool can_go_on() const { return replica_ != nullptr; }

 private:
    /// A clone from its name to its start.
    struct Forking {
        std::string clone;
        std::unique_ptr<DiskReceiving> disks;
    };
    Session(const HostOptions& options, const Hello& hello) : options_(options), hello_(hello) {}
    Result<void> run(Link& link, const OnClone& on_clone);
    Result<void> stand_by();
    Result<void> apply(Link& link, const Frame& frame);
    Result<Forking> prepare(Link& link, const Frame& frame);
    Result<void> fork(Link& link, Forking forking, const OnClone& on_clone);
    Result<void> start(Link& link, const Frame& frame, Forking& forking, const OnClone& on_clone);
    /// Errors: there is hardly any memory left.
    static Result<void> check_memory(uint64_t needed);

    HelloMessage hello_message() const;

    const HostOptions& options_;
    Hello hello_;
    std::unique_ptr<Replica> replica_;
    std::unique_ptr<Standby> standby_;
    uint64_t applied_ = 0;
};

}  // namespace ivmm::peer

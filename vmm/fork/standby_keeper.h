#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/fork/fork_report.h"
#include "vmm/fork/fork_target.h"
#include "vmm/fork/stopwatch.h"
#include "vmm/machine/machine.h"

namespace ivmm {

/// Keeps a standby of a machine in sync, forks the machine to it, and builds the next one.
///
/// Made, called and destroyed on the control thread; everything is done on a thread of its own,
/// which is there once it is needed. What is asked for is done in order.
class StandbyKeeper {
 public:
    struct Options {
        std::string program = "/proc/self/exe";  ///< what the standby's process executes
        double interval_ms = 100;                ///< least time between two rounds
        double max_interval_ms = 1000;
        double cpu_share = 0.05;   ///< of one processor, that rounds take; else they come later
        uint32_t max_clones = 16;  ///< that run at the same time
        bool recycle = false;      ///< the oldest is stopped when there would be more
    };

    /// `control`: the loop of the control thread. Both must outlive the keeper.
    static Result<std::unique_ptr<StandbyKeeper>> create(Machine& machine, EventLoop& control) {
        return create(machine, control, Options());
    }
    static Result<std::unique_ptr<StandbyKeeper>> create(Machine& machine, EventLoop& control,
                                                         Options options);
    StandbyKeeper(const StandbyKeeper&) = delete;
    StandbyKeeper& operator=(const StandbyKeeper&) = delete;
    /// Ends the standby. Clones go on.
    ~StandbyKeeper();

    /// `done` is called on the keeper's thread.
    template <class T>
    using Done = std::function<void(Result<T>)>;

    /// From now on there is a standby; `done` (may be empty) when it is in sync.
    void keep_standby(Done<void> done);
    /// From now on there is a standby that `make` makes, in the place of any other; `where`: what
    /// it is called. `done` (may be empty) when it was made, which need not be in sync yet.
    void keep_target(std::string where, TargetFactory make, Done<void> done);
    /// Ends the standby, and keeps none from now on.
    void drop_standby(Done<void> done);
    /// Forks. Without a standby in sync, one is made first.
    void fork(ForkRequest request, Done<ForkReport> done);

    /// Lends, on the keeper's thread and for as long as the call takes, what keeps a replica of the
    /// memory in sync: the standby's, or without a standby one that begins with an empty replica.
    /// Everything else that is asked for waits. Errors: the host has too little memory for one.
    void use_synchroniser(std::function<void(Result<Synchroniser*>)> use);

    /// Any thread.
    StandbyStatus status() const;

 private:
    StandbyKeeper(Machine& machine, EventLoop& control, Options options)
        : machine_(machine), control_(control), options_(std::move(options)) {}

    /// A clone that this process is the parent of.
    struct Clone {
        uint64_t number = 0;  // the older the smaller
        UniqueFd pidfd;
        EventLoop::Watch watch;
    };

    void post(EventLoop::Task task);

    // On the keeper's thread.
    Result<void> build();
    Result<void> build_target();
    bool is_ready() const { return target_ && !stale_; }
    void discard();
    /// The target is of no use any more; whether there is to be a next one is up to make_.
    void replace_target();
    Result<ForkReport> fork_now(const ForkRequest& request, const Stopwatch& trigger);
    /// For so many clones more.
    Result<void> check_room(uint32_t more) const;
    /// Ends the oldest ones, if there are too many.
    void recycle();
    void end_oldest_clone();
    void adopt(ForkTarget::Child child);
    void forget_clone(pid_t pid);
    void tick();
    Result<void> sync();
    void arm(double milliseconds);
    void set_phase(StandbyStatus::Phase phase, std::string error = {});
    StandbyStatus::Phase phase_of_target() const;
    TargetFactory local() const;

    Machine& machine_;
    EventLoop& control_;
    const Options options_;

    mutable std::mutex mutex_;  // guards status_; nothing else is locked while it is held
    StandbyStatus status_;

    // On the keeper's thread, which ends before they do.
    TargetFactory make_;  // empty: no standby is wanted
    std::string where_;   // of the target that make_ makes; empty: this host
    std::unique_ptr<ForkTarget> target_;
    bool stale_ = false;  // the target has to be renewed before it can be used
    EventLoop::Watch target_watch_;
    UniqueFd timer_;
    EventLoop::Watch timer_watch_;
    std::map<pid_t, Clone> clones_;
    uint64_t forks_ = 0;
    uint64_t adopted_ = 0;

    std::unique_ptr<LoopThread> thread_;
};

}  // namespace ivmm

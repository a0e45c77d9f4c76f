#pragma once

#include <chrono>
#include <memory>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/timer.h"
#include "vmm/config/clone_settings.h"
#include "vmm/control/json_rpc.h"
#include "vmm/control/metrics.h"

namespace ivmm {

/// Keeps a clone within its limits. On the control thread, which is the loop's.
class CloneLife {
 public:
    struct Reaction {
        std::function<void()> stop;
        std::function<void()> pause;
    };
    /// The clone's life begins now. `loop` must outlive this.
    static Result<std::unique_ptr<CloneLife>> begin(const CloneLimits& limits, EventLoop& loop,
                                                    Reaction reaction);
    CloneLife(const CloneLife&) = delete;
    CloneLife& operator=(const CloneLife&) = delete;

    /// Adds what there is to say to the answer of `status` (docs/control-socket.md).
    void describe(rpc::Json& status) const;
    /// Likewise to the metrics (docs/metrics.md).
    void add_to(Metrics& metrics) const;

 private:
    using Clock = std::chrono::steady_clock;
    CloneLife(const CloneLimits& limits, Reaction reaction)
        : limits_(limits), reaction_(std::move(reaction)) {}
    void look();
    double left_s() const;

    const CloneLimits limits_;
    const Reaction reaction_;
    const Clock::time_point end_ = Clock::now() + std::chrono::seconds(limits_.lifetime_s);
    bool over_memory_ = false;
    Timer timer_;
};

}  // namespace ivmm

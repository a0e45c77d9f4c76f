#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/control/control_server.h"
#include "vmm/watch/actions.h"
#include "vmm/watch/decider.h"
#include "vmm/watch/decision_log.h"
#include "vmm/watch/eve_ledger.h"

namespace ivmm::watch {

/// Takes alerts from wherever they come, has them decided, has the decisions carried out and
/// logged, and counts it all. Serves the control socket's methods (docs/watch.md). All on the
/// loop's thread.
class Watcher {
 public:
    /// Adds the methods to the server. What is given must outlive this.
    static Result<std::unique_ptr<Watcher>> create(std::string guest, Rules rules, DecisionLog log,
                                                   EventLoop& loop, ControlServer& control);
    Watcher(const Watcher&) = delete;
    Watcher& operator=(const Watcher&) = delete;

    const Rules& rules() const { return decider_.rules(); }
    /// A line of EVE. If they come both ways, each is taken once.
    void take_eve(std::string_view line, EveLedger::Way way);
    Decision take(const Alert& alert);
    /// From now on, what has come one way is not taken again when it comes the other.
    void reconcile() { reconciles_ = true; }

 private:
    using Json = rpc::Json;

    struct Counters {
        uint64_t alerts = 0;
        uint64_t other_events = 0;          ///< of EVE, not alerts
        uint64_t malformed = 0;             ///< lines of EVE
        uint64_t duplicates = 0;            ///< came both ways
        uint64_t reconciled = 0;            ///< came by the file alone, or first
        uint64_t unmatched = 0;             ///< no rule fits, or not often enough yet
        std::array<uint64_t, 3> decided{};  ///< by action
        std::array<uint64_t, 3> done{};
        std::array<uint64_t, 3> failed{};
        std::array<uint64_t, static_cast<size_t>(Withheld::kCount)> withheld{};
    };

    Watcher(std::string guest, Rules rules, DecisionLog log, ControlServer& control);
    void ended(const Alert& alert, const Rule& rule, const Result<Json>& outcome);
    void tell(const Json& line);

    Result<Json> status(const Json& params);
    Result<Json> metrics(const Json& params);
    Result<Json> alert(const Json& params);

    const std::string guest_;
    ControlServer& control_;
    Decider decider_;
    DecisionLog log_;
    EveLedger ledger_;
    bool reconciles_ = false;
    Counters counters_;
    std::unique_ptr<Actions> actions_;
    const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

}  // namespace ivmm::watch

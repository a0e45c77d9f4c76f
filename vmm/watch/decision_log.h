#pragma once

#include <map>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/control/json_rpc.h"
#include "vmm/watch/alert.h"
#include "vmm/watch/decider.h"

namespace ivmm::watch {

/// Why something is done: the rule, its reason and the alert, for the record of a clone.
rpc::Json cause_of(const Alert& alert, const Decision& decision);

/// What was decided and what has become of it, as JSON, one object a line in ASCII (docs/watch.md).
/// Of one kind at most 10 a second are told, the rest is counted. One thread.
class DecisionLog {
 public:
    /// `sensor`: the guest. `path` empty: no file.
    static Result<DecisionLog> open(std::string sensor, const std::string& path);

    /// Null: not told. `decision.rule` must be there.
    rpc::Json decided(const Alert& alert, const Decision& decision, bool dry_run, uint64_t now_ms);
    /// Of an action that was carried out.
    rpc::Json ended(const Alert& alert, const Rule& rule, const Result<rpc::Json>& outcome,
                    uint64_t now_ms);

 private:
    struct Told {
        uint64_t second = 0;
        uint32_t count = 0;
        uint64_t suppressed = 0;
    };
    rpc::Json write(const Alert& alert, const Rule& rule, const char* event, std::string reason,
                    const rpc::Json& more, uint64_t now_ms);

    std::string sensor_;
    UniqueFd file_;
    std::map<std::string, Told> told_;  // by event
};

}  // namespace ivmm::watch

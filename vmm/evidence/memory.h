#pragma once

#include <string>

#include "base/result.h"
#include "vmm/control/json_rpc.h"
#include "vmm/evidence/bundle.h"
#include "vmm/evidence/collect.h"

namespace ivmm::evidence {

/// Memory and registers of a clone that runs, at its fork. `fork_point`: as its process tells
/// (docs/control-socket.md, `evidence`), or null.
Result<void> add_fork_memory(Bundle& bundle, const rpc::Json& fork_point,
                             const OnProgress& progress);

/// The same as a snapshot of it has them. Which pages have changed since the fork, and which
/// programs were started, are told in memory.json; gives its content, or null.
Result<rpc::Json> add_memory(Bundle& bundle, const std::string& snapshot,
                             const rpc::Json& fork_point, const OnProgress& progress);

}  // namespace ivmm::evidence

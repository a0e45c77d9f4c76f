#pragma once

#include <string>

#include "base/result.h"
#include "vmm/control/json_rpc.h"
#include "vmm/evidence/bundle.h"
#include "vmm/evidence/collect.h"

namespace ivmm::evidence {

/// Memory and registers of a clone that runs: as a snapshot of it has them, and at its fork.
/// `fork_point`: as its process tells (docs/control-socket.md, `evidence`), or null. Which pages
/// have changed since then, and which programs were started, are told in memory.json; gives its
/// content, or null.
Result<rpc::Json> add_memory(Bundle& bundle, const std::string& snapshot,
                             const rpc::Json& fork_point, const OnProgress& progress);

}  // namespace ivmm::evidence

#pragma once

#include <vector>

#include "base/result.h"
#include "storage/fuse/server.h"
#include "vmm/control/json_rpc.h"

/// What travels over the control socket of an overlay server (docs/overlay.md).
namespace ivmm::overlay {

inline constexpr uint32_t kMaxThreads = 64;

/// The parameters of `mount` but for the view: mountpoint, threads, read_only. Errors: kUsage.
Result<storage::MountOptions> mount_options_from(const rpc::Json& params);
/// The parameter `targets` of `fork`. Errors: kUsage.
Result<std::vector<storage::ForkTarget>> fork_targets_from(const rpc::Json& params);

rpc::Json to_json(const storage::MountStatus& status);
rpc::Json to_json(const storage::FlattenReport& report);
/// `targets` as the fork was asked for them.
rpc::Json to_json(const storage::ForkReport& report,
                  const std::vector<storage::ForkTarget>& targets);

}  // namespace ivmm::overlay

#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "vmm/control/json_rpc.h"

namespace ivmm::cli {

struct SnapshotOptions {
    std::string guest;
    std::string folder;
    std::optional<std::string> base;
    bool stop = false;
    bool as_json = false;
    /// Called at most once, if it is there: the guest has stood still, and goes on; what is left to
    /// do takes longer. A quick snapshot may be over before that is seen.
    std::function<void()> on_instant;
};

/// The folder whatever this process's is, without a slash at its end.
std::string absolute_folder(const std::string& path);

/// Has a guest make a snapshot, and waits for it: shows how far it is, and cancels it on a signal.
/// What the guest has answered (docs/control-socket.md).
Result<rpc::Json> make_snapshot(const SnapshotOptions& options);

}  // namespace ivmm::cli

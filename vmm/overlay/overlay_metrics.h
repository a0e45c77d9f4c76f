#pragma once

#include <vector>

#include "storage/fuse/server.h"
#include "vmm/control/metrics.h"

namespace ivmm::overlay {

/// What an overlay server counts (docs/metrics.md).
Metrics overlay_metrics(const std::vector<storage::MountStatus>& mounts);

}  // namespace ivmm::overlay

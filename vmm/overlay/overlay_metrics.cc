#include "vmm/overlay/overlay_metrics.h"

namespace ivmm::overlay {

Metrics overlay_metrics(const std::vector<storage::MountStatus>& mounts) {
    Metrics metrics = process_metrics();
    for (const auto& mount : mounts) {
        const Metrics::Labels labels{{"view", mount.view}, {"mountpoint", mount.mountpoint}};
        metrics.gauge("ivmm_overlay_layers", "Layers and branches of a mounted view.", mount.depth,
                      labels);
        metrics.gauge("ivmm_overlay_inodes", "Files of the view that the kernel knows.",
                      static_cast<double>(mount.inodes), labels);
        metrics.gauge("ivmm_overlay_open_files", "Open files of the view.",
                      static_cast<double>(mount.open_files), labels);
        metrics.counter("ivmm_overlay_forks_total", "Forks of the view since it was mounted.",
                        static_cast<double>(mount.forks), labels);
        metrics.gauge("ivmm_overlay_durable", "0: what is written may not be on the medium.",
                      mount.error.empty() ? 1 : 0, labels);
    }
    return metrics;
}

}  // namespace ivmm::overlay
